//! Masks out of prototypes, natively: a mask is a sum of pictures that all objects of a frame share, each
//! times a coefficient of the object.
//!
//! Source: Bolya et al., "YOLACT: Real-time instance segmentation", 2019; as the YOLO family uses it, the sum
//! is made larger linearly, and what is above 0 is inside.

/// Which cells of a grid over the box belong to the object: lengths of runs of cells, row by row, first one
/// that is outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Columns and rows.
    pub grid: [u32; 2],
    pub runs: Vec<u32>,
}

/// The prototypes of a frame, row-major `[channels, height, width]`, over the model's input.
#[derive(Clone, Copy)]
pub struct Prototypes<'a> {
    pub data: &'a [f32],
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

/// How the model's input lies on the frame.
#[derive(Clone, Copy)]
pub struct View {
    /// Across and down, in pixels: `input = frame * scale + pad`.
    pub scale: [f32; 2],
    pub pad: [f32; 2],
    /// Width and height in pixels.
    pub frame: [u32; 2],
    pub input: [u32; 2],
}

/// A box of the frame, normalised, with its coefficients.
pub struct MaskedBox {
    pub bbox: [f32; 4],
    pub coefficients: Vec<f32>,
}

/// Multiplications for the boxes of a call together, some 30 ms: a plugin cannot be interrupted here.
const MOST: usize = 64 << 20;

#[derive(Debug, PartialEq, Eq)]
pub enum NoMasks {
    /// A box has another number of coefficients than there are prototypes, or numbers that are not finite.
    Unfit,
    TooMany,
}

/// The mask of each box, over the box, in cells as large as those of the prototypes.
///
/// # Errors
/// When a box does not fit the prototypes, or all together take too long.
pub fn decode(prototypes: Prototypes<'_>, view: View, boxes: &[MaskedBox]) -> Result<Vec<Mask>, NoMasks> {
    let mut work = 0;
    let mut places = Vec::with_capacity(boxes.len());
    for masked in boxes {
        let is_finite = masked.bbox.iter().chain(&masked.coefficients).all(|n| n.is_finite());
        if !is_finite || masked.coefficients.len() != prototypes.channels {
            return Err(NoMasks::Unfit);
        }
        let place = Place::of(&masked.bbox, prototypes, view);
        work += place.across.len() * place.down.len() * prototypes.channels;
        if work > MOST {
            return Err(NoMasks::TooMany);
        }
        places.push(place);
    }
    Ok(places.iter().zip(boxes).map(|(place, masked)| place.mask(prototypes, &masked.coefficients)).collect())
}

/// Where the cells of a mask lie among the prototypes, by column and by row.
struct Place {
    across: Vec<Between>,
    down: Vec<Between>,
}

/// A place between two cells of a side.
#[derive(Clone, Copy)]
struct Between {
    before: usize,
    after: usize,
    /// How far it is from the first to the second, 0 to 1.
    share: f32,
}

impl Place {
    fn of([x, y, width, height]: &[f32; 4], prototypes: Prototypes<'_>, view: View) -> Self {
        let View { scale, pad, frame, input } = view;
        let across = (frame[0], scale[0], pad[0], input[0], prototypes.width);
        let down = (frame[1], scale[1], pad[1], input[1], prototypes.height);
        Self { across: side(*x, *width, across), down: side(*y, *height, down) }
    }

    fn mask(&self, prototypes: Prototypes<'_>, coefficients: &[f32]) -> Mask {
        let columns = extent(&self.across);
        let (first, cells) = (columns.0, columns.1 - columns.0 + 1);
        // The sum of each row of prototypes that is needed, made once: rows come in their order.
        let sum = |row: usize| {
            let mut sum = vec![0.0; cells];
            for (channel, coefficient) in coefficients.iter().enumerate() {
                let from = (channel * prototypes.height + row) * prototypes.width + first;
                for (sum, value) in sum.iter_mut().zip(&prototypes.data[from..from + cells]) {
                    *sum += coefficient * value;
                }
            }
            sum
        };
        let mut known: [Option<(usize, Vec<f32>)>; 2] = [None, None];
        let mut runs = Runs::default();
        for down in &self.down {
            for row in [down.before, down.after] {
                if known.iter().flatten().all(|(at, _)| *at != row) {
                    known.rotate_left(1);
                    known[1] = Some((row, sum(row)));
                }
            }
            let of = |row: usize| known.iter().flatten().find(|(at, _)| *at == row).map(|(_, sum)| &sum[..]);
            let (Some(above), Some(below)) = (of(down.before), of(down.after)) else { continue };
            for across in &self.across {
                let mix = |sum: &[f32]| across.mix(sum[across.before - first], sum[across.after - first]);
                runs.add(down.mix(mix(above), mix(below)) > 0.0);
            }
        }
        Mask { grid: [self.across.len() as u32, self.down.len() as u32], runs: runs.lengths }
    }
}

impl Between {
    fn mix(self, before: f32, after: f32) -> f32 {
        before + self.share * (after - before)
    }
}

/// The cells of one side of a box: as many as there are of the prototypes, at least one.
fn side(start: f32, length: f32, (frame, scale, pad, input, cells): (u32, f32, f32, u32, usize)) -> Vec<Between> {
    let last = cells as f32 - 1.0;
    // From a share of the frame to a place among the cells, whose middles are whole numbers.
    let place = |share: f32| (share * frame as f32 * scale + pad) * cells as f32 / input as f32 - 0.5;
    let count = (place(start + length) - place(start)).abs().ceil().clamp(1.0, cells as f32) as usize;
    (0..count)
        .map(|cell| {
            let at = place(start + length * (cell as f32 + 0.5) / count as f32).clamp(0.0, last);
            let before = at.floor();
            Between { before: before as usize, after: (before + 1.0).min(last) as usize, share: at - before }
        })
        .collect()
}

/// The first and the last cell that are looked at.
fn extent(side: &[Between]) -> (usize, usize) {
    let first = side.iter().map(|b| b.before).min().unwrap_or_default();
    let last = side.iter().map(|b| b.after).max().unwrap_or_default();
    (first, last.max(first))
}

/// Lengths of runs, the first of which is outside.
#[derive(Default)]
struct Runs {
    lengths: Vec<u32>,
    is_inside: bool,
}

impl Runs {
    fn add(&mut self, is_inside: bool) {
        if self.lengths.is_empty() {
            self.lengths.push(0);
        }
        if is_inside != self.is_inside {
            self.lengths.push(0);
            self.is_inside = is_inside;
        }
        if let Some(last) = self.lengths.last_mut() {
            *last += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: View = View {
        // 640x360 in 320x192, with 6 pixels above and below.
        scale: [0.5, 0.5],
        pad: [0.0, 6.0],
        frame: [640, 360],
        input: [320, 192],
    };
    const WIDTH: usize = 80;
    const HEIGHT: usize = 48;

    /// One that is above 0 in a circle around a place of the frame in pixels, and one that is 1 everywhere.
    fn circle(x: f32, y: f32, radius: f32) -> Vec<f32> {
        let mut data = Vec::new();
        for cell in 0..WIDTH * HEIGHT {
            let (column, row) = ((cell % WIDTH) as f32, (cell / WIDTH) as f32);
            let (u, v) = ((column + 0.5) * 4.0 * 2.0, ((row + 0.5) * 4.0 - 6.0) * 2.0);
            data.push(radius - (u - x).hypot(v - y));
        }
        data.extend([1.0; WIDTH * HEIGHT]);
        data
    }

    fn prototypes(data: &[f32]) -> Prototypes<'_> {
        Prototypes { data, channels: 2, height: HEIGHT, width: WIDTH }
    }

    fn inside(mask: &Mask) -> Vec<bool> {
        let runs = mask.runs.iter().zip([false, true].into_iter().cycle());
        runs.flat_map(|(run, is_inside)| std::iter::repeat_n(is_inside, *run as usize)).collect()
    }

    fn masked(bbox: [f32; 4], coefficients: &[f32]) -> MaskedBox {
        MaskedBox { bbox, coefficients: coefficients.to_vec() }
    }

    /// Each cell is inside as the middle of it is in the frame, but for those on the edge.
    #[test]
    fn what_is_inside_is_where_the_prototypes_say() {
        let (x, y, radius) = (300.0, 200.0, 60.0);
        let data = circle(x, y, radius);
        for bbox in [[0.375, 0.4, 0.19, 0.32], [0.4, 0.5, 0.01, 0.3], [0.0, 0.0, 1.0, 1.0], [0.45, 0.5, 0.001, 0.001]] {
            let [mask] = &decode(prototypes(&data), VIEW, &[masked(bbox, &[1.0, 0.0])]).unwrap()[..] else { panic!() };
            let cells = inside(mask);
            assert_eq!(cells.len() as u32, mask.grid[0] * mask.grid[1]);
            for (at, is_inside) in cells.iter().enumerate() {
                let (column, row) = (at as u32 % mask.grid[0], at as u32 / mask.grid[0]);
                let middle = |cell: u32, count: u32, start: f32, length: f32, side: f32| {
                    (start + length * (cell as f32 + 0.5) / count as f32) * side
                };
                let px = middle(column, mask.grid[0], bbox[0], bbox[2], 640.0);
                let py = middle(row, mask.grid[1], bbox[1], bbox[3], 360.0);
                let distance = (px - x).hypot(py - y);
                // A cell of the prototypes has 8 pixels of the frame.
                if (distance - radius).abs() > 1.0 {
                    assert_eq!(*is_inside, distance < radius, "{bbox:?} {px} {py}");
                }
            }
        }
    }

    #[test]
    fn coefficients_weigh_the_prototypes() {
        let data = circle(300.0, 200.0, 60.0);
        let whole = [0.0, 0.0, 1.0, 1.0];
        let count = |coefficients: &[f32]| {
            let masks = decode(prototypes(&data), VIEW, &[masked(whole, coefficients)]).unwrap();
            inside(&masks[0]).into_iter().filter(|is_inside| *is_inside).count()
        };
        // A circle of 60 pixels, one of 40, all, nothing.
        let areas = [[1.0, 0.0], [1.0, -20.0], [0.0, 1.0], [0.0, -1.0]].map(|c| count(&c) as f32 * 64.0);
        for (area, radius) in areas.into_iter().zip([60.0f32, 40.0]) {
            let expected = std::f32::consts::PI * radius * radius;
            assert!((area - expected).abs() < expected * 0.05, "{area} {expected}");
        }
        assert_eq!(areas[2..], [80.0 * 45.0 * 64.0, 0.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let data = circle(0.0, 0.0, 9.0);
        let bbox = [0.0, 0.0, 1.0, 1.0];
        let refused = |boxes: &[MaskedBox]| decode(prototypes(&data), VIEW, boxes).unwrap_err();
        assert_eq!(refused(&[masked(bbox, &[1.0])]), NoMasks::Unfit);
        assert_eq!(refused(&[masked(bbox, &[1.0, f32::NAN])]), NoMasks::Unfit);
        assert_eq!(refused(&[masked([f32::INFINITY, 0.0, 1.0, 1.0], &[1.0, 0.0])]), NoMasks::Unfit);
        let many: Vec<_> = (0..10_000).map(|_| masked(bbox, &[1.0, 0.0])).collect();
        assert_eq!(refused(&many), NoMasks::TooMany);
        // Boxes beside the frame, the wrong way around, or huge look at what is nearest.
        for bbox in [[5.0, 5.0, 1.0, 1.0], [0.5, 0.5, -0.3, -0.3], [-1e30, 0.0, 2e30, 1.0], [0.1, 0.1, 0.0, 0.0]] {
            let masks = decode(prototypes(&data), VIEW, &[masked(bbox, &[1.0, 0.0])]).unwrap();
            assert_eq!(inside(&masks[0]).len() as u32, masks[0].grid[0] * masks[0].grid[1], "{bbox:?}");
        }
    }
}
