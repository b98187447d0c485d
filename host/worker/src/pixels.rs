//! The pixels of a frame, as hooks may ask for them.
//!
//! Invariant: nothing here runs unless a hook asks, and a frame stays where it was decoded.

use framehook_core::input::InputSpec;
use framehook_engine::media::{FramePixels, Geometry, PixelFormat, PixelsUnavailable, Region, Size, Tensor};
use opencv::{
    core::{self, Mat, Rect},
    imgproc,
    prelude::*,
};

use crate::preprocess::Preprocessor;

/// A decoded picture, lent to hooks.
pub struct Picture<'a> {
    /// 8-bit BGR.
    pub mat: &'a Mat,
    pub spec: &'a InputSpec,
}

impl FramePixels for Picture<'_> {
    fn read(&self, region: Region, target: Size, format: PixelFormat) -> Result<Vec<u8>, PixelsUnavailable> {
        read(self.mat, region, target, format).map_err(unavailable)
    }

    fn to_tensor(&self, region: Region) -> Result<(Tensor, Geometry), PixelsUnavailable> {
        to_tensor(self.mat, self.spec, region).map_err(unavailable)
    }
}

fn unavailable(error: opencv::Error) -> PixelsUnavailable {
    PixelsUnavailable(format!("OpenCV could not convert the pixels: {error}"))
}

fn rect(region: Region) -> Rect {
    let [x, y, width, height] = [region.x, region.y, region.width, region.height].map(u32::cast_signed);
    Rect::new(x, y, width, height)
}

fn read(mat: &Mat, region: Region, target: Size, format: PixelFormat) -> opencv::Result<Vec<u8>> {
    let source = Mat::roi(mat, rect(region))?;
    let size = core::Size::new(target.width.cast_signed(), target.height.cast_signed());
    // Averaging keeps a strongly reduced picture free of aliasing; between pixels, linear is better.
    let shrinks = target.width <= region.width && target.height <= region.height;
    let method = if shrinks { imgproc::INTER_AREA } else { imgproc::INTER_LINEAR };
    let mut scaled = Mat::default();
    imgproc::resize(&source, &mut scaled, size, 0.0, 0.0, method)?;
    let code = match format {
        PixelFormat::Bgr => return Ok(scaled.data_bytes()?.to_vec()),
        PixelFormat::Rgb => imgproc::COLOR_BGR2RGB,
        PixelFormat::Gray => imgproc::COLOR_BGR2GRAY,
    };
    let mut converted = Mat::default();
    imgproc::cvt_color_def(&scaled, &mut converted, code)?;
    Ok(converted.data_bytes()?.to_vec())
}

fn to_tensor(mat: &Mat, spec: &InputSpec, region: Region) -> opencv::Result<(Tensor, Geometry)> {
    let part = Mat::roi(mat, rect(region))?.try_clone()?;
    let mut preprocessor = Preprocessor::new(spec, part.cols(), part.rows())?;
    let mut data = Vec::new();
    preprocessor.fill(&part, &mut data)?;
    let of_part = preprocessor.geometry();
    // `input = (frame - corner) * scale + pad`
    let geometry = Geometry {
        pad_x: of_part.pad_x - region.x as f32 * of_part.scale_x,
        pad_y: of_part.pad_y - region.y as f32 * of_part.scale_y,
        ..of_part
    };
    Ok((Tensor { shape: vec![1, 3, spec.height, spec.width], data }, geometry))
}

#[cfg(test)]
mod tests {
    use framehook_core::input::{InputOptions, TensorInfo};
    use opencv::core::{CV_8UC3, Scalar};

    use super::*;

    fn spec() -> InputSpec {
        let shape = vec![Some(1), Some(3), Some(192), Some(320)];
        let input = TensorInfo { name: "images".into(), element: "float32".into(), shape };
        InputOptions::default().resolve(&[input]).unwrap()
    }

    /// Blue on the left half, red on the right.
    fn two_colours() -> Mat {
        let mut mat = Mat::new_rows_cols_with_default(360, 640, CV_8UC3, Scalar::new(255.0, 0.0, 0.0, 0.0)).unwrap();
        let mut right = Mat::roi_mut(&mut mat, Rect::new(320, 0, 320, 360)).unwrap();
        right.set_to_def(&Scalar::new(0.0, 0.0, 255.0, 0.0)).unwrap();
        drop(right);
        mat
    }

    #[test]
    fn a_region_comes_in_the_format_asked_for() {
        let (mat, spec) = (two_colours(), spec());
        let picture = Picture { mat: &mat, spec: &spec };
        let right = Region { x: 400, y: 10, width: 100, height: 50 };
        let target = Size { width: 2, height: 1 };
        assert_eq!(picture.read(right, target, PixelFormat::Rgb).unwrap(), [255, 0, 0, 255, 0, 0]);
        assert_eq!(picture.read(right, target, PixelFormat::Bgr).unwrap(), [0, 0, 255, 0, 0, 255]);
        // ITU-R BT.601: red is 29.9 % of the brightness.
        assert_eq!(picture.read(right, target, PixelFormat::Gray).unwrap(), [76, 76]);
    }

    #[test]
    fn the_geometry_of_a_region_maps_the_whole_frame() {
        let (mat, spec) = (two_colours(), spec());
        let region = Region { x: 320, y: 0, width: 320, height: 192 };
        let (tensor, geometry) = Picture { mat: &mat, spec: &spec }.to_tensor(region).unwrap();
        assert_eq!(tensor.shape, [1, 3, 192, 320]);
        let Geometry { scale_x, scale_y, pad_x, pad_y } = geometry;
        assert_eq!([scale_x, scale_y, pad_x, pad_y], [1.0, 1.0, -320.0, 0.0]);
        // Red first, and all of it.
        assert!((tensor.data[0] - 1.0).abs() < 1e-6 && tensor.data[2 * 192 * 320] == 0.0);
    }
}
