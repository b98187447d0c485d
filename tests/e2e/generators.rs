//! The API's description as others read it: a validator, two generators of clients, whose clients then drive
//! a real platform, and a fuzzer that sends what the description allows.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use framehook_tests::{platform::Platform, root};

/// Where `scripts/generators.sh` puts them.
const TOOLS: &str = ".cache/generators";

fn tool(name: &str) -> Command {
    let path = root().join(TOOLS).join(name);
    assert!(path.exists(), "{} is missing: run scripts/setup.sh --tests", path.display());
    Command::new(path)
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
}

fn sources() -> PathBuf {
    root().join("tests/generators")
}

#[test]
fn a_generated_client_in_python_does_all_that_a_user_does() {
    let (platform, folder) = (Platform::start(&[]), tempfile::tempdir().unwrap());
    succeeds(tool("venv/bin/python").arg(sources().join("client.py")).arg(platform.url()).arg(folder.path()));
}

#[test]
fn a_generated_client_in_typescript_does_all_that_a_user_does() {
    let (platform, folder) = (Platform::start(&[]), tempfile::tempdir().unwrap());
    let node = |script: &str| {
        let mut node = tool("node");
        node.current_dir(folder.path()).arg(script);
        node
    };
    fs::write(folder.path().join("package.json"), r#"{"type": "module"}"#).unwrap();
    fs::copy(sources().join("client.ts"), folder.path().join("client.ts")).unwrap();
    std::os::unix::fs::symlink(root().join(TOOLS).join("node_modules"), folder.path().join("node_modules")).unwrap();
    let description = root().join("docs/openapi.json");
    succeeds(node("node_modules/openapi-typescript/bin/cli.js").arg(description).args(["--output", "schema.d.ts"]));
    let strict = ["--strict", "--noUncheckedIndexedAccess", "--target", "es2022", "--module", "nodenext"];
    succeeds(node("node_modules/typescript/bin/tsc").args(strict).args(["--types", "node", "client.ts"]));
    succeeds(node("client.js").arg(platform.url()).arg(root()));
}

/// The same requests at each run, as long as the description stays as it is.
const SEED: &str = "10";
/// Requests to each operation, made in each way.
const REQUESTS: &str = "15";

#[test]
fn what_the_description_allows_is_taken_and_what_it_promises_is_kept() {
    let (platform, folder) = (Platform::start(&[]), tempfile::tempdir().unwrap());
    let mut fuzzer = tool("venv/bin/schemathesis");
    fuzzer.current_dir(folder.path()).env("SCHEMATHESIS_HOOKS", hooks(folder.path())).arg("run");
    fuzzer.arg(format!("{}/openapi.json", platform.url()));
    fuzzer.args(["--seed", SEED, "--max-examples", REQUESTS, "--phases", "examples,coverage,fuzzing", "--no-color"]);
    fuzzer.args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"]);
    fuzzer.args(["--generation-database", "none", "--continue-on-failure", "--suppress-health-check", "all"]);
    succeeds(&mut fuzzer);
}

/// It wants them where it runs.
fn hooks(folder: &Path) -> &'static str {
    fs::copy(sources().join("hooks.py"), folder.join("hooks.py")).unwrap();
    "hooks"
}
