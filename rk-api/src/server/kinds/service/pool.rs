//! The choice of a free address in a network.

use std::{collections::HashSet, net::IpAddr, ops::Range};

use rand::{RngExt as _, rngs::StdRng};

use crate::Network;

/// A free address from the number `first` on, of the upper part of the network if there is one: people choose from the lower (KEP-3070).
pub(super) fn free(network: &Network, first: u64, taken: &HashSet<IpAddr>, random: &mut StdRng) -> Option<IpAddr> {
    let count = count(network);
    let band = if count < 16 { 0 } else { (count / 16).clamp(16, 256) };
    let lower = first..band.max(first);
    let upper = lower.end..count.max(lower.end);
    let mut pick = |range: Range<u64>| {
        let size = range.end.checked_sub(range.start).filter(|size| *size > 0)?;
        let start = random.random_range(0..size);
        let numbers = (0..size).map(|i| range.start + (start + i) % size);
        numbers.filter_map(|number| network.nth(number.into())).find(|ip| !taken.contains(ip))
    };
    pick(upper).or_else(|| pick(lower))
}

/// How many addresses may be given out, the network's own included; the broadcast address is not one. Of a large network it is the
/// first 2^20: more than a cluster has Services.
fn count(network: &Network) -> u64 {
    let all = network.size().min(1 << 20);
    let all = if network.address.is_ipv4() { all.saturating_sub(1) } else { all };
    u64::try_from(all).unwrap_or(u64::MAX)
}
