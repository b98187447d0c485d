//! The models that tests run, of the kinds that people export, and what Python's binding of ONNX
//! Runtime makes of a picture with them (`tests/models.py`).

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::root;

/// The folder of the models.
///
/// # Panics
/// When they cannot be made.
#[must_use]
pub fn folder() -> PathBuf {
    let made = script().output().expect("python3 can be started");
    assert!(made.status.success());
    String::from_utf8(made.stdout).expect("a path").trim().into()
}

/// What each of `cases` gives for the picture whose RGB bytes are in `rgb`; `scratch` is an empty
/// folder.
///
/// # Panics
/// When Python cannot run one of them.
#[must_use]
pub fn judge(cases: &[Value], rgb: &Path, scratch: &Path) -> Vec<Value> {
    answer(script().arg(rgb), cases, scratch)
}

/// What a Python script says to a list on its standard input; `scratch` is an empty folder.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn answer(script: &mut Command, cases: &[Value], scratch: &Path) -> Vec<Value> {
    let asked = scratch.join("cases.json");
    std::fs::write(&asked, serde_json::to_vec(cases).expect("JSON")).expect("a scratch folder");
    let asked = File::open(asked).expect("it was written");
    let judged = script.stdin(asked).stderr(Stdio::inherit()).output().expect("python3 can be started");
    assert!(judged.status.success());
    serde_json::from_slice(&judged.stdout).expect("a list")
}

/// A script of `tests/`, with the Python that has what models need; [`folder`] sets it up.
#[must_use]
pub fn python(script: &str) -> Command {
    let mut command = Command::new(root().join(".cache/venv-assets/bin/python"));
    command.arg(root().join("tests").join(script));
    command
}

fn script() -> Command {
    let mut command = Command::new("python3");
    command.arg(root().join("tests/models.py")).stderr(Stdio::inherit());
    command
}
