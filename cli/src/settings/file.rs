//! The settings file: what it says of each setting, as text, and where.
//!
//! Invariant: no error quotes a value, which may be secret.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail};
use toml::de::{DeTable, DeValue};

use super::layers::{Setting, TABLES, did_you_mean};

/// By key, with its table's name.
pub(super) type File = BTreeMap<String, Entry>;

pub(super) struct Entry {
    /// File and line.
    pub(super) place: String,
    pub(super) values: Vec<String>,
}

/// Reads the file that `origin`, a flag or a variable, names.
pub(super) fn read(path: &Path, origin: &str, settings: &[Setting]) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| {
        let path = path.display();
        format!("cannot read the settings file {path}; name one that is there with {origin}, or leave {origin} out")
    })?;
    let place = |at: usize| format!("{}:{}", path.display(), text[..at].matches('\n').count() + 1);
    let table = match DeTable::parse(&text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let span = error.span().unwrap_or_default();
            // The span of this one error is a key; others may have a value there.
            let key = text.get(span.clone()).filter(|_| error.message() == "duplicate key").unwrap_or_default();
            bail!("{}: {} {key}", place(span.start), error.message())
        }
    };
    let mut file = File::new();
    for (key, at, value) in flat(&table) {
        let place = place(at);
        let values = values(&key, value, settings).with_context(|| place.clone())?;
        file.insert(key, Entry { place, values });
    }
    Ok(file)
}

/// All entries, those of a table behind its name, with their places in the text.
fn flat<'a>(table: &'a DeTable<'_>) -> impl Iterator<Item = (String, usize, &'a DeValue<'a>)> {
    table.iter().flat_map(|(name, value)| match value.get_ref() {
        DeValue::Table(inner) if TABLES.contains(&&**name.get_ref()) => {
            let key = |key: &str| format!("{}.{key}", name.get_ref());
            inner.iter().map(|(name, value)| (key(name.get_ref()), name.span().start, value.get_ref())).collect()
        }
        value => vec![(name.get_ref().to_string(), name.span().start, value)],
    })
}

fn values(key: &str, value: &DeValue<'_>, settings: &[Setting]) -> anyhow::Result<Vec<String>> {
    let Some(setting) = settings.iter().find(|setting| setting.key() == key) else {
        match value {
            _ if TABLES.contains(&key) => {
                bail!("{key} is a table; write [{key}], and below it a line for each setting")
            }
            DeValue::Table(_) => bail!("there is no table {key}{}", did_you_mean(key, TABLES.map(str::to_owned))),
            _ => bail!("there is no setting {key}{}", did_you_mean(key, settings.iter().map(Setting::key))),
        }
    };
    let values = match value {
        DeValue::Array(values) if setting.is_list() => values.iter().map(|value| as_text(value.get_ref())).collect(),
        value => as_text(value).map(|value| vec![value]),
    };
    values.with_context(|| format!("{key} cannot be of type {}", value.type_str()))
}

/// What would stand on the command line for it.
fn as_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        // It may be written in hexadecimal.
        DeValue::Integer(number) => Some(i64::from_str_radix(number.as_str(), number.radix()).ok()?.to_string()),
        DeValue::Boolean(is) => Some(is.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
