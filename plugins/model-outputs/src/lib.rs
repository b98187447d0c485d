//! What the stock plugins that read a model's outputs share: the outputs behind a trait, so that
//! whole plugins are tested natively; scores that are never outside of 0 to 1; a count of what was
//! dropped.
//!
//! No plugin of its own.

pub mod boxes;
pub mod classes;
pub mod classifier;
pub mod config;
mod dropped;
pub mod form;
pub mod memory;
pub mod scores;

pub use dropped::Dropped;
use framehook_sdk::{Candidate, ClassScores, Error, Geometry, Inference, Mask, MaskedBox, Size, TensorDesc, state};
use serde::de::DeserializeOwned;

/// Elements of an output that is read as a whole: half of what the host copies in one call.
pub const MAX_WHOLE: usize = 4 << 20;

/// How the model's input lies on the frame.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub geometry: Geometry,
    /// The size of the original frame.
    pub frame: Size,
    /// The size of the model's input.
    pub input: Size,
}

/// The outputs of a model for one frame. [`Inference`] has them from the host, [`memory::Memory`]
/// from a test.
pub trait Outputs {
    fn list(&self) -> Vec<TensorDesc>;
    fn view(&self) -> View;

    /// # Errors
    /// When an element lies outside of the output.
    fn gather(&self, output: u32, elements: &[u32]) -> Result<Vec<f32>, Error>;

    /// # Errors
    /// When the scores lie outside of the output.
    fn argmax_rows(
        &self,
        output: u32,
        scores: ClassScores,
        threshold: f32,
        limit: u32,
    ) -> Result<Vec<Candidate>, Error>;

    /// # Errors
    /// When the output is none of prototypes, or a box does not fit it.
    fn masks(&self, prototypes: u32, boxes: &[MaskedBox]) -> Result<Vec<Mask>, Error>;
}

impl Outputs for Inference {
    fn list(&self) -> Vec<TensorDesc> {
        self.outputs()
    }

    fn view(&self) -> View {
        View { geometry: self.geometry(), frame: self.meta().size, input: self.input_size() }
    }

    fn gather(&self, output: u32, elements: &[u32]) -> Result<Vec<f32>, Error> {
        Ok(self.gather_f32(output, elements)?)
    }

    fn argmax_rows(
        &self,
        output: u32,
        scores: ClassScores,
        threshold: f32,
        limit: u32,
    ) -> Result<Vec<Candidate>, Error> {
        Ok(Inference::argmax_rows(self, output, scores, threshold, limit)?)
    }

    fn masks(&self, prototypes: u32, boxes: &[MaskedBox]) -> Result<Vec<Mask>, Error> {
        Ok(Inference::masks(self, prototypes, boxes)?)
    }
}

/// The name, among what a hook keeps, of what it learnt of its model from the first frames.
#[doc(hidden)]
pub const LEARNT: &str = "learnt";

/// What an earlier instance learnt of the model: it reads the frames to come as it read those before.
#[must_use]
pub fn learnt<T: DeserializeOwned + Default>() -> T {
    state::load(LEARNT).unwrap_or_default()
}

/// Exports a plugin that adds what its method `find` finds in the outputs of a frame, keeps what its field
/// `learnt` holds, and says at the end what its field `dropped` has counted; or those of one of its fields.
#[macro_export]
macro_rules! export {
    ($plugin:ty $(, $field:ident)?) => {
        impl framehook_sdk::PostHook for $plugin {
            fn postprocess(
                &mut self,
                inference: &framehook_sdk::Inference,
                mut detections: Vec<framehook_sdk::Detection>,
            ) -> Result<framehook_sdk::Outcome, framehook_sdk::Error> {
                detections.extend(self.find(inference)?);
                // Without room it is learnt again.
                framehook_sdk::state::save($crate::LEARNT, &self$(.$field)?.learnt).ok();
                Ok(framehook_sdk::Outcome { detections, events: Vec::new() })
            }

            fn flush(&mut self) -> Result<Vec<framehook_sdk::Event>, framehook_sdk::Error> {
                self$(.$field)?.dropped.report();
                Ok(Vec::new())
            }
        }

        framehook_sdk::export!(post: $plugin);
    };
}

/// An output as messages name it.
#[must_use]
pub fn described(output: &TensorDesc) -> String {
    format!("`{}` {:?}", output.name, output.shape)
}

/// All outputs as messages name them.
#[must_use]
pub fn described_all(outputs: &[TensorDesc]) -> String {
    outputs.iter().map(described).collect::<Vec<_>>().join(", ")
}

/// The output that the setting `field` names, if it is set.
///
/// # Errors
/// When the model has no such output: which there are.
pub fn named(outputs: &[TensorDesc], field: &str, name: Option<&str>) -> Result<Option<u32>, Error> {
    let Some(name) = name else { return Ok(None) };
    let found = (0u32..).zip(outputs).find(|(_, o)| o.name == name).map(|(index, _)| index);
    found.map(Some).ok_or_else(|| {
        let there = described_all(outputs);
        Error::InvalidConfig(format!("`{field}`: the model has no output `{name}`; its outputs are {there}"))
    })
}

#[cfg(test)]
mod tests {
    use framehook_sdk::Element;

    use super::*;

    #[test]
    fn an_output_that_is_missing_is_named_with_those_that_there_are() {
        let outputs = [TensorDesc { name: "a".into(), shape: vec![1, 7], element: Element::Float }];
        assert_eq!(named(&outputs, "output", None).unwrap(), None);
        assert_eq!(named(&outputs, "output", Some("a")).unwrap(), Some(0));
        let Error::InvalidConfig(message) = named(&outputs, "output", Some("b")).unwrap_err() else { panic!() };
        assert_eq!(message, "`output`: the model has no output `b`; its outputs are `a` [1, 7]");
    }
}
