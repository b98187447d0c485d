//! `framehook plugin check`: what the platform would say of an upload.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use framehook_api::judge;
use framehook_core::{
    artifact::{Manifest, PluginManifest},
    probe::{Finding, Verdict},
};
use serde_json::{Map, Value, json};

use super::local::{Local, Named, block_on, named};

#[derive(Args)]
pub(crate) struct Check {
    /// The component, a `.wasm` file
    file: PathBuf,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn of(file: PathBuf) -> Self {
        Self { file, json: false }
    }

    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let local = Local::open()?;
        let file = named(&self.file)?;
        let verdict = block_on(async { Ok(judge::plugin(&local.api, &file.digest, &file.path).await?) })?;
        let (code, text) = match verdict {
            Verdict::Ok(plugin) => {
                let text = if self.json { as_json(plugin, &file) } else { self.told(&plugin, &file) };
                (ExitCode::SUCCESS, text)
            }
            Verdict::Findings(findings) if self.json => {
                (ExitCode::FAILURE, json!({ "findings": findings }).to_string())
            }
            Verdict::Findings(findings) => {
                // Like what a compiler says, where people look for it.
                eprintln!("{}", wrong(&findings, &self.file.display().to_string()));
                return Ok(ExitCode::FAILURE);
            }
        };
        println!("{text}");
        Ok(code)
    }

    fn told(&self, plugin: &PluginManifest, file: &Named) -> String {
        let PluginManifest { name, version, abi, pre, post, config_schema, input, capabilities, .. } = plugin;
        let hooks = match (pre, post) {
            (true, true) => "pre and post hook",
            (true, false) => "pre hook",
            _ => "post hook",
        };
        let mut lines = vec![
            format!("{}: {name}@{version}, a {hooks} of framehook:plugin@{abi}", self.file.display()),
            format!("  size     {:.1} KiB, {}", file.size as f64 / 1024.0, file.digest),
            format!("  uses     {}", uses(capabilities)),
        ];
        let input = serde_json::to_value(input).unwrap_or_default();
        if let Some(wanted) = input.as_object().filter(|wanted| !wanted.is_empty()) {
            let wanted: Vec<_> = wanted.iter().map(|(key, value)| format!("{key} {value}")).collect();
            lines.push(format!("  input    {}", wanted.join(", ")));
        }
        let settings = settings(config_schema);
        lines.push(format!("  config   {}", if settings.is_empty() { "nothing" } else { "" }).trim_end().to_owned());
        lines.extend(settings.iter().map(|line| format!("    {line}")));
        lines.join("\n")
    }
}

/// What it uses, in a line. Of WASI there is what a standard library wants to exist, and nothing behind it.
fn uses(capabilities: &[String]) -> String {
    let part = |name: &String| if name == "wasi" { "wasi (no files, no network)".to_owned() } else { name.clone() };
    let parts: Vec<_> = capabilities.iter().map(part).collect();
    if parts.is_empty() { "nothing of the host".to_owned() } else { parts.join(", ") }
}

fn as_json(plugin: PluginManifest, file: &Named) -> String {
    let (name, version) = (plugin.name.clone(), plugin.version.clone());
    let manifest = Manifest::Plugin(plugin);
    json!({
        "name": name, "version": version, "digest": file.digest, "size_bytes": file.size,
        "manifest": manifest,
    })
    .to_string()
}

/// Findings, each a line.
pub(super) fn wrong(findings: &[Finding], file: &str) -> String {
    let line = |finding: &Finding| format!("{file}: {}: {}", finding.code, finding.message);
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The settings of a schema, a line each: name, type, whether it must be there or what it is otherwise, and
/// what it is for.
fn settings(schema: &Value) -> Vec<String> {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let line = |(name, about): (&String, &Value)| {
        let presence = match about.get("default") {
            Some(default) => format!(" = {default}"),
            None if required.contains(&name.as_str()) => ", required".to_owned(),
            None => ", optional".to_owned(),
        };
        let purpose = about["description"].as_str().map(|text| format!(": {}", text.replace('\n', " ")));
        format!("{name} ({}){presence}{}", type_of(about, schema), purpose.unwrap_or_default())
    };
    properties.iter().map(line).collect()
}

/// A name, or the choices that there are. `schema` is the whole, to whose parts a setting may refer.
fn type_of(about: &Value, schema: &Value) -> String {
    let listed =
        |items: &[Value]| items.iter().map(|item| item.as_str().unwrap_or("?")).collect::<Vec<_>>().join(" or ");
    if let Some(choices) = choices(about, schema) {
        return choices.join(" or ");
    }
    let of = |about: &Value| type_of(about, schema);
    match (&about["type"], about["$ref"].as_str()) {
        (Value::String(name), _) if name == "array" => format!("list of {}", of(&about["items"])),
        (Value::String(name), _) => name.clone(),
        (Value::Array(several), _) => listed(several),
        (_, Some(reference)) => reference.rsplit('/').next().unwrap_or_default().to_owned(),
        _ => about["anyOf"]
            .as_array()
            .or(about["oneOf"].as_array())
            .map_or_else(|| "any".to_owned(), |choices| choices.iter().map(of).collect::<Vec<_>>().join(" or ")),
    }
}

/// The values of what takes nothing else: an `enum`, a `const`, either of several, or a reference to such.
fn choices(about: &Value, schema: &Value) -> Option<Vec<String>> {
    if let Some(reference) = about["$ref"].as_str() {
        let target = schema.pointer(reference.strip_prefix('#')?)?;
        // What refers to itself is no list of values.
        return if target["$ref"].is_null() { choices(target, schema) } else { None };
    }
    match (&about["enum"], &about["const"], &about["oneOf"]) {
        (Value::Array(values), ..) => Some(values.iter().map(Value::to_string).collect()),
        (_, Value::Null, Value::Array(several)) => {
            let of = |about: &Value| if about["$ref"].is_null() { choices(about, schema) } else { None };
            several.iter().map(of).collect::<Option<Vec<_>>>().map(|all| all.concat())
        }
        (_, Value::Null, _) => None,
        (_, value, _) => Some(vec![value.to_string()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_those_of_the_contract() {
        let of = |names: &[&str]| uses(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["media", "wasi"]), "media, wasi (no files, no network)");
        assert_eq!(of(&[]), "nothing of the host");
    }

    #[test]
    fn settings_are_told_with_type_default_and_purpose() {
        let schema = json!({
            "type": "object",
            "required": ["keep"],
            "properties": {
                "keep": {"type": "array", "items": {"type": "string"}, "description": "Names of\nclasses."},
                "crowd": {"type": "integer", "default": 3},
                "head": {"anyOf": [{"$ref": "#/$defs/Head"}, {"type": "null"}]},
                "line": {"type": ["number", "null"], "default": null},
                "mode": {"$ref": "#/$defs/Mode", "default": "a"},
                "side": {"enum": ["left", "right"], "type": "string"},
                "tree": {"$ref": "#/$defs/Tree"},
            },
            "$defs": {
                "Mode": {"oneOf": [{"const": "a", "description": "x"}, {"enum": ["b", "c"], "type": "string"}]},
                "Tree": {"$ref": "#/$defs/Tree"},
            },
        });
        assert_eq!(
            settings(&schema),
            [
                "crowd (integer) = 3",
                "head (Head or null), optional",
                "keep (list of string), required: Names of classes.",
                "line (number or null) = null",
                "mode (\"a\" or \"b\" or \"c\") = \"a\"",
                "side (\"left\" or \"right\"), optional",
                "tree (Tree), optional",
            ]
        );
        assert!(settings(&json!(true)).is_empty());
    }
}
