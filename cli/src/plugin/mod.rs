//! `framehook plugin`: write a plugin, try it, sign it, upload it and pass it on. Nothing here but `dev` and
//! `push` needs a running platform.
//!
//! What judges and runs a plugin is what the platform judges and runs it with (`local`): the same children,
//! found and confined in the same way.

mod baseline;
mod bench;
mod build;
mod case;
mod check;
mod conformance;
mod dev;
mod follow;
mod keys;
mod local;
mod new;
mod progress;
mod push;
mod registry;
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
    /// Check that a component keeps to the contract, whatever language it was written in
    Conformance(conformance::Conformance),
    /// Run plugins and a model on a video, without a service
    Run(run::Run),
    /// Run the golden cases of a plugin's folder
    Test(test::Test),
    /// Measure what a plugin takes on its golden cases, and compare it with what it took
    Bench(bench::Bench),
    /// Build a plugin each time it is edited, and run it in a scenario that runs
    Dev(dev::Dev),
    /// Upload a plugin to a running platform, or push it to an OCI registry
    Push(push::Push),
    /// Fetch a plugin from an OCI registry
    Pull(registry::Pull),
    /// Make a pair of keys: one to sign plugins with, one by which others know who signed
    Keygen(keys::Keygen),
    /// Sign a plugin
    Sign(keys::Sign),
    /// Say who signed a plugin, if that is somebody who is trusted
    Verify(keys::Verify),
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
            Self::Conformance(conformance) => conformance.run(),
            Self::Run(run) => run.run(),
            Self::Test(test) => test.run(),
            Self::Bench(bench) => bench.run(),
            Self::Dev(dev) => dev.run(),
            Self::Push(push) => push.run(),
            Self::Pull(pull) => pull.run(),
            Self::Keygen(keygen) => keygen.run(),
            Self::Sign(sign) => sign.run(),
            Self::Verify(verify) => verify.run(),
        }
    }
}
