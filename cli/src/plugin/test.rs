//! `framehook plugin test`: golden cases, run in the worker of the platform.
//!
//! A case is a folder in `tests/golden/` of a plugin with a `case.json` (see [`Case`]) and an
//! `expected.ndjson`, a line a frame. It is a video with a model, or the outputs of a model for one frame, as
//! NumPy saved them: then the hook is called in a child with the platform's engine. Numbers may differ a
//! little, because models compute a little differently on other processors.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use framehook_api::judge;
use framehook_compiled::Compiled;
use framehook_core::{
    input::{Anchor, InputOptions, Resize},
    job::{HookJob, Outcome},
    prediction::{Detection, Event, Prediction},
};
use framehook_engine::trial::{Trial, Tried};
use framehook_runner::alone::Alone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    build::build,
    follow::{Said, follow},
    local::{Local, block_on},
    scenario::{PluginFile, Wanted, plugin, prepare},
};

/// Scores and boxes are shares of 1: a thousandth of a frame is less than a pixel of most.
const TOLERANCE: f64 = 1e-3;

#[derive(Args)]
pub(crate) struct Test {
    /// The plugin's folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Write what comes out as what is expected
    #[arg(long)]
    update: bool,
}

/// What `case.json` says. Paths are relative to its folder.
#[derive(Deserialize)]
#[serde(untagged)]
enum Case {
    Video(OnVideo),
    Outputs(OnOutputs),
}

/// One call of a post hook.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnOutputs {
    /// Names of the model's outputs with their `.npy` files, in the model's order.
    outputs: Vec<(String, PathBuf)>,
    /// Width and height of the frame in pixels.
    frame: [u32; 2],
    #[serde(default = "nothing")]
    config: Value,
    /// Its `size` is that of the frame, if the plugin does not say either.
    #[serde(default)]
    input: InputOptions,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnVideo {
    video: PathBuf,
    model: PathBuf,
    /// Components that are called before this one, each with its configuration.
    #[serde(default)]
    before: Vec<Before>,
    /// This plugin's configuration.
    #[serde(default = "nothing")]
    config: Value,
    #[serde(default)]
    input: InputOptions,
    /// Frames from the first on; all, if absent.
    limit: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Before {
    plugin: PathBuf,
    #[serde(default = "nothing")]
    config: Value,
}

fn nothing() -> Value {
    Value::Object(serde_json::Map::new())
}

/// What is compared of a frame.
#[derive(Serialize)]
struct Row {
    frame: u64,
    detections: Vec<Detection>,
    events: Vec<Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<String>,
}

impl Test {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let cases = cases(&self.folder.join("tests/golden"))?;
        let wasm = build(&self.folder)?;
        let mut failed = 0;
        for case in &cases {
            let name = case.file_name().unwrap_or_default().display();
            let rows = block_on(run(case, &wasm)).with_context(|| format!("case {name}"))?;
            let expected = case.join("expected.ndjson");
            if self.update {
                fs::write(&expected, rows.iter().map(|row| format!("{row}\n")).collect::<String>())
                    .with_context(|| format!("cannot write {}", expected.display()))?;
                println!("wrote {}: {} frames", expected.display(), rows.len());
                let failed = rows.iter().filter(|row| !row["failures"].is_null()).count();
                if failed > 0 {
                    eprintln!(
                        "hooks failed on {failed} of them, and that is what is expected from now on: see `failures`"
                    );
                }
                continue;
            }
            match difference(&read(&expected)?, &rows) {
                None => println!("ok    {name}: {} frames", rows.len()),
                Some(difference) => {
                    failed += 1;
                    println!("FAIL  {name}: {difference}");
                }
            }
        }
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The folders of the cases, by name.
fn cases(golden: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(golden).map(|all| all.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>());
    let mut cases: Vec<_> =
        entries.unwrap_or_default().into_iter().filter(|path| path.join("case.json").is_file()).collect();
    if cases.is_empty() {
        bail!(
            "there is no case: make {}/NAME/case.json with `video` and `model`, or `outputs` and `frame` (see \
             docs/write-a-plugin.md); then `--update` writes what is expected",
            golden.display()
        );
    }
    cases.sort();
    Ok(cases)
}

async fn run(folder: &Path, wasm: &Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(folder.join("case.json")).context("case.json cannot be read")?;
    let case =
        serde_json::from_str(&text).context("case.json: it has `video` and `model`, or `outputs` and `frame`")?;
    match case {
        Case::Video(case) => on_video(folder, wasm, case).await,
        Case::Outputs(case) => on_outputs(folder, wasm, case).await,
    }
}

async fn on_outputs(folder: &Path, wasm: &Path, case: OnOutputs) -> anyhow::Result<Vec<Value>> {
    let local = Local::open()?;
    let plugin = plugin(&local, &PluginFile { path: wasm.to_owned(), config: case.config }).await?;
    let input = case.input.or(plugin.manifest.input);
    let size = input.size.unwrap_or(case.frame);
    if [case.frame, size].concat().contains(&0) {
        bail!("case.json: `frame` and the input's `size` have 1 pixel at least");
    }
    let is_stretched = input.resize == Some(Resize::Stretch);
    let is_centered = input.anchor != Some(Anchor::TopLeft);
    let absolute = |(name, file): (String, PathBuf)| {
        let file = folder.join(file);
        let there = file.canonicalize().with_context(|| format!("cannot read {}", file.display()))?;
        anyhow::Ok((name, there))
    };
    let Compiled { path, digest } = plugin.compiled;
    let trial = Trial {
        hook: HookJob { identity: plugin.hook.identity, compiled: path, digest, config: plugin.hook.config },
        frame: case.frame,
        input: size,
        is_stretched,
        is_centered,
        outputs: case.outputs.into_iter().map(absolute).collect::<Result<_, _>>()?,
    };
    let tried: Result<Tried, String> = judge::trial(&local.api, &serde_json::to_value(&trial)?).await?;
    let Tried { detections, events, failures, log } = tried.map_err(anyhow::Error::msg)?;
    log.iter().for_each(|line| eprintln!("{}: {}", line.plugin, line.message));
    Ok(vec![serde_json::to_value(Row { frame: 0, detections, events, skipped: None, failures })?])
}

async fn on_video(folder: &Path, wasm: &Path, case: OnVideo) -> anyhow::Result<Vec<Value>> {
    let before = case.before.into_iter().map(|b| PluginFile { path: folder.join(b.plugin), config: b.config });
    let plugins = before.chain([PluginFile { path: wasm.to_owned(), config: case.config }]).collect();
    let local = Local::with_worker()?;
    let (video, model) = (folder.join(case.video), folder.join(case.model));
    let wanted = Wanted { video: &video, model: &model, models: Vec::new(), plugins, input: case.input };
    let prepared = prepare(&local, wanted).await?;
    let alone = Alone::start(local.runner(), &prepared.order, prepared.files).context("cannot start a worker")?;
    let mut rows = Vec::new();
    let (outcome, reason) = follow(alone, case.limit, |said| {
        if let Said::Frame(record) = said {
            let prediction: Prediction = serde_json::from_str(record.json()).context("a prediction")?;
            rows.push(serde_json::to_value(Row::from(prediction))?);
        }
        Ok(())
    })
    .await?;
    match outcome {
        Outcome::Finished | Outcome::Stopped => Ok(rows),
        Outcome::Retry | Outcome::Failed => bail!("{}", reason.message),
    }
}

impl From<Prediction> for Row {
    fn from(of: Prediction) -> Self {
        let failures =
            of.hook_failures.into_iter().map(|failure| format!("{}: {}", failure.plugin, failure.reason.message));
        Self {
            frame: of.frame,
            detections: of.detections,
            events: of.events,
            skipped: of.skipped.map(|skipped| skipped.reason),
            failures: failures.collect(),
        }
    }
}

fn read(expected: &Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(expected);
    let text = text.with_context(|| format!("cannot read {}; `--update` writes it", expected.display()))?;
    let lines = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    lines.with_context(|| format!("{} holds a line that is no JSON", expected.display()))
}

/// The first difference, in words.
fn difference(expected: &[Value], given: &[Value]) -> Option<String> {
    for (expected, given) in expected.iter().zip(given) {
        if let Some(difference) = of_values("", expected, given) {
            return Some(format!("frame {}: {difference}", given["frame"]));
        }
    }
    (expected.len() != given.len()).then(|| format!("expected {} frames, got {}", expected.len(), given.len()))
}

fn of_values(path: &str, expected: &Value, given: &Value) -> Option<String> {
    match (expected, given) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64()?, b.as_f64()?);
            // A count is exact.
            let most = if a.fract() == 0.0 && b.fract() == 0.0 { 0.0 } else { TOLERANCE * a.abs().max(1.0) };
            ((a - b).abs() > most).then(|| format!("{path}: expected {a}, got {b}"))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            (a.iter().zip(b).enumerate()).find_map(|(at, (a, b))| of_values(&format!("{path}/{at}"), a, b))
        }
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            a.iter().zip(b.values()).find_map(|((key, a), b)| of_values(&format!("{path}/{key}"), a, b))
        }
        (a, b) => (a != b).then(|| format!("{path}: expected {a}, got {b}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_difference_is_told_by_its_place() {
        let row =
            |score: f64, kind: &str| json!({"frame": 7, "detections": [{"score": score}], "events": [{"kind": kind}]});
        let expected = [row(0.9, "a"), row(0.8, "b")];
        assert_eq!(difference(&expected, &[row(0.9004, "a"), row(0.8, "b")]), None);
        for (given, words) in [
            (vec![row(0.9, "a"), row(0.81, "b")], "frame 7: /detections/0/score: expected 0.8, got 0.81"),
            (vec![row(0.9, "a"), row(0.8, "c")], "frame 7: /events/0/kind: expected \"b\", got \"c\""),
            (vec![row(0.9, "a")], "expected 2 frames, got 1"),
        ] {
            assert_eq!(difference(&expected, &given).as_deref(), Some(words));
        }
        assert!(difference(&[json!({"frame": 7, "n": 3})], &[json!({"frame": 7, "n": 4})]).is_some());
        assert!(difference(&[json!({"frame": 7})], &[json!({"frame": 7, "skipped": "x"})]).is_some());
    }

    #[test]
    fn a_plugin_without_cases_is_told_how_to_make_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = cases(folder.path()).unwrap_err().to_string();
        assert!(error.contains("NAME/case.json"), "{error}");
    }
}
