//! What fits a model, and what does not.

use super::*;

fn tensor(shape: &[i64]) -> TensorInfo {
    TensorInfo {
        name: "images".into(),
        element: "float32".into(),
        shape: shape.iter().map(|&d| u32::try_from(d).ok()).collect(),
    }
}

fn of(element: &str, shape: &[i64]) -> TensorInfo {
    TensorInfo { element: element.into(), ..tensor(shape) }
}

/// An input beside the image.
fn other(element: &str, shape: &[i64]) -> TensorInfo {
    TensorInfo { name: "other".into(), ..of(element, shape) }
}

#[test]
fn the_models_own_shape_is_enough() {
    let spec = InputOptions::default().resolve(&[tensor(&[1, 3, 192, 320])]).unwrap();
    assert_eq!((spec.width, spec.height, spec.pad), (320, 192, 114));
    assert_eq!((spec.tensor.as_str(), spec.scale), ("images", 1.0 / 255.0));
}

#[test]
fn what_says_the_same_as_the_model_fits() {
    let named = InputOptions { tensor: Some("images".into()), size: Some([320, 192]), ..Default::default() };
    let spec = named.resolve(&[tensor(&[1, 3, 192, 320])]).unwrap();
    assert_eq!((spec.width, spec.height), (320, 192));
    let largest = InputOptions { size: Some([4096, 4096]), ..Default::default() };
    assert!(largest.resolve(&[tensor(&[1, 3, -1, -1])]).is_ok());
}

#[test]
fn a_scenario_overrides_a_plugin_which_overrides_the_default() {
    let scenario = InputOptions { pad: Some(0), ..Default::default() };
    let plugin = InputOptions { pad: Some(7), scale: Some(1.0), anchor: Some(Anchor::TopLeft), ..Default::default() };
    let spec = scenario.or(plugin).resolve(&[tensor(&[-1, 3, 480, 640])]).unwrap();
    assert_eq!((spec.pad, spec.scale, spec.anchor), (0, 1.0, Anchor::TopLeft));
    assert_eq!(spec.channels, Channels::Rgb);
}

#[test]
fn the_first_releases_word_for_an_anchor_is_still_read() {
    for word in ["top_left", "top-left"] {
        let options: InputOptions = serde_json::from_value(serde_json::json!({"anchor": word})).unwrap();
        assert_eq!(serde_json::to_value(options).unwrap(), serde_json::json!({"anchor": "top_left"}));
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let size = |w, h| InputOptions { size: Some([w, h]), ..Default::default() };
    let none = InputOptions::default;
    for (options, inputs, field, words) in [
        (none(), vec![], "input.tensor", "no inputs"),
        (none(), vec![tensor(&[0, 3, 32, 32])], "model", "batch size 1"),
        (none(), vec![tensor(&[1, 10, 32, 32])], "model", "is float32 [1, 10, 32, 32]"),
        (none(), vec![tensor(&[1, 2, 320, 2])], "model", "NCHW"),
        (none(), vec![tensor(&[1, 1000])], "model", "a frame is fed in 4 dimensions, and it has 2"),
        (none(), vec![tensor(&[1, 3, -1, -1])], "input.size", "leaves its width and its height open"),
        (none(), vec![tensor(&[1, 3, 32, -1])], "input.size", "leaves its width open"),
        (none(), vec![tensor(&[1, 3, -1, 32])], "input.size", "leaves its height open"),
        (none(), vec![tensor(&[1, 3, 8, 8]), other("int64", &[1])], "input.inputs", "needs 2 inputs"),
        (size(640, 640), vec![tensor(&[1, 3, 192, 320])], "input.size", "fixed to 320"),
        (size(0, 9), vec![tensor(&[1, 3, -1, -1])], "input.size", "1 to 8192"),
        (size(8193, 9), vec![tensor(&[1, 3, -1, -1])], "input.size", "1 to 8192"),
        (size(8192, 2049), vec![tensor(&[1, 3, -1, -1])], "input.size", "at most 16777216"),
        (none(), vec![tensor(&[1, 3, 5000, 5000])], "input.size", "has 25000000 pixels"),
        (
            InputOptions { tensor: Some("x".into()), ..none() },
            vec![tensor(&[1, 3, 8, 8])],
            "input.tensor",
            "no input `x`",
        ),
        (
            InputOptions { tensor: Some("images".into()), ..none() },
            vec![tensor(&[1, 3, 8, 8]), other("int64", &[1])],
            "input.inputs",
            "needs 2 inputs",
        ),
        (
            InputOptions { std: Some([1.0, 0.0, 1.0]), ..none() },
            vec![tensor(&[1, 3, 8, 8])],
            "input.std",
            "`input.std` has 0",
        ),
        (InputOptions { scale: Some(0.0), ..none() }, vec![tensor(&[1, 3, 8, 8])], "input.scale", "finite and not 0"),
        (
            InputOptions { mean: Some([0.0, f32::NAN, 0.0]), ..none() },
            vec![tensor(&[1, 3, 8, 8])],
            "input.mean",
            "`input.mean` has NaN",
        ),
        (none(), vec![of("float64", &[1, 3, 8, 8])], "model", "no frame is fed in this type; export"),
    ] {
        let error = options.resolve(&inputs).unwrap_err();
        assert_eq!(error.field, field, "{error}");
        assert!(error.message.contains(words), "{error}");
    }
}

#[test]
fn layout_type_and_channels_follow_from_the_input() {
    let resolve = |element, shape: &[i64], layout| {
        let sized = InputOptions { size: Some([320, 240]), layout, ..Default::default() };
        let spec = sized.resolve(&[of(element, shape)]).unwrap();
        assert_eq!((spec.width, spec.height), (320, 240));
        (spec.layout, spec.element, spec.planes, spec.batch)
    };
    let (nchw, nhwc) = (Layout::Nchw, Layout::Nhwc);
    for (element, shape, layout, expected) in [
        ("float32", [1, 3, 240, 320], None, (nchw, Element::Float32, 3, 1)),
        ("float16", [1, 240, 320, 3], None, (nhwc, Element::Float16, 3, 1)),
        ("uint8", [-1, -1, -1, 3], None, (nhwc, Element::Uint8, 3, 1)),
        ("int8", [-1, 1, -1, -1], None, (nchw, Element::Int8, 1, 1)),
        ("uint8", [8, 240, 320, 4], None, (nhwc, Element::Uint8, 4, 8)),
        ("float32", [1, -1, 240, 320], None, (nchw, Element::Float32, 3, 1)),
        ("float32", [1, 240, 320, -1], None, (nhwc, Element::Float32, 3, 1)),
        ("float32", [-1, -1, -1, -1], Some(nhwc), (nhwc, Element::Float32, 3, 1)),
        ("float32", [-1, -1, -1, -1], Some(nchw), (nchw, Element::Float32, 3, 1)),
    ] {
        assert_eq!(resolve(element, &shape, layout), expected, "{element} {shape:?}");
    }
}

#[test]
fn a_layout_that_is_not_certain_is_asked_for() {
    for shape in [[1, 3, 240, 3], [1, 1, 64, 4], [-1, -1, -1, -1], [1, -1, 240, -1]] {
        let error = InputOptions::default().resolve(&[tensor(&shape)]).unwrap_err();
        assert_eq!(error.field, "input.layout", "{shape:?}: {error}");
        assert!(error.message.contains("\"nchw\" or \"nhwc\""), "{error}");
    }
    let wrong = InputOptions { layout: Some(Layout::Nhwc), ..Default::default() };
    assert_eq!(wrong.resolve(&[tensor(&[1, 3, 240, 320])]).unwrap_err().field, "input.layout");
}

#[test]
fn the_range_is_that_of_black_and_white_over_all_channels() {
    let range = |element, planes, options: InputOptions| {
        options.resolve(&[of(element, &[1, planes, 8, 8])]).unwrap().range().map(|end| (end * 1000.0).round() / 1000.0)
    };
    let usual = InputOptions::default;
    assert_eq!(range("float32", 3, usual()), [0.0, 1.0]);
    assert_eq!(range("int8", 3, usual()), [-128.0, 127.0]);
    let (mean, std) = (Some([0.485, 0.456, 0.406]), Some([0.229, 0.224, 0.225]));
    // NumPy: (0 - 0.485) / 0.229 = -2.118, (1 - 0.406) / 0.225 = 2.64, (1 - 0.485) / 0.229 = 2.249.
    assert_eq!(range("float32", 3, InputOptions { mean, std, ..usual() }), [-2.118, 2.64]);
    assert_eq!(range("float32", 1, InputOptions { mean, std, ..usual() }), [-2.118, 2.249]);
    assert_eq!(range("float32", 3, InputOptions { scale: Some(-1.0), ..usual() }), [-255.0, 0.0]);
}

#[test]
fn an_image_is_resolved_whatever_feeds_the_other_inputs() {
    let inputs = [tensor(&[1, 3, 8, 8]), other("int64", &[1, 2])];
    let spec = InputOptions::default().resolve_image(&inputs).unwrap();
    assert_eq!((spec.tensor.as_str(), spec.inputs), ("images", vec![]));
    assert_eq!(fed(serde_json::json!("scale")).resolve_image(&inputs).unwrap().tensor, "images");
}

#[test]
fn values_of_an_integer_are_bytes_unless_somebody_says_otherwise() {
    let recipe = |element, options: InputOptions| {
        let spec = options.resolve(&[of(element, &[1, 3, 8, 8])]).unwrap();
        (spec.scale, spec.mean[0])
    };
    assert_eq!(recipe("uint8", InputOptions::default()), (1.0, 0.0));
    assert_eq!(recipe("int8", InputOptions::default()), (1.0, 128.0));
    assert_eq!(recipe("float16", InputOptions::default()), (1.0 / 255.0, 0.0));
    let own = InputOptions { scale: Some(0.5), mean: Some([3.0; 3]), ..Default::default() };
    assert_eq!(recipe("int8", own), (0.5, 3.0));
}

fn fed(feed: serde_json::Value) -> InputOptions {
    serde_json::from_value(serde_json::json!({"inputs": {"other": feed}})).unwrap()
}

#[test]
fn other_inputs_are_fed_by_declaration() {
    let frame = |value| Feed::Frame(value);
    for (feed, element, shape, expected, from) in [
        (serde_json::json!("frame_size"), "int64", &[-1, 2][..], vec![1, 2], frame(FrameValue::FrameSize)),
        (serde_json::json!("scale"), "float32", &[1, 2], vec![1, 2], frame(FrameValue::Scale)),
        (serde_json::json!("input_size"), "float32", &[2], vec![2], frame(FrameValue::InputSize)),
        (serde_json::json!([0.5]), "float32", &[], vec![], Feed::Constant(vec![0.5])),
        (
            serde_json::json!([1, 2, 3, 4]),
            "int32",
            &[-1, -1, 2],
            vec![1, 2, 2],
            Feed::Constant(vec![1.0, 2.0, 3.0, 4.0]),
        ),
    ] {
        let inputs = [tensor(&[1, 3, 8, 8]), other(element, shape)];
        let spec = fed(feed).resolve(&inputs).unwrap();
        let [extra] = &spec.inputs[..] else { panic!("{:?}", spec.inputs) };
        assert_eq!((&extra.shape, &extra.from, &extra.element[..]), (&expected, &from, element));
        let written = serde_json::to_value(&spec).unwrap();
        assert_eq!(serde_json::from_value::<InputSpec>(written).unwrap(), spec);
    }
}

#[test]
fn what_does_not_fill_another_input_is_named() {
    let image = tensor(&[1, 3, 8, 8]);
    for (feed, input, field, words) in [
        (serde_json::json!("frame_size"), other("int64", &[1, 4]), "input.inputs.other", "two numbers"),
        (serde_json::json!("scale"), other("int64", &[1, 2]), "input.inputs.other", "give whole numbers"),
        (serde_json::json!([0.5, 1]), other("int32", &[2]), "input.inputs.other", "give whole numbers"),
        (serde_json::json!([1, 2, 3]), other("int32", &[2]), "input.inputs.other", "3 numbers"),
        (serde_json::json!([1]), other("string", &[1]), "model", "nothing can fill"),
        (
            serde_json::json!([1]),
            TensorInfo { name: "x".into(), ..tensor(&[1]) },
            "input.inputs.other",
            "of others it has `x`",
        ),
    ] {
        let error = fed(feed).resolve(&[image.clone(), input]).unwrap_err();
        assert_eq!(error.field, field, "{error}");
        assert!(error.message.contains(words), "{error}");
    }
    let second = TensorInfo { name: "depth".into(), ..image.clone() };
    let error = InputOptions::default().resolve(&[image, second]).unwrap_err();
    assert_eq!(error.field, "input.tensor", "{error}");
}

#[test]
fn what_older_releases_resolved_is_read_and_written_as_it_was() {
    let older = serde_json::json!({"tensor": "x", "width": 8, "height": 8, "resize": "letterbox", "anchor": "center",
        "channels": "rgb", "pad": 114, "scale": 1.0, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]});
    let spec: InputSpec = serde_json::from_value(older.clone()).unwrap();
    assert_eq!((spec.layout, spec.element, spec.planes, spec.batch), (Layout::Nchw, Element::Float32, 3, 1));
    assert_eq!(serde_json::to_value(spec).unwrap(), older);
}
