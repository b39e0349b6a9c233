//! A follower that is slow and heard of gets the entries that it lacks; one that is too far behind gets the state.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use rk_raft::{
    Checkpoints, Incoming, LocalNetwork, MemberId, MemoryLog, Packet, Point, RaftOptions, RaftStore, Start, Transport,
};
use rk_store::{Error, Machine, SnapshotGuard, SnapshotHead, Store};
use tokio::time::timeout;

const SLOW: MemberId = 3;
/// More than a message without entries has.
const SMALL: usize = 150;

/// A network that carries only small packets to one member, while it is slow.
struct Network {
    network: LocalNetwork,
    is_slow: AtomicBool,
}

impl Transport for Network {
    fn send(&self, packet: Packet) {
        if !(self.is_slow.load(Relaxed) && packet.to == SLOW && packet.payload.len() > SMALL) {
            self.network.send(packet);
        }
    }
}

/// States that count how many come from elsewhere.
struct Counted {
    states: MemoryLog,
    received: AtomicUsize,
}

#[async_trait]
impl Checkpoints for Counted {
    async fn load(&self) -> Result<Option<(Point, Machine)>, Error> {
        self.states.load().await
    }

    async fn empty(&self) -> Result<Machine, Error> {
        self.states.empty().await
    }

    async fn save(&self, point: Point, state: SnapshotGuard, thorough: bool) -> Result<(), Error> {
        self.states.save(point, state, thorough).await
    }

    async fn receive(&self, point: Point, head: SnapshotHead) -> Result<Box<dyn Incoming>, Error> {
        self.received.fetch_add(1, Relaxed);
        self.states.receive(point, head).await
    }

    fn size(&self) -> u64 {
        self.states.size()
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_follower_catches_up_by_the_log_as_far_as_it_is_kept_for_it() {
    let network = Arc::new(Network { network: LocalNetwork::new(1), is_slow: AtomicBool::new(false) });
    let mut options = RaftOptions::default();
    // For a follower that is heard of, four times as many are kept.
    (options.snapshot_entries, options.catch_up_entries) = (100, 50);
    let (mut members, mut states) = (Vec::new(), Vec::new());
    for id in 1..=3 {
        let log = MemoryLog::new(&[1, 2, 3]);
        let counted = Arc::new(Counted { states: log.clone(), received: AtomicUsize::new(0) });
        let (packets, transport) = (network.network.connect(id), network.clone());
        let start = Start { id, log: Box::new(log), states: counted.clone(), transport, packets };
        members.push(RaftStore::start(start, options.clone()).await.unwrap());
        states.push(counted);
    }
    let asked = &members[0];
    let value = "x".repeat(2 * SMALL);
    asked.put("key".into(), "0".into()).await.unwrap();
    if asked.leader() == Some(SLOW) {
        rk_store::Cluster::move_leader(&members[2], 1).await.unwrap();
    }
    let mut count = 0;
    for (entries, states_sent) in [(160, 0), (500, 1)] {
        network.is_slow.store(true, Relaxed);
        for _ in 0..entries {
            count += 1;
            asked.put("key".into(), format!("{count} {value}").into()).await.unwrap();
            // As time goes on, the follower is heard of again and again.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(states[2].received.load(Relaxed), 0, "it gets nothing for now");
        network.is_slow.store(false, Relaxed);
        let found = timeout(Duration::from_secs(30), members[2].get("key".into())).await.unwrap().unwrap().unwrap();
        assert_eq!(found.value, format!("{count} {value}"));
        assert_eq!(states[2].received.load(Relaxed), states_sent, "after {entries} entries");
    }
}
