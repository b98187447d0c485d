//! Damaged, hostile and tiny files, made byte by byte.

/// Bytes that look like nothing (xorshift).
pub(crate) fn garbage(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    // Not text, whatever follows.
    [0xff, 0x00].into_iter().chain(std::iter::repeat_with(&mut next).take(length)).collect()
}

fn mp4_box(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 8).unwrap();
    [&size.to_be_bytes()[..], kind, body].concat()
}

/// The top-level boxes of a file, each with its header.
fn boxes(mut file: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut boxes = Vec::new();
    while let Some(size) = file.first_chunk::<4>() {
        let (whole, rest) = file.split_at(u32::from_be_bytes(*size) as usize);
        boxes.push((&whole[4..8], whole));
        file = rest;
    }
    boxes
}

pub(crate) fn without_moov(file: &[u8]) -> Vec<u8> {
    boxes(file).into_iter().filter(|(kind, _)| *kind != b"moov").flat_map(|(_, b)| b.to_vec()).collect()
}

/// A whole MP4 whose pictures are all zeros.
pub(crate) fn hollow(file: &[u8]) -> Vec<u8> {
    let blank = |(kind, whole): (&[u8], &[u8])| match kind {
        b"mdat" => mp4_box(b"mdat", &vec![0; whole.len() - 8]),
        _ => whole.to_vec(),
    };
    boxes(file).into_iter().flat_map(blank).collect()
}

/// The same with another size declared for its pictures.
pub(crate) fn declaring(file: &[u8], width: u16, height: u16) -> Vec<u8> {
    let mut file = file.to_vec();
    // The first four letters may be a brand of the file.
    let table = file.windows(4).position(|kind| kind == b"stsd").unwrap();
    let entry = table + file[table..].windows(4).position(|kind| kind == b"avc1").unwrap();
    file[entry + 28..entry + 30].copy_from_slice(&width.to_be_bytes());
    file[entry + 30..entry + 32].copy_from_slice(&height.to_be_bytes());
    file
}

/// An MP4 with one track, of sound.
pub(crate) fn sound_only() -> Vec<u8> {
    let hdlr = mp4_box(b"hdlr", &[&[0; 8][..], b"soun", &[0; 12]].concat());
    let moov = mp4_box(b"moov", &mp4_box(b"trak", &mp4_box(b"mdia", &hdlr)));
    [mp4_box(b"ftyp", b"isom\0\0\0\0"), moov, mp4_box(b"mdat", &[0; 64])].concat()
}

/// A tenth of a second of silence: 8000 samples a second of 8 bits.
pub(crate) fn wav() -> Vec<u8> {
    let format = [&[1, 0, 1, 0][..], &8000u32.to_le_bytes(), &8000u32.to_le_bytes(), &[1, 0, 8, 0]].concat();
    let head = [&b"WAVEfmt "[..], &16u32.to_le_bytes(), &format, b"data", &800u32.to_le_bytes()].concat();
    [&b"RIFF"[..], &836u32.to_le_bytes(), &head, &[128; 800]].concat()
}

/// A field of bytes of a protobuf message.
fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(number) << 3 | 2);
    out.extend(varint(body.len() as u64));
    out.extend(body);
    out
}

/// A number field of a protobuf message.
fn number(number: u8, value: u64) -> Vec<u8> {
    [varint(u64::from(number) << 3), varint(value)].concat()
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// `ModelProto`: version of the format, operators of version 13, the graph.
fn model(graph: &[u8]) -> Vec<u8> {
    [number(1, 8), field(8, &number(2, 13)), field(7, &[field(2, b"g"), graph.to_vec()].concat())].concat()
}

/// `ValueInfoProto` as input (11) or output (12) of a graph.
fn value(place: u8, name: &str, element: u64, shape: &[u64]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|side| field(1, &number(1, *side))).collect();
    let tensor = [number(1, element), field(2, &dims)].concat();
    field(place, &[field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat())
}

fn node(operator: &str, inputs: &[&str], more: &[u8]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| field(1, name.as_bytes())).collect();
    field(1, &[inputs, field(2, b"y"), field(4, operator.as_bytes()), more.to_vec()].concat())
}

const FLOAT: u64 = 1;

pub(crate) fn identity_model(shape: [u64; 4]) -> Vec<u8> {
    let ends = [value(11, "x", FLOAT, &shape), value(12, "y", FLOAT, &shape)].concat();
    model(&[node("Identity", &["x"], &[]), ends].concat())
}

/// With another name for its output.
pub(crate) fn identity_model_named(output: &str) -> Vec<u8> {
    let shape = [1, 3, 8, 8];
    let node = field(1, &[field(1, b"x"), field(2, output.as_bytes()), field(4, b"Identity")].concat());
    model(&[node, value(11, "x", FLOAT, &shape), value(12, output, FLOAT, &shape)].concat())
}

/// `y` is `x` converted to the element type with ONNX's number `element`.
pub(crate) fn cast_model(element: u64) -> Vec<u8> {
    let shape = [1, 3, 1, 1];
    // AttributeProto: name, an integer, and that it is one.
    let to = field(5, &[field(1, b"to"), number(3, element), number(20, 2)].concat());
    let ends = [value(11, "x", FLOAT, &shape), value(12, "y", element, &shape)].concat();
    model(&[node("Cast", &["x"], &to), ends].concat())
}

/// `y = x + w`, with the weight `w` listed among the inputs, as old exporters do.
pub(crate) fn model_with_listed_weight() -> Vec<u8> {
    let shape = [1, 3, 8, 8];
    let weight = field(5, &[number(1, 1), number(2, FLOAT), field(8, b"w"), field(9, &1f32.to_le_bytes())].concat());
    let ends = [value(11, "x", FLOAT, &shape), value(11, "w", FLOAT, &[1]), value(12, "y", FLOAT, &shape)].concat();
    model(&[node("Add", &["x", "w"], &[]), weight, ends].concat())
}

/// An operator that nobody has.
pub(crate) fn model_with_operator(domain: &str) -> Vec<u8> {
    let shape = [1, 3, 8, 8];
    let ends = [value(11, "x", FLOAT, &shape), value(12, "y", FLOAT, &shape)].concat();
    let operators = field(8, &[field(1, domain.as_bytes()), number(2, 1)].concat());
    let graph = [node("Conjure", &["x"], &field(7, domain.as_bytes())), ends].concat();
    [model(&graph), if domain.is_empty() { Vec::new() } else { operators }].concat()
}

pub(crate) fn model_with_external_data() -> Vec<u8> {
    let entry = field(13, &[field(1, b"location"), field(2, b"w.bin")].concat());
    let weight = field(5, &[number(1, 1), number(2, FLOAT), field(8, b"w"), entry, number(14, 1)].concat());
    model(&[weight, value(11, "x", FLOAT, &[1, 3, 8, 8])].concat())
}
