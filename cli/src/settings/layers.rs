//! Lays command line, environment and file over the defaults, and says of a wrong value where it came from.
//!
//! clap reads twice. At first every value is a text, which is never wrong: that tells which file
//! there is, and where the value of each setting comes from. Then what the file says takes the
//! place of the default of whatever nobody set, and each value, wherever it comes from, goes
//! through the one parser of its definition.
//!
//! Invariant: what is secret is neither dumped nor in an error. Secret is what the help does not
//! show of the environment.

use std::{any::TypeId, collections::BTreeMap, env, ffi::OsString, path::PathBuf};

use anyhow::{anyhow, bail};
use clap::{
    Arg, ArgAction, ArgGroup, ArgMatches, Args as _, Command, FromArgMatches as _,
    builder::{Resettable, ValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use super::{
    ROLES, Settings,
    file::{self, File},
};
use crate::cluster::without_secrets;

/// Tables of the file. The settings of each are a struct, whose group is named like it.
pub(super) const TABLES: [&str; 3] = ["http", "limits", "cluster"];

/// Our variables begin so.
const PREFIX: &str = "FRAMEHOOK_";

/// The variable that names the settings file.
const CONFIG: &str = "FRAMEHOOK_CONFIG";

/// What follows the prefix in variables of the balancer in front of the APIs, of clients, and of tests.
const FOR_OTHERS: [&str; 6] = ["LISTEN", "API", "TEST_", "CHAOS_S", "FREEZE_S", "UPDATE_DOCS"];

/// How alike two names must be for one to be suggested for the other, from 0 to 1: clap's own figure.
const ALIKE: f64 = 0.7;

/// The definition of a setting.
pub(super) struct Setting {
    pub(super) arg: Arg,
    table: Option<&'static str>,
    roles: Vec<&'static str>,
}

impl Setting {
    fn id(&self) -> &str {
        self.arg.get_id().as_str()
    }

    /// Name in the file, behind that of its table.
    pub(super) fn key(&self) -> String {
        self.table.map_or_else(|| self.id().to_owned(), |table| format!("{table}.{}", self.id()))
    }

    pub(super) fn flag(&self) -> String {
        format!("--{}", self.arg.get_long().unwrap_or_default())
    }

    pub(super) fn variable(&self) -> String {
        self.arg.get_env().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(super) fn is_for(&self, role: &str) -> bool {
        match role {
            "up" => self.table != Some("cluster"),
            _ => self.roles.is_empty() || self.roles.contains(&role),
        }
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.arg.get_action(), ArgAction::Append)
    }

    fn is_text(&self) -> bool {
        let of = self.arg.get_value_parser().type_id();
        of == TypeId::of::<String>() || of == TypeId::of::<PathBuf>()
    }

    /// A value without what is secret of it.
    fn shown(&self, value: &str) -> String {
        match (self.arg.is_hide_env_values_set(), self.is_list()) {
            (false, _) => value.to_owned(),
            (true, false) => without_secrets(value),
            (true, true) => value.split_once('=').map_or("***".to_owned(), |(key, _)| format!("{key}=***")),
        }
    }
}

/// Where the settings in force come from.
#[derive(Clone, Default)]
pub(crate) struct Origins {
    /// What a sentence calls each setting: the flag, the variable, or the key and the place in the file.
    names: BTreeMap<String, String>,
    /// Those that environment and file set although the role lacks them.
    pub(crate) of_others: Vec<String>,
}

impl Origins {
    /// The flag of one that was not set.
    pub(crate) fn of<'a>(&'a self, id: &'a str) -> &'a str {
        self.names.get(id).map_or(id, String::as_str)
    }
}

/// All settings, those of tables last.
pub(super) fn definitions() -> Vec<Setting> {
    let mut command = Settings::augment_args(Command::new("settings").disable_help_flag(true)).mut_args(with_variable);
    command.build();
    let is_in = |group: &str, arg: &Arg| {
        command.get_groups().any(|known| known.get_id() == group && known.get_args().any(|id| id == arg.get_id()))
    };
    let setting = |arg: &Arg| Setting {
        arg: arg.clone(),
        table: TABLES.into_iter().find(|table| is_in(table, arg)),
        roles: ROLES.into_iter().filter(|role| is_in(role, arg)).collect(),
    };
    command.get_arguments().map(setting).collect()
}

/// What `Settings` adds to a command: a group of clap's own excludes its members from each other.
pub(super) fn role_groups() -> [ArgGroup; ROLES.len()] {
    ROLES.map(|role| ArgGroup::new(role).multiple(true))
}

/// An empty variable is as if it were not set: compose files and units pass such on.
fn without_empty_variable(arg: Arg) -> Arg {
    let value = arg.get_env().and_then(env::var_os);
    if value.is_some_and(|value| value.is_empty()) { arg.env(Resettable::Reset) } else { arg }
}

fn with_variable(arg: Arg) -> Arg {
    let name = format!("{PREFIX}{}", arg.get_id().as_str().to_uppercase());
    if arg.get_env().is_some() { arg } else { arg.env(name) }
}

/// What works on plugins has arguments of its own, and reads the settings by [`read_environment`].
const WITHOUT_SETTINGS: [&str; 2] = ["plugin", "replay"];

/// Reads the command line of `command` and, if it runs a role, the settings. Ends the process where
/// clap does: after the help, and when the command line cannot be read.
pub(crate) fn read(command: Command, line: &[OsString]) -> anyhow::Result<(ArgMatches, Origins)> {
    // Children have no settings, and one is started for each configuration that is checked.
    let has_none = |command: &Command| command.is_hide_set() || WITHOUT_SETTINGS.contains(&command.get_name());
    if line.get(1).and_then(|name| command.find_subcommand(name)).is_some_and(has_none) {
        return Ok((command.get_matches_from(line), Origins::default()));
    }
    read_layers(command, line, true)
}

/// The settings that `role` would have here without any flag.
pub(crate) fn read_environment(command: Command, role: &str) -> anyhow::Result<(ArgMatches, Origins)> {
    read_layers(command, &["framehook".into(), role.into()], false)
}

fn read_layers(command: Command, line: &[OsString], is_typed: bool) -> anyhow::Result<(ArgMatches, Origins)> {
    let settings = definitions();
    let command = each(command, &|role, arg| match find(&settings, arg.get_id().as_str()) {
        Some(setting) => without_empty_variable(with_variable(arg)).hide(!setting.is_for(role)),
        None => without_empty_variable(arg),
    });
    let as_text = each(command.clone(), &|_, arg| match find(&settings, arg.get_id().as_str()) {
        Some(_) => arg.value_parser(ValueParser::os_string()),
        None => arg,
    });
    let given = match as_text.try_get_matches_from(line) {
        Ok(given) => given,
        Err(error) if error.kind() == ErrorKind::InvalidSubcommand && command.find_subcommand(&line[1]).is_none() => {
            return Err(no_command(&command, &line[1].to_string_lossy()));
        }
        Err(_) => return Ok((command.get_matches_from(line), Origins::default())),
    };
    let (role, given) = leaf(&given);
    refuse_variables(&settings)?;
    let config = given.get_one::<PathBuf>("config");
    let file = config.map(|path| file::read(path, config_origin(given), &settings)).transpose()?.unwrap_or_default();
    let layers = Layers { role, given, file, settings: &settings, is_typed };
    layers.refuse_flags()?;
    layers.refuse_empty()?;
    let command = each(command, &|_, arg| layers.with_file(arg));
    let matches = command.try_get_matches_from(line).map_err(|error| layers.explain(error))?;
    layers.check(leaf(&matches).1)?;
    Ok((matches, layers.origins()))
}

/// clap would suggest a command that it hides.
fn no_command(command: &Command, name: &str) -> anyhow::Error {
    let known = command.get_subcommands().filter(|known| !known.is_hide_set()).map(|known| known.get_name().to_owned());
    anyhow!(
        "there is no command {name}{}. `framehook --help` lists the commands. None of them is a client, but for `plugin push` and `replay`: \
         models, videos and scenarios are reached over HTTP, with curl for instance, as `/docs` of a running API shows",
        did_you_mean(name, known)
    )
}

/// What named the settings file.
fn config_origin(given: &ArgMatches) -> &'static str {
    match given.value_source("config") {
        Some(ValueSource::EnvVariable) => CONFIG,
        _ => "--config",
    }
}

fn find<'a>(settings: &'a [Setting], id: &str) -> Option<&'a Setting> {
    settings.iter().find(|setting| setting.id() == id)
}

struct Layers<'a> {
    role: &'a str,
    /// As texts, without the file.
    given: &'a ArgMatches,
    file: File,
    settings: &'a [Setting],
    /// Whether somebody typed the role, and could have typed a flag.
    is_typed: bool,
}

impl Layers<'_> {
    /// Command line or environment, if it is set there.
    fn source(&self, setting: &Setting) -> Option<ValueSource> {
        self.given.value_source(setting.id()).filter(|source| *source != ValueSource::DefaultValue)
    }

    /// Whoever types a flag expects something of it. File and environment may be for other roles.
    fn refuse_flags(&self) -> anyhow::Result<()> {
        let is_typed = |setting: &&Setting| self.source(setting) == Some(ValueSource::CommandLine);
        if let Some(other) = self.settings.iter().filter(is_typed).find(|setting| !setting.is_for(self.role)) {
            bail!("framehook {} has no {}; it is a setting of {}", self.role, other.flag(), other.roles.join(", "));
        }
        Ok(())
    }

    /// An empty value is seldom meant, and says nothing where it is shown.
    fn refuse_empty(&self) -> anyhow::Result<()> {
        for setting in self.settings {
            let given = self.source(setting).map(|_| values(self.given, setting));
            let values = given.or_else(|| Some(self.file.get(&setting.key())?.values.clone())).unwrap_or_default();
            match &*values {
                [only] if only.is_empty() => {
                    bail!("{} is empty; give it a value, or leave it out", self.origin(setting))
                }
                several if several.iter().any(String::is_empty) => {
                    bail!("{} has an empty value among others; leave that out", self.origin(setting))
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn with_file(&self, arg: Arg) -> Arg {
        let setting = find(self.settings, arg.get_id().as_str());
        match setting.and_then(|setting| Some((self.source(setting), self.file.get(&setting.key())?))) {
            // A value of the file is one, whatever characters it has.
            Some((None, entry)) => arg.value_delimiter(None).default_values(entry.values.clone()),
            _ => arg,
        }
    }

    fn explain(&self, error: clap::Error) -> anyhow::Error {
        let context = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => text.clone(),
            Some(ContextValue::Strings(texts)) => texts.join(" or "),
            _ => String::new(),
        };
        let arg = context(ContextKind::InvalidArg);
        let flag = arg.split(' ').next();
        let Some(setting) = self.settings.iter().find(|setting| Some(&*setting.flag()) == flag) else { error.exit() };
        let why = std::error::Error::source(&error).map(ToString::to_string);
        let why = why.unwrap_or_else(|| format!("it must be {}", context(ContextKind::ValidValue)));
        self.wrong(setting, &context(ContextKind::InvalidValue), &why)
    }

    fn check(&self, matches: &ArgMatches) -> anyhow::Result<()> {
        let Err((id, why)) = Settings::from_arg_matches(matches)?.check() else { return Ok(()) };
        let setting = find(self.settings, id).expect("settings conflict with settings");
        Err(self.wrong(setting, &values(matches, setting).join(","), &why))
    }

    fn wrong(&self, setting: &Setting, value: &str, why: &str) -> anyhow::Error {
        anyhow!("{} is {}; {why}", self.origin(setting), setting.shown(value))
    }

    /// What an error about a value begins with.
    fn origin(&self, setting: &Setting) -> String {
        match self.place(setting) {
            Some(place) => format!("{place}: {}", setting.key()),
            None => self.name(setting),
        }
    }

    fn origins(&self) -> Origins {
        let name = |setting: &Setting| match self.place(setting) {
            Some(place) => format!("{} ({place})", setting.key()),
            None => self.name(setting),
        };
        let is_set = |setting: &Setting| self.source(setting).is_some() || self.place(setting).is_some();
        let of_others = self.settings.iter().filter(|setting| !setting.is_for(self.role) && is_set(setting)).map(name);
        let names = self.settings.iter().map(|setting| (setting.id().to_owned(), name(setting)));
        Origins { names: names.collect(), of_others: of_others.collect() }
    }

    /// Where in the file the value in force stands, if it is of the file.
    fn place(&self, setting: &Setting) -> Option<&str> {
        let entry = self.file.get(&setting.key()).filter(|_| self.source(setting).is_none())?;
        Some(&entry.place)
    }

    /// The variable or flag that it is or can be set with.
    fn name(&self, setting: &Setting) -> String {
        match self.source(setting) {
            Some(ValueSource::EnvVariable) => setting.variable(),
            _ if !self.is_typed => setting.variable(),
            _ => setting.flag(),
        }
    }
}

/// A variable that nobody reads is one with a spelling mistake.
fn refuse_variables(settings: &[Setting]) -> anyhow::Result<()> {
    let known: Vec<_> = settings.iter().map(Setting::variable).chain([CONFIG.to_owned()]).collect();
    for name in env::vars_os().filter_map(|(name, _)| name.into_string().ok()) {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if !known.contains(&name) && !FOR_OTHERS.iter().any(|other| rest.starts_with(other)) {
            bail!("the environment has {name}, which is no setting{}", did_you_mean(&name, known));
        }
    }
    Ok(())
}

/// The nearest of the known names, if there is one near. Names are compared without what they have in common.
pub(super) fn did_you_mean(name: &str, known: impl IntoIterator<Item = String>) -> String {
    let own = |name: &str| name.rsplit('.').next().unwrap_or_default().trim_start_matches(PREFIX).to_owned();
    let alike = |other: String| (strsim::jaro(&own(name), &own(&other)), other);
    let nearest = known.into_iter().map(alike).max_by(|a, b| a.0.total_cmp(&b.0));
    nearest
        .filter(|(alike, _)| *alike > ALIKE)
        .map_or_else(String::new, |(_, other)| format!("; did you mean {other}?"))
}

/// The settings in force of the role that the command line names, as a settings file.
pub(crate) fn dump(matches: &ArgMatches) -> String {
    let (role, matches) = leaf(matches);
    let mut dump = String::new();
    let mut table = None;
    for setting in definitions().iter().filter(|setting| setting.is_for(role)) {
        if setting.table != table {
            table = setting.table;
            dump += &format!("\n[{}]\n", table.unwrap_or_default());
        }
        let values: Vec<_> = values(matches, setting).iter().map(|value| as_toml(setting, value).to_string()).collect();
        dump += &match &values[..] {
            values if setting.is_list() => format!("{} = [{}]\n", setting.id(), values.join(", ")),
            [value] => format!("{} = {value}\n", setting.id()),
            _ => format!("# {} is not set\n", setting.id()),
        };
    }
    dump
}

fn as_toml(setting: &Setting, value: &str) -> toml::Value {
    let bare = value.parse().ok().filter(|bare: &toml::Value| bare.is_integer() || bare.is_bool());
    bare.filter(|_| !setting.is_text()).unwrap_or_else(|| setting.shown(value).into())
}

fn values(matches: &ArgMatches, setting: &Setting) -> Vec<String> {
    let values = matches.get_raw(setting.id()).into_iter().flatten();
    values.map(|value| value.to_string_lossy().into_owned()).collect()
}

/// The command that runs, with its name.
fn leaf(matches: &ArgMatches) -> (&str, &ArgMatches) {
    let mut leaf = ("", matches);
    while let Some(command) = leaf.1.subcommand() {
        leaf = command;
    }
    leaf
}

/// Changes the arguments of a command and of all below it.
fn each(command: Command, change: &dyn Fn(&str, Arg) -> Arg) -> Command {
    let name = command.get_name().to_owned();
    command.mut_args(|arg| change(&name, arg)).mut_subcommands(|command| each(command, change))
}
