//! Kubernetes' URL library (<https://pkg.go.dev/k8s.io/apiserver/pkg/cel/library#URLs>): URLs as Go's `net/url` reads
//! them, absolute or at least with an absolute path.

use std::collections::BTreeMap;

use super::{
    super::value::{Evaluated, Failure, Key, Map, Other, Val},
    Row, strings,
};

/// The parts of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    scheme: String,
    /// With the port, and brackets around an IPv6 address.
    host: String,
    /// Escaped.
    path: String,
    query: String,
}

pub(super) const ROWS: &[Row] = &[
    (&["isURL(string) bool"], |meter, a| {
        meter.traverse(a[0].size())?;
        Ok(Val::Bool(parse(strings::text(&a[0])?).is_ok()))
    }),
    (&["url(string) url"], |meter, a| {
        meter.traverse(a[0].size())?;
        let url = parse(strings::text(&a[0])?);
        let url = url.map_err(|why| Failure::new(format!("URL parse error during conversion from string: {why}")))?;
        Ok(Val::other(Other::Url(url)))
    }),
    (&[".getScheme(url) string"], |_, a| part(a, |url| url.scheme.clone())),
    (&[".getHost(url) string"], |_, a| part(a, |url| url.host.clone())),
    (&[".getHostname(url) string"], |_, a| {
        part(a, |url| {
            let (host, _) = split_port(&url.host);
            host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned()
        })
    }),
    (&[".getPort(url) string"], |_, a| part(a, |url| split_port(&url.host).1.to_owned())),
    (&[".getEscapedPath(url) string"], |_, a| part(a, |url| url.path.clone())),
    (&[".getQuery(url) map<string, list<string>>"], |meter, a| {
        let url = of(&a[0])?;
        meter.traverse(url.query.len())?;
        let mut query: BTreeMap<String, Vec<Val<'_>>> = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(url.query.as_bytes()) {
            query.entry(key.into_owned()).or_default().push(Val::text(&*value));
        }
        let entries = query.into_iter().map(|(key, values)| (Key::String(key.into()), Val::list(values)));
        Ok(Val::Map(Map::Made(std::sync::Arc::new(entries.collect()))))
    }),
];

fn of<'v>(value: &'v Val<'_>) -> Result<&'v Url, Failure> {
    match value.as_other()? {
        Other::Url(url) => Ok(url),
        _ => Err(Failure::overload()),
    }
}

fn part<'a>(a: &[Val<'a>], read: fn(&Url) -> String) -> Evaluated<'a> {
    Ok(Val::text(read(of(&a[0])?)))
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port))
            if (name.ends_with(']') || !name.contains(':')) && port.bytes().all(|b| b.is_ascii_digit()) =>
        {
            (name, port)
        }
        _ => (host, ""),
    }
}

/// Reads a URL; else what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Url, String> {
    let wrong = |why: &str| format!("parse {text:?}: {why}");
    if text.is_empty() {
        return Err(wrong("empty url"));
    }
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(wrong("net/url: invalid control character in URL"));
    }
    let text = text.split('#').next().unwrap_or_default();
    let legal = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest)) if legal(scheme) => (scheme.to_ascii_lowercase(), rest),
        Some(("", _)) => return Err(wrong("missing protocol scheme")),
        _ => (String::new(), text),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !rest.starts_with('/') {
        return Err(wrong("invalid URI for request"));
    }
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) if !scheme.is_empty() => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        _ => ("", rest),
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    check_host(host).map_err(|why| wrong(&why))?;
    Ok(Url { scheme, host: host.to_owned(), path: escape(path).map_err(|why| wrong(&why))?, query: query.to_owned() })
}

fn check_host(host: &str) -> Result<(), String> {
    let port = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or("missing ']' in host")?;
            if address.split('%').next().is_none_or(|ip| ip.parse::<std::net::Ipv6Addr>().is_err()) {
                return Err("invalid host".to_owned());
            }
            after
        }
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port {port:?} after host"));
    }
    match host.chars().find(|c| " <>\"{}|\\^`".contains(*c)) {
        Some(c) => Err(format!("invalid character {:?} in host name", c.to_string())),
        None => Ok(()),
    }
}

/// A path with what may not stand in it escaped; what is escaped already stays.
fn escape(path: &str) -> Result<String, String> {
    let bytes = path.as_bytes();
    let mut escaped = String::with_capacity(path.len());
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'%' => {
                let code = bytes.get(at + 1..at + 3).filter(|code| code.iter().all(u8::is_ascii_hexdigit));
                if code.is_none() {
                    return Err(format!(
                        "invalid URL escape {:?}",
                        path.get(at..(at + 3).min(path.len())).unwrap_or("%")
                    ));
                }
                escaped.push('%');
            }
            byte if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]".contains(byte) => {
                escaped.push(char::from(*byte))
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(escaped)
}
