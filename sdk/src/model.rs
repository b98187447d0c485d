//! Further models of the scenario: those that it names in `models`, next to the one whose outputs every frame
//! has.
//!
//! In tests that run natively, they are what [`crate::testing::model`] says.
//!
//! ```no_run
//! # use framehook_sdk::{Error, Inference, Rect, model};
//! # fn plates(regions: &[Rect]) -> Result<(), Error> {
//! for inference in model::run("plate", regions)? {
//!     let text = inference.read_f32(0, 0, 36)?;
//! }
//! # Ok(())
//! # }
//! ```

use crate::Error;
pub use crate::bindings::host::framehook::plugin::model::{ModelError, ModelInfo};
#[cfg(target_family = "wasm")]
pub use crate::bindings::host::framehook::plugin::model::{models, run, run_tensor};
#[cfg(not(target_family = "wasm"))]
pub use crate::native::{models, run, run_tensor};

/// The model of this name, for a hook that wants to know in `new` whether the scenario has it.
///
/// # Errors
/// [`Error::InvalidConfig`], with the names that there are.
pub fn named(name: &str) -> Result<ModelInfo, Error> {
    let all = models();
    let names: Vec<_> = all.iter().map(|model| format!("`{}`", model.name)).collect();
    let there_is = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    all.into_iter().find(|model| model.name == name).ok_or_else(|| {
        let message = format!("the scenario has no model `{name}`; its `models` are {there_is}");
        Error::InvalidConfig(message)
    })
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        Self::BadInput(match error {
            ModelError::Unknown => "ran a model that the scenario does not have in `models`".into(),
            ModelError::NoPixels => "ran a model on a region that is not there".into(),
            ModelError::Unfit(what) => what,
            ModelError::TooMuch => "ran a further model more often or longer than one call may".into(),
            ModelError::Failed(why) => format!("a further model failed: {why}"),
        })
    }
}
