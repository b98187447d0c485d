//! Some boxes of an output, to tell the heads apart by their values.

use std::ops::Range;

use framehook_sdk::{ClassScores, Error};
use model_outputs::{Outputs, scores::is_score};

use crate::head::{BOX, Grid, Head, Kind};

/// Boxes at even distances: thousands are alike.
const SPREAD: u32 = 500;
/// Boxes with the highest numbers where scores are.
const ACTIVE: u32 = 200;
/// Numbers in a sample: 700 boxes of 90. A look at them takes a small part of a hook's deadline.
const MAX_NUMBERS: u32 = 1 << 16;
/// Above this, something was perhaps found.
pub(crate) const NOTICED: f32 = 0.1;

pub(crate) struct Sample {
    width: usize,
    /// Which boxes, by number.
    boxes: Vec<u32>,
    /// From one of those at even distances to the next.
    step: u32,
    /// Box by box.
    numbers: Vec<f32>,
}

impl Sample {
    /// Boxes in their order: some everywhere, and those that say most.
    pub(crate) fn take(outputs: &impl Outputs, output: u32, grid: Grid) -> Result<Self, Error> {
        let most = (MAX_NUMBERS / grid.width).max(1);
        let (row_stride, class_stride) = grid.strides();
        let behind_box = ClassScores {
            rows: grid.boxes,
            classes: grid.width - BOX,
            offset: BOX * class_stride,
            row_stride,
            class_stride,
        };
        let step = grid.boxes.div_ceil(SPREAD.min(most)).max(1);
        let mut rows: Vec<_> = (0..grid.boxes).step_by(step as usize).collect();
        let active = outputs.argmax_rows(output, behind_box, NOTICED, ACTIVE.min(most))?;
        rows.extend(active.iter().map(|candidate| candidate.row));
        rows.sort_unstable();
        rows.dedup();
        let all: Vec<_> = (0..grid.width).collect();
        let numbers = outputs.gather(output, &grid.elements(rows.iter().copied(), &all))?;
        Ok(Self { width: grid.width as usize, boxes: rows, step, numbers })
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.numbers.chunks_exact(self.width)
    }

    /// Those at even distances: they stand for all boxes.
    pub(crate) fn spread(&self) -> impl Iterator<Item = &[f32]> {
        let is_spread = |(number, _): &(&u32, &[f32])| number.is_multiple_of(self.step);
        self.boxes.iter().zip(self.rows()).filter(is_spread).map(|(_, row)| row)
    }

    pub(crate) const fn width(&self) -> u32 {
        self.width as u32
    }

    /// One number of every box, where it is finite.
    pub(crate) fn column(&self, number: u32) -> impl Iterator<Item = f32> {
        self.columns(number..number + 1)
    }

    /// These numbers of every box, where they are finite.
    pub(crate) fn columns(&self, numbers: Range<u32>) -> impl Iterator<Item = f32> {
        let numbers = numbers.start as usize..numbers.end as usize;
        self.rows().flat_map(move |row| &row[numbers.clone()]).copied().filter(|n| n.is_finite())
    }

    /// Numbers behind the box that are scores in every box.
    pub(crate) fn leading_scores(&self) -> u32 {
        let no_score = |n: &f32| n.is_finite() && !is_score(*n);
        let leading = |row: &[f32]| row[BOX as usize..].iter().position(no_score);
        self.rows().filter_map(leading).min().unwrap_or(self.width - BOX as usize) as u32
    }

    /// Boxes with NaN or infinite values, of those looked at.
    pub(crate) fn unusable(&self) -> usize {
        self.rows().filter(|row| !row.iter().all(|n| n.is_finite())).count()
    }

    /// Whether there is nothing but zeros.
    pub(crate) fn is_blank(&self) -> bool {
        self.numbers.iter().all(|n| *n == 0.0)
    }

    /// The highest score that a head gives.
    pub(crate) fn highest(&self, head: Head) -> f32 {
        let scores = head.scores().start as usize..head.scores().end as usize;
        let highest = |numbers: &[f32]| numbers.iter().filter(|n| n.is_finite()).fold(0f32, |a, b| a.max(*b));
        let score = |row: &[f32]| match head.kind {
            Kind::V5 => row[BOX as usize] * highest(&row[BOX as usize + 1..scores.end]),
            _ => highest(&row[scores.clone()]),
        };
        self.rows().map(score).filter(|score| score.is_finite()).fold(0f32, f32::max)
    }
}
