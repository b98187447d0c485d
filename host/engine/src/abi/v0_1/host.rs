//! What the host does for a guest: the imported interfaces.
//!
//! An `Err(access-error)` is an answer; an outer error ends the guest. Nothing here trusts a number
//! that the guest gave.

use std::borrow::Cow;

use framehook_core::{job::LogLevel, prediction::Position};
use wasmtime::component::{HasData, Resource};

use super::{
    FrameHandle, InferenceHandle,
    bindings::framehook::plugin::{clock, log, media, state, types},
};
use crate::{
    media::{self as own, FramePixels, Inference, PixelFormat, PixelsUnavailable, Size, Tensor, Values},
    sandbox::{Ctx, View},
    scan,
    state::NotKept,
};

/// Says that the host functions live on [`Ctx`] itself.
pub(super) struct Host;

impl HasData for Host {
    type Data<'a> = &'a mut Ctx;
}

/// Copied to a guest in one call: a float image of 1,600 x 1,600 pixels.
const MAX_TRANSFER: usize = 32 << 20;
/// Pixels of a side that pixels are scaled to: no picture that is decoded has a longer one, and scaling keeps
/// tables of each column.
const MAX_SIDE: u32 = 8_192;
/// Rows of scores that are looked through at once; a detector at 1,280 x 1,280 pixels has 33,600. The host
/// keeps 12 bytes of each.
const MAX_ROWS: u32 = 1 << 20;

type Access<T> = Result<T, media::AccessError>;

impl Ctx {
    fn frame(&self) -> wasmtime::Result<own::Frame<'_>> {
        match self.view() {
            Some(View::Frame(frame)) => Ok(frame),
            _ => Err(wasmtime::format_err!("there is no frame in this call")),
        }
    }

    fn inference(&self) -> wasmtime::Result<(Inference<'_>, &[String])> {
        match self.view() {
            Some(View::Inference(inference, labels)) => Ok((inference, labels)),
            _ => Err(wasmtime::format_err!("there is no inference in this call")),
        }
    }

    fn output(&self, index: u32) -> wasmtime::Result<Access<Values<'_>>> {
        let outputs = self.inference()?.0.outputs;
        Ok(outputs.get(index as usize).map(|o| o.data).ok_or(media::AccessError::OutOfBounds))
    }

    fn keep_tensor(&mut self, tensor: Tensor) -> wasmtime::Result<Access<Resource<Tensor>>> {
        let bytes = size_of_val(tensor.data.as_slice());
        if !self.has_room(bytes) {
            return Ok(Err(media::AccessError::TooLarge));
        }
        self.tensor_bytes += bytes;
        Ok(Ok(self.table.push(tensor)?))
    }

    fn unavailable(&self, error: &PixelsUnavailable) -> media::AccessError {
        self.logger.line(LogLevel::Warn, "framehook", &format!("pixels could not be given: {error}"));
        media::AccessError::Unavailable
    }
}

fn read_pixels(
    ctx: &Ctx,
    pixels: &dyn FramePixels,
    frame: Size,
    region: types::Rect,
    target: Size,
    format: PixelFormat,
) -> Access<Vec<u8>> {
    check_region(frame, region)?;
    check_target(target, format)?;
    pixels.read(region, target, format).map_err(|e| ctx.unavailable(&e))
}

/// Before anything is allocated: tables and pictures on the way have no part in the plugin's memory.
fn check_target(target: Size, format: PixelFormat) -> Access<()> {
    let area = u64::from(target.width) * u64::from(target.height);
    if area == 0 {
        return Err(media::AccessError::OutOfBounds);
    }
    if target.width.max(target.height) > MAX_SIDE || area * format.channels() as u64 > MAX_TRANSFER as u64 {
        return Err(media::AccessError::TooLarge);
    }
    Ok(())
}

fn check_region(frame: Size, r: types::Rect) -> Access<()> {
    let fits = |at: u32, len: u32, max: u32| len > 0 && at.checked_add(len).is_some_and(|end| end <= max);
    let inside = fits(r.x, r.width, frame.width) && fits(r.y, r.height, frame.height);
    inside.then_some(()).ok_or(media::AccessError::OutOfBounds)
}

fn meta(Position { pts_us, frame }: Position, size: Size) -> types::FrameMeta {
    types::FrameMeta { sequence: frame, pts_us, size }
}

impl types::Host for Ctx {}
impl media::Host for Ctx {}

impl media::HostTensor for Ctx {
    fn from_f32(&mut self, shape: Vec<u32>, data: Vec<f32>) -> wasmtime::Result<Access<Resource<Tensor>>> {
        let elements = shape.iter().try_fold(1u64, |n, side| n.checked_mul(u64::from(*side)));
        if elements != Some(data.len() as u64) {
            return Ok(Err(media::AccessError::OutOfBounds));
        }
        self.keep_tensor(Tensor { shape, data })
    }

    fn shape(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u32>> {
        Ok(self.table.get(&tensor)?.shape.clone())
    }

    fn drop(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<()> {
        let tensor = self.table.delete(tensor)?;
        self.tensor_bytes -= size_of_val(tensor.data.as_slice());
        Ok(())
    }
}

impl media::HostFrame for Ctx {
    fn meta(&mut self, _: Resource<FrameHandle>) -> wasmtime::Result<types::FrameMeta> {
        let own::Frame { position, size, .. } = self.frame()?;
        Ok(meta(position, size))
    }

    fn input_size(&mut self, _: Resource<FrameHandle>) -> wasmtime::Result<Size> {
        Ok(self.frame()?.input_size)
    }

    fn read(
        &mut self,
        _: Resource<FrameHandle>,
        region: types::Rect,
        target: Size,
        format: PixelFormat,
    ) -> wasmtime::Result<Access<Vec<u8>>> {
        let frame = self.frame()?;
        Ok(read_pixels(self, frame.pixels, frame.size, region, target, format))
    }

    fn to_tensor(
        &mut self,
        _: Resource<FrameHandle>,
        region: types::Rect,
    ) -> wasmtime::Result<Access<(Resource<Tensor>, media::Geometry)>> {
        let frame = self.frame()?;
        let Size { width, height } = frame.input_size;
        let pixel = frame.input_planes as usize * size_of::<f32>();
        let bytes = (width as usize).saturating_mul(height as usize).saturating_mul(pixel);
        if !self.has_room(bytes) {
            return Ok(Err(media::AccessError::TooLarge));
        }
        let made = check_region(frame.size, region)
            .and_then(|()| frame.pixels.to_tensor(region).map_err(|e| self.unavailable(&e)));
        match made {
            Ok((tensor, geometry)) => Ok(self.keep_tensor(tensor)?.map(|tensor| (tensor, geometry))),
            Err(error) => Ok(Err(error)),
        }
    }

    fn drop(&mut self, _: Resource<FrameHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl media::HostInference for Ctx {
    fn meta(&mut self, _: Resource<InferenceHandle>) -> wasmtime::Result<types::FrameMeta> {
        let (Inference { position, size, .. }, _) = self.inference()?;
        Ok(meta(position, size))
    }

    fn geometry(&mut self, _: Resource<InferenceHandle>) -> wasmtime::Result<media::Geometry> {
        Ok(self.inference()?.0.geometry)
    }

    fn input_size(&mut self, _: Resource<InferenceHandle>) -> wasmtime::Result<Size> {
        Ok(self.inference()?.0.input_size)
    }

    fn outputs(&mut self, _: Resource<InferenceHandle>) -> wasmtime::Result<Vec<media::TensorDesc>> {
        Ok(self.inference()?.0.outputs.iter().map(|output| output.desc.clone()).collect())
    }

    fn labels(&mut self, _: Resource<InferenceHandle>) -> wasmtime::Result<Vec<String>> {
        Ok(self.inference()?.1.to_vec())
    }

    fn read_f32(
        &mut self,
        _: Resource<InferenceHandle>,
        output: u32,
        offset: u32,
        count: u32,
    ) -> wasmtime::Result<Access<Vec<f32>>> {
        if count as usize > MAX_TRANSFER / size_of::<f32>() {
            return Ok(Err(media::AccessError::TooLarge));
        }
        let range = offset as usize..offset as usize + count as usize;
        let read = |data: Values<'_>| data.read(range).map(Cow::into_owned).ok_or(media::AccessError::OutOfBounds);
        Ok(self.output(output)?.and_then(read))
    }

    fn gather_f32(
        &mut self,
        _: Resource<InferenceHandle>,
        output: u32,
        elements: Vec<u32>,
    ) -> wasmtime::Result<Access<Vec<f32>>> {
        Ok(self.output(output)?.and_then(|data| {
            let one = |at: usize| data.read(at..at + 1)?.first().copied();
            elements.iter().map(|at| one(*at as usize).ok_or(media::AccessError::OutOfBounds)).collect()
        }))
    }

    fn argmax_rows(
        &mut self,
        _: Resource<InferenceHandle>,
        output: u32,
        scores: media::ClassScores,
        threshold: f32,
        limit: u32,
    ) -> wasmtime::Result<Access<Vec<media::Candidate>>> {
        if scores.rows > MAX_ROWS || limit as usize > MAX_TRANSFER / size_of::<media::Candidate>() {
            return Ok(Err(media::AccessError::TooLarge));
        }
        let layout = scan::Layout {
            rows: scores.rows as usize,
            classes: scores.classes as usize,
            offset: scores.offset as usize,
            row_stride: scores.row_stride as usize,
            class_stride: scores.class_stride as usize,
        };
        let convert = |c: scan::Candidate| media::Candidate { row: c.row, class_id: c.class_id, score: c.score };
        Ok(self.output(output)?.and_then(|data| {
            let data = data.read(0..data.len()).unwrap_or_default();
            let found = scan::argmax_rows(&data, &layout, threshold, limit as usize);
            Ok(found.ok_or(media::AccessError::OutOfBounds)?.into_iter().map(convert).collect())
        }))
    }

    fn read_pixels(
        &mut self,
        _: Resource<InferenceHandle>,
        region: types::Rect,
        target: Size,
        format: PixelFormat,
    ) -> wasmtime::Result<Access<Vec<u8>>> {
        let (inference, _) = self.inference()?;
        let Some(pixels) = inference.pixels else { return Ok(Err(media::AccessError::Unavailable)) };
        Ok(read_pixels(self, pixels, inference.size, region, target, format))
    }

    fn drop(&mut self, _: Resource<InferenceHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl log::Host for Ctx {
    fn log(&mut self, level: log::Level, target: String, message: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        self.logger.line(level, &target, &message);
        Ok(())
    }
}

impl state::Host for Ctx {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.state.lock().get(&key))
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), state::StateError>> {
        Ok(self.state.lock().set(key, value).map_err(|why| match why {
            NotKept::TooLarge => state::StateError::TooLarge,
            NotKept::QuotaExceeded => state::StateError::QuotaExceeded,
        }))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<()> {
        self.state.lock().delete(&key);
        Ok(())
    }
}

impl clock::Host for Ctx {
    fn now_us(&mut self) -> wasmtime::Result<u64> {
        Ok(self.now_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pixels_are_scaled_to_has_sides_and_a_size() {
        let check = |width, height, format| check_target(Size { width, height }, format).map_err(|e| e.to_string());
        for (width, height, format) in
            [(1, 1, PixelFormat::Rgb), (8192, 1365, PixelFormat::Bgr), (4096, 8192, PixelFormat::Gray)]
        {
            assert_eq!(check(width, height, format), Ok(()), "{width}x{height}");
        }
        let too_large = Err(media::AccessError::TooLarge.to_string());
        for (width, height) in [(33_000_000, 1), (1, 33_000_000), (8193, 1), (u32::MAX, u32::MAX), (8192, 4097)] {
            assert_eq!(check(width, height, PixelFormat::Gray), too_large, "{width}x{height}");
        }
        assert_eq!(check(8192, 1366, PixelFormat::Bgr), too_large);
        assert_eq!(check(0, u32::MAX, PixelFormat::Gray), Err(media::AccessError::OutOfBounds.to_string()));
    }
}
