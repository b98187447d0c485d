//! What an author implements.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{
    ConfigProblem, Decision, Detection, Error, Event, Frame, FrameMeta, Inference, InputOptions, Outcome, Stream,
};

/// One instance of a plugin, for one scenario.
pub trait Hook: Sized + 'static {
    /// What users may configure. With `#[serde(deny_unknown_fields)]` a misspelt field is an error.
    type Config: DeserializeOwned + JsonSchema;

    /// Whether [`PostHook::skipped`] is to be called.
    const WANTS_SKIPPED: bool = false;

    /// Once, before the first frame; again in a new instance after a panic, a deadline missed or the end of
    /// the worker: `stream.start` says which it is, and [`crate::state`] has what the instance before kept.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] ends the scenario; after any other error the host tries again.
    fn new(stream: &Stream, config: Self::Config) -> Result<Self, Error>;

    /// What is wrong with a configuration that has the right types. Called when a scenario is
    /// created, without an instance.
    fn check(_config: &Self::Config) -> Vec<ConfigProblem> {
        Vec::new()
    }

    /// What the models that this plugin is for want as input; change the fields that differ from
    /// [`default_input`].
    #[must_use]
    fn input() -> InputOptions {
        default_input()
    }

    /// Names of the classes, by class id. Empty: the plugin has no classes of its own.
    fn labels(&self) -> Vec<String> {
        Vec::new()
    }

    /// Before a planned end.
    fn shutdown(&mut self) {}
}

/// A hook before the inference.
pub trait PreHook: Hook {
    /// # Errors
    /// The scenario's policy says what becomes of the frame.
    fn preprocess(&mut self, frame: &Frame) -> Result<Decision, Error>;
}

/// A hook after the inference.
pub trait PostHook: Hook {
    /// `detections` are those of the hooks before this one; what is returned replaces them.
    ///
    /// # Errors
    /// The scenario's policy says what becomes of the frame.
    fn postprocess(&mut self, inference: &Inference, detections: Vec<Detection>) -> Result<Outcome, Error>;

    /// A frame without an inference, and why, where [`Hook::WANTS_SKIPPED`] asks for it. `detections` are
    /// those of the hooks before this one that ask as well.
    ///
    /// # Errors
    /// The scenario's policy says what becomes of the frame.
    fn skipped(&mut self, _frame: FrameMeta, _reason: &str, detections: Vec<Detection>) -> Result<Outcome, Error> {
        Ok(Outcome { detections, events: Vec::new() })
    }

    /// At the end of the stream: what is still to be said. It goes with the last frame.
    ///
    /// # Errors
    /// What was to be said is lost.
    fn flush(&mut self) -> Result<Vec<Event>, Error> {
        Ok(Vec::new())
    }
}

/// Nothing special: the scenario or the platform decides.
#[must_use]
pub const fn default_input() -> InputOptions {
    InputOptions {
        tensor: None,
        size: None,
        resize: None,
        anchor: None,
        channels: None,
        pad: None,
        scale: None,
        mean: None,
        std: None,
    }
}

impl From<crate::AccessError> for Error {
    fn from(error: crate::AccessError) -> Self {
        Self::BadInput(match error {
            crate::AccessError::OutOfBounds => "asked for pixels or elements that are not there".into(),
            crate::AccessError::TooLarge => "asked for more than the host copies in one call".into(),
            crate::AccessError::Unavailable => "the host has no such pixels".into(),
            crate::AccessError::WrongType => "asked for an output's elements as another type than they have".into(),
        })
    }
}

/// Exports a plugin. Its name and version are those of its crate.
///
/// - `export!(pre: T)` for a [`PreHook`],
/// - `export!(post: T)` for a [`PostHook`],
/// - `export!(pre + post: T)` for a type that is both.
#[macro_export]
macro_rules! export {
    (pre: $hook:ty) => {
        $crate::__component!($hook, preprocess);
    };
    (post: $hook:ty) => {
        $crate::__component!($hook, postprocess);
    };
    (pre + post: $hook:ty) => {
        $crate::__component!($hook, preprocess postprocess);
    };
}

/// A component with these hooks. Natively the exports are left out: their names mean something else
/// to a native linker.
#[doc(hidden)]
#[macro_export]
macro_rules! __component {
    ($hook:ty, $($part:ident)+) => {
        const _: () = {
            struct Component;

            impl $crate::lifecycle::exports::framehook::plugin::lifecycle::Guest for Component {
                fn describe() -> $crate::glue::Descriptor {
                    $crate::glue::describe::<$hook>(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
                }
                fn validate_config(config: String) -> Result<(), Vec<$crate::ConfigProblem>> {
                    $crate::glue::validate_config::<$hook>(&config)
                }
                fn init(stream: $crate::Stream, config: String) -> Result<$crate::glue::Ready, $crate::Error> {
                    $crate::glue::init::<$hook>(&stream, &config)
                }
                fn shutdown() {
                    $crate::glue::shutdown::<$hook>();
                }
            }
            #[cfg(target_family = "wasm")]
            $crate::lifecycle::export_lifecycle!(Component with_types_in $crate::lifecycle);
            // What a plugin exports is in use, also when it is built natively for its tests.
            #[cfg(not(target_family = "wasm"))]
            #[used]
            static IN_USE: fn($crate::Stream, String) -> Result<$crate::glue::Ready, $crate::Error> =
                <Component as $crate::lifecycle::exports::framehook::plugin::lifecycle::Guest>::init;

            $($crate::__hook!($part, $hook);)+
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hook {
    (preprocess, $hook:ty) => {
        #[cfg(target_family = "wasm")]
        impl $crate::preprocess::exports::framehook::plugin::preprocess::Guest for Component {
            fn preprocess(frame: &$crate::Frame) -> Result<$crate::Decision, $crate::Error> {
                $crate::glue::with::<$hook, _>(|hook| $crate::PreHook::preprocess(hook, frame))
            }
        }
        #[cfg(target_family = "wasm")]
        $crate::preprocess::export_preprocess!(Component with_types_in $crate::preprocess);
        #[cfg(not(target_family = "wasm"))]
        #[used]
        static PREPROCESS_IN_USE: fn(&mut $hook, &$crate::Frame) -> Result<$crate::Decision, $crate::Error> =
            <$hook as $crate::PreHook>::preprocess;
    };
    (postprocess, $hook:ty) => {
        #[cfg(target_family = "wasm")]
        impl $crate::postprocess::exports::framehook::plugin::postprocess::Guest for Component {
            fn postprocess(
                inference: &$crate::Inference,
                detections: Vec<$crate::Detection>,
            ) -> Result<$crate::Outcome, $crate::Error> {
                $crate::glue::with::<$hook, _>(|hook| $crate::PostHook::postprocess(hook, inference, detections))
            }
            fn skipped(
                frame: $crate::FrameMeta,
                reason: String,
                detections: Vec<$crate::Detection>,
            ) -> Result<$crate::Outcome, $crate::Error> {
                $crate::glue::with::<$hook, _>(|hook| $crate::PostHook::skipped(hook, frame, &reason, detections))
            }
            fn flush() -> Result<Vec<$crate::Event>, $crate::Error> {
                $crate::glue::with::<$hook, _>($crate::PostHook::flush)
            }
        }
        #[cfg(target_family = "wasm")]
        $crate::postprocess::export_postprocess!(Component with_types_in $crate::postprocess);
        #[cfg(not(target_family = "wasm"))]
        #[used]
        static POSTPROCESS_IN_USE: fn(
            &mut $hook,
            &$crate::Inference,
            Vec<$crate::Detection>,
        ) -> Result<$crate::Outcome, $crate::Error> = <$hook as $crate::PostHook>::postprocess;
    };
}
