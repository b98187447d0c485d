//! `framehook plugin push`: an upload, with an answer for people.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Args;

use super::local::block_on;
use crate::client::{self, Client, problem};

#[derive(Args)]
pub(crate) struct Push {
    /// The component, a `.wasm` file
    file: PathBuf,
    /// Address of the API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    api: String,
}

impl Push {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let (client, wasm) = (Client::new(&self.api), client::read(&self.file)?);
        let (status, answer) = block_on(client.post("/plugin", "application/wasm", wasm))?;
        if !status.is_success() {
            bail!("{} was not taken: {}", self.file.display(), problem(&answer));
        }
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        println!(
            "{}@{} is at {api}\nscenarios use it as {{\"use\": \"{0}@{1}\"}}; {api}/plugin/{0}/{1} has its settings",
            text("name"),
            text("version"),
            api = client.url
        );
        Ok(ExitCode::SUCCESS)
    }
}
