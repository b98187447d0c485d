//! What a detection keeps that a hook of the contract 0.1.0 passes on, and the detections that an event is
//! about.
//!
//! That contract has no label, outline, mask or attribute, and any hook returns detections in its own order.
//! So those that it only passed on, perhaps with a track id or keypoints, are recognised here: the same
//! class, score and box, bit for bit.

use framehook_core::prediction::{Detection, Event};

use crate::abi::Names;

/// Labels what a hook returned. What it was given keeps what it had; the rest gets the name of its class.
///
/// In O(n log n) of the detections, and O(n) where nothing is to be kept that the names do not say.
pub(crate) fn restore(given: &[Detection], returned: &mut [Detection], names: &Names<'_>) {
    let name = |detection: &Detection| names.of(detection.class_id);
    let nobody_named = names.earlier.is_empty();
    // Where nobody named classes before, a hook names what it was given, too.
    let is_plain = |d: &Detection| d.polygon.is_empty() && d.mask.is_none() && d.attributes.is_empty();
    let is_labelled_so = |d: &Detection| nobody_named || d.label.as_ref() == name(d);
    if given.iter().all(|d| is_plain(d) && is_labelled_so(d)) {
        return returned.iter_mut().for_each(|d| d.label = name(d).cloned());
    }
    for (place, from) in passed_on(given, returned).into_iter().enumerate() {
        let detection = &mut returned[place];
        let Some(from) = from else {
            detection.label = name(detection).cloned();
            continue;
        };
        let Detection { label, polygon, mask, attributes, .. } = given[from].clone();
        detection.label = if nobody_named { name(detection).cloned() } else { label };
        (detection.polygon, detection.mask, detection.attributes) = (polygon, mask, attributes);
    }
}

/// Lets events of earlier hooks go on being about the same detections, which a later hook may have dropped or
/// put elsewhere.
pub(crate) fn follow(events: &mut [Event], given: &[Detection], returned: &[Detection]) {
    if events.iter().all(|event| event.subjects.is_empty()) {
        return;
    }
    let mut places = vec![None; given.len()];
    for (place, from) in (0..).zip(passed_on(given, returned)) {
        if let Some(from) = from {
            places[from] = Some(place);
        }
    }
    for event in events {
        let place = |subject: &u32| places.get(*subject as usize).copied().flatten();
        event.subjects = event.subjects.iter().filter_map(place).collect();
    }
}

/// For each returned detection the given one that it is, if a hook passed it on. Each given one is used once;
/// of those that look alike, the first is the first.
fn passed_on(given: &[Detection], returned: &[Detection]) -> Vec<Option<usize>> {
    let by_likeness = |all: &[Detection]| {
        let mut order: Vec<_> = (0..all.len()).collect();
        order.sort_by_key(|place| likeness(&all[*place]));
        order
    };
    let mut sources = vec![None; returned.len()];
    let mut left = by_likeness(given).into_iter().peekable();
    for place in by_likeness(returned) {
        let this = likeness(&returned[place]);
        while left.next_if(|from| likeness(&given[*from]) < this).is_some() {}
        sources[place] = left.next_if(|from| likeness(&given[*from]) == this);
    }
    sources
}

/// What stays of a detection that a hook passes on.
fn likeness(detection: &Detection) -> (u32, u32, [u32; 4]) {
    (detection.class_id, detection.score.to_bits(), detection.bbox.map(f32::to_bits))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use framehook_core::prediction::Severity;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn at(class_id: u32, x: f32, label: Option<&str>) -> Detection {
        let bbox = [x, 0.2, 0.3, 0.4];
        Detection { class_id, score: 0.5, bbox, label: label.map(str::to_owned), ..Detection::default() }
    }

    fn resolved(given: &[Detection], returned: &[Detection], earlier: &[&str], own: &[&str]) -> Vec<Option<String>> {
        // As they come out of a plugin.
        let mut returned: Vec<_> = returned.iter().map(|d| Detection { label: None, ..d.clone() }).collect();
        restore(given, &mut returned, &Names { earlier: &names(earlier), own: &names(own) });
        returned.into_iter().map(|d| d.label).collect()
    }

    #[test]
    fn what_is_passed_on_keeps_its_label_and_what_is_new_gets_the_hooks() {
        let street = ["person", "car"];
        let given = [at(1, 0.1, Some("car")), at(0, 0.2, Some("person")), at(7, 0.3, None)];
        let [car, person, nameless] = &given;
        let tracked = Detection { track_id: Some(3), keypoints: vec![[0.1, 0.1]], ..car.clone() };
        let moved = at(1, 0.100_001, None);
        let scored = Detection { score: 0.500_001, ..car.clone() };
        let [face, plate] = [Some("face"), Some("plate")];
        for (what, returned, own, expected) in [
            ("all, in another order", vec![person, car], &["face", "plate"][..], vec![Some("person"), Some("car")]),
            ("with a track id and keypoints", vec![&tracked], &["face", "plate"], vec![Some("car")]),
            ("moved, with another score", vec![&moved, &scored], &["face", "plate"], vec![plate, plate]),
            ("an input is used once", vec![car, car], &["face", "plate"], vec![Some("car"), plate]),
            ("beside its own", vec![&moved, car, person], &["face"], vec![None, Some("car"), Some("person")]),
            ("one without a label", vec![nameless], &["0", "1", "2", "3", "4", "5", "6", "seven"], vec![None]),
            ("a hook without names", vec![&moved, car], &[], vec![Some("car"), Some("car")]),
            ("as another class", vec![&at(0, 0.1, None)], &["face"], vec![face]),
            ("nothing", vec![], &["face"], vec![]),
        ] {
            let returned: Vec<_> = returned.into_iter().cloned().collect();
            assert_eq!(
                resolved(&given, &returned, &street, own),
                expected.into_iter().map(|l| l.map(str::to_owned)).collect::<Vec<_>>(),
                "{what}"
            );
        }
    }

    #[test]
    fn twins_keep_their_labels_in_their_order() {
        let given = [at(0, 0.1, Some("a")), at(0, 0.1, Some("b"))];
        assert_eq!(resolved(&given, &given, &["b"], &["c"]), [Some("a".to_owned()), Some("b".to_owned())]);
    }

    #[test]
    fn without_names_so_far_a_hook_names_what_it_was_given() {
        let given = [at(1, 0.1, None), at(2, 0.2, None)];
        assert_eq!(resolved(&given, &given, &[], &["zero", "one"]), [Some("one".to_owned()), None]);
        assert_eq!(resolved(&given, &given, &[], &[]), [None, None]);
        assert_eq!(resolved(&[], &given, &[], &["zero", "one"]), [Some("one".to_owned()), None]);
    }

    /// All alike, which is the worst case of some sorts and of all lists that are searched.
    #[test]
    fn events_follow_their_detections() {
        let [a, b, c] = [at(0, 0.1, None), at(0, 0.2, None), at(1, 0.3, None)];
        let new = at(1, 0.4, None);
        let given = [a.clone(), b.clone(), c.clone()];
        for (returned, expected) in [
            (vec![a.clone(), b.clone(), c.clone()], [vec![0, 2], vec![1], vec![]]),
            (vec![c.clone(), new.clone(), a.clone()], [vec![2, 0], vec![], vec![]]),
            (vec![new.clone(), b.clone()], [vec![], vec![1], vec![]]),
            (vec![], [vec![], vec![], vec![]]),
        ] {
            let event = |subjects: &[u32]| Event {
                kind: "seen".into(),
                severity: Severity::Info,
                subjects: subjects.to_vec(),
                attributes: BTreeMap::new(),
                episode: None,
            };
            let mut events = [event(&[0, 2]), event(&[1]), event(&[])];
            follow(&mut events, &given, &returned);
            assert_eq!(events.map(|event| event.subjects), expected, "{returned:?}");
        }
    }

    #[test]
    fn ten_thousand_that_look_alike_keep_their_labels() {
        let given: Vec<_> = (0..10_000).map(|n| at(0, 0.1, Some(if n % 2 == 0 { "a" } else { "b" }))).collect();
        let mut returned = given.clone();
        restore(&given, &mut returned, &Names { earlier: &names(&["a"]), own: &names(&["c"]) });
        assert_eq!(given, returned);
    }
}
