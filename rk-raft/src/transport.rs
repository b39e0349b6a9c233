//! How members reach each other.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_store::Traffic;
use tokio::sync::mpsc;

use crate::{MemberId, Membership};

/// What one member sends another.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Who sends it.
    pub from: MemberId,
    /// Whom it is for.
    pub to: MemberId,
    /// Which packets it may overtake.
    pub lane: Lane,
    /// What it says, in a form that only members read.
    pub payload: Bytes,
}

/// What kind of packet it is: those of one kind should not wait for those of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Messages of raft, which are small and urgent.
    Raft,
    /// Parts of a state for a member that lacks it: large, many, and of no hurry.
    Bulk,
}

/// Carries packets to other members. Packets may get lost and may overtake each other, but each comes at most once.
pub trait Transport: Send + Sync + 'static {
    /// Sends a packet without waiting. What can't be sent now is dropped: raft sends again.
    fn send(&self, packet: Packet);

    /// Says who belongs to the group and where they are reached: first when the member starts, then with each change.
    fn set_members(&self, members: &Membership) {
        let _ = members;
    }

    /// What went to and came from each other member, if it is counted.
    fn traffic(&self) -> Vec<Traffic> {
        Vec::new()
    }
}

/// Packets that wait for a member before more are dropped.
const INBOX: usize = 4096;

/// A network inside one process, whose links can be cut and made lossy. Clones are handles of one network.
#[derive(Debug, Clone)]
pub struct LocalNetwork {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    inboxes: HashMap<MemberId, mpsc::Sender<Packet>>,
    isolated: HashSet<MemberId>,
    loss: f64,
    random: StdRng,
}

impl LocalNetwork {
    /// A network without members; `seed` decides which packets a lossy network loses.
    pub fn new(seed: u64) -> Self {
        let state =
            State { inboxes: HashMap::new(), isolated: HashSet::new(), loss: 0.0, random: StdRng::seed_from_u64(seed) };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Connects a member, in the place of one that had this number before; what is sent to it arrives here.
    pub fn connect(&self, id: MemberId) -> mpsc::Receiver<Packet> {
        let (inbox, packets) = mpsc::channel(INBOX);
        self.state.lock().inboxes.insert(id, inbox);
        packets
    }

    /// Cuts a member off from all others.
    pub fn isolate(&self, id: MemberId) {
        self.state.lock().isolated.insert(id);
    }

    /// Mends all cuts.
    pub fn heal(&self) {
        self.state.lock().isolated.clear();
    }

    /// Loses this share of all packets, from 0 to 1.
    pub fn set_loss(&self, share: f64) {
        self.state.lock().loss = share.clamp(0.0, 1.0);
    }
}

impl Transport for LocalNetwork {
    fn send(&self, packet: Packet) {
        let mut state = self.state.lock();
        let loss = state.loss;
        if state.isolated.contains(&packet.from)
            || state.isolated.contains(&packet.to)
            || (loss > 0.0 && state.random.random_bool(loss))
        {
            return;
        }
        if let Some(inbox) = state.inboxes.get(&packet.to)
            && let Err(error) = inbox.try_send(packet)
        {
            tracing::trace!(%error, "a packet was dropped");
        }
    }
}
