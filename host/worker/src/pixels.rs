//! The pixels of a frame, as hooks may ask for them.
//!
//! Invariant: nothing here runs unless a hook asks, and a frame stays where it was decoded.

use std::cell::RefCell;

use framehook_core::input::InputSpec;
use framehook_engine::media::{FramePixels, Geometry, PixelFormat, PixelsUnavailable, Region, Size, Tensor};

use crate::{
    image::{BGR_PIXEL, Bgr, BgrCache, Image, ImageError},
    preprocess::Preprocessor,
    resize::{Method, Target, resize},
};

/// A decoded picture, lent to hooks.
pub struct Picture<'a> {
    pub image: &'a Image,
    pub spec: &'a InputSpec,
    /// Holds the pixels of this image alone.
    pub bgr: RefCell<&'a mut BgrCache>,
}

impl FramePixels for Picture<'_> {
    fn read(&self, region: Region, target: Size, format: PixelFormat) -> Result<Vec<u8>, PixelsUnavailable> {
        let mut cache = self.bgr.borrow_mut();
        let bgr = cache.get(self.image).map_err(unavailable)?;
        read(bgr, region, target, format).map_err(unavailable)
    }

    fn to_tensor(&self, region: Region) -> Result<(Tensor, Geometry), PixelsUnavailable> {
        let mut cache = self.bgr.borrow_mut();
        to_tensor(self.image, &mut cache, self.spec, region).map_err(unavailable)
    }
}

fn unavailable(error: ImageError) -> PixelsUnavailable {
    PixelsUnavailable(format!("the pixels could not be converted: {error}"))
}

fn read(from: Bgr<'_>, region: Region, size: Size, format: PixelFormat) -> Result<Vec<u8>, ImageError> {
    let stride = size.width as usize * BGR_PIXEL;
    let mut pixels = vec![0; stride * size.height as usize];
    // Averaging keeps a strongly reduced picture free of aliasing; between pixels, linear is
    // better.
    let shrinks = size.width <= region.width && size.height <= region.height;
    let method = if shrinks { Method::Area } else { Method::Linear };
    resize(from, region, Target { data: &mut pixels, stride, size }, method)?;
    Ok(match format {
        PixelFormat::Bgr => pixels,
        PixelFormat::Rgb => {
            pixels.chunks_exact_mut(BGR_PIXEL).for_each(<[u8]>::reverse);
            pixels
        }
        PixelFormat::Gray => pixels.chunks_exact(BGR_PIXEL).map(gray).collect(),
    })
}

/// Brightness after ITU-R BT.601, with weights in 16,384ths.
fn gray(pixel: &[u8]) -> u8 {
    let [blue, green, red] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((1_868 * blue + 9_617 * green + 4_899 * red + 8_192) >> 14) as u8
}

fn to_tensor(
    image: &Image,
    bgr: &mut BgrCache,
    spec: &InputSpec,
    region: Region,
) -> Result<(Tensor, Geometry), ImageError> {
    let mut preprocessor = Preprocessor::new(spec, region.width, region.height);
    let mut data = Vec::new();
    // The whole is what the model gets where no hook makes its input.
    if (region.width, region.height) == (image.width(), image.height()) {
        preprocessor.fill_whole(image, bgr, &mut data)?;
    } else {
        preprocessor.fill(bgr.get(image)?, region, &mut data)?;
    }
    let geometry = preprocessor.geometry().of_part(region);
    Ok((Tensor { shape: vec![1, spec.planes, spec.height, spec.width], data }, geometry))
}

#[cfg(test)]
mod tests {
    use ffmpeg_next::format::Pixel;
    use framehook_core::input::{InputOptions, TensorInfo};

    use super::*;

    fn spec() -> InputSpec {
        let shape = vec![Some(1), Some(3), Some(192), Some(320)];
        let input = TensorInfo { name: "images".into(), element: "float32".into(), shape };
        InputOptions::default().resolve(&[input]).unwrap()
    }

    /// Blue on the left half, red on the right.
    fn two_colours() -> Image {
        let mut image = Image::default();
        image.reset(Pixel::BGR24, 640, 360).unwrap();
        let stride = image.0.stride(0);
        for row in image.0.data_mut(0).chunks_mut(stride) {
            for (x, pixel) in row[..640 * BGR_PIXEL].chunks_exact_mut(BGR_PIXEL).enumerate() {
                pixel.copy_from_slice(if x < 320 { &[255, 0, 0] } else { &[0, 0, 255] });
            }
        }
        image
    }

    #[test]
    fn a_region_comes_in_the_format_asked_for() {
        let (image, spec, mut cache) = (two_colours(), spec(), BgrCache::default());
        let picture = Picture { image: &image, spec: &spec, bgr: RefCell::new(&mut cache) };
        let right = Region { x: 400, y: 10, width: 100, height: 50 };
        let target = Size { width: 2, height: 1 };
        assert_eq!(picture.read(right, target, PixelFormat::Rgb).unwrap(), [255, 0, 0, 255, 0, 0]);
        assert_eq!(picture.read(right, target, PixelFormat::Bgr).unwrap(), [0, 0, 255, 0, 0, 255]);
        // ITU-R BT.601: red is 29.9 % of the brightness.
        assert_eq!(picture.read(right, target, PixelFormat::Gray).unwrap(), [76, 76]);
    }

    #[test]
    fn the_geometry_of_a_region_maps_the_whole_frame() {
        let (image, spec, mut cache) = (two_colours(), spec(), BgrCache::default());
        let region = Region { x: 320, y: 0, width: 320, height: 192 };
        let picture = Picture { image: &image, spec: &spec, bgr: RefCell::new(&mut cache) };
        let (tensor, geometry) = picture.to_tensor(region).unwrap();
        assert_eq!(tensor.shape, [1, 3, 192, 320]);
        let Geometry { scale_x, scale_y, pad_x, pad_y } = geometry;
        assert_eq!([scale_x, scale_y, pad_x, pad_y], [1.0, 1.0, -320.0, 0.0]);
        // Red first, and all of it.
        assert!((tensor.data[0] - 1.0).abs() < 1e-6 && tensor.data[2 * 192 * 320] == 0.0);
    }
}
