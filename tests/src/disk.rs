//! A disk that is soon full.
//!
//! Invariant: nobody but the test sees it, and it goes with the test's process, however that ends.

use std::{
    env,
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::PathBuf,
    process::Command,
};

use crate::platform::alone;

/// Set for the process that has the disk.
const VARIABLE: &str = "FRAMEHOOK_TEST_SMALL_DISK";

/// Mounts a disk of `$2` bytes on `$1`, and becomes what follows.
const MOUNT: &str = r#"mount -t tmpfs -o size="$2" none "$1" && shift 2 && exec "$@""#;

/// A small file system.
pub struct SmallDisk {
    pub folder: PathBuf,
}

impl SmallDisk {
    /// For the test named `test`, as its harness lists it, which calls this first. It runs again in a process of its own that
    /// has the disk, and has passed there where this gives None. That process can start no server that needs another user
    /// than ours; `variables` may tell it of one that runs.
    ///
    /// # Panics
    /// When the test failed there, or the machine does not allow the disk.
    #[must_use]
    pub fn of(test: &str, bytes: u64, variables: &[(&str, &str)]) -> Option<Self> {
        if let Some(folder) = env::var_os(VARIABLE) {
            return Some(Self { folder: folder.into() });
        }
        let _alone = alone();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", MOUNT, "sh"]);
        command.arg(folder.path()).arg(bytes.to_string());
        command.arg(env::current_exe().expect("a test knows its own path")).args(["--exact", test]);
        let output = command
            .env(VARIABLE, folder.path())
            .envs(variables.iter().copied())
            .output()
            .expect("unshare is there; util-linux has it");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{test} failed on a disk of {bytes} bytes, or user namespaces are not allowed here:\n{said}"
        );
        None
    }

    /// Fills the disk, or what has become free of it since, but for `room` bytes.
    ///
    /// # Panics
    /// When it fails otherwise than by being full.
    pub fn fill_but(&self, room: u64) {
        let mut file = File::options().create(true).append(true).open(self.filling()).expect("the disk is ours");
        let full = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        let length = file.metadata().expect("the file is open").len();
        file.set_len(length - room).expect("a file can be made shorter");
    }

    /// As if it had never been filled.
    ///
    /// # Panics
    /// When it was not.
    pub fn empty(&self) {
        fs::remove_file(self.filling()).expect("the disk is filled");
    }

    fn filling(&self) -> PathBuf {
        self.folder.join("filling")
    }
}
