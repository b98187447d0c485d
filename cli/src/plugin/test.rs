//! `framehook plugin test`: golden cases, run in the worker of the platform.
//!
//! Beside the `case.json` of each (see [`case`]) lies an `expected.ndjson`, a line a frame. Numbers may
//! differ a little, because models compute a little differently on other processors.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use framehook_core::{
    job::Outcome,
    prediction::{Detection, Event, Prediction},
};
use framehook_engine::trial::Tried;
use framehook_runner::alone::Alone;
use serde::Serialize;
use serde_json::Value;

use super::{
    build::build,
    case::{self, Case, OnOutputs, OnVideo},
    follow::{Said, follow},
    local::{Local, block_on},
};

/// Scores and boxes are shares of 1: a thousandth of a frame is less than a pixel of most.
const TOLERANCE: f64 = 1e-3;

#[derive(Args)]
pub(crate) struct Test {
    /// Names of the cases to run; all, if there is none
    cases: Vec<String>,
    /// The plugin's folder
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// Write what comes out as what is expected
    #[arg(long)]
    update: bool,
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
        let cases = case::cases(&self.folder, &self.cases)?;
        let wasm = build(&self.folder)?;
        let mut failed = 0;
        for case in &cases {
            let name = case::name_of(case);
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

async fn run(folder: &Path, wasm: &Path) -> anyhow::Result<Vec<Value>> {
    match case::read(folder)? {
        Case::Video(case) => on_video(folder, wasm, case).await,
        Case::Outputs(case) => on_outputs(folder, wasm, case).await,
    }
}

async fn on_outputs(folder: &Path, wasm: &Path, case: OnOutputs) -> anyhow::Result<Vec<Value>> {
    let local = Local::open()?;
    let (_, trial) = case::trial(&local, folder, wasm, case).await?;
    let Tried { detections, events, failures, .. } = case::tried(&local, &trial).await?;
    Ok(vec![serde_json::to_value(Row { frame: 0, detections, events, skipped: None, failures })?])
}

async fn on_video(folder: &Path, wasm: &Path, case: OnVideo) -> anyhow::Result<Vec<Value>> {
    let local = Local::with_worker()?;
    let prepared = case::scenario(&local, folder, wasm, &case).await?;
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
}
