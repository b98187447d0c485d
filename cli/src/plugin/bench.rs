//! `framehook plugin bench`: what a plugin takes on its golden cases, under the platform's engine.
//!
//! The hook of a case of outputs is called on them again and again, in a child; for a case of a video the
//! worker says what it counted of the hook's calls. All cases are measured in turns, several times, so that
//! what else the machine does meanwhile is in all of them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use framehook_core::{hook_stats::HookStats, job::Outcome};
use framehook_engine::trial::Trial;
use framehook_runner::alone::Alone;
use serde_json::json;

use super::{
    baseline::{Baseline, Figures},
    build::build,
    case::{self, Case, OnOutputs, OnVideo},
    follow::{Said, follow},
    local::{Local, block_on},
};

#[derive(Args)]
pub(crate) struct Bench {
    /// Names of the golden cases to measure; all, if there is none
    cases: Vec<String>,
    /// The plugin's folder
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// A component to measure instead of what the folder builds
    #[arg(long, value_name = "FILE")]
    wasm: Option<PathBuf>,
    /// How often each case is measured; what counts is the median
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// What to compare with; `bench.json` in the folder, if it is there
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write what was measured as what later runs are compared with
    #[arg(long)]
    save: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let cases = case::cases(&self.folder, &self.cases)?;
        let wasm = self.wasm.clone().map_or_else(|| build(&self.folder), Ok)?;
        let baseline = self.baseline.clone().unwrap_or_else(|| self.folder.join("bench.json"));
        let before =
            if self.save || (self.baseline.is_none() && !baseline.exists()) { None } else { Some(read(&baseline)?) };
        let mut runs = BTreeMap::<String, Vec<Figures>>::new();
        for _ in 0..self.repeats {
            for case in &cases {
                let name = case::name_of(case);
                let run = block_on(measure(case, &wasm)).with_context(|| format!("case {name}"))?;
                runs.entry(name).or_default().push(run);
            }
        }
        let cases = runs.into_iter().map(|(name, runs)| (name, Figures::median(&runs))).collect();
        let now = Baseline { processor: processor(), cases };
        let worse = worse(before.as_ref(), &now);
        if self.json {
            println!("{}", json!({"processor": now.processor, "cases": now.cases, "worse": worse}));
        } else {
            tell(&now, &worse, before.as_ref(), &baseline);
        }
        if self.save {
            let text = serde_json::to_string_pretty(&now)? + "\n";
            fs::write(&baseline, text).with_context(|| format!("cannot write {}", baseline.display()))?;
            eprintln!("wrote {}", baseline.display());
        }
        Ok(if worse.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn read(baseline: &Path) -> anyhow::Result<Baseline> {
    let text = fs::read_to_string(baseline).with_context(|| format!("cannot read {}", baseline.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no baseline; `--save` writes one", baseline.display()))
}

/// By case, what is worse than before.
fn worse(before: Option<&Baseline>, now: &Baseline) -> BTreeMap<String, Vec<String>> {
    let Some(before) = before else { return BTreeMap::new() };
    let same = before.processor == now.processor;
    let both = now.cases.iter().filter_map(|(name, figures)| Some((name, figures, before.cases.get(name)?)));
    let worse = both.map(|(name, figures, before)| (name.clone(), figures.worse_than(before, same)));
    worse.filter(|(_, worse)| !worse.is_empty()).collect()
}

fn tell(now: &Baseline, worse: &BTreeMap<String, Vec<String>>, before: Option<&Baseline>, file: &Path) {
    for (name, figures) in &now.cases {
        println!("{name}: {}", figures.told());
        for worse in worse.get(name).into_iter().flatten() {
            println!("  WORSE: {worse} in {}", file.display());
        }
    }
    let Some(before) = before else { return };
    if before.processor != now.processor {
        println!("times are not compared: those in {} are of {}", file.display(), before.processor);
    }
    let new: Vec<_> = now.cases.keys().filter(|name| !before.cases.contains_key(*name)).cloned().collect();
    if !new.is_empty() {
        println!("not in {} yet: {}; `--save` adds them", file.display(), new.join(", "));
    }
}

async fn measure(folder: &Path, wasm: &Path) -> anyhow::Result<Figures> {
    match case::read(folder)? {
        Case::Outputs(case) => on_outputs(folder, wasm, case).await,
        Case::Video(case) => on_video(folder, wasm, &case).await,
    }
}

async fn on_outputs(folder: &Path, wasm: &Path, case: OnOutputs) -> anyhow::Result<Figures> {
    let local = Local::open()?;
    let (plugin, trial) = case::trial(&local, folder, wasm, case).await?;
    let tried = case::tried(&local, &Trial { is_measured: true, ..trial }).await?;
    let Some(measured) = tried.measured else { bail!("the hook failed: {}", tried.failures.join("; ")) };
    Ok(Figures {
        p50_us: measured.p50_us,
        p99_us: measured.p99_us,
        copied_bytes: measured.copied_bytes,
        memory_bytes: measured.memory_bytes,
        instantiation_us: f64::from(plugin.manifest.instantiation_us.unwrap_or_default()),
        load_us: Some(measured.load_us),
        ..Figures::default()
    })
}

async fn on_video(folder: &Path, wasm: &Path, case: &OnVideo) -> anyhow::Result<Figures> {
    let local = Local::with_worker()?;
    let prepared = case::scenario(&local, folder, wasm, case).await?;
    // The last one of those that are called is the one of the folder.
    let Some(plugin) = prepared.plugins.last() else { bail!("there is no plugin") };
    let name = format!("{}@{}", plugin.name, plugin.version);
    let instantiation_us = f64::from(plugin.instantiation_us.unwrap_or_default());
    let alone = Alone::start(local.runner(), &prepared.order, prepared.files).context("cannot start a worker")?;
    let mut stats = Vec::new();
    let (outcome, reason) = follow(alone, case.limit, |said| {
        if let Said::HookStats(now) = said {
            stats = now;
        }
        Ok(())
    })
    .await?;
    if matches!(outcome, Outcome::Retry | Outcome::Failed) {
        bail!("{}", reason.message);
    }
    let own: Vec<_> = stats.into_iter().filter(|hook| hook.plugin == name && hook.calls > 0).collect();
    if own.is_empty() {
        bail!("{name} was not called");
    }
    // Before the inference and after it, if it is both.
    let sum = |of: &dyn Fn(&HookStats) -> f64| own.iter().map(of).sum::<f64>();
    Ok(Figures {
        p50_us: sum(&|hook| hook.p50_us as f64),
        p99_us: sum(&|hook| hook.p99_us as f64),
        copied_bytes: sum(&|hook| (hook.copied_bytes / hook.calls) as f64) as u64,
        memory_bytes: sum(&|hook| hook.memory_bytes as f64) as u64,
        instantiation_us,
        ..Figures::default()
    })
}

/// Its name, as far as the kernel says it.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(processor: &str, cases: &[(&str, f64)]) -> Baseline {
        let figures = |p50_us| Figures { p50_us, ..Figures::default() };
        let cases = cases.iter().map(|(name, p50_us)| ((*name).to_owned(), figures(*p50_us)));
        Baseline { processor: processor.into(), cases: cases.collect() }
    }

    #[test]
    fn cases_are_compared_by_name_on_one_processor() {
        let before = baseline("a", &[("one", 10.0), ("gone", 1.0)]);
        let now = |processor| baseline(processor, &[("one", 20.0), ("two", 30.0)]);
        let found = worse(Some(&before), &now("a"));
        assert_eq!(found.keys().collect::<Vec<_>>(), ["one"]);
        assert!(worse(Some(&before), &now("b")).is_empty() && worse(None, &now("a")).is_empty());
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let written = baseline("a", &[("one", 10.5)]);
        fs::write(file.path(), serde_json::to_string_pretty(&written).unwrap()).unwrap();
        assert_eq!(read(file.path()).unwrap(), written);
        fs::write(file.path(), "{}").unwrap();
        assert!(read(file.path()).unwrap_err().to_string().contains("is no baseline"));
    }
}
