//! `framehook up` as a user runs it.

use std::{
    fs::{self, File},
    ops::Deref,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    DEADLINE,
    client::Client,
    compiled_plugins, executables,
    process::{children_of, is_alive, signal, workers_of},
    root, wait_for,
};

/// How the names of tests begin that have the machine to themselves.
const ALONE: &str = "alone::";

/// Held by a running platform. Others wait for their processes most of the time, so they run side by side, as
/// many as the test harness has threads.
static MACHINE: RwLock<()> = RwLock::new(());

#[expect(dead_code, reason = "they are held")]
pub(crate) enum Place {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Place {
    /// Waits until the running test, which the harness names its thread after, may start a platform.
    pub(crate) fn take() -> Self {
        if thread::current().name().is_some_and(|name| name.starts_with(ALONE)) {
            Self::Alone(MACHINE.write())
        } else {
            Self::Shared(MACHINE.read())
        }
    }
}

/// A running platform. Dropping it ends its processes; the folder of its logs goes with it.
pub struct Platform {
    folder: TempDir,
    data: PathBuf,
    arguments: Vec<String>,
    /// What stands before the executable in its command.
    launcher: Vec<String>,
    executable: PathBuf,
    /// Compiled plugins that it shares with others; its own lie in its data folder.
    compiled: Option<PathBuf>,
    process: Option<Child>,
    client: Client,
    _place: Place,
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
        Self::start_as(None, vec![], None, Some(compiled_plugins()), lay, arguments)
    }

    /// On an empty folder, without plugins that others compiled.
    #[must_use]
    pub fn start_apart(arguments: &[&str]) -> Self {
        Self::start_as(None, vec![], None, None, |_| {}, arguments)
    }

    /// On an empty folder, where so few files may be open.
    #[must_use]
    pub fn start_with_files(files: u32, arguments: &[&str]) -> Self {
        let limited = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        let launcher = vec!["sh".into(), "-c".into(), limited];
        Self::start_as(None, launcher, None, Some(compiled_plugins()), |_| {}, arguments)
    }

    /// On an empty folder, on a machine that lacks what `scripts/lacking.py` can take away.
    #[must_use]
    pub fn start_lacking(lacking: &[&str], arguments: &[&str]) -> Self {
        let folder = open_to_everybody();
        Self::start_as(Some(folder), lacking_launcher(lacking), None, None, |_| {}, arguments)
    }

    /// On a data folder of the test's own, which stays.
    #[must_use]
    pub fn on(data: &Path, arguments: &[&str]) -> Self {
        Self::start_as(None, vec![], Some(data.to_owned()), None, |_| {}, arguments)
    }

    /// A `folder` has executables of its own.
    fn start_as(
        folder: Option<TempDir>,
        launcher: Vec<String>,
        data: Option<PathBuf>,
        compiled: Option<PathBuf>,
        lay: impl FnOnce(&Path),
        arguments: &[&str],
    ) -> Self {
        let executable = folder.as_ref().map_or_else(executables, |own| own.path().to_owned()).join("framehook");
        let folder = folder.unwrap_or_else(|| tempfile::tempdir().expect("a temporary folder"));
        let data = data.unwrap_or_else(|| folder.path().join("data"));
        let place = Place::take();
        let mut platform = Self {
            folder,
            data,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            launcher,
            executable,
            compiled,
            process: None,
            client: Client::of(""),
            _place: place,
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

    /// From the next start on it has these arguments instead.
    pub fn set(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
    }

    /// Starts the process on whatever the folder holds.
    pub fn up(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let _gone = fs::remove_file(self.data().join("url"));
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log file");
        let out = File::options().create(true).append(true).open(self.folder.path().join("out")).expect("a log file");
        let child = launched(&self.launcher, &self.executable)
            .args(["up", "--port", "0", "--data"])
            .arg(self.data())
            .args(&self.arguments)
            .envs(self.compiled.iter().map(|folder| ("FRAMEHOOK_COMPILED_DIR", folder)))
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

    /// The worker processes that have a job, as children of this one; a pre-warmed one has none, and its
    /// executable's name.
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

/// What the executable writes to stderr on a machine that lacks something, if it ends by itself and with a
/// failure.
///
/// # Panics
/// When it ends well.
#[must_use]
pub fn refusal_lacking(lacking: &[&str], arguments: &[&str]) -> String {
    let folder = open_to_everybody();
    let mut command = launched(&lacking_launcher(lacking), &folder.path().join("framehook"));
    command.args(["up", "--port", "0", "--data"]).arg(folder.path().join("data")).args(arguments);
    let output = command.stdin(Stdio::null()).output().expect("a process can be started");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `framehook up` says that does not start with these arguments.
///
/// # Panics
/// When it ends well.
#[must_use]
pub fn refusal(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(executables().join("framehook"));
    command.args(["up", "--port", "0", "--data"]).arg(folder.path().join("data")).args(arguments);
    let output = command.stdin(Stdio::null()).output().expect("a process can be started");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with copies of the executables, in which any user can do anything; the checkout may be closed to
/// others.
fn open_to_everybody() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["framehook", "framehook-worker", "framehook-worker-opencv", "libonnxruntime.so"] {
        fs::copy(executables().join(name), folder.path().join(name)).expect("run `make build`");
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("a folder of ours");
    folder
}

fn lacking_launcher(lacking: &[&str]) -> Vec<String> {
    let script = root().join("scripts/lacking.py").display().to_string();
    let words = ["python3", &script].into_iter().chain(lacking.iter().copied()).chain(["--"]);
    words.map(str::to_owned).collect()
}

fn launched(launcher: &[String], executable: &Path) -> Command {
    let Some((first, more)) = launcher.split_first() else { return Command::new(executable) };
    let mut command = Command::new(first);
    command.args(more).arg(executable);
    command
}

/// These arguments of `framehook up`, and those with which no hook is ended for the time it keeps busy.
#[must_use]
pub fn patient<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--hook-call-ms", "5000"]].concat()
}

/// How soon an answer must come while workers are busy.
pub const PROMPT: Duration = Duration::from_secs(1);
