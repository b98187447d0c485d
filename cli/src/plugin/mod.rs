//! `framehook plugin`: write a plugin, try it and upload it. Nothing here but `push` needs a running
//! platform.
//!
//! What judges and runs a plugin is what the platform judges and runs it with (`local`): the same children,
//! found and confined in the same way.

mod build;
mod check;
mod follow;
mod local;
mod new;
mod progress;
mod push;
mod run;
mod scenario;
mod tally;
mod test;

use std::process::ExitCode;

use clap::Subcommand;

pub(crate) use self::{local::block_on, run::draw, scenario::json};

#[derive(Subcommand)]
pub(crate) enum Plugin {
    /// Make a folder with a new plugin, and all that it is built with
    New(new::New),
    /// Build the plugin of a folder with cargo, and check it
    Build(build::Build),
    /// Judge a plugin as an upload is judged, and show what it says of itself
    Check(check::Check),
    /// Run plugins and a model on a video, without a service
    Run(run::Run),
    /// Run the golden cases of a plugin's folder
    Test(test::Test),
    /// Upload a plugin to a running platform
    Push(push::Push),
}

impl Plugin {
    /// Does what the command line says.
    ///
    /// # Errors
    /// When it could not be done; what is wrong with a plugin is printed, and in the exit code.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::New(new) => new.run(),
            Self::Build(build) => build.run(),
            Self::Check(check) => check.run(),
            Self::Run(run) => run.run(),
            Self::Test(test) => test.run(),
            Self::Push(push) => push.run(),
        }
    }
}
