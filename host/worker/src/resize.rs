//! Resizes BGR pixels, by OpenCV: its vectorised code is faster than libswscale's for small
//! pictures, and what most models were trained with.

use framehook_engine::media::{Region, Size};
use opencv::{
    boxed_ref::BoxedRefMut,
    core::{self, CV_8UC3, Mat, Rect},
    imgproc,
};

use crate::image::{BGR_PIXEL, Bgr, Image, ImageError};

/// How pixels between or under those of the target are found.
#[derive(Clone, Copy)]
pub enum Method {
    /// Between the four nearest.
    Linear,
    /// The mean of all that a pixel covers, which keeps a strongly reduced picture free of
    /// aliasing.
    Area,
}

/// Pixels to be written, in rows of `stride` bytes.
pub struct Target<'a> {
    pub data: &'a mut [u8],
    pub stride: usize,
    pub size: Size,
}

/// Fills `to` with `region` of `from`, which lies inside it.
///
/// # Errors
/// When OpenCV has no memory.
pub fn resize(from: Bgr<'_>, region: Region, to: Target<'_>, method: Method) -> Result<(), ImageError> {
    // Sizes fit, so nothing else can be wrong.
    by_opencv(from, region, to, method).map_err(|_| ImageError::NoMemory)
}

fn by_opencv(from: Bgr<'_>, region: Region, to: Target<'_>, method: Method) -> opencv::Result<()> {
    let [x, y, width, height] = [region.x, region.y, region.width, region.height].map(u32::cast_signed);
    let source = readable(from)?;
    let source = Mat::roi(&source, Rect::new(x, y, width, height))?;
    let size = core::Size::new(to.size.width.cast_signed(), to.size.height.cast_signed());
    assert!(to.data.len() + to.stride >= to.stride * to.size.height as usize + to.size.width as usize * BGR_PIXEL);
    // SAFETY: `data` is borrowed until after the last use of `target`, and has as many rows of this
    // length.
    let mut target = unsafe {
        Mat::new_rows_cols_with_data_unsafe(size.height, size.width, CV_8UC3, to.data.as_mut_ptr().cast(), to.stride)?
    };
    let method = match method {
        Method::Linear => imgproc::INTER_LINEAR,
        Method::Area => imgproc::INTER_AREA,
    };
    imgproc::resize(&source, &mut target, size, 0.0, 0.0, method)
}

/// The same pixels as a matrix of OpenCV, which must not outlive them.
fn readable(from: Bgr<'_>) -> opencv::Result<Mat> {
    let (width, height) = (from.width as usize, from.height as usize);
    assert!(from.data.len() + from.stride >= from.stride * height + width * BGR_PIXEL);
    // SAFETY: `data` has as many rows of this length, and a matrix that is only read does not write
    // into them.
    unsafe {
        Mat::new_rows_cols_with_data_unsafe(
            from.height.cast_signed(),
            from.width.cast_signed(),
            CV_8UC3,
            from.data.as_ptr().cast_mut().cast(),
            from.stride,
        )
    }
}

/// Pixels that OpenCV draws on.
pub(crate) type Canvas<'a> = BoxedRefMut<'a, Mat>;

/// A picture of 8-bit BGR, to draw on.
pub(crate) fn drawable(picture: &mut Image) -> opencv::Result<Canvas<'_>> {
    let size = [picture.height(), picture.width()].map(u32::cast_signed);
    let (stride, data) = (picture.0.stride(0), picture.0.data_mut(0));
    // SAFETY: the borrow of `picture` lasts as long as the matrix, and its plane has as many rows of this
    // length.
    let matrix =
        unsafe { Mat::new_rows_cols_with_data_unsafe(size[0], size[1], CV_8UC3, data.as_mut_ptr().cast(), stride)? };
    Ok(BoxedRefMut::from(matrix))
}
