//! Models that reach for files, memory and time.

use framehook_tests::{
    onnx::{
        BOOL, FLOAT, INT64, PICTURE, attribute, body, bytes, external, external_data, graph, integers, model, node,
        number, value,
    },
    platform::Platform,
};
use serde_json::json;

use super::failed_once;

/// Types of attributes, as `onnx.proto` numbers them.
const INT: u64 = 2;
const TENSOR: u64 = 4;
const GRAPH: u64 = 5;
const TENSORS: u64 = 9;
const GRAPHS: u64 = 10;
const SPARSE_TENSOR: u64 = 11;

/// Everywhere that a tensor can stand in a model.
fn with_external_data() -> Vec<(&'static str, Vec<u8>)> {
    let identity = || node("Identity", &["x"], &["y"], &[]);
    let with = |more: &[u8]| model(&graph(&PICTURE, &[identity()], more), &[]);
    let beside = |more: &[u8]| model(&graph(&PICTURE, &[identity()], &[]), more);
    let tensor = || attribute("value", TENSOR, &bytes(5, &external("w")));
    let constant = |attribute: Vec<u8>| node("Constant", &[], &["c"], &[attribute]);
    let in_node = |node: Vec<u8>| model(&graph(&PICTURE, &[identity(), node], &[]), &[]);
    // A graph with one node, whose attribute has the tensor.
    let inner = || bytes(1, &constant(tensor()));
    let sparse = |values: &[u8], indices: &[u8]| [bytes(1, values), bytes(2, indices), number(3, 1)].concat();
    let plain = || integers("p", &[1], &[0]);
    // 2^32 + 1 is 1 to whoever keeps 32 bits of it.
    let wide = [external_data("w"), number(14, (1 << 32) + 1)].concat();
    let function = |more: &[u8]| {
        bytes(
            25,
            &[bytes(1, b"F"), bytes(10, b"local"), bytes(5, b"o"), bytes(9, &number(2, 18)), more.to_vec()].concat(),
        )
    };
    vec![
        ("initializer", with(&bytes(5, &external("w")))),
        ("initializer that says so in more than 32 bits", with(&bytes(5, &wide))),
        ("initializer that says so last", with(&bytes(5, &[number(14, 0), external("w")].concat()))),
        ("values of a sparse initializer", with(&bytes(15, &sparse(&external("w"), &plain())))),
        ("indices of a sparse initializer", with(&bytes(15, &sparse(&plain(), &external("w"))))),
        ("attribute", in_node(constant(tensor()))),
        ("list in an attribute", in_node(constant(attribute("v", TENSORS, &bytes(10, &external("w")))))),
        (
            "sparse tensor in an attribute",
            in_node(constant(attribute("v", SPARSE_TENSOR, &bytes(22, &sparse(&plain(), &external("w")))))),
        ),
        (
            "graph in an attribute",
            in_node(node("If", &["c"], &["z"], &[attribute("then_branch", GRAPH, &bytes(6, &inner()))])),
        ),
        (
            "graphs in an attribute",
            in_node(node("If", &["c"], &["z"], &[attribute("g", GRAPHS, &bytes(11, &inner()))])),
        ),
        ("node of a function", beside(&function(&bytes(7, &constant(tensor()))))),
        ("default of a function's attribute", beside(&function(&bytes(11, &tensor())))),
        (
            "graph in the default of a function's attribute",
            beside(&function(&bytes(11, &attribute("g", GRAPH, &bytes(6, &inner()))))),
        ),
        ("initialization of training", beside(&bytes(20, &bytes(1, &bytes(5, &external("w")))))),
        ("algorithm of training", beside(&bytes(20, &bytes(2, &inner())))),
        ("second graph", beside(&bytes(7, &bytes(5, &external("w"))))),
        ("field that nobody knows", beside(&bytes(99, &bytes(5, &external("w"))))),
        ("field that nobody knows, in a graph", with(&bytes(99, &external("w")))),
    ]
}

pub(super) fn no_model_refers_to_another_file(platform: &Platform) {
    for (place, bytes) in with_external_data() {
        let answer = platform.post("/model?name=reach&version=1", "application/octet-stream", &bytes);
        assert_eq!((answer.status, answer.body["code"].as_str()), (422, Some("invalid_model")), "{place}: {answer:?}");
    }
    assert_eq!(platform.get("/model/reach/1").status, 404);
}

/// More memory than a worker may have, known only while it runs: nothing can be computed ahead.
fn without_measure() -> Vec<(&'static str, Vec<u8>)> {
    // 0 or 1, from the picture, and a number of 3.2 GB on top.
    let size = || {
        vec![
            node("ReduceMax", &["x"], &["max"], &[attribute("keepdims", INT, &number(3, 0))]),
            node("Cast", &["max"], &["whole"], &[attribute("to", INT, &number(3, INT64))]),
            node("Reshape", &["whole", "one"], &["few"], &[]),
            node("Add", &["few", "many"], &["size"], &[]),
            node("Reshape", &["x", "rest"], &["flat"], &[]),
        ]
    };
    let numbers = |many: i64| {
        let all = [
            integers("one", &[1], &[1]),
            integers("many", &[1], &[many]),
            integers("rest", &[1], &[-1]),
            integers("none", &[1], &[0]),
        ];
        all.iter().flat_map(|tensor| bytes(5, tensor)).collect::<Vec<u8>>()
    };
    let made = |operator: Vec<Vec<u8>>, many| {
        let sum = node("ReduceSum", &["big"], &["y"], &[attribute("keepdims", INT, &number(3, 0))]);
        model(&graph(&PICTURE, &[size(), operator, vec![sum]].concat(), &numbers(many)), &[])
    };
    let doubling = body(
        &[
            node("Identity", &["go"], &["on"], &[]),
            node("Concat", &["a", "a"], &["b"], &[attribute("axis", INT, &number(3, 0))]),
        ],
        &[value("i", INT64, Some(&[])), value("go", BOOL, Some(&[])), value("a", FLOAT, None)],
        &[value("on", BOOL, Some(&[])), value("b", FLOAT, None)],
    );
    vec![
        ("constant", made(vec![node("ConstantOfShape", &["size"], &["big"], &[])], 800 << 20)),
        ("expanded", made(vec![node("Expand", &["max", "size"], &["big"], &[])], 800 << 20)),
        ("tiled", made(vec![node("Tile", &["flat", "size"], &["big"], &[])], 4_500)),
        (
            "padded",
            made(
                vec![
                    node("Concat", &["none", "size"], &["pads"], &[attribute("axis", INT, &number(3, 0))]),
                    node("Pad", &["flat", "pads"], &["big"], &[]),
                ],
                800 << 20,
            ),
        ),
        (
            "doubled",
            made(
                vec![node("Loop", &["many", "", "flat"], &["big"], &[attribute("body", GRAPH, &bytes(6, &doubling))])],
                13,
            ),
        ),
    ]
}

/// A first inference that never ends.
fn without_end() -> Vec<(&'static str, Vec<u8>)> {
    let forever = |nodes: &[Vec<u8>]| {
        let nodes = [&[node("Identity", &["go"], &["on"], &[])], nodes].concat();
        let inputs = [value("i", INT64, Some(&[])), value("go", BOOL, Some(&[])), value("a", FLOAT, None)];
        body(&nodes, &inputs, &[value("on", BOOL, Some(&[])), value("b", FLOAT, None)])
    };
    let sum = || node("Add", &["a", "a"], &["b"], &[]);
    let around = |times: &str, inside: Vec<u8>| {
        node("Loop", &[times, "", "a"], &["b"], &[attribute("body", GRAPH, &bytes(6, &inside))])
    };
    let made = |times: &str, inside: Vec<u8>| {
        let max = node("ReduceMax", &["x"], &["a"], &[attribute("keepdims", INT, &number(3, 0))]);
        let all = node("Identity", &["b"], &["y"], &[]);
        let numbers =
            [bytes(5, &integers("many", &[], &[i64::MAX])), bytes(5, &integers("some", &[], &[1 << 31]))].concat();
        model(&graph(&PICTURE, &[max, around(times, inside), all], &numbers), &[])
    };
    vec![
        ("counted", made("many", forever(&[sum()]))),
        ("uncounted", made("", forever(&[sum()]))),
        ("nested", made("some", forever(&[around("some", forever(&[sum()]))]))),
    ]
}

pub(super) fn memory_without_measure_is_refused_or_fails_once(platform: &Platform) {
    for (name, bytes) in without_measure() {
        let posted = post(platform, &format!("memory-{name}"), &bytes);
        failed_once(platform, posted.as_slice());
    }
}

pub(super) fn an_inference_without_end_gives_its_slot_back(platform: &Platform) {
    let posted: Vec<_> =
        without_end().iter().filter_map(|(name, bytes)| post(platform, &format!("time-{name}"), bytes)).collect();
    failed_once(platform, &posted);
}

/// Gives the scenario that runs this model, unless the model is refused.
fn post(platform: &Platform, name: &str, bytes: &[u8]) -> Option<String> {
    let answer = platform.post(&format!("/model?name={name}&version=1"), "application/octet-stream", bytes);
    if answer.status == 422 {
        assert_eq!(answer.body["code"], "invalid_model", "{name}: {answer:?}");
        return None;
    }
    assert_eq!(answer.status, 201, "{name}: {answer:?}");
    Some(platform.post_scenario(&json!({"source": {"video": "street@1"}, "model": format!("{name}@1")})))
}
