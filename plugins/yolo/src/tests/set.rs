//! A head that is set: wrong ones are refused with the one that the values look like, right ones
//! and those that nothing decides are not.

use super::*;

/// Small numbers above 0, never the same, as trained models give where there is nothing.
fn noise(i: usize, n: usize) -> f32 {
    ((i * 131 + n * 17) % 97 + 1) as f32 / 10_000.0
}

/// A grid of boxes all over the picture, of which the first are the objects.
fn noisy(boxes: usize, width: usize, object: impl Fn(&mut [f32], usize)) -> Vec<Vec<f32>> {
    let mut rows: Vec<_> = (0..boxes)
        .map(|i| {
            let place = [(i * 7 % 320) as f32, (i * 5 % 240) as f32, 30.5, 40.5];
            place.into_iter().chain((4..width).map(|n| noise(i, n))).collect::<Vec<_>>()
        })
        .collect();
    for (row, (numbers, class)) in rows.iter_mut().zip(OBJECTS) {
        row[..4].copy_from_slice(&numbers);
        object(row, class);
    }
    rows
}

/// Best first, as most end-to-end heads give them; `ids` are the classes in turn.
fn sorted(boxes: usize, width: usize, ids: &[usize]) -> Vec<Vec<f32>> {
    let row = |i: usize| {
        let (x, y, score) = ((i * 7 % 200) as f32, (i * 5 % 150) as f32, 0.9 - i as f32 / 400.0);
        let mut row = vec![x, y, x + 60.0, y + 70.0, score, ids[i % ids.len()] as f32];
        row.extend((6..width).map(|n| if n % 3 == 2 { 0.5 } else { x + n as f32 }));
        row
    };
    (0..boxes).map(row).collect()
}

fn with_ids(mut rows: Vec<Vec<f32>>, ids: [f32; 2]) -> Vec<Vec<f32>> {
    (rows[0][5], rows[1][5]) = (ids[0], ids[1]);
    rows
}

fn with_masks((shape, data): (Vec<u32>, Vec<f32>)) -> Memory {
    Memory::new(&[("output0", &shape, &data), ("output1", &[1, 32, 2, 2], &[0.0; 128])])
}

const fn class_of(classes: usize, class: usize) -> usize {
    if class < classes { class } else { classes - 1 }
}

fn real_v8(classes: usize) -> Vec<Vec<f32>> {
    noisy(1500, 4 + classes, |row, class| row[4 + class_of(classes, class)] = SCORE)
}

/// With a class where there is no object.
fn real_v5(classes: usize) -> Vec<Vec<f32>> {
    let mut rows = noisy(1500, 5 + classes, |_, _| ());
    for (i, row) in rows.iter_mut().enumerate() {
        row[5 + i % classes] = 0.6;
    }
    for (row, (_, class)) in rows.iter_mut().zip(OBJECTS) {
        row[5..].fill(0.01);
        (row[4], row[5 + class_of(classes, class)]) = (0.8, SCORE / 0.8);
    }
    rows
}

fn real_obb(classes: usize) -> Vec<Vec<f32>> {
    let mut rows = noisy(1500, 5 + classes, |row, class| row[4 + class_of(classes, class)] = SCORE);
    for (i, row) in rows.iter_mut().enumerate().skip(2) {
        row[4 + classes] = (i % 31) as f32 / 10.0 - 0.75;
    }
    (rows[0][4 + classes], rows[1][4 + classes]) = (0.0, 0.0);
    rows
}

fn real_seg(classes: usize) -> Vec<Vec<f32>> {
    let mut rows = noisy(1500, 36 + classes, |row, class| row[4 + class_of(classes, class)] = SCORE);
    for (i, row) in rows.iter_mut().enumerate() {
        (0..32).for_each(|n| row[4 + classes + n] = (noise(i, n) - 0.005) * 200.0);
    }
    rows
}

#[test]
fn a_list_of_boxes_is_no_other_head() {
    let heads = [Kind::V5, Kind::V8, Kind::Pose, Kind::Obb, Kind::Seg];
    for (name, boxes) in [
        ("two boxes", end2end(6)),
        ("classes far apart", with_ids(end2end(6), [79.0, 250.0])),
        ("one box in ten", end2end(6)[..20].to_vec()),
        ("full and sorted", sorted(300, 6, &[3, 17, 0])),
        ("full, of one class", sorted(300, 6, &[0])),
        ("full, of two classes", sorted(100, 6, &[1, 0])),
        ("with keypoints", sorted(300, 57, &[0])),
        ("with keypoints, of classes", sorted(300, 57, &[5, 2])),
    ] {
        let looks_like = format!("the values look like `end2end` with {} boxes; set `head` to", boxes.len());
        for (outputs, head) in [rows(&boxes), columns(&boxes)].iter().flat_map(|o| heads.map(|head| (o, head))) {
            let message = refused(&set(head), &memory(outputs.clone()));
            let set = format!("`head`: `{}` does not fit `output0` [1, ", head.name());
            assert!(message.starts_with(&set) && message.contains(&looks_like), "{name}: {message}");
            let needs = format!("one of `{}` has {}", head.name(), head.numbers());
            assert!(message.contains(&needs), "{name}: {message}");
        }
        let found = seen(&find(&set(Kind::End2End), &memory(rows(&boxes))));
        assert_eq!(found, seen(&find(&set(Kind::End2End), &memory(columns(&boxes)))), "{name}");
        assert!(!found.is_empty(), "{name}");
    }
}

#[test]
fn a_grid_that_is_set_wrongly_names_what_it_is() {
    for (name, boxes, head, is) in [
        ("v8 as end2end", real_v8(2), Kind::End2End, "`v8` with 2 classes and 1500 boxes"),
        ("v8 as obb", real_v8(80), Kind::Obb, "`v8` with 80 classes and 1500 boxes"),
        ("v8 as pose", real_v8(80), Kind::Pose, "`v8` with 80 classes and 1500 boxes"),
        ("v8 as seg", real_v8(80), Kind::Seg, "`v8` with 80 classes and 1500 boxes"),
        ("v5 as v8", real_v5(80), Kind::V8, "`v5` with 80 classes and 1500 boxes"),
        ("v5 of one class as v8", real_v5(1), Kind::V8, "`v5` with 1 class and 1500 boxes"),
        ("v5 as end2end", real_v5(1), Kind::End2End, "`v5` with 1 class and 1500 boxes"),
        ("pose as v8", pose(17, 3), Kind::V8, "`pose` with 1 class and 1500 boxes"),
        ("pose as end2end", pose(5, 2), Kind::End2End, "`pose` with 1 class and 1500 boxes"),
        ("obb as v8", real_obb(15), Kind::V8, "`obb` with 15 classes and 1500 boxes"),
        ("obb of one class as end2end", real_obb(1), Kind::End2End, "`obb` with 1 class and 1500 boxes"),
    ] {
        for outputs in [rows(&boxes), columns(&boxes)] {
            let message = refused(&set(head), &memory(outputs));
            let (_, looks_like) = message.split_once("the values look like ").expect(name);
            assert!(looks_like.contains(is) && looks_like.contains("; set `head` to"), "{name}: {message}");
        }
    }
    for (head, is) in [(Kind::Pose, "`seg` with 80 classes"), (Kind::V8, "`seg` with 80 classes")] {
        let message = refused(&set(head), &with_masks(columns(&real_seg(80))));
        assert!(message.contains(&format!("the values look like {is}")), "{message}");
    }
}

#[test]
fn a_head_that_is_set_rightly_is_never_refused() {
    for classes in [1, 2, 3, 80] {
        let all = right([class_of(classes, 2) as u32, 0]);
        for (boxes, head, masks) in [
            (real_v8(classes), Kind::V8, false),
            (real_v5(classes), Kind::V5, false),
            (v5(1500, classes.max(3)), Kind::V5, false),
            (real_obb(classes), Kind::Obb, false),
            (real_seg(classes), Kind::Seg, true),
            (real_seg(classes), Kind::Seg, false),
            (real_v8(classes), Kind::V8, true),
        ] {
            for outputs in [rows(&boxes), columns(&boxes)] {
                let outputs = if masks { with_masks(outputs) } else { memory(outputs) };
                let expected = if boxes == v5(1500, classes.max(3)) { right([2, 0]) } else { all.clone() };
                assert_eq!(seen(&find(&set(head), &outputs)), expected, "{head:?} {classes} {masks}");
            }
            // Frames on which it finds nothing.
            for outputs in [rows(&boxes[2..]), columns(&boxes[2..]), rows(&boxes[900..]), columns(&boxes[900..])] {
                assert_eq!(seen(&find(&set(head), &memory(outputs))), [], "{head:?} {classes}");
            }
        }
    }
    for boxes in [pose(17, 3), pose(5, 2)] {
        for outputs in [rows(&boxes), columns(&boxes)] {
            assert_eq!(seen(&find(&set(Kind::Pose), &memory(outputs))), right([0, 0])[..1]);
        }
    }
}

/// More than one thing is at a place, and both classes are given.
#[test]
fn a_v8_whose_objects_have_two_classes_may_be_set() {
    let mut boxes = real_v8(3);
    for row in boxes.iter_mut().take(300) {
        row[4..6].fill(0.4);
    }
    for outputs in [rows(&boxes), columns(&boxes)] {
        assert!(find(&set(Kind::V8), &memory(outputs)).len() > 50);
    }
}

#[test]
fn what_nothing_decides_is_left_as_it_is_set() {
    // Ids 0 and 1 could as well be scores.
    let boxes = with_ids(end2end(6), [1.0, 0.0]);
    for head in [Kind::V8, Kind::End2End] {
        assert!(!find(&set(head), &memory(rows(&boxes))).is_empty(), "{head:?}");
    }
    // Nothing is found, or too little to be sure.
    let mut faint = end2end(6);
    faint.iter_mut().for_each(|row| row[4] = row[4].min(0.2));
    for head in [Kind::V8, Kind::V5, Kind::Obb, Kind::Seg] {
        assert_eq!(seen(&find(&set(head), &memory(rows(&vec![vec![0.0; 6]; 300])))), [], "{head:?}");
        assert_eq!(seen(&find(&set(head), &memory(rows(&faint)))), [], "{head:?}");
    }
}

#[test]
fn what_is_set_wrongly_is_noticed_on_the_first_frame_that_shows_it() {
    let mut faint = end2end(6);
    faint.iter_mut().for_each(|row| row[4] = row[4].min(0.2));
    for (head, first, shown) in [
        (Kind::Obb, faint.clone(), end2end(6)),
        (Kind::V8, faint, end2end(6)),
        (Kind::V5, real_v8(3)[2..].to_vec(), v8(1500, 1, 7)),
    ] {
        let mut yolo = yolo(&set(head));
        for _ in 0..LOOKS - 1 {
            assert_eq!(seen(&yolo.find(&memory(rows(&first))).unwrap()), [], "{head:?}");
        }
        assert!(matches!(yolo.find(&memory(rows(&shown))), Err(Error::InvalidConfig(_))), "{head:?}");
    }
}
