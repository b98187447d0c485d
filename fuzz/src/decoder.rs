//! ONNX read by its own definition and a decoder for any message, to compare the walk with.

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

thread_local!(static MODEL: MessageDescriptor = definition());

fn definition() -> MessageDescriptor {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../host/formats/tests");
    let files = protox::compile(["onnx-ml.proto"], [folder]).expect("the definition is in the tree");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("the definition is sound");
    pool.get_message_by_name("onnx.ModelProto").expect("the definition has models")
}

/// Whether any tensor says that it lies elsewhere. What is no model for this decoder holds none.
pub(crate) fn has_external(bytes: &[u8]) -> bool {
    MODEL.with(|model| DynamicMessage::decode(model.clone(), bytes).is_ok_and(|model| is_external(&model)))
}

fn is_external(message: &DynamicMessage) -> bool {
    message.fields().any(|(field, value)| {
        let says = match field.full_name() {
            "onnx.TensorProto.data_location" => value.as_enum_number() != Some(0),
            "onnx.TensorProto.external_data" => true,
            _ => false,
        };
        says || match value {
            Value::Message(inner) => is_external(inner),
            Value::List(values) => values.iter().filter_map(Value::as_message).any(is_external),
            _ => false,
        }
    })
}
