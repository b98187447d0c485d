//! Recorded outputs, as a worker writes and reads them: the heads of `framehook_formats::outputs`, and the
//! columns behind each, one an output of the model.
//!
//! Invariant: what is read is what the hooks of the recorded frame were shown, bit by bit. What hooks can ask
//! for besides, pixels and further models, is not recorded, and says so.

use std::{fs, io, path::PathBuf, time::Duration};

use framehook_core::{
    artifact::VideoManifest,
    ids::{Generation, ScenarioId},
    job::{Job, PartFile},
    prediction::{HookFailure, Position, Skipped},
    recorded::MAX_OPENING,
};
use framehook_engine::{
    media::{
        Element, Elements, FramePixels, Geometry, Output, PixelFormat, PixelsUnavailable, Region, Size, Tensor,
        TensorDesc,
    },
    models::{ModelInfo, Models, NotRun, Run},
};
use framehook_formats::outputs::{Entry, MAGIC, OutputsError, Reader, Writer};
use serde::{Deserialize, Serialize};

use crate::outputs::MAX_OUTPUT_BYTES;

/// An output of 64 bits takes twice what is counted of it.
const MAX_COLUMN: usize = 2 * MAX_OUTPUT_BYTES as usize;

/// Why recorded outputs cannot be read. They lie in a blob that was verified, so another worker wrote them
/// so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordedError {
    #[error("the file of recorded outputs cannot be read: {0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Format(#[from] OutputsError),
    #[error("an entry of the recorded outputs is not understood: {0}")]
    Head(#[from] serde_json::Error),
    #[error("the recorded outputs are empty")]
    Empty,
    #[error("a text of the recorded outputs is no text")]
    Text,
}

/// What a stream says of itself, which hooks are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// Whose outputs these are: no two deployments write the same bytes, so a blob of them can be removed
    /// with its last name.
    scenario_id: ScenarioId,
    generation: Generation,
    pub(crate) video: VideoManifest,
    pub(crate) model_labels: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) models: Vec<NamedModel>,
}

/// A further model: hooks are told of it, and cannot run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NamedModel {
    name: String,
    input_size: [u32; 2],
    labels: Vec<String>,
}

impl Opening {
    pub(crate) fn new(job: &Job, video: VideoManifest, model_labels: Vec<String>, models: &[ModelInfo]) -> Self {
        let named = |ModelInfo { name, input_size, labels }: &ModelInfo| NamedModel {
            name: name.clone(),
            input_size: [input_size.width, input_size.height],
            labels: labels.clone(),
        };
        let models = models.iter().map(named).collect();
        Self { scenario_id: job.scenario_id, generation: job.generation, video, model_labels, models }
    }

    /// As a file begins; labels that take too much are left out.
    pub(crate) fn written(mut self) -> Vec<u8> {
        let write = |opening: &Self| {
            let mut writer = Writer::default();
            writer.begin(&serde_json::to_vec(opening).unwrap_or_default());
            [&MAGIC[..], writer.finish()].concat()
        };
        let whole = write(&self);
        if whole.len() <= MAX_OPENING {
            return whole;
        }
        self.model_labels.clear();
        self.models.clear();
        write(&self)
    }

    /// Further models for hooks, none of which runs.
    pub(crate) fn models(&self) -> Option<NotRecorded> {
        let info = |NamedModel { name, input_size: [width, height], labels }: &NamedModel| ModelInfo {
            name: name.clone(),
            input_size: Size { width: *width, height: *height },
            labels: labels.clone(),
        };
        let list: Vec<_> = self.models.iter().map(info).collect();
        (!list.is_empty()).then_some(NotRecorded { list })
    }
}

/// What there is of a frame behind the pre hooks and the model.
#[derive(Debug, PartialEq)]
pub(crate) struct RecordedFrame {
    pub(crate) position: Position,
    pub(crate) left_out: u64,
    pub(crate) damaged: u64,
    pub(crate) size: Size,
    pub(crate) geometry: Geometry,
    /// Those of the pre hooks.
    pub(crate) failures: Vec<HookFailure>,
    pub(crate) outcome: Result<Vec<Output>, Skipped>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(flatten)]
    position: Position,
    left_out: u64,
    damaged: u64,
    size: [u32; 2],
    /// As bits, because a hook may have made it of what is no number.
    geometry: [u32; 4],
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    failures: Vec<HookFailure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skipped: Option<Skipped>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<OutputHead>,
}

#[derive(Serialize, Deserialize)]
struct OutputHead {
    name: String,
    shape: Vec<u32>,
    /// Whether the numbers are whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    integer: bool,
    kept: Kept,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    F32,
    F64,
    I64,
    U64,
    /// A column of JSON.
    Text,
}

/// One frame on its way into a file.
pub(crate) struct ToRecord<'a> {
    pub(crate) position: Position,
    pub(crate) left_out: u64,
    pub(crate) damaged: u64,
    pub(crate) size: Size,
    pub(crate) geometry: Geometry,
    pub(crate) failures: &'a [HookFailure],
    pub(crate) outcome: Result<&'a [Output], &'a Skipped>,
}

/// The entry of a frame.
pub(crate) fn write<'w>(writer: &'w mut Writer, frame: &ToRecord<'_>) -> &'w [u8] {
    let Geometry { scale_x, scale_y, pad_x, pad_y } = frame.geometry;
    let outputs = frame.outcome.unwrap_or_default();
    let head = Head {
        position: frame.position,
        left_out: frame.left_out,
        damaged: frame.damaged,
        size: [frame.size.width, frame.size.height],
        geometry: [scale_x, scale_y, pad_x, pad_y].map(f32::to_bits),
        failures: frame.failures.to_vec(),
        skipped: frame.outcome.err().cloned(),
        outputs: outputs.iter().map(output_head).collect(),
    };
    writer.begin(&serde_json::to_vec(&head).unwrap_or_default());
    for output in outputs {
        match &output.data {
            Elements::F32(all) => writer.column(all.iter().map(|v| v.to_le_bytes())),
            Elements::F64(all) => writer.column(all.iter().map(|v| v.to_le_bytes())),
            Elements::I64(all) => writer.column(all.iter().map(|v| v.to_le_bytes())),
            Elements::U64(all) => writer.column(all.iter().map(|v| v.to_le_bytes())),
            Elements::Text(all) => {
                let text = serde_json::to_vec(all).unwrap_or_default();
                writer.column(text.into_iter().map(|byte| [byte]));
            }
        }
    }
    writer.finish()
}

fn output_head(Output { desc, data }: &Output) -> OutputHead {
    let kept = match data {
        Elements::F32(_) => Kept::F32,
        Elements::F64(_) => Kept::F64,
        Elements::I64(_) => Kept::I64,
        Elements::U64(_) => Kept::U64,
        Elements::Text(_) => Kept::Text,
    };
    OutputHead { name: desc.name.clone(), shape: desc.shape.clone(), integer: desc.element == Element::Integer, kept }
}

fn read(mut entry: Entry<'_>) -> Result<RecordedFrame, RecordedError> {
    let head: Head = serde_json::from_slice(entry.head)?;
    let [scale_x, scale_y, pad_x, pad_y] = head.geometry.map(f32::from_bits);
    let outputs = head.outputs.into_iter().map(|head| read_output(head, &mut entry)).collect::<Result<_, _>>()?;
    Ok(RecordedFrame {
        position: head.position,
        left_out: head.left_out,
        damaged: head.damaged,
        size: Size { width: head.size[0], height: head.size[1] },
        geometry: Geometry { scale_x, scale_y, pad_x, pad_y },
        failures: head.failures,
        outcome: head.skipped.map_or(Ok(outputs), Err),
    })
}

fn read_output(head: OutputHead, entry: &mut Entry<'_>) -> Result<Output, RecordedError> {
    let OutputHead { name, shape, integer, kept } = head;
    macro_rules! column {
        ($kind:ident, $element:ty) => {{
            let mut all = Vec::new();
            entry.column(MAX_COLUMN, |bytes| all.push(<$element>::from_le_bytes(bytes)))?;
            Elements::$kind(all)
        }};
    }
    let data = match kept {
        Kept::F32 => column!(F32, f32),
        Kept::F64 => column!(F64, f64),
        Kept::I64 => column!(I64, i64),
        Kept::U64 => column!(U64, u64),
        Kept::Text => {
            let mut text = Vec::new();
            entry.column(MAX_COLUMN, |[byte]| text.push(byte))?;
            Elements::Text(serde_json::from_slice(&text).map_err(|_| RecordedError::Text)?)
        }
    };
    let element = match (kept, integer) {
        (Kept::Text, _) => Element::Text,
        (_, true) => Element::Integer,
        (_, false) => Element::Float,
    };
    // What hooks read is checked against the data, never against the shape.
    Ok(Output { desc: TensorDesc { name, shape, element }, data })
}

/// Files of recorded outputs, read one after the other.
pub(crate) struct Recording {
    pub(crate) opening: Opening,
    files: std::vec::IntoIter<(PathBuf, Option<i64>)>,
}

impl Recording {
    /// # Errors
    /// When the first file does not begin as one should.
    pub(crate) fn open(parts: &[PartFile]) -> Result<Self, RecordedError> {
        let first = fs::read(&parts.first().ok_or(RecordedError::Empty)?.path)?;
        let opening = Reader::new(&first)?.entry()?.ok_or(RecordedError::Empty)?;
        let opening = serde_json::from_slice(opening.head)?;
        let files: Vec<_> = parts.iter().map(|part| (part.path.clone(), part.until_us)).collect();
        Ok(Self { opening, files: files.into_iter() })
    }

    /// Gives each frame behind `after` to `take`, in their order, until that answers no; gives whether it
    /// never did.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn each(
        self,
        mut after: Option<Position>,
        mut take: impl FnMut(RecordedFrame) -> bool,
    ) -> Result<bool, RecordedError> {
        for (path, until_us) in self.files {
            let file = fs::read(path)?;
            let mut entries = Reader::new(&file)?;
            entries.entry()?.ok_or(RecordedError::Empty)?;
            while let Some(entry) = entries.entry()? {
                let position: Position = serde_json::from_slice(entry.head)?;
                if until_us.is_some_and(|until| position.pts_us >= until) || after >= Some(position) {
                    continue;
                }
                after = Some(position);
                if !take(read(entry)?) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// What a hook is told that asks for what is not recorded.
const NOT_RECORDED: &str = "this is a replay of recorded outputs, which have no pixels and no outputs of further models: \
                            replay it from the source";

/// The pixels of a recorded frame.
pub(crate) struct NoPixels;

impl FramePixels for NoPixels {
    fn read(&self, _: Region, _: Size, _: PixelFormat) -> Result<Vec<u8>, PixelsUnavailable> {
        Err(PixelsUnavailable(NOT_RECORDED.to_owned()))
    }

    fn to_tensor(&self, _: Region) -> Result<(Tensor, Geometry), PixelsUnavailable> {
        Err(PixelsUnavailable(NOT_RECORDED.to_owned()))
    }
}

/// Further models of recorded frames.
pub(crate) struct NotRecorded {
    list: Vec<ModelInfo>,
}

impl Models for NotRecorded {
    fn list(&self) -> &[ModelInfo] {
        &self.list
    }

    fn run(&self, _: usize, _: &dyn FramePixels, _: &[Region], _: Duration) -> Result<Vec<Run>, NotRun> {
        Err(NotRun::Failed(NOT_RECORDED.to_owned()))
    }

    fn run_tensor(&self, _: usize, _: &Tensor) -> Result<Run, NotRun> {
        Err(NotRun::Failed(NOT_RECORDED.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use framehook_core::reason::{Reason, ReasonCode};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn output(name: &str, data: Elements) -> Output {
        let element = match &data {
            Elements::F32(_) | Elements::F64(_) => Element::Float,
            Elements::I64(_) | Elements::U64(_) => Element::Integer,
            Elements::Text(_) => Element::Text,
        };
        Output { desc: TensorDesc { name: name.into(), shape: vec![1, data.values().len() as u32], element }, data }
    }

    fn opening(model_labels: Vec<String>) -> Opening {
        let video = VideoManifest { width: 1, height: 2, fps: 25.0, frames: None };
        Opening { scenario_id: ScenarioId::generate(), generation: 1, video, model_labels, models: Vec::new() }
    }

    /// `PartialEq` of floats does not see bits.
    fn bits(outputs: &[Output]) -> Vec<Vec<u64>> {
        let of = |output: &Output| match &output.data {
            Elements::F32(all) => all.iter().map(|v| v.to_bits().into()).collect(),
            Elements::F64(all) => all.iter().map(|v| v.to_bits()).collect(),
            Elements::I64(all) => all.iter().map(|v| v.cast_unsigned()).collect(),
            Elements::U64(all) => all.clone(),
            Elements::Text(all) => all.iter().flat_map(|text| text.bytes().map(u64::from).chain([256])).collect(),
        };
        outputs.iter().map(of).collect()
    }

    proptest! {
        #[test]
        fn frames_are_read_as_they_were_recorded(
            floats in vec(any::<u32>(), 0..200), doubles in vec(any::<u64>(), 0..20), longs in vec(any::<i64>(), 0..20),
            texts in vec(any::<String>(), 0..5), pts_us: i64, frame: u64, geometry: [u32; 4], skips: bool, cut in 0..3u64,
        ) {
            let outputs = [
                output("a", Elements::F32(floats.into_iter().map(f32::from_bits).collect())),
                output("b", Elements::F64(doubles.iter().copied().map(f64::from_bits).collect())),
                output("c", Elements::I64(longs)),
                output("d", Elements::U64(doubles)),
                output("e", Elements::Text(texts)),
            ];
            let skipped = Skipped { by: "gate@1".into(), reason: "still".into() };
            let failures = [HookFailure { plugin: "p@1".into(), reason: Reason::new(ReasonCode::PluginTrap, "x") }];
            let [scale_x, scale_y, pad_x, pad_y] = geometry.map(f32::from_bits);
            let frame = frame.min(u64::MAX - 1);
            let to_record = |frame| ToRecord {
                position: Position { pts_us, frame }, left_out: 3, damaged: 1, size: Size { width: 640, height: 360 },
                geometry: Geometry { scale_x, scale_y, pad_x, pad_y }, failures: &failures,
                outcome: if skips { Err(&skipped) } else { Ok(&outputs) },
            };
            let opening = opening(vec!["car".into()]);
            let folder = tempfile::tempdir().unwrap();
            let (mut writer, mut file) = (Writer::default(), opening.clone().written());
            file.extend(write(&mut writer, &to_record(frame)));
            file.extend(write(&mut writer, &to_record(frame + 1)));
            let path = folder.path().join("part");
            fs::write(&path, &file).unwrap();
            // The second file has the same frames again.
            let until_us = (cut == 1).then_some(pts_us);
            let parts = [PartFile { path: path.clone(), until_us }, PartFile { path, until_us }];
            let recording = Recording::open(&parts).unwrap();
            prop_assert_eq!(&recording.opening, &opening);
            let after = (cut == 2).then_some(Position { pts_us, frame });
            let mut read = Vec::new();
            let all = recording.each(after, |frame| { read.push(frame); true }).unwrap();
            prop_assert!(all);
            prop_assert_eq!(read.len() as u64, 2 - [0, 2, 1][cut as usize]);
            for found in read {
                let Geometry { scale_x, scale_y, pad_x, pad_y } = found.geometry;
                prop_assert_eq!([scale_x, scale_y, pad_x, pad_y].map(f32::to_bits), geometry);
                prop_assert_eq!((found.left_out, found.damaged, &found.failures[..]), (3, 1, &failures[..]));
                match found.outcome {
                    Ok(found) => {
                        prop_assert_eq!(bits(&found), bits(&outputs));
                        prop_assert!(found.iter().zip(&outputs).all(|(found, given)| found.desc == given.desc));
                    }
                    Err(found) => prop_assert_eq!(found, skipped.clone()),
                }
            }
        }
    }

    #[test]
    fn labels_that_take_too_much_are_left_out() {
        assert!(opening(vec!["x".repeat(1000); 1000]).written().len() < 1000);
    }
}
