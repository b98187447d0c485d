//! How much memory a worker may have: what a runner is asked for, and what the worker is held to.
//!
//! The estimate is loose on purpose: a limit stops what grows without end, and one that an honest scenario
//! meets does more harm than one that is never met. A scenario may say better (`memory_mib`), up to the
//! operator's cap.

/// What is known of a scenario before it runs.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    pub model_bytes: u64,
    /// Sides of the model's input.
    pub input: [u32; 2],
    /// Rows of the model's batch, each with an image and perhaps a frame of its own.
    pub batch: u32,
    /// Sides of the video's picture, where they are known before it is fetched.
    pub picture: Option<[u32; 2]>,
    /// As many as the scenario asks for; where a runner decides, it takes no more than fit.
    pub lanes: u32,
    /// What further models need, see [`further_bytes`].
    pub further: u64,
    pub hooks: usize,
    /// Most linear memory of one hook.
    pub hook_bytes: u64,
    /// Hooks of a shadow; none: there is no shadow.
    pub shadow: usize,
}

/// Caps of one installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryCaps {
    /// Most that a worker may have.
    pub worker_mib: u32,
    /// Most linear memory of one hook.
    pub hook_mib: u32,
}

impl Default for MemoryCaps {
    fn default() -> Self {
        // Two gibibytes: a model of 400 MiB with a 4K video, or YOLO at 640 x 640 with hooks.
        Self { worker_mib: 2048, hook_mib: 64 }
    }
}

/// No worker gets along with less: its libraries alone take more.
pub const LEAST_MIB: u32 = 64;

/// For a scenario of a release that did not estimate. Its worker is held to the cap all the same.
pub const UNKNOWN_MIB: u32 = 512;

/// A worker without a model: its libraries (160 MiB as the kernel counts data), stacks, and what allocators
/// keep.
pub const BASE_MIB: u32 = 256;
/// What a worker on a GPU may have besides: CUDA's libraries and what they keep for a context (560 MiB
/// measured on an H200, with a model of 1 MiB). Its runner adds it, because only that knows what runs the
/// model.
pub const GPU_MIB: u32 = 768;
/// A model's bytes exist so many times while it loads: as read, as parsed, and laid out for the
/// processor. 4.5 were measured with convolutions of 113 MiB. Each lane loads it anew.
pub const MODEL_COPIES: u64 = 5;
/// For each lane: tensors between the layers, for each pixel of the input: a U-Net with 64 channels keeps 3.4
/// KiB, a detector a tenth.
const INPUT_PIXEL: u64 = 4 << 10;
/// For each pixel of the video: 8 pictures between the stages at 3 bytes, and a decoder's 33 (16 references,
/// a thread a core) at 3 bytes with 10 bits a sample.
const PICTURE_PIXEL: u64 = 128;
/// For each pixel of the video: a frame that is in a lane, with 10 bits a sample.
const FRAME_PIXEL: u64 = 6;

/// For each lane, and pixel of the video: the frames in the model, as many as its batch has rows,
/// and one that waits for its turn.
pub fn lane_pixel(batch: u32) -> u64 {
    FRAME_PIXEL.saturating_mul(u64::from(batch).saturating_add(1))
}

/// Rows of a batch of a further model that leaves their number open. More of them are no faster on a
/// processor, and each takes memory.
pub const FURTHER_ROWS: u32 = 8;

/// What a model takes that hooks run: it has one session. A model of one row may have
/// left their number open.
pub fn further_bytes(model_bytes: u64, [width, height]: [u32; 2], batch: u32) -> u64 {
    let rows = if batch == 1 { FURTHER_ROWS } else { batch };
    let pixels = u64::from(width).saturating_mul(height.into()).saturating_mul(rows.into());
    model_bytes.saturating_mul(MODEL_COPIES).saturating_add(pixels.saturating_mul(INPUT_PIXEL))
}

/// For each pixel of the video, with a shadow: the frames that wait for it ([`SHADOW_FRAMES`]), that which it
/// works on and that which is offered to it, each with 10 bits a sample.
const SHADOW_PIXEL: u64 = FRAME_PIXEL * (SHADOW_FRAMES as u64 + 2);

/// Frames that wait for a shadow. Some frames of several lanes come at once; more than that only hides that
/// it is slower than they come, and each takes memory.
pub const SHADOW_FRAMES: usize = 4;

/// A recording that is not here yet is taken for 4K.
const UNKNOWN_PICTURE: [u32; 2] = [3840, 2160];
/// A hook besides its own memory: its code, its tables, the bytes that are copied for it.
const HOOK: u64 = 16 << 20;

/// Most MiB that a worker with these needs should have; never more than the cap.
pub fn estimate_mib(needs: &Needs, caps: MemoryCaps) -> u32 {
    let pixels = |[width, height]: [u32; 2]| u64::from(width).saturating_mul(height.into());
    let (lanes, picture) = (u64::from(needs.lanes.max(1)), pixels(needs.picture.unwrap_or(UNKNOWN_PICTURE)));
    let bytes = [
        needs.model_bytes.saturating_mul(MODEL_COPIES).saturating_mul(lanes),
        pixels(needs.input).saturating_mul(needs.batch.max(1).into()).saturating_mul(INPUT_PIXEL).saturating_mul(lanes),
        // One lane with one frame is among the pictures already.
        picture.saturating_mul(
            PICTURE_PIXEL.saturating_add(lanes.saturating_mul(lane_pixel(needs.batch)).saturating_sub(lane_pixel(1))),
        ),
        // A shadow has sessions of its own.
        needs.further.saturating_mul(1 + u64::from(needs.shadow > 0)),
        picture.saturating_mul(if needs.shadow > 0 { SHADOW_PIXEL } else { 0 }),
        (needs.hooks as u64 + needs.shadow as u64).saturating_mul(needs.hook_bytes.saturating_add(HOOK)),
    ];
    let bytes = bytes.into_iter().fold(u64::from(BASE_MIB) << 20, u64::saturating_add);
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX).min(caps.worker_mib)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn honest_workers_stay_below_their_estimate() {
        let caps = MemoryCaps { worker_mib: 1 << 20, hook_mib: 64 };
        // The most that was resident, in MiB, of one worker on two cores without hooks.
        for (what, model_bytes, input, picture, measured) in [
            ("the demo", MIB, [320, 192], [640, 360], 121),
            ("a model of 96 MiB", 96 * MIB, [320, 192], [640, 360], 378),
            ("a 4K video with 10 bits", MIB, [320, 192], [3840, 2160], 368),
            ("an 8K video", MIB, [320, 192], [7680, 4320], 553),
            ("a U-Net", MIB, [640, 640], [1920, 1080], 1423),
        ] {
            let needs = Needs {
                model_bytes,
                input,
                picture: Some(picture),
                batch: 1,
                lanes: 1,
                further: 0,
                hooks: 0,
                hook_bytes: 0,
                shadow: 0,
            };
            let estimate = estimate_mib(&needs, caps);
            assert!(estimate >= measured * 5 / 4, "{what}: {estimate} MiB for {measured}");
        }
    }

    #[test]
    fn four_demos_fit_a_machine_of_four_gibibytes() {
        let picture = Some([640, 360]);
        let needs = Needs {
            model_bytes: MIB,
            input: [320, 192],
            picture,
            batch: 1,
            lanes: 1,
            further: 0,
            hooks: 1,
            hook_bytes: 64 * MIB,
            shadow: 0,
        };
        assert!(estimate_mib(&needs, MemoryCaps::default()) * 4 <= 4096 * 3 / 4);
    }

    #[test]
    fn each_lane_and_each_hook_counts() {
        let picture = Some([640, 360]);
        let needs = Needs {
            model_bytes: MIB,
            input: [320, 192],
            picture,
            batch: 1,
            lanes: 1,
            further: 0,
            hooks: 0,
            hook_bytes: 64 * MIB,
            shadow: 0,
        };
        let estimate = |lanes, hooks| estimate_mib(&Needs { lanes, hooks, ..needs }, MemoryCaps::default());
        // 256 of any worker, 28.1 for the pictures, 245 for model and input.
        assert_eq!(estimate(1, 0), 530);
        // Model and input again, and 2.6 for the pictures of the lane.
        assert_eq!(estimate(2, 0), 777);
        assert_eq!(estimate(2, 1), 777 + 80);
        // A hook, and 7.9 for the pictures that wait for it.
        let shadowed = estimate_mib(&Needs { shadow: 1, ..needs }, MemoryCaps::default());
        assert_eq!(shadowed, 530 + 80 + 8);
    }

    proptest! {
        #[test]
        fn more_never_needs_less_and_nothing_passes_the_cap(
            model_bytes in 0..u64::MAX, more in 0..u64::MAX, side in 0..u32::MAX, hooks in 0..64usize, lanes in 0..64u32, batch in 0..64u32, cap in 1..u32::MAX,
        ) {
            let caps = MemoryCaps { worker_mib: cap, hook_mib: 64 };
            let needs = Needs { model_bytes, input: [side, 64], picture: Some([64, side]), batch, lanes, further: 0, hooks, hook_bytes: 64 * MIB, shadow: 0 };
            let larger = Needs { model_bytes: model_bytes.saturating_add(more), hooks: hooks + 1, lanes: lanes + 1, batch: batch + 1, further: more, shadow: 1, ..needs };
            prop_assert!(estimate_mib(&needs, caps) <= estimate_mib(&larger, caps));
            prop_assert!(estimate_mib(&larger, caps) <= cap);
        }
    }
}
