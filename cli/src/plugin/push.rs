//! `framehook plugin push`: to a platform, as an upload with an answer for people, or to a registry.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::Args;
use framehook_core::{ids::Digest, signature::PluginSignature};
use framehook_infra::registry::Reference;
use reqwest::{Client, RequestBuilder, header::CONTENT_TYPE};
use serde_json::Value;

use super::{
    keys::{self, signature_of},
    local::{block_on, named},
    registry::{self, Speak},
};

#[derive(Args)]
pub(crate) struct Push {
    /// The component, a `.wasm` file
    file: PathBuf,
    /// Registry to push to, oci://HOST/REPOSITORY:TAG [default: the platform at --api]
    #[arg(conflicts_with = "api")]
    to: Option<Reference>,
    /// Address of the API
    #[arg(long, value_name = "URL", env = "FRAMEHOOK_API", default_value = "http://127.0.0.1:8080")]
    api: String,
    /// Its signature [default: beside the component, with `.sig` behind its name, if it is there]
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    #[command(flatten)]
    speak: Speak,
}

impl Push {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let digest = named(&self.file)?.digest;
        let wasm = fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let signature = self.signature(&digest)?;
        if let Some(to) = &self.to {
            return registry::push(wasm, signature, to, &self.speak);
        }
        let api = self.api.trim_end_matches('/');
        let media_type = format!("multipart/form-data; boundary={}", digest.hex());
        let request = Client::new().post(format!("{api}/plugin")).header(CONTENT_TYPE, media_type);
        let (is_taken, answer) = block_on(answer_of(api, request.body(form(&digest, wasm, signature.as_ref())?)))?;
        if !is_taken {
            bail!("{} was not taken: {}", self.file.display(), problem(&answer));
        }
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let by = answer.get("signed_by").map(|by| format!(", signed by {}", text(&by["name"])));
        println!(
            "{}@{} is at {api}{}\nscenarios use it as {{\"use\": \"{0}@{1}\"}}; {api}/plugin/{0}/{1} has its settings",
            text(&answer["name"]),
            text(&answer["version"]),
            by.unwrap_or_default(),
            api = self.api.trim_end_matches('/')
        );
        Ok(ExitCode::SUCCESS)
    }

    /// The signature of these bytes, if there is one.
    fn signature(&self, digest: &Digest) -> anyhow::Result<Option<PluginSignature>> {
        let beside = signature_of(&self.file);
        let Some(path) = self.signature.clone().or_else(|| beside.exists().then_some(beside)) else { return Ok(None) };
        let signature = keys::read(&path)?;
        if signature.digest != *digest {
            bail!("{} is of other bytes ({}); sign again, or remove it", path.display(), signature.digest);
        }
        Ok(Some(signature))
    }
}

/// A multipart body whose boundary is the digest: no file holds its own.
fn form(digest: &Digest, wasm: Vec<u8>, signature: Option<&PluginSignature>) -> anyhow::Result<Vec<u8>> {
    let boundary = digest.hex();
    let begin = |name: &str| format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"");
    let mut body = Vec::with_capacity(wasm.len() + 2048);
    if let Some(signature) = signature {
        let part = format!("{}\r\n\r\n{}\r\n", begin("signature"), serde_json::to_string(signature)?);
        body.extend_from_slice(part.as_bytes());
    }
    let head = format!("{}; filename=\"plugin.wasm\"\r\nContent-Type: application/wasm\r\n\r\n", begin("file"));
    body.extend_from_slice(head.as_bytes());
    body.extend(wasm);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Ok(body)
}

/// Whether it was taken, and what was said. `query` is that of the request.
pub(super) async fn upload(api: &str, query: &str, wasm: Vec<u8>) -> anyhow::Result<(bool, Value)> {
    let request = Client::new().post(format!("{api}/plugin{query}"));
    answer_of(api, request.header(CONTENT_TYPE, "application/wasm").body(wasm)).await
}

/// Whether a request went well, and what was said.
pub(super) async fn answer_of(api: &str, request: RequestBuilder) -> anyhow::Result<(bool, Value)> {
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
pub(super) fn problem(answer: &Value) -> String {
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
