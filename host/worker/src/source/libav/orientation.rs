//! Turns and mirrors pictures as their container asks.
//!
//! Deliberately absent: turns by anything but quarters. No camera writes them, and no picture of
//! whole pixels would come out.

use ffmpeg_next::{format::Pixel, frame};

use crate::image::{Image, ImageError};

/// A turn by quarters, or a mirror image, or both: the parts of a display matrix that say where a
/// step to the right and a step down in the coded picture go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orientation {
    /// Right in the coded picture, as steps to the right and down in the shown one.
    right: [i32; 2],
    down: [i32; 2],
}

/// Bytes of a display matrix: nine numbers.
const MATRIX: usize = 36;

impl Orientation {
    pub(super) const UPRIGHT: Self = Self { right: [1, 0], down: [0, 1] };

    /// From a display matrix, as FFmpeg keeps it: numbers in the order of this machine, of which
    /// 16.16 fixed point ones are a step to the right (0, 1) and a step down (3, 4).
    pub(super) fn of_matrix(bytes: &[u8]) -> Self {
        let number = |at: usize| bytes.get(at * 4..at * 4 + 4)?.try_into().ok().map(i32::from_ne_bytes);
        let (Some(a), Some(b), Some(c), Some(d)) = (number(0), number(1), number(3), number(4)) else {
            return Self::UPRIGHT;
        };
        let (Some(right), Some(down)) = (step(a, b), step(c, d)) else { return Self::UPRIGHT };
        // Both along one line leave no picture.
        if right[0].abs() == down[0].abs() { Self::UPRIGHT } else { Self { right, down } }
    }

    /// That of one frame, if it says so itself.
    pub(super) fn of_frame(frame: &frame::Video) -> Option<Self> {
        let data = frame.side_data(frame::side_data::Type::DisplayMatrix)?;
        (data.data().len() >= MATRIX).then(|| Self::of_matrix(data.data()))
    }

    pub(super) fn size(self, width: u32, height: u32) -> (u32, u32) {
        if self.right[0] == 0 { (height, width) } else { (width, height) }
    }

    /// Makes `to` what `from` shows when it is turned. Only for formats that [`can_turn`] names.
    pub(super) fn apply(self, from: &Image, to: &mut Image) -> Result<(), ImageError> {
        let format = from.0.format();
        let (width, height) = self.size(from.width(), from.height());
        to.reset(format, width, height)?;
        to.0.set_color_space(from.0.color_space());
        to.0.set_color_range(from.0.color_range());
        let (planes, pixel) = if format == Pixel::BGR24 { (1, 3) } else { (3, 1) };
        for plane in 0..planes {
            let size = |frame: &frame::Video| (frame.plane_width(plane) as usize, frame.plane_height(plane) as usize);
            let source = Plane { data: from.0.data(plane), stride: from.0.stride(plane), size: size(&from.0) };
            let (stride, size) = (to.0.stride(plane), size(&to.0));
            self.turn(&source, to.0.data_mut(plane), stride, size, pixel);
        }
        Ok(())
    }

    fn turn(self, from: &Plane<'_>, to: &mut [u8], stride: usize, (width, height): (usize, usize), pixel: usize) {
        let (last_x, last_y) = (from.size.0.saturating_sub(1), from.size.1.saturating_sub(1));
        let [[a, b], [c, d]] = [self.right, self.down];
        // A matrix of this kind is undone by its mirror image at the diagonal: a step to the right
        // in the shown picture goes (a, c) in the coded one, a step down (b, d).
        let start = |right: i32, down: i32, last: usize| if right + down < 0 { last } else { 0 };
        let origin = start(a, b, last_x) * pixel + start(c, d, last_y) * from.stride;
        let step = |x: i32, y: i32| x as isize * pixel as isize + y as isize * from.stride as isize;
        let (right, down) = (step(a, c), step(b, d));
        for (y, row) in to.chunks_mut(stride).take(height).enumerate() {
            let mut at = origin.wrapping_add_signed(down * y as isize);
            for target in row[..width * pixel].chunks_exact_mut(pixel) {
                target.copy_from_slice(&from.data[at..at + pixel]);
                at = at.wrapping_add_signed(right);
            }
        }
    }
}

/// Whether pictures like this one can be turned as they are; others become BGR first.
pub(super) fn can_turn(image: &Image) -> bool {
    let known = match image.0.format() {
        // A sample of colour belongs to two columns and rows, which must stay together.
        Pixel::YUV420P | Pixel::YUVJ420P => image.width().is_multiple_of(2) && image.height().is_multiple_of(2),
        format => format == Pixel::BGR24,
    };
    known && image.is_top_down()
}

/// A part of a step counts as none if the step is so many times as long: then it leans by less than
/// half a degree, which is what `ffmpeg` takes for straight. Recorders compute sine and cosine.
const STRAIGHT: u64 = 115;

/// Where a step goes, if it goes along an axis.
fn step(x: i32, y: i32) -> Option<[i32; 2]> {
    let (across, along) = (u64::from(x.unsigned_abs()), u64::from(y.unsigned_abs()));
    if along * STRAIGHT < across { Some([x.signum(), 0]) } else { (across * STRAIGHT < along).then(|| [0, y.signum()]) }
}

struct Plane<'a> {
    data: &'a [u8],
    stride: usize,
    /// In pixels.
    size: (usize, usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(a: i32, b: i32, c: i32, d: i32) -> Vec<u8> {
        [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30].iter().flat_map(|n: &i32| n.to_ne_bytes()).collect()
    }

    /// The picture `abc/def` as it is shown, row by row.
    fn shown(matrix: &[u8]) -> String {
        let orientation = Orientation::of_matrix(matrix);
        let (width, height) = orientation.size(3, 2);
        let source = Plane { data: b"abc.def", stride: 4, size: (3, 2) };
        let mut out = vec![b'.'; 4 * height as usize];
        orientation.turn(&source, &mut out, 4, (width as usize, height as usize), 1);
        let rows = out.chunks(4).map(|row| String::from_utf8_lossy(&row[..width as usize]).into_owned());
        rows.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn pictures_are_turned_as_the_matrix_says() {
        assert_eq!(shown(&matrix(1, 0, 0, 1)), "abc/def");
        assert_eq!(shown(&matrix(-1, 0, 0, -1)), "fed/cba");
        assert_eq!(shown(&matrix(-1, 0, 0, 1)), "cba/fed");
        assert_eq!(shown(&matrix(1, 0, 0, -1)), "def/abc");
        // A phone that was held upright: right goes down, down goes left.
        assert_eq!(shown(&matrix(0, 1, -1, 0)), "da/eb/fc");
        assert_eq!(shown(&matrix(0, -1, 1, 0)), "cf/be/ad");
        assert_eq!(shown(&matrix(0, 1, 1, 0)), "ad/be/cf");
        assert_eq!(shown(&matrix(0, -1, -1, 0)), "fc/eb/da");
    }

    #[test]
    fn a_matrix_that_was_computed_need_not_be_exact() {
        let bytes = |numbers: [i32; 9]| numbers.iter().flat_map(|n| n.to_ne_bytes()).collect::<Vec<_>>();
        assert_eq!(shown(&bytes([-3, 1 << 16, 0, -(1 << 16), 500, 0, 0, 0, 1 << 30])), "da/eb/fc");
        // A whole degree is no straight line any more.
        assert_eq!(shown(&bytes([-1144, 1 << 16, 0, -(1 << 16), -1144, 0, 0, 0, 1 << 30])), "abc/def");
    }

    #[test]
    fn what_is_no_turn_by_quarters_changes_nothing() {
        for odd in [matrix(1, 1, -1, 1), matrix(0, 0, 0, 0), vec![0; 7]] {
            assert_eq!(Orientation::of_matrix(&odd), Orientation::UPRIGHT);
        }
    }
}
