//! One S3 server on a folder, as `scripts/tool.sh s3` fetches it.

use std::{fs, net::TcpStream, path::PathBuf, process::Command};

use super::{free_port, server::Server};
use crate::root;

/// The server refuses requests that are not signed with it.
const SECRET: &str = "a-secret-that-nobody-sees";

/// Dropping it ends the server and removes its data.
pub struct S3 {
    server: Server,
    port: u16,
}

impl S3 {
    /// The one bucket it has.
    pub const BUCKET: &str = "blobs";

    /// On an empty bucket; returns when it can be connected to.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let mut s3 = Self { server: Server::new("s3"), port: free_port() };
        fs::create_dir_all(s3.bucket()).expect("the folder is ours");
        s3.start_again();
        s3
    }

    /// Environment variables of a process that uses it.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let all = [("AWS_ENDPOINT_URL", &*endpoint), ("AWS_ACCESS_KEY_ID", "tests"), ("AWS_SECRET_ACCESS_KEY", SECRET)];
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// Where it keeps its objects, each in a file named by its key.
    #[must_use]
    pub fn bucket(&self) -> PathBuf {
        self.data().join(Self::BUCKET)
    }

    /// As a crash would.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// On the data and the port that it had.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub fn start_again(&mut self) {
        let (data, port) = (self.data(), self.port);
        let command = || {
            let mut command = Command::new(root().join(".cache/s3/bin/s3s-fs"));
            command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--access-key", "tests", "--secret-key", SECRET]).arg(&data);
            command
        };
        self.server.start(command, |_| TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    fn data(&self) -> PathBuf {
        self.server.folder().join("data")
    }
}
