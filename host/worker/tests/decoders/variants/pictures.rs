//! What pictures look like: orientation, size, format, colours.

use super::{bytes::matrix, check, clip};

const ONE: i32 = 1 << 16;

#[test]
fn orientation() {
    check(&[
        clip("hevc_180.mov", &["@96x64*12 -c:v libx265 -x265-params log-level=none -tag:v hvc1"])
            .edited(|bytes| matrix(bytes, [-ONE, 0, 0, -ONE])),
        clip("mjpeg_422_90.mov", &["@98x66*8 -c:v mjpeg -pix_fmt yuvj422p"])
            .edited(|bytes| matrix(bytes, [0, ONE, -ONE, 0])),
        clip("odd_mpeg4_270.mp4", &["@97x65*12 -c:v mpeg4 -bf 2"]).edited(|bytes| matrix(bytes, [0, -ONE, ONE, 0])),
        clip("gray_mirror.mov", &["@96x64*8 -c:v png -pix_fmt gray"]).edited(|bytes| matrix(bytes, [-ONE, 0, 0, ONE])),
        clip("vp9_transposed.mp4", &["@96x64*12 -c:v libvpx-vp9 -cpu-used 8 -deadline realtime"])
            .edited(|bytes| matrix(bytes, [0, ONE, ONE, 0])),
        // What sine and cosine of a right angle come to in single precision.
        clip("nearly_90.mp4", &["@96x64*12 -c:v libx264"]).edited(|bytes| matrix(bytes, [-3, ONE, -ONE, -3])),
        clip("nearly_0.mp4", &["@96x64*12 -c:v libx264"]).edited(|bytes| matrix(bytes, [ONE, 5, -5, ONE])),
        clip("nearly_180.mov", &["@96x64*12 -c:v libx264"]).edited(|bytes| matrix(bytes, [-ONE, 1, 1, -ONE])),
        clip("fragmented_90.mp4", &["@96x64*12 -c:v libx264 -movflags frag_keyframe+empty_moov"])
            .edited(|bytes| matrix(bytes, [0, ONE, -ONE, 0])),
        // The stream says it, frame by frame.
        clip("sei_90.ts", &["@96x64*12 -c:v libx264 -bsf:v h264_metadata=rotate=90"]),
        clip("sei_270.h264", &["@96x64*12 -c:v libx264 -bsf:v h264_metadata=rotate=270"]),
        clip("sei_flip.mkv", &["@96x64*12 -c:v libx264 -bsf:v h264_metadata=flip=horizontal"]),
        clip(
            "sei_starts_later.ts",
            &[
                "@96x64*10 -c:v libx264 a.ts",
                "@96x64*10 -c:v libx264 -bsf:v h264_metadata=rotate=90 -output_ts_offset 0.4 b.ts",
                "cat a.ts b.ts",
            ],
        ),
    ]);
}

#[test]
fn changes_of_size() {
    check(&[
        clip(
            "there_and_back.ts",
            &[
                "@96x64*10 -c:v libx264 a.ts",
                "@128x96*10 -c:v libx264 -output_ts_offset 0.4 b.ts",
                "@96x64*10 -c:v libx264 -output_ts_offset 0.8 c.ts",
                "cat a.ts b.ts c.ts",
            ],
        ),
        clip(
            "hevc.ts",
            &[
                "@96x64*10 -c:v libx265 -x265-params log-level=none a.ts",
                "@160x96*10 -c:v libx265 -x265-params log-level=none -output_ts_offset 0.4 b.ts",
                "cat a.ts b.ts",
            ],
        ),
        clip(
            "vp8.webm",
            &[
                "@96x64*10 -c:v libvpx -deadline realtime a.webm",
                "@64x96*10 -c:v libvpx -deadline realtime b.webm",
                "list a.webm b.webm",
            ],
        ),
        clip(
            "vp9.mkv",
            &[
                "@128x96*10 -c:v libvpx-vp9 -cpu-used 8 -deadline realtime a.webm",
                "@96x64*10 -c:v libvpx-vp9 -cpu-used 8 -deadline realtime b.webm",
                "list a.webm b.webm",
            ],
        ),
        clip("mjpeg.avi", &["@96x64*10 -c:v mjpeg a.avi", "@128x96*10 -c:v mjpeg b.avi", "list a.avi b.avi"]),
        clip("annexb.h264", &["@96x64*10 -c:v libx264 a.h264", "@160x112*10 -c:v libx264 b.h264", "cat a.h264 b.h264"]),
        clip("mpeg4.m4v", &["@96x64*10 -c:v mpeg4 a.m4v", "@160x112*10 -c:v mpeg4 b.m4v", "cat a.m4v b.m4v"]),
        clip("in_band.flv", &["@96x64*10 -c:v flv1 a.flv", "@128x96*10 -c:v flv1 b.flv", "list a.flv b.flv"]),
        clip(
            "av1.mkv",
            &[
                "@96x64*6 -c:v libaom-av1 -cpu-used 8 -usage realtime a.mkv",
                "@128x96*6 -c:v libaom-av1 -cpu-used 8 -usage realtime b.mkv",
                "list a.mkv b.mkv",
            ],
        ),
        clip("h264_in_band.mkv", &["@96x64*10 -c:v libx264 a.ts", "@128x96*10 -c:v libx264 b.ts", "list a.ts b.ts"]),
        clip("png.mov", &["@96x64*5 -c:v png a.mov", "@80x48*5 -c:v png b.mov", "list a.mov b.mov"]),
    ]);
}

#[test]
fn changes_of_the_pixel_format() {
    check(&[
        clip(
            "gray_to_colour.avi",
            &[
                "@96x64*1 -c:v mjpeg -pix_fmt gray a.avi",
                "@96x64*10 -c:v mjpeg -pix_fmt yuvj444p b.avi",
                "list a.avi b.avi",
            ],
        ),
        clip(
            "png_alpha.mov",
            &[
                "@96x64*5 -c:v png -pix_fmt rgb24 a.mov",
                "@96x64*5 -c:v png -pix_fmt rgba b.mov",
                "@96x64*5 -c:v png -pix_fmt gray16be c.mov",
                "@96x64*5 -c:v png -pix_fmt pal8 d.mov",
                "list a.mov b.mov c.mov d.mov",
            ],
        ),
        clip(
            "h264_444.ts",
            &[
                "@96x64*10 -c:v libx264 -pix_fmt yuv420p a.ts",
                "@96x64*10 -c:v libx264 -pix_fmt yuv444p -output_ts_offset 0.4 b.ts",
                "cat a.ts b.ts",
            ],
        ),
        clip(
            "hevc_10.ts",
            &[
                "@96x64*10 -c:v libx265 -x265-params log-level=none -pix_fmt yuv420p a.ts",
                "@96x64*10 -c:v libx265 -x265-params log-level=none -pix_fmt yuv420p10le -output_ts_offset 0.4 b.ts",
                "cat a.ts b.ts",
            ],
        ),
        clip(
            "mpeg2_422.m2v",
            &[
                "@96x64*10 -c:v mpeg2video -pix_fmt yuv420p a.m2v",
                "@96x64*10 -c:v mpeg2video -pix_fmt yuv422p b.m2v",
                "cat a.m2v b.m2v",
            ],
        ),
        clip(
            "vp9_profiles.mkv",
            &[
                "@96x64*10 -c:v libvpx-vp9 -cpu-used 8 -deadline realtime -pix_fmt yuv420p a.webm",
                "@96x64*10 -c:v libvpx-vp9 -cpu-used 8 -deadline realtime -pix_fmt yuv444p b.webm",
                "list a.webm b.webm",
            ],
        ),
        // Only what the numbers mean changes.
        clip(
            "range.ts",
            &[
                "@96x64*10 -c:v libx264 -vf scale=out_range=pc -color_range pc -pix_fmt yuv420p a.ts",
                "@96x64*10 -c:v libx264 -pix_fmt yuv420p -output_ts_offset 0.4 b.ts",
                "cat a.ts b.ts",
            ],
        ),
        clip(
            "matrix.ts",
            &[
                "@96x64*10 -c:v libx264 -vf scale=out_color_matrix=bt709 -colorspace bt709 -pix_fmt yuv420p a.ts",
                "@96x64*10 -c:v libx264 -colorspace smpte170m -pix_fmt yuv420p -output_ts_offset 0.4 b.ts",
                "@96x64*10 -c:v libx264 -pix_fmt yuv420p -output_ts_offset 0.8 c.ts",
                "cat a.ts b.ts c.ts",
            ],
        ),
    ]);
}

#[test]
fn colours() {
    check(&[
        clip(
            "smpte240m.mkv",
            &["@96x64*6 -vf scale=out_color_matrix=smpte240m -c:v libx264 -pix_fmt yuv420p -colorspace smpte240m"],
        ),
        clip("fcc.mp4", &["@96x64*6 -vf scale=out_color_matrix=fcc -c:v libx264 -pix_fmt yuv422p -colorspace fcc"]),
        clip("h264_rgb.mkv", &["@96x64*6 -c:v libx264rgb"]),
        clip(
            "bt2020_10.mov",
            &[
                "@96x64*6 -vf scale=out_color_matrix=bt2020 -c:v libx265 -x265-params log-level=none -pix_fmt yuv420p10le -colorspace bt2020nc -color_trc smpte2084 -color_primaries bt2020 -tag:v hvc1",
            ],
        ),
        clip("hevc12.mkv", &["@96x64*6 -c:v libx265 -x265-params log-level=none -pix_fmt yuv422p12le"]),
        clip(
            "vp9_full.webm",
            &[
                "@96x64*6 -vf scale=out_color_matrix=bt709:out_range=pc -c:v libvpx-vp9 -cpu-used 8 -deadline realtime -pix_fmt yuv420p -colorspace bt709 -color_range pc",
            ],
        ),
        clip("vp9_12.webm", &["@96x64*6 -c:v libvpx-vp9 -cpu-used 8 -deadline realtime -pix_fmt yuv444p12le"]),
        clip(
            "av1_10.mkv",
            &[
                "@96x64*6 -c:v libaom-av1 -cpu-used 8 -usage realtime -pix_fmt yuv420p10le -colorspace bt709 -color_range pc",
            ],
        ),
        clip("full_gray.mp4", &["@96x64*6 -c:v libx264 -pix_fmt gray -color_range pc"]),
        clip("gray_limited.mkv", &["@96x64*6 -c:v libx264 -pix_fmt gray -color_range tv"]),
        clip("gray10.mkv", &["@96x64*6 -c:v libx264 -pix_fmt gray10le"]),
        clip("raw_uyvy.mov", &["@96x64*4 -c:v rawvideo -pix_fmt uyvy422 -tag:v 2vuy"]),
        clip("raw_yuy2.avi", &["@96x64*4 -c:v rawvideo -pix_fmt yuyv422"]),
        clip("raw_rgb555.avi", &["@98x66*4 -c:v rawvideo -pix_fmt rgb555le"]),
        clip("raw_nv12.mkv", &["@98x66*4 -c:v rawvideo -pix_fmt nv12"]),
        clip("raw_argb.mov", &["@97x65*4 -c:v rawvideo -pix_fmt argb"]),
        clip("yuv410.avi", &["@96x64*4 -c:v ffv1 -pix_fmt yuv410p -strict -2"]),
        clip("dv_ntsc.avi", &["@720x480*2/30000/1001 -c:v dvvideo -pix_fmt yuv411p"]),
        clip("ffv1_rgba64.mkv", &["@96x64*4 -c:v ffv1 -pix_fmt rgba64le -strict -2"]),
        clip("ffv1_444_16.mkv", &["@96x64*4 -c:v ffv1 -pix_fmt yuv444p16le -color_range pc -colorspace bt709"]),
        clip("prores_alpha.mov", &["@96x64*4 -c:v prores_ks -profile:v 5 -pix_fmt yuva444p10le"]),
        clip("y4m_full.y4m", &["@96x64*4 -pix_fmt yuvj444p -strict -1"]),
        clip("y4m_mono.y4m", &["@97x65*4 -pix_fmt gray12le -strict -1"]),
        clip(
            "utvideo_709.avi",
            &["@96x64*4 -vf scale=out_color_matrix=bt709 -c:v utvideo -pix_fmt yuv422p -colorspace bt709"],
        ),
        clip("mono.avi", &["@96x64*4 -c:v rawvideo -pix_fmt monow"]),
        clip("pal8.avi", &["@96x64*4 -c:v rawvideo -pix_fmt pal8"]),
        clip("interlaced.mov", &["@96x64*8 -c:v prores_ks -flags +ildct -field_order bt"]),
    ]);
}
