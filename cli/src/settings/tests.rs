use std::{fs, path::Path};

use clap::{Command, FromArgMatches as _};

use super::{layers::definitions, *};

/// As a command line says, without environment and file.
pub(crate) fn settings(line: &[&str]) -> Settings {
    let command = Settings::augment_args(Command::new("settings").no_binary_name(true));
    Settings::from_arg_matches(&command.get_matches_from(line)).unwrap()
}

#[test]
fn labels_are_keys_and_values() {
    let labels = settings(&["--label", "gpu=true", "--label", "note=a=b"]).labels();
    let pairs = [("gpu", "true"), ("note", "a=b")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(labels, Labels::from(pairs));
}

#[test]
fn every_setting_is_listed_in_the_documents() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let listed = document();
    // Set by `make docs`.
    if std::env::var_os("FRAMEHOOK_UPDATE_DOCS").is_some() {
        fs::write(&file, &listed).unwrap();
    }
    assert!(
        fs::read_to_string(file).unwrap() == listed,
        "docs/settings.md is not what the definitions say: run `make docs`"
    );
}

fn document() -> String {
    let mut text = "\
# Settings

Written by `make docs` from the definitions in `cli/src/`; do not edit.

A setting comes from its flag, else from its variable of the environment, else from the TOML file that `--config` or
`FRAMEHOOK_CONFIG` names, else it is the default. `--dump-config` prints those in force as such a file, without what is secret.
An empty variable is as if it were not set; an empty flag, or an empty value in the file, is an error.
A list in a variable is separated by commas, one of folders by colons; its flag is given once for each.
A key `http.hosts` is `hosts` in the file's table `[http]`.

`framehook up` has all settings but those of `[cluster]`. A role refuses flags of others; the file and the environment may hold
what others need. A variable that begins with `FRAMEHOOK_` and is not known is an error. (In Kubernetes a service named
`framehook...` puts such variables into each pod: set `enableServiceLinks: false`.)

| flag | variable | key | for | what |
|---|---|---|---|---|
"
    .to_owned();
    for setting in definitions() {
        let roles: Vec<_> = ROLES.into_iter().filter(|role| setting.is_for(role)).collect();
        let roles = if roles.len() == ROLES.len() { "all".to_owned() } else { roles.join(", ") };
        let default = setting.arg.get_default_values().first().filter(|_| !setting.arg.is_hide_default_value_set());
        let default = default.map_or_else(String::new, |value| format!(" [default: {}]", value.display()));
        let help = setting.arg.get_help().unwrap().to_string();
        let (flag, variable, key) = (setting.flag(), setting.variable(), setting.key());
        text += &format!("| `{flag}` | `{variable}` | `{key}` | {roles} | {help}{default} |\n");
    }
    text
}
