//! `framehook:plugin@0.1.0`. Its detections have no label, outline, mask or attributes of their own: what an
//! earlier hook gave them comes back to those that a hook passes on ([`crate::passed_on`]).

use framehook_core::{
    artifact::PluginManifest,
    input::{Anchor, Channels, InputOptions, Resize},
    job::{HookLimits, LogLevel},
    prediction::{Attribute, Detection, Event, Position, Severity},
    probe::{ConfigProblem, MAX_FINDINGS},
};
use wasmtime::component::{Component, InstancePre, Linker, Resource};

use self::bindings::{
    exports::framehook::plugin::{lifecycle, postprocess, preprocess},
    framehook::plugin::{clock, log, media, state, types},
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
    media::{self as own, Decision, Frame, Inference, Outcome, Start, Tensor},
    models::Held,
    passed_on, returned,
    sandbox::{Ctx, Failure, Given, Guarded, View},
    scan,
    state::NotKept,
    stats::Used,
};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/framehook-plugin-0.1.0",
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

common_guest!("0.1.0");
common_interfaces!();
common_results!("0.1.0");

impl From<Refused> for media::AccessError {
    fn from(why: Refused) -> Self {
        match why {
            // An output of text is not in the list, so its number is that of none.
            Refused::OutOfBounds | Refused::WrongType => Self::OutOfBounds,
            Refused::TooLarge => Self::TooLarge,
            Refused::Unavailable => Self::Unavailable,
        }
    }
}

impl super::Instance for Instance {
    common_calls!();

    fn init(&mut self, start: &Start, config: &str) -> Result<Ready, Failure> {
        let limit = ms(self.limits.init_ms);
        let ready =
            self.guarded.enter(limit, None, |store| self.lifecycle.call_init(store, &start.stream_id, config))?;
        let labels = results::labels(ready.map_err(failure)?.labels)?;
        Ok(Ready { labels, wants_skipped: false })
    }

    fn complete(&self, given: &[Detection], returned: &mut [Detection], names: &Names<'_>) {
        passed_on::restore(given, returned, names);
    }

    fn skipped(&mut self, _: &Skip<'_>, _: &[Detection]) -> Result<Outcome, Failure> {
        Err(missing("skipped"))
    }
}

impl media::Host for Ctx {}

impl media::HostInference for Ctx {
    common_inference!();

    fn outputs(&mut self, handle: Resource<Held>) -> wasmtime::Result<Vec<media::TensorDesc>> {
        let desc = |output: &own::Output| {
            let own::TensorDesc { name, shape, .. } = output.desc.clone();
            media::TensorDesc { name, shape }
        };
        // Text comes behind all numbers, so the others keep their places.
        let has_numbers = |output: &&own::Output| !matches!(output.data, own::Elements::Text(_));
        Ok(self.inference(&handle)?.outputs.iter().filter(has_numbers).map(desc).collect())
    }

    fn labels(&mut self, _: Resource<Held>) -> wasmtime::Result<Vec<String>> {
        Ok(self.earlier_labels().to_vec())
    }
}

impl log::Host for Ctx {
    fn log(&mut self, level: log::Level, target: String, message: String) -> wasmtime::Result<()> {
        self.logger.line(level.into(), &target, &message, Vec::new());
        Ok(())
    }
}

fn to_guest(d: &Detection) -> types::Detection {
    types::Detection {
        class_id: d.class_id,
        score: d.score,
        bbox: bbox(&d.bbox),
        track_id: d.track_id,
        keypoints: points(&d.keypoints),
    }
}

fn outcome(o: types::Outcome) -> Result<Outcome, Failure> {
    let detection = |d: types::Detection| Detection {
        class_id: d.class_id,
        score: d.score,
        bbox: [d.bbox.x, d.bbox.y, d.bbox.width, d.bbox.height],
        track_id: d.track_id,
        keypoints: from_points(d.keypoints),
        ..Detection::default()
    };
    let detections: Vec<_> = o.detections.into_iter().map(detection).collect();
    Ok(returned::outcome(detections, o.events.into_iter().map(event).collect())?)
}

fn events(events: Vec<types::Event>, detections: usize) -> Result<Vec<Event>, Failure> {
    Ok(returned::events(events.into_iter().map(event).collect(), detections)?)
}

/// The later value counts where a key occurs twice.
fn event(e: types::Event) -> Event {
    let attributes = e.attributes.into_iter().map(|(key, value)| (key, Attribute::Text(value))).collect();
    Event { kind: e.kind, severity: severity(e.severity), subjects: e.subjects, attributes, episode: None }
}
