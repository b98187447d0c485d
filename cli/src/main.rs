//! The `framehook` executable: reads its command line and calls what does the work.

mod cluster;
mod confinement;
mod http;
mod library;
mod limits;
mod log;
mod process;
mod roles;
mod services;
mod settings;
mod traces;
mod up;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use cluster::ClusterOptions;
use framehook_confine::Reach;
use settings::{Options, Settings};

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
    Up(Box<Up>),
    /// Serve the REST API on PostgreSQL and Kafka; any number of them may run
    #[command(after_help = ROLE_HELP)]
    Api(Box<Role>),
    /// Place scenarios on runners: one orchestrator leads, any number stand by
    #[command(after_help = ROLE_HELP)]
    Orchestrator(Box<Role>),
    /// Run scenarios, each in a process of its own; any number of runners may run
    #[command(after_help = ROLE_HELP, args_conflicts_with_subcommands = true)]
    Runner(Box<Runner>),
    /// Make or update the tables of the database, and end (each role does so at its start, too)
    #[command(after_help = ROLE_HELP)]
    Migrate(Box<Role>),
    /// What the services run in a process of its own, so that no plugin can harm them
    #[command(hide = true, subcommand)]
    PluginHost(PluginHost),
}

#[derive(Args)]
struct Up {
    /// Settings as TOML; `--dump-config` prints one to start from
    #[arg(long, env = "FRAMEHOOK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings in force and exit
    #[arg(long)]
    dump_config: bool,
    #[command(flatten)]
    options: Options,
}

const UP_HELP: &str = "\
A setting comes from the flag, else from the environment variable, else from the file, else it is the default.
The API has no authentication yet, so it listens on 127.0.0.1 only.";

/// A role of a scaled deployment.
#[derive(Args)]
struct Role {
    #[command(flatten)]
    up: Up,
    #[command(flatten)]
    cluster: ClusterOptions,
}

#[derive(Args)]
struct Runner {
    #[command(flatten)]
    role: Role,
    #[command(subcommand)]
    command: Option<RunnerCommand>,
}

#[derive(Subcommand)]
enum RunnerCommand {
    /// Let the runner on a data folder hand its scenarios on and end; returns when it has
    Drain {
        /// The runner's data folder
        #[arg(long, env = "FRAMEHOOK_DATA", value_name = "FOLDER", default_value = "framehook-data")]
        data: PathBuf,
    },
}

const ROLE_HELP: &str = "\
A setting comes from the flag, else from the environment variable, else from the file (those of the database and of
Kafka from its table [cluster]), else it is the default. Each process needs a data folder and a port of its own.
There is no authentication yet: listen only where nobody else can call.";

#[derive(Subcommand)]
enum PluginHost {
    /// Check an uploaded file; the verdict is JSON
    Inspect { file: PathBuf },
    /// Compile a component for this machine; prints the machine code
    Compile { file: PathBuf },
    /// Check the configuration on stdin; the verdict is JSON
    ValidateConfig { file: PathBuf },
    /// Try what this process would be confined by; the outcome is JSON
    Confinement,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
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
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(up) => with_settings(*up, ClusterOptions::default(), up::up),
        Command::Api(role) => run_role("api", *role, roles::api),
        Command::Orchestrator(role) => run_role("orchestrator", *role, roles::orchestrator),
        Command::Runner(runner) => match runner.command {
            Some(RunnerCommand::Drain { data }) => roles::drain(&data),
            None => run_role("runner", runner.role, roles::runner),
        },
        Command::Migrate(role) => run_role("migrate", *role, roles::migrate),
        Command::PluginHost(command) => plugin_host(command),
    }
}

fn run_role<F: Future<Output = anyhow::Result<()>>>(
    name: &str,
    role: Role,
    run: impl FnOnce(Settings) -> F,
) -> anyhow::Result<()> {
    with_settings(role.up, role.cluster, |settings| process::run(name, settings, run))
}

/// Loads the settings, and prints them instead of running if that is asked for.
fn with_settings(
    up: Up,
    cluster: ClusterOptions,
    run: impl FnOnce(Settings) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let settings = Settings::load(&up.options, cluster, up.config.as_deref())?;
    if up.dump_config {
        println!("{}", settings.dump()?);
        return Ok(());
    }
    run(settings)
}

fn plugin_host(command: PluginHost) -> anyhow::Result<()> {
    use framehook_engine::command::{Command, run};
    let command = match command {
        PluginHost::Inspect { file } => Command::Inspect { wasm: file },
        PluginHost::Compile { file } => Command::Compile { wasm: file },
        PluginHost::ValidateConfig { file } => Command::ValidateConfig { wasm: file },
        PluginHost::Confinement => {
            println!("{}", serde_json::to_string(&framehook_confine::attempt()?)?);
            return Ok(());
        }
    };
    let (Command::Inspect { wasm } | Command::Compile { wasm } | Command::ValidateConfig { wasm }) = &command;
    framehook_confine::enter(&Reach::reading([wasm]))?;
    Ok(run(&command)?)
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
