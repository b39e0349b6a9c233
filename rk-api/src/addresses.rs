//! What IP addresses are for, in the words of Go's package `net`, and networks of them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A network of IP addresses, such as `10.96.0.0/12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    /// Its first address, if nothing beyond the prefix is set.
    pub address: IpAddr,
    /// The bits of its prefix.
    pub bits: u8,
}

impl Network {
    /// Whether an address is in the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        is_within(ip, (self.address, self.bits))
    }

    /// Whether all addresses of another network are in this one.
    pub fn covers(&self, other: &Self) -> bool {
        self.bits <= other.bits && self.contains(other.address)
    }

    /// Whether a Service may have an address: it is in the network, and neither the network's own nor, with IPv4, the one for all of its
    /// machines (KEP-1880).
    pub fn is_assignable(&self, ip: IpAddr) -> bool {
        let last = self.size().checked_sub(1).and_then(|last| self.nth(last));
        self.contains(ip) && ip != self.address && !(ip.is_ipv4() && Some(ip) == last)
    }

    /// How many addresses it has; of all of IPv6 one is left out.
    pub fn size(&self) -> u128 {
        let width: u8 = if self.address.is_ipv4() { 32 } else { 128 };
        1_u128.checked_shl(u32::from(width.saturating_sub(self.bits))).unwrap_or(u128::MAX)
    }

    /// The address of this number, of which the network's own is 0; `None` beyond the last address of the family.
    pub fn nth(&self, number: u128) -> Option<IpAddr> {
        Some(match self.address {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().checked_add(u32::try_from(number).ok()?)?).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().checked_add(number)?).into(),
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let network = || {
            let (address, bits) = text.split_once('/')?;
            let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse().ok()?);
            (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, bits })
        };
        network().ok_or_else(|| NetworkError(text.to_owned()))
    }
}

/// A text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network such as 10.96.0.0/12")]
pub struct NetworkError(String);

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
    fn services_may_have_all_but_the_outer_addresses_of_a_network() {
        for (network, ip, may) in [
            ("10.0.0.0/28", "10.0.0.0", false),
            ("10.0.0.0/28", "10.0.0.1", true),
            ("10.0.0.0/28", "10.0.0.14", true),
            ("10.0.0.0/28", "10.0.0.15", false),
            ("10.0.0.0/28", "10.0.0.16", false),
            ("fd00::/124", "fd00::", false),
            ("fd00::/124", "fd00::f", true),
            ("0.0.0.0/0", "255.255.255.255", false),
            ("::/0", "ffff::1", true),
        ] {
            assert_eq!(network.parse::<Network>().unwrap().is_assignable(ip.parse().unwrap()), may, "{ip} {network}");
        }
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", "/8", ""] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        let network = |text: &str| text.parse::<Network>().unwrap();
        assert!(network("10.0.0.0/8").covers(&network("10.1.0.0/16")));
        assert!(network("10.0.0.0/8").covers(&network("10.0.0.0/8")));
        assert!(!network("10.1.0.0/16").covers(&network("10.0.0.0/8")));
        assert_eq!(network("10.1.0.0/16").to_string(), "10.1.0.0/16");
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
