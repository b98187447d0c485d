//! One OCI registry, of Debian's package `docker-registry`.

use std::{fs, net::TcpStream, process::Command};

use super::{free_port, server::Server};

/// Dropping it ends the server and removes what it holds.
pub struct Registry {
    _server: Server,
    port: u16,
}

impl Registry {
    /// Empty; returns when it can be connected to.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let (mut server, port) = (Server::new("registry"), free_port());
        let settings = server.folder().join("registry.yml");
        let data = server.folder().join("data");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            data.display()
        );
        fs::write(&settings, text).expect("the folder is ours");
        let command = || {
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(&settings);
            command
        };
        server.start(command, |_| TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { _server: server, port }
    }

    /// What stands behind `oci://`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
