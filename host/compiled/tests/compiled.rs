//! Folders of compiled plugins, with a compiler that is a script.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
    time::Duration,
};

use framehook_compiled::{COMPILE_TIMEOUT, CompileError, Compiled, CompiledPlugins, OpenError, Settings};
use framehook_confine::{Piece, Sandbox};
use framehook_core::ids::Digest;
use tempfile::TempDir;

fn settings(dir: &Path) -> Settings {
    Settings {
        folder: dir.join("compiled"),
        engine: "engine-1".into(),
        plugin_host: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/plugin_host.sh"),
        // The script writes a journal.
        sandbox: [Piece::Limits, Piece::User].into_iter().fold(Sandbox::default(), Sandbox::without),
        timeout: COMPILE_TIMEOUT,
    }
}

fn open(dir: &Path) -> CompiledPlugins {
    CompiledPlugins::open(settings(dir)).unwrap()
}

/// Any digest will do for a plugin of this name.
fn digest(name: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Digest::from_bytes(&bytes)
}

/// A plugin that consists of its name.
fn lay(dir: &Path, name: &str) {
    fs::write(dir.join(name), name).unwrap();
}

async fn compiled(plugins: &CompiledPlugins, dir: &Path, name: &str) -> Result<Compiled, CompileError> {
    plugins.compiled(&digest(name), &dir.join(name)).await
}

fn compilations(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("journal")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn files(plugins: &CompiledPlugins) -> usize {
    fs::read_dir(plugins.folder()).unwrap().count()
}

#[tokio::test]
async fn a_plugin_is_compiled_once_however_many_ask_and_stays_compiled() {
    let dir = TempDir::new().unwrap();
    let plugins = open(dir.path());
    lay(dir.path(), "good");
    let asked = (0..5).map(|_| {
        let (plugins, dir) = (plugins.clone(), dir.path().to_owned());
        tokio::spawn(async move { compiled(&plugins, &dir, "good").await.unwrap() })
    });
    let mut given = Vec::new();
    for asked in asked.collect::<Vec<_>>() {
        given.push(asked.await.unwrap());
    }
    given.push(compiled(&open(dir.path()), dir.path(), "good").await.unwrap());
    assert!(given.iter().all(|compiled| *compiled == given[0]));
    assert!(fs::read_to_string(&given[0].path).unwrap().starts_with("GOOD\n"));
    assert_eq!((compilations(dir.path()).len(), files(&plugins)), (1, 1));
    let newer = CompiledPlugins::open(Settings { engine: "engine-2".into(), ..settings(dir.path()) }).unwrap();
    assert_ne!(compiled(&newer, dir.path(), "good").await.unwrap().path, given[0].path);
    assert_eq!(compilations(dir.path()).len(), 2);
}

#[tokio::test]
async fn what_was_not_signed_here_for_this_plugin_is_compiled_again() {
    let dir = TempDir::new().unwrap();
    let plugins = open(dir.path());
    ["good", "other"].into_iter().for_each(|name| lay(dir.path(), name));
    let good = compiled(&plugins, dir.path(), "good").await.unwrap();
    let other = compiled(&plugins, dir.path(), "other").await.unwrap();
    let elsewhere = TempDir::new().unwrap();
    lay(elsewhere.path(), "good");
    let foreign = compiled(&open(elsewhere.path()), elsewhere.path(), "good").await.unwrap();
    let whole = fs::read(&good.path).unwrap();
    let mut flipped = whole.clone();
    flipped[0] ^= 1;
    let forged = [fs::read(other.path).unwrap(), fs::read(foreign.path).unwrap(), flipped, whole[1..].to_vec(), vec![]];
    for (n, bytes) in forged.iter().enumerate() {
        fs::write(&good.path, bytes).unwrap();
        assert_eq!(compiled(&plugins, dir.path(), "good").await.unwrap(), good);
        assert_eq!((fs::read(&good.path).unwrap(), compilations(dir.path()).len()), (whole.clone(), 3 + n));
    }
}

#[test]
fn processes_that_open_one_folder_at_a_time_recognise_what_each_other_made() {
    const AT_ONCE: usize = 6;
    let dir = TempDir::new().unwrap();
    let begin = Barrier::new(AT_ONCE);
    let opened: Vec<_> = thread::scope(|scope| {
        let open = || {
            begin.wait();
            open(dir.path())
        };
        let all: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(open)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    // Each of them compiles a plugin while the others do; then each is asked for all.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let names: Vec<_> = (0..AT_ONCE).map(|n| format!("good-{n}")).collect();
    names.iter().for_each(|name| lay(dir.path(), name));
    runtime.block_on(async {
        let both = opened.iter().zip(&names).flat_map(|(plugins, name)| [(plugins, name), (&opened[0], name)]);
        let asked: Vec<_> = both
            .map(|(plugins, name)| {
                let (plugins, dir, name) = (plugins.clone(), dir.path().to_owned(), name.clone());
                tokio::spawn(async move { compiled(&plugins, &dir, &name).await.unwrap() })
            })
            .collect();
        for asked in asked {
            asked.await.unwrap();
        }
        let before = compilations(dir.path()).len();
        for (plugins, name) in opened.iter().flat_map(|plugins| names.iter().map(move |name| (plugins, name))) {
            compiled(plugins, dir.path(), name).await.unwrap();
        }
        assert_eq!(compilations(dir.path()).len(), before);
        assert_eq!(files(&opened[0]), AT_ONCE);
    });
}

#[tokio::test]
async fn what_is_not_compiled_says_why_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let plugins = open(dir.path());
    for name in ["refused", "unclear", "failed", "died", "empty", "hang", "good"] {
        lay(dir.path(), name);
    }
    let refused = compiled(&plugins, dir.path(), "refused").await.unwrap_err();
    assert!(matches!(&refused, CompileError::Refused(findings) if findings[1].code == "b"), "{refused:?}");
    assert_eq!(refused.to_string(), "first; second");
    for (name, words) in [
        ("unclear", "the compiler's findings cannot be read"),
        ("failed", "cannot read its file"),
        ("died", "the compiler died: signal: 9"),
        ("empty", "the result could not be kept: the compiler wrote nothing"),
    ] {
        let error = compiled(&plugins, dir.path(), name).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let hasty = Settings { timeout: Duration::from_secs(1), ..settings(dir.path()) };
    let late = compiled(&CompiledPlugins::open(hasty).unwrap(), dir.path(), "hang").await;
    assert!(matches!(late, Err(CompileError::TooLong(_))), "{late:?}");
    assert_eq!(files(&plugins), 0);
    fs::remove_dir(plugins.folder()).unwrap();
    let lost = compiled(&plugins, dir.path(), "good").await;
    assert!(matches!(lost, Err(CompileError::Folder { .. })), "{lost:?}");
}

#[test]
fn what_can_never_work_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let good = settings(dir.path());
    let refused = |settings: Settings| CompiledPlugins::open(settings).unwrap_err();
    for engine in ["", "../x"] {
        let error = refused(Settings { engine: engine.into(), ..good.clone() });
        assert!(matches!(&error, OpenError::Engine(named) if named == engine), "{error}");
    }
    let error = refused(Settings { plugin_host: dir.path().join("missing"), ..good.clone() }).to_string();
    assert!(error.contains("framehook executable is not at"), "{error}");
    let error = refused(Settings { folder: good.plugin_host.join("below-a-file"), ..good.clone() }).to_string();
    assert!(error.contains("below-a-file, cannot be made"), "{error}");
    fs::write(dir.path().join("compiled.key"), "no key").unwrap();
    let error = refused(good).to_string();
    assert!(error.contains("compiled plugins cannot be signed") && error.contains("compiled.key"), "{error}");
}
