//! A client of a running platform, for the subcommands that need one.

use std::{io::Write, path::Path};

use anyhow::{Context as _, bail};
use reqwest::{RequestBuilder, StatusCode, header};
use serde_json::Value;

const NDJSON: &str = "application/x-ndjson";

pub(crate) struct Client {
    http: reqwest::Client,
    /// Its address, without a slash behind it.
    pub(crate) url: String,
}

/// A status and the JSON with it.
pub(crate) type Answer = (StatusCode, Value);

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        Self { http: reqwest::Client::new(), url: url.trim_end_matches('/').to_owned() }
    }

    /// # Errors
    /// When nobody answers.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.answer(self.http.get(self.at(path))).await
    }

    /// # Errors
    /// When nobody answers.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<StatusCode> {
        Ok(self.send(self.http.delete(self.at(path))).await?.status())
    }

    /// # Errors
    /// When nobody answers.
    pub(crate) async fn post(&self, path: &str, kind: &str, body: Vec<u8>) -> anyhow::Result<Answer> {
        self.answer(self.http.post(self.at(path)).header(header::CONTENT_TYPE, kind).body(body)).await
    }

    /// A merge patch for what has this revision.
    ///
    /// # Errors
    /// When nobody answers.
    pub(crate) async fn patch(&self, path: &str, revision: &Value, patch: &Value) -> anyhow::Result<Answer> {
        let request = self.http.patch(self.at(path)).header(header::IF_MATCH, format!("\"{revision}\""));
        self.answer(request.header(header::CONTENT_TYPE, "application/merge-patch+json").body(patch.to_string())).await
    }

    /// Writes the lines of an answer as they come.
    ///
    /// # Errors
    /// When there is no answer, it is a problem, it breaks off, or the lines cannot be written.
    pub(crate) async fn lines(&self, path: &str, mut out: impl Write) -> anyhow::Result<()> {
        let mut response = self.send(self.http.get(self.at(path)).header(header::ACCEPT, NDJSON)).await?;
        if !response.status().is_success() {
            let answer = response.bytes().await.unwrap_or_default();
            bail!("{}", problem(&serde_json::from_slice(&answer).unwrap_or_default()));
        }
        while let Some(piece) = response.chunk().await.with_context(|| format!("{} broke off its answer", self.url))? {
            out.write_all(&piece)?;
        }
        Ok(out.flush()?)
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<reqwest::Response> {
        let nobody = || {
            format!(
                "no Framehook answers at {}; start `framehook up`, or name another address with --api (FRAMEHOOK_API)",
                self.url
            )
        };
        request.send().await.with_context(nobody)
    }

    async fn answer(&self, request: RequestBuilder) -> anyhow::Result<Answer> {
        let response = self.send(request).await?;
        let status = response.status();
        let body = response.bytes().await.with_context(|| format!("{} broke off its answer", self.url))?;
        let answer = serde_json::from_slice(&body);
        Ok((status, answer.with_context(|| format!("{} answered {status}, and not as a Framehook does", self.url))?))
    }
}

/// # Errors
/// With what it says, if it is a problem.
pub(crate) fn taken((status, answer): Answer, what: &str) -> anyhow::Result<Value> {
    if !status.is_success() {
        bail!("{what}: {}", problem(&answer));
    }
    Ok(answer)
}

/// What an RFC 9457 problem says, all of it.
pub(crate) fn problem(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut said = format!("{} ({})", text(&answer["detail"]), text(&answer["code"]));
    for error in answer["errors"].as_array().into_iter().flatten() {
        said += &format!("\n  {}: {}", text(&error["field"]), text(&error["message"]));
    }
    said
}

/// # Errors
/// When it cannot be read.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
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
