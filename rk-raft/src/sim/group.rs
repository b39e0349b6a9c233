//! The members of a simulated group, which stop and start, and what is known of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{RngExt, rngs::StdRng};
use rk_store::{Disk, Error, Revision, SegmentEngine, SegmentOptions};

use super::{disk::SimDisk, history::History, network::Network, trace::Trace, watching::Log};
use crate::{MemberDir, MemberDirOptions, MemberId, Membership, RaftOptions, RaftStore, Start};

pub(crate) struct Group {
    pub trace: Trace,
    pub network: Network,
    pub history: History,
    pub log: Log,
    options: BTreeMap<MemberId, RaftOptions>,
    membership: Membership,
    /// Whether records are in files of an engine, or else all in memory.
    engine_on_disk: bool,
    disks: Mutex<BTreeMap<MemberId, SimDisk>>,
    members: Mutex<BTreeMap<MemberId, Arc<RaftStore>>>,
    /// Members that are about to run.
    starting: Mutex<BTreeSet<MemberId>>,
    /// The highest revision of which a compaction was asked for.
    compacted: AtomicU64,
}

impl Group {
    /// A group of `size` members, none of which runs.
    pub(crate) fn new(size: u64, seed: u64, random: &mut StdRng, trace: Trace) -> Arc<Self> {
        let ids: Vec<_> = (1..=size).collect();
        let disks = ids.iter().map(|&id| (id, SimDisk::new(random.random()))).collect();
        let snapshot_entries = random.random_range(20..400);
        let options = ids.iter().map(|&id| {
            let options = RaftOptions {
                seed,
                request_timeout: Duration::from_millis(2500),
                snapshot_entries,
                // No two clocks run alike.
                tick: Duration::from_millis(random.random_range(40..60)),
                ..RaftOptions::default()
            };
            (id, options)
        });
        let options = options.collect();
        Arc::new(Self {
            network: Network::new(random.random(), trace.clone()),
            history: History::default(),
            log: Log::default(),
            options,
            membership: Membership::numbered(&ids),
            engine_on_disk: random.random_bool(0.5),
            disks: Mutex::new(disks),
            members: Mutex::default(),
            starting: Mutex::default(),
            compacted: AtomicU64::new(0),
            trace,
        })
    }

    /// The members there are.
    pub(crate) fn ids(&self) -> Vec<MemberId> {
        self.options.keys().copied().collect()
    }

    /// Whether a member runs.
    pub(crate) fn runs(&self, id: MemberId) -> bool {
        self.members.lock().contains_key(&id)
    }

    /// A member that runs.
    pub(crate) fn member(&self, id: MemberId) -> Option<Arc<RaftStore>> {
        self.members.lock().get(&id).cloned()
    }

    /// Any member that runs.
    pub(crate) fn any(&self, random: &mut StdRng) -> Option<Arc<RaftStore>> {
        let members = self.members.lock();
        let at = random.random_range(0..members.len().max(1));
        members.values().nth(at).cloned()
    }

    /// Starts a member on what its disk holds, unless it runs or is about to.
    pub(crate) async fn start(&self, id: MemberId) {
        if self.runs(id) || !self.starting.lock().insert(id) {
            return;
        }
        loop {
            let disk = self.disk(id);
            match self.try_start(id, disk.clone()).await {
                Ok(store) => {
                    tokio::spawn(self.log.clone().follow(store.clone(), self.trace.clone()));
                    self.members.lock().insert(id, store);
                    self.trace.tell(|| format!("member {id} starts"));
                    break;
                }
                Err(error) if disk.is_impaired() => {
                    self.trace.tell(|| format!("member {id} can't start on its disk: {error}"));
                    self.disks.lock().insert(id, disk.cut_power());
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                Err(error) => {
                    self.trace.violation(format!("member {id} does not start: {error}"));
                    break;
                }
            }
        }
        self.starting.lock().remove(&id);
    }

    async fn try_start(&self, id: MemberId, disk: SimDisk) -> Result<Arc<RaftStore>, Error> {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        // Small segments, so that a run has several of them.
        let mut options =
            MemberDirOptions { disk: disk.clone(), segment_bytes: 16 << 10, ..MemberDirOptions::default() };
        if self.engine_on_disk {
            options.engine = Arc::new(move |dir, _| {
                Ok(Arc::new(SegmentEngine::open(dir, disk.clone(), SegmentOptions::default())?))
            });
        }
        let dir = MemberDir::open("member", options).await?;
        if dir.identity().is_none() {
            dir.bootstrap(id, self.membership.clone(), None).await?;
        }
        let packets = self.network.connect(id);
        let transport = Arc::new(self.network.clone());
        let start = Start { id, log: Box::new(dir.clone()), states: Arc::new(dir), transport, packets };
        Ok(Arc::new(RaftStore::start(start, self.options[&id].clone()).await?))
    }

    /// A member's disk.
    pub(crate) fn disk(&self, id: MemberId) -> SimDisk {
        self.disks.lock()[&id].clone()
    }

    /// Stops a member as a power cut would.
    pub(crate) fn crash(&self, id: MemberId) {
        if let Some(member) = self.members.lock().remove(&id) {
            self.network.disconnect(id);
            let disk = self.disk(id).cut_power();
            self.disks.lock().insert(id, disk);
            member.stop();
            self.trace.tell(|| format!("member {id} crashes"));
        }
    }

    pub(crate) fn note_compaction(&self, revision: Revision) {
        self.compacted.fetch_max(revision, Ordering::Relaxed);
    }

    /// The highest revision of which a compaction was asked for.
    pub(crate) fn compacted(&self) -> Revision {
        self.compacted.load(Ordering::Relaxed)
    }
}
