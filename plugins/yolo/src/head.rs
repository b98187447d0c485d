//! The heads of the YOLO family, and how the numbers of a box lie in the tensor.

use framehook_sdk::ClassScores;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Numbers of a box, before everything else.
pub(crate) const BOX: u32 = 4;
/// Coefficients of a mask.
pub(crate) const MASKS: u32 = 32;

/// How a model's output is read.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// YOLOv5, v6 and v7: centre x, centre y, width, height, objectness, one score a class.
    V5,
    /// YOLOv8, v9, v11 and v12: centre x, centre y, width, height, one score a class.
    V8,
    /// As `v8`, then the keypoints, each x and y or x, y and visibility.
    Pose,
    /// As `v8`, then an angle in radians: rotated boxes.
    Obb,
    /// As `v8`, then 32 coefficients of a mask, whose prototypes are another output.
    Seg,
    /// YOLOv10, v26 and others that need no suppression: left, top, right, bottom, score, class id;
    /// then perhaps keypoints (x, y and visibility each) or coefficients of a mask.
    End2End,
}

impl Kind {
    /// All, in the order in which messages name them.
    pub(crate) const ALL: [Self; 6] = [Self::V5, Self::V8, Self::Pose, Self::Obb, Self::Seg, Self::End2End];

    /// As it is set.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V5 => "v5",
            Self::V8 => "v8",
            Self::Pose => "pose",
            Self::Obb => "obb",
            Self::Seg => "seg",
            Self::End2End => "end2end",
        }
    }

    /// The numbers of a box, as messages name them.
    pub(crate) const fn numbers(self) -> &'static str {
        match self {
            Self::V5 => "4, an objectness and one score a class",
            Self::V8 => "4 and one score a class",
            Self::Pose => "4, one score a class, and 3 or 2 a keypoint",
            Self::Obb => "4, one score a class and an angle",
            Self::Seg => "4, one score a class and 32 coefficients",
            Self::End2End => "4, a score and a class id, then perhaps 3 a keypoint or 32 coefficients",
        }
    }
}

/// One way to read a tensor `[1, numbers, boxes]` or `[1, boxes, numbers]`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) boxes: u32,
    /// Numbers of a box in all.
    pub(crate) width: u32,
    /// The boxes are the last dimension.
    pub(crate) columns: bool,
    /// 0 for `end2end`, which gives the class itself.
    pub(crate) classes: u32,
    /// Numbers of a keypoint: 0 (there are none), 2 or 3.
    pub(crate) point: u32,
}

impl Head {
    /// The head with so many classes that fills the whole width, if there is one. Where the classes
    /// are not known, they are all that is left, and for a pose `scores`, as found in the values.
    pub(crate) fn new(kind: Kind, grid: Grid, classes: Option<u32>, scores: u32, point: u32) -> Option<Self> {
        let Grid { boxes, width, columns } = grid;
        let rest = |used: u32| width.checked_sub(used).filter(|n| *n > 0);
        let found = match kind {
            Kind::V5 => rest(BOX + 1)?,
            Kind::V8 => rest(BOX)?,
            Kind::Obb => rest(BOX + 1)?,
            Kind::Seg => rest(BOX + MASKS)?,
            Kind::Pose => classes.unwrap_or(scores),
            Kind::End2End => 0,
        };
        let head = Self { kind, boxes, width, columns, classes: found, point };
        let named = kind == Kind::End2End || (found > 0 && classes.is_none_or(|n| n == found));
        (named && head.fills()).then_some(head)
    }

    fn fills(self) -> bool {
        let Some(tail) = self.width.checked_sub(self.tail()) else { return false };
        match self.kind {
            Kind::Pose => tail > 0 && self.point > 0 && tail.is_multiple_of(self.point),
            Kind::End2End if self.point > 0 => tail > 0 && tail.is_multiple_of(self.point),
            Kind::End2End => tail == 0 || tail == MASKS,
            Kind::V5 | Kind::V8 | Kind::Obb | Kind::Seg => self.point == 0,
        }
    }

    /// Where the scores begin.
    pub(crate) const fn first_score(self) -> u32 {
        match self.kind {
            Kind::V5 => BOX + 1,
            _ => BOX,
        }
    }

    /// Behind the scores, or behind the class id.
    pub(crate) const fn tail(self) -> u32 {
        match self.kind {
            Kind::End2End => BOX + 2,
            _ => self.first_score() + self.classes,
        }
    }

    /// Scores, among them the objectness.
    pub(crate) const fn scores(self) -> std::ops::Range<u32> {
        match self.kind {
            Kind::End2End => BOX..BOX + 1,
            _ => BOX..self.tail(),
        }
    }

    /// What the host compares with the threshold: objectness, the score, or the classes.
    pub(crate) const fn compared(self) -> ClassScores {
        let classes = match self.kind {
            Kind::V5 | Kind::End2End => 1,
            _ => self.classes,
        };
        let grid = self.grid();
        let (row_stride, class_stride) = grid.strides();
        ClassScores { rows: self.boxes, classes, offset: BOX * class_stride, row_stride, class_stride }
    }

    /// The same head on a tensor with another number of boxes, if only that differs.
    pub(crate) fn refit(self, shape: &[u32]) -> Option<Self> {
        let &[1, a, b] = shape else { return None };
        let (width, boxes) = if self.columns { (a, b) } else { (b, a) };
        (width == self.width).then_some(Self { boxes, ..self })
    }

    pub(crate) const fn grid(self) -> Grid {
        Grid { boxes: self.boxes, width: self.width, columns: self.columns }
    }

    /// Whether coefficients of a mask come last.
    pub(crate) const fn has_coefficients(self) -> bool {
        match self.kind {
            Kind::Seg => true,
            Kind::End2End => self.point == 0 && self.width == self.tail() + MASKS,
            _ => false,
        }
    }

    /// Places of the numbers that a detection is made of.
    pub(crate) fn needed(self) -> Vec<u32> {
        match self.kind {
            Kind::V8 | Kind::Seg => (0..BOX).collect(),
            Kind::V5 => (0..self.tail()).collect(),
            Kind::Pose | Kind::Obb => (0..BOX).chain(self.tail()..self.width).collect(),
            Kind::End2End if self.point > 0 => (0..self.width).collect(),
            Kind::End2End => (0..self.tail()).collect(),
        }
    }
}

/// How boxes and their numbers lie in a tensor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Grid {
    pub(crate) boxes: u32,
    pub(crate) width: u32,
    pub(crate) columns: bool,
}

impl Grid {
    /// Both ways to see a shape.
    pub(crate) fn both(shape: &[u32]) -> Vec<Self> {
        let &[1, a, b] = shape else { return Vec::new() };
        let ways = [Self { boxes: b, width: a, columns: true }, Self { boxes: a, width: b, columns: false }];
        ways.into_iter().filter(|way| way.width > BOX && way.boxes > 0).collect()
    }

    /// From one box to the next, and from one of its numbers to the next.
    pub(crate) const fn strides(self) -> (u32, u32) {
        if self.columns { (1, self.boxes) } else { (self.width, 1) }
    }

    /// Elements of these numbers of these boxes, box by box.
    pub(crate) fn elements(self, boxes: impl Iterator<Item = u32>, numbers: &[u32]) -> Vec<u32> {
        let (row_stride, number_stride) = self.strides();
        boxes.flat_map(|row| numbers.iter().map(move |n| row * row_stride + n * number_stride)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(shape: &[u32], columns: bool) -> Grid {
        Grid::both(shape).into_iter().find(|g| g.columns == columns).unwrap()
    }

    #[test]
    fn a_shape_is_seen_both_ways() {
        let columns = Grid { boxes: 960, width: 7, columns: true };
        let rows = Grid { boxes: 7, width: 960, columns: false };
        assert_eq!(Grid::both(&[1, 7, 960]), [columns, rows]);
        assert_eq!(Grid::both(&[1, 4, 960]), [Grid { boxes: 4, width: 960, columns: false }]);
        for other in [&[2, 7, 960][..], &[1, 1, 7, 960], &[1000], &[1, 4, 4], &[1, 0, 7]] {
            assert_eq!(Grid::both(other), [], "{other:?}");
        }
    }

    #[test]
    fn elements_of_a_box_follow_the_layout() {
        let columns = grid(&[1, 7, 960], true);
        assert_eq!(columns.elements([5].into_iter(), &[0, 1, 2, 3]), [5, 965, 1925, 2885]);
        let head = |grid| Head::new(Kind::V8, grid, None, 0, 0).unwrap();
        assert_eq!((head(columns).compared().offset, head(columns).compared().class_stride), (3840, 960));
        let rows = grid(&[1, 960, 7], false);
        assert_eq!(rows.elements([5].into_iter(), &[0, 1, 2, 3]), [35, 36, 37, 38]);
        assert_eq!((head(rows).compared().offset, head(rows).compared().row_stride), (4, 7));
    }

    #[test]
    fn a_head_fills_the_width() {
        // Kind, width, classes by labels, scores by values, numbers of a keypoint: classes found.
        for (kind, width, labels, scores, point, expected) in [
            (Kind::V5, 85, None, 0, 0, Some(80)),
            (Kind::V5, 85, Some(80), 0, 0, Some(80)),
            (Kind::V5, 85, Some(81), 0, 0, None),
            (Kind::V5, 5, None, 0, 0, None),
            (Kind::V8, 84, Some(80), 0, 0, Some(80)),
            (Kind::V8, 85, Some(80), 0, 0, None),
            (Kind::Obb, 20, None, 0, 0, Some(15)),
            (Kind::Seg, 116, None, 0, 0, Some(80)),
            (Kind::Seg, 36, None, 0, 0, None),
            (Kind::Pose, 56, None, 1, 3, Some(1)),
            (Kind::Pose, 56, Some(1), 0, 3, Some(1)),
            (Kind::Pose, 56, None, 1, 2, None),
            (Kind::Pose, 13, None, 1, 2, Some(1)),
            (Kind::Pose, 56, None, 52, 3, None),
            (Kind::Pose, 56, None, 60, 3, None),
            (Kind::End2End, 6, Some(7), 0, 0, Some(0)),
            (Kind::End2End, 57, None, 0, 3, Some(0)),
            (Kind::End2End, 38, None, 0, 0, Some(0)),
            (Kind::End2End, 7, None, 0, 0, None),
        ] {
            let grid = Grid { boxes: 300, width, columns: false };
            let found = Head::new(kind, grid, labels, scores, point).map(|head| head.classes);
            assert_eq!(found, expected, "{kind:?} {width} {labels:?} {scores} {point}");
        }
    }
}
