//! Under which names the service may be called.
//!
//! A page in a browser can give its own name the address of this machine (DNS rebinding), and then reads and
//! writes here as if it were its own server. Only the `Host` header tells: so names are taken from a list. An
//! address written in digits is no name, and cannot be given to anybody.

use std::{net::IpAddr, str::FromStr};

use axum::http::uri::Authority;

/// A name in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// `*`: whoever is in front of this service looks at names.
    Any,
    /// `.example.org`: every name below it.
    Below(String),
    Name(String),
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let is_address = name.parse::<IpAddr>().is_ok();
        if text == "*" {
            Ok(Self::Any)
        } else if !is_address && (name.len() > 253 || !name.split('.').all(is_label)) {
            Err(format!("`{}` is no name; expected one without a port, `.example.org` or `*`", text.escape_debug()))
        } else if text.starts_with('.') {
            Ok(Self::Below(text.to_ascii_lowercase()))
        } else {
            Ok(Self::Name(text.to_ascii_lowercase()))
        }
    }
}

impl HostPattern {
    fn takes(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
            Self::Name(known) => known == name,
        }
    }
}

/// The name in a `Host` header or in a request's target, in lower case; `None` where there is none.
pub(crate) fn name_of(authority: &Authority) -> Option<String> {
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    // The root's dot: the same name.
    let host = host.strip_suffix('.').unwrap_or(host);
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

/// Whether an operator put `name` on the list.
pub(crate) fn is_listed(name: &str, listed: &[HostPattern]) -> bool {
    listed.iter().any(|pattern| pattern.takes(name))
}

/// Whether whoever calls the address `local` may call it `name`.
pub(crate) fn is_allowed(name: &str, local: IpAddr, listed: &[HostPattern]) -> bool {
    let of_this_machine = match name.parse::<IpAddr>() {
        // Where others can call, a balancer or a published port has an address that is not known here.
        Ok(address) => address.to_canonical().is_loopback() || !local.is_loopback(),
        // Browsers ask nobody where that is.
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    };
    of_this_machine || is_listed(name, listed)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn this_machine_by_its_names_and_others_by_the_list() {
        let listed: Vec<HostPattern> =
            ["framehook.example", ".apis.example", "192.0.2.7"].iter().map(|text| text.parse().unwrap()).collect();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let public = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        for (host, at_home, abroad) in [
            ("localhost", true, true),
            ("LocalHost:8080", true, true),
            ("a.localhost:1", true, true),
            ("127.0.0.1:8080", true, true),
            ("127.8.0.1", true, true),
            ("[::1]:8080", true, true),
            ("[::ffff:127.0.0.1]", true, true),
            ("framehook.example", true, true),
            ("framehook.example.:80", true, true),
            ("a.apis.example", true, true),
            ("192.0.2.7", true, true),
            ("192.0.2.8", false, true),
            ("0.0.0.0:8080", false, true),
            ("[2001:db8::1]:8080", false, true),
            ("apis.example", false, false),
            ("evilapis.example", false, false),
            ("a.framehook.example", false, false),
            ("framehook.example.evil.example", false, false),
            ("localhost.evil.example", false, false),
            ("127.0.0.1.evil.example", false, false),
            ("evillocalhost", false, false),
            ("127.1", false, false),
            ("2130706433", false, false),
            ("0x7f.0.0.1", false, false),
        ] {
            let name = name_of(&host.parse().unwrap()).unwrap();
            assert_eq!(is_allowed(&name, loopback, &listed), at_home, "{host}");
            assert_eq!(is_allowed(&name, public, &listed), abroad, "{host}");
        }
        assert!(is_allowed("anything", loopback, &["*".parse().unwrap()]));
    }

    #[test]
    fn what_is_no_name_is_none() {
        for host in ["localhost@evil.example", "evil.example@localhost", "."] {
            assert_eq!(host.parse().ok().as_ref().and_then(name_of), None, "{host}");
        }
        for bad in ["", ".", "a..b", "a b", "http://a", "a:80", "*.a", "a/b", &"a".repeat(64)] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }
}
