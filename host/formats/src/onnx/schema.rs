//! The messages of ONNX 1.23 (`onnx-ml.proto`), as far as a model can hold them.
//!
//! Invariant: every message that can be reached from a `ModelProto` stands here with all its
//! fields; a test compares this table with the definition. What does not stand here is refused, so
//! a new release of ONNX has to be looked at before its models are taken.

/// One message of the format.
pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
}

pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// It may stand in a message more than once.
    pub(super) many: bool,
}

/// How a field is encoded.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Varint,
    Fixed32,
    Fixed64,
    /// Text, and bytes that have no inner form.
    Bytes,
    Message(&'static Message),
}

impl Message {
    /// Index of the field in [`Message::fields`].
    pub(super) fn position(&self, number: u32) -> Option<usize> {
        self.fields.iter().position(|field| field.number == number)
    }
}

/// `AttributeProto` has the most fields, 18.
pub(super) const MOST_FIELDS: usize = 18;

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, many: false }
}

const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, many: true }
}

pub(super) static MODEL: Message = Message {
    name: "ModelProto",
    fields: &[
        one(1, "ir_version", Kind::Varint),
        one(2, "producer_name", Kind::Bytes),
        one(3, "producer_version", Kind::Bytes),
        one(4, "domain", Kind::Bytes),
        one(5, "model_version", Kind::Varint),
        one(6, "doc_string", Kind::Bytes),
        one(7, "graph", Kind::Message(&GRAPH)),
        many(8, "opset_import", Kind::Message(&OPERATOR_SET_ID)),
        many(14, "metadata_props", Kind::Message(&STRING_STRING_ENTRY)),
        many(20, "training_info", Kind::Message(&TRAINING_INFO)),
        many(25, "functions", Kind::Message(&FUNCTION)),
        many(26, "configuration", Kind::Message(&DEVICE_CONFIGURATION)),
    ],
};

pub(super) static OPERATOR_SET_ID: Message =
    Message { name: "OperatorSetIdProto", fields: &[one(1, "domain", Kind::Bytes), one(2, "version", Kind::Varint)] };

pub(super) static GRAPH: Message = Message {
    name: "GraphProto",
    fields: &[
        many(1, "node", Kind::Message(&NODE)),
        one(2, "name", Kind::Bytes),
        many(5, "initializer", Kind::Message(&TENSOR)),
        one(10, "doc_string", Kind::Bytes),
        many(11, "input", Kind::Message(&VALUE_INFO)),
        many(12, "output", Kind::Message(&VALUE_INFO)),
        many(13, "value_info", Kind::Message(&VALUE_INFO)),
        many(14, "quantization_annotation", Kind::Message(&TENSOR_ANNOTATION)),
        many(15, "sparse_initializer", Kind::Message(&SPARSE_TENSOR)),
        many(16, "metadata_props", Kind::Message(&STRING_STRING_ENTRY)),
    ],
};

pub(super) static NODE: Message = Message {
    name: "NodeProto",
    fields: &[
        many(1, "input", Kind::Bytes),
        many(2, "output", Kind::Bytes),
        one(3, "name", Kind::Bytes),
        one(4, "op_type", Kind::Bytes),
        many(5, "attribute", Kind::Message(&ATTRIBUTE)),
        one(6, "doc_string", Kind::Bytes),
        one(7, "domain", Kind::Bytes),
        one(8, "overload", Kind::Bytes),
        many(9, "metadata_props", Kind::Message(&STRING_STRING_ENTRY)),
        many(10, "device_configurations", Kind::Message(&NODE_DEVICE_CONFIGURATION)),
    ],
};

pub(super) static ATTRIBUTE: Message = Message {
    name: "AttributeProto",
    fields: &[
        one(1, "name", Kind::Bytes),
        one(2, "f", Kind::Fixed32),
        one(3, "i", Kind::Varint),
        one(4, "s", Kind::Bytes),
        one(5, "t", Kind::Message(&TENSOR)),
        one(6, "g", Kind::Message(&GRAPH)),
        many(7, "floats", Kind::Fixed32),
        many(8, "ints", Kind::Varint),
        many(9, "strings", Kind::Bytes),
        many(10, "tensors", Kind::Message(&TENSOR)),
        many(11, "graphs", Kind::Message(&GRAPH)),
        one(13, "doc_string", Kind::Bytes),
        one(14, "tp", Kind::Message(&TYPE)),
        many(15, "type_protos", Kind::Message(&TYPE)),
        one(20, "type", Kind::Varint),
        one(21, "ref_attr_name", Kind::Bytes),
        one(22, "sparse_tensor", Kind::Message(&SPARSE_TENSOR)),
        many(23, "sparse_tensors", Kind::Message(&SPARSE_TENSOR)),
    ],
};

pub(super) static TENSOR: Message = Message {
    name: "TensorProto",
    fields: &[
        many(1, "dims", Kind::Varint),
        one(2, "data_type", Kind::Varint),
        one(3, "segment", Kind::Message(&TENSOR_SEGMENT)),
        many(4, "float_data", Kind::Fixed32),
        many(5, "int32_data", Kind::Varint),
        many(6, "string_data", Kind::Bytes),
        many(7, "int64_data", Kind::Varint),
        one(8, "name", Kind::Bytes),
        one(9, "raw_data", Kind::Bytes),
        many(10, "double_data", Kind::Fixed64),
        many(11, "uint64_data", Kind::Varint),
        one(12, "doc_string", Kind::Bytes),
        many(13, "external_data", Kind::Message(&STRING_STRING_ENTRY)),
        one(14, "data_location", Kind::Varint),
        many(16, "metadata_props", Kind::Message(&STRING_STRING_ENTRY)),
    ],
};

pub(super) static TENSOR_SEGMENT: Message =
    Message { name: "TensorProto.Segment", fields: &[one(1, "begin", Kind::Varint), one(2, "end", Kind::Varint)] };

pub(super) static STRING_STRING_ENTRY: Message =
    Message { name: "StringStringEntryProto", fields: &[one(1, "key", Kind::Bytes), one(2, "value", Kind::Bytes)] };

pub(super) static SPARSE_TENSOR: Message = Message {
    name: "SparseTensorProto",
    fields: &[
        one(1, "values", Kind::Message(&TENSOR)),
        one(2, "indices", Kind::Message(&TENSOR)),
        many(3, "dims", Kind::Varint),
    ],
};

pub(super) static TYPE: Message = Message {
    name: "TypeProto",
    fields: &[
        one(1, "tensor_type", Kind::Message(&TYPE_TENSOR)),
        one(4, "sequence_type", Kind::Message(&TYPE_SEQUENCE)),
        one(5, "map_type", Kind::Message(&TYPE_MAP)),
        one(6, "denotation", Kind::Bytes),
        one(7, "opaque_type", Kind::Message(&TYPE_OPAQUE)),
        one(8, "sparse_tensor_type", Kind::Message(&TYPE_SPARSE_TENSOR)),
        one(9, "optional_type", Kind::Message(&TYPE_OPTIONAL)),
    ],
};

pub(super) static TYPE_TENSOR: Message = Message {
    name: "TypeProto.Tensor",
    fields: &[one(1, "elem_type", Kind::Varint), one(2, "shape", Kind::Message(&TENSOR_SHAPE))],
};

pub(super) static TENSOR_SHAPE: Message =
    Message { name: "TensorShapeProto", fields: &[many(1, "dim", Kind::Message(&TENSOR_SHAPE_DIMENSION))] };

pub(super) static TENSOR_SHAPE_DIMENSION: Message = Message {
    name: "TensorShapeProto.Dimension",
    fields: &[one(1, "dim_value", Kind::Varint), one(2, "dim_param", Kind::Bytes), one(3, "denotation", Kind::Bytes)],
};

pub(super) static TYPE_SEQUENCE: Message =
    Message { name: "TypeProto.Sequence", fields: &[one(1, "elem_type", Kind::Message(&TYPE))] };

pub(super) static TYPE_MAP: Message = Message {
    name: "TypeProto.Map",
    fields: &[one(1, "key_type", Kind::Varint), one(2, "value_type", Kind::Message(&TYPE))],
};

pub(super) static TYPE_OPTIONAL: Message =
    Message { name: "TypeProto.Optional", fields: &[one(1, "elem_type", Kind::Message(&TYPE))] };

pub(super) static TYPE_SPARSE_TENSOR: Message = Message {
    name: "TypeProto.SparseTensor",
    fields: &[one(1, "elem_type", Kind::Varint), one(2, "shape", Kind::Message(&TENSOR_SHAPE))],
};

pub(super) static TYPE_OPAQUE: Message =
    Message { name: "TypeProto.Opaque", fields: &[one(1, "domain", Kind::Bytes), one(2, "name", Kind::Bytes)] };

pub(super) static NODE_DEVICE_CONFIGURATION: Message = Message {
    name: "NodeDeviceConfigurationProto",
    fields: &[
        one(1, "configuration_id", Kind::Bytes),
        many(2, "sharding_spec", Kind::Message(&SHARDING_SPEC)),
        one(3, "pipeline_stage", Kind::Varint),
    ],
};

pub(super) static SHARDING_SPEC: Message = Message {
    name: "ShardingSpecProto",
    fields: &[
        one(1, "tensor_name", Kind::Bytes),
        many(2, "device", Kind::Varint),
        many(3, "index_to_device_group_map", Kind::Message(&INT_INT_LIST_ENTRY)),
        many(4, "sharded_dim", Kind::Message(&SHARDED_DIM)),
    ],
};

pub(super) static INT_INT_LIST_ENTRY: Message =
    Message { name: "IntIntListEntryProto", fields: &[one(1, "key", Kind::Varint), many(2, "value", Kind::Varint)] };

pub(super) static SHARDED_DIM: Message = Message {
    name: "ShardedDimProto",
    fields: &[one(1, "axis", Kind::Varint), many(2, "simple_sharding", Kind::Message(&SIMPLE_SHARDED_DIM))],
};

pub(super) static SIMPLE_SHARDED_DIM: Message = Message {
    name: "SimpleShardedDimProto",
    fields: &[one(1, "dim_value", Kind::Varint), one(2, "dim_param", Kind::Bytes), one(3, "num_shards", Kind::Varint)],
};

pub(super) static VALUE_INFO: Message = Message {
    name: "ValueInfoProto",
    fields: &[
        one(1, "name", Kind::Bytes),
        one(2, "type", Kind::Message(&TYPE)),
        one(3, "doc_string", Kind::Bytes),
        many(4, "metadata_props", Kind::Message(&STRING_STRING_ENTRY)),
    ],
};

pub(super) static TENSOR_ANNOTATION: Message = Message {
    name: "TensorAnnotation",
    fields: &[
        one(1, "tensor_name", Kind::Bytes),
        many(2, "quant_parameter_tensor_names", Kind::Message(&STRING_STRING_ENTRY)),
    ],
};

pub(super) static TRAINING_INFO: Message = Message {
    name: "TrainingInfoProto",
    fields: &[
        one(1, "initialization", Kind::Message(&GRAPH)),
        one(2, "algorithm", Kind::Message(&GRAPH)),
        many(3, "initialization_binding", Kind::Message(&STRING_STRING_ENTRY)),
        many(4, "update_binding", Kind::Message(&STRING_STRING_ENTRY)),
    ],
};

pub(super) static FUNCTION: Message = Message {
    name: "FunctionProto",
    fields: &[
        one(1, "name", Kind::Bytes),
        many(4, "input", Kind::Bytes),
        many(5, "output", Kind::Bytes),
        many(6, "attribute", Kind::Bytes),
        many(7, "node", Kind::Message(&NODE)),
        one(8, "doc_string", Kind::Bytes),
        many(9, "opset_import", Kind::Message(&OPERATOR_SET_ID)),
        one(10, "domain", Kind::Bytes),
        many(11, "attribute_proto", Kind::Message(&ATTRIBUTE)),
        many(12, "value_info", Kind::Message(&VALUE_INFO)),
        one(13, "overload", Kind::Bytes),
        many(14, "metadata_props", Kind::Message(&STRING_STRING_ENTRY)),
    ],
};

pub(super) static DEVICE_CONFIGURATION: Message = Message {
    name: "DeviceConfigurationProto",
    fields: &[one(1, "name", Kind::Bytes), one(2, "num_devices", Kind::Varint), many(3, "device", Kind::Bytes)],
};
