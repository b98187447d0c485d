//! What the servers have in common: a process, its output, and a folder.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;

use super::{folder, spawn};
use crate::{DEADLINE, process::signal, wait_for};

/// What a PostgreSQL says whose predecessor was killed: the last processes of that still hold its memory.
const NOT_YET: &str = "is still in use";

/// Dropping it ends the process and removes the folder.
pub(super) struct Server {
    name: &'static str,
    folder: PathBuf,
    process: Option<Child>,
}

impl Server {
    /// With an empty folder, and not started yet.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, folder: folder(name).expect("a folder for the server"), process: None }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts it, and waits until `is_up` finds so in what it said.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub(super) fn start(&mut self, command: impl Fn() -> Command, is_up: impl Fn(&str) -> bool) {
        let output = self.folder.join("output");
        let said = || fs::read_to_string(&output).unwrap_or_default();
        let begin = || {
            let log = File::create(&output).expect("the folder is ours");
            let mut command = command();
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
            spawn(command).unwrap_or_else(|e| panic!("{} cannot be run ({e}): scripts/setup.sh --tests", self.name))
        };
        let mut process = begin();
        wait_for(&format!("{} to start", self.name), DEADLINE, || {
            if let Some(end) = process.try_wait().expect("a child of ours can be waited for") {
                assert!(said().contains(NOT_YET), "{} ended with {end}:\n{}", self.name, said());
                process = begin();
            }
            is_up(&said()).then_some(())
        });
        self.process = Some(process);
    }

    /// # Panics
    /// When it is not running.
    pub(super) fn pid(&self) -> u32 {
        self.process.as_ref().expect("it is running").id()
    }

    /// # Panics
    /// When it is not running.
    pub(super) fn signal(&self, to_send: Signal) {
        signal(self.pid(), to_send);
    }

    /// As a crash would: nothing is flushed, nobody is told.
    ///
    /// # Panics
    /// When it is not running.
    pub(super) fn kill(&mut self) {
        let mut process = self.process.take().expect("it is running");
        process.kill().and_then(|()| process.wait()).expect("a child of ours can be killed");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}
