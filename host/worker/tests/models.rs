//! Models of the kinds that people export, each on a frame of the demo clip. What they give is
//! compared with what Python's binding of ONNX Runtime makes of the same pixels
//! (`tests/models.py`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use framehook_core::{
    artifact::{ModelManifest, ModelMetadata},
    input::{InputOptions, InputSpec},
    job::DEFAULT_PICTURE_SIDE,
    probe::Verdict,
};
use framehook_engine::media::{Elements, Output, Region};
use framehook_tests::{models, root};
use framehook_worker::{
    feed::FrameInput,
    image::{BGR_PIXEL, BgrCache, Image},
    model::Model,
    preprocess::Preprocessor,
    probe, source,
};
use serde_json::{Value, json};

/// Between our conversion of a frame's planes and libswscale's, of 255.
const CONVERSION: f64 = 3.0;
/// Where both begin with the same pixels, of 255.
const SAME_PIXELS: f64 = 1.0;

fn onnxruntime() -> PathBuf {
    std::env::var_os("FRAMEHOOK_ONNXRUNTIME")
        .map_or_else(|| root().join(".cache/onnxruntime/libonnxruntime.so"), PathBuf::from)
}

/// The first frame of the demo clip.
fn first_frame() -> Image {
    let clip = root().join("assets/demo1.mp4");
    let mut video = source::open(&clip, DEFAULT_PICTURE_SIDE).unwrap();
    video.advance().unwrap().unwrap();
    let mut image = Image::default();
    video.picture(&mut image).unwrap();
    image
}

/// A model, how it is said to be, and what it is to be fed with.
struct Case {
    model: &'static str,
    options: Value,
    layout: &'static str,
    feeds: Value,
}

fn case(model: &'static str, options: Value, layout: &'static str) -> Case {
    Case { model, options, layout, feeds: json!({}) }
}

fn cases() -> Vec<Case> {
    let (none, open) = (|| json!({}), || json!({"size": [640, 360]}));
    let mut cases = vec![
        case("nhwc_dyn", open(), "nhwc"),
        case("nhwc_u8", none(), "nhwc"),
        case("nhwc_f32", none(), "nhwc"),
        case("nhwc_f16", none(), "nhwc"),
        case("nchw_u8", none(), "nchw"),
        case("nchw_f16", none(), "nchw"),
        case("nchw_i8", none(), "nchw"),
        case("grey_f32", none(), "nchw"),
        case("grey_i8", json!({"channels": "bgr"}), "nhwc"),
        case("rgba_u8", none(), "nhwc"),
        case("rgba_f32", none(), "nchw"),
        case("open", json!({"size": [640, 360], "layout": "nchw"}), "nchw"),
        case("batch4", none(), "nchw"),
        case("batch4_nhwc_u8", none(), "nhwc"),
        case("batch4_joined", none(), "nchw"),
        case("corner_nhwc_u8", none(), "nhwc"),
        case("corner_nhwc_f16", none(), "nhwc"),
        case("corner_i8", none(), "nchw"),
        case("int64_big", none(), "nchw"),
        case("int32_big", none(), "nchw"),
        case("uint64_big", none(), "nchw"),
        case("double_big", none(), "nchw"),
        case("nan_inf", none(), "nchw"),
        case("string_and_float", none(), "nchw"),
        case("sequence_and_float", none(), "nchw"),
        case("quantised", none(), "nchw"),
        case("quantised_channels", none(), "nchw"),
        case("quantised_dynamic", none(), "nchw"),
        case("ort_basic.onnx", none(), "nchw"),
        case("ort_all.onnx", none(), "nchw"),
        case("convolution.ort", none(), "nchw"),
    ];
    let fed = |model, inputs, feeds| Case { feeds, ..case(model, json!({"inputs": inputs}), "nchw") };
    cases.push(fed("rtdetr", json!({"orig_target_sizes": "frame_size"}), json!({"orig_target_sizes": [640, 360]})));
    cases.push(fed(
        "paddle",
        json!({"im_shape": "input_size", "scale_factor": "scale"}),
        json!({"im_shape": [360, 640], "scale_factor": [1, 1]}),
    ));
    cases.push(fed("threshold", json!({"threshold": [0.25]}), json!({"threshold": [0.25]})));
    cases
}

fn bound(file: &Path, options: &Value) -> (framehook_worker::model::BoundModel, InputSpec) {
    let model = Model::load(file, &onnxruntime(), 1).unwrap();
    let options: InputOptions = serde_json::from_value(options.clone()).unwrap();
    let spec = options.resolve(&model.manifest().inputs).unwrap();
    (model.bind(&spec).unwrap(), spec)
}

/// What the model gives for the frame, made into its input by `fill`.
fn run(file: &Path, options: &Value, fill: impl Fn(&mut Preprocessor, &mut Vec<f32>)) -> Vec<Output> {
    let (mut model, spec) = bound(file, options);
    let mut preprocessor = Preprocessor::new(&spec, 640, 360);
    let (mut image, mut outputs) = (Vec::new(), Vec::new());
    // Twice: nothing of the first run may stay in the second.
    for _ in 0..2 {
        fill(&mut preprocessor, &mut image);
        let frame = FrameInput { geometry: preprocessor.geometry(), ..FrameInput::of_input_size(&spec, &image) };
        model.run(&frame, Some(&mut outputs)).unwrap();
    }
    outputs
}

fn check(model: &str, made: &[Output], right: &Value, tolerance: f64) {
    let right = right.as_array().unwrap();
    assert_eq!(made.len(), right.len(), "{model}: {made:?}");
    for (made, right) in made.iter().zip(right) {
        assert_eq!(
            (json!(made.desc.name), json!(made.desc.shape), json!(format!("{:?}", made.desc.element))),
            (right["name"].clone(), right["shape"].clone(), right["element"].clone()),
            "{model}"
        );
        let right: Vec<_> = right["numbers"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let exact = |texts: Vec<String>| assert_eq!(texts, right, "{model}");
        let near = |made: Vec<f64>| {
            assert_eq!(made.len(), right.len(), "{model}");
            for (made, right) in made.into_iter().zip(&right) {
                let right = right.parse::<f64>().unwrap();
                let near = made == right
                    || (made.is_nan() && right.is_nan())
                    || (made - right).abs() <= tolerance * right.abs().max(1.0);
                assert!(near, "{model}: {made} is not {right}");
            }
        };
        match &made.data {
            Elements::I64(all) => exact(all.iter().map(ToString::to_string).collect()),
            Elements::U64(all) => exact(all.iter().map(ToString::to_string).collect()),
            Elements::F64(all) => exact(all.iter().map(ToString::to_string).collect()),
            Elements::F32(all) => near(all.iter().copied().map(f64::from).collect()),
            // A number as the model writes it.
            Elements::Text(all) => near(all.iter().map(|text| text.parse().unwrap()).collect()),
        }
    }
}

#[test]
fn models_give_what_they_give_in_python() {
    let (folder, frame) = (models::folder(), first_frame());
    let mut cache = BgrCache::default();
    let bgr = cache.get(&frame).unwrap();
    let rows = bgr.data.chunks(bgr.stride).take(360).flat_map(|row| row[..640 * BGR_PIXEL].chunks_exact(BGR_PIXEL));
    let rgb: Vec<u8> = rows.flat_map(|pixel| pixel.iter().rev().copied()).collect();
    let scratch = tempfile::tempdir().unwrap();
    let pixels = scratch.path().join("rgb");
    fs::write(&pixels, rgb).unwrap();
    let cases = cases();
    let list: Vec<_> = cases.iter().map(|c| json!({"model": c.model, "layout": c.layout, "feeds": c.feeds})).collect();
    let judged = models::judge(&list, &pixels, scratch.path());
    for (Case { model, options, .. }, right) in cases.iter().zip(&judged) {
        let unit = if model.contains("u8") || model.contains("i8") { 1.0 } else { 1.0 / 255.0 };
        let file = folder.join(model);
        let planes = frame.as_yuv420().unwrap();
        check(model, &run(&file, options, |p, image| p.fill_planar(&planes, image)), right, CONVERSION * unit);
        let whole = Region { x: 0, y: 0, width: 640, height: 360 };
        check(model, &run(&file, options, |p, image| p.fill(bgr, whole, image).unwrap()), right, SAME_PIXELS * unit);
    }
}

fn probed(model: &Path) -> Verdict<ModelManifest> {
    probe::model(model, &onnxruntime())
}

#[test]
fn what_a_file_says_of_itself_is_shown() {
    let metadata = |model: &str| {
        let file = models::folder().join(model);
        let Verdict::Ok(manifest) = probed(&file) else { panic!("{:?}", probed(&file)) };
        (manifest.metadata, bound(&file, &json!({"inputs": {}})).0.labels())
    };
    let labels: Vec<_> = ["zero", "", "driver's seat"].map(str::to_owned).into();
    let expected = ModelMetadata { labels: labels.clone(), task: Some("detect".into()), stride: Some(32) };
    assert_eq!(metadata("named"), (expected, labels));
    assert_eq!(metadata("nchw_u8"), (ModelMetadata::default(), Vec::new()));
    assert_eq!(metadata("convolution.ort"), (ModelMetadata::default(), Vec::new()));
}

#[test]
fn an_upload_is_warned_about_what_a_scenario_has_to_know() {
    let folder = models::folder();
    for (model, words) in [
        ("nhwc_dyn", Some("a scenario has to say `input.size`")),
        ("open", Some("a scenario has to say `input.layout`")),
        (
            "rtdetr",
            Some(
                "a scenario has to say `input.inputs`: the model needs 2 inputs; say in `input.inputs` what feeds `orig_target_sizes` (int64 [?, 2])",
            ),
        ),
        ("paddle", Some("`im_shape` (float32 [1, 2]), `scale_factor` (float32 [1, 2])")),
        ("string_and_float", Some("output `label` is text: hooks built for framehook:plugin@0.1.0 do not see it")),
        ("sequence_and_float", Some("output `list` is sequence, neither numbers nor text")),
        ("batch4", Some("its batch is fixed to 4: as many consecutive frames are run at a time")),
        (
            "batch4_joined",
            Some("output `y` does not have 4 as its first dimension: each frame is run alone with 3 rows"),
        ),
        ("nhwc_u8", None),
        ("ort_all.onnx", None),
        ("convolution.ort", None),
    ] {
        let Verdict::Ok(manifest) = probed(&folder.join(model)) else {
            panic!("{model}: {:?}", probed(&folder.join(model)))
        };
        match words {
            Some(words) => {
                assert!(manifest.warnings.iter().any(|w| w.contains(words)), "{model}: {:?}", manifest.warnings)
            }
            None => assert!(manifest.warnings.is_empty(), "{model}: {:?}", manifest.warnings),
        }
    }
}

#[test]
fn models_of_every_version_are_taken_and_others_told_the_newest() {
    let folder = models::folder();
    for (kind, oldest, newest) in [("opset", 7, 26), ("ir", 3, 13)] {
        for version in oldest..=newest {
            let verdict = probed(&folder.join(format!("{kind}{version}")));
            assert!(
                matches!(&verdict, Verdict::Ok(manifest) if manifest.warnings.is_empty()),
                "{kind}{version}: {verdict:?}"
            );
        }
    }
    for (model, words) in
        [("opset99", "support for domain ai.onnx is till opset"), ("ir99", "max supported IR version")]
    {
        let Verdict::Findings(findings) = probed(&folder.join(model)) else { panic!("{model} is taken") };
        assert!(findings[0].message.contains(words), "{findings:?}");
    }
}

#[test]
fn a_damaged_ort_file_gets_a_verdict() {
    let whole = fs::read(models::folder().join("convolution.ort")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("damaged.ort");
    let verdict = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let mut probe = Command::new(env!("CARGO_BIN_EXE_framehook-worker"));
        let judged = probe.arg("probe-model").arg(&file).arg("--onnxruntime").arg(onnxruntime()).output().unwrap();
        assert!(judged.status.success(), "{:?}: {}", judged.status, String::from_utf8_lossy(&judged.stderr));
        serde_json::from_slice::<Value>(&judged.stdout).unwrap()
    };
    assert!(verdict(&whole)["ok"].is_object());
    for at in (8..whole.len()).step_by(499) {
        assert!(verdict(&whole[..at])["findings"].is_array(), "cut at {at}");
        let mut flipped = whole.clone();
        flipped[at] ^= 0x55;
        verdict(&flipped);
    }
}
