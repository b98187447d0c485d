//! `framehook up` as a user runs it.

use std::{
    fs::{self, File},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    DEADLINE,
    client::Client,
    executables,
    process::{children_of, is_alive, signal, workers_of},
    wait_for,
};

/// One platform at a time: eight workers on two cores would only wait for each other, and a test that measures
/// promptness would measure its neighbours.
static ALONE: Mutex<()> = Mutex::new(());

/// Waits until no other platform of this test process runs.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    // A test that failed while it held this says nothing about the next.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running platform. Dropping it ends its processes; the folder of its logs goes with it.
pub struct Platform {
    folder: TempDir,
    data: PathBuf,
    arguments: Vec<String>,
    /// Most files that it may have open, if not as many as this process.
    files: Option<u32>,
    process: Option<Child>,
    client: Client,
    _alone: MutexGuard<'static, ()>,
}

impl Platform {
    /// On an empty folder, with these further arguments of `framehook up`.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_on(|_| {}, arguments)
    }

    /// On what `lay` puts into the data folder, with these further arguments of `framehook up`.
    #[must_use]
    pub fn start_on(lay: impl FnOnce(&Path), arguments: &[&str]) -> Self {
        Self::start_as(None, None, lay, arguments)
    }

    /// On an empty folder, where so few files may be open.
    #[must_use]
    pub fn start_with_files(files: u32, arguments: &[&str]) -> Self {
        Self::start_as(Some(files), None, |_| {}, arguments)
    }

    /// On a data folder of the test's own, which stays.
    #[must_use]
    pub fn on(data: &Path, arguments: &[&str]) -> Self {
        Self::start_as(None, Some(data.to_owned()), |_| {}, arguments)
    }

    fn start_as(files: Option<u32>, data: Option<PathBuf>, lay: impl FnOnce(&Path), arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = data.unwrap_or_else(|| folder.path().join("data"));
        let alone = alone();
        let mut platform = Self {
            folder,
            data,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            files,
            process: None,
            client: Client::of(""),
            _alone: alone,
        };
        lay(&platform.data());
        platform.up();
        platform
    }

    /// On an empty folder, with the demo model, clip and stock plugins uploaded.
    #[must_use]
    pub fn with_demo(arguments: &[&str]) -> Self {
        let platform = Self::start(arguments);
        platform.upload_demo();
        platform
    }

    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// What the process wrote to stderr so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Starts the process on whatever the folder holds.
    pub fn up(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let _gone = fs::remove_file(self.data().join("url"));
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log file");
        let out = File::options().create(true).append(true).open(self.folder.path().join("out")).expect("a log file");
        let executable = executables().join("framehook");
        let mut command = match self.files {
            Some(files) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" \"$@\"")).arg(executable);
                shell
            }
            None => Command::new(executable),
        };
        let child = command
            .args(["up", "--port", "0", "--data"])
            .arg(self.data())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(log)
            .spawn()
            .expect("target/release/framehook is missing: run `make build`");
        let child = self.process.insert(child);
        let url = self.data.join("url");
        let mut ended = None;
        let found = wait_for("framehook up to write its address", DEADLINE, || {
            ended = child.try_wait().expect("a child can be waited for");
            let address = fs::read_to_string(&url).unwrap_or_default();
            (ended.is_some() || !address.is_empty()).then_some(address)
        });
        assert!(ended.is_none(), "framehook up ended: {}", self.log());
        self.client = Client::of(&found);
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the platform runs").id()
    }

    /// The worker processes that have a job, as children of this one; a spare has none, and its executable's name.
    #[must_use]
    pub fn workers(&self) -> Vec<u32> {
        workers_of(self.pid())
    }

    /// Sends a signal to every worker.
    pub fn signal_workers(&self, to_send: Signal) {
        for worker in self.workers() {
            signal(worker, to_send);
        }
    }

    /// `kill -9`, and every child is gone too.
    pub fn kill(&mut self) {
        let children = children_of(self.pid());
        let mut child = self.process.take().expect("the platform runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
        for child in children {
            wait_for("the workers to end with their runner", DEADLINE, || (!is_alive(child)).then_some(()));
        }
    }

    /// Ctrl-C; gives the exit code.
    pub fn interrupt(&mut self) -> Option<i32> {
        let mut child = self.process.take().expect("the platform runs");
        signal(child.id(), Signal::INT);
        wait_for("framehook up to end", DEADLINE, || child.try_wait().expect("a child can be waited for")).code()
    }
}

impl Deref for Platform {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the platform said:\n{}", self.log());
        }
        if let Some(mut child) = self.process.take() {
            // Already ended is as good.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// These arguments of `framehook up`, and those with which no hook is ended for the time it keeps busy.
#[must_use]
pub fn patient<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--hook-call-ms", "5000"]].concat()
}

/// How soon an answer must come while workers are busy.
pub const PROMPT: Duration = Duration::from_secs(1);
