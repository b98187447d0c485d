//! A road to a server that can be cut: nothing comes through any more, and nobody is told.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// Some packets at a time.
const CHUNK: usize = 64 << 10;

/// From a port of its own to the server's.
pub struct Proxy {
    port: u16,
    road: Arc<Road>,
}

#[derive(Default)]
struct Road {
    cut: Mutex<bool>,
    mended: Condvar,
}

impl Road {
    fn wait_until_open(&self) {
        let cut = self.cut.lock().expect("no holder panics");
        drop(self.mended.wait_while(cut, |cut| *cut).expect("no holder panics"));
    }
}

impl Proxy {
    /// Listens on `port` for connections to `server`.
    ///
    /// # Panics
    /// When the port is taken.
    #[must_use]
    pub fn start(port: u16, server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let road = Arc::new(Road::default());
        thread::spawn({
            let road = road.clone();
            move || listener.incoming().flatten().for_each(|client| connect(client, server, &road))
        });
        Self { port, road }
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What was sent and did not arrive yet arrives after [`Proxy::mend`].
    ///
    /// # Panics
    /// Never: no holder of the lock does.
    pub fn cut(&self) {
        *self.road.cut.lock().expect("no holder panics") = true;
    }

    /// # Panics
    /// Never: no holder of the lock does.
    pub fn mend(&self) {
        *self.road.cut.lock().expect("no holder panics") = false;
        self.road.mended.notify_all();
    }
}

fn connect(client: TcpStream, server: u16, road: &Arc<Road>) {
    // A server that is down refuses, and so do we.
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { return };
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (from, to) = (from.try_clone(), to.try_clone());
        let (Ok(from), Ok(to)) = (from, to) else { return };
        let road = road.clone();
        thread::spawn(move || forward(from, to, &road));
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, road: &Road) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(read) = from.read(&mut chunk) {
        road.wait_until_open();
        if read == 0 || to.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    let _gone = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}
