//! ONNX files by hand: protobuf is simple enough, and no tool writes such bad ones.
//!
//! A message is the concatenation of its fields, each made by `number` or `bytes`; the numbers are those of
//! `onnx.proto`.

use std::iter;

/// Data types of a `TensorProto`.
pub const FLOAT: u64 = 1;
pub const INT64: u64 = 7;
pub const BOOL: u64 = 9;

/// Types of an attribute.
pub const INT: u64 = 2;
const INTS: u64 = 7;

/// What the demo model takes.
pub const PICTURE: [u64; 4] = [1, 3, 192, 320];

#[must_use]
pub fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while n > 0x7f {
        bytes.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

#[must_use]
pub fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

#[must_use]
pub fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

/// A model with further fields.
#[must_use]
pub fn model(graph: &[u8], more: &[u8]) -> Vec<u8> {
    [number(1, 8), bytes(7, graph), bytes(8, &number(2, 18)), more.to_vec()].concat()
}

/// From `x`, a picture, to `y`.
#[must_use]
pub fn graph(shape: &[u64], nodes: &[Vec<u8>], more: &[u8]) -> Vec<u8> {
    let (input, output) = (value("x", FLOAT, Some(shape)), value("y", FLOAT, None));
    [body(nodes, &[input], &[output]), more.to_vec()].concat()
}

/// The body of a loop or a branch.
#[must_use]
pub fn body(nodes: &[Vec<u8>], inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Vec<u8> {
    let all = |field, parts: &[Vec<u8>]| parts.iter().flat_map(|part| bytes(field, part)).collect::<Vec<u8>>();
    [all(1, nodes), bytes(2, b"g"), all(11, inputs), all(12, outputs)].concat()
}

/// A name with its type, and its shape if it is known.
#[must_use]
pub fn value(name: &str, kind: u64, shape: Option<&[u64]>) -> Vec<u8> {
    let dims = |shape: &[u64]| shape.iter().flat_map(|d| bytes(1, &number(1, *d))).collect::<Vec<u8>>();
    let shape = shape.map_or(vec![], |shape| bytes(2, &dims(shape)));
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &[number(1, kind), shape].concat()))].concat()
}

#[must_use]
pub fn node(operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let texts = |field, texts: &[&str]| texts.iter().flat_map(|t| bytes(field, t.as_bytes())).collect::<Vec<u8>>();
    let attributes: Vec<u8> = attributes.iter().flat_map(|attribute| bytes(5, attribute)).collect();
    [texts(1, inputs), texts(2, outputs), bytes(4, operator.as_bytes()), attributes].concat()
}

/// An attribute of this type; `content` is its field with the value.
#[must_use]
pub fn attribute(name: &str, kind: u64, content: &[u8]) -> Vec<u8> {
    [bytes(1, name.as_bytes()), content.to_vec(), number(20, kind)].concat()
}

/// A tensor of 64-bit numbers.
#[must_use]
pub fn integers(name: &str, dims: &[u64], values: &[i64]) -> Vec<u8> {
    tensor(name, INT64, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// A tensor of 32-bit numbers.
#[must_use]
pub fn floats(name: &str, dims: &[u64], values: &[f32]) -> Vec<u8> {
    tensor(name, FLOAT, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn tensor(name: &str, kind: u64, dims: &[u64], raw: Vec<u8>) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|d| number(1, *d)).collect();
    [dims, number(2, kind), bytes(8, name.as_bytes()), bytes(9, &raw)].concat()
}

/// A tensor that lies in another file.
#[must_use]
pub fn external(name: &str) -> Vec<u8> {
    [external_data(name), number(14, 1)].concat()
}

/// The same without the field that says so.
#[must_use]
pub fn external_data(name: &str) -> Vec<u8> {
    let location = [bytes(1, b"location"), bytes(2, b"/etc/passwd")].concat();
    [number(1, 1), number(2, 2), bytes(8, name.as_bytes()), bytes(13, &location)].concat()
}

/// A valid model that gives back its input of this shape.
#[must_use]
pub fn identity(shape: &[u64]) -> Vec<u8> {
    model(&graph(shape, &[node("Identity", &["x"], &["y"], &[])], &[]), &[])
}

/// A classifier of three classes, whose scores are the mean red, green and blue of a picture of 32 x 32
/// pixels. It leaves open how many pictures there are.
#[must_use]
pub fn mean_colour() -> Vec<u8> {
    let open = |name: &str, sides: &[u64]| {
        let dims: Vec<u8> = sides.iter().flat_map(|side| bytes(1, &number(1, *side))).collect();
        let shape = bytes(2, &[bytes(1, &bytes(2, b"pictures")), dims].concat());
        [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &[number(1, FLOAT), shape].concat()))].concat()
    };
    let mean = node("GlobalAveragePool", &["x"], &["y"], &[]);
    model(&body(&[mean], &[open("x", &[3, 32, 32])], &[open("y", &[3, 1, 1])]), &[])
}

/// The side of a cell of [`mosaic`], in pixels.
const CELL: u64 = 64;

/// A detector in the form of YOLOv8 that takes next to no time: each cell of the demo model's picture is a
/// box, and its mean red, green and blue are the scores of three classes.
#[must_use]
pub fn mosaic() -> Vec<u8> {
    let [_, colours, height, width] = PICTURE;
    let (rows, columns) = (height / CELL, width / CELL);
    let cells = rows * columns;
    let centres =
        |along: fn(u64, u64) -> u64| (0..cells).map(move |cell| (along(cell, columns) * CELL + CELL / 2) as f32);
    let sides = iter::repeat_n(CELL as f32, 2 * cells as usize);
    let boxes: Vec<f32> = centres(|cell, of| cell % of).chain(centres(|cell, of| cell / of)).chain(sides).collect();
    let pair = |name| attribute(name, INTS, &[number(8, CELL), number(8, CELL)].concat());
    let nodes = [
        node("AveragePool", &["x"], &["means"], &[pair("kernel_shape"), pair("strides")]),
        node("Reshape", &["means", "to"], &["scores"], &[]),
        node("Concat", &["boxes", "scores"], &["y"], &[attribute("axis", INT, &number(3, 1))]),
    ];
    let constants = [
        floats("boxes", &[1, 4, cells], &boxes),
        integers("to", &[3], &[1, colours.cast_signed(), cells.cast_signed()]),
    ];
    let constants: Vec<u8> = constants.iter().flat_map(|tensor| bytes(5, tensor)).collect();
    model(&graph(&PICTURE, &nodes, &constants), &[])
}
