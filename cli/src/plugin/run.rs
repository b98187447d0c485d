//! `framehook plugin run`: a video, a model and plugins, in the worker that the platform would run them in.
//!
//! Standard output has predictions and nothing else; what is for people is on stderr.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, bail};
use clap::Args;
use framehook_core::{hints, input::InputOptions, job::Outcome, prediction::Prediction, reason::Reason};
use framehook_runner::alone::Alone;
use tempfile::NamedTempFile;

use super::{
    follow::{Said, follow},
    local::{Local, block_on},
    progress::Progress,
    scenario::{PluginFile, Prepared, Wanted, json, named_model, prepare},
    tally::Tally,
};

#[derive(Args)]
pub(crate) struct Run {
    /// The video
    video: PathBuf,
    /// The model, an ONNX file
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// A further model, by the name that hooks know it by, as in a scenario's `models`; repeat for several
    #[arg(long = "further-model", value_name = "NAME=FILE")]
    models: Vec<String>,
    /// A component, and its configuration as JSON, or in a file behind an `@`; repeat for several, which are
    /// called in their order
    #[arg(long = "plugin", value_name = "FILE[=CONFIG]", required = true)]
    plugins: Vec<String>,
    /// How a frame becomes the model's input, as in a scenario's `input`: JSON, or a file behind an `@`
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
    /// Stop after so many frames
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Where predictions go, a line of JSON for each frame; `-` is standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A video to make with the predictions drawn on it
    #[arg(long, value_name = "FILE")]
    annotate: Option<PathBuf>,
}

impl Run {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let local = Local::with_worker()?;
        let worker = local.settings.worker.clone();
        let mut sinks = Sinks::new(self.out.as_deref(), self.annotate.is_some())?;
        let (end, failed) = block_on(self.follow(local, &mut sinks))?;
        let kept = sinks.finish().context("the predictions cannot be written")?;
        if let (Some(video), Some(kept)) = (&self.annotate, kept) {
            annotate(&worker, &self.video, (kept.path(), None), video)?;
        }
        // A run that was cut short is one that somebody wanted so.
        match end.0 {
            Outcome::Finished | Outcome::Stopped if failed.is_some() => {
                bail!("{} failed on more than half of the frames", failed.unwrap_or_default())
            }
            Outcome::Finished | Outcome::Stopped => Ok(ExitCode::SUCCESS),
            Outcome::Retry | Outcome::Failed => bail!("{}", end.1.message),
        }
    }

    /// How it ended, and the hook that failed on most frames, if one did.
    async fn follow(&self, local: Local, sinks: &mut Sinks) -> anyhow::Result<((Outcome, Reason), Option<String>)> {
        let input = self.input.as_deref().map(|text| json(text, "--input")).transpose()?;
        let input = input.map(serde_json::from_value::<InputOptions>).transpose().context("--input")?;
        let plugins = self.plugins.iter().map(|text| PluginFile::parse(text)).collect::<Result<_, _>>()?;
        let models = self.models.iter().map(|text| named_model(text)).collect::<Result<_, _>>()?;
        let input = input.unwrap_or_default();
        let wanted = Wanted { video: &self.video, model: &self.model, models, plugins, input };
        let Prepared { order, files, model, video, .. } = prepare(&local, wanted).await?;
        let total = video.frames.map(|frames| frames.min(self.limit.unwrap_or(u64::MAX))).or(self.limit);
        let alone = Alone::start(local.runner(), &order, files).context("cannot start a worker")?;
        let (mut tally, mut progress, mut hooks) = (Tally::default(), Progress::new(total), Vec::new());
        let end = follow(alone, self.limit, |said| {
            match said {
                // From here on it is as fast as it is.
                Said::Ready => progress = Progress::new(total),
                Said::Frame(record) => {
                    tally.add(&serde_json::from_str::<Prediction>(record.json()).context("a prediction")?);
                    sinks.write(record.json()).context("the predictions cannot be written")?;
                    progress.show(&tally);
                }
                Said::Log(line) => progress.log(&line),
                Said::HookStats(now) => hooks = now,
            }
            Ok(())
        })
        .await?;
        progress.clear();
        let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
        // A run that has as many frames as were asked for did not merely stop.
        let why = if self.limit == Some(tally.frames) { "as many as were asked for" } else { &end.1.message };
        eprintln!("frames      {}{of}, {:.0} a second: {why}", tally.frames, progress.fps(tally.frames));
        let hints = hints::hints(&order.scenario, &hooks, true);
        tally.summary(&model, hints).iter().for_each(|line| eprintln!("{line}"));
        Ok((end, tally.failed_hook().map(str::to_owned)))
    }
}

/// Where predictions go.
struct Sinks {
    out: Option<Box<dyn Write>>,
    /// For the annotated video.
    kept: Option<BufWriter<NamedTempFile>>,
}

impl Sinks {
    fn new(out: Option<&Path>, keeps: bool) -> anyhow::Result<Self> {
        let open = |path: &Path| -> anyhow::Result<Box<dyn Write>> {
            if path == Path::new("-") {
                return Ok(Box::new(io::stdout()));
            }
            let file = File::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
            Ok(Box::new(BufWriter::new(file)))
        };
        let kept = || NamedTempFile::new().context("cannot keep the predictions for the video").map(BufWriter::new);
        Ok(Self { out: out.map(open).transpose()?, kept: keeps.then(kept).transpose()? })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), |out| writeln!(out, "{line}"))?;
        self.kept.as_mut().map_or(Ok(()), |kept| writeln!(kept, "{line}"))
    }

    fn finish(mut self) -> io::Result<Option<NamedTempFile>> {
        self.out.as_mut().map_or(Ok(()), |out| out.flush())?;
        self.kept.map(|kept| kept.into_inner().map_err(io::IntoInnerError::into_error)).transpose()
    }
}

/// Draws predictions on their video, and others beside them.
///
/// # Errors
/// When there is no worker, or one of the files cannot be used.
pub(crate) fn draw(video: &Path, predictions: &Path, beside: Option<&Path>, out: &Path) -> anyhow::Result<()> {
    let local = Local::with_worker()?;
    annotate(&local.settings.worker, video, (predictions, beside), out)
}

/// The worker confines itself before it opens the video.
fn annotate(
    worker: &Path,
    video: &Path,
    (predictions, beside): (&Path, Option<&Path>),
    out: &Path,
) -> anyhow::Result<()> {
    let mut command = Command::new(worker);
    command.arg("annotate").args([video, predictions, out]).stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(beside) = beside {
        command.arg("--beside").arg(beside);
    }
    if !command.status().context("cannot start the worker to draw")?.success() {
        bail!("the annotated video could not be made; the worker says why above");
    }
    Ok(())
}
