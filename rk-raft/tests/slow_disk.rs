//! A disk that takes very long holds up the answers of its own member only: the raft loop goes on beside it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use rk_raft::{
    Batch, LocalNetwork, MemberId, MemoryLog, RaftLog, RaftOptions, RaftStore, Recovered, Start, eraftpb::HardState,
};
use rk_store::{Cluster, Error, Store};
use tokio::time::{sleep, timeout};

/// A log whose writes hang for as long as it is told.
struct Slow {
    log: MemoryLog,
    hangs: Arc<AtomicBool>,
}

#[async_trait]
impl RaftLog for Slow {
    async fn load(&mut self) -> Result<Recovered, Error> {
        RaftLog::load(&mut self.log).await
    }

    async fn write(&mut self, batch: Batch) -> Result<(), Error> {
        while self.hangs.load(Relaxed) {
            sleep(Duration::from_millis(10)).await;
        }
        self.log.write(batch).await
    }

    async fn drop_to(&mut self, index: u64) -> Result<(), Error> {
        self.log.drop_to(index).await
    }

    async fn reset(&mut self, index: u64, state: HardState) -> Result<(), Error> {
        self.log.reset(index, state).await
    }

    fn size(&self) -> u64 {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_disk_hangs_leads_on_and_the_others_serve() {
    let (network, ids): (_, [MemberId; 3]) = (LocalNetwork::new(1), [1, 2, 3]);
    let (mut members, mut hangs) = (Vec::new(), Vec::new());
    for id in ids {
        let (log, hanging) = (MemoryLog::new(&ids), Arc::new(AtomicBool::new(false)));
        let states = Arc::new(log.clone());
        let log = Box::new(Slow { log, hangs: hanging.clone() });
        let (packets, transport) = (network.connect(id), Arc::new(network.clone()));
        let start = Start { id, log, states, transport, packets };
        members.push(RaftStore::start(start, RaftOptions::default()).await.unwrap());
        hangs.push(hanging);
    }
    members[0].put("key".into(), "0".into()).await.unwrap();
    let leads = ids.iter().position(|id| members[0].leader() == Some(*id)).unwrap();
    let (leader, other, third) = (&members[leads], (leads + 1) % 3, &members[(leads + 2) % 3]);
    let term = leader.term();
    hangs[leads].store(true, Relaxed);
    let own = leader.put("own".into(), "1".into());
    tokio::pin!(own);
    assert!(timeout(Duration::from_secs(1), &mut own).await.is_err(), "what it has not written it does not answer");
    // The others write what it sends them, and that is a majority.
    for i in 1..=20 {
        timeout(Duration::from_secs(1), third.put("key".into(), format!("{i}").into())).await.unwrap().unwrap();
    }
    assert_eq!(members[other].get("key".into()).await.unwrap().unwrap().value, "20");
    // Longer than anyone waits for a leader that says nothing.
    sleep(Duration::from_secs(4)).await;
    assert_eq!((third.leader(), third.term()), (Some(ids[leads]), term));
    // With another such disk nothing is acknowledged that a power cut could take.
    hangs[other].store(true, Relaxed);
    let put = third.put("key".into(), "21".into());
    tokio::pin!(put);
    assert!(timeout(Duration::from_secs(1), &mut put).await.is_err());
    hangs[other].store(false, Relaxed);
    timeout(Duration::from_secs(1), put).await.unwrap().unwrap();
    hangs[leads].store(false, Relaxed);
    timeout(Duration::from_secs(1), own).await.unwrap().unwrap();
    for member in &members {
        assert_eq!(member.get("key".into()).await.unwrap().unwrap().value, "21");
    }
}
