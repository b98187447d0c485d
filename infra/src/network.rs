//! Connections to where a stranger's word leads: a scenario's recording, a registry's files.
//!
//! Invariants:
//! - A connection goes only to an address that was checked, and no name is resolved again: what it resolves
//!   to a moment later changes nothing. A redirect is for the caller to follow, who has its address checked
//!   anew.
//! - Public addresses are allowed, all others only by configuration: nobody makes the platform connect to
//!   hosts inside its own network. The lists are those of IANA's registries of special-purpose addresses.
//! - Credentials go to the server they were given for and to no other.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::{Client, Response, header::LOCATION, redirect};
use tokio::{task, time::timeout};
use url::Url;

/// Why there is no address to connect to.
#[derive(Debug)]
pub enum NoAddress {
    /// The host is not known, or nobody says so in time.
    Unknown(io::Error),
    /// The host is at none that is allowed; this is one of them.
    NotAllowed(IpAddr),
}

/// Where a connection to `url` may go: public addresses and those of `networks`.
///
/// # Errors
/// When there is no such address, or its host is not resolved within `patience`.
pub async fn addresses(url: &Url, networks: &[IpNet], patience: Duration) -> Result<Vec<SocketAddr>, NoAddress> {
    let to_resolve = url.clone();
    let resolving = task::spawn_blocking(move || to_resolve.socket_addrs(|| None));
    let found = match timeout(patience, resolving).await {
        Ok(found) => found.map_err(io::Error::other).flatten(),
        Err(late) => Err(late.into()),
    };
    let found = found.map_err(NoAddress::Unknown)?;
    let (allowed, refused): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| is_allowed(address.ip(), networks));
    match (allowed.as_slice(), refused.first()) {
        ([], Some(address)) => Err(NoAddress::NotAllowed(address.ip())),
        _ => Ok(allowed),
    }
}

/// A client for one request, which knows no other address of the host than these, and follows no redirect.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client(url: &Url, addresses: &[SocketAddr], patience: Duration) -> reqwest::Result<Client> {
    Client::builder()
        .resolve_to_addrs(url.host_str().unwrap_or_default(), addresses)
        // It would resolve names itself.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(patience)
        .read_timeout(patience)
        .user_agent(concat!("framehook/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Where a redirect leads; none out of TLS. Credentials stay with the server they were given for, and what
/// another says about them is not taken.
#[must_use]
pub fn redirect_target(from: &Url, response: &Response) -> Option<Url> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let mut to = from.join(location).ok()?;
    if to.scheme() != "https" && (to.scheme(), from.scheme()) != ("http", "http") {
        return None;
    }
    let is_same_server = to.origin() == from.origin();
    let (user, password) = if is_same_server { (from.username(), from.password()) } else { ("", None) };
    to.set_username(user).ok()?;
    to.set_password(password).ok()?;
    Some(to)
}

fn is_allowed(address: IpAddr, networks: &[IpNet]) -> bool {
    // IPv4-mapped IPv6 addresses lead to the same hosts.
    let address = address.to_canonical();
    is_public(address) || networks.iter().any(|network| network.contains(&address))
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !NOT_PUBLIC_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            PUBLIC_V6.contains(&address) && !NOT_PUBLIC_V6.iter().any(|network| network.contains(&address))
        }
    }
}

const NOT_PUBLIC_V4: [Ipv4Net; 15] = [
    // This host, private, shared by a provider's customers, loopback, link-local.
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    // Protocols, examples, relays, benchmarks.
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    // Multicast, and what was never given out, with broadcast.
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// Everything else is loopback, private, link-local, multicast, a translation of IPv4 or not given out.
const PUBLIC_V6: Ipv6Net = v6([0x2000, 0], 3);

const NOT_PUBLIC_V6: [Ipv6Net; 4] = [
    // Protocols, among them Teredo, and examples.
    v6([0x2001, 0], 23),
    v6([0x2001, 0xdb8], 32),
    v6([0x3fff, 0], 20),
    // 6to4: any IPv4 address may be inside.
    v6([0x2002, 0], 16),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b]: [u16; 2], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

#[cfg(test)]
mod tests {
    use axum::http;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn only_public_addresses_unless_a_network_is_named() {
        for public in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1"] {
            assert!(is_allowed(public.parse().unwrap(), &[]), "{public}");
        }
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
        ] {
            let address = inside.parse().unwrap();
            assert!(!is_allowed(address, &[]), "{inside}");
            assert!(!is_allowed(address, &["11.0.0.0/8".parse().unwrap(), "fd01::/16".parse().unwrap()]), "{inside}");
        }
        let networks = ["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (address, allowed) in
            [("10.1.2.3", true), ("10.2.0.1", false), ("::ffff:10.1.0.1", true), ("fd00::1", true), ("fe80::1", false)]
        {
            assert_eq!(is_allowed(address.parse().unwrap(), &networks), allowed, "{address}");
        }
    }

    fn moved(location: &str) -> Response {
        let answer = http::Response::builder().status(302).header("location", location);
        answer.body("").unwrap().into()
    }

    #[test]
    fn a_redirect_takes_credentials_nowhere_else() {
        for (from, location, to) in [
            ("https://me:p%40@a.example/x?q=1", "/y?z=2", Some("https://me:p%40@a.example/y?z=2")),
            ("https://me:pw@a.example/x/", "y", Some("https://me:pw@a.example/x/y")),
            ("https://me:pw@a.example/x", "https://b.example/y", Some("https://b.example/y")),
            ("https://me:pw@a.example/x", "//b.example/y", Some("https://b.example/y")),
            ("https://me:pw@a.example/x", "https://a.example:444/y", Some("https://a.example:444/y")),
            ("http://me:pw@a.example/x", "https://a.example/y", Some("https://a.example/y")),
            ("https://me:pw@a.example/x", "https://you:pw2@b.example/y", Some("https://b.example/y")),
            ("https://me:pw@a.example/x", "https://you:pw2@a.example/y", Some("https://me:pw@a.example/y")),
            ("http://a.example/x", "http://b.example/y", Some("http://b.example/y")),
            ("https://a.example/x", "http://a.example/y", None),
            ("https://a.example/x", "file:///etc/passwd", None),
            ("https://a.example/x", "ftp://a.example/y", None),
            ("https://a.example/x", "https://", None),
        ] {
            let to_url = redirect_target(&from.parse().unwrap(), &moved(location));
            assert_eq!(to_url.as_ref().map(Url::as_str), to, "{from} -> {location}");
        }
    }

    #[tokio::test]
    async fn a_connection_goes_to_the_checked_address_and_no_name_is_resolved_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // However it is written. Nobody can own a name that ends with this.
        for host in ["cameras.invalid", "CAMERAS.invalid.", "kameras-süd.invalid"] {
            let url = format!("http://{host}:{}/clip.mp4", address.port()).parse().unwrap();
            let client = client(&url, &[address], Duration::from_secs(60)).unwrap();
            let serve = async {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 1000];
                let length = connection.read(&mut request).await.unwrap();
                connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                String::from_utf8_lossy(&request[..length]).to_lowercase()
            };
            let answered = async { client.get(url.clone()).send().await.unwrap() };
            let (request, answer) = timeout(Duration::from_secs(60), async { tokio::join!(serve, answered) })
                .await
                .expect("the server of this test is asked");
            assert_eq!(answer.status(), 204);
            assert!(request.contains(&format!("host: {}", url.host_str().unwrap())), "{request}");
        }
    }
}
