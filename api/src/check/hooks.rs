//! The plugins of a scenario: found, of the right kind, and content with their configuration.
//!
//! A configuration is judged in a child process: by the plugin's JSON Schema, and if it fits by the plugin
//! itself. The schema is a stranger's data as well, and a small one can take for ever to evaluate. A plugin's
//! word about a configuration it accepted is remembered, because neither of the two can change.

use std::collections::HashSet;

use framehook_core::{
    artifact::{ArtifactKind, Manifest, PluginManifest},
    error_code::ErrorCode,
    ids::Digest,
    input::InputOptions,
    prediction::PluginIdentity,
    probe::ConfigProblem,
    spec::{PluginUse, ResolvedHook},
};
use framehook_infra::store::Artifact;
use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    App,
    check::{canonical, plugin, resolve::Found},
    http::problem::{FieldError, Problem},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Pre,
    Post,
    /// A post hook of the shadow.
    Shadow,
}

impl Hook {
    /// The field of a scenario that lists such hooks.
    pub(crate) const fn list(self) -> &'static str {
        match self {
            Self::Pre => "plugins.pre",
            Self::Post => "plugins.post",
            Self::Shadow => "shadow.post",
        }
    }
}

pub(crate) struct Resolved {
    pub resolved: ResolvedHook,
    /// What the plugin declares.
    pub input: InputOptions,
}

/// Everything that is wrong goes to `errors`; what is left out of the answer has an error there.
pub(crate) async fn resolve(
    app: &App,
    found: &Found,
    hook: Hook,
    uses: &[PluginUse],
    errors: &mut Vec<FieldError>,
) -> Result<Vec<Resolved>, Problem> {
    let mut hooks = Vec::with_capacity(uses.len());
    // One after the other, so that a scenario waits for one turn at a time, as every other does.
    for (index, used) in uses.iter().enumerate() {
        hooks.extend(resolve_one(app, found, hook, index, used, errors).await?);
    }
    Ok(hooks)
}

async fn resolve_one(
    app: &App,
    found: &Found,
    hook: Hook,
    index: usize,
    used: &PluginUse,
    errors: &mut Vec<FieldError>,
) -> Result<Option<Resolved>, Problem> {
    let field = format!("{}[{index}]", hook.list());
    let plugin = found.look_up(ArtifactKind::Plugin, &used.plugin, &format!("{field}.use"));
    let (identity, manifest) = match plugin {
        Ok(Artifact { name, version, digest, manifest: Manifest::Plugin(manifest), .. }) => {
            (PluginIdentity { name: name.clone(), version: version.clone(), digest: digest.clone() }, manifest)
        }
        Ok(_) => return Ok(None),
        Err(missing) => {
            errors.push(missing);
            return Ok(None);
        }
    };
    if let Some(message) = mismatch(hook, manifest) {
        errors.push(FieldError::new(ErrorCode::PluginHookMismatch, format!("{field}.use"), message));
        return Ok(None);
    }
    let config_field = format!("{field}.config");
    match ask_plugin(app, &identity.digest, &used.config).await {
        Ok(problems) => errors.extend(problems.into_iter().map(|problem| {
            let field = format!("{config_field}{}", path_of(&problem.path));
            FieldError::new(ErrorCode::InvalidPluginConfig, field, problem.message)
        })),
        Err(problem) if problem.code == ErrorCode::InvalidPluginConfig => {
            let message = format!("`{}@{}`: {}", identity.name, identity.version, problem.detail);
            errors.push(FieldError::new(problem.code, config_field, message));
        }
        Err(problem) => return Err(problem),
    }
    let resolved = ResolvedHook { identity, config: used.config.clone() };
    Ok(Some(Resolved { resolved, input: manifest.input.clone() }))
}

fn mismatch(hook: Hook, manifest: &PluginManifest) -> Option<String> {
    let PluginManifest { name, version, pre, post, .. } = manifest;
    match (hook, pre, post) {
        (Hook::Pre, false, _) => Some(format!("`{name}@{version}` has no pre hook; list it under `plugins.post`")),
        (Hook::Post | Hook::Shadow, _, false) => {
            Some(format!("`{name}@{version}` has no post hook; list it under `plugins.pre`"))
        }
        _ => None,
    }
}

/// Pairs of plugin and configuration that a plugin accepted.
#[derive(Default)]
pub(crate) struct AcceptedConfigs(Mutex<HashSet<(Digest, Digest)>>);

/// Some 150 bytes each; when it is full it starts anew.
const MAX_REMEMBERED: usize = 4096;

impl AcceptedConfigs {
    fn insert(&self, pair: (Digest, Digest)) {
        let mut pairs = self.0.lock();
        if pairs.len() >= MAX_REMEMBERED {
            pairs.clear();
        }
        pairs.insert(pair);
    }
}

async fn ask_plugin(app: &App, digest: &Digest, config: &Value) -> Result<Vec<ConfigProblem>, Problem> {
    let pair = (digest.clone(), canonical::digest(config));
    if app.accepted_configs.0.lock().contains(&pair) {
        return Ok(Vec::new());
    }
    let file = app.blobs.verified(digest).await?;
    let problems = plugin::validate_config(app, digest, &file, config).await?;
    if problems.is_empty() {
        app.accepted_configs.insert(pair);
    }
    Ok(problems)
}

/// A JSON pointer as the rest of a field's path: `/line/0` is `.line[0]`.
fn path_of(pointer: &str) -> String {
    let mut path = String::new();
    for segment in pointer.split('/').skip(1) {
        if !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_digit()) {
            path += &format!("[{segment}]");
        } else {
            path.push('.');
            path += &segment.replace("~1", "/").replace("~0", "~");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_become_paths() {
        for (pointer, path) in [("", ""), ("/a", ".a"), ("/a/0/b~1c~0d", ".a[0].b/c~d"), ("/", ".")] {
            assert_eq!(path_of(pointer), path);
        }
    }
}
