//! `framehook plugin dev`: an edit loop. Each time a file of the plugin changes, it is built and uploaded as
//! `name@dev`, and the scenario goes on with it between two frames; what became of that is told.
//!
//! Invariant: whatever goes wrong here, the scenario goes on with what it has.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use framehook_core::artifact::DEV;
use notify::{RecursiveMode, Watcher as _};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{build::build, local::block_on};
use crate::client::{self, Answer, Client, problem};

/// Editors write a file in several steps, and some several files: quiet for so long, it is all there.
const QUIET: Duration = Duration::from_millis(150);
/// Between two looks at the scenario.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// For a revision to run or to be rolled back: a compilation on a busy runner takes some seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// For a revision that runs to show that it does: its hooks fail on three frames in a row, and a heartbeat
/// tells.
const TRIAL: Duration = Duration::from_secs(2);
/// Folders of a plugin that no source is in.
const BUILT: [&str; 2] = ["target", ".git"];

#[derive(Args)]
pub(crate) struct Dev {
    /// The plugin's folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The scenario that the plugin runs in
    #[arg(long, value_name = "ID")]
    scenario: String,
    /// Address of the API
    #[arg(long, value_name = "URL", env = "FRAMEHOOK_API", default_value = "http://127.0.0.1:8080")]
    api: String,
}

impl Dev {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let folder = self.folder.canonicalize().with_context(|| format!("there is no {}", self.folder.display()))?;
        let (told, events) = channel();
        let mut watcher = notify::recommended_watcher(told).context("changes of files cannot be watched")?;
        let of_folder = || format!("{} cannot be watched", folder.display());
        watcher.watch(&folder, RecursiveMode::Recursive).with_context(of_folder)?;
        let mut scenario = Scenario::new(&self.api, &self.scenario);
        loop {
            match build(&folder) {
                Ok(wasm) => match block_on(scenario.take(&wasm)) {
                    Ok(said) => println!("{said}"),
                    Err(error) => eprintln!("{error:#}\nthe scenario goes on with what it has"),
                },
                Err(error) => eprintln!("{error:#}\nthe scenario goes on with what it has"),
            }
            println!("waiting for a change in {} (Ctrl-C ends this)", folder.display());
            wait_for_change(&events, &folder)?;
        }
    }
}

/// Waits until a source has changed, and all is quiet again.
fn wait_for_change(events: &Receiver<notify::Result<notify::Event>>, folder: &Path) -> anyhow::Result<()> {
    let is_change = |event: &notify::Result<notify::Event>| {
        let Ok(event) = event else { return false };
        !event.kind.is_access() && event.paths.iter().any(|path| is_source(path, folder))
    };
    while !is_change(&events.recv().context("changes of files are not told any more")?) {}
    let mut quiet_at = Instant::now() + QUIET;
    loop {
        match events.recv_timeout(quiet_at.saturating_duration_since(Instant::now())) {
            Ok(event) if is_change(&event) => quiet_at = Instant::now() + QUIET,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => bail!("changes of files are not told any more"),
        }
    }
}

/// Whether a file may be one that the plugin is built of: nothing that a build writes, and nothing hidden.
fn is_source(path: &Path, folder: &Path) -> bool {
    let Ok(inner) = path.strip_prefix(folder) else { return false };
    let mut parts = inner.components().map(|part| part.as_os_str().to_string_lossy());
    let is_written = inner.file_name().is_some_and(|name| name == "Cargo.lock");
    !is_written && parts.all(|part| !part.starts_with('.') && !BUILT.contains(&&*part))
}

/// The scenario, as far as it was told of.
struct Scenario {
    id: String,
    client: Client,
    /// Behind the last line of its log that was shown.
    logged: i64,
}

impl Scenario {
    fn new(api: &str, id: &str) -> Self {
        Self { id: id.to_owned(), client: Client::new(api), logged: 0 }
    }

    /// Uploads a component, has the scenario use it, and says what became of that.
    async fn take(&mut self, wasm: &Path) -> anyhow::Result<String> {
        let began = Instant::now();
        self.logged =
            self.log().await?.last().map_or(self.logged, |line| line["sequence"].as_i64().unwrap_or_default());
        // One that was rolled back has the highest number, and is not the scenario's.
        let before = self.newest_revision().await?["revision"].as_i64().unwrap_or_default();
        let path = format!("/plugin?version={DEV}");
        let (status, artifact) = self.client.post(&path, "application/wasm", client::read(wasm)?).await?;
        if !status.is_success() {
            bail!("it was not taken: {}", problem(&artifact));
        }
        let name = artifact["name"].as_str().unwrap_or_default();
        let mut scenario = self.get("").await?;
        let is_pre_only = artifact["manifest"]["pre"] == true && artifact["manifest"]["post"] == false;
        let stage = if is_pre_only { "pre" } else { "post" };
        if let Some(plugins) = with_development(&scenario["spec"]["plugins"], name, stage) {
            scenario = self.change(&scenario["revision"], &json!({ "plugins": plugins })).await?;
        }
        let said = self.outcome(before, &scenario).await?;
        let lines: Vec<_> = self.log().await?.iter().map(|line| format!("  {}\n", told(line))).collect();
        let seconds = began.elapsed().as_secs_f64();
        Ok(format!("{}{name}@{DEV}: {said} ({seconds:.1} s after it was built)", lines.concat()))
    }

    /// Waits until the newest revision runs or has failed, if there is one since `before`.
    async fn outcome(&self, before: i64, scenario: &Value) -> anyhow::Result<String> {
        let end = Instant::now() + PATIENCE;
        let mut shown = None;
        loop {
            let newest = self.newest_revision().await?;
            let number = newest["revision"].as_i64().unwrap_or_default();
            if number <= before {
                return Ok("the same as before; nothing changed".to_owned());
            }
            let why = newest["reason"]["message"].as_str().unwrap_or_default();
            let state = self.get("").await?["state"].as_str().unwrap_or_default().to_owned();
            match newest["state"].as_str() {
                Some("rolled_back") => return Ok(format!("rolled back: {why}; the scenario goes on with what it had")),
                Some("active") if Instant::now() < *shown.get_or_insert(Instant::now() + TRIAL) => {
                    sleep(LOOK_AGAIN).await
                }
                Some("active") => {
                    let from = newest["from_frame"]
                        .as_u64()
                        .map_or_else(String::new, |frame| format!(" from frame {frame} on"));
                    return Ok(format!("revision {number} runs{from}"));
                }
                _ if matches!(&*state, "stopped" | "failed" | "completed") => {
                    return Ok(format!("revision {number} waits for the next start: the scenario is {state}"));
                }
                _ if Instant::now() >= end => {
                    let state = &scenario["state"];
                    return Ok(format!("revision {number} does not run yet; the scenario was {state}"));
                }
                _ => sleep(LOOK_AGAIN).await,
            }
        }
    }

    async fn newest_revision(&self) -> anyhow::Result<Value> {
        let mut newest = Value::Null;
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/revisions?limit=1000{cursor}")).await?;
            newest = page["items"].as_array().and_then(|items| items.last().cloned()).unwrap_or(newest);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(newest),
            }
        }
    }

    /// Lines of its log that were not shown yet.
    async fn log(&self) -> anyhow::Result<Vec<Value>> {
        let page = self.get("/logs?level=warn&limit=1000").await?;
        let lines = page["items"].as_array().cloned().unwrap_or_default();
        Ok(lines.into_iter().filter(|line| line["sequence"].as_i64() > Some(self.logged)).collect())
    }

    async fn get(&self, of: &str) -> anyhow::Result<Value> {
        well(self.client.get(&format!("/scenario/{}{of}", self.id)).await?)
    }

    async fn change(&self, revision: &Value, patch: &Value) -> anyhow::Result<Value> {
        well(self.client.patch(&format!("/scenario/{}", self.id), revision, patch).await?)
    }
}

fn well((status, answer): Answer) -> anyhow::Result<Value> {
    if !status.is_success() {
        bail!("{}", problem(&answer));
    }
    Ok(answer)
}

/// A line of a log.
fn told(line: &Value) -> String {
    let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let frame = line["frame"].as_u64().map_or_else(String::new, |frame| format!(" (frame {frame})"));
    format!("{} {}{frame}: {}", text("level"), text("plugin"), text("message"))
}

/// A scenario's plugins with `name@dev` where `name` is, or else behind the others of `stage`. `None`: they
/// have it already.
fn with_development(plugins: &Value, name: &str, stage: &str) -> Option<Value> {
    let wanted = format!("{name}@{DEV}");
    let is_of_plugin = |used: &Value| used["use"].as_str().is_some_and(|used| used.split('@').next() == Some(name));
    let mut plugins = plugins.clone();
    let uses: BTreeSet<_> = ["pre", "post"]
        .into_iter()
        .flat_map(|stage| plugins[stage].as_array().cloned())
        .flatten()
        .filter(is_of_plugin)
        .map(|used| used["use"].as_str().unwrap_or_default().to_owned())
        .collect();
    if uses.len() == 1 && uses.contains(&wanted) {
        return None;
    }
    if uses.is_empty() {
        match plugins[stage].as_array_mut() {
            Some(hooks) => hooks.push(json!({ "use": wanted })),
            None => plugins[stage] = json!([{ "use": wanted }]),
        }
        return Some(plugins);
    }
    for hook in ["pre", "post"].into_iter().filter_map(|stage| plugins.get(stage).map(|_| stage)).collect::<Vec<_>>() {
        for used in plugins[hook].as_array_mut().into_iter().flatten().filter(|used| is_of_plugin(used)) {
            used["use"] = Value::from(wanted.clone());
        }
    }
    Some(plugins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_gets_the_plugin_once_and_where_it_is() {
        let wanted = |plugins: Value| with_development(&plugins, "zones", "post");
        for (before, expected) in [
            (
                json!({"post": [{"use": "yolo"}, {"use": "zones@1", "config": {"a": 1}}]}),
                Some(json!({"post": [{"use": "yolo"}, {"use": "zones@dev", "config": {"a": 1}}]})),
            ),
            (json!({"pre": [{"use": "zones"}]}), Some(json!({"pre": [{"use": "zones@dev"}]}))),
            (json!({"post": [{"use": "zones2"}]}), Some(json!({"post": [{"use": "zones2"}, {"use": "zones@dev"}]}))),
            (json!({}), Some(json!({"post": [{"use": "zones@dev"}]}))),
            (json!({"post": [{"use": "zones@dev"}]}), None),
        ] {
            assert_eq!(wanted(before.clone()), expected, "{before}");
        }
    }

    #[test]
    fn what_a_build_writes_is_no_source() {
        let is_source = |path: &str| is_source(&Path::new("/p").join(path), Path::new("/p"));
        for path in ["src/lib.rs", "Cargo.toml", "tests/golden/a.json"] {
            assert!(is_source(path), "{path}");
        }
        for path in ["target/release/a.wasm", ".git/index", "Cargo.lock", "src/.lib.rs.swp"] {
            assert!(!is_source(path), "{path}");
        }
    }
}
