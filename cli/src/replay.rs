//! `framehook replay`: the frames of a scenario through another version of a plugin, and what it says
//! otherwise.
//!
//! As `diff` does, it exits with 0 where nothing differs, with 1 where something does, and with 2 where it
//! could not tell. Standard output has the differences and nothing else; what is for people beside them is on
//! stderr.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, IsTerminal as _, Seek as _, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use framehook_core::{
    compare::{Changed, Comparison, DifferenceCounts, Found, FrameDifference},
    recorded::ReplayFrom,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::time::sleep;

use crate::{
    client::{self, Client, taken},
    plugin::{self, block_on},
};

/// Between two looks at a replay that runs.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

const DIFFERENT: u8 = 1;
const TROUBLE: u8 = 2;

#[derive(Args)]
pub(crate) struct Replay {
    /// The scenario, by its id
    scenario: String,
    /// A component to use instead of the post hook of the same name, or of the only post hook
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The configuration of that hook, as JSON, or in a file behind an `@` [default: as it is in the
    /// scenario]
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// What is read: outputs or source [default: the recorded outputs, if they are whole and do for the
    /// plugin]
    #[arg(long, value_name = "WHAT")]
    from: Option<ReplayFrom>,
    /// Address of the API
    #[arg(long, value_name = "URL", env = "FRAMEHOOK_API", default_value = "http://127.0.0.1:8080")]
    api: String,
    /// Frames that are printed, at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    show: usize,
    /// Where all differences go, a line of JSON for each frame and one with the sum; `-` is standard output,
    /// instead of text
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A video to make, with the scenario's predictions on its left side and those of the replay on its right
    #[arg(long, value_name = "FILE", requires = "source")]
    video: Option<PathBuf>,
    /// The video that the scenario is about
    #[arg(long, value_name = "FILE")]
    source: Option<PathBuf>,
    /// Leave the replay where it is, instead of deleting it
    #[arg(long)]
    keep: bool,
}

/// The last line of a comparison.
#[derive(Deserialize)]
struct Last {
    summary: Summary,
}

#[derive(Clone, Copy, Deserialize)]
struct Summary {
    #[serde(flatten)]
    both: Comparison,
    only_before: u64,
    only_after: u64,
}

/// Each other line.
#[derive(Deserialize)]
struct Difference {
    #[serde(flatten)]
    difference: FrameDifference,
    only: Option<String>,
}

impl Replay {
    pub(crate) fn run(self) -> ExitCode {
        match block_on(self.compare()) {
            Ok(false) => ExitCode::SUCCESS,
            Ok(true) => DIFFERENT.into(),
            Err(error) => {
                eprintln!("framehook: {}", crate::told(&error));
                TROUBLE.into()
            }
        }
    }

    /// Whether anything differs.
    async fn compare(&self) -> anyhow::Result<bool> {
        let client = Client::new(&self.api);
        let original = taken(client.get(&format!("/scenario/{}", self.scenario)).await?, "the scenario")?;
        let body = self.body(&client, &original).await?;
        let path = format!("/scenario/{}/replay", self.scenario);
        let replay = client.post(&path, "application/json", body.to_string().into_bytes()).await?;
        let replay = taken(replay, "the scenario is not replayed")?;
        let id = replay["id"].as_str().context("the replay has no id")?.to_owned();
        let outcome = self.follow(&client, &original, &id).await;
        if self.keep {
            eprintln!("the replay is scenario {id}");
        } else if !client.delete(&format!("/scenario/{id}")).await?.is_success() {
            eprintln!("the replay, scenario {id}, could not be deleted");
        }
        outcome
    }

    /// What is asked for.
    async fn body(&self, client: &Client, original: &Value) -> anyhow::Result<Value> {
        let mut body = json!({});
        if let Some(from) = self.from {
            body["from"] = from.as_str().into();
        }
        let uploaded = match &self.plugin {
            Some(file) => Some(upload(client, client::read(file)?).await?),
            None => None,
        };
        if uploaded.is_none() && self.config.is_none() {
            return Ok(body);
        }
        let config = self.config.as_deref().map(|text| plugin::json(text, "--config")).transpose()?;
        body["plugins"] = json!({"post": post_hooks(original, uploaded.as_ref(), config)?});
        Ok(body)
    }

    /// Waits for the replay's end and tells what it said otherwise.
    async fn follow(&self, client: &Client, original: &Value, id: &str) -> anyhow::Result<bool> {
        let ended = wait(client, id).await?;
        let state = ended["state"].as_str().unwrap_or_default();
        if state != "completed" {
            bail!("the replay is {state}: {}", ended["reason"]["message"].as_str().unwrap_or("nobody says why"));
        }
        let mut lines = NamedTempFile::new().context("cannot keep the differences")?;
        client.lines(&format!("/scenario/{id}/comparison"), BufWriter::new(&mut lines)).await?;
        lines.rewind()?;
        let summary = self.tell(BufReader::new(lines), original, &ended)?;
        if let (Some(video), Some(source)) = (&self.video, &self.source) {
            let [before, after] = [&self.scenario, id].map(|id| format!("/prediction/{id}"));
            let (mut left, mut right) = (NamedTempFile::new()?, NamedTempFile::new()?);
            client.lines(&before, BufWriter::new(&mut left)).await?;
            client.lines(&after, BufWriter::new(&mut right)).await?;
            plugin::draw(source, left.path(), Some(right.path()), video)?;
        }
        Ok(summary.both.different + summary.only_before + summary.only_after > 0)
    }

    /// Writes the differences where they are wanted, and gives their sum.
    fn tell(&self, lines: impl io::BufRead, original: &Value, replay: &Value) -> anyhow::Result<Summary> {
        let as_json = self.json.as_ref().is_some_and(|file| file.as_os_str() == "-");
        let mut json: Option<Box<dyn Write>> = match &self.json {
            Some(_) if as_json => Some(Box::new(io::stdout().lock())),
            Some(file) => Some(Box::new(BufWriter::new(
                File::create(file).with_context(|| format!("cannot write to {}", file.display()))?,
            ))),
            None => None,
        };
        let (mut shown, mut summary) = (Vec::new(), None);
        for line in lines.lines() {
            let line = line?;
            if let Some(json) = &mut json {
                writeln!(json, "{line}")?;
            }
            if let Ok(last) = serde_json::from_str::<Last>(&line) {
                summary = Some(last.summary);
            } else if shown.len() < self.show {
                shown.push(serde_json::from_str(&line).context("the comparison is not understood")?);
            }
        }
        json.map_or(Ok(()), |mut json| json.flush())?;
        let summary = summary.context("the comparison broke off")?;
        if !as_json {
            print!("{}", text(original, replay, &shown, summary));
        }
        Ok(summary)
    }
}

/// Uploads a plugin; where its version is another one already, under a version of its own.
async fn upload(client: &Client, wasm: Vec<u8>) -> anyhow::Result<Value> {
    let answer = client.post("/plugin", "application/wasm", wasm.clone()).await?;
    if answer.1["code"] == "version_exists" {
        let answer = client.post("/plugin?version=digest", "application/wasm", wasm).await?;
        return taken(answer, "the plugin was not taken");
    }
    taken(answer, "the plugin was not taken")
}

/// The post hooks of a scenario, one of which has another plugin or another configuration.
fn post_hooks(original: &Value, uploaded: Option<&Value>, config: Option<Value>) -> anyhow::Result<Vec<Value>> {
    let hooks = original["resolved"]["post"].as_array().context("the scenario has no list of post hooks")?;
    let name = uploaded.map(|uploaded| uploaded["name"].as_str().unwrap_or_default());
    let of_name: Vec<_> = (0..hooks.len()).filter(|at| name.is_none_or(|name| hooks[*at]["name"] == name)).collect();
    let at = match (&of_name[..], hooks.len()) {
        (&[at], _) => at,
        ([], 1) => 0,
        _ => {
            let names: Vec<_> = hooks.iter().filter_map(|hook| hook["name"].as_str()).collect();
            let wanted = name.map_or("one".to_owned(), |name| format!("one of the name `{name}`"));
            bail!("which post hook is meant? The scenario has these, not just {wanted}: {}", names.join(", "));
        }
    };
    let made = |(here, hook): (usize, &Value)| {
        let is_changed = here == at;
        let digest = uploaded.filter(|_| is_changed).map_or(&hook["digest"], |uploaded| &uploaded["digest"]);
        let config = config.as_ref().filter(|_| is_changed).unwrap_or(&hook["config"]);
        json!({"use": digest, "config": config})
    };
    Ok(hooks.iter().enumerate().map(made).collect())
}

/// The replay, once it is at rest.
async fn wait(client: &Client, id: &str) -> anyhow::Result<Value> {
    let is_terminal = io::stderr().is_terminal();
    loop {
        let view = taken(client.get(&format!("/scenario/{id}")).await?, "the replay")?;
        let state = view["state"].as_str().unwrap_or_default();
        if is_terminal {
            let progress = &view["progress"];
            let of = progress["frames_total"].as_u64().map(|total| format!(" of {total}")).unwrap_or_default();
            eprint!("\rreplay {state}: {}{of} frames\x1b[K", progress["frames"].as_u64().unwrap_or_default());
        }
        if matches!(state, "completed" | "failed" | "stopped") {
            if is_terminal {
                eprint!("\r\x1b[K");
            }
            return Ok(view);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// The differences for people.
fn text(original: &Value, replay: &Value, shown: &[Difference], summary: Summary) -> String {
    let Summary { both: Comparison { compared, equal, different, counts }, only_before, only_after } = summary;
    let from = replay["resolved"]["replay"]["from"].as_str().unwrap_or_default();
    let mut text = format!("before  {}\nafter   {}, from the {from}\n", hooks(original), hooks(replay));
    text += &format!("frames  {compared} compared: {equal} equal, {different} different");
    for (frames, which) in [(only_before, "before"), (only_after, "after")] {
        if frames > 0 {
            text += &format!("; {frames} only {which}");
        }
    }
    text.push('\n');
    let told = told(&counts);
    if !told.is_empty() {
        text += &format!("counts  {told}\n");
    }
    for difference in shown {
        text += &frame(difference);
    }
    let more = (different + only_before + only_after).saturating_sub(shown.len() as u64);
    if more > 0 {
        text += &format!("and {more} more frames\n");
    }
    text
}

fn hooks(view: &Value) -> String {
    let hooks = view["resolved"]["post"].as_array().into_iter().flatten();
    let name = |hook: &Value| {
        format!("{}@{}", hook["name"].as_str().unwrap_or_default(), hook["version"].as_str().unwrap_or_default())
    };
    hooks.map(name).collect::<Vec<_>>().join(", ")
}

fn told(counts: &DifferenceCounts) -> String {
    let DifferenceCounts { added, missing, moved, relabelled, rescored, redrawn, skipped, .. } = *counts;
    let DifferenceCounts { events_added, events_missing, failures_added, failures_missing, .. } = *counts;
    [
        (added, "added"),
        (missing, "missing"),
        (moved, "moved"),
        (relabelled, "relabelled"),
        (rescored, "rescored"),
        (redrawn, "redrawn"),
        (events_added, "events added"),
        (events_missing, "events missing"),
        (skipped, "skipped by one"),
        (failures_added, "failures added"),
        (failures_missing, "failures missing"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect::<Vec<_>>()
    .join(", ")
}

/// A frame, and a line for each thing that differs on it.
fn frame(Difference { difference, only }: &Difference) -> String {
    let mut text = format!("frame {:>6}  {:>9.3} s", difference.frame, difference.pts_us as f64 / 1e6);
    if let Some(only) = only {
        return text + &format!("  only {only}\n");
    }
    text.push('\n');
    let mut line = |sign: char, what: String| text += &format!("  {sign} {what}\n");
    difference.missing.iter().for_each(|found| line('-', object(found)));
    difference.added.iter().for_each(|found| line('+', object(found)));
    for Changed { before, after, changes, .. } in &difference.changed {
        let how: Vec<_> = changes.iter().map(|change| change.as_str()).collect();
        line('~', format!("{} -> {} ({})", object(before), object(after), how.join(", ")));
    }
    difference.events_missing.iter().for_each(|kind| line('-', format!("event {kind}")));
    difference.events_added.iter().for_each(|kind| line('+', format!("event {kind}")));
    for (sign, skipped) in [('-', &difference.skipped_before), ('+', &difference.skipped_after)] {
        if let Some(skipped) = skipped {
            line(sign, format!("skipped by {}: {}", skipped.by, skipped.reason));
        }
    }
    for (sign, failures) in [('-', &difference.failures_missing), ('+', &difference.failures_added)] {
        failures
            .iter()
            .for_each(|failure| line(sign, format!("{} failed: {}", failure.plugin, failure.reason.message)));
    }
    text
}

/// `car 0.87 at [0.12, 0.30, 0.05, 0.09]`
fn object(Found { class_id, label, score, bbox: [x, y, width, height] }: &Found) -> String {
    let label = label.clone().unwrap_or_else(|| format!("class {class_id}"));
    format!("{label} {score:.2} at [{x:.3}, {y:.3}, {width:.3}, {height:.3}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(post: &[&str]) -> Value {
        let hook =
            |name: &&str| json!({"name": name, "version": "1", "digest": format!("of {name}"), "config": {"a": name}});
        json!({"resolved": {"post": post.iter().map(hook).collect::<Vec<_>>(), "replay": {"from": "outputs"}}})
    }

    #[test]
    fn the_hook_of_the_same_name_is_replaced_or_the_only_one() {
        let new = json!({"name": "yolo", "digest": "new"});
        let old = |name: &str| json!({"use": format!("of {name}"), "config": {"a": name}});
        let changed = |name: &str| json!({"use": "new", "config": {"a": name}});
        for (post, expected) in [
            (&["yolo"][..], vec![changed("yolo")]),
            (&["other"], vec![changed("other")]),
            (&["a", "yolo", "b"], vec![old("a"), changed("yolo"), old("b")]),
        ] {
            assert_eq!(post_hooks(&view(post), Some(&new), None).unwrap(), expected);
        }
        let config = Some(json!({"b": 1}));
        assert_eq!(
            post_hooks(&view(&["a"]), None, config.clone()).unwrap(),
            [json!({"use": "of a", "config": {"b": 1}})]
        );
        for post in [&["a", "b"][..], &["yolo", "yolo"], &[]] {
            let error = post_hooks(&view(post), Some(&new), config.clone()).unwrap_err().to_string();
            assert!(error.starts_with("which post hook is meant?"), "{error}");
        }
    }

    #[test]
    fn differences_are_told_line_by_line() {
        let line = |line: Value| serde_json::from_value::<Difference>(line).unwrap();
        let found = |label: &str| json!({"class_id": 2, "label": label, "score": 0.5, "box": [0.1, 0.2, 0.3, 0.4]});
        let counts = json!({"added": 1});
        let first = line(json!({"pts_us": 40_000, "frame": 1, "counts": counts, "added": [found("car")],
            "changed": [{"before": found("car"), "after": found("bus"), "iou": 1.0, "changes": ["relabelled"]}],
            "events_missing": ["crowded"]}));
        let second = line(json!({"pts_us": 80_000, "frame": 2, "counts": {}, "only": "before"}));
        let both = Comparison {
            compared: 9,
            equal: 7,
            different: 2,
            counts: DifferenceCounts { added: 1, relabelled: 1, ..DifferenceCounts::default() },
        };
        let summary = Summary { both, only_before: 1, only_after: 0 };
        let told = text(&view(&["yolo"]), &view(&["yolo", "b"]), &[first, second], summary);
        assert_eq!(
            told,
            "before  yolo@1\nafter   yolo@1, b@1, from the outputs\n\
             frames  9 compared: 7 equal, 2 different; 1 only before\ncounts  1 added, 1 relabelled\n\
             frame      1      0.040 s\n  + car 0.50 at [0.100, 0.200, 0.300, 0.400]\n\
             \x20 ~ car 0.50 at [0.100, 0.200, 0.300, 0.400] -> bus 0.50 at [0.100, 0.200, 0.300, 0.400] (relabelled)\n\
             \x20 - event crowded\nframe      2      0.080 s  only before\nand 1 more frames\n"
        );
    }
}
