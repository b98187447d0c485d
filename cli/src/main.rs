//! The `framehook` executable: reads its command line and calls what does the work.

mod client;
mod cluster;
mod confinement;
mod http;
mod library;
mod limits;
mod log;
mod plugin;
mod process;
mod replay;
mod roles;
mod services;
mod settings;
mod traces;
mod up;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use framehook_confine::Reach;
use framehook_core::{ids::Digest, probe::EXIT_FINDINGS};
use framehook_engine::{
    command::{self, Printed},
    conformance::Subject,
    trial::Trial,
};
use settings::{Settings, layers};

/// Watches videos with your ONNX models and WebAssembly hooks.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything on this machine: REST API, orchestrator, runner and their data in one folder
    #[command(after_help = UP_HELP)]
    Up(Box<Role>),
    /// Serve the REST API on PostgreSQL and Kafka; any number of them may run
    #[command(after_help = ROLE_HELP)]
    Api(Box<Role>),
    /// Place scenarios on runners: one orchestrator leads, any number stand by
    #[command(after_help = ROLE_HELP)]
    Orchestrator(Box<Role>),
    /// Run scenarios, each in a process of its own; any number of runners may run
    #[command(after_help = ROLE_HELP, args_conflicts_with_subcommands = true)]
    Runner(Runner),
    /// Make or update the tables of the database, and end (so do an API and an orchestrator at their start)
    #[command(after_help = MIGRATE_HELP)]
    Migrate(Box<Role>),
    /// Write a plugin, try it and upload it
    #[command(subcommand, after_help = PLUGIN_HELP)]
    Plugin(plugin::Plugin),
    /// Run a scenario's frames through another version of a plugin, and say what it finds otherwise
    #[command(after_help = REPLAY_HELP)]
    Replay(replay::Replay),
    /// What the services run in a process of its own, so that no plugin can harm them
    #[command(hide = true, subcommand)]
    PluginHost(PluginHost),
}

#[derive(Args)]
struct Role {
    /// Settings as TOML; `--dump-config` prints one to start from
    #[arg(long, env = "FRAMEHOOK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings in force and exit
    #[arg(long)]
    dump_config: bool,
    #[command(flatten)]
    settings: Settings,
}

const UP_HELP: &str = "\
A setting comes from the flag, else from the environment variable, else from the file, else it is the default.
The API has no authentication yet, so it listens on 127.0.0.1 only.";

#[derive(Args)]
struct Runner {
    #[command(flatten)]
    role: Box<Role>,
    #[command(subcommand)]
    command: Option<RunnerCommand>,
}

#[derive(Subcommand)]
enum RunnerCommand {
    /// Let the runner on a data folder hand its scenarios on and end; returns when it has
    Drain(Box<Role>),
}

const MIGRATE_HELP: &str = "\
A setting comes from the flag, else from the environment variable, else from the file, else it is the default. File and \
environment may hold what other roles need, too.";

const PLUGIN_HELP: &str = "\
What judges and runs a plugin here is found as `framehook up` finds it: beside this executable, or where its environment \
variables say, such as FRAMEHOOK_WORKER and FRAMEHOOK_ONNXRUNTIME.";

const REPLAY_HELP: &str = "\
Exit codes are those of `diff`: 0 nothing differs, 1 something does, 2 it could not be told.";

const ROLE_HELP: &str = "\
A setting comes from the flag, else from the environment variable, else from the file, else it is the default. File and \
environment may hold what other roles need, too. Each process needs a data folder and a port of its own.
There is no authentication yet: listen only where nobody else can call.";

#[derive(Subcommand)]
enum PluginHost {
    /// Check an uploaded file and compile it for this machine; prints the machine code, or findings as JSON
    Compile { file: PathBuf },
    /// Ask a compiled plugin what it is; the verdict is JSON
    Describe { compiled: PathBuf, digest: Digest },
    /// Check the configuration on stdin with a compiled plugin; the verdict is JSON
    ValidateConfig { compiled: PathBuf, digest: Digest },
    /// Call a compiled plugin's post hook on kept outputs, as the trial on stdin says; what came of it is
    /// JSON
    Try,
    /// Check whether a compiled plugin keeps to the contract, as the subject on stdin says; the checks are
    /// JSON
    Conform,
    /// Try what this process would be confined by; the outcome is JSON
    Confinement,
}

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("framehook: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, each once: some tell theirs themselves.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !told.contains(&cause) {
            told += if told.is_empty() { "" } else { ": " };
            told += &cause;
        }
    }
    told
}

fn start() -> anyhow::Result<ExitCode> {
    let line: Vec<_> = std::env::args_os().collect();
    let (matches, origins) = layers::read(Cli::command(), &line)?;
    let (mut role, run): (_, fn(Settings) -> anyhow::Result<()>) = match Cli::from_arg_matches(&matches)?.command {
        Command::Up(role) => (role, |settings| process::run("up", settings, up::up)),
        Command::Api(role) => (role, |settings| process::run("api", settings, roles::api)),
        Command::Orchestrator(role) => (role, |settings| process::run("orchestrator", settings, roles::orchestrator)),
        Command::Runner(Runner { command: Some(RunnerCommand::Drain(role)), .. }) => {
            (role, |settings| roles::drain(&settings.data))
        }
        Command::Runner(Runner { role, .. }) => (role, |settings| process::run("runner", settings, roles::runner)),
        Command::Migrate(role) => (role, |settings| process::run("migrate", settings, roles::migrate)),
        Command::Plugin(plugin) => return plugin.run(),
        Command::Replay(replay) => return Ok(replay.run()),
        Command::PluginHost(command) => return plugin_host(command),
    };
    if role.dump_config {
        print!("{}", layers::dump(&matches));
        return Ok(ExitCode::SUCCESS);
    }
    role.settings.origins = origins;
    run(role.settings).map(|()| ExitCode::SUCCESS)
}

/// The settings that `framehook up` would have here without any flag.
fn settings_of_environment() -> anyhow::Result<Settings> {
    let (matches, origins) = layers::read_environment(Cli::command(), "up")?;
    match Cli::from_arg_matches(&matches)?.command {
        Command::Up(mut role) => {
            role.settings.origins = origins;
            Ok(role.settings)
        }
        _ => anyhow::bail!("there are no settings of `up`"),
    }
}

fn plugin_host(command: PluginHost) -> anyhow::Result<ExitCode> {
    let confined = |file: PathBuf| framehook_confine::enter(&Reach::reading([&file])).map(|()| file);
    match command {
        PluginHost::Compile { file } => {
            if command::compile(&confined(file)?)? == Printed::Findings {
                return Ok(EXIT_FINDINGS.into());
            }
        }
        PluginHost::Describe { compiled, digest } => command::describe(&confined(compiled)?, &digest)?,
        PluginHost::ValidateConfig { compiled, digest } => command::validate_config(&confined(compiled)?, &digest)?,
        PluginHost::Try => {
            let trial: Trial = serde_json::from_reader(std::io::stdin().lock())?;
            let files = trial.outputs.iter().map(|(_, file)| file).chain([&trial.hook.compiled]);
            framehook_confine::enter(&Reach::reading(files))?;
            command::run_trial(&trial)?;
        }
        PluginHost::Conform => {
            let subject: Subject = serde_json::from_reader(std::io::stdin().lock())?;
            framehook_confine::enter(&Reach::reading([&subject.compiled]))?;
            command::run_conformance(&subject)?;
        }
        PluginHost::Confinement => println!("{}", serde_json::to_string(&framehook_confine::attempt()?)?),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let told = |error: anyhow::Error| told(&error);
        let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(told(anyhow::Error::new(denied()).context("cannot begin")), "cannot begin: permission denied");
        let folder = framehook_infra::sqlite::OpenError::Folder { path: "/data".into(), source: denied() };
        let said = told(folder.into());
        assert_eq!(said.matches("permission denied").count(), 1, "{said}");
        assert!(said.starts_with("the data folder /data cannot be used: ") && said.ends_with("with --data"), "{said}");
    }
}
