//! Which addresses the cluster uses.
//!
//! By default everything lies in one /16 of 127/8, which a process may use with no privileges and
//! which never leaves the machine: 127.X.0.0/24 for nodes, 127.X.1.0/24 to 127.X.126.0/24 for each
//! node's pods, 127.X.128.0/17 for services. The X is claimed by a listening socket, so clusters side
//! by side differ, and is kept in the data folder, so a cluster that starts again has its addresses again. The
//! first one tried depends on the data folder's path: clusters made one after the other seldom get the same one, which
//! would keep them from ever running side by side.
//!
//! Processes of one cluster share the block. Each has a place of its own in it, from which its nodes' addresses and pods' ranges follow,
//! so none of them has to ask the others.
//!
//! On request pods and services get real ranges, made local by routes to the loopback device.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_core::ErrorMessage,
    packet_route::route::{RouteMessage, RouteScope, RouteType},
};

use crate::options::Cidr;

/// Addresses can't be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

/// Second octets tried, from the data folder's own on and around.
const BLOCKS: std::ops::RangeInclusive<u8> = 64..=250;
/// The address at the end of a block and the port whose listener claims it for the process of place 0; those of other places are below.
const CLAIM: (u8, u8, u16) = (255, 254, 10249);
/// How many processes a cluster may have.
pub(super) const PLACES: u16 = 7;
/// How many nodes each of them may have, if they are several.
pub(super) const NODES_OF_PLACE: u16 = 16;

/// The cluster's addresses; they are its own as long as this lives.
#[derive(Debug)]
pub struct Addresses {
    /// Addresses of nodes.
    pub nodes: Cidr,
    /// All pods' range.
    pub pods: Cidr,
    /// Services' range.
    pub services: Cidr,
    /// Which block of 127/8 it is.
    pub block: u8,
    /// How many nodes have their addresses before those of this process.
    before: u16,
    _claim: TcpListener,
}

impl Addresses {
    /// Claims a place in a block of 127/8: in the one that the data folder names if it names one, or else in one that nobody uses.
    ///
    /// # Errors
    /// The block is in use by another cluster, none is free, the folder can't be written, or the pods' range is too
    /// small for so many nodes.
    pub fn claim(
        data_dir: &Path,
        place: u16,
        nodes: u16,
        pods: Option<Cidr>,
        services: Option<Cidr>,
    ) -> Result<Self, AddressError> {
        let file = data_dir.join(BLOCK_FILE);
        let (block, claim) = match std::fs::read_to_string(&file) {
            Ok(text) => {
                let block = text.trim().parse::<u8>().ok().filter(|block| BLOCKS.contains(block));
                let block = block.ok_or_else(|| {
                    AddressError(format!("{}: {:?} is not a number of {BLOCKS:?}", file.display(), text.trim()))
                })?;
                let claim = listen(block, place).map_err(|e| {
                    AddressError(format!(
                        "the cluster's addresses 127.{block}.0.0/16 are in use by another process, most likely another \
                         cluster: {e}"
                    ))
                })?;
                (block, claim)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                // A block is free if no process of another cluster has any place in it.
                let free = |block| (0..PLACES).map(|place| listen(block, place)).collect::<Result<Vec<_>, _>>().ok();
                let found = blocks(data_dir).find_map(|block| Some((block, free(block)?)));
                let (block, claims) = found.ok_or_else(|| AddressError("every block of 127/8 is in use".to_owned()))?;
                Self::note(data_dir, block)?;
                let claim = claims.into_iter().nth(usize::from(place));
                (block, claim.ok_or_else(|| AddressError(format!("a block has {PLACES} places, not {place}")))?)
            }
            Err(e) => return Err(AddressError(format!("can't read {}: {e}", file.display()))),
        };
        let part = |third, prefix| Cidr { base: Ipv4Addr::new(127, block, third, 0), prefix };
        let plan = Self {
            nodes: part(0, 24),
            pods: pods.unwrap_or(part(0, 17)),
            services: services.unwrap_or(part(128, 17)),
            block,
            before: place * NODES_OF_PLACE,
            _claim: claim,
        };
        if plan.pods.overlaps(&plan.services) {
            return Err(AddressError(format!(
                "pods' range {} and services' range {} overlap",
                plan.pods, plan.services
            )));
        }
        // The first /24 is the nodes' own.
        if plan.pods.size() < (u64::from(plan.before + nodes) + 1) << 8 {
            return Err(AddressError(format!(
                "pods' range {} is too small for {nodes} nodes with a /24 each",
                plan.pods
            )));
        }
        Ok(plan)
    }

    /// Notes in a data folder which block it uses.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn note(data_dir: &Path, block: u8) -> Result<(), AddressError> {
        let file = data_dir.join(BLOCK_FILE);
        std::fs::write(&file, format!("{block}\n"))
            .map_err(|e| AddressError(format!("can't write {}: {e}", file.display())))
    }

    /// The address of the first node of a place in a block.
    pub(super) fn first_of(block: u8, place: u16) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(127, block, 0, 1)) + u32::from(place * NODES_OF_PLACE))
    }

    /// The address of this process' node `i`, the first server being node 0.
    pub fn node(&self, i: u16) -> Ipv4Addr {
        self.nodes.address(u32::from(self.before + i) + 1)
    }

    /// The pods' range of this process' node `i`.
    pub fn pods_of(&self, i: u16) -> Cidr {
        self.pods.slash24(self.before + i + 1)
    }

    /// The address of Services of type LoadBalancer.
    pub fn load_balancer(&self) -> Ipv4Addr {
        self.nodes.address(254)
    }

    /// The `kubernetes` Service's address: the first of the range.
    pub fn kubernetes_service(&self) -> Ipv4Addr {
        self.services.address(1)
    }
}

/// All blocks, beginning with the one that is a data folder's own.
fn blocks(data_dir: &Path) -> impl Iterator<Item = u8> {
    let mut hasher = DefaultHasher::new();
    data_dir.hash(&mut hasher);
    let count = BLOCKS.len() as u64;
    let skipped = (hasher.finish() % count) as usize;
    BLOCKS.cycle().skip(skipped).take(BLOCKS.len())
}

fn listen(block: u8, place: u16) -> std::io::Result<TcpListener> {
    let below = u8::try_from(place).unwrap_or(u8::MAX);
    TcpListener::bind((Ipv4Addr::new(127, block, CLAIM.0, CLAIM.1.saturating_sub(below)), CLAIM.2))
}

/// Ranges outside 127/8 that this network namespace takes for its own while this lives: dropping it takes the routes away.
pub struct LocalRanges {
    routes: Vec<RouteMessage>,
    /// At each range's first address, on the port of [`CLAIM`]: what keeps a second cluster out of it.
    claims: Vec<TcpListener>,
}

/// In a data folder: which block it uses.
const BLOCK_FILE: &str = "address-block";
/// Linux' number of the table of local addresses.
const LOCAL_TABLE: u32 = 255;

impl LocalRanges {
    /// Routes the ranges to the loopback device. An unreachable route comes first, so that no packet to
    /// them ever leaves by the default route, whatever happens to the local one.
    ///
    /// # Errors
    /// The process may not change routes, there is no loopback device, or another cluster uses one of the ranges.
    pub async fn add(ranges: &[Cidr]) -> Result<Self, AddressError> {
        let error = |what: &str, e: &dyn std::fmt::Display| {
            AddressError(format!("{what}: {e} (--pod-cidr and --service-cidr need root)"))
        };
        let handle = netlink().map_err(|e| error("can't open netlink", &e))?;
        let mut links = handle.link().get().match_name("lo".to_owned()).execute();
        let lo = links.try_next().await.map_err(|e| error("can't find the loopback device", &e))?;
        let lo = lo.ok_or_else(|| AddressError("there is no loopback device".to_owned()))?.header.index;
        let mut added = Self { routes: Vec::new(), claims: Vec::new() };
        for range in ranges {
            let route = || RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(range.base, range.prefix);
            let unreachable = route().kind(RouteType::Unreachable).priority(u32::MAX).build();
            let local = route().kind(RouteType::Local).table_id(LOCAL_TABLE).scope(RouteScope::Host);
            let mut found = Vec::new();
            for message in [unreachable, local.output_interface(lo).build()] {
                match handle.route().add(message.clone()).execute().await {
                    // Left there by a cluster that was killed, or in use by one that runs: the claim tells.
                    Err(rtnetlink::Error::NetlinkError(ErrorMessage { code: Some(code), .. }))
                        if code.get() == -EEXIST =>
                    {
                        found.push(message.clone());
                    }
                    Ok(()) => {}
                    Err(e) => return Err(error(&format!("can't route {range} to the loopback device"), &e)),
                }
                added.routes.push(message);
            }
            match TcpListener::bind((range.base, CLAIM.2)) {
                Ok(claim) => added.claims.push(claim),
                Err(e) => {
                    added.routes.retain(|route| !found.contains(route));
                    let message = format!("{range} is in use by another process, most likely another cluster: {e}");
                    return Err(AddressError(message));
                }
            }
        }
        Ok(added)
    }
}

impl Drop for LocalRanges {
    fn drop(&mut self) {
        let routes = std::mem::take(&mut self.routes);
        // On a thread of its own, for a thread that works for a runtime may not wait for another one.
        let removal = std::thread::Builder::new().spawn(move || remove(routes));
        let removed = removal.map(|thread| thread.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())));
        if let Err(error) | Ok(Err(error)) = removed {
            tracing::warn!(%error, "can't remove the routes of --pod-cidr and --service-cidr");
        }
    }
}

/// Takes routes away, the last one first: the local ones before the unreachable ones.
fn remove(routes: Vec<RouteMessage>) -> std::io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let handle = netlink()?;
        for route in routes.into_iter().rev() {
            if let Err(error) = handle.route().del(route).execute().await {
                tracing::warn!(%error, "can't remove a route");
            }
        }
        Ok(())
    })
}

fn netlink() -> std::io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Linux' error number of a route that is there already.
const EEXIST: i32 = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_claimed_once_and_kept() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let first = Addresses::claim(dirs[0].path(), 0, 2, None, None).unwrap();
        let second = Addresses::claim(dirs[1].path(), 0, 2, None, None).unwrap();
        assert!(!first.pods.overlaps(&second.pods) && !first.pods.overlaps(&first.services));
        assert!(first.services.base < first.kubernetes_service());
        let dir = tempfile::tempdir().unwrap();
        Addresses::note(dir.path(), first.block).unwrap();
        let beside = Addresses::claim(dir.path(), 1, 2, None, None).unwrap();
        assert_eq!(
            (beside.pods, beside.node(0)),
            (first.pods, first.nodes.address(17)),
            "another process of the cluster"
        );
        assert_eq!(beside.pods_of(1), first.pods.slash24(18));
        let busy = Addresses::claim(dirs[0].path(), 0, 2, None, None).unwrap_err();
        assert!(busy.to_string().contains("in use"), "{busy}");
        let nodes = first.nodes;
        drop(first);
        assert_eq!(Addresses::claim(dirs[0].path(), 0, 2, None, None).unwrap().nodes, nodes);
        let small = Addresses::claim(dirs[0].path(), 0, 2, Some("10.42.0.0/23".parse().unwrap()), None).unwrap_err();
        assert!(small.to_string().contains("too small"), "{small}");
        std::fs::write(dirs[0].path().join("address-block"), "300").unwrap();
        assert!(Addresses::claim(dirs[0].path(), 0, 2, None, None).is_err());
    }

    #[test]
    fn every_block_is_tried_and_folders_begin_with_different_ones() {
        let folders = ["/a", "/b", "/c", "/d"].map(|folder| blocks(Path::new(folder)).collect::<Vec<_>>());
        for tried in &folders {
            let mut sorted = tried.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, BLOCKS.collect::<Vec<_>>());
        }
        let first: std::collections::BTreeSet<_> = folders.iter().map(|tried| tried[0]).collect();
        assert!(first.len() > 1, "{first:?}");
    }
}
