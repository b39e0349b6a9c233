//! The contract of pod networks, and the one that needs no privileges.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::fsutil;

/// Which pod a network is for: CNI's runtime parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Id of the pod's sandbox (`CNI_CONTAINERID`).
    pub sandbox_id: String,
    /// Namespace of the pod (`K8S_POD_NAMESPACE`).
    pub namespace: String,
    /// Name of the pod (`K8S_POD_NAME`).
    pub name: String,
    /// Path of the network namespace (`CNI_NETNS`); empty where pods share the host's.
    pub netns: PathBuf,
}

/// Why a pod got no network.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Every address of the range is taken.
    #[error("no free address in {0}")]
    Exhausted(String),
    /// The range makes no sense.
    #[error("{0:?} is no IPv4 range such as 127.16.1.0/24")]
    BadRange(String),
    /// The plugin failed.
    #[error("{0}")]
    Failed(String),
}

/// Gives pods their addresses: CNI's ADD and DEL.
///
/// # Guarantees
/// 1. `add` answers at least one address, which no other sandbox has until `del`; the same sandbox gets the same again.
/// 2. `del` succeeds on a sandbox that has none.
#[async_trait]
pub trait NetworkPlugin: Send + Sync + 'static {
    /// Connects a sandbox; answers its addresses, the main one first.
    async fn add(&self, request: &NetworkRequest) -> Result<Vec<IpAddr>, NetworkError>;

    /// Disconnects a sandbox.
    async fn del(&self, request: &NetworkRequest) -> Result<(), NetworkError>;
}

/// Addresses of a part of 127/8 (or of any range that the host's loopback device answers for): each pod gets one of
/// its own in the host's network, so that the same port can be used in every pod. Nothing on the machine is changed.
pub struct Loopback {
    first: u32,
    last: u32,
    range: String,
    /// One file per address, named by it, with the sandbox's id inside.
    folder: PathBuf,
    leases: Mutex<Leases>,
}

struct Leases {
    by_sandbox: BTreeMap<String, Ipv4Addr>,
    next: u32,
}

impl Loopback {
    /// Addresses of `range` (`127.16.1.0/24`), but for its first (the network's) and last; what was given before a
    /// restart is read from `folder`.
    ///
    /// # Errors
    /// [`NetworkError::BadRange`] and failures to use the folder.
    pub fn new(range: &str, folder: &Path) -> Result<Self, NetworkError> {
        let bad = || NetworkError::BadRange(range.to_owned());
        let (address, bits) = range.split_once('/').ok_or_else(bad)?;
        let address = u32::from(address.parse::<Ipv4Addr>().map_err(|_| bad())?);
        let bits: u32 = bits.parse().ok().filter(|bits| (1..=30).contains(bits)).ok_or_else(bad)?;
        let base = address & (u32::MAX << (32 - bits));
        let last = base + (u32::MAX >> bits) - 1;
        let failed = |error: std::io::Error| NetworkError::Failed(format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut by_sandbox = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Some(address) = entry.file_name().to_str().and_then(|name| name.parse::<Ipv4Addr>().ok()) {
                by_sandbox.insert(std::fs::read_to_string(entry.path()).map_err(failed)?, address);
            }
        }
        let next = by_sandbox.values().map(|address| u32::from(*address) + 1).max().unwrap_or(base + 1);
        Ok(Self {
            first: base + 1,
            last,
            range: range.to_owned(),
            folder: folder.to_owned(),
            leases: Mutex::new(Leases { by_sandbox, next }),
        })
    }
}

#[async_trait]
impl NetworkPlugin for Loopback {
    async fn add(&self, request: &NetworkRequest) -> Result<Vec<IpAddr>, NetworkError> {
        let mut leases = self.leases.lock();
        if let Some(address) = leases.by_sandbox.get(&request.sandbox_id) {
            return Ok(vec![IpAddr::V4(*address)]);
        }
        // Round robin, so that an address rests for a while before it serves another pod.
        let taken: std::collections::BTreeSet<u32> = leases.by_sandbox.values().map(|a| u32::from(*a)).collect();
        let start = if (self.first..=self.last).contains(&leases.next) { leases.next } else { self.first };
        let free = (start..=self.last)
            .chain(self.first..start)
            .find(|address| !taken.contains(address))
            .ok_or_else(|| NetworkError::Exhausted(self.range.clone()))?;
        let address = Ipv4Addr::from(free);
        let path = self.folder.join(address.to_string());
        fsutil::replace(&path, request.sandbox_id.as_bytes(), 0o600)
            .map_err(|error| NetworkError::Failed(format!("{}: {error}", path.display())))?;
        leases.next = free + 1;
        leases.by_sandbox.insert(request.sandbox_id.clone(), address);
        Ok(vec![IpAddr::V4(address)])
    }

    async fn del(&self, request: &NetworkRequest) -> Result<(), NetworkError> {
        let mut leases = self.leases.lock();
        let Some(address) = leases.by_sandbox.get(&request.sandbox_id) else { return Ok(()) };
        let path = self.folder.join(address.to_string());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(NetworkError::Failed(format!("{}: {error}", path.display())));
            }
            _ => {}
        }
        leases.by_sandbox.remove(&request.sandbox_id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str) -> NetworkRequest {
        NetworkRequest { sandbox_id: id.to_owned(), ..NetworkRequest::default() }
    }

    #[tokio::test]
    async fn addresses_are_unique_rest_before_reuse_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let net = Loopback::new("127.16.1.0/29", dir.path()).unwrap();
        let a = net.add(&sandbox("a")).await.unwrap();
        assert_eq!(a, ["127.16.1.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(net.add(&sandbox("a")).await.unwrap(), a);
        net.del(&sandbox("a")).await.unwrap();
        net.del(&sandbox("a")).await.unwrap();
        assert_eq!(net.add(&sandbox("b")).await.unwrap(), ["127.16.1.2".parse::<IpAddr>().unwrap()]);
        let net = Loopback::new("127.16.1.0/29", dir.path()).unwrap();
        assert_eq!(net.add(&sandbox("b")).await.unwrap(), ["127.16.1.2".parse::<IpAddr>().unwrap()]);
        for id in ["c", "d", "e", "f", "g"] {
            net.add(&sandbox(id)).await.unwrap();
        }
        assert!(matches!(net.add(&sandbox("h")).await, Err(NetworkError::Exhausted(_))));
    }

    #[test]
    fn bad_ranges_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for range in ["", "127.0.0.1", "127.0.0.0/31", "127.0.0.0/x", "::/64"] {
            assert!(Loopback::new(range, dir.path()).is_err(), "{range}");
        }
    }
}
