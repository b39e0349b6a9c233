//! The command line: etcd's own flags, each also read from the environment as etcd does.

mod tls;

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use rk_store::AutoCompaction;

pub(crate) use self::tls::{ClientTls, PeerTls};
use crate::{
    restore::Restore,
    url::{Url, initial_cluster},
};

/// A key-value server with etcd's API.
#[derive(Debug, Clone, Parser)]
#[command(name = "rk-etcd", version = version(), disable_version_flag = true, args_conflicts_with_subcommands = true)]
pub(crate) struct Flags {
    /// What is done instead of serving.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
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
    /// List of URLs to listen on for peer traffic.
    #[arg(long, env = "ETCD_LISTEN_PEER_URLS", value_delimiter = ',', default_value = "http://localhost:2380")]
    pub(crate) listen_peer_urls: Vec<Url>,
    /// List of this member's peer URLs to advertise to the rest of the cluster.
    #[arg(
        long,
        env = "ETCD_INITIAL_ADVERTISE_PEER_URLS",
        value_delimiter = ',',
        default_value = "http://localhost:2380"
    )]
    pub(crate) initial_advertise_peer_urls: Vec<Url>,
    /// Initial cluster configuration for bootstrapping: `NAME=URL,...`; this member alone if not given.
    #[arg(long, env = "ETCD_INITIAL_CLUSTER")]
    pub(crate) initial_cluster: Option<String>,
    /// Whether the cluster is new or was there before this member.
    #[arg(long, env = "ETCD_INITIAL_CLUSTER_STATE", value_enum, default_value = "new")]
    pub(crate) initial_cluster_state: ClusterState,
    /// Initial cluster token for the cluster during bootstrap.
    #[arg(long, env = "ETCD_INITIAL_CLUSTER_TOKEN", default_value = "etcd-cluster")]
    pub(crate) initial_cluster_token: String,
    /// Make a new cluster of one member from this member's data.
    #[arg(long, env = "ETCD_FORCE_NEW_CLUSTER", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true")]
    pub(crate) force_new_cluster: bool,
    /// Number of committed transactions to trigger a snapshot to disk.
    #[arg(long, env = "ETCD_SNAPSHOT_COUNT", default_value_t = 100_000)]
    pub(crate) snapshot_count: u64,
    /// Number of entries that a slow follower may be behind and still catch up from the leader's memory.
    #[arg(
        long,
        env = "ETCD_SNAPSHOT_CATCHUP_ENTRIES",
        alias = "experimental-snapshot-catchup-entries",
        default_value_t = 5000
    )]
    pub(crate) snapshot_catchup_entries: u64,
    /// Time in milliseconds of a heartbeat interval.
    #[arg(long, env = "ETCD_HEARTBEAT_INTERVAL", default_value_t = 100)]
    pub(crate) heartbeat_interval: u64,
    /// Time in milliseconds for an election to time out.
    #[arg(long, env = "ETCD_ELECTION_TIMEOUT", default_value_t = 1000)]
    pub(crate) election_timeout: u64,
    /// Raise alarms when the data exceeds this many bytes; 0 is 2 GiB, less is no quota.
    #[arg(long, env = "ETCD_QUOTA_BACKEND_BYTES", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) quota_backend_bytes: i64,
    /// How the retention is meant: a duration or a number of revisions.
    #[arg(long, env = "ETCD_AUTO_COMPACTION_MODE", value_enum, default_value = "periodic")]
    pub(crate) auto_compaction_mode: CompactionMode,
    /// Auto compaction retention: for `periodic` a duration, in hours without a unit; 0 for no auto compaction.
    #[arg(long, env = "ETCD_AUTO_COMPACTION_RETENTION", default_value = "0")]
    pub(crate) auto_compaction_retention: String,
    /// Maximum client request size in bytes the server will accept.
    #[arg(long, env = "ETCD_MAX_REQUEST_BYTES", default_value_t = rk_store::MAX_REQUEST_BYTES)]
    pub(crate) max_request_bytes: usize,
    /// Maximum number of operations permitted in a transaction.
    #[arg(long, env = "ETCD_MAX_TXN_OPS", default_value_t = rk_store::MAX_TXN_OPS)]
    pub(crate) max_txn_ops: usize,
    /// Maximum concurrent streams that each client can open at a time.
    #[arg(long, env = "ETCD_MAX_CONCURRENT_STREAMS", default_value_t = u32::MAX)]
    pub(crate) max_concurrent_streams: u32,
    /// Frequency duration of server-to-client ping to check if a connection is alive; 0 to disable.
    #[arg(long, env = "ETCD_GRPC_KEEPALIVE_INTERVAL", value_parser = duration_flag, default_value = "2h")]
    pub(crate) grpc_keepalive_interval: Duration,
    /// Additional duration of wait before closing a non-responsive connection.
    #[arg(long, env = "ETCD_GRPC_KEEPALIVE_TIMEOUT", value_parser = duration_flag, default_value = "20s")]
    pub(crate) grpc_keepalive_timeout: Duration,
    /// List of URLs to listen on for the metrics and health endpoints.
    #[arg(long, env = "ETCD_LISTEN_METRICS_URLS", value_delimiter = ',')]
    pub(crate) listen_metrics_urls: Vec<Url>,
    /// What is logged: debug, info, warn, error, panic or fatal.
    #[arg(long, env = "ETCD_LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,
    /// The logger; lines look the same for each.
    #[arg(long, env = "ETCD_LOGGER", value_enum, default_value = "zap")]
    pub(crate) logger: Logger,
    /// The TLS of clients.
    #[command(flatten)]
    pub(crate) client_tls: ClientTls,
    /// The TLS of members.
    #[command(flatten)]
    pub(crate) peer_tls: PeerTls,
    /// List of the TLS cipher suites offered to clients and members, for TLS 1.2; all there are if not given.
    #[arg(long, env = "ETCD_CIPHER_SUITES", value_delimiter = ',')]
    pub(crate) cipher_suites: Vec<String>,
    /// Minimum TLS version offered to clients and members: TLS1.2 or TLS1.3.
    #[arg(long, env = "ETCD_TLS_MIN_VERSION", default_value = "TLS1.2")]
    pub(crate) tls_min_version: String,
    /// Maximum TLS version offered to clients and members: TLS1.2 or TLS1.3; the newest there is if not given.
    #[arg(long, env = "ETCD_TLS_MAX_VERSION", default_value = "")]
    pub(crate) tls_max_version: String,
    /// Print the version and exit.
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// What is done instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// What is done with snapshots of etcd and of this server.
    #[command(subcommand)]
    Snapshot(Snapshots),
}

/// What is done with snapshots.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Snapshots {
    /// Restores a snapshot to the data directory of a member of a new cluster.
    Restore(Restore),
}

/// Whether a cluster begins with this member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClusterState {
    /// It does.
    New,
    /// It was there before.
    Existing,
}

/// What the retention counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompactionMode {
    /// Time.
    Periodic,
    /// Revisions.
    Revision,
}

/// etcd's levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// All.
    Debug,
    /// What happens.
    Info,
    /// What may be wrong.
    Warn,
    /// What is wrong.
    Error,
    /// As `error`.
    Panic,
    /// As `error`.
    Fatal,
}

impl LogLevel {
    /// The level of tracing.
    pub(crate) fn level(self) -> tracing::Level {
        match self {
            Self::Debug => tracing::Level::DEBUG,
            Self::Info => tracing::Level::INFO,
            Self::Warn => tracing::Level::WARN,
            Self::Error | Self::Panic | Self::Fatal => tracing::Level::ERROR,
        }
    }
}

/// etcd's loggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Logger {
    /// The one of today.
    Zap,
    /// The one before it.
    Capnslog,
}

/// Scripts look for etcd's own version in these lines.
fn version() -> String {
    let (etcd, own) = (rk_store::etcd::VERSION, env!("CARGO_PKG_VERSION"));
    format!("{own}\netcd Version: {etcd}")
}

/// etcd's quota where none is given.
const DEFAULT_QUOTA: u64 = 2 << 30;

/// Half of what a member takes in one message from another.
const MOST_REQUEST_BYTES: usize = 32 << 20;

impl Flags {
    /// The size of requests must be one that members can send each other, too.
    pub(crate) fn check_request_bytes(&self) -> Result<(), String> {
        match self.max_request_bytes {
            0..=MOST_REQUEST_BYTES => Ok(()),
            bytes => Err(format!("--max-request-bytes[{bytes}] is too large, and may be {MOST_REQUEST_BYTES} at most")),
        }
    }

    /// Where the data are.
    pub(crate) fn data_dir(&self) -> PathBuf {
        data_dir(self.data_dir.as_ref(), &self.name)
    }

    /// The quota in bytes, 0 for none.
    pub(crate) fn quota(&self) -> u64 {
        match self.quota_backend_bytes {
            0 => DEFAULT_QUOTA,
            bytes => u64::try_from(bytes).unwrap_or(0),
        }
    }

    /// The members that the cluster begins with: their names and peer URLs.
    pub(crate) fn members(&self) -> Result<Vec<(String, Vec<String>)>, String> {
        members(&self.name, &self.initial_advertise_peer_urls, self.initial_cluster.as_deref())
    }

    /// The policy of auto compaction, if there is one.
    pub(crate) fn auto_compaction(&self) -> Result<Option<AutoCompaction>, String> {
        let text = self.auto_compaction_retention.as_str();
        let wrong = || format!("--auto-compaction-retention: {text:?} is neither a number nor a duration");
        let number = text.parse::<u64>().ok();
        Ok(match (self.auto_compaction_mode, number) {
            (_, Some(0)) => None,
            (CompactionMode::Revision, Some(kept)) => Some(AutoCompaction::Revision(kept)),
            (CompactionMode::Revision, None) => return Err(wrong()),
            (CompactionMode::Periodic, Some(hours)) => {
                Some(AutoCompaction::Periodic(Duration::from_secs(hours.saturating_mul(3600))))
            }
            (CompactionMode::Periodic, None) => match duration(text).ok_or_else(wrong)? {
                Duration::ZERO => None,
                kept => Some(AutoCompaction::Periodic(kept)),
            },
        })
    }

    /// etcd's rules for the times of elections.
    pub(crate) fn check_times(&self) -> Result<(), String> {
        let (tick, election) = (self.heartbeat_interval, self.election_timeout);
        if tick == 0 || election == 0 {
            return Err("--heartbeat-interval and --election-timeout must be >0".into());
        }
        if tick.saturating_mul(5) > election {
            return Err(format!(
                "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{tick}ms]"
            ));
        }
        if election > 50_000 {
            return Err(format!("--election-timeout[{election}ms] is too long, and should be set less than 50000ms"));
        }
        Ok(())
    }
}

/// Where a member of this name has its data.
pub(crate) fn data_dir(given: Option<&PathBuf>, name: &str) -> PathBuf {
    given.cloned().unwrap_or_else(|| format!("{name}.etcd").into())
}

/// The members that a cluster begins with, this one with these peer URLs among them: their names and peer URLs.
pub(crate) fn members(
    name: &str,
    peer_urls: &[Url],
    cluster: Option<&str>,
) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut own: Vec<_> = peer_urls.iter().map(Url::to_string).collect();
    let Some(list) = cluster else { return Ok(vec![(name.to_owned(), own)]) };
    let members = initial_cluster(list)?;
    let Some((_, urls)) = members.iter().find(|(known, _)| known == name) else {
        return Err(format!("couldn't find local name \"{name}\" in the initial cluster configuration"));
    };
    let mut urls = urls.clone();
    own.sort_unstable();
    urls.sort_unstable();
    if own != urls {
        return Err(format!(
            "--initial-cluster has {name}={} but missing from --initial-advertise-peer-urls={}",
            urls.join(","),
            own.join(",")
        ));
    }
    Ok(members)
}

fn duration_flag(text: &str) -> Result<Duration, String> {
    match text {
        "0" => Ok(Duration::ZERO),
        text => duration(text).ok_or_else(|| "not a duration like 20s or 1h30m".into()),
    }
}

/// Go's durations: numbers with units, one after the other (`1h30m`).
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        sum = sum.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Flags {
        Flags::try_parse_from(std::iter::once(&"rk-etcd").chain(args)).unwrap()
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        for wrong in ["", "5", "m", "1x", "-1s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn retention_is_hours_a_duration_or_revisions() {
        let policy = |args: &[&str]| flags(args).auto_compaction();
        assert_eq!(policy(&[]), Ok(None));
        let hours = Some(AutoCompaction::Periodic(Duration::from_secs(7200)));
        assert_eq!(policy(&["--auto-compaction-retention", "2"]), Ok(hours));
        let minutes = Some(AutoCompaction::Periodic(Duration::from_secs(300)));
        assert_eq!(policy(&["--auto-compaction-retention=5m"]), Ok(minutes));
        let by_revision = ["--auto-compaction-mode", "revision", "--auto-compaction-retention", "1000"];
        assert_eq!(policy(&by_revision), Ok(Some(AutoCompaction::Revision(1000))));
        assert!(policy(&["--auto-compaction-retention", "soon"]).is_err());
    }

    #[test]
    fn the_cluster_names_this_member() {
        let urls = ["--name", "a", "--initial-advertise-peer-urls", "http://10.0.0.1:2380"];
        let with = |list: &str| flags(&[&urls[..], &["--initial-cluster", list]].concat()).members();
        let two = with("a=http://10.0.0.1:2380,b=http://10.0.0.2:2380").unwrap();
        assert_eq!(two.len(), 2);
        assert!(with("b=http://10.0.0.2:2380").is_err(), "not named");
        assert!(with("a=http://10.0.0.9:2380").is_err(), "another URL");
        assert_eq!(flags(&urls).members().unwrap()[0].0, "a");
    }

    #[test]
    fn booleans_are_set_as_in_go() {
        assert!(!flags(&[]).client_tls.client_cert_auth);
        assert!(flags(&["--client-cert-auth"]).client_tls.client_cert_auth);
        assert!(!flags(&["--client-cert-auth=false"]).client_tls.client_cert_auth);
        assert!(Flags::try_parse_from(["rk-etcd", "--no-such-flag"]).is_err());
        assert!(Flags::try_parse_from(["rk-etcd", "--cert-file", "a"]).is_err(), "a certificate without a key");
    }

    #[test]
    fn times_are_as_etcd_wants_them() {
        assert!(flags(&[]).check_times().is_ok());
        assert!(flags(&["--election-timeout", "400"]).check_times().is_err());
        assert!(flags(&["--election-timeout", "60000"]).check_times().is_err());
        assert!(flags(&["--heartbeat-interval", "0"]).check_times().is_err());
    }
}
