//! Pictures for native tests, and what the host makes of them: cut, scaled, converted, made into a model's
//! input.
//!
//! Invariant: what is not scaled is exact. The host scales with OpenCV, which rounds on its way; this does so
//! once, at the end.

use framehook_helpers::place::place;

use crate::{Anchor, Channels, Geometry, InputOptions, PixelFormat, Rect, Resize, Size};

/// Pixels of eight bits a channel, red first, rows without gaps.
#[derive(Clone, Debug)]
pub struct Picture {
    pub(crate) size: Size,
    pub(crate) rgb: Vec<u8>,
}

impl Picture {
    /// A picture of raw pixels.
    ///
    /// # Panics
    /// When they are not `width` x `height` x 3 bytes.
    #[must_use]
    pub fn rgb(width: u32, height: u32, rgb: Vec<u8>) -> Self {
        let wanted = width as usize * height as usize * 3;
        assert_eq!(rgb.len(), wanted, "a picture of {width} x {height} pixels has {wanted} bytes of RGB");
        Self { size: Size { width, height }, rgb }
    }

    /// A picture of one colour.
    #[must_use]
    pub fn plain(width: u32, height: u32, colour: [u8; 3]) -> Self {
        Self::rgb(width, height, colour.repeat(width as usize * height as usize))
    }

    /// A picture of the bytes of a PPM file (`P6`, 255), which `ffmpeg -i picture.jpg picture.ppm` makes of
    /// any.
    ///
    /// # Errors
    /// When they are not that.
    pub fn ppm(bytes: &[u8]) -> Result<Self, String> {
        let mut at = 0;
        let mut word = || {
            while bytes.get(at).is_some_and(|b| b.is_ascii_whitespace() || *b == b'#') {
                // A comment goes to the end of its line.
                let is_comment = bytes[at] == b'#';
                at += 1;
                while is_comment && bytes.get(at).is_some_and(|b| *b != b'\n') {
                    at += 1;
                }
            }
            let from = at;
            while bytes.get(at).is_some_and(|b| !b.is_ascii_whitespace()) {
                at += 1;
            }
            std::str::from_utf8(&bytes[from..at]).unwrap_or_default()
        };
        let (kind, width, height, most) = (word(), word().parse(), word().parse(), word());
        let (Ok(width), Ok(height), "P6", "255") = (width, height, kind, most) else {
            return Err("this is no PPM file of 8-bit colours: it must begin with P6, width, height and 255".into());
        };
        let rgb = bytes.get(at + 1..).unwrap_or_default().to_vec();
        let wanted = u64::from(width) * u64::from(height) * 3;
        if rgb.len() as u64 != wanted {
            return Err(format!(
                "a PPM file of {width} x {height} pixels has {wanted} bytes of them, not {}",
                rgb.len()
            ));
        }
        Ok(Self::rgb(width, height, rgb))
    }

    fn at(&self, x: u32, y: u32) -> [f64; 3] {
        let at = (y as usize * self.size.width as usize + x as usize) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]].map(f64::from)
    }
}

/// A region, scaled and converted.
pub(crate) fn read(picture: &Picture, region: Rect, target: Size, format: PixelFormat) -> Vec<u8> {
    // As the host: the mean where it shrinks, between four pixels else.
    let shrinks = target.width <= region.width && target.height <= region.height;
    let rgb = scaled(picture, region, target, shrinks);
    match format {
        PixelFormat::Rgb => rgb.concat(),
        PixelFormat::Bgr => rgb.into_iter().flat_map(|[r, g, b]| [b, g, r]).collect(),
        // Brightness after ITU-R BT.601, with weights in 16,384ths.
        PixelFormat::Gray => rgb
            .into_iter()
            .map(|pixel| {
                let [r, g, b] = pixel.map(u32::from);
                ((1_868 * b + 9_617 * g + 4_899 * r + 8_192) >> 14) as u8
            })
            .collect(),
    }
}

fn scaled(picture: &Picture, region: Rect, target: Size, by_area: bool) -> Vec<[u8; 3]> {
    let weights = |from: u32, length: u32, of: u32| {
        let side = |at| if by_area { area(length, of, at) } else { between(length, of, at) };
        (0..of).map(side).map(|parts| parts.into_iter().map(|(k, w)| (from + k, w)).collect()).collect::<Vec<Vec<_>>>()
    };
    let across = weights(region.x, region.width, target.width);
    let down = weights(region.y, region.height, target.height);
    let mut rgb = Vec::with_capacity(across.len() * down.len());
    for rows in &down {
        for columns in &across {
            let mut sum = [0.0; 3];
            for (y, height) in rows {
                for (x, width) in columns {
                    let pixel = picture.at(*x, *y);
                    (0..3).for_each(|channel| sum[channel] += pixel[channel] * width * height);
                }
            }
            rgb.push(sum.map(|value| value.round() as u8));
        }
    }
    rgb
}

/// Which of `length` pixels lie under pixel `at` of `of`, and which part of it each is.
fn area(length: u32, of: u32, at: u32) -> Vec<(u32, f64)> {
    let scale = f64::from(length) / f64::from(of);
    let (from, to) = (f64::from(at) * scale, f64::from(at + 1) * scale);
    let part = |k: u32| (f64::from(k + 1).min(to) - f64::from(k).max(from)) / scale;
    let all = (from as u32..length).take_while(|k| f64::from(*k) < to);
    all.map(|k| (k, part(k))).filter(|(_, part)| *part > 1e-9).collect()
}

/// The two pixels of `length` next to the middle of pixel `at` of `of`.
fn between(length: u32, of: u32, at: u32) -> Vec<(u32, f64)> {
    let middle = (f64::from(at) + 0.5) * f64::from(length) / f64::from(of) - 0.5;
    let middle = middle.clamp(0.0, f64::from(length - 1));
    let (first, share) = (middle as u32, middle.fract());
    vec![(first, 1.0 - share), ((first + 1).min(length - 1), share)]
}

/// How a frame becomes the model's input.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) size: Size,
    resize: Resize,
    anchor: Anchor,
    channels: Channels,
    pad: u8,
    scale: f32,
    mean: [f32; 3],
    std: [f32; 3],
}

impl Input {
    /// With the platform's defaults for what is left open.
    pub(crate) fn new(options: &InputOptions, frame: Size) -> Self {
        let three = |given: Option<(f32, f32, f32)>, other: f32| given.map_or([other; 3], |(a, b, c)| [a, b, c]);
        Self {
            size: options.size.unwrap_or(frame),
            resize: options.resize.unwrap_or(Resize::Letterbox),
            anchor: options.anchor.unwrap_or(Anchor::Center),
            channels: options.channels.unwrap_or(Channels::Rgb),
            pad: options.pad.unwrap_or(114),
            scale: options.scale.unwrap_or(1.0 / 255.0),
            mean: three(options.mean, 0.0),
            std: three(options.std, 1.0),
        }
    }

    /// The part of the input that a picture of `width` x `height` pixels fills.
    fn place(&self, width: u32, height: u32) -> Rect {
        let is_centered = self.anchor == Anchor::Center;
        let input = [self.size.width, self.size.height];
        let [x, y, width, height] = place([width, height], input, self.resize == Resize::Stretch, is_centered);
        Rect { x, y, width, height }
    }

    /// From the whole frame to the input that `region` of it fills.
    pub(crate) fn geometry(&self, region: Rect) -> Geometry {
        let place = self.place(region.width, region.height);
        let (scale_x, scale_y) = (place.width as f32 / region.width as f32, place.height as f32 / region.height as f32);
        Geometry {
            scale_x,
            scale_y,
            pad_x: place.x as f32 - region.x as f32 * scale_x,
            pad_y: place.y as f32 - region.y as f32 * scale_y,
        }
    }

    /// The input that `region` fills, `[3, height, width]`.
    pub(crate) fn fill(&self, picture: &Picture, region: Rect) -> (Vec<f32>, Geometry) {
        let place = self.place(region.width, region.height);
        let inside = scaled(picture, region, Size { width: place.width, height: place.height }, false);
        let Size { width, height } = self.size;
        let mut data = Vec::with_capacity(3 * width as usize * height as usize);
        for plane in 0..3 {
            let channel = if self.channels == Channels::Rgb { plane } else { 2 - plane };
            let (factor, offset) = (self.scale / self.std[plane], -self.mean[plane] / self.std[plane]);
            for y in 0..height {
                for x in 0..width {
                    let at = |start: u32, length: u32, here: u32| here.checked_sub(start).filter(|k| *k < length);
                    let pixel = at(place.x, place.width, x).zip(at(place.y, place.height, y));
                    let value = pixel.map_or(self.pad, |(x, y)| inside[(y * place.width + x) as usize][channel]);
                    data.push(f32::from(value) * factor + offset);
                }
            }
        }
        (data, self.geometry(region))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two by two: red, green, blue, white.
    fn four() -> Picture {
        Picture::ppm(b"P6\n# made by hand\n2 2\n255\n\xff\0\0\0\xff\0\0\0\xff\xff\xff\xff").unwrap()
    }

    #[test]
    fn regions_are_cut_scaled_and_converted() {
        let rect = |x, y, width, height| Rect { x, y, width, height };
        let size = |width, height| Size { width, height };
        let picture = four();
        assert_eq!(read(&picture, rect(1, 0, 1, 2), size(1, 2), PixelFormat::Rgb), [0, 255, 0, 255, 255, 255]);
        assert_eq!(read(&picture, rect(0, 0, 1, 1), size(1, 1), PixelFormat::Bgr), [0, 0, 255]);
        assert_eq!(read(&picture, rect(0, 0, 2, 1), size(2, 1), PixelFormat::Gray), [76, 150]);
        assert_eq!(read(&picture, rect(0, 0, 2, 2), size(1, 1), PixelFormat::Rgb), [128, 128, 128]);
        // OpenCV's own values for a row of 0 and 255 made twice as long.
        let row = Picture::rgb(2, 1, vec![0, 0, 0, 255, 255, 255]);
        let longer = read(&row, rect(0, 0, 2, 1), size(4, 1), PixelFormat::Gray);
        assert_eq!(longer, [0, 64, 191, 255]);
    }

    #[test]
    fn an_input_is_padded_normalised_and_in_its_order() {
        let options = InputOptions {
            size: Some(Size { width: 4, height: 2 }),
            channels: Some(Channels::Bgr),
            pad: Some(255),
            mean: Some((1.0, 0.0, 0.0)),
            std: Some((2.0, 1.0, 1.0)),
            ..crate::default_input()
        };
        let input = Input::new(&options, Size { width: 2, height: 2 });
        let (data, geometry) = input.fill(&four(), Rect { x: 0, y: 0, width: 2, height: 2 });
        // Blue first: padding, the picture's first row, padding.
        assert_eq!(data[..4], [0.0, -0.5, -0.5, 0.0]);
        assert_eq!(data[8..12], [1.0, 0.0, 1.0, 1.0]);
        let Geometry { scale_x, scale_y, pad_x, pad_y } = geometry;
        assert_eq!([scale_x, scale_y, pad_x, pad_y], [1.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn what_is_no_ppm_is_refused() {
        for bad in [&b""[..], b"P5 1 1 255 \0", b"P6 1 1 65535 \0\0\0", b"P6 1 1 255 \0\0", b"P6 x 1 255 \0\0\0"] {
            assert!(Picture::ppm(bad).is_err());
        }
    }
}
