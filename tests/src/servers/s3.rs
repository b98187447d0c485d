//! One S3 server on a folder, as `scripts/s3.sh` fetches it.

use std::{
    fs::{self, File},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::{folder, free_port, spawn};
use crate::{DEADLINE, root, wait_for};

/// The server refuses requests that are not signed with it.
const SECRET: &str = "a-secret-that-nobody-sees";

/// Dropping it ends the server and removes its data.
pub struct S3 {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
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
        let folder = folder("s3").expect("a folder for the server");
        fs::create_dir_all(folder.join("data").join(Self::BUCKET)).expect("the folder is ours");
        let mut s3 = Self { folder, port: free_port(), process: None };
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
        self.folder.join("data").join(Self::BUCKET)
    }

    /// As a crash would.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it is running");
        process.kill().and_then(|()| process.wait()).expect("a child of ours can be killed");
    }

    /// On the data and the port that it had.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub fn start_again(&mut self) {
        let output = self.folder.join("output");
        let log = File::create(&output).expect("the folder is ours");
        let mut command = Command::new(root().join(".cache/s3/bin/s3s-fs"));
        command.args(["--host", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--access-key", "tests", "--secret-key", SECRET]).arg(self.folder.join("data"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let mut process = spawn(command).expect("the S3 server is there; scripts/setup.sh --tests installs it");
        wait_for("the S3 server to start", DEADLINE, || {
            let ended = process.try_wait().expect("a child of ours can be waited for");
            assert!(ended.is_none(), "it ended with {ended:?}:\n{}", fs::read_to_string(&output).unwrap_or_default());
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        self.process = Some(process);
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}
