//! The real executable, as its runner and the API see it: jobs over pipes, and the probes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "worker/bytes.rs"]
mod bytes;
#[path = "worker/change.rs"]
mod change;
#[path = "worker/confined.rs"]
mod confined;
#[path = "worker/hooks.rs"]
mod hooks;
#[path = "worker/lanes.rs"]
mod lanes;
#[path = "worker/process.rs"]
mod process;
#[path = "worker/shadow.rs"]
mod shadow;

use std::{fs, path::Path, process::Command};

use framehook_core::{
    input::{InputOptions, Layout},
    job::{Control, Job, Outcome, Report},
    prediction::{Position, Prediction},
    reason::ReasonCode,
    spec::{Decoder, Sampling, TimeRange},
};
use framehook_worker::{feed::FrameInput, model::Model};
use process::{Worker, asset, command, hook, job, onnxruntime, probe};
use serde_json::json;

/// The demo clip.
const FRAMES: usize = 500;

/// All frames, and how it ended.
fn run(job: &Job) -> (Vec<Prediction>, Outcome, ReasonCode, String) {
    let mut frames = Vec::new();
    let (outcome, reason) = Worker::start(job).until_end(|report| {
        if let Report::Frame(prediction) = report {
            frames.push(prediction);
        }
    });
    (frames, outcome, reason.code, reason.message)
}

fn times(frames: &[Prediction]) -> Vec<(u64, i64)> {
    frames.iter().map(|p| (p.frame, p.pts_us)).collect()
}

#[test]
fn every_frame_comes_once_in_order_with_the_same_times_on_every_run() {
    let job = job("demo1.mp4");
    let mut worker = Worker::start(&job);
    let Report::Ready(ready) = worker.next() else { panic!("the first report is not Ready") };
    assert_eq!((ready.width, ready.height, ready.declared_frames), (640, 360, Some(FRAMES as u64)));
    let (frames, outcome, code, message) = run(&job);
    assert_eq!((outcome, code), (Outcome::Finished, ReasonCode::EndOfStream), "{message}");
    let expected: Vec<_> = (0..FRAMES).map(|k| (k as u64, k as i64 * 40_000)).collect();
    assert_eq!(times(&frames), expected);
    for prediction in &frames {
        let since = prediction.captured_at.duration_since(job.created_at);
        assert_eq!(since.as_micros(), i128::from(prediction.pts_us));
        assert!(prediction.timings.inference_us > 0 && prediction.timings.decode_us > 0);
        assert_eq!(prediction.provenance, job.provenance);
    }
    assert_eq!(times(&run(&job).0), expected);
}

#[test]
fn a_resumed_run_gives_exactly_the_rest() {
    let whole = times(&run(&job("demo1.mp4")).0);
    for stored in [0, 123, FRAMES - 2, FRAMES - 1] {
        let (frame, pts_us) = whole[stored];
        let mut job = job("demo1.mp4");
        job.resume_after = Some(Position { pts_us, frame });
        let (rest, outcome, ..) = run(&job);
        assert_eq!(outcome, Outcome::Finished);
        assert_eq!(times(&rest), whole[stored + 1..], "after frame {stored}");
    }
}

#[test]
fn only_frames_that_are_asked_for_come() {
    let whole = times(&run(&job("demo1.mp4")).0);
    let check = |frames: Option<Sampling>, range: Option<TimeRange>, expected: &[(u64, i64)]| {
        let sampled = |resume_after| {
            let job = Job { frames, range, resume_after, ..job("demo1.mp4") };
            let (predictions, outcome, code, message) = run(&job);
            assert_eq!((outcome, code), (Outcome::Finished, ReasonCode::EndOfStream), "{message}");
            predictions
        };
        let all = sampled(None);
        assert_eq!(times(&all), expected);
        let left_out: u64 = all.iter().map(|prediction| prediction.left_out).sum();
        assert_eq!(left_out + all.len() as u64, expected.last().unwrap().0 + 1, "all are accounted for");
        let (frame, pts_us) = expected[expected.len() / 2];
        let rest = sampled(Some(Position { pts_us, frame }));
        assert_eq!(times(&rest), expected[expected.len() / 2 + 1..]);
        assert_eq!(rest[0].left_out, all[expected.len() / 2 + 1].left_out);
    };
    let every = |n| whole.iter().copied().step_by(n).collect::<Vec<_>>();
    check(Some(Sampling::Every(50)), None, &every(50));
    // The clip has 25 a second.
    check(Some(Sampling::Fps(2.5)), None, &every(10));
    let range = TimeRange { from_us: Some(400_000), until_us: Some(800_000) };
    check(None, Some(range), &whole[10..20]);
}

#[test]
fn a_range_behind_the_end_is_told() {
    let range = Some(TimeRange { from_us: Some(60_000_000), until_us: None });
    let (frames, outcome, code, message) = run(&Job { range, ..job("demo1.mp4") });
    assert_eq!((frames.len(), outcome, code), (0, Outcome::Finished, ReasonCode::EndOfStream));
    assert_eq!(message, "the video came to its end before the range begins");
}

#[test]
fn a_frame_says_its_size_and_what_decoded_it() {
    for decoder in [Decoder::Libav, Decoder::Opencv] {
        let mut job = Job { decoder, ..job("demo1.mp4") };
        job.provenance.decoder = Some(decoder);
        let mut worker = Worker::start(&job);
        let first = loop {
            if let Report::Frame(prediction) = worker.next() {
                break prediction;
            }
        };
        assert_eq!((first.size, first.provenance.decoder), (Some([640, 360]), Some(decoder)));
    }
}

#[test]
fn stop_finishes_what_is_in_flight() {
    let mut worker = Worker::start(&job("demo1.mp4"));
    let mut seen = 0;
    loop {
        match worker.next() {
            Report::Frame(prediction) => {
                assert_eq!(prediction.frame, seen);
                if seen == 0 {
                    worker.send(&Control::Stop);
                }
                seen += 1;
            }
            Report::Ended { outcome, reason } => {
                assert_eq!((outcome, reason.code), (Outcome::Stopped, ReasonCode::StoppedByUser));
                break;
            }
            _ => {}
        }
    }
    assert!((seen as usize) < FRAMES, "it did not stop");
    assert!(worker.wait().success());
}

#[test]
fn a_worker_does_not_outlive_its_runner() {
    let mut worker = Worker::start(&job("demo1.mp4"));
    worker.until_first_frame();
    worker.close_stdin();
    assert!(!worker.wait().success());
    let mut worker = Worker::start_deaf(&job("demo1.mp4"));
    assert!(!worker.wait().success());
}

#[test]
fn what_cannot_be_loaded_fails_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    fs::write(&text, "this is no model and no video").unwrap();
    let check = |job: &Job, code: ReasonCode, words: &str| {
        let (frames, outcome, got, message) = run(job);
        assert_eq!((frames.len(), outcome, got), (0, Outcome::Failed, code), "{message}");
        assert!(message.contains(words), "{message}");
    };
    let mut missing = job("demo1.mp4");
    missing.source = folder.path().join("missing.mp4");
    check(&missing, ReasonCode::SourceUnreachable, "does not exist");
    let mut no_video = job("demo1.mp4");
    no_video.source.clone_from(&text);
    check(&no_video, ReasonCode::DecodeError, "is text");
    let mut no_model = job("demo1.mp4");
    no_model.model.clone_from(&text);
    check(&no_model, ReasonCode::ModelLoad, "not an ONNX model");
    let mut no_plugin = job("demo1.mp4");
    no_plugin.post = vec![hook("nothing", &text, json!({}))];
    check(&no_plugin, ReasonCode::PluginIncompatible, "nothing@1");
    let mut no_library = job("demo1.mp4");
    no_library.onnxruntime = text;
    check(&no_library, ReasonCode::ModelLoad, "scripts/onnxruntime.sh");
    let mut wrong_input = job("demo1.mp4");
    wrong_input.input.tensor = "pixels".into();
    check(&wrong_input, ReasonCode::ModelLoad, "no input `pixels`; its inputs are images");
    let mut wrong_size = job("demo1.mp4");
    wrong_size.input.width = 64;
    check(&wrong_size, ReasonCode::ModelLoad, "Got: 64 Expected: 320");
}

#[test]
fn a_truncated_video_keeps_its_predictions_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(asset("demo1.mp4")).unwrap();
    for decoder in [Decoder::Libav, Decoder::Opencv] {
        let mut job = job("demo1.mp4");
        (job.source, job.decoder) = (folder.path().join("half.mp4"), decoder);
        fs::write(&job.source, &whole[..whole.len() / 2]).unwrap();
        let (frames, outcome, code, message) = run(&job);
        assert_eq!((outcome, code), (Outcome::Finished, ReasonCode::SourceIncomplete), "{message}");
        assert!((50..FRAMES - 50).contains(&frames.len()), "{}", frames.len());
        assert!(message.contains(&format!("ended after {} of {FRAMES} frames", frames.len())), "{message}");
    }
}

#[test]
fn probe_video_says_what_a_file_is() {
    let good = json!({"ok": {"width": 640, "height": 360, "fps": 25.0, "frames": FRAMES}});
    assert_eq!(probe(&["probe-video".as_ref(), asset("demo1.mp4").as_ref()]), good);
    let clip = fs::read(asset("demo1.mp4")).unwrap();
    let truncated = &clip[..300_000];
    let needs = clip.len();
    // FFmpeg would follow it; the control character keeps it from being text.
    let target = asset("demo1.mp4").canonicalize().unwrap();
    let playlist =
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n\u{1}", target.display());
    let cases: [(&str, &[u8], &str, &str); 13] = [
        ("empty", b"", "empty_file", "0 bytes"),
        ("jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF\0", "image_not_video", "JPEG image"),
        ("png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image_not_video", "PNG image"),
        ("text", b"hello, world\n", "not_a_video", "is text"),
        ("playlist", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "not_a_video", "playlist (M3U)"),
        ("concat", b"ffconcat version 1.0\nfile demo1.mp4\n", "not_a_video", "is text"),
        ("garbage", &bytes::garbage(5000), "not_a_video", "cannot be opened as a video"),
        ("no moov", &bytes::without_moov(&clip), "no_moov", "no `moov` box"),
        ("truncated", truncated, "truncated", &format!("ends at byte {needs}, but the file has 300000 bytes")),
        ("sound", &bytes::sound_only(), "no_video_track", "sound but no video track"),
        ("hidden.m3u8", playlist.as_bytes(), "not_a_video", "cannot be opened as a video"),
        ("wav", &bytes::wav(), "not_a_video", "cannot be opened as a video"),
        ("hollow", &bytes::hollow(&clip), "not_decodable", "first frame"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, content, code, words) in cases {
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        check_problem(&probe(&["probe-video".as_ref(), file.as_ref()]), name, code, words);
    }
    let missing = folder.path().join("missing");
    check_problem(&probe(&["probe-video".as_ref(), missing.as_ref()]), "missing", "not_found", "does not exist");
    check_problem(&probe(&["probe-video".as_ref(), folder.path().as_ref()]), "folder", "unreadable", "folder");
}

#[test]
fn a_picture_has_a_size_that_is_allowed() {
    let clip = fs::read(asset("demo1.mp4")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mp4");
    let probe_with = |bytes: &[u8], side: &str| {
        fs::write(&file, bytes).unwrap();
        probe(&["probe-video".as_ref(), file.as_ref(), "--max-picture-side".as_ref(), side.as_ref()])
    };
    assert_eq!(probe_with(&clip, "640")["ok"]["width"], 640);
    let declared = bytes::declaring(&clip, 64, 16_000);
    check_problem(
        &probe_with(&declared, "8192"),
        "declared",
        "picture_too_large",
        "64x16000 pixels, but at most 8192x8192",
    );
    // The stream is larger than its container says.
    let hidden = bytes::declaring(&clip, 64, 36);
    check_problem(&probe_with(&hidden, "600"), "hidden", "picture_too_large", "640x360 pixels, but at most 600x600");
    let mut job = job("demo1.mp4");
    job.max_picture_side = 600;
    let (.., outcome, code, message) = run(&job);
    assert_eq!((outcome, code), (Outcome::Failed, ReasonCode::DecodeError), "{message}");
    assert!(message.contains("--max-picture-side"), "{message}");
}

#[test]
fn outputs_have_a_size_that_is_allowed() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/model");
    // 128 Mi numbers of a byte each, which nothing declares; half a GiB for a hook.
    let spec = job("demo1.mp4").input;
    let mut model = Model::load(&seeds.join("out_grows.onnx"), &onnxruntime(), 1).unwrap().bind(&spec).unwrap();
    for outputs in [None, Some(&mut Vec::new())] {
        let image = vec![0.0; spec.frame_len()];
        let error = model.run(&FrameInput::of_input_size(&spec, &image), outputs).unwrap_err();
        assert_eq!(error.code(), "unsuitable_output", "{error}");
        assert!(error.to_string().contains("512 MiB as float32, but at most 256 MiB"), "{error}");
    }
}

#[test]
fn probe_model_says_what_a_file_is() {
    let street = probe_model(&asset("street.onnx"));
    assert_eq!(street["ok"]["inputs"], json!([{"name": "images", "element": "float32", "shape": [1, 3, 192, 320]}]));
    assert_eq!(street["ok"]["outputs"][0]["name"], "output0");
    let whole = fs::read(asset("street.onnx")).unwrap();
    let cases: [(&str, &[u8], &str, &str); 10] = [
        ("empty", b"", "empty_file", "0 bytes"),
        ("text", b"hello, world\n", "not_onnx", "torch.onnx.export"),
        ("garbage", &bytes::garbage(5000), "not_onnx", "not an ONNX model"),
        ("truncated", &whole[..whole.len() / 2], "truncated", &format!("the file has {} bytes", whole.len() / 2)),
        ("external", &bytes::model_with_external_data(), "external_data", "tensor `w` lies in another file (`w.bin`)"),
        ("custom", &bytes::model_with_operator("my.ops"), "custom_operator", "custom domain `my.ops`"),
        ("unknown operator", &bytes::model_with_operator(""), "model_load", "ONNX Runtime cannot load the model"),
        ("channels", &bytes::identity_model([1, 2, 32, 32]), "unsuitable_input", "second (NCHW) or last (NHWC)"),
        ("huge", &bytes::identity_model([1, 3, 9000, 9000]), "unsuitable_output", "926 MiB as float32"),
        ("name", &bytes::identity_model_named("y\x1b[31m"), "unsuitable_tensors", "`y\\u{1b}[31m`"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, content, code, words) in cases {
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        check_problem(&probe_model(&file), name, code, words);
    }
    check_problem(&probe_model(&folder.path().join("missing")), "missing", "unreadable", "cannot be read");
}

#[test]
fn weights_listed_as_inputs_are_no_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("add.onnx");
    fs::write(&file, bytes::model_with_listed_weight()).unwrap();
    let names: Vec<_> =
        probe_model(&file)["ok"]["inputs"].as_array().unwrap().iter().map(|i| i["name"].clone()).collect();
    assert_eq!(names, ["x"]);
}

#[test]
fn outputs_of_every_number_type_are_read_as_floats() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cast.onnx");
    // ONNX's numbers for uint8, int8, int32, int64, bool, float16, double.
    for element in [1, 2, 3, 6, 7, 9, 10, 11] {
        fs::write(&file, bytes::cast_model(element)).unwrap();
        let model = Model::load(&file, &onnxruntime(), 1).unwrap();
        let planes = InputOptions { layout: Some(Layout::Nchw), ..Default::default() };
        let spec = planes.resolve(&model.manifest().inputs).unwrap();
        let (mut model, mut outputs) = (model.bind(&spec).unwrap(), Vec::new());
        model.run(&FrameInput::of_input_size(&spec, &[0.0, 1.0, 1.0]), Some(&mut outputs)).unwrap();
        let read = outputs[0].data.values().read(0..3).unwrap();
        assert_eq!((&outputs[0].desc.shape[..], &read[..]), (&[1, 3, 1, 1][..], &[0.0, 1.0, 1.0][..]));
        assert_eq!(outputs[0].desc.name, "y", "element type {element}");
    }
}

#[test]
fn annotate_draws_on_every_frame() {
    let folder = tempfile::tempdir().unwrap();
    let (lines, out) = (folder.path().join("predictions.ndjson"), folder.path().join("out.mp4"));
    let (mut frames, ..) = run(&job("demo1.mp4"));
    let detection = json!({"class_id": 1, "label": "car", "score": 0.9, "box": [0.2, 0.2, 0.3, 0.3], "track_id": 7,
        "keypoints": [[0.3, 0.3]]});
    frames[3].detections = vec![serde_json::from_value(detection).unwrap()];
    let text: String = frames.iter().map(|p| serde_json::to_string(p).unwrap() + "\n").collect();
    fs::write(&lines, text).unwrap();
    let status = command().arg("annotate").args([asset("demo1.mp4"), lines, out.clone()]).status().unwrap();
    assert!(status.success());
    let verdict = probe(&["probe-video".as_ref(), out.as_ref()]);
    let expected = json!({"ok": {"width": 640, "height": 360, "fps": 25.0, "frames": FRAMES}});
    assert_eq!(verdict, expected);
}

/// How much neighbouring pixels differ, between two columns, on frame 3 of a video.
fn detail(video: &Path, columns: std::ops::Range<usize>) -> f64 {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(video).args(["-vf", "select=eq(n\\,3)", "-frames:v", "1"]);
    let picture = ffmpeg.args(["-f", "rawvideo", "-pix_fmt", "gray", "-"]).output().unwrap().stdout;
    assert_eq!(picture.len(), 640 * 360);
    // Below the status and above the captions.
    let rows = picture.chunks(640).skip(40).take(280).map(|row| &row[columns.clone()]);
    let differences = rows.flat_map(|row| row.windows(2).map(|pair| f64::from(pair[0].abs_diff(pair[1]))));
    differences.sum::<f64>() / (280 * columns.len()) as f64
}

#[test]
fn annotate_hides_what_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let (lines, out) = (folder.path().join("predictions.ndjson"), folder.path().join("out.mp4"));
    let (mut frames, ..) = run(&job("demo1.mp4"));
    // The left half, on the frame before one that nobody looked at.
    let private = json!({"class_id": 0, "score": 1.0, "box": [0.0, 0.0, 0.5, 1.0], "attributes": {"privacy": "blur"},
        "polygon": [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]});
    frames[2].detections = vec![serde_json::from_value(private).unwrap()];
    frames[3].detections.clear();
    frames[3].skipped = Some(serde_json::from_value(json!({"by": "a@1", "reason": "nothing moves"})).unwrap());
    let text: String = frames.iter().map(|p| serde_json::to_string(p).unwrap() + "\n").collect();
    fs::write(&lines, text).unwrap();
    let video = asset("demo1.mp4");
    let status = command().arg("annotate").args([&video, &lines, &out]).status().unwrap();
    assert!(status.success());
    let (hidden, before) = (detail(&out, 10..300), detail(&video, 10..300));
    assert!(hidden < before / 4.0, "{hidden} of {before}");
    let (shown, before) = (detail(&out, 340..630), detail(&video, 340..630));
    assert!((shown - before).abs() < before / 4.0, "{shown} instead of {before}");
}

#[test]
fn bench_inference_measures() {
    let model = asset("street.onnx");
    let library = onnxruntime();
    let figures = probe(&[
        "bench-inference".as_ref(),
        model.as_ref(),
        "--frames".as_ref(),
        "20".as_ref(),
        "--sessions".as_ref(),
        "2".as_ref(),
        "--onnxruntime".as_ref(),
        library.as_ref(),
    ]);
    assert_eq!(figures["frames"], 40);
    for figure in ["seconds", "fps", "cpu_ms_per_frame", "peak_rss_mb"] {
        assert!(figures[figure].as_f64().unwrap() > 0.0, "{figures}");
    }
}

fn probe_model(file: &Path) -> serde_json::Value {
    let library = onnxruntime();
    probe(&["probe-model".as_ref(), file.as_ref(), "--onnxruntime".as_ref(), library.as_ref()])
}

fn check_problem(verdict: &serde_json::Value, name: &str, code: &str, words: &str) {
    assert_eq!(verdict["findings"][0]["code"], code, "{name}: {verdict}");
    assert!(verdict["findings"][0]["message"].as_str().unwrap().contains(words), "{name}: {verdict}");
}
