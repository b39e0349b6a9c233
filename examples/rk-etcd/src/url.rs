//! URLs as etcd's flags have them.

use std::str::FromStr;

/// `http://HOST:PORT` or `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Whether it is `https`.
    pub(crate) tls: bool,
    /// The host and port.
    pub(crate) authority: String,
}

impl Url {
    /// The host, an address of IPv6 without its brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(format!("URL scheme must be http or https: {url}")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('/') {
            return Err(format!("URL must not contain a path: {url}"));
        }
        match authority.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => Ok(Self { tls, authority: authority.to_owned() }),
            _ => Err(format!("URL address does not have the form \"host:port\": {url}")),
        }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

/// Reads `NAME=URL,NAME=URL,...`, where a member with several URLs is named several times.
pub(crate) fn initial_cluster(list: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut members: Vec<(String, Vec<String>)> = Vec::new();
    for pair in list.split(',') {
        let Some((name, url)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(format!("--initial-cluster: {pair:?} is not NAME=URL"));
        };
        let url = url.parse::<Url>()?.to_string();
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url),
            None => members.push((name.to_owned(), vec![url])),
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_scheme_a_host_and_a_port() {
        let url: Url = "https://[::1]:2379/".parse().unwrap();
        assert_eq!((url.tls, url.authority.as_str(), url.host()), (true, "[::1]:2379", "::1"));
        assert_eq!("http://a.example:1".parse::<Url>().unwrap().host(), "a.example");
        assert_eq!(url.to_string(), "https://[::1]:2379");
        for wrong in ["localhost:2379", "ftp://a:1", "http://a", "http://a:b", "http://a:1/path", ""] {
            assert!(wrong.parse::<Url>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cluster_lists_names_with_urls() {
        let members = initial_cluster("a=http://x:1,b=http://y:1,a=http://z:1").unwrap();
        assert_eq!(
            members,
            [("a".into(), vec!["http://x:1".into(), "http://z:1".into()]), ("b".into(), vec!["http://y:1".into()]),]
        );
        assert!(initial_cluster("http://x:1").is_err());
        assert!(initial_cluster("").is_err());
    }
}
