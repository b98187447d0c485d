//! Where a video ends, and what is no damage; and what is.

use super::{
    bytes::{cut, edit_all, find, flip_bits, set},
    check, clip,
};

#[test]
fn what_is_longer_than_the_video() {
    check(&[
        clip("sound.mov", &["@96x64*30 ~6 -c:v libx264 -bf 2 -c:a pcm_s16le"]),
        clip("sound.mp4", &["@96x64*30 ~6 -c:v mpeg4 -c:a libmp3lame"]),
        clip("sound.avi", &["@96x64*30 ~6 -c:v mpeg4 -c:a mp2"]),
        clip("sound.flv", &["@96x64*30 ~6 -c:v libx264 -bf 2 -c:a aac"]),
        clip("sound.wmv", &["@96x64*30 ~6 -c:v wmv2 -c:a wmav2"]),
        clip("sound.mpg", &["@96x64*30 ~6 -c:v mpeg2video -bf 2 -c:a mp2"]),
        clip("sound.ogv", &["@96x64*30 ~6 -c:v libtheora -c:a libvorbis"]),
        clip("sound.m2ts", &["@96x64*30 ~6 -c:v libx264 -bf 2 -c:a ac3 -mpegts_m2ts_mode 1"]),
        clip("sound.webm", &["@96x64*30 ~6 -c:v libvpx -c:a libopus"]),
        clip("sound.mxf", &["@96x64*30 ~6 -c:v mpeg2video -c:a pcm_s16le -ar 48000"]),
        clip(
            "fragments.mp4",
            &["@96x64*30 ~6 -c:v libx264 -bf 2 -c:a aac -movflags frag_keyframe+empty_moov+default_base_moof"],
        ),
        clip("subtitles.mkv", &["srt a.srt", "-i a.srt @96x64*30 -c:v libx264 -c:s srt -map 0 -map 1"]),
        clip("subtitles.mp4", &["srt a.srt", "-i a.srt @96x64*30 -c:v libx264 -c:s mov_text -map 1 -map 0"]),
        clip("time_code.mov", &["@96x64*30 ~3 -c:v libx264 -c:a aac -timecode 10:00:00:00"]),
        clip(
            "cover_first.mp4",
            &["@64x64*1 @96x64*30 -map 0 -map 1 -c:v:0 png -c:v:1 libx264 -disposition:v:0 attached_pic"],
        ),
        clip("two_videos.mkv", &["@64x64*20 @128x96*50 -map 0 -map 1 -c:v libx264"]),
        clip("two_videos.mp4", &["@64x64*20 @128x96*50 -map 0 -map 1 -c:v:0 mjpeg -c:v:1 libx264"]),
    ]);
}

#[test]
fn fragments_and_unknown_durations() {
    check(&[
        clip("every_frame.mp4", &["@96x64*30 -c:v libx264 -bf 2 -movflags frag_every_frame+empty_moov"]),
        clip("dash.mp4", &["@96x64*30 -c:v libx264 -bf 2 -g 10 -movflags dash+frag_keyframe+delay_moov"]),
        clip("cmaf.mp4", &["@96x64*30 -c:v libx264 -bf 2 -g 10 -movflags cmaf+frag_keyframe+negative_cts_offsets"]),
        clip("fragments.mov", &["@96x64*30 -c:v libx264 -bf 2 -g 10 -movflags frag_keyframe+empty_moov"]),
        clip("index.mp4", &["@96x64*30 -c:v libx264 -g 10 -movflags dash+global_sidx"]),
        clip("first_in_moov.mp4", &["@96x64*30 -c:v libx264 -bf 2 -g 10 -movflags frag_keyframe"]),
        clip("all_unknown.mp4", &["@96x64*30 -c:v libx264 -bf 2 -movflags frag_keyframe+empty_moov"]).edited(|bytes| {
            for (kind, at) in [(b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16)] {
                let header = find(bytes, kind) + 4;
                set(bytes, header + at, &[0xff; 4]);
            }
        }),
        // It has all its samples.
        clip("unknown_whole.mp4", &["@96x64*30 -c:v libx264 -bf 2"]).edited(|bytes| {
            for (kind, at) in [(b"mvhd", 16), (b"mdhd", 16)] {
                let header = find(bytes, kind) + 4;
                set(bytes, header + at, &[0xff; 4]);
            }
        }),
        clip("none_whole.mov", &["@96x64*30 -c:v libx264 -bf 2"]).edited(|bytes| {
            for (kind, at) in [(b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16)] {
                let header = find(bytes, kind) + 4;
                set(bytes, header + at, &[0; 4]);
            }
        }),
        clip("absurd.mkv", &["@96x64*30 -c:v libx264 -bf 2"]).edited(|bytes| {
            let at = find(bytes, &[0x44, 0x89, 0x88]) + 3;
            set(bytes, at, &1e15_f64.to_be_bytes());
        }),
        clip("too_short.mkv", &["@96x64*30 -c:v libx264 -bf 2"]).edited(|bytes| {
            let at = find(bytes, &[0x44, 0x89, 0x88]) + 3;
            set(bytes, at, &1_f64.to_be_bytes());
        }),
        clip("not_a_number.webm", &["@96x64*30 -c:v libvpx"]).edited(|bytes| {
            let at = find(bytes, &[0x44, 0x89, 0x88]) + 3;
            set(bytes, at, &f64::NAN.to_be_bytes());
        }),
        clip("absurd.flv", &["@96x64*30 -c:v flv1"]).edited(|bytes| {
            let at = find(bytes, b"duration") + 9;
            set(bytes, at, &1e9_f64.to_be_bytes());
        }),
        clip("none.flv", &["@96x64*30 -c:v flv1 -flvflags no_duration_filesize"]),
        clip("absurd.avi", &["@96x64*30 -c:v mpeg4"]).edited(|bytes| {
            let (main, stream) = (find(bytes, b"avih") + 8, find(bytes, b"strh") + 8);
            set(bytes, main + 16, &100_000_u32.to_le_bytes());
            set(bytes, stream + 32, &100_000_u32.to_le_bytes());
        }),
        clip("never_closed.avi", &["@96x64*30 -c:v mpeg4"]).edited(|bytes| {
            let (main, stream) = (find(bytes, b"avih") + 8, find(bytes, b"strh") + 8);
            set(bytes, 4, &[0; 4]);
            set(bytes, main + 16, &[0; 4]);
            set(bytes, stream + 32, &[0; 4]);
            bytes.truncate(find(bytes, b"idx1"));
        }),
        clip("open_box.mp4", &["@96x64*30 -c:v libx264 -movflags faststart"]).edited(|bytes| {
            let at = find(bytes, b"mdat") - 4;
            set(bytes, at, &[0; 4]);
        }),
        clip("segment_open.mkv", &["@96x64*30 -c:v libx264 -bf 2 -live 1"]),
    ]);
}

/// A clip of two seconds that has a key frame each half second, and bit errors between two of them.
#[test]
fn bit_errors() {
    let many = |bytes: &mut Vec<u8>| flip_bits(bytes, 400..600, 97);
    let few = |bytes: &mut Vec<u8>| flip_bits(bytes, 400..600, 997);
    let zeros = |bytes: &mut Vec<u8>| edit_all(bytes, 400..450, |byte| *byte = 0);
    check(&[
        clip("hevc.mp4", &["@160x120*50 -c:v libx265 -x265-params log-level=none:keyint=12"]).edited(many).damaged(),
        clip("h264.flv", &["@160x120*50 -c:v libx264 -bf 2 -g 12"]).edited(many).damaged(),
        clip("h264.ts", &["@160x120*50 -c:v libx264 -bf 2 -g 12"]).edited(many).damaged(),
        clip("h264.h264", &["@160x120*50 -c:v libx264 -bf 2 -g 12"]).edited(many).damaged(),
        clip("zeros.mp4", &["@160x120*50 -c:v libx264 -bf 2 -g 12"]).edited(zeros).damaged(),
        clip("mpeg2.mpg", &["@160x120*50 -c:v mpeg2video -bf 2 -g 12"]).edited(many).damaged(),
        clip("mpeg4.avi", &["@160x120*50 -c:v mpeg4 -g 12"]).edited(many).damaged(),
        clip("prores.mov", &["@160x120*20 -c:v prores_ks"]).edited(many).damaged(),
        clip("mjpeg.mov", &["@160x120*50 -c:v mjpeg"]).edited(few).damaged(),
        clip("vp9.mkv", &["@160x120*50 -c:v libvpx-vp9 -g 12 -cpu-used 8 -deadline realtime"])
            .edited(few)
            .maybe_damaged(),
        clip("theora.ogv", &["@160x120*50 -c:v libtheora -g 12"]).edited(few).maybe_damaged(),
        clip("ffv1.mkv", &["@160x120*20 -c:v ffv1 -level 3 -slicecrc 1"]).edited(few).maybe_damaged(),
    ]);
}

#[test]
fn what_vendors_write_behind_the_end() {
    check(&[
        clip("text.mov", &["@96x64*20 -c:v libx264"])
            .edited(|bytes| bytes.extend(b"$GPRMC,1.0,A,52.0,N\r\n".repeat(50))),
        clip("zeros.mov", &["@96x64*20 -c:v libx264"]).edited(|bytes| bytes.extend([0; 70_000])),
        clip("ones.mp4", &["@96x64*20 -c:v libx264"]).edited(|bytes| bytes.extend([0xff; 70_000])),
        clip("few.mp4", &["@96x64*20 -c:v libx264"]).edited(|bytes| bytes.extend([0; 5])),
        clip("camera.mp4", &["@96x64*20 -c:v libx264"]).edited(|bytes| {
            bytes.extend([7; 900]);
            bytes.extend(b"8db42d694ccc418790edff439fe026bf");
        }),
        clip("phone.mp4", &["@96x64*20 -c:v libx264"])
            .edited(|bytes| bytes.extend(b"\0\0\x01\x0aMetaData\x10\0\0\0SEFH\x6a\0\0\0SEFT")),
        clip("own_box.mp4", &["@96x64*20 -c:v libx264"])
            .edited(|bytes| bytes.extend(b"\0\0\0\x10gps0\0\0\0\0\0\0\0\0")),
        clip("long_box.mp4", &["@96x64*20 -c:v libx264"])
            .edited(|bytes| bytes.extend(b"\0\x10\0\0gps0\0\0\0\0\0\0\0\0")),
        clip("free.mp4", &["@96x64*20 -c:v libx264"]).edited(|bytes| bytes.extend(b"\0\0\0\x10free\0\0\0\0\0\0\0\0")),
        clip("picture.mp4", &["@96x64*20 -c:v libx264"])
            .edited(|bytes| bytes.extend(b"\xff\xd8\xff\xe0\0\x10JFIF\0".repeat(9))),
        clip("fragments.mp4", &["@96x64*20 -c:v libx264 -movflags frag_keyframe+empty_moov"])
            .edited(|bytes| bytes.extend(b"TRAILER ".repeat(40))),
        clip("text.mkv", &["@96x64*20 -c:v libx264"])
            .edited(|bytes| bytes.extend(b"$GPRMC,1.0,A,52.0,N\r\n".repeat(50))),
        clip("zeros.mkv", &["@96x64*20 -c:v libx264"]).edited(|bytes| bytes.extend([0; 9_000])),
        clip("text.avi", &["@96x64*20 -c:v mpeg4"]).edited(|bytes| bytes.extend(b"$GPRMC,1.0,A,52.0,N\r\n".repeat(50))),
        clip("zeros.ts", &["@96x64*20 -c:v libx264"]).edited(|bytes| bytes.extend([0; 9_000])),
        clip("text.ts", &["@96x64*20 -c:v libx264"])
            .edited(|bytes| bytes.extend(b"$GPRMC,1.0,A,52.0,N\r\n".repeat(50))),
        clip("text.flv", &["@96x64*20 -c:v flv1"]).edited(|bytes| bytes.extend(b"$GPRMC,1.0,A,52.0,N\r\n".repeat(50))),
        clip("zeros.mpg", &["@96x64*20 -c:v mpeg2video"]).edited(|bytes| bytes.extend([0; 9_000])),
        clip("text.wmv", &["@96x64*20 -c:v wmv2"]).edited(|bytes| bytes.extend(b"$GPRMC,1.0,A,52.0,N\r\n".repeat(50))),
    ]);
}

#[test]
fn cut_files() {
    check(&[
        clip("front.mov", &["@96x64*50 -c:v libx265 -x265-params log-level=none -movflags faststart"])
            .edited(|bytes| cut(bytes, 600))
            .lacks("of 50 frames")
            .damaged(),
        clip("fragments.mp4", &["@96x64*50 -c:v libx264 -bf 2 -g 10 -movflags frag_keyframe+empty_moov"])
            .edited(|bytes| cut(bytes, 700))
            .lacks("frames")
            .damaged(),
        clip("mpeg4.avi", &["@96x64*50 -c:v mpeg4"]).edited(|bytes| cut(bytes, 500)).lacks("its `RIFF` ends").damaged(),
        clip("vp9.webm", &["@96x64*50 -c:v libvpx-vp9 -cpu-used 8 -deadline realtime"])
            .edited(|bytes| cut(bytes, 500))
            .lacks("its `Segment` ends"),
        // Written while nobody knew how long it would be.
        clip("live.webm", &["@96x64*50 -c:v libvpx -deadline realtime -live 1"]).edited(|bytes| cut(bytes, 500)),
        clip("raw.m2v", &["@96x64*50 -c:v mpeg2video"]).edited(|bytes| cut(bytes, 500)).damaged(),
    ]);
}
