//! What members of a raft group send each other, damaged on its way: a group that works, changes its members and brings up those that
//! were away is sent changed copies of all that its members say, of every kind.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rk_raft::{Lane, LocalNetwork, MemoryLog, Packet, RaftOptions, RaftStore, Start, Transport};
use rk_store::{Cluster, MemberId, Store};
use tokio::time::{sleep, timeout};

use crate::{
    mutate::{Random, mutate},
    protobuf::mutate_message,
};

/// Delivers each packet, and sometimes a changed copy of it before or after.
struct Mutating {
    network: LocalNetwork,
    random: Mutex<Random>,
    /// Whether copies are made.
    active: Arc<AtomicBool>,
}

/// The kind of a packet, its first byte, that is a message of raft; all others have a form of rk-raft's own.
const RAFT: u8 = 0;

impl Transport for Mutating {
    fn send(&self, packet: Packet) {
        let mut random = self.random.lock().expect("nobody panics with it");
        let often = if packet.lane == Lane::Bulk { 2 } else { 6 };
        let changed = (self.active.load(Ordering::Relaxed) && random.below(often) == 0).then(|| {
            let mut payload = packet.payload.to_vec();
            if payload.first() == Some(&RAFT) && random.below(8) > 0 {
                let mut message = payload.split_off(1);
                mutate_message(&mut message, &mut random);
                payload.extend(message);
            } else {
                mutate(&mut payload, random.below(2), &mut random);
            }
            Packet { payload: payload.into(), ..packet.clone() }
        });
        match changed {
            Some(changed) if random.below(2) == 0 => {
                self.network.send(changed);
                self.network.send(packet);
            }
            changed => {
                self.network.send(packet);
                changed.into_iter().for_each(|changed| self.network.send(changed));
            }
        }
    }
}

struct Group {
    network: LocalNetwork,
    active: Arc<AtomicBool>,
    seed: u64,
}

impl Group {
    async fn start(&self, id: MemberId, log: &MemoryLog) -> Option<Arc<RaftStore>> {
        let random = Mutex::new(Random::new(self.seed ^ id));
        let transport = Mutating { network: self.network.clone(), random, active: self.active.clone() };
        let packets = self.network.connect(id);
        let states = Arc::new(log.clone());
        let start = Start { id, log: Box::new(log.clone()), states, transport: Arc::new(transport), packets };
        let mut options = RaftOptions::default();
        (options.seed, options.snapshot_entries, options.catch_up_entries) = (self.seed, 15, 5);
        // What a group was told by damaged messages may be such that a member can't go on from it, and it says so.
        RaftStore::start(start, options).await.ok().map(Arc::new)
    }
}

/// Whether the group still works in the end. Damaged messages may well cost it that: members trust each other.
pub async fn peer(random: &mut Random) -> bool {
    let seed = random.next();
    let group = Group { network: LocalNetwork::new(seed), active: Arc::default(), seed };
    let ids = [1, 2, 3];
    let logs = ids.map(|_| MemoryLog::new(&ids));
    let mut members = Vec::new();
    for (id, log) in ids.into_iter().zip(&logs) {
        members.extend(group.start(id, log).await);
    }
    sleep(Duration::from_secs(2)).await;
    group.active.store(true, Ordering::Relaxed);
    // One is away for a while and needs the state then.
    let away = random.below(3);
    members[away].stop();
    let short = Duration::from_millis(300);
    let asked = &members[(away + 1) % 3];
    for i in 0..25 {
        let _answer = timeout(short, asked.put(format!("{i}").into(), "x".into())).await;
    }
    members[away] = match group.start(ids[away], &logs[away]).await {
        Some(member) => member,
        None => return false,
    };
    let member = &members[random.below(3)];
    let added = timeout(short, member.member_add(vec!["http://127.0.0.1:1".into()], true)).await;
    let mut joined = None;
    if let Ok(Ok((added, _))) = added {
        joined = group.start(added.id, &MemoryLog::default()).await;
        let _published = timeout(short, member.publish("late", &[])).await;
    }
    let work = members.iter().map(|member| async move {
        for i in 0..6 {
            let _answer = timeout(short, member.put(format!("{i}").into(), "y".into())).await;
            let _answer = timeout(short, member.lease_grant(i, 2)).await;
            let _answer = timeout(short, member.lease_keep_alive(i)).await;
            let _answer = timeout(short, member.get("1".into())).await;
        }
    });
    futures::future::join_all(work).await;
    if let Some(joined) = &joined {
        let _answer = timeout(short, member.member_promote(joined.id())).await;
        let _answer = timeout(short, joined.get("1".into())).await;
        let _answer = timeout(short, member.member_remove(joined.id())).await;
    }
    group.active.store(false, Ordering::Relaxed);
    matches!(timeout(Duration::from_secs(5), member.put("last".into(), "z".into())).await, Ok(Ok(_)))
}
