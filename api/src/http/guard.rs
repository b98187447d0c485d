//! Refuses requests from pages of other origins, before any route, and adds the security headers to answers.
//!
//! Invariants: a page of another origin can neither read nor change anything here. It cannot read, because it
//! must call this service by a name of ours (`host`), which is another origin to the browser, and no answer
//! permits one. It cannot change anything, because a browser says whose page sends a write (`Origin`,
//! `Sec-Fetch-Site`), and a foreign one is refused, whatever its content type. Headers that a proxy adds,
//! such as `X-Forwarded-Host`, are ignored: a direct caller can send them too.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
        header::{self, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use framehook_core::error_code::ErrorCode;

use crate::http::{
    host::{self, HostPattern},
    listen::Peer,
    problem::{Problem, shortened},
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// An answer is data: shown as a page it may load and run nothing, and nobody frames it.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// The page at `/docs` loads its own files and asks this API. It sets styles from its script, and has icons
/// as `data:`.
const POLICY_OF_DOCS: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The middleware.
pub(crate) async fn guard(State(hosts): State<Arc<[HostPattern]>>, request: Request, next: Next) -> Response {
    let of_docs = request.uri().path().starts_with("/docs");
    let mut response = match check(&request, &hosts) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, if of_docs { POLICY_OF_DOCS } else { POLICY });
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    response
}

fn check(request: &Request, hosts: &[HostPattern]) -> Result<(), Problem> {
    // Without a connection there is a test.
    let local = request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.local);
    let (headers, method) = (request.headers(), request.method());
    let called = called(request.uri(), request.version(), headers, local, hosts)?;
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    check_origin(headers, called.as_ref(), hosts)
}

/// The name and port that are called, if the request says them; it must be one of ours.
fn called(
    target: &Uri,
    version: Version,
    headers: &HeaderMap,
    local: IpAddr,
    hosts: &[HostPattern],
) -> Result<Option<Authority>, Problem> {
    let mut given = headers.get_all(header::HOST).iter();
    let (first, second) = (given.next(), given.next());
    let refused = |text: &str| {
        let detail = format!(
            "this service is not called `{}`; whoever runs it can add a name with the setting `hosts` (--host NAME)",
            shortened(text)
        );
        Problem::new(ErrorCode::HostNotAllowed, detail).field("Host")
    };
    if second.is_some() {
        return Err(Problem::new(ErrorCode::HostNotAllowed, "there are two `Host` headers").field("Host"));
    }
    let Some(first) = first else {
        // As balancers' health checks are; every browser says what it calls.
        return match version {
            Version::HTTP_10 | Version::HTTP_09 if target.authority().is_none() => Ok(None),
            _ => Err(Problem::new(ErrorCode::HostNotAllowed, "there is no `Host` header").field("Host")),
        };
    };
    let authority =
        Authority::try_from(first.as_bytes()).map_err(|_| refused(&String::from_utf8_lossy(first.as_bytes())))?;
    // A whole URL as the target stands above the header, and both must be ours.
    for authority in [Some(&authority), target.authority()].into_iter().flatten() {
        if !host::name_of(authority).is_some_and(|name| host::is_allowed(&name, local, hosts)) {
            return Err(refused(authority.as_str()));
        }
    }
    Ok(Some(target.authority().cloned().unwrap_or(authority)))
}

/// A write comes from no page, or from one of this service.
fn check_origin(headers: &HeaderMap, called: Option<&Authority>, hosts: &[HostPattern]) -> Result<(), Problem> {
    let refused = |field: &HeaderName, value: &HeaderValue| {
        let shown = shortened(&String::from_utf8_lossy(value.as_bytes()));
        let detail = format!("a page of another site may not write here; the browser says `{shown}`");
        Problem::new(ErrorCode::CrossSite, detail).field(field.as_str())
    };
    for origin in headers.get_all(header::ORIGIN) {
        let same = called.zip(origin.to_str().ok()).is_some_and(|(called, origin)| is_same(origin, called, hosts));
        if !same {
            return Err(refused(&header::ORIGIN, origin));
        }
    }
    for site in headers.get_all(SEC_FETCH_SITE) {
        // `none`: somebody typed it. `same-site` is another port or another name beside ours.
        if site != "same-origin" && site != "none" {
            return Err(refused(&SEC_FETCH_SITE, site));
        }
    }
    Ok(())
}

fn is_same(origin: &str, called: &Authority, hosts: &[HostPattern]) -> bool {
    let Some((scheme, origin)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => 80,
        // Something in front of this service speaks TLS; then it has a name that the operator listed.
        "https" if host::name_of(called).is_some_and(|name| host::is_listed(&name, hosts)) => 443,
        _ => return false,
    };
    let Ok(origin) = Authority::try_from(origin) else { return false };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    let name = host::name_of(&origin);
    name.is_some() && name == host::name_of(called) && port(&origin) == port(called)
}

/// Whether a browser's page sent this.
pub(crate) fn is_of_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(axum::body::Body::empty()).unwrap()
    }

    fn code(method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<ErrorCode> {
        let hosts = ["api.example".parse().unwrap()];
        check(&request(method, uri, headers), &hosts).err().map(|problem| problem.code)
    }

    #[test]
    fn both_the_header_and_the_target_are_names_of_ours() {
        let refused = Some(ErrorCode::HostNotAllowed);
        for (uri, hosts, expected) in [
            ("/a", &["localhost:1"][..], None),
            ("/a", &["api.example"], None),
            ("/a", &["evil.example"], refused),
            ("/a", &[], refused),
            ("/a", &[""], refused),
            ("/a", &["localhost", "localhost"], refused),
            ("/a", &["localhost", "evil.example"], refused),
            ("/a", &["localhost, evil.example"], refused),
            ("/a", &["user@localhost"], refused),
            ("/a", &["localhost/evil.example"], refused),
            ("http://localhost/a", &["localhost"], None),
            ("http://evil.example/a", &["localhost"], refused),
            ("http://localhost/a", &["evil.example"], refused),
            ("http://localhost/a", &[], refused),
        ] {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            assert_eq!(code("GET", uri, &headers), expected, "{uri} {hosts:?}");
        }
        let forwarded = [("host", "evil.example"), ("x-forwarded-host", "localhost"), ("forwarded", "host=localhost")];
        assert_eq!(code("GET", "/a", &forwarded), refused);
        let mut old = request("GET", "/a", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert!(check(&old, &[]).is_ok());
    }

    #[test]
    fn a_write_comes_from_no_page_or_from_ours() {
        let (host, tls) = ("localhost:8080", "api.example");
        for (host, origin, site, allowed) in [
            (host, None, None, true),
            (host, Some("http://localhost:8080"), None, true),
            (host, Some("http://LOCALHOST:8080"), Some("same-origin"), true),
            ("localhost:80", Some("http://localhost"), None, true),
            (tls, Some("https://api.example"), None, true),
            (tls, Some("http://api.example"), None, true),
            (host, None, Some("none"), true),
            (host, Some("null"), None, false),
            (host, Some(""), None, false),
            (host, Some("http://evil.example"), None, false),
            (host, Some("http://localhost:8081"), None, false),
            (host, Some("http://localhost"), None, false),
            (host, Some("https://localhost:8080"), None, false),
            (host, Some("file://localhost:8080"), None, false),
            (host, Some("http://localhost:8080@evil.example"), None, false),
            (host, Some("http://evil.example@localhost:8080"), None, false),
            (host, Some("http://127.0.0.1:8080"), None, false),
            (host, Some("http://a.localhost:8080"), None, false),
            (tls, Some("https://api.example:8443"), None, false),
            (host, Some("http://localhost:8080"), Some("cross-site"), false),
            (host, None, Some("cross-site"), false),
            (host, None, Some("same-site"), false),
            (host, None, Some("SAME-ORIGIN, cross-site"), false),
        ] {
            let mut headers = vec![("host", host)];
            headers.extend(origin.map(|origin| ("origin", origin)));
            headers.extend(site.map(|site| ("sec-fetch-site", site)));
            for method in ["POST", "DELETE", "PUT", "PATCH", "MKCOL"] {
                let expected = (!allowed).then_some(ErrorCode::CrossSite);
                assert_eq!(code(method, "/a", &headers), expected, "{method} {headers:?}");
            }
            assert_eq!(code("GET", "/a", &headers), None, "{headers:?}");
        }
    }
}
