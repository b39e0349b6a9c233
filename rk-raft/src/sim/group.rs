//! The members of a simulated group, which stop and start, and what is known of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{RngExt, rngs::StdRng};
use rk_store::{Error, Revision};

use super::{history::History, network::Network, trace::Trace, watching::Log};
use crate::{MemberId, MemoryLog, RaftOptions, RaftStore, Start};

pub(crate) struct Group {
    pub trace: Trace,
    pub network: Network,
    pub history: History,
    pub log: Log,
    options: BTreeMap<MemberId, RaftOptions>,
    disks: Mutex<BTreeMap<MemberId, MemoryLog>>,
    members: Mutex<BTreeMap<MemberId, Arc<RaftStore>>>,
    /// The highest revision of which a compaction was asked for.
    compacted: AtomicU64,
}

impl Group {
    /// A group of `size` members, none of which runs.
    pub(crate) fn new(size: u64, seed: u64, random: &mut StdRng, trace: Trace) -> Arc<Self> {
        let ids: Vec<_> = (1..=size).collect();
        let disks = ids.iter().map(|&id| (id, MemoryLog::new(&ids))).collect();
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
            disks: Mutex::new(disks),
            members: Mutex::default(),
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

    /// Starts a member on what its disk holds.
    pub(crate) async fn start(&self, id: MemberId) -> Result<(), Error> {
        let log = self.disks.lock()[&id].clone();
        let packets = self.network.connect(id);
        let options = self.options[&id].clone();
        let transport = Arc::new(self.network.clone());
        let start = Start { id, log: Box::new(log.clone()), states: Arc::new(log), transport, packets };
        let store = Arc::new(RaftStore::start(start, options).await?);
        tokio::spawn(self.log.clone().follow(store.clone(), self.trace.clone()));
        self.members.lock().insert(id, store);
        self.trace.tell(|| format!("member {id} starts"));
        Ok(())
    }

    /// Stops a member as a power cut would.
    pub(crate) fn crash(&self, id: MemberId) {
        if let Some(member) = self.members.lock().remove(&id) {
            self.network.disconnect(id);
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
