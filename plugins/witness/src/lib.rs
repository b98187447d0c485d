//! A post hook that tells what it is given as an event of each call, and returns a detection with everything
//! that one can have.

use framehook_sdk::{
    Bbox, Detection, Element, Episode, Error, Event, FrameMeta, Hook, Inference, Mask, Outcome, Phase, Point, PostHook,
    ScoredBox, Size, SourceKind, Start, Stream, TensorDesc, suppress,
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What is wrong with what it returns.
    #[serde(default)]
    bad: Option<Bad>,
    /// Names of its classes.
    #[serde(default)]
    labels: Vec<String>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Bad {
    /// A key of an event that occurs twice.
    TwiceInEvent,
    TwiceInDetection,
    /// Runs that are not the whole grid.
    Mask,
    /// Attributes that are not finite, one of a detection and one of an event.
    NotFinite,
}

struct Witness {
    config: Config,
    stream: Stream,
}

impl Hook for Witness {
    type Config = Config;

    const WANTS_SKIPPED: bool = true;

    fn new(stream: &Stream, config: Config) -> Result<Self, Error> {
        Ok(Self { config, stream: stream.clone() })
    }

    fn labels(&self) -> Vec<String> {
        self.config.labels.clone()
    }
}

impl PostHook for Witness {
    fn postprocess(&mut self, inference: &Inference, mut detections: Vec<Detection>) -> Result<Outcome, Error> {
        let mut events = vec![self.started(), given(&detections), suppressed()];
        for (at, output) in (0..).zip(inference.outputs()) {
            events.push(read(inference, at, &output)?);
        }
        framehook_sdk::info!("{} outputs", inference.outputs().len(); kind = "count", seconds = 2.5, ids = vec![1.0]);
        // What a hook passes on it may change.
        for detection in &mut detections {
            *detection = detection.clone().with("seen", 1);
        }
        detections.push(everything());
        self.spoil(&mut detections, &mut events);
        Ok(Outcome { detections, events })
    }

    fn skipped(&mut self, frame: FrameMeta, reason: &str, mut detections: Vec<Detection>) -> Result<Outcome, Error> {
        let event = Event::new("skipped").with("frame", frame.sequence).with("reason", reason);
        detections.push(Detection::new(0, 0.25, Bbox { x: 0.5, y: 0.5, width: 0.1, height: 0.1 }));
        Ok(Outcome { detections, events: vec![self.started(), event] })
    }

    fn flush(&mut self) -> Result<Vec<Event>, Error> {
        let stay = Episode { id: "1".into(), phase: Phase::End };
        Ok(vec![Event::new("stay").of(stay).with("seconds", 1.5)])
    }
}

impl Witness {
    fn started(&self) -> Event {
        let Stream { id, start, source, model_labels } = &self.stream;
        let event = Event::new("started").with("id", id.as_str()).with("model_labels", model_labels.join(","));
        let event = match start {
            Start::Fresh => event.with("start", "fresh"),
            Start::Swapped(swap) => {
                event.with("start", "swapped").with("from", &*swap.from_version).with("after", swap.after.sequence)
            }
            Start::Resumed(after) => {
                event.with("start", "resumed").with("after", after.sequence).with("pts", after.pts_us)
            }
        };
        let event = event.with("kind", if source.kind == SourceKind::File { "file" } else { "live" });
        let size = source.size.map(|size| vec![f64::from(size.width), f64::from(size.height)]);
        let event = event.with("size", size.unwrap_or_default());
        event.with("fps", source.frames_per_second.unwrap_or(-1.0)).with("frames", source.frames.unwrap_or(0))
    }

    fn spoil(&self, detections: &mut Vec<Detection>, events: &mut [Event]) {
        match self.config.bad {
            None => {}
            Some(Bad::TwiceInEvent) => {
                let again = events[0].attributes[0].clone();
                events[0].attributes.push(again);
            }
            Some(Bad::TwiceInDetection) => {
                for detection in detections {
                    let again = detection.attributes[0].clone();
                    detection.attributes.push(again);
                }
            }
            Some(Bad::Mask) => {
                let mask = Some(Mask { grid: Size { width: 2, height: 2 }, runs: vec![1, 2] });
                detections.push(Detection { mask, ..everything() });
            }
            Some(Bad::NotFinite) => {
                detections.push(everything().with("speed", f64::NAN));
                events[0] = Event::new("started").with("speed", vec![1.0, f64::INFINITY]).with("kind", "file");
            }
        }
    }
}

fn given(detections: &[Detection]) -> Event {
    let told = |d: &Detection| {
        let (label, polygon, mask) = (d.label.as_deref().unwrap_or("-"), d.polygon.len(), d.mask.is_some());
        format!("{label} {polygon} {mask} {}", d.attributes.len())
    };
    Event::new("given").with("detections", detections.iter().map(told).collect::<Vec<_>>().join(";"))
}

/// An output, read as what it is.
fn read(inference: &Inference, at: u32, output: &TensorDesc) -> Result<Event, Error> {
    const MOST: u32 = 8;
    let count = output.shape.iter().product::<u32>().min(MOST);
    let event = Event::new("output").with("name", output.name.as_str());
    let other = |refused: bool| if refused { "refused" } else { "given" };
    let (element, elements) = match output.element {
        Element::Float => ("float", format!("{:?}", inference.read_f32(at, 0, count)?)),
        Element::Integer => ("integer", format!("{:?}", inference.read_i64(at, 0, count)?)),
        Element::Text => ("text", format!("{:?}", inference.read_text(at, 0, count)?)),
    };
    let event = event.with("element", element).with("elements", elements);
    let highest = inference.top_k(at, 0, count, 2);
    let event = event.with("highest", highest.map_or_else(|_| "refused".to_owned(), |highest| format!("{highest:?}")));
    let event = event.with("as_integers", other(inference.read_i64(at, 0, count).is_err()));
    let bytes = inference.read_u8(at, 0, count);
    let event = event.with("as_bytes", bytes.map_or_else(|_| "refused".to_owned(), |bytes| format!("{bytes:?}")));
    let event = event.with("as_text", other(inference.read_text(at, 0, count).is_err()));
    Ok(event.with("beyond", other(inference.read_f32(at, u32::MAX, 1).is_err())))
}

/// Two boxes that are the same where they are turned by a quarter, and one that is elsewhere.
fn suppressed() -> Event {
    let one = |center_x, width, height, angle, score| ScoredBox {
        center_x,
        center_y: 50.0,
        width,
        height,
        angle,
        class_id: 0,
        score,
    };
    let quarter = std::f32::consts::FRAC_PI_2;
    let boxes = [one(50.0, 20.0, 10.0, 0.0, 0.5), one(50.0, 10.0, 20.0, quarter, 0.9), one(90.0, 20.0, 10.0, 0.0, 0.7)];
    let kept = suppress(&boxes, 0.5, false, 10);
    Event::new("suppressed").with("kept", kept.into_iter().map(f64::from).collect::<Vec<_>>())
}

/// All that a detection can have.
fn everything() -> Detection {
    let bbox = Bbox { x: 0.1, y: 0.2, width: 0.3, height: 0.4 };
    let corner = |x: f32, y: f32| Point { x, y };
    let detection = Detection::new(1, 0.75, bbox).with("colour", "red").with("speed", 12.5).with("count", 3);
    Detection {
        label: Some("own".into()),
        track_id: Some(9),
        polygon: vec![corner(0.1, 0.2), corner(0.4, 0.2), corner(0.4, 0.6)],
        mask: Some(Mask { grid: Size { width: 3, height: 2 }, runs: vec![1, 2, 3] }),
        ..detection.with("path", vec![0.5, 1.0])
    }
}

framehook_sdk::export!(post: Witness);
