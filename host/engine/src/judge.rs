//! Lets a compiled plugin say what it is, and what it thinks of a configuration.
//!
//! For the child process only ([`crate::command`]), because this runs a stranger's code. What is wrong with a
//! plugin comes back as data, each finding with a stable code.

use std::{path::Path, sync::Arc, time::Instant};

use framehook_core::{
    artifact::{PluginManifest, check_name, check_version},
    ids::Digest,
    job::HookLimits,
    log_budget::LogLimits,
    probe::{ConfigProblem, Finding, Verdict},
};
use wasmtime::component::{Component, types::ComponentItem};

use crate::{
    Engine, LoadError, Plugin,
    abi::{self, Instance, PACKAGE},
    check::{Checked, refused},
    log::{Log, Logger},
    metrics::Metrics,
    sandbox::{Failure, Given},
    schema,
    state::State,
};

/// What reads the pixels of a frame in each version of the contract, behind the inference.
const READ_PIXELS: &str = "[method]inference.read-pixels";

/// One compiled plugin, and an engine of its own that has no compiler.
pub struct Judge {
    engine: Engine,
    /// Otherwise why it cannot be loaded.
    component: Result<Component, String>,
}

impl Judge {
    /// # Errors
    /// As [`Engine::load`]: what is wrong with the file, which says nothing about the plugin.
    pub fn load(compiled: &Path, digest: &Digest) -> Result<Self, LoadError> {
        let engine = Engine::judge()?;
        let component = match engine.component(compiled, digest) {
            Ok(component) => Ok(component),
            // What it is made of is the plugin's doing.
            Err(LoadError::Unfit(why)) => Err(why),
            Err(error) => return Err(error),
        };
        Ok(Self { engine, component })
    }

    /// What the plugin is, if it can be one. It was compiled, so it passed the checks that come before.
    #[must_use]
    pub fn describe(&self) -> Verdict<PluginManifest> {
        let manifest = self.link().and_then(|plugin| check_description(&plugin));
        let manifest = manifest.map(|manifest| PluginManifest { capabilities: self.capabilities(), ..manifest });
        manifest.map_or_else(Verdict::Findings, Verdict::Ok).bounded()
    }

    /// What is wrong with a configuration, by the plugin's schema or, if that finds nothing, by the plugin
    /// itself; empty if it is good. The plugin described itself before, perhaps to an older release.
    ///
    /// # Errors
    /// When the plugin does not fit this host or fails while it checks, or its schema cannot be used.
    pub fn validate_config(&self, config: &str) -> Result<Vec<ConfigProblem>, LoadError> {
        let say = |findings: Vec<Finding>| {
            LoadError::Refused(findings.into_iter().map(|f| f.message).collect::<Vec<_>>().join("; "))
        };
        let silent =
            |f: Failure| LoadError::Refused(format!("the plugin could not check its configuration: {}", f.message));
        let mut instance = start(&self.link().map_err(say)?).map_err(silent)?;
        let manifest = instance.describe().map_err(silent)?;
        let problems = schema::problems(manifest.config_schema, config).map_err(LoadError::Refused)?;
        if problems.is_empty() { instance.validate_config(config).map_err(silent) } else { Ok(problems) }
    }

    /// What of the host it imports, plain data aside.
    fn capabilities(&self) -> Vec<String> {
        let Ok(component) = &self.component else { return Vec::new() };
        let ty = component.component_type();
        let capability = |name: &str| match name.strip_prefix(PACKAGE)?.strip_prefix('/')?.split('@').next()? {
            "types" => None,
            interface => Some(interface.to_owned()),
        };
        let mut all: Vec<_> = ty.imports(component.engine()).filter_map(|(name, _)| capability(name)).collect();
        if ty.imports(component.engine()).any(|(name, _)| name.starts_with("wasi:")) {
            all.push("wasi".to_owned());
        }
        // What a post hook can do without, where its frames are not there any more.
        let reads_pixels = ty.imports(component.engine()).any(|(_, import)| match import.ty {
            ComponentItem::ComponentInstance(interface) => {
                interface.exports(component.engine()).any(|(name, _)| name == READ_PIXELS)
            }
            _ => false,
        });
        if reads_pixels {
            all.push("pixels".to_owned());
        }
        all
    }

    fn link(&self) -> Checked<Plugin> {
        let component = self.component.as_ref().or_else(|why| refused("does_not_fit", why))?;
        self.engine.link(component).or_else(|e| {
            let version = abi::version(component);
            let what = format!("its imports or exports are not those of {PACKAGE}@{version}, although the names are");
            refused("wrong_world", format!("{what}: {e}"))
        })
    }
}

/// A first instance, of which nobody reads the log: what ends it is in its failure.
fn start(plugin: &Plugin) -> Result<Box<dyn Instance>, Failure> {
    let logger = Logger::new(String::new(), Log::new(Arc::new(|_| {}), LogLimits::default()));
    let given = Given { logger, state: State::default(), metrics: Metrics::default(), models: None };
    plugin.code.start(HookLimits::default(), given)
}

fn check_description(plugin: &Plugin) -> Checked<PluginManifest> {
    let begun = Instant::now();
    let manifest = start(plugin)
        .and_then(|mut instance| {
            let instantiation_us = u32::try_from(begun.elapsed().as_micros()).ok();
            Ok(PluginManifest { instantiation_us, ..instance.describe()? })
        })
        .or_else(|f| refused("describe_failed", format!("the plugin did not describe itself: {}", f.message)))?;
    let schema = schema::check(&manifest.config_schema).map_err(|e| format!("`config-schema` {e}"));
    let checks = [
        ("bad_name", check_name(&manifest.name)),
        ("bad_version", check_version(&manifest.version)),
        ("bad_config_schema", schema),
    ];
    let findings: Vec<_> =
        checks.into_iter().filter_map(|(code, check)| Some(Finding::new(code, &check.err()?))).collect();
    if findings.is_empty() { Ok(manifest) } else { Err(findings) }
}
