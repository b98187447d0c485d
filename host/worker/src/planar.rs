//! From the planes of a decoder to planes of floats in one pass: what most videos are (4:2:0 with 8
//! bits a sample) is resized and converted without a picture in between.
//!
//! Each output row is made of two rows of each plane, blended into a row of 16-bit numbers, of
//! which each output pixel takes two neighbours. Then the matrix of the stream makes red, green and
//! blue of them.
//!
//! Invariant: within 1 of 255, the result is that of resizing each plane between its four nearest
//! samples (as OpenCV's `INTER_LINEAR`) and converting what comes out. The vectorised code gives
//! the portable one's numbers but for the rounding of floats.

use framehook_engine::media::Size;

use crate::image::Yuv420;

/// What a byte is multiplied by in a blended row: as much as fits a signed 16-bit number.
const SCALE: i16 = 128;
/// Bits of the weight of a lower row, a fraction below 1.
const ROW_BITS: i32 = 15;
/// Bits of the weights of two neighbours in a row: both are signed 16-bit numbers, the whole
/// included.
const PIXEL_BITS: i32 = 14;

/// What two blends have multiplied a sample by.
const UNIT: f32 = 1.0 / ((SCALE as i32) << PIXEL_BITS) as f32;

/// Pixels of a vector.
const LANES: usize = 8;
/// Samples of a vector that is shuffled.
const WINDOW: usize = 8;

/// Resizes planes of one size to one size.
pub struct Planar {
    frame: Size,
    target: Size,
    luma: Axis,
    chroma: Axis,
    rows: [Vec<i16>; 3],
}

/// Where the pixels of a row come from.
struct Axis {
    /// The left one of two neighbours.
    first: Vec<i32>,
    /// The weights of the two, in the halves of a number.
    weights: Vec<i32>,
    /// For each whole vector of pixels; none where they lie too far apart.
    windows: Option<Vec<Window>>,
}

/// Where the neighbours of a vector of pixels lie. A processor shuffles what lies close together
/// several times faster than it gathers it.
struct Window {
    /// The first sample of each half.
    starts: [usize; 2],
    /// For each pixel, the bytes of two neighbours among the samples from there on.
    bytes: [u8; LANES * 4],
}

impl Window {
    /// `None` if one of the neighbours lies outside.
    fn new(first: &[i32; LANES]) -> Option<Self> {
        let starts = [first[0], first[LANES / 2]];
        let mut bytes = [0; LANES * 4];
        for (at, (place, first)) in bytes.chunks_exact_mut(4).zip(first).enumerate() {
            let begin = 2 * (first - starts[2 * at / LANES]);
            let neighbours = begin..begin + 4;
            if neighbours.end > 2 * WINDOW as i32 {
                return None;
            }
            place.iter_mut().zip(neighbours).for_each(|(place, byte)| *place = byte as u8);
        }
        Some(Self { starts: starts.map(|start| start as usize), bytes })
    }
}

/// One row of the output: as many values each.
pub struct Rgb<'a> {
    pub planes: [&'a mut [f32]; 3],
    /// What red, green and blue become: `value * factor + offset`.
    pub scale: [(f32, f32); 3],
}

/// Where a target's pixel lies between two samples: the first of them, and how far it is to the
/// second.
fn between(at: u32, samples: u32, pixels: u32) -> (usize, f64) {
    let place = (f64::from(at) + 0.5) * f64::from(samples) / f64::from(pixels) - 0.5;
    let place = place.clamp(0.0, f64::from(samples - 1));
    (place as usize, place.fract())
}

impl Axis {
    fn new(samples: u32, pixels: u32) -> Self {
        let (first, weights): (Vec<_>, _) = (0..pixels)
            .map(|at| between(at, samples, pixels))
            .map(|(first, part)| {
                let weight = (part * f64::from(1 << PIXEL_BITS)).round() as i32;
                (first as i32, ((1 << PIXEL_BITS) - weight) | weight << 16)
            })
            .unzip();
        let windows = first.as_chunks().0.iter().map(Window::new).collect();
        Self { first, weights, windows }
    }

    fn value(&self, row: &[i16], at: usize) -> i32 {
        let (first, weights) = (self.first[at] as usize, self.weights[at]);
        i32::from(row[first]) * (weights & 0xffff) + i32::from(row[first + 1]) * (weights >> 16)
    }
}

impl Planar {
    #[must_use]
    pub fn new(frame: Size, target: Size) -> Self {
        let half = frame.width.div_ceil(2);
        // Behind its samples a row has the right neighbour of its last one, and what the window of
        // that one reaches.
        let rows = [frame.width, half, half].map(|width| vec![0; width as usize + WINDOW]);
        let (luma, chroma) = (Axis::new(frame.width, target.width), Axis::new(half, target.width));
        Self { frame, target, luma, chroma, rows }
    }

    /// Makes row `y` of the target.
    pub fn row(&mut self, from: &Yuv420<'_>, y: u32, to: Rgb<'_>) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features.
            unsafe { self.row_avx2(from, y, to) };
            return;
        }
        self.row_anywhere(from, y, to);
    }

    fn row_anywhere(&mut self, from: &Yuv420<'_>, y: u32, to: Rgb<'_>) {
        self.blend_rows(from, y, blend);
        self.convert(from, 0, to);
    }

    #[inline(always)]
    fn blend_rows(&mut self, from: &Yuv420<'_>, y: u32, blend: impl Fn(&[u8], &[u8], i16, &mut [i16])) {
        let heights = [self.frame.height, self.frame.height.div_ceil(2), self.frame.height.div_ceil(2)];
        for ((row, plane), height) in self.rows.iter_mut().zip(from.planes).zip(heights) {
            let (upper, part) = between(y, height, self.target.height);
            let weight = (part * f64::from(1 << ROW_BITS)).min(f64::from(i16::MAX)) as i16;
            let width = row.len() - WINDOW;
            let line = |number: usize| &plane.data[number * plane.stride..][..width];
            blend(line(upper), line((upper + 1).min(height as usize - 1)), weight, row);
            row[width] = row[width - 1];
        }
    }

    /// From the pixel `start` on.
    #[inline(always)]
    fn convert(&self, from: &Yuv420<'_>, start: usize, to: Rgb<'_>) {
        let [luma, blue, red] = &self.rows;
        let Rgb { planes: [r, g, b], scale } = to;
        let value = |axis: &Axis, row, at| axis.value(row, at) as f32 * UNIT;
        for at in start..r.len() {
            let y = (value(&self.luma, luma, at) - from.black) * from.gain;
            let (u, v) = (value(&self.chroma, blue, at) - 128.0, value(&self.chroma, red, at) - 128.0);
            let colours = [y + from.red_v * v, y + from.green_u * u + from.green_v * v, y + from.blue_u * u];
            for ((plane, colour), (factor, offset)) in [&mut *r, &mut *g, &mut *b].into_iter().zip(colours).zip(scale) {
                plane[at] = colour.clamp(0.0, 255.0) * factor + offset;
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn row_avx2(&mut self, from: &Yuv420<'_>, y: u32, to: Rgb<'_>) {
        use std::arch::x86_64::*;

        self.blend_rows(from, y, |upper, lower, weight, row| blend_avx2(upper, lower, weight, row));
        let whole = to.planes[0].len() / LANES * LANES;
        let neighbours = |axis: &Axis, row: &[i16], at: usize| match &axis.windows {
            Some(windows) => {
                let Window { starts: [low, high], bytes } = &windows[at / LANES];
                let (low, high) = (&row[*low..*low + WINDOW], &row[*high..*high + WINDOW]);
                // SAFETY: as many bytes as are read are in each slice and in the array.
                unsafe {
                    let (low, high) = (_mm_loadu_si128(low.as_ptr().cast()), _mm_loadu_si128(high.as_ptr().cast()));
                    _mm256_shuffle_epi8(_mm256_set_m128i(high, low), _mm256_loadu_si256(bytes.as_ptr().cast()))
                }
            }
            None => {
                let first = &axis.first[at..at + LANES];
                // SAFETY: eight numbers are read of the slice, and of the row two neighbours each:
                // `first` is a sample of it, behind which there is at least one more number.
                unsafe { _mm256_i32gather_epi32::<2>(row.as_ptr().cast(), _mm256_loadu_si256(first.as_ptr().cast())) }
            }
        };
        let mix = |axis: &Axis, row: &[i16], at: usize| {
            let weights = &axis.weights[at..at + LANES];
            // SAFETY: eight numbers are read of the slice.
            let weights = unsafe { _mm256_loadu_si256(weights.as_ptr().cast()) };
            let sum = _mm256_madd_epi16(neighbours(axis, row, at), weights);
            _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(UNIT))
        };
        let all = |value: f32| _mm256_set1_ps(value);
        let store = |plane: &mut [f32], colour, (factor, offset)| {
            let inside = _mm256_min_ps(_mm256_max_ps(colour, all(0.0)), all(255.0));
            let scaled = _mm256_fmadd_ps(inside, all(factor), all(offset));
            // SAFETY: eight values lie in the slice.
            unsafe { _mm256_storeu_ps(plane[..LANES].as_mut_ptr(), scaled) };
        };
        let Rgb { planes: [r, g, b], scale } = to;
        for at in (0..whole).step_by(LANES) {
            let luma = mix(&self.luma, &self.rows[0], at);
            let u = _mm256_sub_ps(mix(&self.chroma, &self.rows[1], at), all(128.0));
            let v = _mm256_sub_ps(mix(&self.chroma, &self.rows[2], at), all(128.0));
            let y = _mm256_mul_ps(_mm256_sub_ps(luma, all(from.black)), all(from.gain));
            let red = _mm256_fmadd_ps(v, all(from.red_v), y);
            let green = _mm256_fmadd_ps(v, all(from.green_v), _mm256_fmadd_ps(u, all(from.green_u), y));
            let blue = _mm256_fmadd_ps(u, all(from.blue_u), y);
            store(&mut r[at..at + LANES], red, scale[0]);
            store(&mut g[at..at + LANES], green, scale[1]);
            store(&mut b[at..at + LANES], blue, scale[2]);
        }
        self.convert(from, whole, Rgb { planes: [r, g, b], scale });
    }
}

#[inline(always)]
fn blend(upper: &[u8], lower: &[u8], weight: i16, row: &mut [i16]) {
    for ((value, upper), lower) in row.iter_mut().zip(upper).zip(lower) {
        let (upper, lower) = (i16::from(*upper) * SCALE, i16::from(*lower) * SCALE);
        // The product of two fractions, rounded.
        let part = (((i32::from(lower - upper) * i32::from(weight)) >> (ROW_BITS - 1)) + 1) >> 1;
        *value = upper + part as i16;
    }
}

/// The same, with the one instruction that a processor has for the product.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn blend_avx2(upper: &[u8], lower: &[u8], weight: i16, row: &mut [i16]) {
    use std::arch::x86_64::*;

    /// Samples of a vector of 16-bit numbers.
    const SAMPLES: usize = 16;
    const SHIFT: i32 = SCALE.ilog2() as i32;
    let (uppers, upper) = upper.as_chunks::<SAMPLES>();
    let (lowers, lower) = lower.as_chunks::<SAMPLES>();
    let (rows, rest) = row.split_at_mut(uppers.len() * SAMPLES);
    let weights = _mm256_set1_epi16(weight);
    for ((row, upper), lower) in rows.as_chunks_mut::<SAMPLES>().0.iter_mut().zip(uppers).zip(lowers) {
        // SAFETY: sixteen bytes are read of each array, and sixteen numbers written.
        unsafe {
            let upper = _mm256_cvtepu8_epi16(_mm_loadu_si128(upper.as_ptr().cast()));
            let lower = _mm256_cvtepu8_epi16(_mm_loadu_si128(lower.as_ptr().cast()));
            let (upper, lower) = (_mm256_slli_epi16::<SHIFT>(upper), _mm256_slli_epi16::<SHIFT>(lower));
            let part = _mm256_mulhrs_epi16(_mm256_sub_epi16(lower, upper), weights);
            _mm256_storeu_si256(row.as_mut_ptr().cast(), _mm256_add_epi16(upper, part));
        }
    }
    blend(upper, lower, weight, rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::{Plane, Yuv420};

    /// ITU-R BT.601 with a limited range.
    fn yuv<'a>(planes: [&'a [u8]; 3], width: u32) -> Yuv420<'a> {
        let strides = [width as usize, width.div_ceil(2) as usize, width.div_ceil(2) as usize];
        let plane = |at: usize| Plane { data: planes[at], stride: strides[at] };
        Yuv420 {
            planes: [plane(0), plane(1), plane(2)],
            black: 16.0,
            gain: 255.0 / 219.0,
            red_v: 1.596,
            green_u: -0.392,
            green_v: -0.813,
            blue_u: 2.017,
        }
    }

    /// Straight from the definition, in exact numbers.
    fn naive(from: &Yuv420<'_>, frame: Size, target: Size) -> [Vec<f64>; 3] {
        let place = |at: u32, samples: u32, pixels: u32| {
            ((f64::from(at) + 0.5) * f64::from(samples) / f64::from(pixels) - 0.5).clamp(0.0, f64::from(samples - 1))
        };
        let sample = |plane: usize, x: u32, y: u32| {
            let halve = |side: u32| if plane == 0 { side } else { side.div_ceil(2) };
            let (width, height) = (halve(frame.width), halve(frame.height));
            let (px, py) = (place(x, width, target.width), place(y, height, target.height));
            let value = |x: usize, y: usize| {
                let (x, y) = (x.min(width as usize - 1), y.min(height as usize - 1));
                f64::from(from.planes[plane].data[y * from.planes[plane].stride + x])
            };
            let row = |y: usize| value(px as usize, y) * (1.0 - px.fract()) + value(px as usize + 1, y) * px.fract();
            row(py as usize) * (1.0 - py.fract()) + row(py as usize + 1) * py.fract()
        };
        let mut out = [Vec::new(), Vec::new(), Vec::new()];
        for (y, x) in (0..target.height).flat_map(|y| (0..target.width).map(move |x| (y, x))) {
            let luma = (sample(0, x, y) - f64::from(from.black)) * f64::from(from.gain);
            let (u, v) = (sample(1, x, y) - 128.0, sample(2, x, y) - 128.0);
            let [red_v, green_u, green_v, blue_u] =
                [from.red_v, from.green_u, from.green_v, from.blue_u].map(f64::from);
            for (plane, colour) in
                out.iter_mut().zip([luma + red_v * v, luma + green_u * u + green_v * v, luma + blue_u * u])
            {
                plane.push(colour.clamp(0.0, 255.0));
            }
        }
        out
    }

    fn resize(frame: Size, target: Size, row: impl Fn(&mut Planar, u32, Rgb<'_>)) -> [Vec<f32>; 3] {
        let mut planar = Planar::new(frame, target);
        let width = target.width as usize;
        let mut out = [0; 3].map(|_| vec![0.0; width * target.height as usize]);
        for y in 0..target.height {
            let at = y as usize * width..(y as usize + 1) * width;
            let planes = out.each_mut().map(|plane| &mut plane[at.clone()]);
            row(&mut planar, y, Rgb { planes, scale: [(1.0, 0.0); 3] });
        }
        out
    }

    proptest! {
        #[test]
        fn it_is_resizing_and_then_converting(
            (width, height) in (1..70u32, 1..70u32),
            (to_width, to_height) in (1..70u32, 1..70u32),
            bytes in proptest::collection::vec(any::<u8>(), 70 * 70 + 2 * 35 * 35),
        ) {
            let (frame, target) = (Size { width, height }, Size { width: to_width, height: to_height });
            let (luma, chroma) = bytes.split_at(70 * 70);
            let from = yuv([luma, &chroma[..35 * 35], &chroma[35 * 35..]], width);
            let expected = naive(&from, frame, target);
            let fast = resize(frame, target, |planar, y, to| planar.row(&from, y, to));
            let portable = resize(frame, target, |planar, y, to| planar.row_anywhere(&from, y, to));
            for ((expected, fast), portable) in expected.iter().flatten().zip(fast.iter().flatten()).zip(portable.iter().flatten()) {
                let differs = (f64::from(*fast) - expected).abs();
                prop_assert!(differs <= 0.1, "{fast} is not {expected}");
                prop_assert!((fast - portable).abs() < 1e-2, "{fast} is not {portable}");
            }
        }
    }
}
