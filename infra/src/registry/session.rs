//! Requests to one repository of one registry: addresses checked, redirects followed, passwords sent where
//! they belong.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use url::Url;

use super::{
    PATIENCE, Reach, Reference, Registries, RegistryError, auth::Challenge, manifest::MANIFEST_TYPE,
    reference::is_loopback,
};
use crate::network::{self, NoAddress};

/// To a store of files, and from there to a mirror.
const MAX_REDIRECTS: usize = 3;

/// Bytes of a token server's answer; a token has some two thousand.
const MAX_TOKEN: usize = 64 << 10;

const EVERYWHERE: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

pub(super) struct Session<'a> {
    registries: &'a Registries,
    reference: &'a Reference,
    /// What it may be asked to allow.
    actions: &'static str,
    root: Url,
    authorization: Option<HeaderValue>,
}

/// What a request brings.
#[derive(Clone)]
pub(super) struct Body(Option<(Bytes, &'static str)>);

impl Body {
    pub(super) const fn none() -> Self {
        Self(None)
    }

    pub(super) const fn of(bytes: Bytes, media_type: &'static str) -> Self {
        Self(Some((bytes, media_type)))
    }
}

#[derive(Deserialize)]
struct Token {
    // Some servers use the one name, some the other.
    token: Option<String>,
    access_token: Option<String>,
}

impl<'a> Session<'a> {
    pub(super) fn open(
        registries: &'a Registries,
        reference: &'a Reference,
        actions: &'static str,
    ) -> Result<Self, RegistryError> {
        let host = &reference.host;
        let is_plain = match &registries.reach {
            Reach::Any { is_plain } => *is_plain || is_loopback(host),
            Reach::Listed(hosts) => match hosts.iter().find(|listed| listed.host == *host) {
                Some(listed) => listed.is_plain,
                None => {
                    let names: Vec<_> = hosts.iter().map(|listed| format!("`{}`", listed.host)).collect();
                    let listed = if names.is_empty() {
                        "there is none".into()
                    } else {
                        format!("those are {}", names.join(", "))
                    };
                    return Err(RegistryError::NotListed { host: host.clone(), listed });
                }
            },
        };
        let root = root(host, is_plain)?;
        Ok(Self { registries, reference, actions, root, authorization: None })
    }

    /// A route of the repository.
    pub(super) fn url(&self, route: &str) -> Result<Url, RegistryError> {
        let path = format!("/v2/{}/{route}", self.reference.repository);
        self.root.join(&path).map_err(|error| RegistryError::Malformed(format!("{path} is no path: {error}")))
    }

    /// The answer, after what a registry may want before it gives one.
    pub(super) async fn send(&mut self, method: Method, url: &Url, body: Body) -> Result<Response, RegistryError> {
        let mut response = self.follow(&method, url, &body).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.authorization.is_none() {
            self.authorization = Some(self.authorize(&response).await?);
            response = self.follow(&method, url, &body).await?;
        }
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let whose = "it wants another password, or more rights than this one has";
                Err(RegistryError::Denied(format!("it answers {}: {whose}", response.status())))
            }
            _ => Ok(response),
        }
    }

    async fn follow(&self, method: &Method, url: &Url, body: &Body) -> Result<Response, RegistryError> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let authorization = self.authorization.as_ref().filter(|_| url.origin() == self.root.origin());
            let response = self.ask(method.clone(), &url, body, authorization).await?;
            // What is uploaded goes where it was to go.
            if !response.status().is_redirection() || body.0.is_some() {
                return Ok(response);
            }
            url = network::redirect_target(&url, &response).ok_or_else(|| {
                RegistryError::Malformed("the registry redirects nowhere, or away from `http` and `https`".into())
            })?;
        }
        Err(RegistryError::Malformed(format!("the registry redirects more than {MAX_REDIRECTS} times")))
    }

    async fn ask(
        &self,
        method: Method,
        url: &Url,
        body: &Body,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let addresses = network::addresses(url, self.networks(url), PATIENCE).await.map_err(|none| match none {
            NoAddress::Unknown(error) => {
                RegistryError::Unreachable { what: "its host, or one it leads to, is not known", source: error.into() }
            }
            NoAddress::NotAllowed(address) => {
                tracing::warn!(registry = self.reference.host, "leads to {address}, which is not public");
                RegistryError::Elsewhere
            }
        })?;
        let client = network::client(url, &addresses, PATIENCE).map_err(lost)?;
        let mut request = client.request(method, url.clone()).header(ACCEPT, MANIFEST_TYPE);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some((bytes, media_type)) = &body.0 {
            request = request.header(CONTENT_TYPE, *media_type).body(bytes.clone());
        }
        request.send().await.map_err(lost)
    }

    /// What an operator named may have any address; what it leads to must be public.
    fn networks(&self, url: &Url) -> &'static [IpNet] {
        let is_named = |hosts: &[super::RegistryHost]| {
            hosts.iter().any(|named| root(&named.host, named.is_plain).is_ok_and(|root| root.origin() == url.origin()))
        };
        match &self.registries.reach {
            Reach::Listed(hosts) if !is_named(hosts) => &[],
            Reach::Any { .. } | Reach::Listed(_) => &EVERYWHERE,
        }
    }

    /// What a registry that answers 401 wants to see.
    async fn authorize(&self, refusal: &Response) -> Result<HeaderValue, RegistryError> {
        let host = &self.reference.host;
        let challenge = refusal.headers().get(WWW_AUTHENTICATE).and_then(|header| header.to_str().ok());
        let challenge = challenge.and_then(Challenge::parse);
        let strange = || RegistryError::Denied("it asks for neither a password nor a token".into());
        let password = self.registries.credentials.of(host).await?;
        let basic = |(user, password): &(String, String)| {
            secret(&format!("Basic {}", BASE64.encode(format!("{user}:{password}"))))
        };
        let (realm, service) = match challenge.ok_or_else(strange)? {
            Challenge::Basic => {
                let missing =
                    || RegistryError::Denied(format!("it asks for a password, and there is none for `{host}`"));
                return basic(&password.ok_or_else(missing)?);
            }
            Challenge::Bearer { realm, service } => (realm, service),
        };
        // Not what the refusal names, which is as much as that request wanted.
        let scope = format!("repository:{}:{}", self.reference.repository, self.actions);
        let mut realm = self.root.join(&realm).map_err(|_| strange())?;
        let is_as_safe = realm.scheme() == "https" || realm.scheme() == self.root.scheme();
        if !is_as_safe || !realm.username().is_empty() {
            return Err(RegistryError::Denied("its token server speaks no TLS".into()));
        }
        realm
            .query_pairs_mut()
            .extend_pairs(service.iter().map(|service| ("service", service)))
            .append_pair("scope", &scope);
        let authorization = password.as_ref().map(basic).transpose()?;
        let response = self.ask(Method::GET, &realm, &Body::none(), authorization.as_ref()).await?;
        if response.status() != StatusCode::OK {
            return Err(RegistryError::Denied(format!("its token server answers {}", response.status())));
        }
        let token = serde_json::from_slice(&read_whole(response, MAX_TOKEN).await?).ok();
        let token = token.and_then(|Token { token, access_token }| token.or(access_token));
        let missing = || RegistryError::Denied("its token server gives no token".into());
        secret(&format!("Bearer {}", token.ok_or_else(missing)?))
    }
}

fn root(host: &str, is_plain: bool) -> Result<Url, RegistryError> {
    let scheme = if is_plain { "http" } else { "https" };
    let url = Url::parse(&format!("{scheme}://{host}/"));
    url.map_err(|error| RegistryError::Malformed(format!("`{host}` is no host: {error}")))
}

/// A header that no `Debug` shows.
fn secret(text: &str) -> Result<HeaderValue, RegistryError> {
    let header = HeaderValue::from_str(text);
    let mut header = header.map_err(|_| RegistryError::Denied("its token, or the password, is no text".into()))?;
    header.set_sensitive(true);
    Ok(header)
}

/// An answer that is small.
pub(super) async fn read_whole(mut response: Response, most: usize) -> Result<Vec<u8>, RegistryError> {
    let mut whole = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(lost)? {
        whole.extend_from_slice(&bytes);
        if whole.len() > most {
            return Err(RegistryError::Malformed(format!("the registry answers with more than {most} bytes")));
        }
    }
    Ok(whole)
}

/// The URL may hold a token of a store of files.
pub(super) fn lost(error: reqwest::Error) -> RegistryError {
    let what = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "it gives no answer in time",
        (_, true) => "no connection could be made",
        _ => "the connection broke off",
    };
    RegistryError::Unreachable { what, source: error.without_url().into() }
}
