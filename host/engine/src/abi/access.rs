//! What the host does for a guest, in the engine's own types: each version's interfaces call this.
//!
//! An `Err(Refused)` is an answer; an outer error ends the guest. Nothing here trusts a number that the guest
//! gave.

use std::{borrow::Cow, ops::Range};

use framehook_core::{
    job::LogLevel,
    prediction::{Mask, Position},
};
use wasmtime::component::{HasData, Resource};

use super::THE_ONE;
use crate::{
    masks::{self, MaskedBox, NoMasks, Prototypes},
    media::{
        Element, Elements, Frame, FramePixels, Geometry, Inference, Output, PixelFormat, PixelsUnavailable, Region,
        Size, Tensor, Values,
    },
    models::Held,
    sandbox::{Ctx, Highest, View},
    scan,
};

/// Says that the host functions live on [`Ctx`] itself.
pub(super) struct Host;

impl HasData for Host {
    type Data<'a> = &'a mut Ctx;
}

/// Copied to a guest in one call: a float image of 1,600 x 1,600 pixels.
pub(super) const MAX_TRANSFER: usize = 32 << 20;
/// Pixels of a side that pixels are scaled to: no picture that is decoded has a longer one, and scaling keeps
/// tables of each column.
const MAX_SIDE: u32 = 8_192;
/// Rows of scores that are looked through at once; a detector at 1,280 x 1,280 pixels has 33,600. The host
/// keeps 12 bytes of each.
const MAX_ROWS: usize = 1 << 20;

/// Times that the highest score is looked for where none reaches the guest's threshold: it costs as much
/// again as the search for candidates, and what a hint says of it are the first 100 frames.
const MAX_SEARCHES: u32 = 100;

/// Why something is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// An index, region or range outside of what is there.
    OutOfBounds,
    /// More than the host copies in one call.
    TooLarge,
    /// There are no such pixels, or the host could not convert them.
    Unavailable,
    /// The output has elements of another type.
    WrongType,
}

/// A frame with pixels.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) position: Position,
    pub(super) size: Size,
    pub(super) pixels: &'a dyn FramePixels,
}

pub(super) type Access<T> = Result<T, Refused>;

impl Ctx {
    pub(super) fn frame(&self) -> wasmtime::Result<Frame<'_>> {
        match self.view() {
            Some(View::Frame(frame)) => Ok(frame),
            _ => Err(wasmtime::format_err!("there is no frame in this call")),
        }
    }

    /// That of the call, or one that the guest holds.
    pub(super) fn inference(&self, handle: &Resource<Held>) -> wasmtime::Result<Inference<'_>> {
        match self.view() {
            Some(View::Inference(inference, _)) if handle.rep() == THE_ONE => Ok(inference),
            _ if handle.rep() == THE_ONE => Err(wasmtime::format_err!("there is no inference in this call")),
            _ => {
                let Held { position, size, run } = self.table.get(handle)?;
                // Those of an earlier frame are gone.
                let pixels = self.shown().filter(|shown| shown.position == *position).map(|shown| shown.pixels);
                Ok(Inference {
                    position: *position,
                    size: *size,
                    input_size: run.input_size,
                    geometry: run.geometry,
                    outputs: &run.outputs,
                    pixels,
                })
            }
        }
    }

    /// The names of classes that earlier hooks gave.
    pub(super) fn earlier_labels(&self) -> &[String] {
        match self.view() {
            Some(View::Inference(_, labels)) => labels,
            _ => &[],
        }
    }

    /// The frame that the call is for, if it has pixels.
    pub(super) fn shown(&self) -> Option<Shown<'_>> {
        match self.view()? {
            View::Frame(Frame { position, size, pixels, .. }) => Some(Shown { position, size, pixels }),
            View::Inference(Inference { position, size, pixels, .. }, _) => {
                Some(Shown { position, size, pixels: pixels? })
            }
        }
    }

    fn output(&self, inference: &Resource<Held>, index: u32) -> wasmtime::Result<Access<&Output>> {
        let outputs = self.inference(inference)?.outputs;
        Ok(outputs.get(index as usize).ok_or(Refused::OutOfBounds))
    }

    fn numbers(&self, inference: &Resource<Held>, index: u32) -> wasmtime::Result<Access<Values<'_>>> {
        Ok(self.output(inference, index)?.and_then(|output| match output.data.values() {
            Values::Text(_) => Err(Refused::WrongType),
            data => Ok(data),
        }))
    }

    pub(super) fn keep_tensor(&mut self, tensor: Tensor) -> wasmtime::Result<Access<Resource<Tensor>>> {
        let bytes = size_of_val(tensor.data.as_slice());
        if !self.has_room(bytes) {
            return Ok(Err(Refused::TooLarge));
        }
        self.tensor_bytes += bytes;
        Ok(Ok(self.table.push(tensor)?))
    }

    pub(super) fn make_tensor(
        &mut self,
        shape: Vec<u32>,
        data: Vec<f32>,
    ) -> wasmtime::Result<Access<Resource<Tensor>>> {
        let elements = shape.iter().try_fold(1u64, |n, side| n.checked_mul(u64::from(*side)));
        if elements != Some(data.len() as u64) {
            return Ok(Err(Refused::OutOfBounds));
        }
        self.keep_tensor(Tensor { shape, data })
    }

    pub(super) fn drop_tensor(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<()> {
        let tensor = self.table.delete(tensor)?;
        self.tensor_bytes -= size_of_val(tensor.data.as_slice());
        Ok(())
    }

    fn unavailable(&self, error: &PixelsUnavailable) -> Refused {
        self.logger.tell(LogLevel::Warn, &format!("pixels could not be given: {error}"));
        Refused::Unavailable
    }

    pub(super) fn frame_pixels(
        &self,
        region: Region,
        target: Size,
        format: PixelFormat,
    ) -> wasmtime::Result<Access<Vec<u8>>> {
        let frame = self.frame()?;
        Ok(self.pixels(frame.pixels, frame.size, region, target, format))
    }

    pub(super) fn inference_pixels(
        &self,
        handle: &Resource<Held>,
        region: Region,
        target: Size,
        format: PixelFormat,
    ) -> wasmtime::Result<Access<Vec<u8>>> {
        let inference = self.inference(handle)?;
        let Some(pixels) = inference.pixels else { return Ok(Err(Refused::Unavailable)) };
        Ok(self.pixels(pixels, inference.size, region, target, format))
    }

    fn pixels(
        &self,
        pixels: &dyn FramePixels,
        frame: Size,
        region: Region,
        target: Size,
        format: PixelFormat,
    ) -> Access<Vec<u8>> {
        check_region(frame, region)?;
        check_target(target, format)?;
        self.copies(pixels.read(region, target, format).map_err(|e| self.unavailable(&e)))
    }

    /// Counts what is on its way into the guest.
    fn copies<T>(&self, given: Access<Vec<T>>) -> Access<Vec<T>> {
        given.inspect(|items| self.copies_bytes(size_of_val(items.as_slice())))
    }

    fn copies_bytes(&self, more: usize) {
        self.copied_bytes.update(|bytes| bytes + more as u64);
    }

    /// Notes the highest value that the guest had looked for, if it can be a score: it may look for others as
    /// well.
    fn saw(&self, value: Option<f32>) {
        self.highest.update(|highest| {
            let seen = highest.value.into_iter().chain(value).filter(|value| (0.0..=1.0).contains(value));
            Highest { value: seen.reduce(f32::max), ..highest }
        });
    }

    /// Whether it is worth while to look for the highest score below a threshold.
    fn searches_on(&self) -> bool {
        let Highest { searches, .. } = self.highest.get();
        self.highest.update(|highest| Highest { searches: searches.saturating_add(1), ..highest });
        searches < MAX_SEARCHES
    }

    pub(super) fn make_input(&mut self, region: Region) -> wasmtime::Result<Access<(Resource<Tensor>, Geometry)>> {
        let frame = self.frame()?;
        let Size { width, height } = frame.input_size;
        let pixel = frame.input_planes as usize * size_of::<f32>();
        let bytes = (width as usize).saturating_mul(height as usize).saturating_mul(pixel);
        if !self.has_room(bytes) {
            return Ok(Err(Refused::TooLarge));
        }
        let made = check_region(frame.size, region)
            .and_then(|()| frame.pixels.to_tensor(region).map_err(|e| self.unavailable(&e)));
        match made {
            Ok((tensor, geometry)) => Ok(self.keep_tensor(tensor)?.map(|tensor| (tensor, geometry))),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Elements of an output as floats.
    pub(super) fn floats(
        &self,
        of: &Resource<Held>,
        output: u32,
        offset: u32,
        count: u32,
    ) -> wasmtime::Result<Access<Vec<f32>>> {
        if count as usize > MAX_TRANSFER / size_of::<f32>() {
            return Ok(Err(Refused::TooLarge));
        }
        let range = offset as usize..offset as usize + count as usize;
        let read = |data: Values<'_>| data.read(range).map(Cow::into_owned).ok_or(Refused::OutOfBounds);
        Ok(self.copies(self.numbers(of, output)?.and_then(read)))
    }

    /// Elements of an output of whole numbers, exactly.
    pub(super) fn integers(
        &self,
        of: &Resource<Held>,
        output: u32,
        offset: u32,
        count: u32,
    ) -> wasmtime::Result<Access<Vec<i64>>> {
        if count as usize > MAX_TRANSFER / size_of::<i64>() {
            return Ok(Err(Refused::TooLarge));
        }
        let range = offset as usize..offset as usize + count as usize;
        Ok(self.copies(self.output(of, output)?.and_then(|output| whole(output, range))))
    }

    /// The same as bytes.
    pub(super) fn small_integers(
        &self,
        of: &Resource<Held>,
        output: u32,
        offset: u32,
        count: u32,
    ) -> wasmtime::Result<Access<Vec<u8>>> {
        if count as usize > MAX_TRANSFER {
            return Ok(Err(Refused::TooLarge));
        }
        let range = offset as usize..offset as usize + count as usize;
        let small = |n: i64| u8::try_from(n).map_err(|_| Refused::WrongType);
        let read = |output: &Output| whole(output, range)?.into_iter().map(small).collect();
        Ok(self.copies(self.output(of, output)?.and_then(read)))
    }

    /// Elements of an output of text.
    pub(super) fn texts(
        &self,
        of: &Resource<Held>,
        output: u32,
        offset: u32,
        count: u32,
    ) -> wasmtime::Result<Access<Vec<String>>> {
        let range = offset as usize..offset as usize + count as usize;
        Ok(self.output(of, output)?.and_then(|output| {
            let Elements::Text(all) = &output.data else { return Err(Refused::WrongType) };
            let texts = all.get(range).ok_or(Refused::OutOfBounds)?;
            let bytes: usize = texts.iter().map(|text| text.len() + size_of::<String>()).sum();
            if bytes > MAX_TRANSFER {
                return Err(Refused::TooLarge);
            }
            self.copies_bytes(texts.iter().map(String::len).sum());
            Ok(texts.to_vec())
        }))
    }

    /// The highest elements of a part of an output, with their numbers in it.
    pub(super) fn highest(
        &self,
        of: &Resource<Held>,
        output: u32,
        offset: u32,
        count: u32,
        k: u32,
    ) -> wasmtime::Result<Access<Vec<(u32, f32)>>> {
        if k as usize > MAX_TRANSFER / size_of::<(u32, f32)>() {
            return Ok(Err(Refused::TooLarge));
        }
        let range = offset as usize..offset as usize + count as usize;
        Ok(self.copies(self.numbers(of, output)?.and_then(|data| {
            let data = data.read(range).ok_or(Refused::OutOfBounds)?;
            let found = scan::highest(&data, k as usize);
            self.saw(found.first().map(|(_, value)| *value));
            Ok(found)
        })))
    }

    pub(super) fn single_floats(
        &self,
        of: &Resource<Held>,
        output: u32,
        elements: &[u32],
    ) -> wasmtime::Result<Access<Vec<f32>>> {
        Ok(self.copies(self.numbers(of, output)?.and_then(|data| {
            let one = |at: usize| data.read(at..at + 1)?.first().copied();
            elements.iter().map(|at| one(*at as usize).ok_or(Refused::OutOfBounds)).collect()
        })))
    }

    pub(super) fn best_of_rows(
        &self,
        of: &Resource<Held>,
        output: u32,
        layout: &scan::Layout,
        threshold: f32,
        limit: u32,
    ) -> wasmtime::Result<Access<Vec<scan::Candidate>>> {
        if layout.rows > MAX_ROWS || limit as usize > MAX_TRANSFER / size_of::<scan::Candidate>() {
            return Ok(Err(Refused::TooLarge));
        }
        Ok(self.copies(self.numbers(of, output)?.and_then(|data| {
            let data = data.read(0..data.len()).unwrap_or_default();
            let found = scan::argmax_rows(&data, layout, threshold, limit as usize).ok_or(Refused::OutOfBounds)?;
            let best = found.iter().map(|candidate| candidate.score).reduce(f32::max);
            self.saw(best.or_else(|| self.searches_on().then(|| scan::best(&data, layout)).flatten()));
            Ok(found)
        })))
    }
}

impl Ctx {
    /// Masks out of an output of prototypes.
    pub(super) fn masks(
        &self,
        of: &Resource<Held>,
        output: u32,
        boxes: &[MaskedBox],
    ) -> wasmtime::Result<Access<Vec<Mask>>> {
        let Inference { geometry, size: frame, input_size: input, .. } = self.inference(of)?;
        let Output { desc, data } = match self.output(of, output)? {
            Ok(output) => output,
            Err(why) => return Ok(Err(why)),
        };
        let Elements::F32(data) = data else { return Ok(Err(Refused::WrongType)) };
        let [1, channels, height, width] = desc.shape[..] else { return Ok(Err(Refused::OutOfBounds)) };
        if data.is_empty() {
            return Ok(Err(Refused::OutOfBounds));
        }
        let [channels, height, width] = [channels, height, width].map(|side| side as usize);
        let prototypes = Prototypes { data, channels, height, width };
        let view = masks::View {
            scale: [geometry.scale_x, geometry.scale_y],
            pad: [geometry.pad_x, geometry.pad_y],
            frame: [frame.width, frame.height],
            input: [input.width, input.height],
        };
        let decoded = masks::decode(prototypes, view, boxes).map_err(|why| match why {
            NoMasks::Unfit => Refused::OutOfBounds,
            NoMasks::TooMany => Refused::TooLarge,
        });
        let own = |masks::Mask { grid, runs }| Mask { grid, runs };
        Ok(decoded.map(|masks| masks.into_iter().map(own).collect()))
    }
}

/// Elements of an output of whole numbers. What has 64 bits without a sign and a value that `i64` does not
/// have is nobody's index or class: it becomes the largest.
fn whole(output: &Output, range: Range<usize>) -> Access<Vec<i64>> {
    fn part<T: Copy>(all: &[T], range: Range<usize>, convert: impl Fn(T) -> i64) -> Access<Vec<i64>> {
        all.get(range).map(|part| part.iter().copied().map(convert).collect()).ok_or(Refused::OutOfBounds)
    }
    match (output.desc.element, output.data.values()) {
        (_, Values::I64(all)) => part(all, range, |n| n),
        (_, Values::U64(all)) => part(all, range, |n| i64::try_from(n).unwrap_or(i64::MAX)),
        // Those of up to 16 bits, which are kept as floats.
        (Element::Integer, Values::F32(all)) => part(all, range, |n| n as i64),
        _ => Err(Refused::WrongType),
    }
}

/// Before anything is allocated: tables and pictures on the way have no part in the plugin's memory.
fn check_target(target: Size, format: PixelFormat) -> Access<()> {
    let area = u64::from(target.width) * u64::from(target.height);
    if area == 0 {
        return Err(Refused::OutOfBounds);
    }
    if target.width.max(target.height) > MAX_SIDE || area * format.channels() as u64 > MAX_TRANSFER as u64 {
        return Err(Refused::TooLarge);
    }
    Ok(())
}

pub(super) fn check_region(frame: Size, r: Region) -> Access<()> {
    let fits = |at: u32, len: u32, max: u32| len > 0 && at.checked_add(len).is_some_and(|end| end <= max);
    let inside = fits(r.x, r.width, frame.width) && fits(r.y, r.height, frame.height);
    inside.then_some(()).ok_or(Refused::OutOfBounds)
}

/// A frame as every version tells of it.
pub(super) const fn told(Position { pts_us, frame }: Position) -> (u64, i64) {
    (frame, pts_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pixels_are_scaled_to_has_sides_and_a_size() {
        let check = |width, height, format| check_target(Size { width, height }, format);
        for (width, height, format) in
            [(1, 1, PixelFormat::Rgb), (8192, 1365, PixelFormat::Bgr), (4096, 8192, PixelFormat::Gray)]
        {
            assert_eq!(check(width, height, format), Ok(()), "{width}x{height}");
        }
        for (width, height) in [(33_000_000, 1), (1, 33_000_000), (8193, 1), (u32::MAX, u32::MAX), (8192, 4097)] {
            assert_eq!(check(width, height, PixelFormat::Gray), Err(Refused::TooLarge), "{width}x{height}");
        }
        assert_eq!(check(8192, 1366, PixelFormat::Bgr), Err(Refused::TooLarge));
        assert_eq!(check(0, u32::MAX, PixelFormat::Gray), Err(Refused::OutOfBounds));
    }
}
