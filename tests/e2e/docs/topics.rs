//! `docs/topics.md`, from the types of the messages and their doc comments.

use std::collections::{BTreeMap, BTreeSet};

use framehook_core::{
    message::{Envelope, Message},
    prediction::Prediction,
    topic::{DEAD_LETTERS, Layout, Topic},
};
use serde_json::{Map, Value};
use utoipa::OpenApi;

use super::{head, header, row, source, variants};

const MESSAGES: &str = "core/src/message.rs";
const TOPICS: &str = "core/src/topic.rs";
const EXAMPLES: &str = "tests/e2e/docs/messages.json";

/// What the types say of themselves.
#[derive(OpenApi)]
#[openapi(components(schemas(Envelope)))]
struct Types;

pub(super) fn document() -> String {
    let types = serde_json::to_value(Types::openapi()).unwrap();
    let types = types["components"]["schemas"].as_object().unwrap();
    let examples: Vec<Value> = serde_json::from_str(&source(EXAMPLES)).unwrap();
    let examples: Vec<_> = examples.iter().map(|e| Envelope::parse(e.to_string().as_bytes()).unwrap()).collect();
    let messages = messages(types);
    [
        head("Topics and messages", &format!("`{MESSAGES}`, `{TOPICS}`, the examples from `{EXAMPLES}`")),
        "Every message is a hint or an idempotent record: losing, repeating or reordering one changes nothing that the \
         next heartbeat or the next scan does not mend. No message holds a secret.\n\n## Topics\n\n"
            .to_owned(),
        topics(&examples),
        "\nTopics are made where they are missing, with these settings; those that exist stay as they are. \
         `FRAMEHOOK_KAFKA_PREFIX` stands in front of each name. What cannot be read of a topic goes to `<topic>.dlq` with \
         the reason, and to the table `dead_letters`, where the store counts it.\n\n## Envelope\n\nA record is one JSON \
         object. A reader ignores fields it does not know and takes a message of another `version` for unreadable. \
         `traceparent` is a header of the record as well.\n\n"
            .to_owned(),
        fields(&types["Envelope"]["allOf"][1]),
        row(&["`type`", "string", "yes", "Which message it is."]),
        row(&["`data`", "object", "yes", "Its content, as below."]),
        "\n## Messages\n".to_owned(),
        messages.iter().map(|(kind, data)| message(kind, data, types, &examples)).collect(),
        "\n## Types\n".to_owned(),
        nested(types, &messages),
    ]
    .concat()
}

fn topics(examples: &[Envelope]) -> String {
    let comments: BTreeMap<_, _> = variants(&source(TOPICS), "pub enum Topic {").into_iter().collect();
    let rows = Topic::ALL.map(|topic| {
        let kinds: BTreeSet<_> = examples.iter().filter(|e| e.topic() == topic).map(kind).collect();
        let kinds: Vec<_> = kinds.iter().map(|kind| format!("[`{kind}`](#{})", kind.replace('.', ""))).collect();
        layout_row(&format!("`{}`", topic.name()), topic.layout(), &kinds.join(", "), &comments[&format!("{topic:?}")])
    });
    let dead = layout_row("`*.dlq`", DEAD_LETTERS, "", "What could not be read, as it came. Key: that of the record.");
    header(&["topic", "partitions", "kept", "compression", "messages", "content"]) + &rows.concat() + &dead
}

fn layout_row(name: &str, layout: Layout, kinds: &str, content: &str) -> String {
    let minutes = layout.retention.as_secs() / 60;
    let kept = match minutes {
        ..60 => format!("{minutes} min"),
        60..1440 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / 1440),
    };
    row(&[name, &layout.partitions.to_string(), &kept, layout.compression, kinds, content])
}

/// The type of each message, and the schema of its data.
fn messages(types: &Map<String, Value>) -> Vec<(String, Value)> {
    let all = types["Message"]["oneOf"].as_array().unwrap();
    let message = |m: &Value| {
        let kind = m["properties"]["type"]["enum"][0].as_str().unwrap().to_owned();
        (kind, m["properties"]["data"].clone())
    };
    all.iter().map(message).collect()
}

fn message(kind: &str, data: &Value, types: &Map<String, Value>, examples: &[Envelope]) -> String {
    let schema = named(data).map_or(data, |name| &types[name]);
    let example = examples.iter().find(|e| self::kind(e) == kind);
    let example = example.unwrap_or_else(|| panic!("{EXAMPLES} has no message `{kind}`"));
    let mut json = serde_json::to_string_pretty(example).unwrap();
    if let Message::Result(record) = &example.message {
        // A record stays as it was written.
        let prediction: Prediction = serde_json::from_str(record.json()).unwrap();
        let pretty = serde_json::to_string_pretty(&prediction).unwrap();
        json = json.replace(record.json(), &pretty.replace('\n', "\n  "));
    }
    let (about, fields) = (paragraph(schema), fields(schema));
    format!(
        "\n### `{kind}`\n\n{about}{fields}\n<details><summary>Example</summary>\n\n```json\n{json}\n```\n\n</details>\n"
    )
}

/// Every other type that the messages are made of.
fn nested(types: &Map<String, Value>, messages: &[(String, Value)]) -> String {
    let told: BTreeSet<_> =
        messages.iter().filter_map(|(_, data)| named(data)).chain(["Envelope", "Message", "i64"]).collect();
    let mut text = String::new();
    for (name, schema) in types.iter().filter(|(name, _)| !told.contains(name.as_str())) {
        let body = if schema["properties"].is_object() || schema["allOf"].is_array() {
            fields(schema)
        } else {
            format!("{}\n", kind_of(schema))
        };
        text += &format!("\n### {name}\n\n{}{body}", paragraph(schema));
    }
    text
}

/// A table of the fields of an object, those it takes over from another type included.
fn fields(schema: &Value) -> String {
    let mut text = header(&["field", "type", "always", "meaning"]);
    let alone = [schema.clone()];
    for part in schema["allOf"].as_array().map_or(&alone[..], Vec::as_slice) {
        if let Some(name) = named(part) {
            text += &row(&[&format!("all of [{name}](#{})", name.to_lowercase()), "", "", ""]);
        }
        let required: Vec<_> = part["required"].as_array().into_iter().flatten().collect();
        for (name, field) in part["properties"].as_object().into_iter().flatten() {
            let always = if required.iter().any(|r| *r == name) { "yes" } else { "" };
            text += &row(&[&format!("`{name}`"), &kind_of(field), always, &about(field)]);
        }
    }
    text
}

/// A doc comment on one line; that of a field that may be null stands at its other choice.
fn about(schema: &Value) -> String {
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    let text = std::iter::once(schema).chain(choices).find_map(|s| s["description"].as_str());
    text.unwrap_or_default().replace('\n', " ")
}

fn paragraph(schema: &Value) -> String {
    schema["description"].as_str().map(|_| about(schema) + "\n\n").unwrap_or_default()
}

/// A schema in words.
fn kind_of(schema: &Value) -> String {
    if let Some(name) = named(schema) {
        // An alias of a number, which the schemas know by its own name.
        if name == "i64" {
            return "integer (int64)".to_owned();
        }
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|v| format!("`{}`", v.as_str().unwrap())).collect::<Vec<_>>().join(", ");
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        // The one that is not null first.
        let mut words: Vec<_> = choices.iter().map(kind_of).collect();
        words.sort_by_key(|word| word == "null");
        return words.join(" or ");
    }
    let single = |kind: &str| match kind {
        "array" => format!("array of {}", kind_of(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("object of {}", kind_of(&schema["additionalProperties"]))
        }
        "object" if schema["properties"].is_object() => {
            let inside = schema["properties"].as_object().unwrap().iter();
            let inside: Vec<_> = inside.map(|(name, field)| format!("`{name}`: {}", kind_of(field))).collect();
            format!("object with {}", inside.join(", "))
        }
        _ => match schema["format"].as_str() {
            Some(format) => format!("{kind} ({format})"),
            None => kind.to_owned(),
        },
    };
    match &schema["type"] {
        Value::String(kind) => single(kind),
        Value::Array(kinds) => {
            let words: Vec<_> = kinds.iter().map(|k| k.as_str().unwrap()).collect();
            words
                .iter()
                .map(|k| if *k == "null" { (*k).to_owned() } else { single(k) })
                .collect::<Vec<_>>()
                .join(" or ")
        }
        _ => "any".to_owned(),
    }
}

/// The type that a schema stands for.
fn named(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

fn kind(envelope: &Envelope) -> String {
    serde_json::to_value(envelope).unwrap()["type"].as_str().unwrap().to_owned()
}
