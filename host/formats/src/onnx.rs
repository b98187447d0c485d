//! What an ONNX file says before any runtime loads it.
//!
//! ONNX Runtime would follow references to other files and its messages name C++ sources; the
//! checks here refuse both with a sentence.
//!
//! Invariant: the walk of an ONNX file visits every field of every message, driven by a table of
//! the format (`schema`), and what the table does not have is refused. So no tensor can lie in a
//! place that nobody thought of. The bytes are read where they lie: weights are never copied.

mod schema;
#[cfg(test)]
mod tests;
mod wire;

use schema::{Kind, MODEL, MOST_FIELDS, Message};
use wire::{Fault, Fields, Value};

/// Why a file is no model that Framehook runs. Texts out of the file are made printable and short.
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
    #[error("the ONNX file is damaged at `{path}`: {what}; export the model and upload it again")]
    Damaged { path: String, what: &'static str },
    #[error(
        "the ONNX file has a field {number} at `{path}`, which ONNX 1.23 does not define; export the model with a released version of ONNX"
    )]
    UnknownField { path: String, number: u32 },
    #[error(
        "the messages of the ONNX file lie more than {MAX_DEPTH} deep in each other; export the model with fewer nested graphs"
    )]
    TooDeep,
    #[error(
        "a graph of the model has more than {MAX_OUTPUTS} outputs; export the model with fewer, joined in its last layer"
    )]
    TooManyOutputs,
    #[error(
        "tensor `{tensor}` lies in another file (`{location}`), as `{path}` says, but a model must be one file: save it with its weights inside (in Python: `onnx.save_model(onnx.load(path), out, save_as_external_data=False)`)"
    )]
    ExternalData { path: String, tensor: String, location: String },
    #[error(
        "node `{node}` uses operator `{operator}` of the custom domain `{domain}`, which ONNX Runtime does not have; export the model with standard operators only"
    )]
    CustomOperator { node: String, operator: String, domain: String },
    #[error(
        "the ORT file has `{text}` in it, which stands for code that was compiled for one accelerator, or for settings of ONNX Runtime; upload the .onnx file it was made from"
    )]
    OrtText { text: &'static str },
    #[error(
        "node `{node}` uses operator `{operator}`, which stands for code that was compiled for one accelerator; export the model without it"
    )]
    CompiledOperator { node: String, operator: String },
    #[error(
        "the model brings settings for ONNX Runtime (`{ORT_CONFIG}` in its metadata), which are not accepted from outside; remove them"
    )]
    Settings,
}

impl OnnxError {
    /// A stable code for an upload's verdict.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty_file",
            Self::NotOnnx => "not_onnx",
            Self::Truncated { .. } | Self::NoGraph => "truncated",
            Self::Damaged { .. } => "damaged",
            Self::UnknownField { .. } => "unknown_field",
            Self::TooDeep => "too_deep",
            Self::TooManyOutputs => "unsuitable_tensors",
            Self::ExternalData { .. } => "external_data",
            Self::CustomOperator { .. } | Self::CompiledOperator { .. } | Self::OrtText { .. } => "custom_operator",
            Self::Settings => "runtime_settings",
        }
    }
}

/// Operators that the stock build of ONNX Runtime brings. The last two are those into which it
/// optimises a model that it saves.
const DOMAINS: [&str; 6] =
    ["", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"];
/// Those of them that carry, or name, compiled code.
const COMPILED: [&str; 2] = ["EPContext", "Snpe"];
/// The key under which ONNX Runtime looks for settings in a model.
const ORT_CONFIG: &str = "ort_config";
/// Protobuf's own limit, to which ONNX Runtime keeps: a deeper model would be refused there.
const MAX_DEPTH: usize = 100;
/// ONNX Runtime takes minutes to load a model with 60,000 outputs; a detector whose last layer does not join
/// them has some 20. (Inputs are not counted: old exporters list each weight among them.)
const MAX_OUTPUTS: u32 = 256;

/// Checks the bytes of a model.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(bytes: &[u8]) -> Result<(), OnnxError> {
    if bytes.is_empty() {
        return Err(OnnxError::Empty);
    }
    // ONNX Runtime looks here first, so a file could be an ONNX model for us and something else there.
    if is_ort(bytes) {
        return check_ort(bytes);
    }
    let domains = outline(bytes)?;
    walk(bytes, &domains)
}

/// Whether ONNX Runtime takes these bytes for its own ORT format.
#[must_use]
pub fn is_ort(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(b"ORTM")
}

/// A model in ONNX Runtime's own ORT format, a `FlatBuffer`: ONNX Runtime verifies its structure,
/// and a worker is confined to it. Texts lie in it with their length before and a zero behind them.
fn check_ort(bytes: &[u8]) -> Result<(), OnnxError> {
    let [first, second] = COMPILED;
    for text in [first, second, ORT_CONFIG] {
        let length = u32::try_from(text.len()).unwrap_or_default().to_le_bytes();
        let stored = [&length[..], text.as_bytes(), b"\0"].concat();
        if bytes.windows(stored.len()).any(|window| window == stored) {
            return Err(OnnxError::OrtText { text });
        }
    }
    Ok(())
}

/// Reads the outermost message, to tell a truncated model from something else. Gives the domains of
/// the model's own functions.
fn outline(bytes: &[u8]) -> Result<Vec<&[u8]>, OnnxError> {
    let mut fields = Fields::of(bytes);
    let (mut has_version, mut has_graph, mut domains) = (false, false, Vec::new());
    loop {
        match fields.next() {
            Ok(None) if !has_version => return Err(OnnxError::NotOnnx),
            Ok(None) if !has_graph => return Err(OnnxError::NoGraph),
            Ok(None) => return Ok(domains),
            Ok(Some((1, Value::Varint(_)))) => has_version = true,
            Ok(Some((7, Value::Bytes(_)))) => has_graph = true,
            Ok(Some((14, Value::Bytes(entry)))) if wire::text(entry, 1) == ORT_CONFIG.as_bytes() => {
                return Err(OnnxError::Settings);
            }
            Ok(Some((25, Value::Bytes(function)))) => domains.push(wire::text(function, 10)),
            Ok(Some(_)) => {}
            // Without a version before it this is no model, however it goes on.
            Err(Fault::Cut { number, needs }) if has_version => {
                let field = MODEL.position(number).map_or("unknown", |at| MODEL.fields[at].name);
                return Err(OnnxError::Truncated { field, needs, has: bytes.len() as u64 });
            }
            Err(_) => return Err(OnnxError::NotOnnx),
        }
    }
}

/// Visits every message. Its stack is its own, so depth costs no stack of the thread.
fn walk(bytes: &[u8], domains: &[&[u8]]) -> Result<(), OnnxError> {
    let mut levels = vec![Level::new(&MODEL, bytes)];
    while let Some(level) = levels.last_mut() {
        match level.step() {
            Ok(Step::End) => drop(levels.pop()),
            Ok(Step::Over) => {}
            Ok(Step::Into(_, _)) if levels.len() == MAX_DEPTH => return Err(OnnxError::TooDeep),
            Ok(Step::Into(message, body)) => {
                if message.name == "NodeProto" {
                    check_operator(body, domains)?;
                }
                levels.push(Level::new(message, body));
            }
            Err(refusal) => return Err(refusal.at(&levels)),
        }
    }
    Ok(())
}

/// A message that is being visited.
struct Level<'a> {
    schema: &'static Message,
    fields: Fields<'a>,
    /// The field that was read last, as an index of the schema.
    at: Option<usize>,
    /// How often each field came.
    seen: [u32; MOST_FIELDS],
}

enum Step<'a> {
    End,
    Over,
    Into(&'static Message, &'a [u8]),
}

/// What is wrong with the field that was read last.
enum Refusal {
    Damaged(&'static str),
    Unknown(u32),
    TooManyOutputs,
    External,
}

impl<'a> Level<'a> {
    const fn new(schema: &'static Message, body: &'a [u8]) -> Self {
        Self { schema, fields: Fields::of(body), at: None, seen: [0; MOST_FIELDS] }
    }

    fn step(&mut self) -> Result<Step<'a>, Refusal> {
        self.at = None;
        let next = self.fields.next().map_err(|_| Refusal::Damaged("its encoding is broken"))?;
        let Some((number, value)) = next else { return Ok(Step::End) };
        let at = self.schema.position(number).ok_or(Refusal::Unknown(number))?;
        let field = &self.schema.fields[at];
        self.at = Some(at);
        self.seen[at] += 1;
        // Readers differ in which one counts, and some join them.
        if self.seen[at] > 1 && !field.many {
            return Err(Refusal::Damaged("the field may come once only"));
        }
        match (self.schema.name, field.name, value) {
            ("GraphProto", "output", _) if self.seen[at] > MAX_OUTPUTS => return Err(Refusal::TooManyOutputs),
            ("TensorProto", "external_data", _) | ("TensorProto", "data_location", Value::Varint(1..)) => {
                return Err(Refusal::External);
            }
            _ => {}
        }
        match (field.kind, value) {
            (Kind::Message(message), Value::Bytes(body)) => Ok(Step::Into(message, body)),
            (Kind::Varint, Value::Varint(_))
            | (Kind::Fixed32, Value::Fixed32)
            | (Kind::Fixed64, Value::Fixed64)
            | (Kind::Bytes, Value::Bytes(_)) => Ok(Step::Over),
            // A list of numbers may come as one field.
            (Kind::Varint | Kind::Fixed32 | Kind::Fixed64, Value::Bytes(_)) if field.many => Ok(Step::Over),
            _ => Err(Refusal::Damaged("the field has another type in ONNX")),
        }
    }

    /// `node[3]`, or the name of a field that comes once.
    fn place(&self) -> Option<String> {
        let at = self.at?;
        let field = &self.schema.fields[at];
        let name = field.name;
        Some(if field.many { format!("{name}[{}]", self.seen[at] - 1) } else { name.to_owned() })
    }
}

impl Refusal {
    fn at(self, levels: &[Level<'_>]) -> OnnxError {
        let path = |levels: &[Level<'_>]| {
            let places: Vec<_> = levels.iter().filter_map(Level::place).collect();
            if places.is_empty() { "model".to_owned() } else { places.join(".") }
        };
        match (self, levels) {
            (Self::Damaged(what), _) => OnnxError::Damaged { path: path(levels), what },
            (Self::Unknown(number), _) => OnnxError::UnknownField { path: path(levels), number },
            (Self::TooManyOutputs, _) => OnnxError::TooManyOutputs,
            (Self::External, [above @ .., tensor]) => {
                let tensor = tensor.fields.message;
                OnnxError::ExternalData {
                    path: path(above),
                    tensor: shown(wire::text(tensor, 8)),
                    location: shown(location(tensor)),
                }
            }
            // There is a level as long as the walk goes on.
            (Self::External, []) => OnnxError::NotOnnx,
        }
    }
}

/// The other file that a tensor names, as far as it can be read.
fn location(tensor: &[u8]) -> &[u8] {
    let entry = wire::bodies(tensor, 13).find(|entry| wire::text(entry, 1) == b"location");
    entry.map_or(&[], |entry| wire::text(entry, 2))
}

fn check_operator(node: &[u8], local: &[&[u8]]) -> Result<(), OnnxError> {
    let (operator, domain) = (wire::text(node, 4), wire::text(node, 7));
    let name = || shown(wire::text(node, 3));
    let ours = DOMAINS.iter().any(|known| known.as_bytes() == domain);
    if !ours && !local.contains(&domain) {
        return Err(OnnxError::CustomOperator { node: name(), operator: shown(operator), domain: shown(domain) });
    }
    if COMPILED.iter().any(|compiled| compiled.as_bytes() == operator) && domain == b"com.microsoft" {
        return Err(OnnxError::CompiledOperator { node: name(), operator: shown(operator) });
    }
    Ok(())
}

/// A name of the file's own, fit for a terminal and a log line.
fn shown(text: &[u8]) -> String {
    /// Exporters join the names of scopes to some 80 characters.
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(text);
    let short: String = text.chars().take(LONGEST).collect();
    let more = if short.len() < text.len() { "..." } else { "" };
    format!("{}{more}", short.escape_debug())
}
