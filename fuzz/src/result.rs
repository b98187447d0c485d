//! A hook's result out of bytes, of the kind that a hostile hook returns, and what the host makes of it:
//! checked, mended, labelled, and written as JSON.

use arbitrary::{Arbitrary, Unstructured};
use framehook_core::{
    prediction::{Attribute, Detection, Episode, Event, Mask, Phase, Severity},
    size::json_bytes,
};

use crate::{
    abi::Names,
    media::Outcome,
    passed_on, range,
    returned::{self, Unusable},
};

/// Whatever a hook returns becomes a row that can be stored, or a failure in words.
pub fn hook_result(data: &[u8]) {
    // What is missing is zeros, so every input is a result.
    let Ok(made) = Made::take(&mut Unstructured::new(data)) else { return };
    let Made { given, returned, events, names } = made;
    let Ok(returned) = returned.into_iter().map(RawDetection::read).collect::<Result<Vec<_>, Unusable>>() else {
        return;
    };
    let Ok(events) = events.into_iter().map(RawEvent::read).collect::<Result<Vec<_>, Unusable>>() else { return };
    // What earlier hooks returned was mended then.
    let given = given.into_iter().map(RawDetection::read).collect::<Result<Vec<_>, Unusable>>().unwrap_or_default();
    let mut before = Outcome { detections: given, events: Vec::new() };
    range::mend(&mut before);
    let Ok(mut outcome) = returned::outcome(returned, events) else { return };

    range::mend(&mut outcome);
    check(&outcome);
    let once = outcome.clone();
    let again = range::mend(&mut outcome);
    assert!(again.cut == 0 && again.dropped == 0 && outcome == once, "mended twice: {again:?}");

    let names = Names { own: &names[..names.len() / 2], earlier: &names[names.len() / 2..] };
    passed_on::restore(&before.detections, &mut outcome.detections, &names);
    let mut earlier = once.events.clone();
    earlier.iter_mut().for_each(|event| event.subjects.retain(|s| (*s as usize) < before.detections.len()));
    passed_on::follow(&mut earlier, &before.detections, &outcome.detections);
    outcome.events.extend(earlier);
    check(&outcome);

    let text = serde_json::to_vec(&outcome.detections).expect("detections can be written");
    assert_eq!(text.len(), json_bytes(&outcome.detections));
    let read: Vec<Detection> = serde_json::from_slice(&text).expect("what was written can be read");
    assert_eq!(read.len(), outcome.detections.len());
    let text = serde_json::to_vec(&outcome.events).expect("events can be written");
    assert_eq!(text.len(), json_bytes(&outcome.events));
    let read: Vec<Event> = serde_json::from_slice(&text).expect("what was written can be read");
    assert_eq!(read.len(), outcome.events.len());
}

/// Nothing that cannot be.
fn check(outcome: &Outcome) {
    // As two rounded numbers add up.
    const MOST: f32 = 1.0 + f32::EPSILON;
    for detection in &outcome.detections {
        let Detection { score, bbox: [x, y, width, height], keypoints, polygon, .. } = detection;
        assert!((0.0..=1.0).contains(score), "{detection:?}");
        assert!(*x >= 0.0 && *y >= 0.0 && *width > 0.0 && *height > 0.0, "{detection:?}");
        assert!(x + width <= MOST && y + height <= MOST, "{detection:?}");
        assert!(keypoints.iter().chain(polygon).flatten().all(|n| n.is_finite()), "{detection:?}");
        if let Some(mask) = &detection.mask {
            let cells: u64 = mask.runs.iter().map(|run| u64::from(*run)).sum();
            assert_eq!(cells, u64::from(mask.grid[0]) * u64::from(mask.grid[1]));
        }
    }
    let is_there = |subject: &u32| (*subject as usize) < outcome.detections.len();
    assert!(outcome.events.iter().all(|event| event.subjects.iter().all(is_there)));
}

struct Made {
    given: Vec<RawDetection>,
    returned: Vec<RawDetection>,
    events: Vec<RawEvent>,
    names: Vec<String>,
}

impl Made {
    /// Some of what a hook returns is what it was given.
    fn take(from: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        let given: Vec<RawDetection> = from.arbitrary()?;
        let mut returned: Vec<RawDetection> = from.arbitrary()?;
        let passed_on: Vec<u8> = from.arbitrary()?;
        returned.extend(passed_on.into_iter().filter_map(|at| given.get(usize::from(at)).cloned()));
        Ok(Self { given, returned, events: from.arbitrary()?, names: from.arbitrary()? })
    }
}

#[derive(Arbitrary, Clone, Debug)]
struct RawDetection {
    class_id: u8,
    label: Option<String>,
    score: Number,
    bbox: [Number; 4],
    track_id: Option<u64>,
    keypoints: Vec<[Number; 2]>,
    polygon: Vec<[Number; 2]>,
    mask: Option<RawMask>,
    attributes: Vec<(String, RawValue)>,
}

#[derive(Arbitrary, Clone, Debug)]
struct RawMask {
    /// Otherwise one that its runs fill.
    grid: Option<[u16; 2]>,
    runs: Vec<u8>,
}

/// Mostly one that could be.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Number {
    Share(u8),
    Any(f32),
}

#[derive(Arbitrary, Clone, Debug)]
enum RawValue {
    Text(String),
    Number(f64),
    Numbers(Vec<f64>),
}

#[derive(Arbitrary, Clone, Debug)]
struct RawEvent {
    kind: String,
    is_urgent: bool,
    subjects: Vec<u8>,
    attributes: Vec<(String, RawValue)>,
    episode: Option<String>,
}

impl Number {
    fn read(self) -> f32 {
        match self {
            Self::Share(share) => f32::from(share) / 200.0,
            Self::Any(any) => any,
        }
    }
}

impl RawValue {
    fn read(self) -> Attribute {
        match self {
            Self::Text(text) => Attribute::Text(text),
            Self::Number(number) => Attribute::Number(number),
            Self::Numbers(numbers) => Attribute::Numbers(numbers),
        }
    }
}

impl RawDetection {
    fn read(self) -> Result<Detection, Unusable> {
        let points = |points: Vec<[Number; 2]>| points.into_iter().map(|point| point.map(Number::read)).collect();
        Ok(Detection {
            class_id: u32::from(self.class_id),
            label: self.label,
            score: self.score.read(),
            bbox: self.bbox.map(Number::read),
            track_id: self.track_id,
            keypoints: points(self.keypoints),
            polygon: points(self.polygon),
            mask: self.mask.map(RawMask::read).transpose()?,
            attributes: attributes("a detection", self.attributes)?,
        })
    }
}

impl RawMask {
    fn read(self) -> Result<Mask, Unusable> {
        let runs: Vec<_> = self.runs.into_iter().map(u32::from).collect();
        let grid = self.grid.map_or([runs.iter().sum(), 1], |grid| grid.map(u32::from));
        returned::mask(grid, runs)
    }
}

impl RawEvent {
    fn read(self) -> Result<Event, Unusable> {
        Ok(Event {
            kind: self.kind,
            severity: if self.is_urgent { Severity::Critical } else { Severity::Info },
            subjects: self.subjects.into_iter().map(u32::from).collect(),
            attributes: attributes("an event", self.attributes)?,
            episode: self.episode.map(|id| Episode { id, phase: Phase::New }),
        })
    }
}

fn attributes(
    what: &str,
    given: Vec<(String, RawValue)>,
) -> Result<std::collections::BTreeMap<String, Attribute>, Unusable> {
    returned::attributes(what, given.into_iter().map(|(key, value)| (key, value.read())))
}
