//! What a value may be, wherever it comes from. An error says what was expected.

use std::{ops::RangeInclusive, str::FromStr};

use framehook_core::{
    execution::{Provider, ProviderChoice},
    spec::{Lanes, MAX_LANES},
};

pub(crate) fn number<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, String> + Clone {
    let expected = match *range.end() {
        u64::MAX => format!("at least {}", range.start()),
        most => format!("{} to {most}", range.start()),
    };
    move |text| {
        let number = text.parse().map_err(|_| format!("it must be a whole number, {expected}"))?;
        let fits = range.contains(&number).then(|| T::try_from(number).ok()).flatten();
        fits.ok_or_else(|| format!("it must be {expected}"))
    }
}

pub(crate) fn at_least<T: TryFrom<u64>>(least: u64) -> impl Fn(&str) -> Result<T, String> + Clone {
    number(least..=u64::MAX)
}

pub(crate) fn positive<T: TryFrom<u64>>() -> impl Fn(&str) -> Result<T, String> + Clone {
    at_least(1)
}

pub(crate) fn a<T: FromStr>(expected: &str) -> impl Fn(&str) -> Result<T, String> + Clone {
    let expected = format!("it must be {expected}");
    move |text| text.parse().map_err(|_| expected.clone())
}

pub(crate) fn lanes(text: &str) -> Result<Lanes, String> {
    if text == "auto" {
        return Ok(Lanes::Auto);
    }
    number(1..=MAX_LANES.into())(text).map(Lanes::Fixed).map_err(|why| format!("{why}, or auto"))
}

pub(crate) fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("it must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(crate) fn provider(text: &str) -> Result<ProviderChoice, String> {
    let known = ProviderChoice::ALL.into_iter().find(|choice| choice.as_str() == text);
    known.ok_or_else(|| format!("it must be {}", one_of(&ProviderChoice::ALL.map(ProviderChoice::as_str))))
}

/// A provider, and a key and a value of it.
pub(crate) type ProviderOption = (Provider, String, String);

pub(crate) fn provider_option(text: &str) -> Result<ProviderOption, String> {
    let read = || {
        let (name, value) = text.split_once('=')?;
        let (of, key) = name.split_once('.')?;
        Some((of.parse().ok()?, key.to_owned(), value.to_owned()))
    };
    read().ok_or_else(|| "it must be PROVIDER.KEY=VALUE, such as cuda.device_id=1".to_owned())
}

fn one_of(words: &[&str]) -> String {
    let (last, others) = words.split_last().expect("there are some");
    format!("{} or {last}", others.join(", "))
}
