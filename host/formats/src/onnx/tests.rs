//! The walk against the format's own definition, read by a decoder that knows nothing of the walk.

use proptest::prelude::*;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, prost::Message as _};

use super::*;

/// `ModelProto`, from the definition as ONNX publishes it.
fn definition() -> MessageDescriptor {
    let files = protox::compile(["onnx-ml.proto"], ["tests"]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(files).unwrap();
    pool.get_message_by_name("onnx.ModelProto").unwrap()
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n > 0x7f {
        bytes.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

/// A model with its version, as exporters write it.
fn model(graph: &[u8]) -> Vec<u8> {
    [number(1, 8), bytes(7, graph)].concat()
}

fn node(domain: &str, operator: &str, more: &[u8]) -> Vec<u8> {
    let fields = [bytes(3, b"n"), bytes(4, operator.as_bytes()), bytes(7, domain.as_bytes()), more.to_vec()];
    bytes(1, &fields.concat())
}

fn external(location: &str) -> Vec<u8> {
    let entry = [bytes(1, b"location"), bytes(2, location.as_bytes())].concat();
    [bytes(8, b"w"), bytes(13, &entry), number(14, 1)].concat()
}

#[test]
fn plain_models_pass() {
    for domain in DOMAINS {
        assert_eq!(check(&model(&node(domain, "Op", &[]))), Ok(()));
    }
}

#[test]
fn what_is_no_model_is_named() {
    assert_eq!(check(b""), Err(OnnxError::Empty));
    for other in [&b"hello world"[..], b"\n\x05hello", &[0xff; 100], b"\x89PNG\r\n\x1a\n", b"PK\x03\x04 zip", b"{}"] {
        assert_eq!(check(other), Err(OnnxError::NotOnnx), "{other:?}");
    }
    assert_eq!(check(&[0x08, 0x08]), Err(OnnxError::NoGraph));
}

#[test]
fn a_file_that_onnx_runtime_reads_as_its_own_format_is_checked_as_such() {
    let producer = [&[0x08, 0x08, 0x12, 0x04][..], b"ORTM"].concat();
    let names_code = [producer, bytes(7, &node("", "Op", &[])), b"\x09\0\0\0EPContext\0".to_vec()].concat();
    assert_eq!(check(&names_code), Err(OnnxError::OrtText { text: "EPContext" }));
    assert_eq!(check(b"\x20\0\0\0ORTM\x04\0\0\0Relu\0"), Ok(()));
}

#[test]
fn a_truncated_model_says_how_much_is_missing() {
    let whole = model(&node("", "Op", &[]));
    for has in 4..whole.len() {
        let expected = OnnxError::Truncated { field: "graph", needs: whole.len() as u64, has: has as u64 };
        assert_eq!(check(&whole[..has]), Err(expected));
    }
}

#[test]
fn the_tensor_and_its_place_are_named() {
    let branch = bytes(5, &bytes(6, &bytes(5, &external("../w.bin"))));
    let graph = [node("", "Op", &[]), node("", "If", &branch)].concat();
    let expected = OnnxError::ExternalData {
        path: "graph.node[1].attribute[0].g.initializer[0]".into(),
        tensor: "w".into(),
        location: "../w.bin".into(),
    };
    assert_eq!(check(&model(&graph)), Err(expected));
}

#[test]
fn each_way_to_say_external_is_refused() {
    let ways = [
        external("a"),
        number(14, 1),
        // Its lower 32 bits are what counts.
        number(14, 1 << 32 | 1),
        number(14, u64::MAX),
        // External first, inside later: the last counts elsewhere.
        [number(14, 1), number(14, 0)].concat(),
        // Only the list, even an empty entry of it.
        bytes(13, &[]),
        [bytes(13, &bytes(1, b"location")), number(14, 0)].concat(),
        // A number of more bytes than it needs.
        vec![0xf0, 0x80, 0x00, 0x81, 0x00],
        vec![0x70, 0x81, 0x80, 0x80, 0x00],
    ];
    for tensor in ways {
        let result = check(&model(&bytes(5, &tensor)));
        assert!(matches!(result, Err(OnnxError::ExternalData { .. })), "{tensor:x?}: {result:?}");
    }
}

#[test]
fn what_readers_do_not_agree_on_is_refused() {
    let graph = node("", "Op", &[]);
    let twice = [model(&graph), bytes(7, &bytes(5, &external("a")))].concat();
    let cases = [
        (twice, "`graph`: the field may come once"),
        (model(&bytes(1, &[bytes(4, b"Op"), bytes(7, b""), bytes(7, b"ai.onnx")].concat())), "node[0].domain`"),
        // A graph where a number should be, a group, a field cut off by its message's end.
        ([model(&graph), bytes(5, &graph)].concat(), "`model_version`: the field has another type"),
        (model(&[0x0b]), "`graph`: its encoding is broken"),
        (model(&[0x0a, 0x7f]), "`graph`: its encoding is broken"),
        (model(&[0x00, 0x01]), "a field 0 at `graph`"),
        ([model(&graph), number(9, 1)].concat(), "a field 9 at `model`"),
        (model(&bytes(1, &bytes(5, &bytes(12, b"x")))), "a field 12 at `graph.node[0].attribute[0]`"),
    ];
    for (model, words) in cases {
        let error = check(&model).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn depth_has_an_end() {
    let nested = |levels: usize| (0..levels).fold(Vec::new(), |inner, _| node("", "If", &bytes(5, &bytes(6, &inner))));
    assert_eq!(check(&model(&nested(32))), Ok(()));
    assert_eq!(check(&model(&nested(33))), Err(OnnxError::TooDeep));
    let types = |levels: usize| (0..levels).fold(Vec::new(), |inner, _| bytes(4, &bytes(1, &inner)));
    assert_eq!(check(&model(&bytes(11, &bytes(2, &types(10_000))))), Err(OnnxError::TooDeep));
}

#[test]
fn outputs_are_counted() {
    assert_eq!(check(&model(&bytes(12, b"").repeat(256))), Ok(()));
    assert_eq!(check(&model(&bytes(12, b"").repeat(257))), Err(OnnxError::TooManyOutputs));
}

#[test]
fn a_custom_operator_is_named_even_inside_a_branch() {
    let branch = bytes(5, &bytes(6, &node("my.ops", "Op", &[])));
    let error = check(&model(&node("", "If", &branch))).unwrap_err();
    assert!(error.to_string().contains("`Op` of the custom domain `my.ops`"), "{error}");
    let function = bytes(25, &[bytes(7, &node("my.ops", "Op", &[])[2..]), bytes(10, b"other")].concat());
    let error = check(&[model(&[]), function].concat()).unwrap_err();
    assert_eq!(error.code(), "custom_operator");
}

#[test]
fn functions_of_the_model_are_no_custom_operators() {
    let function = bytes(25, &bytes(10, b"my.ops"));
    assert_eq!(check(&[model(&node("my.ops", "Op", &[])), function].concat()), Ok(()));
}

#[test]
fn compiled_code_and_settings_are_refused() {
    for operator in COMPILED {
        let expected = OnnxError::CompiledOperator { node: "n".into(), operator: operator.into() };
        assert_eq!(check(&model(&node("com.microsoft", operator, &[]))), Err(expected));
    }
    let settings =
        bytes(14, &[bytes(1, b"ort_config"), bytes(2, br#"{"session_options": {"enable_profiling": 1}}"#)].concat());
    assert_eq!(check(&[model(&[]), settings].concat()), Err(OnnxError::Settings));
}

#[test]
fn names_are_fit_for_a_terminal() {
    let name = format!("\x1b[31mERROR\n{}", "n".repeat(100_000));
    let tensor = bytes(5, &[bytes(8, name.as_bytes()), number(14, 1)].concat());
    let message = check(&model(&tensor)).unwrap_err().to_string();
    assert!(message.len() < 1000 && !message.contains(char::is_control), "{message:?}");
}

#[test]
fn the_table_is_the_definition() {
    let mut tables = vec![(&MODEL, definition())];
    let mut done = Vec::new();
    while let Some((table, definition)) = tables.pop() {
        assert_eq!(format!("onnx.{}", table.name), definition.full_name());
        if done.contains(&table.name) {
            continue;
        }
        done.push(table.name);
        assert_eq!(table.fields.len(), definition.fields().len(), "{}", table.name);
        assert!(table.fields.len() <= MOST_FIELDS);
        for field in table.fields {
            let defined = definition.get_field(field.number).unwrap();
            assert_eq!((field.name, field.many), (defined.name(), defined.is_list()), "{}", table.name);
            match (field.kind, defined.kind()) {
                (Kind::Message(inner), prost_reflect::Kind::Message(defined)) => tables.push((inner, defined)),
                (Kind::Bytes, prost_reflect::Kind::String | prost_reflect::Kind::Bytes)
                | (Kind::Fixed32, prost_reflect::Kind::Float)
                | (Kind::Fixed64, prost_reflect::Kind::Double) => {}
                (Kind::Varint, kind) => assert_eq!(kind.wire_type(), prost_reflect::prost::encoding::WireType::Varint),
                _ => panic!("{}.{}", table.name, field.name),
            }
        }
    }
    assert_eq!(done.len(), definition().parent_pool().all_messages().count());
}

/// Every way of at most seven steps from a message to one of the kind `wanted`: as far as into the
/// sparse tensor of an attribute in a branch.
fn ways(from: &MessageDescriptor, wanted: &str) -> Vec<Vec<FieldDescriptor>> {
    fn search(
        from: &MessageDescriptor,
        wanted: &str,
        way: &mut Vec<FieldDescriptor>,
        found: &mut Vec<Vec<FieldDescriptor>>,
    ) {
        if from.name() == wanted {
            found.push(way.clone());
        }
        if way.len() == 7 {
            return;
        }
        for field in from.fields() {
            if let Some(inner) = field.kind().as_message() {
                way.push(field.clone());
                search(inner, wanted, way, found);
                way.pop();
            }
        }
    }
    let mut found = Vec::new();
    search(from, wanted, &mut Vec::new(), &mut found);
    found
}

fn names(way: &[FieldDescriptor]) -> String {
    way.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
}

/// A model with `leaf` at the end of `way`.
fn model_with(way: &[FieldDescriptor], leaf: &[u8]) -> Vec<u8> {
    let body = way.iter().rev().fold(leaf.to_vec(), |body, field| bytes(field.number().into(), &body));
    let graph = if way.first().is_some_and(|field| field.name() == "graph") { vec![] } else { bytes(7, &[]) };
    [number(1, 8), body, graph].concat()
}

#[test]
fn external_data_is_found_wherever_it_hides() {
    let all = ways(&definition(), "TensorProto");
    for place in
        ["functions.attribute_proto.t", "training_info.algorithm.initializer", "graph.sparse_initializer.indices"]
    {
        assert!(all.iter().any(|way| names(way) == place), "{place}");
    }
    for way in all {
        let result = check(&model_with(&way, &external("/etc/passwd")));
        let Err(OnnxError::ExternalData { path, tensor, location }) = result else {
            panic!("{}: {result:?}", names(&way))
        };
        assert_eq!(path.replace("[0]", ""), names(&way));
        assert_eq!((tensor.as_str(), location.as_str()), ("w", "/etc/passwd"));
        assert_eq!(check(&model_with(&way, &bytes(9, &[0; 4]))), Ok(()), "{}", names(&way));
    }
}

#[test]
fn an_unknown_field_is_found_in_each_message() {
    let model = definition();
    for message in model.parent_pool().all_messages() {
        let all = ways(&model, message.name());
        assert!(!all.is_empty(), "{}", message.name());
        // What an external tensor says of itself is not looked into.
        for way in all.iter().filter(|way| !names(way).contains("external_data")) {
            let result = check(&model_with(way, &bytes(99, &external("a"))));
            assert!(matches!(result, Err(OnnxError::UnknownField { number: 99, .. })), "{}: {result:?}", names(way));
        }
    }
}

/// Makes a message out of a list of choices. Operators are standard ones.
fn grow(message: &MessageDescriptor, choices: &mut impl Iterator<Item = u8>, depth: usize) -> DynamicMessage {
    use prost_reflect::Value as V;
    let mut made = DynamicMessage::new(message.clone());
    for field in message.fields() {
        let Some(choice) = choices.next() else { break };
        let wanted =
            choice % 4 == 0 && field.name() != "domain" && !(depth == 0 && field.kind().as_message().is_some());
        let forbidden = says_external(&field);
        if !wanted || (forbidden && choice % 16 != 0) {
            continue;
        }
        let value = match field.kind() {
            prost_reflect::Kind::Message(inner) => V::Message(grow(&inner, choices, depth - 1)),
            prost_reflect::Kind::Bytes => V::Bytes(vec![choice; 3].into()),
            prost_reflect::Kind::String => V::String("text".into()),
            prost_reflect::Kind::Float => V::F32(1.5),
            prost_reflect::Kind::Double => V::F64(1.5),
            prost_reflect::Kind::Enum(_) => V::EnumNumber((choice / 16).into()),
            prost_reflect::Kind::Int32 => V::I32(choice.into()),
            prost_reflect::Kind::Uint64 => V::U64(choice.into()),
            _ => V::I64(-i64::from(choice)),
        };
        made.set_field(
            &field,
            if field.is_list() { V::List(vec![value; 1 + usize::from(choice) / 100]) } else { value },
        );
    }
    made
}

fn says_external(field: &FieldDescriptor) -> bool {
    ["onnx.TensorProto.data_location", "onnx.TensorProto.external_data"].contains(&field.full_name())
}

/// By the decoder's own structure, whatever the walk thinks.
fn has_external(message: &DynamicMessage) -> bool {
    use prost_reflect::Value as V;
    message.fields().any(|(field, value)| {
        let inner = match value {
            V::Message(inner) => has_external(inner),
            V::List(values) => values.iter().filter_map(V::as_message).any(has_external),
            _ => false,
        };
        inner || (says_external(&field) && value.as_enum_number() != Some(0))
    })
}

proptest! {
    #[test]
    fn the_walk_and_a_decoder_agree(choices in proptest::collection::vec(any::<u8>(), 0..2000), damage in any::<(usize, u8)>()) {
        thread_local!(static MODEL: MessageDescriptor = definition());
        let definition = MODEL.with(Clone::clone);
        let mut grown = grow(&definition, &mut choices.into_iter(), 12);
        grown.set_field_by_name("ir_version", prost_reflect::Value::I64(8));
        if !grown.has_field_by_name("graph") {
            let graph = definition.get_field_by_name("graph").unwrap();
            grown.set_field(&graph, prost_reflect::Value::Message(DynamicMessage::new(graph.kind().as_message().unwrap().clone())));
        }
        let mut encoded = grown.encode_to_vec();
        let result = check(&encoded);
        prop_assert_eq!(result.is_err(), has_external(&grown), "{:?}", result);
        // What passes although it is damaged has no external data either.
        let at = damage.0 % encoded.len();
        encoded[at] ^= damage.1;
        if check(&encoded).is_ok() && let Ok(decoded) = DynamicMessage::decode(definition, &*encoded) {
            prop_assert!(!has_external(&decoded));
        }
    }
}
