//! A decoded picture: what decoders give and everything else looks at.
//!
//! An [`Image`] keeps the decoder's own pixel format, planes, colour matrix and range, and shares
//! the decoder's buffer: it is made into BGR only where somebody asks ([`BgrCache`]). A picture is
//! upright: a source has applied what its container says of orientation.
//!
//! Invariant: BGR is what `ffmpeg -pix_fmt bgr24` makes of the same picture, because the same code
//! of libswscale runs with the same settings.

use std::ptr;

use ffmpeg_next::{color::Range, ffi, format::Pixel, frame};

/// Why a picture could not be made or converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("there is no memory for a picture")]
    NoMemory,
    #[error("pictures in this pixel format cannot be converted")]
    Format,
}

/// A picture in its decoder's format. The default is none.
pub struct Image(pub(crate) frame::Video);

/// Pixels of 8-bit BGR.
#[derive(Clone, Copy)]
pub struct Bgr<'a> {
    pub data: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    pub width: u32,
    pub height: u32,
}

/// A plane of samples of 8 bits.
#[derive(Clone, Copy)]
pub struct Plane<'a> {
    pub data: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// Brightness, and two planes of colour with half the width and height, both rounded up.
pub struct Yuv420<'a> {
    pub planes: [Plane<'a>; 3],
    /// `(brightness - black) * gain` is 0 to 255.
    pub black: f32,
    pub gain: f32,
    /// What a colour less 128 adds to red, green and blue.
    pub red_v: f32,
    pub green_u: f32,
    pub green_v: f32,
    pub blue_u: f32,
}

/// Bytes of a BGR pixel.
pub const BGR_PIXEL: usize = 3;

impl Default for Image {
    fn default() -> Self {
        Self(frame::Video::empty())
    }
}

impl Image {
    #[must_use]
    pub fn width(&self) -> u32 {
        self.0.width()
    }

    #[must_use]
    pub fn height(&self) -> u32 {
        self.0.height()
    }

    /// Makes this a picture of this format and size that nobody else holds. What it shows is
    /// undefined.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn reset(&mut self, format: Pixel, width: u32, height: u32) -> Result<(), ImageError> {
        let fits = (self.0.format(), self.width(), self.height()) == (format, width, height);
        // SAFETY: the frame is valid.
        if fits && unsafe { ffi::av_frame_is_writable(self.0.as_mut_ptr()) } > 0 {
            return Ok(());
        }
        // SAFETY: the frame is valid; without a buffer it is one that a buffer can be made for.
        unsafe { ffi::av_frame_unref(self.0.as_mut_ptr()) };
        self.0.set_format(format);
        self.0.set_width(width);
        self.0.set_height(height);
        // SAFETY: format and size are set, and there is no buffer yet. 0: an alignment that suits
        // this processor.
        if unsafe { ffi::av_frame_get_buffer(self.0.as_mut_ptr(), 0) } < 0 { Err(ImageError::NoMemory) } else { Ok(()) }
    }

    /// Its pixels, if they are 8-bit BGR.
    #[must_use]
    pub fn as_bgr(&self) -> Option<Bgr<'_>> {
        (self.0.format() == Pixel::BGR24 && self.is_top_down()).then(|| Bgr {
            data: self.0.data(0),
            stride: self.0.stride(0),
            width: self.width(),
            height: self.height(),
        })
    }

    /// Makes this a picture of two others of one size, both 8-bit BGR.
    ///
    /// # Errors
    /// When they are not, or there is no memory for it.
    pub fn put_side_by_side(&mut self, left: &Self, right: &Self) -> Result<(), ImageError> {
        let (Some(left), Some(right)) = (left.as_bgr(), right.as_bgr()) else { return Err(ImageError::Format) };
        self.reset(Pixel::BGR24, left.width + right.width, left.height.min(right.height))?;
        let stride = self.0.stride(0);
        for (row, line) in self.0.data_mut(0).chunks_mut(stride).enumerate() {
            let mut at = 0;
            for Bgr { data, stride, width, height } in [left, right] {
                let bytes = width as usize * BGR_PIXEL;
                if row < height as usize {
                    line[at..at + bytes].copy_from_slice(&data[row * stride..row * stride + bytes]);
                }
                at += bytes;
            }
        }
        Ok(())
    }

    /// Its planes, if they are of this kind.
    #[must_use]
    pub fn as_yuv420(&self) -> Option<Yuv420<'_>> {
        let is_planar = matches!(self.0.format(), Pixel::YUV420P | Pixel::YUVJ420P) && self.is_top_down();
        is_planar.then(|| {
            let plane = |at| Plane { data: self.0.data(at), stride: self.0.stride(at) };
            let full = self.0.format() == Pixel::YUVJ420P || self.0.color_range() == Range::JPEG;
            let (black, gain, depth) = if full { (0.0, 1.0, 224.0 / 255.0) } else { (16.0, 255.0 / 219.0, 1.0) };
            let [red_v, blue_u, green_u, green_v] = coefficients(&self.0).map(|c| c as f32 / 65_536.0 * depth);
            let planes = [plane(0), plane(1), plane(2)];
            Yuv420 { planes, black, gain, red_v, green_u: -green_u, green_v: -green_v, blue_u }
        })
    }

    /// Some decoders give rows from the lowest up, by steps below zero.
    pub(crate) fn is_top_down(&self) -> bool {
        // SAFETY: the frame is valid.
        let steps = unsafe { (*self.0.as_ptr()).linesize };
        steps[0] > 0 && steps.iter().all(|step| *step >= 0)
    }
}

/// The matrix of a picture as libswscale has it, in 65,536ths and for a limited range: V of red, U
/// of blue, U and V of green.
fn coefficients(frame: &frame::Video) -> [i32; 4] {
    // SAFETY: the answer is one of its static tables of four numbers.
    unsafe { *ffi::sws_getCoefficients(matrix(frame)).cast::<[i32; 4]>() }
}

fn matrix(frame: &frame::Video) -> i32 {
    // SAFETY: the frame is valid.
    let space = unsafe { (*frame.as_ptr()).colorspace };
    // Pictures of RGB go by way of the same matrix there and back.
    if space == ffi::AVColorSpace::AVCOL_SPC_RGB { ffi::SWS_CS_DEFAULT } else { space as i32 }
}

/// Makes pictures into BGR with one context of libswscale, which is made anew only when format or
/// size change.
pub struct Converter(*mut ffi::SwsContext);

// SAFETY: a context belongs to no thread; it is used by one at a time, because each use borrows it
// mutably.
unsafe impl Send for Converter {}

impl Default for Converter {
    fn default() -> Self {
        Self(ptr::null_mut())
    }
}

impl Drop for Converter {
    fn drop(&mut self) {
        // SAFETY: it is null or a context that only this owns.
        unsafe { ffi::sws_freeContext(self.0) }
    }
}

impl Converter {
    /// Fills `to` with `from` as 8-bit BGR of the same size.
    ///
    /// # Errors
    /// When libswscale cannot convert the format, or has no memory.
    pub fn to_bgr(&mut self, from: &Image, to: &mut Image) -> Result<(), ImageError> {
        to.reset(Pixel::BGR24, from.width(), from.height())?;
        self.prepare(&from.0)?;
        // SAFETY: the context is for this format and size, and `to` has just been made for its
        // output.
        let rows = unsafe {
            let (source, target) = (&*from.0.as_ptr(), &*to.0.as_mut_ptr());
            ffi::sws_scale(
                self.0,
                source.data.as_ptr().cast(),
                source.linesize.as_ptr(),
                0,
                source.height,
                target.data.as_ptr(),
                target.linesize.as_ptr(),
            )
        };
        if rows < 0 { Err(ImageError::Format) } else { Ok(()) }
    }

    fn prepare(&mut self, from: &frame::Video) -> Result<(), ImageError> {
        let (width, height) = (from.width().cast_signed(), from.height().cast_signed());
        let (format, bgr) = (from.format().into(), Pixel::BGR24.into());
        // What `ffmpeg` uses: it decides between the kernels of libswscale.
        let flags = ffi::SWS_BICUBIC;
        // SAFETY: the context is null or ours, and is freed by this call if another is given back.
        // No filter or parameter is passed.
        self.0 = unsafe {
            ffi::sws_getCachedContext(
                self.0,
                width,
                height,
                format,
                width,
                height,
                bgr,
                flags,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null(),
            )
        };
        if self.0.is_null() {
            return Err(ImageError::Format);
        }
        self.set_colours(from);
        Ok(())
    }

    /// Matrix and range of the picture, where it says them.
    fn set_colours(&mut self, from: &frame::Video) {
        // SAFETY: the frame is valid.
        let range = unsafe { (*from.as_ptr()).color_range };
        let (mut inverse, mut table) = (ptr::null_mut(), ptr::null_mut());
        let (mut full_in, mut full_out) = (0, 0);
        let (mut brightness, mut contrast, mut saturation) = (0, 0, 0);
        // SAFETY: all pointers are to numbers here; the tables that come back are static or in the
        // context. A context for formats without a matrix says so by a negative answer, and is left
        // as it is.
        unsafe {
            let known = ffi::sws_getColorspaceDetails(
                self.0,
                &raw mut inverse,
                &raw mut full_in,
                &raw mut table,
                &raw mut full_out,
                &raw mut brightness,
                &raw mut contrast,
                &raw mut saturation,
            );
            if known < 0 {
                return;
            }
            if range != ffi::AVColorRange::AVCOL_RANGE_UNSPECIFIED {
                full_in = i32::from(range == ffi::AVColorRange::AVCOL_RANGE_JPEG);
            }
            let matrix = ffi::sws_getCoefficients(matrix(from));
            ffi::sws_setColorspaceDetails(self.0, matrix, full_in, table, full_out, brightness, contrast, saturation);
        }
    }
}

/// The BGR of one image at a time, made when it is first asked for.
#[derive(Default)]
pub struct BgrCache {
    converter: Converter,
    bgr: Image,
    is_made: bool,
}

impl BgrCache {
    /// What was made belongs to an image that is gone.
    pub fn clear(&mut self) {
        self.is_made = false;
    }

    /// The pixels of `image`, which must be the same one until [`BgrCache::clear`].
    ///
    /// # Errors
    /// When it cannot be converted.
    pub fn get<'a>(&'a mut self, image: &'a Image) -> Result<Bgr<'a>, ImageError> {
        self.image(image)?.as_bgr().ok_or(ImageError::Format)
    }

    /// The same as an image.
    pub(crate) fn image<'a>(&'a mut self, image: &'a Image) -> Result<&'a Image, ImageError> {
        if image.as_bgr().is_some() {
            return Ok(image);
        }
        if !self.is_made {
            self.converter.to_bgr(image, &mut self.bgr)?;
            self.is_made = true;
        }
        Ok(&self.bgr)
    }
}
