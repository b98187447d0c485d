//! Which addresses a source may have: a scenario must not make the runner connect to hosts inside its own
//! network.
//!
//! Public addresses are allowed, all others only by configuration. The lists are those of IANA's registries
//! of special-purpose addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub(crate) fn is_allowed(address: IpAddr, networks: &[IpNet]) -> bool {
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
}
