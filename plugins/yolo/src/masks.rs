//! Masks of what a segmentation head found: the output beside it has the prototypes, and each box 32
//! coefficients.

use framehook_sdk::{Detection, Error, MaskedBox, TensorDesc};
use model_outputs::Outputs;

use crate::head::{Head, MASKS};

/// Gives each detection its mask. Until here, `track_id` holds the row that a detection was read from; then
/// it is free for whoever tracks.
pub(crate) fn add(
    outputs: &impl Outputs,
    output: u32,
    head: Head,
    list: &[TensorDesc],
    found: &mut [Detection],
) -> Result<(), Error> {
    let rows: Vec<_> = found.iter_mut().filter_map(|detection| detection.track_id.take()).collect();
    let Some(prototypes) = list.iter().position(|o| matches!(o.shape[..], [1, MASKS, _, _])) else { return Ok(()) };
    let numbers: Vec<_> = (head.tail()..head.tail() + MASKS).collect();
    let coefficients = outputs.gather(output, &head.grid().elements(rows.iter().map(|row| *row as u32), &numbers))?;
    // One without usable coefficients is an object all the same.
    let of_each = found.iter_mut().zip(coefficients.chunks_exact(MASKS as usize));
    let (masked, boxes): (Vec<_>, Vec<_>) = of_each
        .filter(|(_, coefficients)| coefficients.iter().all(|n| n.is_finite()))
        .map(|(detection, coefficients)| {
            let masked = MaskedBox { bbox: detection.bbox, coefficients: coefficients.to_vec() };
            (detection, masked)
        })
        .unzip();
    for (detection, mask) in masked.into_iter().zip(outputs.masks(prototypes as u32, &boxes)?) {
        detection.mask = Some(mask);
    }
    Ok(())
}
