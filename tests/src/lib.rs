//! What the end-to-end tests share: a real `framehook up` on a folder of its own, a client, the demo
//! assets, and a measure of how good the predictions are.
//!
//! Nothing here waits for a fixed time: every wait is for a condition and has a deadline.

pub mod client;
pub mod cluster;
pub mod disk;
pub mod evaluate;
pub mod fleet;
pub mod models;
pub mod onnx;
pub mod platform;
pub mod process;
pub mod release;
pub mod servers;
pub mod witness;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Long enough for a busy 2-core machine; a test that reaches it has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Asks `condition` until it gives something.
///
/// # Panics
/// At the deadline, saying what was waited for.
pub fn wait_for<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain for {what}");
        std::thread::park_timeout(LOOK_AGAIN);
    }
}

/// For what a test chooses at random: another at each run, and printed, so that one can be repeated with
/// `FRAMEHOOK_TEST_SEED`.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("FRAMEHOOK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("FRAMEHOOK_TEST_SEED={seed}");
    seed
}

/// The root of the checkout.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the checkout").into()
}

/// A file of `assets/`.
#[must_use]
pub fn asset(name: &str) -> PathBuf {
    root().join("assets").join(name)
}

/// The folder of the executables: this test's own is in `deps/` below it.
#[must_use]
pub fn executables() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    test.parent().and_then(Path::parent).expect("tests run from target/<profile>/deps").into()
}

/// Compiled plugins, which all tests share but those that are about compiling or about a data folder: so each
/// plugin is compiled once.
#[must_use]
pub fn compiled_plugins() -> PathBuf {
    root().join("target/test-compiled")
}

/// A plugin, built.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn plugin(name: &str) -> PathBuf {
    let file = root().join(format!("target/plugins/wasm32-wasip2/release/{}.wasm", name.replace('-', "_")));
    assert!(file.is_file(), "{} is missing: run `make plugins`", file.display());
    file
}
