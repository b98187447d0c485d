//! Files that are no videos, or none that are taken, and what they are told to be.

use super::{bytes::set, clip, refuse};

#[test]
fn formats_that_are_not_taken() {
    let archive = |bytes: &mut Vec<u8>| {
        bytes.splice(..0, [&[b'x'; 257][..], b"ustar\0", &[0; 249]].concat());
    };
    refuse(&[
        (clip("camera.dv", &["@720x576*2 -c:v dvvideo -pix_fmt yuv420p"]), "a DV stream without a container"),
        (clip("av1.obu", &["@96x64*2 -c:v libaom-av1 -usage realtime -cpu-used 8"]), "an AV1 stream without"),
        (clip("dirac.drc", &["@96x64*2 -c:v vc2"]), "a Dirac stream"),
        (clip("broadcast.gxf", &["@720x576*2 -c:v mpeg2video"]), "a GXF file"),
        (clip("television.wtv", &["@96x64*4 -c:v mpeg2video"]), "a WTV file"),
        (clip("flash.swf", &["@96x64*4 -c:v flv1"]), "a Flash animation"),
        (clip("game.roq", &["@128x96*4/30 -c:v roqvideo"]), "a RoQ video"),
        (clip("nut.nut", &["@96x64*4 -c:v mpeg4"]), "a NUT file"),
        (clip("real.rm", &["@96x64*4 -c:v rv10"]), "a RealMedia file"),
        (clip("sound.wav", &["~1"]), "a WAV file"),
        (clip("sound.w64", &["~1"]), "in a format that is not taken"),
        (clip("sound.flac", &["~1"]), "a FLAC file"),
        (clip("sound.mp3", &["~1"]), "an MP3 file"),
        (clip("sound.aac", &["~1"]), "an AAC file"),
        (clip("sound.caf", &["~1"]), "a CAF file"),
        (clip("sound.m4a", &["~1"]), "sound but no video track"),
        (clip("sound.mka", &["~1"]), "sound but no video track"),
        (clip("sound.oga", &["~1"]), "sound but no video track"),
        (clip("sound.wma", &["~1"]), "sound but no video track"),
        (clip("sound.ts", &["~1 -c:a mp2"]), "sound but no video track"),
        (clip("subtitles.srt", &["srt a.srt", "-i a.srt"]), "text"),
        (clip("subtitles.mkv", &["srt a.srt", "-i a.srt"]), "no video track"),
        (clip("list.m3u8", &["@96x64*4 -c:v libx264 -hls_flags single_file"]), "a playlist (M3U)"),
        (clip("list.mpd", &["@96x64*4 -c:v libx264"]), "text"),
        (clip("archive.mp4", &["@96x64*4 -c:v libx264"]).edited(archive), "a tar archive"),
        (
            clip("packed.mp4", &["@96x64*4 -c:v libx264"]).edited(|bytes| bytes[..6].copy_from_slice(b"\xfd7zXZ\0")),
            "by xz",
        ),
        (clip("raw.yuv", &["@96x64*4 -c:v rawvideo"]), "in a format that is not taken"),
    ]);
}

#[test]
fn images() {
    refuse(&[
        (clip("a.jpg", &["@96x64*1"]), "a still JPEG image"),
        (clip("a.png", &["@96x64*1"]), "a PNG image"),
        (clip("a.bmp", &["@96x64*1"]), "a still BMP image"),
        (clip("a.tiff", &["@96x64*1"]), "a still TIFF image"),
        (clip("a.webp", &["@96x64*1"]), "a WebP image"),
        (clip("a.gif", &["@96x64*5"]), "a GIF image"),
        (clip("a.apng", &["@96x64*5"]), "a PNG image"),
        (clip("a.jxl", &["@96x64*1"]), "a JPEG XL image"),
        (clip("a.jp2", &["@96x64*1"]), "a still JPEG 2000 image"),
        (clip("a.j2c", &["@96x64*1 -format j2k -f image2"]), "a still JPEG 2000 image"),
        (clip("a.exr", &["@96x64*1"]), "a still OpenEXR image"),
        (clip("a.dpx", &["@96x64*1"]), "a still DPX image"),
        (clip("a.pcx", &["@96x64*1"]), "a still PCX image"),
        (clip("a.ppm", &["@96x64*1"]), "a still Netpbm image"),
        (clip("a.pam", &["@96x64*1"]), "a still Netpbm image"),
        (clip("a.qoi", &["@96x64*1"]), "a still QOI image"),
        (clip("a.avif", &["@96x64*3 -c:v libaom-av1 -cpu-used 8"]), "an AVIF image"),
        (clip("a.heic", &["@96x64*1 -f mp4"]).edited(|bytes| set(bytes, 8, b"heic")), "a HEIC image"),
        (clip("b.heic", &["@96x64*1 -f mp4"]).edited(|bytes| set(bytes, 8, b"mif1")), "a HEIF image"),
        (clip("c.heif", &["@96x64*1 -f mp4"]).edited(|bytes| set(bytes, 8, b"avci")), "a HEIF image"),
        (clip("a.cr3", &["@96x64*1 -f mp4"]).edited(|bytes| set(bytes, 8, b"crx ")), "a still Canon raw image"),
        (clip("a.tga", &["@96x64*1"]), "in a format that is not taken"),
    ]);
}
