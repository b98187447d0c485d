//! Golden cases: folders in `tests/golden/` of a plugin with a `case.json` (see [`Case`]). It is a video with
//! a model, or the outputs of a model for one frame, as NumPy saved them: then the hook is called in a child
//! with the platform's engine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use framehook_api::judge;
use framehook_compiled::Compiled;
use framehook_core::{
    input::{Anchor, InputOptions, Resize},
    job::HookJob,
};
use framehook_engine::trial::{Trial, Tried};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    local::Local,
    scenario::{Plugin, PluginFile, Prepared, Wanted, plugin, prepare},
};

/// What `case.json` says. Paths are relative to its folder.
pub(super) enum Case {
    Video(OnVideo),
    Outputs(OnOutputs),
}

/// One call of a post hook.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnOutputs {
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
pub(super) struct OnVideo {
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
    pub(super) limit: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Before {
    plugin: PathBuf,
    #[serde(default = "nothing")]
    config: Value,
}

fn nothing() -> Value {
    Value::Object(Map::new())
}

/// The folders of the cases of a plugin, by name: those that are wanted, or all.
///
/// # Errors
/// When there is none, or not one that is wanted.
pub(super) fn cases(plugin: &Path, wanted: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let golden = plugin.join("tests/golden");
    let entries = fs::read_dir(&golden).map(|all| all.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>());
    let mut cases: Vec<_> =
        entries.unwrap_or_default().into_iter().filter(|path| path.join("case.json").is_file()).collect();
    if cases.is_empty() {
        bail!(
            "there is no case: make {}/NAME/case.json with `video` and `model`, or `outputs` and `frame` (see \
             docs/write-a-plugin.md); then `framehook plugin test --update` writes what is expected",
            golden.display()
        );
    }
    cases.sort();
    if let Some(unknown) = wanted.iter().find(|name| !cases.iter().any(|case| name_of(case) == **name)) {
        let there = cases.iter().map(|case| name_of(case)).collect::<Vec<_>>().join(", ");
        bail!("there is no case {unknown} in {}; there are {there}", golden.display());
    }
    cases.retain(|case| wanted.is_empty() || wanted.contains(&name_of(case)));
    Ok(cases)
}

pub(super) fn name_of(case: &Path) -> String {
    case.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// # Errors
/// When it cannot be read, or what is wrong with it.
pub(super) fn read(folder: &Path) -> anyhow::Result<Case> {
    let text = fs::read_to_string(folder.join("case.json")).context("case.json cannot be read")?;
    parse(&text).context("case.json")
}

fn parse(text: &str) -> anyhow::Result<Case> {
    let all: Map<String, Value> = serde_json::from_str(text)?;
    // A misspelt key leaves the other one.
    let is_there = |key| all.contains_key(key);
    match ["video", "model"].map(is_there).contains(&true) {
        true => of(all).map(Case::Video),
        false if ["outputs", "frame"].map(is_there).contains(&true) => of(all).map(Case::Outputs),
        false => bail!("it has neither `video` and `model` nor `outputs` and `frame`"),
    }
}

/// Serde's own words name an unknown key, and those that there are.
fn of<T: DeserializeOwned>(all: Map<String, Value>) -> anyhow::Result<T> {
    let keys: Vec<_> = all.keys().cloned().collect();
    serde_json::from_value(Value::Object(all)).map_err(|error| {
        let said = error.to_string();
        let quoted: Vec<_> = said.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        match &quoted[..] {
            [unknown, known @ ..] if said.starts_with("unknown field") => {
                let free = known.iter().filter(|key| !keys.contains(key));
                let near = free.map(|key| (strsim::jaro(unknown, key), key)).max_by(|a, b| a.0.total_cmp(&b.0));
                // Nearer than words that have nothing in common.
                let near = near.filter(|(alike, _)| *alike > 0.7);
                let advice = near.map_or_else(String::new, |(_, key)| format!("; did you mean `{key}`?"));
                anyhow::anyhow!("there is no key `{unknown}`{advice} (there are {})", known.join(", "))
            }
            _ => anyhow::anyhow!(said),
        }
    })
}

/// The call of a case of outputs, and the plugin that it is for.
///
/// # Errors
/// What is wrong with the plugin, its configuration or the case.
pub(super) async fn trial(
    local: &Local,
    folder: &Path,
    wasm: &Path,
    case: OnOutputs,
) -> anyhow::Result<(Plugin, Trial)> {
    let plugin = plugin(local, &PluginFile { path: wasm.to_owned(), config: case.config }).await?;
    let input = case.input.or(plugin.manifest.input.clone());
    let size = input.size.unwrap_or(case.frame);
    if [case.frame, size].concat().contains(&0) {
        bail!("case.json: `frame` and the input's `size` have 1 pixel at least");
    }
    let absolute = |(name, file): (String, PathBuf)| {
        let file = folder.join(file);
        let there = file.canonicalize().with_context(|| format!("cannot read {}", file.display()))?;
        anyhow::Ok((name, there))
    };
    let (Compiled { path, digest }, hook) = (plugin.compiled.clone(), plugin.hook.clone());
    let trial = Trial {
        hook: HookJob { identity: hook.identity, compiled: path, digest, config: hook.config },
        frame: case.frame,
        input: size,
        is_stretched: input.resize == Some(Resize::Stretch),
        is_centered: input.anchor != Some(Anchor::TopLeft),
        outputs: case.outputs.into_iter().map(absolute).collect::<Result<_, _>>()?,
        is_measured: false,
    };
    Ok((plugin, trial))
}

/// What comes of it in a child.
///
/// # Errors
/// When nothing does.
pub(super) async fn tried(local: &Local, trial: &Trial) -> anyhow::Result<Tried> {
    let tried: Result<Tried, String> = judge::trial(&local.api, &serde_json::to_value(trial)?).await?;
    let tried = tried.map_err(anyhow::Error::msg)?;
    tried.log.iter().for_each(|line| eprintln!("{}: {}", line.plugin, line.message));
    Ok(tried)
}

/// The scenario of a case of a video: this plugin is its last one.
///
/// # Errors
/// What is wrong with a file of it.
pub(super) async fn scenario(local: &Local, folder: &Path, wasm: &Path, case: &OnVideo) -> anyhow::Result<Prepared> {
    let file = |path: PathBuf, config: &Value| PluginFile { path, config: config.clone() };
    let before = case.before.iter().map(|before| file(folder.join(&before.plugin), &before.config));
    let plugins = before.chain([file(wasm.to_owned(), &case.config)]).collect();
    let (video, model) = (folder.join(&case.video), folder.join(&case.model));
    let input = case.input.clone();
    prepare(local, Wanted { video: &video, model: &model, models: Vec::new(), plugins, input }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_without_cases_is_told_how_to_make_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = cases(folder.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("NAME/case.json"), "{error}");
    }

    #[test]
    fn cases_are_chosen_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a", "none"] {
            let case = folder.path().join("tests/golden").join(name);
            fs::create_dir_all(&case).unwrap();
            if name != "none" {
                fs::write(case.join("case.json"), "{}").unwrap();
            }
        }
        let names = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
            let found = cases(folder.path(), &wanted).map_err(|error| error.to_string())?;
            Ok::<_, String>(found.iter().map(|case| name_of(case)).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["a", "b"]);
        assert_eq!(names(&["b"]).unwrap(), ["b"]);
        let why = names(&["b", "none"]).unwrap_err();
        assert!(why.starts_with("there is no case none in ") && why.ends_with("there are a, b"), "{why}");
    }

    #[test]
    fn a_misspelt_key_is_named_with_the_nearest() {
        for (text, words) in [
            (r#"{"vidoe": "a", "model": "b"}"#, "there is no key `vidoe`; did you mean `video`?"),
            (r#"{"outputs": [], "frames": [1, 1]}"#, "there is no key `frames`; did you mean `frame`?"),
            (r#"{"video": "a", "model": "b", "zzz": 1}"#, "there is no key `zzz` (there are video, model, before"),
            (r#"{"video": "a"}"#, "missing field `model`"),
            (r#"{"before": []}"#, "it has neither `video` and `model` nor `outputs` and `frame`"),
            ("[]", "expected a map"),
        ] {
            let why = parse(text).err().unwrap().to_string();
            assert!(why.contains(words), "{why}");
        }
        assert!(matches!(parse(r#"{"video": "a", "model": "b"}"#), Ok(Case::Video(_))));
        assert!(matches!(parse(r#"{"outputs": [], "frame": [1, 1]}"#), Ok(Case::Outputs(_))));
    }
}
