//! The networks that Services get their addresses from.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::Network;

/// What kube-apiserver's `--service-cluster-ip-range` says: a network, or one of each family, of which the first is the one that Services
/// have an address of if they ask for nothing else. As a text `10.96.0.0/16` or `10.96.0.0/16,fd00:10:96::/112`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterIpRange {
    primary: Network,
    secondary: Option<Network>,
}

/// Two networks, or a text of them, are no range of cluster IPs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a network nor one of IPv4 and one of IPv6, such as 10.96.0.0/16,fd00:10:96::/112")]
pub struct RangeError(String);

impl ClusterIpRange {
    /// The networks of a cluster of both families.
    ///
    /// # Errors
    /// Both are of one family.
    pub fn dual_stack(primary: Network, secondary: Network) -> Result<Self, RangeError> {
        let range = Self { primary, secondary: Some(secondary) };
        if family(primary.address) == family(secondary.address) {
            Err(RangeError(range.to_string()))
        } else {
            Ok(range)
        }
    }

    /// The network whose family is the default.
    pub fn primary(&self) -> Network {
        self.primary
    }

    /// The networks, the primary one first.
    pub fn networks(&self) -> impl Iterator<Item = Network> {
        std::iter::once(self.primary).chain(self.secondary)
    }

    /// The families, `IPv4` and `IPv6` or one of them, in the order of the networks.
    pub(super) fn families(&self) -> impl Iterator<Item = &'static str> {
        self.networks().map(|network| family(network.address))
    }
}

/// The families, as `ipFamilies` names them.
pub(super) const FAMILIES: &[&str] = &["IPv4", "IPv6"];

/// The family of an address.
pub(crate) fn family(ip: IpAddr) -> &'static str {
    FAMILIES[usize::from(ip.is_ipv6())]
}

/// The other family than this one.
pub(super) fn other(family: &str) -> &'static str {
    FAMILIES[usize::from(family == FAMILIES[0])]
}

impl From<Network> for ClusterIpRange {
    fn from(primary: Network) -> Self {
        Self { primary, secondary: None }
    }
}

impl fmt::Display for ClusterIpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.primary)?;
        self.secondary.iter().try_for_each(|network| write!(f, ",{network}"))
    }
}

impl FromStr for ClusterIpRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let network = |text: &str| text.trim().parse::<Network>().ok();
        let range = match text.split_once(',') {
            None => network(text).map(Self::from),
            Some((primary, secondary)) => {
                network(primary).zip(network(secondary)).and_then(|(a, b)| Self::dual_stack(a, b).ok())
            }
        };
        range.ok_or_else(|| RangeError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_one_network_of_a_family() {
        for (text, families) in [
            ("10.96.0.0/16", &["IPv4"][..]),
            ("fd00::/112", &["IPv6"]),
            ("10.96.0.0/16,fd00::/112", &["IPv4", "IPv6"]),
            ("fd00::/112,10.96.0.0/16", &["IPv6", "IPv4"]),
        ] {
            let range: ClusterIpRange = text.parse().unwrap();
            assert_eq!(range.families().collect::<Vec<_>>(), families);
            assert_eq!(range.to_string(), text);
        }
        for text in
            ["", "10.96.0.0", "10.96.0.0/16,", "10.96.0.0/16,10.97.0.0/16", "10.96.0.0/16,fd00::/112,fd01::/112"]
        {
            assert!(text.parse::<ClusterIpRange>().is_err(), "{text}");
        }
        assert_eq!((other("IPv4"), other("IPv6")), ("IPv6", "IPv4"));
    }
}
