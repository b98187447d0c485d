//! `framehook plugin push`: an upload, with an answer for people.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::{Client, header::CONTENT_TYPE};
use serde_json::Value;

use super::local::block_on;

#[derive(Args)]
pub(crate) struct Push {
    /// The component, a `.wasm` file
    file: PathBuf,
    /// Address of the API
    #[arg(long, value_name = "URL", env = "FRAMEHOOK_API", default_value = "http://127.0.0.1:8080")]
    api: String,
}

impl Push {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let wasm = fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let (is_taken, answer) = block_on(upload(self.api.trim_end_matches('/'), wasm))?;
        if !is_taken {
            bail!("{} was not taken: {}", self.file.display(), problem(&answer));
        }
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        println!(
            "{}@{} is at {api}\nscenarios use it as {{\"use\": \"{0}@{1}\"}}; {api}/plugin/{0}/{1} has its settings",
            text("name"),
            text("version"),
            api = self.api.trim_end_matches('/')
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether it was taken, and what was said.
async fn upload(api: &str, wasm: Vec<u8>) -> anyhow::Result<(bool, Value)> {
    let request = Client::new().post(format!("{api}/plugin")).header(CONTENT_TYPE, "application/wasm").body(wasm);
    let nobody = || {
        format!(
            "no Framehook answers at {api}; start `framehook up`, or name another address with --api (FRAMEHOOK_API)"
        )
    };
    let response = request.send().await.with_context(nobody)?;
    let status = response.status();
    let body = response.bytes().await.with_context(|| format!("{api} broke off its answer"))?;
    let answer = serde_json::from_slice(&body);
    let answer = answer.with_context(|| format!("{api} answered {status}, and not as a Framehook does"))?;
    Ok((status.is_success(), answer))
}

/// What an RFC 9457 problem says, all of it.
fn problem(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut said = format!("{} ({})", text(&answer["detail"]), text(&answer["code"]));
    for error in answer["errors"].as_array().into_iter().flatten() {
        said += &format!("\n  {}: {}", text(&error["field"]), text(&error["message"]));
    }
    said
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_is_told_whole() {
        let errors = json!([{"field": "a", "message": "b"}, {"field": "c", "message": "d"}]);
        let said = problem(&json!({"detail": "two things", "code": "invalid_plugin", "errors": errors}));
        assert_eq!(said, "two things (invalid_plugin)\n  a: b\n  c: d");
        assert_eq!(problem(&json!({"detail": "x", "code": "y"})), "x (y)");
    }
}
