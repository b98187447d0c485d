//! What an ONNX file says before any runtime loads it.
//!
//! ONNX Runtime would follow references to other files and its messages name C++ sources; the
//! checks here refuse both with a sentence. Only the fields that are needed are declared: the rest,
//! weights above all, is skipped and never copied.

use prost::Message;

/// Why a file is no model that Framehook runs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    #[error("the model file is empty (0 bytes); upload it again")]
    Empty,
    #[error(
        "the file is not an ONNX model; export the model to ONNX (in PyTorch: `torch.onnx.export`) and upload the .onnx file"
    )]
    NotOnnx,
    #[error(
        "the ONNX file is truncated: field `{field}` ends at byte {needs}, but the file has {has} bytes; upload it again"
    )]
    Truncated { field: &'static str, needs: u64, has: u64 },
    #[error("the ONNX file contains no graph; it is truncated, or was exported wrongly")]
    NoGraph,
    #[error(
        "tensor `{tensor}` lies in another file (`{location}`), but a model must be one file: save it with its weights inside (in Python: `onnx.save_model(onnx.load(path), out, save_as_external_data=False)`)"
    )]
    ExternalData { tensor: String, location: String },
    #[error(
        "node `{node}` uses operator `{operator}` of the custom domain `{domain}`, which ONNX Runtime does not have; export the model with standard operators only"
    )]
    CustomOperator { node: String, operator: String, domain: String },
}

impl OnnxError {
    /// A stable code for an upload's verdict.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty_file",
            Self::NotOnnx => "not_onnx",
            Self::Truncated { .. } | Self::NoGraph => "truncated",
            Self::ExternalData { .. } => "external_data",
            Self::CustomOperator { .. } => "custom_operator",
        }
    }
}

/// Operators that the stock build of ONNX Runtime brings.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// Checks the bytes of a model.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(bytes: &[u8]) -> Result<(), OnnxError> {
    if bytes.is_empty() {
        return Err(OnnxError::Empty);
    }
    check_outline(bytes)?;
    let model = ModelProto::decode(bytes).map_err(|_| OnnxError::NotOnnx)?;
    let graph = model.graph.as_ref().ok_or(OnnxError::NoGraph)?;
    let local: Vec<&str> = model.functions.iter().map(|function| function.domain.as_str()).collect();
    let known = |domain: &str| DOMAINS.contains(&domain) || local.contains(&domain);
    check_graph(graph, &known)?;
    model.functions.iter().try_for_each(|function| check_nodes(&function.node, &known))
}

fn check_graph(graph: &GraphProto, known: &dyn Fn(&str) -> bool) -> Result<(), OnnxError> {
    let sparse = graph.sparse_initializer.iter().flat_map(SparseTensorProto::tensors);
    graph.initializer.iter().chain(sparse).try_for_each(check_tensor)?;
    check_nodes(&graph.node, known)
}

fn check_nodes(nodes: &[NodeProto], known: &dyn Fn(&str) -> bool) -> Result<(), OnnxError> {
    for node in nodes {
        if !known(&node.domain) {
            let (operator, domain) = (node.op_type.clone(), node.domain.clone());
            return Err(OnnxError::CustomOperator { node: node.name.clone(), operator, domain });
        }
        for attribute in &node.attribute {
            let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
            let sparse = sparse.flat_map(SparseTensorProto::tensors);
            attribute.t.iter().chain(&attribute.tensors).chain(sparse).try_for_each(check_tensor)?;
            // The branches of `If` and the bodies of `Loop` and `Scan`.
            attribute.g.iter().chain(&attribute.graphs).try_for_each(|graph| check_graph(graph, known))?;
        }
    }
    Ok(())
}

fn check_tensor(tensor: &TensorProto) -> Result<(), OnnxError> {
    const EXTERNAL: i32 = 1;
    if tensor.data_location != EXTERNAL && tensor.external_data.is_empty() {
        return Ok(());
    }
    let location = tensor.external_data.iter().find(|entry| entry.key == "location");
    let location = location.map(|entry| entry.value.clone()).unwrap_or_default();
    Err(OnnxError::ExternalData { tensor: tensor.name.clone(), location })
}

/// Walks the fields of the outermost message, to tell a truncated model from something else.
fn check_outline(bytes: &[u8]) -> Result<(), OnnxError> {
    let mut rest = bytes;
    let mut has_version = false;
    while !rest.is_empty() {
        let tag = read_varint(&mut rest).ok_or(OnnxError::NotOnnx)?;
        let (field, wire) = field_of(tag).ok_or(OnnxError::NotOnnx)?;
        let cut = |needs| OnnxError::Truncated { field, needs, has: bytes.len() as u64 };
        match wire {
            Wire::Varint => {
                read_varint(&mut rest).ok_or(OnnxError::NotOnnx)?;
            }
            Wire::Bytes => {
                let length = read_varint(&mut rest).ok_or(OnnxError::NotOnnx)?;
                let at = (bytes.len() - rest.len()) as u64;
                let body = usize::try_from(length).ok().and_then(|length| rest.get(length..));
                // Without a version before it this is no model, however it goes on.
                rest = match body {
                    Some(body) => body,
                    None if has_version => return Err(cut(at.saturating_add(length))),
                    None => return Err(OnnxError::NotOnnx),
                };
            }
        }
        has_version |= field == "ir_version";
    }
    if has_version { Ok(()) } else { Err(OnnxError::NotOnnx) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Varint,
    Bytes,
}

/// The fields of `ModelProto` and how each is encoded; `None` for anything else.
fn field_of(tag: u64) -> Option<(&'static str, Wire)> {
    let (name, wire) = match tag >> 3 {
        1 => ("ir_version", Wire::Varint),
        2 => ("producer_name", Wire::Bytes),
        3 => ("producer_version", Wire::Bytes),
        4 => ("domain", Wire::Bytes),
        5 => ("model_version", Wire::Varint),
        6 => ("doc_string", Wire::Bytes),
        7 => ("graph", Wire::Bytes),
        8 => ("opset_import", Wire::Bytes),
        14 => ("metadata_props", Wire::Bytes),
        20 => ("training_info", Wire::Bytes),
        25 => ("functions", Wire::Bytes),
        26 => ("configuration", Wire::Bytes),
        _ => return None,
    };
    let encoded = if wire == Wire::Varint { 0 } else { 2 };
    (tag & 7 == encoded).then_some((name, wire))
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    // A 64-bit number takes at most ten bytes of seven bits.
    let length = rest.iter().take(10).position(|byte| byte & 0x80 == 0)? + 1;
    let (number, tail) = rest.split_at(length);
    *rest = tail;
    Some(number.iter().rev().fold(0, |n, byte| n << 7 | u64::from(byte & 0x7f)))
}

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<FunctionProto>,
}

#[derive(Clone, PartialEq, Message)]
struct FunctionProto {
    #[prost(message, repeated, tag = "7")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "10")]
    domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializer: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    domain: String,
}

/// Single and repeated fields look the same on the wire, so all are read as repeated.
#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(message, repeated, tag = "5")]
    t: Vec<TensorProto>,
    #[prost(message, repeated, tag = "6")]
    g: Vec<GraphProto>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<GraphProto>,
    #[prost(message, repeated, tag = "22")]
    sparse_tensor: Vec<SparseTensorProto>,
    #[prost(message, repeated, tag = "23")]
    sparse_tensors: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(string, tag = "8")]
    name: String,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringEntry>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
struct SparseTensorProto {
    #[prost(message, optional, tag = "1")]
    values: Option<TensorProto>,
    #[prost(message, optional, tag = "2")]
    indices: Option<TensorProto>,
}

impl SparseTensorProto {
    fn tensors(&self) -> impl Iterator<Item = &TensorProto> {
        self.values.iter().chain(&self.indices)
    }
}

#[derive(Clone, PartialEq, Message)]
struct StringEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model with its version, as exporters write it.
    fn model(graph: GraphProto) -> Vec<u8> {
        let proto = ModelProto { graph: Some(graph), functions: Vec::new() };
        [&[0x08, 0x08][..], &proto.encode_to_vec()].concat()
    }

    fn node(domain: &str, attribute: Vec<AttributeProto>) -> GraphProto {
        let node = NodeProto { name: "n".into(), op_type: "Op".into(), domain: domain.into(), attribute };
        GraphProto { node: vec![node], ..GraphProto::default() }
    }

    fn external(location: &str) -> TensorProto {
        let entry = StringEntry { key: "location".into(), value: location.into() };
        TensorProto { name: "w".into(), external_data: vec![entry], data_location: 1 }
    }

    #[test]
    fn plain_models_pass() {
        for domain in DOMAINS {
            assert_eq!(check(&model(node(domain, vec![]))), Ok(()));
        }
    }

    #[test]
    fn what_is_no_model_is_named() {
        assert_eq!(check(b""), Err(OnnxError::Empty));
        for other in [&b"hello world"[..], b"\n\x05hello", &[0xff; 100], b"\x89PNG\r\n\x1a\n", b"PK\x03\x04 zip", b"{}"]
        {
            assert_eq!(check(other), Err(OnnxError::NotOnnx), "{other:?}");
        }
        assert_eq!(check(&[0x08, 0x08]), Err(OnnxError::NoGraph));
    }

    #[test]
    fn a_truncated_model_says_how_much_is_missing() {
        let whole = model(node("", vec![]));
        for has in 4..whole.len() {
            let expected = OnnxError::Truncated { field: "graph", needs: whole.len() as u64, has: has as u64 };
            assert_eq!(check(&whole[..has]), Err(expected));
        }
    }

    #[test]
    fn external_data_is_found_wherever_it_hides() {
        let expected = Err(OnnxError::ExternalData { tensor: "w".into(), location: "../w.bin".into() });
        let initializer = || GraphProto { initializer: vec![external("../w.bin")], ..GraphProto::default() };
        assert_eq!(check(&model(initializer())), expected);
        let constant = AttributeProto { t: vec![external("../w.bin")], ..AttributeProto::default() };
        assert_eq!(check(&model(node("", vec![constant]))), expected);
        let branch = AttributeProto { g: vec![initializer()], ..AttributeProto::default() };
        assert_eq!(check(&model(node("", vec![branch]))), expected);
        let sparse = SparseTensorProto { values: Some(external("../w.bin")), indices: None };
        let graph = GraphProto { sparse_initializer: vec![sparse], ..GraphProto::default() };
        assert_eq!(check(&model(graph)), expected);
    }

    #[test]
    fn a_custom_operator_is_named_even_inside_a_branch() {
        let branch = AttributeProto { g: vec![node("my.ops", vec![])], ..AttributeProto::default() };
        let error = check(&model(node("", vec![branch]))).unwrap_err();
        assert!(error.to_string().contains("`Op` of the custom domain `my.ops`"), "{error}");
    }

    #[test]
    fn functions_of_the_model_are_no_custom_operators() {
        let function = FunctionProto { domain: "my.ops".into(), node: vec![] };
        let proto = ModelProto { graph: Some(node("my.ops", vec![])), functions: vec![function] };
        assert_eq!(check(&[&[0x08, 0x08][..], &proto.encode_to_vec()].concat()), Ok(()));
    }
}
