//! Previews of model inputs, over HTTP. What a picture has to show, NumPy and OpenCV say
//! (`tests/preview.py`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use framehook_tests::{models, platform::Platform, plugin, root};
use serde_json::{Value, json};

/// Between our resizing and conversion of a frame, and its JPEG, and ffmpeg's and OpenCV's, of 255.
const SAME: f64 = 3.0;

/// A red, a green, a blue and a grey quarter below cells that show the frame's number, 320 x 240
/// pixels.
fn clip() -> PathBuf {
    let made = Command::new("python3").arg(root().join("tests/clips.py")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    PathBuf::from(String::from_utf8(made.stdout).unwrap().trim()).join("plain.mp4")
}

/// The RGB bytes of a frame, by ffmpeg.
fn rgb(frame: u32, folder: &Path) -> PathBuf {
    let file = folder.join(format!("{frame}.rgb"));
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-y", "-v", "fatal", "-i"]).arg(clip()).args([
        "-vf",
        &format!("select=eq(n\\,{frame})"),
        "-frames:v",
        "1",
    ]);
    assert!(ffmpeg.args(["-f", "rawvideo", "-pix_fmt", "rgb24"]).arg(&file).status().unwrap().success());
    file
}

fn start() -> Platform {
    let (platform, folder) = (Platform::start(&[]), models::folder());
    for model in ["convolution", "grey_f32", "nhwc_u8", "nchw_i8", "open", "rtdetr"] {
        platform.upload(&format!("/model?name={}", model.replace('_', "-")), &folder.join(model));
    }
    platform.upload("/video?name=plain", &clip());
    platform.upload("/plugin", &plugin("centerface"));
    platform
}

#[test]
fn a_preview_shows_the_tensor_of_a_frame() {
    let (platform, scratch) = (start(), tempfile::tempdir().unwrap());
    let usual = json!({"frame": [320, 240], "size": [640, 360], "resize": "letterbox", "anchor": "center", "channels": "rgb",
        "pad": 114, "scale": 1.0 / 255.0, "mean": [0, 0, 0], "std": [1, 1, 1], "element": "float32", "planes": 3});
    // 25 frames a second: frame 25 is at one second.
    let cases = [
        ("convolution", "at_us=1000000", 25, json!({})),
        ("convolution", "at_us=1000001", 26, json!({})),
        ("convolution", "at_us=1000000&channels=bgr", 25, json!({"channels": "bgr"})),
        ("convolution", "at_us=1000000&resize=stretch", 25, json!({"resize": "stretch"})),
        ("convolution", "at_us=1000000&anchor=top_left&pad=0", 25, json!({"anchor": "top_left", "pad": 0})),
        (
            "convolution",
            "mean=0.485,0.456,0.406&std=0.229,0.224,0.225&at_us=1000000",
            25,
            json!({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),
        ),
        ("grey-f32", "at_us=1000000", 25, json!({"planes": 1})),
        (
            "nhwc-u8",
            "mean=100,100,100&at_us=1000000",
            25,
            json!({"element": "uint8", "scale": 1, "mean": [100, 100, 100]}),
        ),
        ("nchw-i8", "mean=0,0,0&at_us=1000000", 25, json!({"element": "int8", "scale": 1})),
        ("open", "at_us=1000000&layout=nhwc&size=320,192", 25, json!({"size": [320, 192]})),
    ];
    let mut asked = Vec::new();
    for (number, (model, query, frame, recipe)) in cases.iter().enumerate() {
        let (kind, bytes) = platform.get_bytes(&format!("/model/{model}/1/preview.jpg?video=plain@1&{query}"));
        assert_eq!(kind, "image/jpeg", "{model}");
        let jpeg = scratch.path().join(format!("{number}.jpg"));
        fs::write(&jpeg, bytes).unwrap();
        let mut case = usual.clone();
        case["jpeg"] = json!(jpeg);
        case["rgb"] = json!(rgb(*frame, scratch.path()));
        case.as_object_mut().unwrap().extend(recipe.as_object().unwrap().clone());
        asked.push(case);
    }
    let judged = models::answer(&mut models::python("preview.py"), &asked, scratch.path());
    for (number, row) in judged.iter().enumerate() {
        let row = row.as_array().unwrap();
        assert!(row[cases.len()].as_f64().unwrap() <= SAME, "the frame beside {}: {row:?}", cases[number].1);
        for (other, difference) in row[..cases.len()].iter().enumerate() {
            // Another recipe must not give this picture, or a mistake would not be seen.
            let is_same = difference.as_f64().is_some_and(|difference| difference <= SAME);
            assert_eq!(is_same, number == other, "{}, judged as {}: {difference}", cases[number].1, cases[other].1);
        }
    }
}

#[test]
fn what_a_plugin_declares_and_other_inputs_of_a_model_are_no_hindrance() {
    let platform = start();
    let preview =
        |model: &str, query: &str| platform.get_bytes(&format!("/model/{model}/1/preview.jpg?video=plain&{query}")).1;
    let declared = preview("convolution", "plugin=centerface");
    assert_eq!(declared, preview("convolution", "scale=1&pad=0&anchor=top_left"), "as the plugin's manifest says");
    assert_ne!(declared, preview("convolution", ""));
    assert_eq!(preview("rtdetr", ""), preview("convolution", "at_us=0"));
}

#[test]
fn what_cannot_be_shown_is_a_problem_that_names_the_parameter() {
    let platform = start();
    for (model, query, status, field, words) in [
        ("convolution", "", 400, "video", "missing parameter `video`"),
        ("convolution", "video=other", 422, "video", "there is no video `other`; there is `plain@1`"),
        ("convolution", "video=A%20B", 400, "video", "expected `name@version`"),
        ("convolution", "video=plain&at_us=1600000", 400, "at_us", "its last one is at 1560000 us"),
        ("convolution", "video=plain&at_us=-1", 400, "at_us", "`at_us` is -1"),
        ("convolution", "video=plain&at_us=soon", 400, "at_us", "a whole number"),
        ("convolution", "video=plain&colour=bgr", 400, "colour", "expected one of `video`"),
        ("convolution", "video=plain&channels=yuv", 400, "channels", "expected `rgb` or `bgr`"),
        ("convolution", "video=plain&mean=1,2", 400, "mean", "expected 3 numbers"),
        ("convolution", "video=plain&pad=300", 400, "pad", "from 0 to 255"),
        ("convolution", "video=plain&plugin=none", 422, "plugin", "there is no plugin `none`"),
        ("convolution", "video=plain&scale=0", 422, "scale", "`scale` has 0"),
        ("convolution", "video=plain&std=1,nan,1", 422, "std", "`std` has NaN"),
        ("convolution", "video=plain&size=320,240", 422, "size", "leave `size` out"),
        ("convolution", "video=plain&tensor=pixels", 422, "tensor", "no input `pixels`"),
        ("open", "video=plain&size=320,240", 422, "layout", "say which with `layout`"),
        ("open", "video=plain&size=320,240&layout=nhcw", 400, "layout", "expected `nchw` or `nhwc`"),
    ] {
        let answer = platform.get(&format!("/model/{model}/1/preview.jpg?{query}"));
        let (detail, expected) = (answer.body["detail"].as_str().unwrap(), answer.body["expected"].to_string());
        assert_eq!((answer.status, &answer.body["field"]), (status, &json!(field)), "{query}: {:#}", answer.body);
        assert!(detail.contains(words) || expected.contains(words), "{query}: {:#}", answer.body);
    }
    let missing = platform.get("/model/other/1/preview.jpg?video=plain");
    assert_eq!((missing.status, &missing.body["code"]), (404, &Value::from("artifact_not_found")));
}
