//! The label of a detection: the name that the hook which made it gives to its class.
//!
//! Detections cross the boundary of the contract 0.1.0 without labels. So those that a hook only passed on,
//! perhaps with a track id or keypoints, are recognised here: the same class, score and box, bit for bit.

use framehook_core::prediction::Detection;

/// Labels what a hook returned. What it was given keeps its label. The rest gets the hook's `own` name of the
/// class or, if the hook has no names, the one that a hook before it gave (`earlier`).
///
/// In O(n log n) of the detections, and O(n) where the names say what the labels say already.
pub(crate) fn resolve(given: &[Detection], returned: &mut [Detection], earlier: &[String], own: &[String]) {
    let names = if own.is_empty() { earlier } else { own };
    let name = |detection: &Detection| names.get(detection.class_id as usize);
    // Where nobody named classes before, a hook names what it was given, too.
    if earlier.is_empty() || given.iter().all(|d| d.label.as_ref() == name(d)) {
        return returned.iter_mut().for_each(|d| d.label = name(d).cloned());
    }
    let (mut given, mut returned): (Vec<_>, Vec<_>) = (given.iter().collect(), returned.iter_mut().collect());
    // Stable sorts: of those that look alike, the first keeps the label of the first.
    given.sort_by_key(|d| likeness(d));
    returned.sort_by_key(|d| likeness(d));
    let mut given = given.into_iter().peekable();
    for detection in returned {
        let this = likeness(detection);
        while given.next_if(|d| likeness(d) < this).is_some() {}
        detection.label = match given.next_if(|d| likeness(d) == this) {
            Some(passed_on) => passed_on.label.clone(),
            None => name(detection).cloned(),
        };
    }
}

/// What stays of a detection that a hook passes on.
fn likeness(detection: &Detection) -> (u32, u32, [u32; 4]) {
    (detection.class_id, detection.score.to_bits(), detection.bbox.map(f32::to_bits))
}

#[cfg(test)]
mod tests {
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
        resolve(given, &mut returned, &names(earlier), &names(own));
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
    fn ten_thousand_that_look_alike_keep_their_labels() {
        let given: Vec<_> = (0..10_000).map(|n| at(0, 0.1, Some(if n % 2 == 0 { "a" } else { "b" }))).collect();
        let mut returned = given.clone();
        resolve(&given, &mut returned, &names(&["a"]), &names(&["c"]));
        assert_eq!(given, returned);
    }
}
