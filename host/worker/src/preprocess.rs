//! From a decoded frame to the model's input tensor: one resize into a canvas that is kept, one
//! vectorised pass from interleaved bytes to planes of floats.
//!
//! Invariant: the result is what [`InputSpec`] says, `(value * scale - mean) / std` of the resized
//! and padded picture, in the model's channel order. Nothing is allocated a frame.

use framehook_core::input::{Anchor, Channels, InputSpec, Resize};
use framehook_engine::media::{Geometry, Region, Size};

use crate::{
    image::{BGR_PIXEL, Bgr, BgrCache, Image, ImageError, Yuv420},
    planar::{Planar, Rgb},
    resize::{Method, Target, resize},
};

/// Fills input tensors from frames of one size.
pub struct Preprocessor {
    /// BGR, with the padding around the region.
    canvas: Vec<u8>,
    width: u32,
    region: Region,
    frame: Size,
    pad: u8,
    normaliser: Normaliser,
    planar: Planar,
    channels: Depth,
}

/// Which channels the model has, beside those of a picture.
enum Depth {
    /// The parts of the first, second and third that grey is made of.
    Grey([f32; 3]),
    Colour,
    /// With the value of one that is opaque.
    Opaque(f32),
}

impl Depth {
    fn new(spec: &InputSpec) -> Self {
        match (spec.planes, spec.channels) {
            (1, Channels::Rgb) => Self::Grey(GREY),
            (1, Channels::Bgr) => Self::Grey([GREY[2], GREY[1], GREY[0]]),
            (4, _) => Self::Opaque(255.0 * spec.scale),
            _ => Self::Colour,
        }
    }

    /// `input` has three planes of colours.
    fn apply(&self, input: &mut Vec<f32>) {
        let plane = input.len() / 3;
        match self {
            Self::Colour => {}
            Self::Opaque(value) => input.resize(4 * plane, *value),
            Self::Grey([a, b, c]) => {
                let [first, second, third] = planes(input, plane);
                for ((first, second), third) in first.iter_mut().zip(second).zip(third) {
                    *first = *first * a + *second * b + *third * c;
                }
                input.truncate(plane);
            }
        }
    }
}

/// What red, green and blue weigh in grey, after ITU-R BT.601 as everywhere in OpenCV.
const GREY: [f32; 3] = [0.299, 0.587, 0.114];

impl Preprocessor {
    /// The one that is kept if it is for frames of this size, or else a new one in its place.
    pub fn kept<'a>(kept: &'a mut Option<Self>, spec: &InputSpec, width: u32, height: u32) -> &'a mut Self {
        let fitting = kept.take().filter(|kept| kept.fits(width, height));
        kept.insert(fitting.unwrap_or_else(|| Self::new(spec, width, height)))
    }

    /// For frames of `width` x `height` pixels.
    #[must_use]
    pub fn new(spec: &InputSpec, width: u32, height: u32) -> Self {
        let (frame, region) = (Size { width, height }, region(spec, width, height));
        Self {
            canvas: vec![spec.pad; spec.width as usize * spec.height as usize * BGR_PIXEL],
            width: spec.width,
            region,
            frame,
            pad: spec.pad,
            normaliser: Normaliser::new(spec),
            planar: Planar::new(frame, Size { width: region.width, height: region.height }),
            channels: Depth::new(spec),
        }
    }

    /// Values of three planes of colours.
    fn colours_len(&self) -> usize {
        self.normaliser.plane * 3
    }

    #[must_use]
    pub fn fits(&self, width: u32, height: u32) -> bool {
        (width, height) == (self.frame.width, self.frame.height)
    }

    /// Where the frame lies in the model's input.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        Geometry {
            scale_x: self.region.width as f32 / self.frame.width as f32,
            scale_y: self.region.height as f32 / self.frame.height as f32,
            pad_x: self.region.x as f32,
            pad_y: self.region.y as f32,
        }
    }

    /// Fills `input` (`[planes, height, width]`) from `part` of `picture`, which has the size of a
    /// frame; it is resized to what is needed.
    ///
    /// # Errors
    /// When OpenCV cannot resize `picture`.
    pub fn fill(&mut self, picture: Bgr<'_>, part: Region, input: &mut Vec<f32>) -> Result<(), ImageError> {
        let stride = self.width as usize * BGR_PIXEL;
        let Region { x, y, width, height } = self.region;
        let data = &mut self.canvas[y as usize * stride + x as usize * BGR_PIXEL..];
        resize(picture, part, Target { data, stride, size: Size { width, height } }, Method::Linear)?;
        input.resize(self.colours_len(), 0.0);
        self.normaliser.apply(&self.canvas, input);
        self.channels.apply(input);
        Ok(())
    }
}

impl Preprocessor {
    /// The same for a whole image, whatever its format; `bgr` is its own.
    ///
    /// # Errors
    /// When it cannot be converted.
    pub fn fill_whole(&mut self, image: &Image, bgr: &mut BgrCache, input: &mut Vec<f32>) -> Result<(), ImageError> {
        if let Some(planes) = image.as_yuv420() {
            self.fill_planar(&planes, input);
            return Ok(());
        }
        let whole = Region { x: 0, y: 0, width: image.width(), height: image.height() };
        self.fill(bgr.get(image)?, whole, input)
    }

    /// The same for the planes of a decoder, in one pass: no picture is made between.
    pub fn fill_planar(&mut self, from: &Yuv420<'_>, input: &mut Vec<f32>) {
        input.resize(self.colours_len(), 0.0);
        let (width, Region { x, y, width: inner, height }) = (self.width as usize, self.region);
        let (left, right) = (x as usize, (x + inner) as usize);
        let [blue, green, red] = self.normaliser.channels;
        let scale = [red, green, blue].map(|channel| (channel.factor, channel.offset));
        let [first, second, third] = planes(input, self.normaliser.plane).map(|plane| plane.chunks_exact_mut(width));
        let (reds, blues) = if red.plane == 0 { (first, third) } else { (third, first) };
        for (row, ((red, green), blue)) in reds.zip(second).zip(blues).enumerate() {
            let inside = (row as u32).checked_sub(y).filter(|row| *row < height);
            let pad = |row: &mut [f32], (factor, offset): (f32, f32)| row.fill(f32::from(self.pad) * factor + offset);
            let mut lines = [red, green, blue];
            for (line, scale) in lines.iter_mut().zip(scale) {
                let (left, right) = if inside.is_some() { (left, right) } else { (width, width) };
                pad(&mut line[..left], scale);
                pad(&mut line[right..], scale);
            }
            if let Some(row) = inside {
                self.planar.row(from, row, Rgb { planes: lines.map(|line| &mut line[left..right]), scale });
            }
        }
        self.channels.apply(input);
    }
}

fn planes(input: &mut [f32], length: usize) -> [&mut [f32]; 3] {
    let (first, rest) = input.split_at_mut(length);
    let (second, third) = rest.split_at_mut(length);
    [first, second, third]
}

/// The part of the canvas that the frame fills.
fn region(spec: &InputSpec, width: u32, height: u32) -> Region {
    if spec.resize == Resize::Stretch {
        return Region { x: 0, y: 0, width: spec.width, height: spec.height };
    }
    let scale = (f64::from(spec.width) / f64::from(width)).min(f64::from(spec.height) / f64::from(height));
    // A very flat frame keeps at least one row.
    let side = |frame: u32, canvas: u32| ((f64::from(frame) * scale).round() as u32).clamp(1, canvas);
    let (width, height) = (side(width, spec.width), side(height, spec.height));
    let (x, y) = match spec.anchor {
        Anchor::Center => ((spec.width - width) / 2, (spec.height - height) / 2),
        Anchor::TopLeft => (0, 0),
    };
    Region { x, y, width, height }
}

/// Interleaved BGR bytes to planes of floats.
struct Normaliser {
    plane: usize,
    /// For blue, green and red: which plane, and `value * factor + offset`.
    channels: [Channel; 3],
}

#[derive(Clone, Copy)]
struct Channel {
    plane: usize,
    factor: f32,
    offset: f32,
}

impl Normaliser {
    fn new(spec: &InputSpec) -> Self {
        let channel = |bgr: usize| {
            let plane = match spec.channels {
                Channels::Bgr => bgr,
                Channels::Rgb => 2 - bgr,
            };
            // Grey is the same mixture before and after, if its colours are treated alike.
            let at = if spec.planes == 1 { 0 } else { plane };
            let (mean, std) = (spec.mean[at], spec.std[at]);
            Channel { plane, factor: spec.scale / std, offset: -mean / std }
        };
        Self { plane: spec.width as usize * spec.height as usize, channels: [0, 1, 2].map(channel) }
    }

    fn apply(&self, pixels: &[u8], planes: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features.
            unsafe { self.apply_avx2(pixels, planes) };
            return;
        }
        self.apply_anywhere(pixels, planes);
    }

    /// The same code, which the compiler vectorises eight values wide here.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn apply_avx2(&self, pixels: &[u8], planes: &mut [f32]) {
        self.apply_anywhere(pixels, planes);
    }

    #[inline(always)]
    fn apply_anywhere(&self, pixels: &[u8], planes: &mut [f32]) {
        let [first, second, third] = self::planes(planes, self.plane);
        let [blue, green, red] = self.channels;
        // Green is the middle plane in either order.
        let (blues, reds) = if blue.plane == 0 { (first, third) } else { (third, first) };
        for (((pixel, b), g), r) in pixels.chunks_exact(3).zip(blues).zip(second).zip(reds) {
            *b = f32::from(pixel[0]) * blue.factor + blue.offset;
            *g = f32::from(pixel[1]) * green.factor + green.offset;
            *r = f32::from(pixel[2]) * red.factor + red.offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use framehook_core::input::{Element, Layout};
    use proptest::prelude::*;

    use super::*;
    use crate::image::Plane;

    fn numbers(Geometry { scale_x, scale_y, pad_x, pad_y }: Geometry) -> [f32; 4] {
        [scale_x, scale_y, pad_x, pad_y]
    }

    fn spec() -> impl Strategy<Value = InputSpec> {
        let number = || -3.0..3.0f32;
        let std = || prop_oneof![0.1..3.0f32, Just(1.0f32)];
        let modes = (prop::bool::ANY, prop::bool::ANY, prop::bool::ANY, any::<u8>());
        let numbers = (0.001..1.0f32, [number(), number(), number()], [std(), std(), std()]);
        (1..70u32, 1..70u32, prop_oneof![Just(1u32), Just(3), Just(4)], modes, numbers).prop_map(
            |(width, height, planes, (stretch, top_left, bgr, pad), (scale, mean, std))| InputSpec {
                tensor: "images".into(),
                width,
                height,
                resize: if stretch { Resize::Stretch } else { Resize::Letterbox },
                anchor: if top_left { Anchor::TopLeft } else { Anchor::Center },
                channels: if bgr { Channels::Bgr } else { Channels::Rgb },
                pad,
                scale,
                mean,
                std,
                layout: Layout::Nchw,
                element: Element::Float32,
                planes,
                batch: 1,
                inputs: Vec::new(),
            },
        )
    }

    /// Pixels without gaps between rows.
    fn frame(width: u32, height: u32, seed: u8) -> Vec<u8> {
        let bytes = width as usize * height as usize * BGR_PIXEL;
        (0..bytes).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
    }

    fn bgr(data: &[u8], width: u32, height: u32) -> Bgr<'_> {
        Bgr { data, stride: width as usize * BGR_PIXEL, width, height }
    }

    /// Straight from the definition: pad a resized picture, then one value after the other.
    fn naive(spec: &InputSpec, picture: Bgr<'_>) -> Vec<f32> {
        let Bgr { width, height, .. } = picture;
        let region = region(spec, width, height);
        let size = Size { width: region.width, height: region.height };
        let stride = size.width as usize * BGR_PIXEL;
        let mut small = vec![0; stride * size.height as usize];
        let target = Target { data: &mut small, stride, size };
        resize(picture, Region { x: 0, y: 0, width, height }, target, Method::Linear).unwrap();
        let mut out = Vec::new();
        for channel in 0..3 {
            let bgr = if spec.channels == Channels::Rgb { 2 - channel } else { channel };
            for y in 0..spec.height {
                for x in 0..spec.width {
                    let (column, row) = (x.wrapping_sub(region.x), y.wrapping_sub(region.y));
                    let value = if column < region.width && row < region.height {
                        small[row as usize * stride + column as usize * BGR_PIXEL + bgr]
                    } else {
                        spec.pad
                    };
                    let at = if spec.planes == 1 { 0 } else { channel };
                    out.push((f32::from(value) * spec.scale - spec.mean[at]) / spec.std[at]);
                }
            }
        }
        let plane = out.len() / 3;
        match spec.planes {
            1 => {
                let red = if spec.channels == Channels::Rgb { 0 } else { 2 };
                let grey = |at: usize| {
                    let colour = |channel: usize| out[channel * plane + at];
                    0.299 * colour(red) + 0.587 * colour(1) + 0.114 * colour(2 - red)
                };
                (0..plane).map(grey).collect()
            }
            4 => out.into_iter().chain(vec![255.0 * spec.scale; plane]).collect(),
            _ => out,
        }
    }

    proptest! {
        #[test]
        fn equals_the_naive_definition(spec in spec(), width in 1..90u32, height in 1..90u32, seed in any::<u8>()) {
            let (before, pixels) = (frame(width, height, seed.wrapping_add(7)), frame(width, height, seed));
            let whole = Region { x: 0, y: 0, width, height };
            let mut preprocessor = Preprocessor::new(&spec, width, height);
            let mut input = Vec::new();
            // Twice: nothing of the first frame may stay in the second.
            preprocessor.fill(bgr(&before, width, height), whole, &mut input).unwrap();
            preprocessor.fill(bgr(&pixels, width, height), whole, &mut input).unwrap();
            for (got, expected) in input.iter().zip(naive(&spec, bgr(&pixels, width, height))) {
                prop_assert!((got - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{got} {expected}");
            }
            prop_assert_eq!(input.len(), spec.frame_len());
        }

        #[test]
        fn planes_lie_where_the_picture_would(spec in spec(), width in 1..90u32, height in 1..90u32, gray in any::<u8>()) {
            let (pixels, luma) = (vec![gray; (width * height) as usize * BGR_PIXEL], vec![gray; (width * height) as usize]);
            let colour = vec![128; luma.len()];
            let planes = [&luma, &colour, &colour].map(|data| Plane { data, stride: width as usize });
            let yuv =
                Yuv420 { planes, black: 0.0, gain: 1.0, red_v: 1.4, green_u: -0.3, green_v: -0.7, blue_u: 1.8 };
            let mut preprocessor = Preprocessor::new(&spec, width, height);
            // What the buffer held before must not show.
            let (mut of_planes, mut of_picture) = (vec![9.0; 5], Vec::new());
            preprocessor.fill_planar(&yuv, &mut of_planes);
            preprocessor.fill(bgr(&pixels, width, height), Region { x: 0, y: 0, width, height }, &mut of_picture).unwrap();
            prop_assert_eq!(of_planes.len(), of_picture.len());
            for (a, b) in of_planes.iter().zip(&of_picture) {
                prop_assert!((a - b).abs() <= 1e-3 * b.abs().max(1.0), "{a} {b}");
            }
        }

        #[test]
        fn the_portable_code_agrees_with_the_fast_one(spec in spec(), seed in any::<u8>()) {
            let picture = frame(spec.width, spec.height, seed);
            let normaliser = Normaliser::new(&spec);
            let (mut fast, mut portable) = (vec![0.0; normaliser.plane * 3], vec![0.0; normaliser.plane * 3]);
            normaliser.apply(&picture, &mut fast);
            normaliser.apply_anywhere(&picture, &mut portable);
            for (a, b) in fast.iter().zip(&portable) {
                prop_assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0));
            }
        }
    }

    #[test]
    fn geometry_maps_corners_to_corners() {
        let spec = InputSpec {
            tensor: "images".into(),
            width: 320,
            height: 192,
            resize: Resize::Letterbox,
            anchor: Anchor::Center,
            channels: Channels::Rgb,
            pad: 114,
            scale: 1.0 / 255.0,
            mean: [0.0; 3],
            std: [1.0; 3],
            layout: Layout::Nchw,
            element: Element::Float32,
            planes: 3,
            batch: 1,
            inputs: Vec::new(),
        };
        let geometry = Preprocessor::new(&spec, 640, 360).geometry();
        assert_eq!(numbers(geometry), [0.5, 0.5, 0.0, 6.0]);
        let stretched = InputSpec { resize: Resize::Stretch, ..spec.clone() };
        let geometry = Preprocessor::new(&stretched, 640, 384).geometry();
        assert_eq!(numbers(geometry), [0.5, 0.5, 0.0, 0.0]);
        let corner = InputSpec { anchor: Anchor::TopLeft, ..spec };
        assert_eq!(Preprocessor::new(&corner, 176, 144).geometry().pad_x, 0.0);
    }
}
