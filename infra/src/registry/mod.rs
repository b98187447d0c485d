//! Plugins in OCI registries: a small client of the distribution specification, for components alone.
//!
//! Invariants:
//! - What a reference by digest gives has that digest, manifest and bytes; whatever a registry says of
//!   itself.
//! - A manifest is bounded, and a plugin's bytes are as many as its manifest says, which the caller sees
//!   before the first of them.
//! - With a list of registries, a connection goes to those, at whatever address they have, and where they
//!   lead to public addresses only. Credentials go to a registry and to the token server that it names, which
//!   is reached by TLS unless the registry is not.
//!
//! The crate `oci-client` is not used: it follows redirects to any address, bounds no manifest, and brings
//! sixty crates more. Deliberately absent: lists of platforms, proxies, identity tokens of OAuth 2, uploads
//! in pieces.

mod auth;
mod manifest;
mod reference;
mod session;
#[cfg(test)]
mod tests;

use std::{error::Error, fmt, path::PathBuf, time::Duration};

use bytes::Bytes;
use framehook_core::{ids::Digest, signature::PluginSignature};
use reqwest::{Method, Response, StatusCode, header::LOCATION};
use sha2::{Digest as _, Sha256};

pub use self::{
    manifest::Component,
    reference::{BadReference, Reference, RegistryHost},
};
use self::{
    manifest::{MANIFEST_TYPE, digest, pack, unpack},
    session::{Body, Session, read_whole},
};

/// Bytes of a manifest; one of a component has one or two thousand.
const MAX_MANIFEST: usize = 64 << 10;

/// For a connection, and between two pieces of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a registry did not do it. What an API may tell is in the message; the rest is its source.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("the registry `{host}` is not one that this platform fetches from; {listed}")]
    NotListed { host: String, listed: String },
    #[error("the registry cannot be reached: {what}")]
    Unreachable { what: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error("the registry leads to an address that is not public")]
    Elsewhere,
    #[error("the registry has no {0}")]
    NotFound(String),
    #[error("the registry does not let this in: {0}")]
    Denied(String),
    #[error("the registry answers {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Malformed(String),
    #[error("the registry gives {actual} where {expected} was asked for")]
    Changed { expected: Digest, actual: Digest },
    #[error("the registry gives another number of bytes than the {0} that the manifest says")]
    Length(u64),
}

/// Where passwords come from, once a registry asks for one.
#[derive(Clone)]
pub enum Credentials {
    None,
    /// Docker's file, with its helpers; where Docker has it if no path is given.
    Docker(Option<PathBuf>),
}

/// Which registries may be asked, and how.
#[derive(Clone)]
pub struct Registries {
    reach: Reach,
    credentials: Credentials,
}

#[derive(Clone, Debug)]
enum Reach {
    /// For whoever asks on their own machine.
    Any {
        is_plain: bool,
    },
    Listed(Vec<RegistryHost>),
}

/// A plugin that is on its way.
pub struct Pulled {
    /// By the digest of its manifest.
    pub reference: Reference,
    pub signature: Option<PluginSignature>,
    /// That of its bytes.
    pub digest: Digest,
    /// As many bytes as there will be.
    pub size: u64,
    response: Response,
    hash: Sha256,
    left: u64,
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registries").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Registries {
    /// Any registry, without TLS where that is asked for or where it is on this machine.
    #[must_use]
    pub fn any(is_plain: bool, credentials: Credentials) -> Self {
        Self { reach: Reach::Any { is_plain }, credentials }
    }

    /// Only these.
    #[must_use]
    pub fn listed(hosts: Vec<RegistryHost>, credentials: Credentials) -> Self {
        Self { reach: Reach::Listed(hosts), credentials }
    }

    /// Begins to fetch a plugin.
    ///
    /// # Errors
    /// When the registry may not be asked, or does not give a component.
    pub async fn pull(&self, reference: &Reference) -> Result<Pulled, RegistryError> {
        let mut session = Session::open(self, reference, "pull")?;
        let url = session.url(&format!("manifests/{}", reference.selector()))?;
        let response = session.send(Method::GET, &url, Body::none()).await?;
        let response = expect(response, StatusCode::OK, || reference.to_string())?;
        let manifest = read_whole(response, MAX_MANIFEST).await?;
        let actual = digest(&manifest);
        if let Some(expected) = reference.digest.as_ref().filter(|expected| **expected != actual) {
            return Err(RegistryError::Changed { expected: expected.clone(), actual });
        }
        let (layer, signature) = unpack(&manifest)?;
        let url = session.url(&format!("blobs/{}", layer.digest))?;
        let response = session.send(Method::GET, &url, Body::none()).await?;
        let response = expect(response, StatusCode::OK, || format!("bytes {}", layer.digest))?;
        Ok(Pulled {
            reference: reference.pinned(actual),
            signature,
            digest: layer.digest,
            size: layer.size,
            response,
            hash: Sha256::new(),
            left: layer.size,
        })
    }

    /// Stores a component under the reference's tag; gives the digest of its manifest.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub async fn push(&self, reference: &Reference, component: Component) -> Result<Digest, RegistryError> {
        let Reference { tag: Some(tag), digest: None, .. } = reference else {
            let what = format!("{reference} names no tag to push to, or a digest, which follows from the content");
            return Err(RegistryError::Malformed(what));
        };
        let mut session = Session::open(self, reference, "pull,push")?;
        let packed = pack(component);
        for blob in [packed.layer, packed.config] {
            push_blob(&mut session, blob.into()).await?;
        }
        let url = session.url(&format!("manifests/{tag}"))?;
        let pushed = digest(&packed.manifest);
        let response = session.send(Method::PUT, &url, Body::of(packed.manifest.into(), MANIFEST_TYPE)).await?;
        expect(response, StatusCode::CREATED, || reference.to_string())?;
        Ok(reference.pinned(pushed).digest.expect("it was pinned"))
    }
}

impl Pulled {
    /// The next bytes, until there are as many as there should be, with the digest that they should have.
    ///
    /// # Errors
    /// When they are not; those that came before are worth nothing then.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let Some(bytes) = self.response.chunk().await.map_err(session::lost)? else {
            let actual = Digest::from_bytes(&self.hash.finalize_reset().into());
            return match (self.left, actual == self.digest) {
                (0, true) => Ok(None),
                (0, false) => Err(RegistryError::Changed { expected: self.digest.clone(), actual }),
                _ => Err(RegistryError::Length(self.size)),
            };
        };
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(RegistryError::Length(self.size))?;
        self.hash.update(&bytes);
        Ok(Some(bytes))
    }
}

async fn push_blob(session: &mut Session<'_>, bytes: Bytes) -> Result<(), RegistryError> {
    let digest = digest(&bytes);
    let there = session.url(&format!("blobs/{digest}"))?;
    if session.send(Method::HEAD, &there, Body::none()).await?.status() == StatusCode::OK {
        return Ok(());
    }
    let uploads = session.url("blobs/uploads/")?;
    let response = session.send(Method::POST, &uploads, Body::none()).await?;
    let what = || "repository that takes uploads there".to_owned();
    let response = expect(response, StatusCode::ACCEPTED, what)?;
    let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
    let to = location.and_then(|to| uploads.join(to).ok());
    let mut to = to.ok_or_else(|| RegistryError::Malformed("the registry does not say where to upload to".into()))?;
    to.query_pairs_mut().append_pair("digest", digest.as_str());
    let response = session.send(Method::PUT, &to, Body::of(bytes, "application/octet-stream")).await?;
    expect(response, StatusCode::CREATED, what).map(drop)
}

fn expect(response: Response, expected: StatusCode, what: impl Fn() -> String) -> Result<Response, RegistryError> {
    match response.status() {
        status if status == expected => Ok(response),
        StatusCode::NOT_FOUND => Err(RegistryError::NotFound(what())),
        status => Err(RegistryError::Status(status)),
    }
}
