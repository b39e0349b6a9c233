//! What is measured. Each row starts members of one peer and gives its figures.

mod disk;
mod failover;
mod keys;
mod kv;
mod local;
mod watch;

use std::{io, path::Path};

pub use self::local::measure as in_process;
use crate::{
    cluster::{Cluster, Peer},
    options::Options,
    table::Figure,
};

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Puts of 1 KiB to random keys.
    Puts {
        /// Members.
        members: usize,
        /// Clients.
        clients: usize,
    },
    /// kube-apiserver's update: compare the mod revision and put, else get.
    Txn,
    /// Reads of one key.
    Range {
        /// Members.
        members: usize,
        /// Whether the member may answer alone.
        serializable: bool,
    },
    /// Reads of 10,000 keys.
    List,
    /// 1,000 watchers of one prefix.
    Watch,
    /// Memory and start with many keys.
    Keys,
    /// The leader killed.
    Failover,
    /// Disk written and taken.
    Disk,
}

impl Row {
    /// All rows, in the order of the table.
    pub fn all() -> Vec<Self> {
        let puts = [1, 3].into_iter().flat_map(|members| [1, 64, 256].map(|clients| Self::Puts { members, clients }));
        let reads = [(1, false), (1, true), (3, false)];
        let ranges = reads.map(|(members, serializable)| Self::Range { members, serializable });
        let rest = [Self::List, Self::Watch, Self::Keys, Self::Failover, Self::Disk];
        puts.chain([Self::Txn]).chain(ranges).chain(rest).collect()
    }

    /// Its name, for `--only` too.
    pub fn name(self) -> String {
        match self {
            Self::Puts { members, clients } => format!("puts-{clients}-on-{members}"),
            Self::Txn => "txn-64".into(),
            Self::Range { members, serializable } => {
                format!("{}-64-on-{members}", if serializable { "serializable" } else { "linearizable" })
            }
            Self::List => "range-10k".into(),
            Self::Watch => "watch-1000".into(),
            Self::Keys => "million-keys".into(),
            Self::Failover => "leader-killed".into(),
            Self::Disk => "disk".into(),
        }
    }

    /// Whether `--shrink` concerns it.
    pub fn has_many_keys(self) -> bool {
        matches!(self, Self::Keys | Self::Disk)
    }

    fn members(self) -> usize {
        match self {
            Self::Puts { members, .. } | Self::Range { members, .. } => members,
            Self::Failover => 3,
            _ => 1,
        }
    }

    /// Measures once, on fresh members of a peer with directories below `dir`.
    pub async fn measure(self, peer: &Peer, options: &Options, dir: &Path) -> io::Result<Vec<Figure>> {
        let mut cluster = Cluster::start(peer, self.members(), dir).await?;
        match self {
            Self::Puts { clients, .. } => kv::puts(&cluster, clients, options).await,
            Self::Txn => kv::txns(&cluster, options).await,
            Self::Range { serializable, .. } => kv::gets(&cluster, serializable, options).await,
            Self::List => kv::lists(&cluster, options).await,
            Self::Watch => watch::measure(&cluster, options).await,
            Self::Keys => keys::measure(&mut cluster, options).await,
            Self::Failover => failover::measure(&mut cluster).await,
            Self::Disk => disk::measure(&cluster, options).await,
        }
    }
}

/// Where the clients of a row connect.
async fn targets(cluster: &Cluster, options: &Options) -> io::Result<Vec<std::net::SocketAddr>> {
    let addresses = cluster.addresses();
    if options.spread || addresses.len() == 1 {
        return Ok(addresses);
    }
    Ok(vec![addresses[cluster.leader().await?]])
}
