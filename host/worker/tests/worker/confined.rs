//! What the kernel keeps a worker from, where the checks before it were passed.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use framehook_confine::{Reach, enter};
use framehook_core::job::Outcome;
use ort::session::Session;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::process::{Worker, command, job, onnxruntime};

/// Environment variable of [`loader`]: `confined` or `free`.
const LOAD: &str = "FRAMEHOOK_TEST_LOAD";

/// Its weights are the file `Cargo.toml` of the working directory, which stands in the default of a
/// function's attribute.
const EXTERNAL: &[u8] = include_bytes!("external.onnx");

/// ONNX Runtime looks a host name up to report to, some way into a run, unless it is told not to.
#[test]
fn a_worker_that_were_killed_for_a_socket_lives() {
    let rules = [(libc::SYS_socket, Vec::new()), (libc::SYS_socketpair, Vec::new())].into();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, arch).unwrap();
    let filter = BpfProgram::try_from(filter).unwrap();
    let mut command = command();
    // SAFETY: the filter is complete; setting it takes two system calls.
    unsafe {
        command.pre_exec(move || seccompiler::apply_filter(&filter).map_err(|_| std::io::ErrorKind::Other.into()))
    };
    let (outcome, reason) = Worker::start_by(command, &job("demo1.mp4")).until_end(|_| {});
    assert_eq!(outcome, Outcome::Finished, "{}", reason.message);
}

/// Does nothing unless the test below started it: loads the model as if nobody had looked at it before.
#[test]
fn loader() {
    let Ok(how) = std::env::var(LOAD) else { return };
    if how == "confined" {
        enter(&Reach::reading([onnxruntime()])).unwrap();
    }
    let environment = ort::init_from(onnxruntime()).unwrap().build().unwrap();
    match Session::builder(&environment).unwrap().commit_from_memory(EXTERNAL) {
        Ok(_) => println!("\nloaded"),
        Err(error) => println!("\nrefused: {error}"),
    }
}

#[test]
fn a_model_with_external_data_reads_none_even_if_its_check_missed_it() {
    let load = |how: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "confined::loader", "--nocapture"]).env(LOAD, how);
        let output = command.stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(load("free").contains("\nloaded"), "{}", load("free"));
    let refused = load("confined");
    assert!(refused.contains("\nrefused") && !refused.contains("\nloaded"), "{refused}");
}
