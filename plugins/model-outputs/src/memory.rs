//! Outputs in memory, for native tests: they answer as the host does, but for masks, which have one cell.

use framehook_sdk::{Candidate, ClassScores, Element, Error, Geometry, Mask, MaskedBox, Size, TensorDesc};

use crate::{Outputs, View};

#[derive(Clone, Debug)]
pub struct Memory {
    pub outputs: Vec<(TensorDesc, Vec<f32>)>,
    pub view: View,
}

impl Memory {
    /// Outputs of a model whose input of 320x240 pixels is the frame.
    #[must_use]
    pub fn new(outputs: &[(&str, &[u32], &[f32])]) -> Self {
        let one = |(name, shape, data): &(&str, &[u32], &[f32])| {
            (TensorDesc { name: (*name).into(), shape: shape.to_vec(), element: Element::Float }, data.to_vec())
        };
        let size = Size { width: 320, height: 240 };
        let geometry = Geometry { scale_x: 1.0, scale_y: 1.0, pad_x: 0.0, pad_y: 0.0 };
        Self { outputs: outputs.iter().map(one).collect(), view: View { geometry, frame: size, input: size } }
    }

    fn data(&self, output: u32) -> Result<&[f32], Error> {
        self.outputs.get(output as usize).map(|(_, data)| data.as_slice()).ok_or_else(outside)
    }
}

fn outside() -> Error {
    framehook_sdk::AccessError::OutOfBounds.into()
}

impl Outputs for Memory {
    fn list(&self) -> Vec<TensorDesc> {
        self.outputs.iter().map(|(desc, _)| desc.clone()).collect()
    }

    fn view(&self) -> View {
        self.view
    }

    fn gather(&self, output: u32, elements: &[u32]) -> Result<Vec<f32>, Error> {
        let data = self.data(output)?;
        elements.iter().map(|e| data.get(*e as usize).copied().ok_or_else(outside)).collect()
    }

    fn argmax_rows(
        &self,
        output: u32,
        scores: ClassScores,
        threshold: f32,
        limit: u32,
    ) -> Result<Vec<Candidate>, Error> {
        let data = self.data(output)?;
        let element = |row: u32, class: u32| {
            let steps = [(row, scores.row_stride), (class, scores.class_stride)];
            steps.iter().map(|(n, stride)| u64::from(*n) * u64::from(*stride)).sum::<u64>() + u64::from(scores.offset)
        };
        let is_empty = scores.rows == 0 || scores.classes == 0;
        if !is_empty && element(scores.rows - 1, scores.classes - 1) >= data.len() as u64 {
            return Err(outside());
        }
        let best =
            |row: u32| {
                let classes = (0..scores.classes).map(|class| (class, data[element(row, class) as usize]));
                let above = classes.filter(|(_, score)| *score >= threshold);
                let best = above.fold(None, |best: Option<(u32, f32)>, (class, score)| {
                    if best.is_none_or(|(_, high)| score > high) { Some((class, score)) } else { best }
                });
                best.map(|(class_id, score)| Candidate { row, class_id, score })
            };
        let mut found: Vec<_> = (0..scores.rows).filter_map(best).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(limit as usize);
        found.sort_by_key(|candidate| candidate.row);
        Ok(found)
    }

    fn masks(&self, prototypes: u32, boxes: &[MaskedBox]) -> Result<Vec<Mask>, Error> {
        let data = self.data(prototypes)?;
        let one = |masked: &MaskedBox| {
            let cells = data.len() / masked.coefficients.len();
            // The first cell of each prototype counts.
            let sum: f32 = masked.coefficients.iter().enumerate().map(|(n, c)| c * data[n * cells]).sum();
            Mask { grid: Size { width: 1, height: 1 }, runs: if sum > 0.0 { vec![0, 1] } else { vec![1] } }
        };
        Ok(boxes.iter().map(one).collect())
    }
}
