//! The guide for plugin authors, followed to the letter from an empty folder, with the executable alone: its
//! files are those that the commands make, its commands are run by a shell.

use std::{env, fs, os::unix::fs::symlink, path::Path, process::Command};

use framehook_core::prediction::Prediction;
use framehook_tests::{executables, platform::Platform, root};
use serde_json::Value;

/// A step of the guide.
#[derive(Debug)]
enum Step {
    File { name: String, text: String },
    Shell(String),
}

/// The code blocks to follow, in order: those called a file, and those of a shell.
fn steps(guide: &str) -> Vec<Step> {
    let mut steps = vec![];
    let mut file = None;
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("<!-- file: ").and_then(|rest| rest.strip_suffix(" -->")) {
            file = Some(name.to_owned());
        } else if let Some(language) = line.strip_prefix("```") {
            let text: String = lines.by_ref().take_while(|l| *l != "```").flat_map(|l| [l, "\n"]).collect();
            match (file.take(), language) {
                (Some(name), _) => steps.push(Step::File { name, text }),
                (None, "sh") => steps.push(Step::Shell(text)),
                (None, _) => {}
            }
        }
    }
    steps
}

/// Runs commands that must succeed; gives what they printed on stdout.
fn shell(folder: &Path, platform: &Platform, commands: &str) -> String {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([executables()].into_iter().chain(env::split_paths(&path))).unwrap();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", commands])
        .env("PATH", path)
        .env("XDG_CACHE_HOME", platform.data().join("cache"))
        .env("api", platform.url())
        // As a stranger's shell has it, not as a test of this workspace does.
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{commands}\n{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_guide_leads_from_an_empty_folder_to_a_running_plugin() {
    let platform = Platform::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    symlink(root(), folder.path().join("framehook")).unwrap();
    let mut here = folder.path().to_owned();
    let mut answers = vec![];
    for step in steps(&fs::read_to_string(root().join("docs/write-a-plugin.md")).unwrap()) {
        match step {
            // What a command made is shown.
            Step::File { name, text } if here.join(&name).exists() => {
                assert_eq!(fs::read_to_string(here.join(&name)).unwrap(), text, "{name}");
            }
            Step::File { name, text } => {
                let file = here.join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Step::Shell(commands) => {
                answers.push(shell(&here, &platform, &commands));
                if commands.contains("plugin new") {
                    here.push("sure-people");
                    // What the guide compiles is kept for the next run of this test.
                    let kept = root().join("target/guide");
                    fs::create_dir_all(&kept).unwrap();
                    symlink(kept, here.join("target")).unwrap();
                }
            }
        }
    }

    let built = answers.iter().find(|answer| answer.contains("framehook:plugin@")).unwrap();
    assert!(built.contains("sure-people@0.1.0, a post hook") && built.contains("crowd (integer) = 3"), "{built}");
    assert!(answers.iter().any(|answer| answer.contains("ok    street: 100 frames")), "{answers:#?}");
    let tried = fs::read_to_string(here.join("predictions.ndjson")).unwrap();
    let tried: Vec<Prediction> = tried.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(tried.len(), 200);
    assert!(fs::metadata(here.join("annotated.mp4")).unwrap().len() > 10_000);

    let scenario: Value = serde_json::from_str(answers.last().unwrap()).unwrap();
    let id = scenario["id"].as_str().unwrap();
    let rows = platform.completed(id, 500);
    let labels = rows.iter().flat_map(|r| &r.detections).map(|d| d.label.as_deref());
    assert!(labels.clone().count() > 0);
    assert!(labels.clone().all(|label| label == Some("person")));
    assert!(rows.iter().flat_map(|r| &r.events).any(|e| e.kind == "crowded"));
    // What the platform says is what was tried.
    let said =
        |all: &[Prediction]| all.iter().map(|p| (p.frame, p.detections.clone(), p.events.clone())).collect::<Vec<_>>();
    assert_eq!(said(&rows[..200]), said(&tried));
    let log = platform.log();
    let line = log.lines().find(|line| line.contains("keeps person")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains(id) && line.contains("sure-people@0.1.0"), "{line}");
    let lines = platform.get(&format!("/scenario/{id}/logs?plugin=sure-people&level=info")).body;
    let line = &lines["items"][0];
    assert_eq!((line["message"].as_str(), line["plugin"].as_str()), (Some("keeps person"), Some("sure-people@0.1.0")));
}
