//! Which frames can be left undecoded: references in every pattern that encoders make of them.

use framehook_worker::source;

use super::{Variant, check_each, clip};
use crate::{decode_file, samples};

/// Checks each, and that it has frames which were never decoded, or has none.
fn check(clips: &[Variant], has_some: bool) {
    check_each(clips, |_, file| {
        let whole = decode_file(file, source::open).map_err(|error| error.to_string())?;
        let left = samples(file, &whole)?;
        if (left > 0) == has_some { Ok(()) } else { Err(format!("{left} frames were not decoded")) }
    });
}

#[test]
fn frames_that_no_other_refers_to_are_left() {
    check(
        &[
            clip("usual.mp4", &["@96x64*200 -c:v libx264"]),
            clip("usual.mkv", &["@96x64*200 -c:v libx264"]),
            clip("flat.mp4", &["@96x64*150 -c:v libx264 -bf 8 -b_strategy 0 -x264-params b-pyramid=none"]),
            clip("strict.mov", &["@96x64*150 -c:v libx264 -bf 7 -b_strategy 0 -x264-params b-pyramid=strict:ref=8"]),
            clip("open_gop.mkv", &["@96x64*150 -c:v libx264 -g 20 -x264-params open-gop=1"]),
            clip("key_frames.mp4", &["@96x64*150 -c:v libx264 -g 9 -bf 3 -b_strategy 0"]),
            clip(
                "uneven.mkv",
                &["@96x64*150 -c:v libx264 -vf setpts=N*40+mod(N*N\\,17),settb=1/1000 -fps_mode passthrough"],
            ),
            clip("late.mkv", &["@96x64*150 -c:v libx264 -output_ts_offset 3"]),
            clip("fragments.mp4", &["@96x64*150 -c:v libx264 -movflags frag_keyframe+empty_moov -g 30"]),
            clip("ten_bits.mkv", &["@96x64*100 -c:v libx264 -pix_fmt yuv420p10le"]),
            clip("rows_of_fields.mkv", &["@96x64*100 -c:v libx264 -flags +ilme+ildct -x264-params tff=1"]),
            clip("slices.mp4", &["@96x64*100 -c:v libx264 -x264-params slices=4"]),
            clip("hevc.mp4", &["@96x64*150 -c:v libx265 -x265-params log-level=none"]),
            clip(
                "hevc_flat.mkv",
                &["@96x64*150 -c:v libx265 -x265-params log-level=none:b-pyramid=0:bframes=4:b-adapt=0"],
            ),
            clip("hevc_open.mp4", &["@96x64*150 -c:v libx265 -x265-params log-level=none:open-gop=1:keyint=24"]),
            clip("hevc_layers.mkv", &["@96x64*150 -c:v libx265 -x265-params log-level=none:temporal-layers=1"]),
        ],
        true,
    );
}

#[test]
fn where_packets_do_not_count_frames_all_are_decoded() {
    check(
        &[
            // A transport stream has no pictures but what FFmpeg's parser makes of it.
            clip("usual.ts", &["@96x64*100 -c:v libx264"]),
            clip("two.mpg", &["@96x64*100 -c:v mpeg2video -bf 2"]),
            clip("packed.avi", &["@96x64*100 -c:v mpeg4 -bf 2"]),
            clip("hidden.webm", &["@96x64*100 -c:v libvpx -auto-alt-ref 1 -lag-in-frames 16 -b:v 50k"]),
            // It begins with frames that are decoded and not shown, or that lack what they refer to.
            clip("edited.mp4", &["@96x64*100 -c:v libx264 -g 100 a.mp4", "-ss 0.5 -i a.mp4 -c copy"]),
            clip("no_times.mkv", &["@96x64*100 -c:v libx264 -bsf:v setts=ts=floor(N/2)*80"]),
            clip("no_references.mp4", &["@96x64*100 -c:v libx264 -bf 0"]),
        ],
        false,
    );
}
