//! What a guest returned, as long as it is of a size that the host can go on with.
//!
//! Pure, so that it can be fuzzed. Numbers that cannot be are for [`crate::range`].

use std::collections::BTreeMap;

use framehook_core::prediction::{Attribute, Detection, Event, Mask};

use crate::media::Outcome;

/// Per frame; far over what a person or a query can use, and it keeps a record below its limit.
const MAX_DETECTIONS: usize = 10_000;
/// Per frame, over all its detections: points of landmarks and outlines, runs of masks.
const MAX_POINTS: usize = 100_000;
/// Per frame.
const MAX_EVENTS: usize = 1_000;
/// Per frame, all texts of its events together, or of its detections.
const MAX_TEXT: usize = 1 << 20;
/// Per frame, over all its events: each about everything that is there would be a mistake.
const MAX_SUBJECTS: usize = 100_000;
/// A sentence.
const MAX_REASON: usize = 1 << 10;
/// Cells of a side of a mask; those of segmentation models have some hundred.
const MAX_GRID: u32 = 4_096;

/// What of a result cannot be used, in words.
#[derive(Debug)]
pub(crate) struct Unusable(pub(crate) String);

pub(crate) fn outcome(detections: Vec<Detection>, events: Vec<Event>) -> Result<Outcome, Unusable> {
    let points: usize = detections.iter().map(points).sum();
    let text: usize = detections.iter().map(|d| text(&d.attributes) + d.label.as_ref().map_or(0, String::len)).sum();
    if detections.len() > MAX_DETECTIONS || points > MAX_POINTS || text > MAX_TEXT {
        return Err(Unusable(format!(
            "returned {} detections with {points} points and {text} bytes of text; at most {MAX_DETECTIONS}, \
             {MAX_POINTS} and {MAX_TEXT} are allowed",
            detections.len()
        )));
    }
    let events = self::events(events, detections.len())?;
    Ok(Outcome { detections, events })
}

fn points(d: &Detection) -> usize {
    d.keypoints.len() + d.polygon.len() + d.mask.as_ref().map_or(0, |mask| mask.runs.len())
}

fn text(attributes: &BTreeMap<String, Attribute>) -> usize {
    let value = |value: &Attribute| match value {
        Attribute::Text(text) => text.len(),
        Attribute::Number(_) => size_of::<f64>(),
        Attribute::Numbers(numbers) => size_of_val(&numbers[..]),
    };
    attributes.iter().map(|(key, attribute)| key.len() + value(attribute)).sum()
}

/// `detections` is how many there are that an event can be about.
pub(crate) fn events(events: Vec<Event>, detections: usize) -> Result<Vec<Event>, Unusable> {
    let id = |e: &Event| e.episode.as_ref().map_or(0, |episode| episode.id.len());
    let total: usize = events.iter().map(|e| e.kind.len() + text(&e.attributes) + id(e)).sum();
    let (count, subjects) = (events.len(), events.iter().map(|e| e.subjects.len()).sum::<usize>());
    if count > MAX_EVENTS || total > MAX_TEXT || subjects > MAX_SUBJECTS {
        return Err(Unusable(format!(
            "returned {count} events with {total} bytes of text and {subjects} subjects; at most {MAX_EVENTS}, \
             {MAX_TEXT} and {MAX_SUBJECTS} are allowed"
        )));
    }
    for event in &events {
        if let Some(bad) = event.subjects.iter().find(|s| **s as usize >= detections) {
            return Err(Unusable(format!(
                "event `{}` is about detection {bad}, but there are {detections}",
                sentence(event.kind.clone())
            )));
        }
    }
    Ok(events)
}

/// # Errors
/// When a key occurs twice: nobody could tell which of the values is meant.
pub(crate) fn attributes(
    what: &str,
    given: impl Iterator<Item = (String, Attribute)>,
) -> Result<BTreeMap<String, Attribute>, Unusable> {
    let mut attributes = BTreeMap::new();
    for (key, value) in given {
        if attributes.contains_key(&key) {
            let message = format!("{what} has the attribute `{}` twice", sentence(key));
            return Err(Unusable(message));
        }
        attributes.insert(key, value);
    }
    Ok(attributes)
}

/// # Errors
/// When the runs are not the grid.
pub(crate) fn mask(grid: [u32; 2], runs: Vec<u32>) -> Result<Mask, Unusable> {
    let (cells, [width, height]) = (runs.iter().map(|run| u64::from(*run)).sum::<u64>(), grid);
    if width.max(height) > MAX_GRID {
        return Err(Unusable(format!("a mask has a grid of {width}x{height}; at most {MAX_GRID} a side")));
    }
    if cells != u64::from(width) * u64::from(height) {
        return Err(Unusable(format!("a mask has runs of {cells} cells together, but a grid of {width}x{height}")));
    }
    Ok(Mask { grid, runs })
}

/// A guest's text, short enough for a row and a log.
pub(crate) fn sentence(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_REASON));
    text
}
