//! Why a scenario or a worker is in the state it is in: stable codes for programs, and a message
//! for people.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Stable codes; adding one is compatible, changing the meaning of one is not.
// Each says what it means and, behind a blank line, what to do. `docs/errors.md` and `docs/states.md` are
// made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// The source could not be opened.
    ///
    /// Check that the file or the URL is there and that the runner may read it, then start the scenario
    /// again.
    SourceUnreachable,
    /// The source wants credentials it was not given.
    ///
    /// Post the scenario again with the credentials in the source's URL.
    SourceAuth,
    /// The source delivered no frame for longer than the frame timeout.
    ///
    /// Check the server of the source and the network, then start the scenario again.
    SourceStalled,
    /// The source's bytes could not be decoded, or ended before they should.
    ///
    /// Play the video with FFmpeg to see where it is damaged, convert or repair it, and give that file.
    DecodeError,
    /// The model could not be loaded or run.
    ///
    /// Run the model with ONNX Runtime elsewhere, mend its export, and upload it as a new version.
    ModelLoad,
    /// What should run the model cannot: its library is missing, or there is no such device.
    ///
    /// See `GET /runner` for what each runner has, set up the provider there, or post the scenario with
    /// `provider_fallback`.
    ProviderUnavailable,
    /// The model gave no answer in time: it was still loading, or an inference did not end.
    ///
    /// Use a smaller model or input, or have the time limits raised (`--first-inference-s`).
    ModelStalled,
    /// The worker needed more memory than it may have.
    ///
    /// Give the scenario more `memory_mib`, or use a smaller input or model.
    OutOfMemory,
    /// A plugin could not be loaded, refused its configuration, or cannot read this model's outputs.
    ///
    /// Post the scenario again with what the reason's message asks for: another configuration, or another
    /// version of the plugin, built against this release's contract.
    PluginIncompatible,
    /// A plugin trapped, or ran out of memory.
    ///
    /// Read the plugin's last words in the reason's message and in the log, mend it, and upload it as a new
    /// version.
    PluginTrap,
    /// A plugin ran longer than its deadline.
    ///
    /// Let the plugin do less on a frame, and upload it as a new version.
    PluginTimeout,
    /// A plugin reported an error of its own.
    ///
    /// Read the plugin's own message in the reason; it says what it could not use.
    PluginError,
    /// No runner has a free slot, or none has the memory or the labels that the scenario asks for.
    ///
    /// Wait, add a runner, or post the scenario again with a `memory_mib` or a `placement` that a runner has;
    /// `GET /runner` lists them.
    NoCapacity,
    /// The worker process ended unexpectedly.
    ///
    /// Nothing at first: it is started again. If that repeats, the runner's log has the worker's last words.
    WorkerCrash,
    /// The runner was not heard of within its lease, or it is drained.
    ///
    /// Nothing: the scenario goes on at another runner. If it repeats, check the runner's machine and its
    /// network.
    LeaseLost,
    /// The runner's disk has no room for the source.
    ///
    /// Make room on the disk of the runner.
    StorageFull,
    /// A blob the runner needs is missing or damaged.
    ///
    /// Check the shared blob store; upload the artifact again if its blob is lost.
    BlobUnavailable,
    /// A user stopped it.
    ///
    /// Nothing; start it again with `POST /scenario/{id}/start`.
    StoppedByUser,
    /// Its settings were changed: it has a new revision.
    ///
    /// Nothing; `GET /scenario/{id}/revisions` lists what was changed and what became of it.
    Revised,
    /// A new revision failed on its first frames, or could not begin: the one before went on.
    ///
    /// Read the reason's message, mend the plugin or its configuration, and change the scenario again.
    RolledBack,
    /// The file came to its end, but hooks failed on more than half of the frames that they were called for.
    /// Where `source_incomplete` is true as well, this is the code, and the message says both.
    ///
    /// Read the last failure in the reason's message, mend the plugin or its configuration, and post the
    /// scenario again. `hook_failures` of a prediction has what failed there.
    HooksFailed,
    /// The file came to its end, and its container declares more than came.
    ///
    /// Nothing, if what came is enough: its predictions can be read. Else upload the whole file.
    SourceIncomplete,
    /// The file came to its end.
    ///
    /// Nothing: all predictions can be read.
    EndOfStream,
}

/// A code with the sentence a person reads. The message says what happened and what to do, and
/// never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    pub code: ReasonCode,
    pub message: String,
}

impl ReasonCode {
    /// What the first release, which knew no codes but its own, can be told instead.
    const fn first_known(self) -> Self {
        match self {
            Self::ModelStalled => Self::SourceStalled,
            Self::OutOfMemory => Self::WorkerCrash,
            Self::ProviderUnavailable => Self::ModelLoad,
            Self::SourceIncomplete | Self::HooksFailed => Self::EndOfStream,
            older => older,
        }
    }
}

/// Files of source code that libraries name in their errors.
const SOURCES: [&str; 7] = [".cc", ".cpp", ".cxx", ".c", ".h", ".hpp", ".rs"];

/// What a library says, without places in its source code, such as `/build/core/arena.cc:376`: they tell a
/// user nothing, and others where and how it was built.
pub fn without_source_places(text: &str) -> String {
    let names_source = |word: &str| {
        let file = word.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, ':' | ',' | ')'));
        file.contains('/') && SOURCES.iter().any(|ending| file.ends_with(ending))
    };
    text.split(' ').filter(|word| !names_source(word)).collect::<Vec<_>>().join(" ")
}

/// A reason in a message between processes that may be of different releases: `code` is one that all of them
/// know, the code it really is stands in `exact`. A reader to whom that is news keeps `code`.
pub(crate) mod wire {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Reason, ReasonCode};

    #[derive(Serialize)]
    struct Written<'a> {
        code: ReasonCode,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        exact: Option<ReasonCode>,
    }

    #[derive(Deserialize)]
    struct Read {
        code: ReasonCode,
        message: String,
        #[serde(default)]
        exact: serde_json::Value,
    }

    pub(crate) fn serialize<S: Serializer>(reason: &Option<Reason>, out: S) -> Result<S::Ok, S::Error> {
        let written = reason.as_ref().map(|Reason { code, message }| {
            let known = code.first_known();
            Written { code: known, message, exact: (known != *code).then_some(*code) }
        });
        written.serialize(out)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Reason>, D::Error> {
        let read = Option::<Read>::deserialize(from)?;
        Ok(read
            .map(|Read { code, message, exact }| Reason::new(serde_json::from_value(exact).unwrap_or(code), message)))
    }
}

impl Reason {
    pub fn new(code: ReasonCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_library_says_is_kept_without_places_in_its_source_code() {
        for (said, kept) in [
            ("cannot allocate 3 bytes", "cannot allocate 3 bytes"),
            ("failed /build/core/arena.cc:376 for 3 bytes", "failed for 3 bytes"),
            ("in src/a.cpp:7:3), too", "in too"),
            ("the file model.c is not in /data/clips", "the file model.c is not in /data/clips"),
        ] {
            assert_eq!(without_source_places(said), kept);
        }
    }
}
