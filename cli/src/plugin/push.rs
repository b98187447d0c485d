//! `framehook plugin push`: to a platform, as an upload with an answer for people, or to a registry.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Args;
use framehook_core::{ids::Digest, signature::PluginSignature};
use framehook_infra::registry::Reference;
use serde_json::Value;

use super::{
    keys::{self, signature_of},
    local::{block_on, named},
    registry::{self, Speak},
};
use crate::client::{self, Client, problem};

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
        let wasm = client::read(&self.file)?;
        let signature = self.signature(&digest)?;
        if let Some(to) = &self.to {
            return registry::push(wasm, signature, to, &self.speak);
        }
        let client = Client::new(&self.api);
        let media_type = format!("multipart/form-data; boundary={}", digest.hex());
        let form = form(&digest, wasm, signature.as_ref())?;
        let (status, answer) = block_on(client.post("/plugin", &media_type, form))?;
        if !status.is_success() {
            bail!("{} was not taken: {}", self.file.display(), problem(&answer));
        }
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        if signature.is_some() && answer.get("signed_by").is_none() {
            eprintln!("{} did not keep the signature: its operator named no --trusted-keys", self.api);
        }
        let by = answer.get("signed_by").map(|by| format!(", signed by {}", text(&by["name"])));
        println!(
            "{}@{} is at {api}{}\nscenarios use it as {{\"use\": \"{0}@{1}\"}}; {api}/plugin/{0}/{1} has its settings",
            text(&answer["name"]),
            text(&answer["version"]),
            by.unwrap_or_default(),
            api = client.url
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
