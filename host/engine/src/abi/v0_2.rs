//! `framehook:plugin@0.2.0`.

use std::collections::BTreeMap;

use framehook_core::{
    artifact::PluginManifest,
    input::{Anchor, Channels, InputOptions, Resize},
    job::{HookLimits, LogLevel},
    prediction::{Attribute, Detection, Episode, Event, Mask, Phase, Position, Severity},
    probe::{ConfigProblem, MAX_FINDINGS},
};
use wasmtime::component::{Component, InstancePre, Linker, Resource};

use self::bindings::{
    exports::framehook::plugin::{lifecycle, postprocess, preprocess},
    framehook::plugin::{clock, log, media, metrics as numbers, model, state, types},
};
use super::{
    Names, Ready, Skip, THE_ONE,
    access::{Host, Refused, told},
    guest::{common_calls, common_guest},
    handles::FrameHandle,
    interfaces::{common_inference, common_interfaces},
    missing, ms,
    results::{self, PluginError, common_results},
};
use crate::{
    masks,
    media::{self as own, Decision, Frame, Inference, Outcome, Start, Tensor},
    metrics::{self, NotTaken},
    models::{Held, ModelInfo, NotRun},
    returned,
    sandbox::{Ctx, Failure, Given, Guarded, View},
    scan,
    state::NotKept,
    stats::Used,
    suppress,
};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/framehook-plugin-0.2.0",
        world: "framehook:plugin/processor",
        imports: { default: trappable },
        with: {
            "framehook:plugin/media.frame": crate::abi::handles::FrameHandle,
            "framehook:plugin/media.inference": crate::models::Held,
            "framehook:plugin/media.tensor": crate::media::Tensor,
        },
    });
}

pub(super) fn add_to(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    bindings::Processor::add_to_linker::<_, Host>(linker, |ctx| ctx)
}

type Answer<T> = Result<T, media::AccessError>;

common_guest!("0.2.0");
common_interfaces!();
common_results!("0.2.0");

impl From<Refused> for media::AccessError {
    fn from(why: Refused) -> Self {
        match why {
            Refused::OutOfBounds => Self::OutOfBounds,
            Refused::TooLarge => Self::TooLarge,
            Refused::Unavailable => Self::Unavailable,
            Refused::WrongType => Self::WrongType,
        }
    }
}

impl super::Instance for Instance {
    common_calls!();

    fn init(&mut self, start: &Start, config: &str) -> Result<Ready, Failure> {
        let limit = ms(self.limits.init_ms);
        let info = stream_info(start);
        let ready = self.guarded.enter(limit, None, |store| self.lifecycle.call_init(store, &info, config))?;
        let ready = ready.map_err(failure)?;
        Ok(Ready { labels: results::labels(ready.labels)?, wants_skipped: ready.wants_skipped })
    }

    /// It returns all that a detection has.
    fn complete(&self, _: &[Detection], returned: &mut [Detection], names: &Names<'_>) {
        for detection in returned.iter_mut().filter(|detection| detection.label.is_none()) {
            detection.label = names.of(detection.class_id).cloned();
        }
    }

    fn skipped(&mut self, skip: &Skip<'_>, so_far: &[Detection]) -> Result<Outcome, Failure> {
        let Self { guarded, postprocess: Some(hook), limits, .. } = self else {
            return Err(missing("postprocess"));
        };
        let so_far: Vec<_> = so_far.iter().map(to_guest).collect();
        let frame = meta(skip.position, skip.size);
        let made =
            guarded.enter(ms(limits.call_ms), None, |store| hook.call_skipped(store, frame, skip.reason, &so_far))?;
        outcome(made.map_err(failure)?)
    }
}

const fn position(Position { pts_us, frame }: Position) -> types::Position {
    types::Position { sequence: frame, pts_us }
}

fn stream_info(start: &Start) -> types::StreamInfo {
    let own::Source { is_live, size, frames_per_second, frames } = start.source;
    types::StreamInfo {
        id: start.stream_id.clone(),
        start: match (start.after, &start.from_version) {
            (None, _) => types::Start::Fresh,
            (Some(after), None) => types::Start::Resumed(position(after)),
            (Some(after), Some(from_version)) => {
                types::Start::Swapped(types::Swap { from_version: from_version.clone(), after: position(after) })
            }
        },
        source: types::Source {
            kind: if is_live { types::SourceKind::Live } else { types::SourceKind::File },
            size: size.map(Into::into),
            frames_per_second,
            frames,
        },
        model_labels: start.model_labels.clone(),
    }
}

impl media::Host for Ctx {
    fn suppress(
        &mut self,
        boxes: Vec<media::ScoredBox>,
        max_overlap: f32,
        across_classes: bool,
        limit: u32,
    ) -> wasmtime::Result<Vec<u32>> {
        let own = |b: media::ScoredBox| suppress::ScoredBox {
            center: [b.center_x, b.center_y],
            size: [b.width, b.height],
            angle: b.angle,
            class_id: b.class_id,
            score: b.score,
        };
        let boxes: Vec<_> = boxes.into_iter().map(own).collect();
        Ok(suppress::greedy(&boxes, max_overlap, across_classes, limit as usize))
    }
}

impl media::HostInference for Ctx {
    common_inference!();

    fn outputs(&mut self, handle: Resource<Held>) -> wasmtime::Result<Vec<media::TensorDesc>> {
        let desc = |output: &own::Output| {
            let own::TensorDesc { name, shape, element } = output.desc.clone();
            let element = match element {
                own::Element::Float => media::Element::Float,
                own::Element::Integer => media::Element::Integer,
                own::Element::Text => media::Element::Text,
            };
            media::TensorDesc { name, shape, element }
        };
        Ok(self.inference(&handle)?.outputs.iter().map(desc).collect())
    }

    fn read_i64(
        &mut self,
        handle: Resource<Held>,
        output: u32,
        offset: u32,
        count: u32,
    ) -> wasmtime::Result<Answer<Vec<i64>>> {
        Ok(self.integers(&handle, output, offset, count)?.map_err(Into::into))
    }

    fn read_u8(
        &mut self,
        handle: Resource<Held>,
        output: u32,
        offset: u32,
        count: u32,
    ) -> wasmtime::Result<Answer<Vec<u8>>> {
        Ok(self.small_integers(&handle, output, offset, count)?.map_err(Into::into))
    }

    fn read_text(
        &mut self,
        handle: Resource<Held>,
        output: u32,
        offset: u32,
        count: u32,
    ) -> wasmtime::Result<Answer<Vec<String>>> {
        Ok(self.texts(&handle, output, offset, count)?.map_err(Into::into))
    }

    fn masks(
        &mut self,
        handle: Resource<Held>,
        prototypes: u32,
        boxes: Vec<media::MaskedBox>,
    ) -> wasmtime::Result<Answer<Vec<types::Mask>>> {
        let own = |b: media::MaskedBox| masks::MaskedBox {
            bbox: [b.bbox.x, b.bbox.y, b.bbox.width, b.bbox.height],
            coefficients: b.coefficients,
        };
        let boxes: Vec<_> = boxes.into_iter().map(own).collect();
        let made = Ctx::masks(self, &handle, prototypes, &boxes)?;
        Ok(made.map(|masks| masks.iter().map(mask_to_guest).collect()).map_err(Into::into))
    }

    fn top_k(
        &mut self,
        handle: Resource<Held>,
        output: u32,
        offset: u32,
        count: u32,
        k: u32,
    ) -> wasmtime::Result<Answer<Vec<(u32, f32)>>> {
        Ok(self.highest(&handle, output, offset, count, k)?.map_err(Into::into))
    }
}

impl model::Host for Ctx {
    fn models(&mut self) -> wasmtime::Result<Vec<model::ModelInfo>> {
        let told = |model: &ModelInfo| model::ModelInfo {
            name: model.name.clone(),
            input_size: model.input_size.into(),
            labels: model.labels.clone(),
        };
        Ok(self.model_list().iter().map(told).collect())
    }

    fn run(
        &mut self,
        name: String,
        regions: Vec<types::Rect>,
    ) -> wasmtime::Result<Result<Vec<Resource<Held>>, model::ModelError>> {
        let regions: Vec<_> = regions.into_iter().map(Into::into).collect();
        Ok(self.run_regions(&name, &regions)?.map_err(Into::into))
    }

    fn run_tensor(
        &mut self,
        name: String,
        input: Resource<Tensor>,
    ) -> wasmtime::Result<Result<Resource<Held>, model::ModelError>> {
        Ok(Ctx::run_tensor(self, &name, &input)?.map_err(Into::into))
    }
}

impl From<NotRun> for model::ModelError {
    fn from(why: NotRun) -> Self {
        match why {
            NotRun::Unknown => Self::Unknown,
            NotRun::NoPixels => Self::NoPixels,
            NotRun::Unfit(what) => Self::Unfit(returned::sentence(what)),
            NotRun::TooMuch => Self::TooMuch,
            NotRun::Failed(why) => Self::Failed(returned::sentence(why)),
        }
    }
}

impl log::Host for Ctx {
    fn log(
        &mut self,
        level: log::Level,
        target: String,
        message: String,
        fields: Vec<types::Attribute>,
    ) -> wasmtime::Result<()> {
        let fields = fields.into_iter().map(|field| (field.key, field.value.into())).collect();
        self.logger.line(level.into(), &target, &message, fields);
        Ok(())
    }
}

type Taken = Result<(), numbers::MetricError>;

impl numbers::Host for Ctx {
    fn add(&mut self, name: String, value: u64) -> wasmtime::Result<Taken> {
        Ok(metrics::take(&self.metrics, &self.logger, &name, |named| named.add(&name, value)).map_err(Into::into))
    }

    fn set(&mut self, name: String, value: f64) -> wasmtime::Result<Taken> {
        Ok(metrics::take(&self.metrics, &self.logger, &name, |named| named.set(&name, value)).map_err(Into::into))
    }

    fn observe(&mut self, name: String, value: f64) -> wasmtime::Result<Taken> {
        Ok(metrics::take(&self.metrics, &self.logger, &name, |named| named.observe(&name, value)).map_err(Into::into))
    }
}

impl From<NotTaken> for numbers::MetricError {
    fn from(why: NotTaken) -> Self {
        match why {
            NotTaken::BadName => Self::BadName,
            NotTaken::BadValue => Self::BadValue,
            NotTaken::WrongKind => Self::WrongKind,
            NotTaken::TooMany => Self::TooMany,
        }
    }
}

impl From<types::Value> for Attribute {
    fn from(value: types::Value) -> Self {
        match value {
            types::Value::Text(text) => Self::Text(text),
            types::Value::Number(number) => Self::Number(number),
            types::Value::Numbers(numbers) => Self::Numbers(numbers),
        }
    }
}

impl From<&Attribute> for types::Value {
    fn from(value: &Attribute) -> Self {
        match value {
            Attribute::Text(text) => Self::Text(text.clone()),
            Attribute::Number(number) => Self::Number(*number),
            Attribute::Numbers(numbers) => Self::Numbers(numbers.clone()),
        }
    }
}

fn mask_to_guest(mask: &Mask) -> types::Mask {
    let [width, height] = mask.grid;
    types::Mask { grid: types::Size { width, height }, runs: mask.runs.clone() }
}

fn to_guest(d: &Detection) -> types::Detection {
    let attribute = |(key, value): (&String, &Attribute)| types::Attribute { key: key.clone(), value: value.into() };
    types::Detection {
        class_id: d.class_id,
        label: d.label.clone(),
        score: d.score,
        bbox: bbox(&d.bbox),
        track_id: d.track_id,
        keypoints: points(&d.keypoints),
        polygon: points(&d.polygon),
        mask: d.mask.as_ref().map(mask_to_guest),
        attributes: d.attributes.iter().map(attribute).collect(),
    }
}

fn attributes(what: &str, given: Vec<types::Attribute>) -> Result<BTreeMap<String, Attribute>, Failure> {
    Ok(returned::attributes(what, given.into_iter().map(|a| (a.key, a.value.into())))?)
}

fn detection(d: types::Detection) -> Result<Detection, Failure> {
    let mask = |mask: types::Mask| returned::mask([mask.grid.width, mask.grid.height], mask.runs);
    Ok(Detection {
        class_id: d.class_id,
        label: d.label,
        score: d.score,
        bbox: [d.bbox.x, d.bbox.y, d.bbox.width, d.bbox.height],
        track_id: d.track_id,
        keypoints: from_points(d.keypoints),
        polygon: from_points(d.polygon),
        mask: d.mask.map(mask).transpose()?,
        attributes: attributes("a detection", d.attributes)?,
    })
}

fn outcome(o: types::Outcome) -> Result<Outcome, Failure> {
    let detections = o.detections.into_iter().map(detection).collect::<Result<_, _>>()?;
    let events = o.events.into_iter().map(event).collect::<Result<_, _>>()?;
    Ok(returned::outcome(detections, events)?)
}

fn events(events: Vec<types::Event>, detections: usize) -> Result<Vec<Event>, Failure> {
    let events = events.into_iter().map(event).collect::<Result<_, _>>()?;
    Ok(returned::events(events, detections)?)
}

fn event(e: types::Event) -> Result<Event, Failure> {
    let episode = |e: types::Episode| Episode {
        id: e.id,
        phase: match e.phase {
            types::Phase::New => Phase::New,
            types::Phase::Update => Phase::Update,
            types::Phase::End => Phase::End,
        },
    };
    Ok(Event {
        attributes: attributes("an event", e.attributes)?,
        kind: e.kind,
        severity: severity(e.severity),
        subjects: e.subjects,
        episode: e.episode.map(episode),
    })
}
