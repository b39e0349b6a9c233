//! Members that are sent what no sound peer sends: they must not panic.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use protobuf::Message as _;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_raft::{
    LocalNetwork, MemoryLog, Packet, RaftOptions, RaftStore, Start, Transport,
    eraftpb::{Message, MessageType},
};
use rk_store::Store;
use tokio::time::timeout;

/// Sends each packet, and now and then a changed copy of it too.
struct Mutating {
    network: LocalNetwork,
    random: Mutex<StdRng>,
}

impl Transport for Mutating {
    fn send(&self, packet: Packet) {
        let changed = {
            let mut random = self.random.lock().unwrap();
            random.random_bool(0.1).then(|| mutated(&packet, &mut random))
        };
        self.network.send(packet);
        changed.into_iter().for_each(|packet| self.network.send(packet));
    }
}

/// A number near another one, or at one of the ends.
fn near(number: u64, random: &mut StdRng) -> u64 {
    match random.random_range(0..6) {
        0 => 0,
        1 => u64::MAX - random.random_range(0..2),
        2 => random.random(),
        3 => number.wrapping_sub(random.random_range(0..5)),
        _ => number.wrapping_add(random.random_range(0..5)),
    }
}

fn mutated(packet: &Packet, random: &mut StdRng) -> Packet {
    let mut bytes = packet.payload.to_vec();
    // The first byte is the kind; 0 is a message of raft.
    let parsed = (bytes.first() == Some(&0)).then(|| Message::parse_from_bytes(&bytes[1..]).ok()).flatten();
    match parsed {
        Some(mut message) if random.random_bool(0.8) => {
            for _ in 0..random.random_range(1..4) {
                mutate(&mut message, random);
            }
            bytes.truncate(1);
            message.write_to_vec(&mut bytes).unwrap();
        }
        _ if random.random_bool(0.2) => bytes = (0..random.random_range(0..60)).map(|_| random.random()).collect(),
        _ => {
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            bytes.truncate(random.random_range(bytes.len() / 2..=bytes.len()));
        }
    }
    Packet { payload: bytes.into(), ..packet.clone() }
}

fn mutate(message: &mut Message, random: &mut StdRng) {
    match random.random_range(0..12) {
        0 => message.set_msg_type(*random_of(&MessageType::values_all(), random)),
        1 => message.term = near(message.term, random),
        2 => message.index = near(message.index, random),
        3 => message.log_term = near(message.log_term, random),
        4 => message.commit = near(message.commit, random),
        5 => message.commit_term = near(message.commit_term, random),
        6 => message.reject = !message.reject,
        7 => message.reject_hint = near(message.reject_hint, random),
        8 => message.request_snapshot = near(message.request_snapshot, random),
        9 => message.from = random.random_range(0..5),
        10 => {
            if let Some(entry) = message.mut_entries().iter_mut().next() {
                match random.random_range(0..3) {
                    0 => entry.index = near(entry.index, random),
                    1 => entry.term = near(entry.term, random),
                    _ => entry.data = vec![random.random(); 5].into(),
                }
            }
        }
        _ => {
            let entries = message.mut_entries();
            if random.random_bool(0.5) {
                entries.clear();
            } else if let Some(entry) = entries.first().cloned() {
                entries.push(entry);
            }
        }
    }
}

fn random_of<'a, T>(all: &'a [T], random: &mut StdRng) -> &'a T {
    &all[random.random_range(0..all.len())]
}

trait Values: Sized {
    fn values_all() -> Vec<Self>;
}

impl Values for MessageType {
    fn values_all() -> Vec<Self> {
        use protobuf::ProtobufEnum;
        (0..32).filter_map(Self::from_i32).collect()
    }
}

async fn disturbed(seed: u64) {
    let network = LocalNetwork::new(seed);
    let ids = [1, 2, 3];
    let mut members = Vec::new();
    for id in ids {
        let transport =
            Mutating { network: network.clone(), random: Mutex::new(StdRng::seed_from_u64(seed * 10 + id)) };
        let log = MemoryLog::new(&ids);
        let packets = network.connect(id);
        let states = Arc::new(log.clone());
        let start = Start { id, log: Box::new(log), states, transport: Arc::new(transport), packets };
        let mut options = RaftOptions::default();
        (options.seed, options.snapshot_entries, options.catch_up_entries) = (seed, 20, 10);
        members.push(Arc::new(RaftStore::start(start, options).await.unwrap()));
    }
    let work = members.into_iter().map(|member| async move {
        for i in 0..60 {
            // Whether it succeeds is not the question: wrong messages may cost the group its leader or its agreement.
            let _answer = timeout(Duration::from_millis(300), member.put(format!("{i}").into(), "x".into())).await;
        }
    });
    futures::future::join_all(work).await;
}

#[test]
fn no_message_makes_a_member_panic() {
    let panics = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = panics.clone();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        noted.lock().unwrap().insert(panic.to_string());
    }));
    for seed in 0..150 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(disturbed(seed));
    }
    std::panic::set_hook(usual);
    let panics = panics.lock().unwrap();
    assert!(panics.is_empty(), "{} different panics: {panics:#?}", panics.len());
}
