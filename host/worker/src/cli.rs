//! The command line: a worker is started by the runner for each scenario, and by the API to judge uploads.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Write as _},
    panic,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use framehook_confine::{Devices, Reach, begin, enter, restrict_system_calls};
use framehook_core::{execution::Provider, job::DEFAULT_PICTURE_SIDE, probe::Verdict};
use serde::Serialize;

use crate::{annotate, bench, measure, model::ModelError, preview, probe, process, run, runtime, source::Open};

/// Decodes videos, runs models and calls plugins, for Framehook's runner
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the job that comes in on standard input (for the runner)
    Run {
        /// The ONNX Runtime shared library, to be loaded before the job comes
        #[arg(long, value_name = "LIBRARY")]
        onnxruntime: Option<PathBuf>,
        /// Its model runs on a GPU
        #[arg(long)]
        gpu: bool,
    },
    /// Say in which precisions a provider runs here; prints JSON
    CheckProvider {
        provider: Provider,
        /// The ONNX Runtime shared library
        #[arg(long, value_name = "LIBRARY")]
        onnxruntime: PathBuf,
        /// An option of the provider
        #[arg(long = "option", value_name = "KEY=VALUE", value_parser = parse_pair)]
        options: Vec<(String, String)>,
    },
    /// Measure the model of the job that comes in on standard input, on the first frames of its source;
    /// prints JSON
    Measure {
        /// Its model runs on a GPU
        #[arg(long)]
        gpu: bool,
    },
    /// Judge an ONNX model; prints a verdict as JSON
    ProbeModel {
        file: PathBuf,
        /// The ONNX Runtime shared library
        #[arg(long, env = "FRAMEHOOK_ONNXRUNTIME", value_name = "LIBRARY")]
        onnxruntime: PathBuf,
    },
    /// Judge a video; prints a verdict as JSON
    ProbeVideo {
        file: PathBuf,
        /// The most pixels of a side of its pictures
        #[arg(long, value_name = "PIXELS", default_value_t = DEFAULT_PICTURE_SIDE)]
        max_picture_side: u32,
        /// Take a file that lacks its end: what is there can be worked on
        #[arg(long)]
        may_be_cut: bool,
    },
    /// Show what a model's input looks like: takes an input specification as JSON on standard
    /// input, and writes a JPEG, or a verdict as JSON
    Preview {
        video: PathBuf,
        /// Time from which on the first frame is shown
        #[arg(long, value_name = "MICROSECONDS")]
        at_us: i64,
        /// The most pixels of a side of its pictures
        #[arg(long, value_name = "PIXELS", default_value_t = DEFAULT_PICTURE_SIDE)]
        max_picture_side: u32,
    },
    /// Draw predictions on their video
    Annotate {
        video: PathBuf,
        /// One prediction a line, as `GET /prediction/{id}` answers for application/x-ndjson
        predictions: PathBuf,
        /// An MP4 file to write
        out: PathBuf,
        /// Other predictions of the same video, to be drawn on a picture beside the first
        #[arg(long, value_name = "PREDICTIONS")]
        beside: Option<PathBuf>,
    },
    /// Measure the model alone, with a worker's own settings; prints JSON
    BenchInference {
        model: PathBuf,
        #[arg(long, default_value_t = 500)]
        frames: u32,
        /// The ONNX Runtime shared library
        #[arg(long, env = "FRAMEHOOK_ONNXRUNTIME", value_name = "LIBRARY")]
        onnxruntime: PathBuf,
        /// Threads of one inference
        #[arg(long, default_value_t = 1)]
        intra_threads: usize,
        /// Sessions that run at a time, each with all the frames
        #[arg(long, default_value_t = 1)]
        sessions: u32,
        /// Size of the input, if the model leaves it open
        #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = parse_size)]
        size: Option<[u32; 2]>,
    },
}

/// The exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

fn parse_pair(text: &str) -> Result<(String, String), &'static str> {
    let pair = text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    pair.ok_or("expected KEY=VALUE")
}

const fn devices(gpu: bool) -> Devices {
    if gpu { Devices::Gpu } else { Devices::None }
}

fn parse_size(text: &str) -> Result<[u32; 2], &'static str> {
    let sides = text.split_once('x').and_then(|(w, h)| Some([w.parse().ok()?, h.parse().ok()?]));
    sides.ok_or("expected two numbers of pixels, such as 640x480")
}

/// Does what the command line says, and ends the process. `opencv` is the second decoder, if this executable
/// has it.
pub fn main(opencv: Option<Open>) -> ! {
    process::quieten_libraries();
    let code = match panic::catch_unwind(|| Cli::parse().command.execute(opencv)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            eprintln!("framehook-worker: {error:#}");
            1
        }
        // The panic's own message is on standard error.
        Err(_) => PANICKED,
    };
    // Everything was written and flushed; native libraries are not asked to tidy up.
    process::exit_now(code)
}

impl Command {
    fn execute(self, opencv: Option<Open>) -> anyhow::Result<()> {
        // The pipeline's threads are the parallelism; OpenCV's own pool would fight with them.
        opencv::core::set_num_threads(1)?;
        match self {
            Self::Run { onnxruntime, gpu } => {
                begin()?;
                restrict_system_calls(devices(gpu))?;
                // The files follow with the job that names them.
                run::run(onnxruntime, opencv).context("the job cannot be read")
            }
            Self::CheckProvider { provider, onnxruntime, options } => {
                enter(&Reach::reading(runtime::files(provider, &onnxruntime)).with(runtime::devices(provider)))?;
                let checked = measure::check(provider, &onnxruntime, &options.into_iter().collect());
                // Whoever asks knows which provider it is.
                let precisions = checked.map_err(|error| match error {
                    ModelError::Provider { why, .. } => anyhow::anyhow!(why),
                    other => other.into(),
                })?;
                print(|| precisions)
            }
            Self::Measure { gpu } => {
                begin()?;
                restrict_system_calls(devices(gpu))?;
                let measured = run::measure(opencv).map_err(|reason| anyhow::anyhow!(reason.message))?;
                print(|| measured)
            }
            Self::ProbeModel { file, onnxruntime } => {
                enter(&Reach::reading([&file, &onnxruntime]))?;
                print(|| probe::model(&file, &onnxruntime))
            }
            Self::ProbeVideo { file, max_picture_side, may_be_cut } => {
                enter(&Reach::reading([&file]))?;
                print(|| probe::video(&file, max_picture_side, may_be_cut))
            }
            Self::Preview { video, at_us, max_picture_side } => {
                let input = serde_json::from_reader(io::stdin().lock()).context("the input specification")?;
                enter(&Reach::reading([&video]))?;
                let mut out = process::take_stdout()?;
                let answer = preview::preview(&video, at_us, max_picture_side, &input)
                    .or_else(|finding| serde_json::to_vec(&Verdict::<()>::Findings(vec![finding])))?;
                out.write_all(&answer).context("standard output is closed")
            }
            Self::Annotate { video, predictions, out, beside } => draw(&video, &predictions, beside.as_deref(), &out),
            Self::BenchInference { model, frames, onnxruntime, intra_threads, sessions, size } => {
                enter(&Reach::reading([&model, &onnxruntime]))?;
                let figures = bench::inference(&model, &onnxruntime, frames, intra_threads, sessions, size)?;
                print(|| figures)
            }
        }
    }
}

/// One line of JSON on the real standard output, whatever a library prints meanwhile.
fn print<T: Serialize>(make: impl FnOnce() -> T) -> anyhow::Result<()> {
    let mut out = process::take_stdout()?;
    let mut line = serde_json::to_vec(&make())?;
    line.push(b'\n');
    out.write_all(&line).context("standard output is closed")
}

fn draw(video: &Path, predictions: &Path, beside: Option<&Path>, out: &Path) -> anyhow::Result<()> {
    let open =
        |path: &Path| File::open(path).map(BufReader::new).with_context(|| format!("cannot open `{}`", path.display()));
    let (lines, beside) = (open(predictions)?, beside.map(open).transpose()?);
    // From then on only a file that exists can be written.
    let made = OpenOptions::new().write(true).create(true).truncate(false).open(out);
    let made = made.with_context(|| format!("cannot write to `{}`", out.display()))?;
    enter(&Reach::reading([video]))?;
    let mut told = Instant::now();
    let written = annotate::annotate(video, lines, beside, made, |written, declared| {
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            let of = declared.map(|n| format!(" of {n}")).unwrap_or_default();
            eprintln!("annotated {written}{of} frames");
        }
    })?;
    eprintln!("annotated {written} frames: {}", out.display());
    Ok(())
}
