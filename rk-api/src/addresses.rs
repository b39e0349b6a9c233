//! What IP addresses are for, in the words of Go's package `net`.

use std::net::{IpAddr, Ipv4Addr};

/// Whether an address is one of a link, which no router passes on.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Whether an address is one machine's and can be reached from others, private or not.
pub(crate) fn is_global_unicast(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip);
    !special && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether an address is in a network: its address and the bits of its prefix.
pub(crate) fn is_within(ip: IpAddr, (network, bits): (IpAddr, u8)) -> bool {
    let (differing, width) = match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => (u128::from(network.to_bits() ^ ip.to_bits()), 32),
        (IpAddr::V6(network), IpAddr::V6(ip)) => (network.to_bits() ^ ip.to_bits(), 128),
        _ => return false,
    };
    differing.checked_shr(width - u32::from(bits).min(width)).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_global() {
        for text in ["10.1.2.3", "192.168.0.1", "100.64.0.1", "8.8.8.8", "2001:db8::1", "fd00::1"] {
            assert!(is_global_unicast(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_global_unicast(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn networks_hold_addresses_of_their_family() {
        for (ip, network, bits, held) in [
            ("10.1.2.3", "10.1.0.0", 16, true),
            ("10.2.2.3", "10.1.0.0", 16, false),
            ("10.1.2.3", "10.1.2.3", 32, true),
            ("10.1.2.4", "10.1.2.3", 32, false),
            ("9.9.9.9", "0.0.0.0", 0, true),
            ("fd00::1", "fd00::", 64, true),
            ("fd01::1", "fd00::", 64, false),
            ("fd01::1", "::", 0, true),
            ("::ffff:10.1.2.3", "10.1.0.0", 16, false),
        ] {
            assert_eq!(is_within(ip.parse().unwrap(), (network.parse().unwrap(), bits)), held, "{ip} {network}");
        }
    }
}
