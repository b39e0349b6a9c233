//! A network that delays, overtakes, doubles and loses packets and whose links can be cut in each direction alone.
//!
//! It reads along: whoever sends what only leaders send leads in that term, and there may be one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use raft::eraftpb::MessageType;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::mpsc;

use super::trace::Trace;
use crate::{MemberId, Packet, Transport, message::Message};

/// How well links work.
#[derive(Debug, Clone)]
pub(crate) struct Quality {
    /// The share of packets that are lost.
    pub loss: f64,
    /// The share that comes twice.
    pub doubled: f64,
    /// Milliseconds under way.
    pub delay: Range<u64>,
}

impl Default for Quality {
    fn default() -> Self {
        Self { loss: 0.0, doubled: 0.0, delay: 1..4 }
    }
}

/// Clones are handles of one network.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    inboxes: BTreeMap<MemberId, mpsc::Sender<Packet>>,
    /// Links that carry nothing, from and to.
    cut: BTreeSet<(MemberId, MemberId)>,
    quality: Quality,
    random: StdRng,
    leaders: BTreeMap<u64, MemberId>,
    trace: Trace,
}

/// Packets that wait for a member before more are dropped.
const INBOX: usize = 4096;

impl Network {
    pub(crate) fn new(seed: u64, trace: Trace) -> Self {
        let state = State {
            inboxes: BTreeMap::new(),
            cut: BTreeSet::new(),
            quality: Quality::default(),
            random: StdRng::seed_from_u64(seed),
            leaders: BTreeMap::new(),
            trace,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Connects a member, in the place of its earlier life.
    pub(crate) fn connect(&self, id: MemberId) -> mpsc::Receiver<Packet> {
        let (inbox, packets) = mpsc::channel(INBOX);
        self.state.lock().inboxes.insert(id, inbox);
        packets
    }

    pub(crate) fn disconnect(&self, id: MemberId) {
        self.state.lock().inboxes.remove(&id);
    }

    /// Cuts these links and no others.
    pub(crate) fn cut(&self, links: BTreeSet<(MemberId, MemberId)>) {
        self.state.lock().cut = links;
    }

    pub(crate) fn set_quality(&self, quality: Quality) {
        self.state.lock().quality = quality;
    }

    fn deliver(&self, packet: Packet) {
        let state = self.state.lock();
        if state.cut.contains(&(packet.from, packet.to)) {
            return;
        }
        state.trace.note((packet.from, packet.to, &packet.payload));
        if let Some(inbox) = state.inboxes.get(&packet.to)
            && let Err(error) = inbox.try_send(packet)
        {
            tracing::trace!(%error, "a packet was dropped");
        }
    }
}

impl State {
    fn read(&mut self, packet: &Packet) {
        let Some(Message::Raft(message)) = Message::decode(packet.payload.clone()) else { return };
        if !matches!(message.get_msg_type(), MessageType::MsgAppend | MessageType::MsgHeartbeat) {
            return;
        }
        let leader = *self.leaders.entry(message.term).or_insert(packet.from);
        if leader != packet.from {
            self.trace.violation(format!("members {leader} and {} both lead in term {}", packet.from, message.term));
        }
    }
}

impl Transport for Network {
    fn send(&self, packet: Packet) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.read(&packet);
        if state.cut.contains(&(packet.from, packet.to)) || state.random.random_bool(state.quality.loss) {
            return;
        }
        let copies = 1 + usize::from(state.random.random_bool(state.quality.doubled));
        for _ in 0..copies {
            let delay = Duration::from_millis(state.random.random_range(state.quality.delay.clone()));
            let (network, packet) = (self.clone(), packet.clone());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                network.deliver(packet);
            });
        }
    }
}
