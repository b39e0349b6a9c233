//! The command line: etcd's own flags, each also read from the environment as etcd does.

use std::{path::PathBuf, str::FromStr};

use clap::Parser;

/// A key-value server with etcd's API.
#[derive(Debug, Clone, Parser)]
#[command(name = "rk-etcd", version)]
pub(crate) struct Flags {
    /// Human-readable name for this member.
    #[arg(long, env = "ETCD_NAME", default_value = "default")]
    pub(crate) name: String,
    /// Path to the data directory; `NAME.etcd` if not given.
    #[arg(long, env = "ETCD_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// List of URLs to listen on for client traffic.
    #[arg(long, env = "ETCD_LISTEN_CLIENT_URLS", value_delimiter = ',', default_value = "http://localhost:2379")]
    pub(crate) listen_client_urls: Vec<Url>,
    /// List of this member's client URLs to advertise to the public.
    #[arg(long, env = "ETCD_ADVERTISE_CLIENT_URLS", value_delimiter = ',', default_value = "http://localhost:2379")]
    pub(crate) advertise_client_urls: Vec<Url>,
    /// List of this member's peer URLs to advertise to the rest of the cluster.
    #[arg(
        long,
        env = "ETCD_INITIAL_ADVERTISE_PEER_URLS",
        value_delimiter = ',',
        default_value = "http://localhost:2380"
    )]
    pub(crate) initial_advertise_peer_urls: Vec<Url>,
    /// What is logged: debug, info, warn, error, or tracing's directives.
    #[arg(long, env = "ETCD_LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: String,
}

impl Flags {
    /// Where the data are.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| format!("{}.etcd", self.name).into())
    }
}

/// `http://HOST:PORT` or `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Whether it is `https`.
    pub(crate) tls: bool,
    /// The host and port.
    pub(crate) authority: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err("URL scheme must be http or https".into()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('/') {
            return Err("URL must not contain a path".into());
        }
        match authority.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => Ok(Self { tls, authority: authority.to_owned() }),
            _ => Err("URL address does not have the form \"host:port\"".into()),
        }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}
