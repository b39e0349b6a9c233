//! Kubernetes' libraries of IP addresses and CIDR ranges (<https://pkg.go.dev/k8s.io/apiserver/pkg/cel/library#IP>).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    super::{
        eval::Meter,
        value::{Evaluated, Failure, Other, Val},
    },
    Row, strings,
};
use crate::addresses::{is_global_unicast, is_link_local, is_within};

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    ip: IpAddr,
    bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

pub(super) const ROWS: &[Row] = &[
    (&["isIP(string) bool"], |meter, a| Ok(Val::Bool(parse(meter, &a[0], read_ip)?.is_ok()))),
    (&["ip(string) ip"], |meter, a| Ok(Val::other(Other::Ip(parse(meter, &a[0], read_ip)??)))),
    (&["ip.isCanonical(string) bool"], |meter, a| {
        let ip = parse(meter, &a[0], read_ip)??;
        Ok(Val::Bool(ip.to_string() == strings::text(&a[0])?))
    }),
    (&[".family(ip) int"], |_, a| Ok(Val::Int(if ip(&a[0])?.is_ipv4() { 4 } else { 6 }))),
    (&[".isUnspecified(ip) bool"], |_, a| is(a, |ip| ip.is_unspecified())),
    (&[".isLoopback(ip) bool"], |_, a| is(a, |ip| ip.is_loopback())),
    (&[".isLinkLocalMulticast(ip) bool"], |_, a| {
        is(a, |ip| match ip {
            IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
            IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
        })
    }),
    (&[".isLinkLocalUnicast(ip) bool"], |_, a| is(a, is_link_local)),
    (&[".isGlobalUnicast(ip) bool"], |_, a| is(a, is_global_unicast)),
    (&["isCIDR(string) bool"], |meter, a| Ok(Val::Bool(parse(meter, &a[0], read_cidr)?.is_ok()))),
    (&["cidr(string) cidr"], |meter, a| Ok(Val::other(Other::Cidr(parse(meter, &a[0], read_cidr)??)))),
    (&[".containsIP(cidr, ip) bool", ".containsIP(cidr, string) bool"], |meter, a| {
        let inner = match &a[1] {
            Val::String(_) => parse(meter, &a[1], read_ip)??,
            other => ip(other)?,
        };
        let outer = cidr(&a[0])?;
        Ok(Val::Bool(is_within(inner, (outer.ip, outer.bits))))
    }),
    (&[".containsCIDR(cidr, cidr) bool", ".containsCIDR(cidr, string) bool"], |meter, a| {
        let inner = match &a[1] {
            Val::String(_) => parse(meter, &a[1], read_cidr)??,
            other => cidr(other)?,
        };
        let outer = cidr(&a[0])?;
        Ok(Val::Bool(outer.bits <= inner.bits && is_within(inner.ip, (outer.ip, outer.bits))))
    }),
    (&[".ip(cidr) ip"], |_, a| Ok(Val::other(Other::Ip(cidr(&a[0])?.ip)))),
    (&[".masked(cidr) cidr"], |_, a| {
        let cidr = cidr(&a[0])?;
        Ok(Val::other(Other::Cidr(Cidr { ip: masked(cidr.ip, cidr.bits), bits: cidr.bits })))
    }),
    (&[".prefixLength(cidr) int"], |_, a| Ok(Val::Int(cidr(&a[0])?.bits.into()))),
];

fn parse<T>(
    meter: &mut Meter<'_>,
    value: &Val<'_>,
    read: fn(&str) -> Result<T, Failure>,
) -> Result<Result<T, Failure>, Failure> {
    meter.traverse(value.size())?;
    Ok(read(strings::text(value)?))
}

fn read_ip(text: &str) -> Result<IpAddr, Failure> {
    let wrong =
        |why: &str| Failure::new(format!("IP Address {text:?} parse error during conversion from string: {why}"));
    match text.parse() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => Err(wrong("IPv4-mapped IPv6 address is not allowed")),
        Ok(ip) => Ok(ip),
        Err(_) => Err(wrong("unable to parse IP")),
    }
}

fn read_cidr(text: &str) -> Result<Cidr, Failure> {
    let wrong = || Failure::new(format!("network address parse error during conversion from string: {text:?}"));
    let (ip, length) = text.split_once('/').ok_or_else(wrong)?;
    let ip = read_ip(ip).map_err(|_| wrong())?;
    let bits: u8 = length.parse().map_err(|_| wrong())?;
    // No signs and no leading zeros.
    if bits.to_string() != length || bits > if ip.is_ipv4() { 32 } else { 128 } {
        return Err(wrong());
    }
    Ok(Cidr { ip, bits })
}

fn ip(value: &Val<'_>) -> Result<IpAddr, Failure> {
    match value.as_other()? {
        Other::Ip(ip) => Ok(*ip),
        _ => Err(Failure::overload()),
    }
}

fn cidr(value: &Val<'_>) -> Result<Cidr, Failure> {
    match value.as_other()? {
        Other::Cidr(cidr) => Ok(*cidr),
        _ => Err(Failure::overload()),
    }
}

fn is<'a>(a: &[Val<'a>], holds: fn(IpAddr) -> bool) -> Evaluated<'a> {
    Ok(Val::Bool(holds(ip(&a[0])?)))
}

/// The network that an address is in.
fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}
