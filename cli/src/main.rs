//! The `framehook` executable: reads its command line and calls what does the work.

mod settings;
mod up;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
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

#[derive(Subcommand)]
enum PluginHost {
    /// Check an uploaded file; the verdict is JSON
    Inspect { file: PathBuf },
    /// Compile a component for this machine
    Compile { file: PathBuf, out: PathBuf },
    /// Check the configuration on stdin; the verdict is JSON
    ValidateConfig { file: PathBuf },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("framehook: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(up) => {
            let settings = Settings::load(&up.options, up.config.as_deref())?;
            if up.dump_config {
                println!("{}", toml::to_string(&settings).context("cannot print the settings")?.trim_end());
                return Ok(());
            }
            up::up(settings)
        }
        Command::PluginHost(command) => plugin_host(command),
    }
}

fn plugin_host(command: PluginHost) -> anyhow::Result<()> {
    use framehook_engine::command::{Command, run};
    let command = match command {
        PluginHost::Inspect { file } => Command::Inspect { wasm: file },
        PluginHost::Compile { file, out } => Command::Compile { wasm: file, out },
        PluginHost::ValidateConfig { file } => Command::ValidateConfig { wasm: file },
    };
    Ok(run(&command)?)
}
