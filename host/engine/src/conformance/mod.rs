//! Whether a plugin keeps to the contract, whatever language and version it was built with: a list of named
//! checks, under the production engine.
//!
//! For the child process only ([`crate::command`]): it runs a stranger's code. A check never says that a
//! plugin finds the right things, only that it answers, in range, the same each time, within its limits, and
//! from its state. What the kit shows to a plugin is made up (`synthetic`) and the same on every run.

mod checks;
mod play;
mod synthetic;

use std::path::PathBuf;

use framehook_core::ids::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Engine, LoadError};

/// What is checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    pub compiled: PathBuf,
    pub digest: Digest,
    /// Instead of the plugin's own defaults.
    pub config: Option<Value>,
    /// What the model gives that its post hook reads. Empty: the kit looks for one that it can read.
    pub outputs: Vec<ModelOutput>,
}

/// One output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOutput {
    pub name: String,
    pub shape: Vec<u32>,
    pub is_integer: bool,
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub verdict: Verdict,
    /// What was seen, or what is wrong.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Fail,
    /// It has no such part, or there was nothing to try it on.
    Skip,
}

impl Check {
    #[must_use]
    pub fn new(name: &str, verdict: Verdict, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), verdict, message: message.into() }
    }
}

/// All checks, in an order in which each trusts those before it.
///
/// # Errors
/// As [`Engine::load`]: what is wrong with the compiled file, which says nothing about the plugin.
pub fn run(subject: &Subject) -> Result<Vec<Check>, LoadError> {
    let plugin = Engine::judge()?.load(&subject.compiled, &subject.digest)?;
    Ok(checks::run(&plugin, subject))
}
