//! In steady state nothing is allocated for a frame, from the decoder to the model's input.
//!
//! Counted is what Rust code allocates; FFmpeg's buffers come from a pool of its own.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use framehook_core::{
    input::{InputOptions, TensorInfo},
    job::DEFAULT_PICTURE_SIDE,
};
use framehook_worker::{image::Image, preprocess::Preprocessor, source};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Decoders, pools and tables have filled by then.
const WARM_UP: u64 = 50;

#[test]
fn a_frame_allocates_nothing() {
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo1.mp4");
    let shape = [1, 3, 192, 320].map(Some).to_vec();
    let input = TensorInfo { name: "images".into(), element: "float32".into(), shape };
    let spec = InputOptions::default().resolve(&[input]).unwrap();
    let mut source = source::open(&clip, DEFAULT_PICTURE_SIDE).unwrap();
    let mut preprocessor = Preprocessor::new(&spec, source.info().width, source.info().height);
    let (mut image, mut tensor, mut before) = (Image::default(), Vec::new(), 0);
    while let Some(position) = source.advance().unwrap() {
        source.picture(&mut image).unwrap();
        preprocessor.fill_planar(&image.as_yuv420().unwrap(), &mut tensor);
        if position.frame == WARM_UP {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
    }
    let frames = source.info().frames.unwrap() - WARM_UP;
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "in {frames} frames");
}
