//! When frames are shown: pauses, repeated times, uneven rates, late beginnings, edit lists.

use std::path::Path;

use framehook_worker::source;

use super::{bytes::edit_list, check, clip};
use crate::{decode_file, rest};

#[test]
fn pauses_and_repeated_times() {
    check(&[
        clip("pause.ts", &["@96x64*40 -c:v libx264 -bf 0 -bsf:v setts=ts=(N+if(gte(N\\,20)\\,270000\\,0))*3600"]),
        clip("pause.mov", &["@96x64*40 -c:v libx264 -bf 0 -bsf:v setts=ts=(N+if(gte(N\\,20)\\,270000\\,0))*512"]),
        clip("pause.flv", &["@96x64*40 -c:v flv1 -bsf:v setts=ts=(N+if(gte(N\\,20)\\,270000\\,0))*40"]),
        clip("pause.wmv", &["@96x64*40 -c:v wmv2 -bsf:v setts=ts=(N+if(gte(N\\,20)\\,270000\\,0))*40"]),
        clip("pause.webm", &["@96x64*40 -c:v libvpx -bsf:v setts=ts=(N+if(gte(N\\,20)\\,270000\\,0))*40"]),
        clip("pause.mpg", &["@96x64*40 -c:v mpeg2video -bf 0 -bsf:v setts=ts=(N+if(gte(N\\,20)\\,2700\\,0))*3600"]),
        clip("pause.avi", &["@96x64*40 -c:v mpeg4 -bsf:v setts=ts=(N+if(gte(N\\,20)\\,300\\,0))"]),
        clip("repeated.flv", &["@96x64*40 -c:v flv1 -bsf:v setts=ts=(N-if(eq(mod(N\\,9)\\,5)\\,1\\,0))*40"]),
        clip("repeated.webm", &["@96x64*40 -c:v libvpx -bsf:v setts=ts=(N-if(eq(mod(N\\,9)\\,5)\\,1\\,0))*40"]),
        clip("three_times.mkv", &["@96x64*40 -c:v libx264 -bf 0 -bsf:v setts=ts=(N-mod(N\\,3))*40"]),
        clip("seven_times.mkv", &["@96x64*40 -c:v libx264 -bf 0 -bsf:v setts=ts=(N-mod(N\\,7))*40"]),
        clip("first_two.mkv", &["@96x64*40 -c:v mpeg4 -bsf:v setts=ts=(if(lt(N\\,2)\\,0\\,N))*40"]),
        clip("last_two.mkv", &["@96x64*40 -c:v mpeg4 -bsf:v setts=ts=(min(N\\,38))*40"]),
        clip("starts_again.ts", &["@96x64*20 -c:v libx264 -bf 0 a.ts", "cat a.ts a.ts"]),
        clip("starts_again_b.ts", &["@96x64*20 -c:v libx264 -bf 2 a.ts", "cat a.ts a.ts a.ts"]),
        clip("starts_again.mpg", &["@96x64*20 -c:v mpeg2video -bf 2 a.mpg", "cat a.mpg a.mpg"]),
        // A recorder that began a part before it ended the one before.
        clip(
            "overlap.ts",
            &[
                "@96x64*30 -c:v libx264 -bf 2 a.ts",
                "@96x64*40 -c:v libx264 -bf 2 -output_ts_offset 0.7 b.ts",
                "cat a.ts b.ts",
            ],
        ),
        clip(
            "overlap.mpg",
            &[
                "@96x64*30 -c:v mpeg2video -bf 2 a.mpg",
                "@96x64*40 -c:v mpeg2video -bf 2 -output_ts_offset 0.6 b.mpg",
                "cat a.mpg b.mpg",
            ],
        ),
        // After 26.5 hours, the counter of a transport stream starts again.
        clip("wraps.ts", &["@96x64*40 -c:v libx264 -bf 2 -output_ts_offset 95443"]),
        clip("long_ago.mkv", &["@96x64*30 -c:v libx264 -output_ts_offset 1000000"]),
        clip("below_zero.mp4", &["@96x64*30 -c:v libx264 -bf 2 -output_ts_offset -0.3 -avoid_negative_ts disabled"]),
        clip("below_zero.mkv", &["@96x64*30 -c:v libx264 -bf 2 -output_ts_offset -0.2 -avoid_negative_ts disabled"]),
    ]);
}

#[test]
fn frames_out_of_order_and_pauses() {
    check(&[
        clip(
            "hevc.mkv",
            &[
                "@96x64*30 -c:v libx265 -x265-params log-level=none -vf setpts=N+if(gte(N\\,20)\\,90000\\,0) -fps_mode passthrough",
            ],
        ),
        clip(
            "hevc.ts",
            &[
                "@96x64*30 -c:v libx265 -x265-params log-level=none -vf setpts=N+if(gte(N\\,21)\\,90000\\,0) -fps_mode passthrough",
            ],
        ),
        clip(
            "mpeg2.mpg",
            &["@96x64*30 -c:v mpeg2video -bf 2 -vf setpts=N+if(gte(N\\,20)\\,900\\,0) -fps_mode passthrough"],
        ),
        clip(
            "mpeg2.ts",
            &["@96x64*30 -c:v mpeg2video -bf 2 -vf setpts=N+if(gte(N\\,20)\\,90000\\,0) -fps_mode passthrough"],
        ),
        clip(
            "mpeg4.mp4",
            &["@96x64*30 -c:v mpeg4 -bf 2 -vf setpts=N+if(gte(N\\,19)\\,90000\\,0) -fps_mode passthrough"],
        ),
        clip("packed.avi", &["@96x64*30 -c:v mpeg4 -bf 2"]),
        clip(
            "packed_pause.avi",
            &["@96x64*30 -c:v mpeg4 -bf 2 -vf setpts=N+if(gte(N\\,20)\\,200\\,0) -fps_mode passthrough"],
        ),
        clip("h264.avi", &["@96x64*30 -c:v libx264 -bf 3"]),
        clip(
            "h264.flv",
            &["@96x64*30 -c:v libx264 -bf 3 -vf setpts=N+if(gte(N\\,20)\\,90000\\,0) -fps_mode passthrough"],
        ),
        clip(
            "h264.ts",
            &[
                "@96x64*30 -c:v libx264 -bf 3 -g 10 -vf setpts=N+if(gte(N\\,18)\\,90000\\,0)+if(gte(N\\,27)\\,90000\\,0) -fps_mode passthrough",
            ],
        ),
        clip(
            "h264.mov",
            &[
                "@96x64*30 -c:v libx264 -bf 3 -x264-params b-pyramid=normal -vf setpts=N+if(gte(N\\,28)\\,90000\\,0) -fps_mode passthrough",
            ],
        ),
        // Frames that are never shown themselves.
        clip("vp9_hidden.webm", &["@96x64*40 -c:v libvpx-vp9 -b:v 60k -auto-alt-ref 1 -lag-in-frames 16 -cpu-used 8"]),
        clip("vp8_hidden.mkv", &["@96x64*40 -c:v libvpx -b:v 60k -auto-alt-ref 1 -lag-in-frames 16 -cpu-used 8"]),
        clip("av1_hidden.mp4", &["@96x64*24 -c:v libaom-av1 -cpu-used 8 -lag-in-frames 16 -b:v 60k"]),
        clip("raw.h264", &["@96x64*30 -c:v libx264 -bf 3"]),
        clip("raw.h265", &["@96x64*30 -c:v libx265 -x265-params log-level=none -f hevc"]),
        clip("raw.m4v", &["@96x64*30 -c:v mpeg4 -bf 2"]),
        clip("raw.m2v", &["@96x64*30 -c:v mpeg2video -bf 2"]),
        clip("fields.ts", &["@96x64*30 -c:v libx264 -bf 2 -flags +ilme+ildct -x264-params tff=1"]),
    ]);
}

#[test]
fn variable_rates() {
    check(&[
        clip(
            "mov.mov",
            &["@96x64*60/30 -vf select=not(mod(n\\,7))+not(mod(n\\,3)) -fps_mode passthrough -c:v libx264 -bf 2"],
        ),
        clip(
            "hevc.mkv",
            &[
                "@96x64*60/30 -vf select=not(mod(n\\,7))+not(mod(n\\,3)) -fps_mode passthrough -c:v libx265 -x265-params log-level=none",
            ],
        ),
        clip(
            "ts.ts",
            &["@96x64*60/30 -vf select=not(mod(n\\,7))+not(mod(n\\,3)) -fps_mode passthrough -c:v libx264 -bf 2"],
        ),
        clip("flv.flv", &["@96x64*60/30 -vf select=not(mod(n\\,7))+not(mod(n\\,3)) -fps_mode passthrough -c:v flv1"]),
        clip("wmv.wmv", &["@96x64*60/30 -vf select=not(mod(n\\,7))+not(mod(n\\,3)) -fps_mode passthrough -c:v wmv2"]),
        clip(
            "dropped.avi",
            &["@96x64*60/30 -vf select=not(mod(n\\,7))+not(mod(n\\,3)) -fps_mode passthrough -c:v mjpeg"],
        ),
        clip(
            "mpg.mpg",
            &["@96x64*60/30 -vf select=not(mod(n\\,7))+not(mod(n\\,3)) -fps_mode passthrough -c:v mpeg2video"],
        ),
        clip(
            "threegp.3gp",
            &["@176x144*60/30 -vf select=not(mod(n\\,7))+not(mod(n\\,3)) -fps_mode passthrough -c:v h263"],
        ),
        clip(
            "slower.mp4",
            &["@96x64*40 -vf setpts=N*N/(40*25*TB) -fps_mode passthrough -enc_time_base 1/90000 -c:v libx264 -bf 2"],
        ),
        clip("thousandths.mkv", &["@96x64*40/1000 -c:v libx264 -bf 2"]),
        clip("ntsc_film.mov", &["@96x64*40/24000/1001 -c:v prores_ks"]),
        clip("duplicates.ogv", &["@96x64*40/10 -c:v libtheora -r 25"]),
    ]);
}

#[test]
fn recorders_in_browsers() {
    check(&[
        clip(
            "vp8.webm",
            &[
                "@96x64*40/30 -vf setpts=(N*41+mod(N\\,3)*13)/1000/TB -fps_mode passthrough -enc_time_base 1/1000 -c:v libvpx -deadline realtime -live 1",
            ],
        ),
        clip(
            "av1.webm",
            &[
                "@96x64*20/30 -vf setpts=(N*41+mod(N\\,3)*13)/1000/TB -fps_mode passthrough -enc_time_base 1/1000 -c:v libaom-av1 -usage realtime -cpu-used 8 a.webm",
                "-i a.webm -c copy -live 1",
            ],
        ),
        clip(
            "h264.mkv",
            &[
                "@96x64*40/30 -vf setpts=(N*33+mod(N\\,5)*7)/1000/TB -fps_mode passthrough -enc_time_base 1/1000 -c:v libx264 -bf 0 -live 1",
            ],
        ),
        clip(
            "with_sound.webm",
            &[
                "@96x64*40/30 ~2 -vf setpts=(N*41+mod(N\\,3)*13)/1000/TB -fps_mode passthrough -enc_time_base 1/1000 -c:v libvpx -deadline realtime -c:a libopus -live 1",
            ],
        ),
        clip(
            "fragments.mp4",
            &[
                "@96x64*40/30 -vf setpts=(N*41+mod(N\\,3)*13)/1000/TB -fps_mode passthrough -enc_time_base 1/1000 -c:v libx264 -bf 0 -movflags frag_every_frame+empty_moov+default_base_moof",
            ],
        ),
        clip(
            "turned.webm",
            &[
                "@96x64*10 -c:v libvpx -deadline realtime a.webm",
                "@64x96*10 -c:v libvpx -deadline realtime b.webm",
                "list a.webm b.webm c.webm",
                "-i c.webm -c copy -live 1",
            ],
        ),
        clip("begins_late.webm", &["@96x64*20 -c:v libvpx -deadline realtime -output_ts_offset 7.123 -live 1"]),
        clip("with_alpha.webm", &["@96x64*20 -c:v libvpx -auto-alt-ref 0 -pix_fmt yuva420p -live 1"]),
    ]);
}

#[test]
fn late_beginnings() {
    check(&[
        clip("late.mp4", &["-itsoffset 3 @96x64*20 ~4 -c:v libx264 -bf 2 -c:a aac"]),
        clip("late.mov", &["-itsoffset 2.5 @96x64*20 ~4 -c:v mpeg4 -c:a pcm_s16le"]),
        clip("late.ts", &["-itsoffset 3 @96x64*20 ~4 -c:v libx264 -bf 2 -c:a mp2"]),
        clip("late.flv", &["-itsoffset 3 @96x64*20 ~4 -c:v flv1 -c:a libmp3lame"]),
        clip("late.avi", &["-itsoffset 3 @96x64*20 ~4 -c:v mpeg4 -c:a mp2"]),
        clip("late.mpg", &["-itsoffset 3 @96x64*20 ~4 -c:v mpeg2video -c:a mp2"]),
        clip("late.wmv", &["-itsoffset 3 @96x64*20 ~4 -c:v wmv2 -c:a wmav2"]),
        clip("late.ogv", &["-itsoffset 3 @96x64*20 ~4 -c:v libtheora -c:a libvorbis"]),
        clip("late.webm", &["-itsoffset 3 @96x64*20 ~4 -c:v libvpx -c:a libopus"]),
        clip("alone.ts", &["@96x64*20 -c:v libx264 -output_ts_offset 36000"]),
        clip("alone.mp4", &["@96x64*20 -c:v libx264 -output_ts_offset 36000"]),
        clip(
            "fragments.mp4",
            &["@96x64*20 -c:v libx264 -output_ts_offset 5 -movflags frag_keyframe+empty_moov+default_base_moof"],
        ),
        // Later than what is probed.
        clip("very_late.ts", &["-itsoffset 40 @96x64*20 ~42 -c:v libx264 -c:a mp2"]),
        clip("very_late.mkv", &["-itsoffset 40 @96x64*20 ~42 -c:v libx264 -c:a pcm_s16le -ac 8"]),
        clip("very_late.flv", &["-itsoffset 40 @96x64*20 ~42 -c:v flv1 -c:a libmp3lame"]),
        clip("very_late.mpg", &["-itsoffset 40 @96x64*20 ~42 -c:v mpeg2video -c:a mp2 -b:a 384k"]),
    ]);
}

#[test]
fn edit_lists() {
    check(&[
        clip(
            "trimmed.mov",
            &["@96x64*60 -c:v libx264 -bf 3 -g 30 a.mp4", "-ss 0.9 -i a.mp4 -c copy -avoid_negative_ts disabled"],
        ),
        clip(
            "hevc.mp4",
            &[
                "@96x64*60 -c:v libx265 -x265-params log-level=none:keyint=30 a.mp4",
                "-ss 1.3 -i a.mp4 -c copy -avoid_negative_ts disabled",
            ],
        ),
        clip(
            "mpeg4.mp4",
            &["@96x64*60 -c:v mpeg4 -bf 2 -g 30 a.mp4", "-ss 1.3 -i a.mp4 -c copy -avoid_negative_ts disabled"],
        ),
        clip("prores.mov", &["@96x64*30 -c:v prores_ks a.mov", "-ss 0.42 -i a.mov -c copy"]),
        clip(
            "odd_time.mp4",
            &["@96x64*60 -c:v libx264 -bf 3 -g 60 a.mp4", "-ss 1.013 -i a.mp4 -c copy -avoid_negative_ts disabled"],
        ),
        clip(
            "with_sound.mp4",
            &[
                "@96x64*60 ~3 -c:v libx264 -bf 3 -g 60 -c:a aac a.mp4",
                "-ss 0.7 -i a.mp4 -c copy -avoid_negative_ts disabled",
            ],
        ),
        // A part in the middle is left out; the last frames are; nothing but a pause comes first.
        clip("two_parts.mp4", &["@96x64*50 -c:v libx264 -bf 2 -g 10"])
            .edited(|bytes| edit_list(bytes, &[(400, 0), (600, 1200)])),
        clip("two_parts.mov", &["@96x64*50 -c:v mpeg4"]).edited(|bytes| edit_list(bytes, &[(400, 0), (600, 1000)])),
        clip("short.mp4", &["@96x64*50 -c:v libx264 -bf 2 -g 10"]).edited(|bytes| edit_list(bytes, &[(1000, 0)])),
        clip("pause_first.mp4", &["@96x64*50 -c:v libx264 -bf 0 -g 10"])
            .edited(|bytes| edit_list(bytes, &[(1500, -1), (2000, 0)])),
        clip("again.mp4", &["@96x64*50 -c:v libx264 -bf 0 -g 10"])
            .edited(|bytes| edit_list(bytes, &[(800, 400), (800, 400)])),
    ]);
}

#[test]
fn sparse_videos() {
    check(&[
        clip("sparse.mkv", &["@96x64*4/1/20 ~70 -c:v libx264 -c:a mp2"]),
        clip("sparse.ts", &["@96x64*4/1/20 ~70 -c:v libx264 -c:a mp2"]),
        clip("sparse.webm", &["@96x64*4/1/20 ~70 -c:v libvpx -c:a libopus"]),
        clip("sparse.flv", &["@96x64*4/1/20 ~70 -c:v flv1 -c:a libmp3lame"]),
        clip("sparse.mov", &["@96x64*4/1/20 ~70 -c:v mjpeg -c:a pcm_s16le"]),
        clip("sparse.wmv", &["@96x64*4/1/20 ~70 -c:v wmv2 -c:a wmav2"]),
        clip("bframes.mp4", &["@96x64*4/1/20 ~70 -c:v libx264 -bf 3 -c:a aac"]),
        clip("slides.mkv", &["@96x64*5/1/600 -c:v libx264"]),
        clip("one.mp4", &["@96x64*1 ~60 -c:v libx264 -c:a aac"]),
        clip("one.ts", &["@96x64*1 ~60 -c:v libx264 -c:a mp2"]),
        clip("one.webm", &["@96x64*1 ~60 -c:v libvpx -c:a libopus"]),
        clip("hevc.mp4", &["@96x64*4/1/20 ~70 -c:v libx265 -x265-params log-level=none -c:a aac"]),
    ]);
}

/// One frame whose time a bit error moved far ahead: it alone has another time than its stream says.
#[test]
fn a_single_time_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    for (name, codec, place, ticks) in [
        ("second.ts", "libx264 -bf 0", 20, "90000"),
        ("ten_seconds.ts", "libx264 -bf 2", 20, "900000"),
        ("hours.ts", "mpeg2video -bf 2", 31, "4294967296"),
        ("second.mkv", "libx264 -bf 2", 20, "1000"),
        ("late.mkv", "mpeg4", 58, "5000"),
        ("first.mkv", "mpeg4", 0, "5000"),
        ("ten_seconds.mp4", "libx264 -bf 0", 40, "128000"),
        ("hevc.mp4", "libx265 -x265-params log-level=none", 20, "128000"),
        ("ten_seconds.flv", "libx264 -bf 0", 20, "10000"),
        ("seconds.webm", "libvpx", 20, "3000"),
    ] {
        let usual = format!("@96x64*60 -c:v {codec} usual_{name}");
        let steps: [&str; 2] = [
            usual.leak(),
            format!("-i usual_{name} -c copy -bsf:v setts=pts=PTS+if(eq(N\\,{place})\\,{ticks}\\,0)").leak(),
        ];
        let file = clip(name, steps.to_vec().leak()).make(folder.path());
        let times = |file: &Path| decode_file(file, source::open).unwrap().positions;
        let (usual, moved) = (times(&folder.path().join(format!("usual_{name}"))), times(&file));
        assert_eq!(usual.len(), moved.len(), "{name}");
        let differ: Vec<_> = usual.iter().zip(&moved).filter(|(usual, moved)| usual.pts_us != moved.pts_us).collect();
        assert!(differ.len() <= 1, "{name}: {differ:?}");
        assert!(moved.windows(2).all(|pair| pair[0].pts_us < pair[1].pts_us), "{name}: {moved:?}");
        for stored in (0..moved.len()).step_by(7) {
            assert_eq!(rest(&file, source::open, moved[stored]).0, moved[stored + 1..], "{name} behind {stored}");
        }
    }
}
