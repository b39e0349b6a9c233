//! States: for members that need entries from before the log, from the leader, and to be started from.

use std::time::Duration;

use raft::{SnapshotStatus, eraftpb};
use rk_store::{Error, SnapshotGuard};
use tokio::{sync::mpsc, task::AbortHandle, time::Instant};

use super::{Event, Node, Received, Write, failed};
use crate::{
    MemberId, Packet, RaftOptions,
    applier::Apply,
    guard::{self, Verdict},
    log::{Batch, Point},
    message::{Arrival, Chunk, Message},
    proposals::answer,
    transfer::{self, Outgoing},
    transport::Lane,
};

/// Entries after which the log in memory is made shorter.
const TRIM: u64 = 100;

/// Time from a state that could not be saved to the next try: a full disk, or a state that arrives, takes a while.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// A state for a member that lacks it.
pub(crate) struct Sending {
    /// Entries behind it stay.
    point: Point,
    since: Instant,
    stage: Stage,
}

enum Stage {
    /// The applier was asked for it.
    Asked,
    /// Raft is to say when it wants it.
    Ready(SnapshotGuard),
    /// On its way.
    Under { transfer: u64, acks: mpsc::UnboundedSender<(u64, Arrival)>, task: AbortHandle },
}

/// A state that is coming.
pub(crate) struct Receiving {
    from: MemberId,
    transfer: u64,
    chunks: mpsc::Sender<Chunk>,
    task: AbortHandle,
}

/// Says that all of a state has arrived.
fn done(transfer: u64) -> Message {
    Message::ChunkAck { transfer, next: u64::MAX, state: Arrival::Done }
}

impl Node {
    /// Has states made ready for members that need one.
    pub(super) fn prepare_states(&mut self) {
        for to in self.raft.store().take_wanted() {
            if !self.sending.contains_key(&to) && self.leads() {
                let point = self.point();
                self.tell_applier(Apply::Snapshot(Some(to), point.clone()));
                self.sending.insert(to, Sending { point, since: self.options.clock.now(), stage: Stage::Asked });
            }
        }
    }

    /// Where the applier stands once it has done what it was given.
    fn point(&self) -> Point {
        Point { index: self.dispatched, term: self.dispatched_term, membership: self.membership.clone() }
    }

    pub(super) fn state_prepared(&mut self, to: MemberId, point: Point, state: SnapshotGuard) {
        match self.sending.get_mut(&to) {
            Some(sending) if sending.point == point && matches!(sending.stage, Stage::Asked) => {
                sending.stage = Stage::Ready(state);
                self.raft.store().set_ready(to, Some(point));
                // Raft would ask again with the next heartbeat.
                if self.leads() && self.raft.raft.prs().get(to).is_some() {
                    self.raft.raft.send_append(to);
                }
            }
            _ => {}
        }
    }

    /// Raft says that a member is to get the state that was made ready for it.
    pub(super) fn send_state(&mut self, message: eraftpb::Message) {
        let (to, index) = (message.to, message.get_snapshot().get_metadata().index);
        let number = self.number();
        let patience = self.patience();
        let sending = self.sending.get_mut(&to).filter(|sending| sending.point.index == index);
        let Some(sending) = sending else {
            // It was dropped since: raft is told, or it would wait for ever.
            return self.raft.report_snapshot(to, SnapshotStatus::Failure);
        };
        let (acks, arrivals) = mpsc::unbounded_channel();
        let Stage::Ready(state) = std::mem::replace(&mut sending.stage, Stage::Asked) else {
            self.sending.remove(&to);
            return self.raft.report_snapshot(to, SnapshotStatus::Failure);
        };
        let outgoing = Outgoing { transfer: number, message, point: sending.point.clone(), state, patience };
        let (transport, events, from) = (self.transport.clone(), self.events.clone(), self.id);
        let task = self.tasks.spawn(async move {
            let send = move |chunk| match Message::Chunk(chunk).encode() {
                Ok(payload) => transport.send(Packet { from, to, lane: Lane::Bulk, payload }),
                Err(error) => tracing::error!(member = from, to, %error, "a chunk could not be encoded"),
            };
            let result = transfer::send(outgoing, send, arrivals).await;
            if let Err(error) = &result {
                tracing::info!(member = from, to, %error, "a state was not sent");
            }
            let _stopped = events.send(Event::Sent { to, transfer: number, whole: result.is_ok() });
        });
        sending.stage = Stage::Under { transfer: number, acks, task };
    }

    pub(super) fn chunk_acknowledged(&mut self, from: MemberId, number: u64, next: u64, state: Arrival) {
        if let Some(Sending { stage: Stage::Under { transfer, acks, .. }, .. }) = self.sending.get(&from)
            && *transfer == number
        {
            // It may have ended meanwhile.
            let _ended = acks.send((next, state));
        }
    }

    pub(super) fn state_sent(&mut self, to: MemberId, number: u64, whole: bool) {
        match self.sending.get(&to) {
            Some(Sending { stage: Stage::Under { transfer, .. }, .. }) if *transfer == number => {}
            _ => return,
        }
        self.forget_state(to);
        let status = if whole { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raft.report_snapshot(to, status);
    }

    fn forget_state(&mut self, to: MemberId) {
        self.raft.store().set_ready(to, None);
        if let Some(Sending { stage: Stage::Under { task, .. }, .. }) = self.sending.remove(&to) {
            task.abort();
        }
    }

    /// States are the leader's to send.
    pub(super) fn stop_sending_states(&mut self) {
        let all: Vec<_> = self.sending.keys().copied().collect();
        all.into_iter().for_each(|to| self.forget_state(to));
    }

    /// Drops states that raft did not want after all, as the member has caught up or is gone.
    pub(super) fn forget_unsent_states(&mut self, before: Instant) {
        let members = &self.membership.members;
        let unwanted = |(to, sending): (&MemberId, &Sending)| {
            let waits = !matches!(sending.stage, Stage::Under { .. });
            ((waits && sending.since < before) || !members.contains_key(to)).then_some(*to)
        };
        let unwanted: Vec<_> = self.sending.iter().filter_map(unwanted).collect();
        unwanted.into_iter().for_each(|to| self.forget_state(to));
    }

    /// Takes a part of a state from the leader.
    pub(super) fn take_chunk(&mut self, from: MemberId, chunk: Chunk) {
        if self.arrived == Some((from, chunk.transfer)) {
            // The sender has not heard of it.
            return self.send(from, &done(chunk.transfer));
        }
        let current = self.receiving.as_ref().is_some_and(|r| (r.from, r.transfer) == (from, chunk.transfer));
        if !current {
            let newer = self.receiving.as_ref().is_none_or(|r| r.from != from || chunk.transfer > r.transfer);
            if chunk.number != 0 || !newer || self.received.as_ref().is_some_and(|r| r.transfer == chunk.transfer) {
                // Of a transfer that this member knows nothing of any more, or one that was overtaken.
                let refused = Message::ChunkAck { transfer: chunk.transfer, next: 0, state: Arrival::Refused };
                return self.send(from, &refused);
            }
            self.begin_receiving(from, chunk.transfer);
        }
        if let Some(receiving) = &self.receiving
            && receiving.chunks.try_send(chunk).is_err()
        {
            tracing::trace!(member = self.id, "a chunk comes again later");
        }
    }

    fn begin_receiving(&mut self, from: MemberId, transfer: u64) {
        if let Some(old) = self.receiving.take() {
            old.task.abort();
        }
        let (chunks, inbox) = mpsc::channel(transfer::INBOX);
        let (transport, events, states, id) =
            (self.transport.clone(), self.events.clone(), self.states.clone(), self.id);
        let task = self.tasks.spawn(async move {
            let acknowledge = move |next, state| {
                let ack = Message::ChunkAck { transfer, next, state };
                if let Ok(payload) = ack.encode() {
                    transport.send(Packet { from: id, to: from, lane: Lane::Raft, payload });
                }
            };
            match transfer::receive(from, transfer, states, inbox, &acknowledge).await {
                Ok(received) => {
                    let _stopped = events.send(Event::Received(Box::new(received)));
                }
                Err(error) => {
                    tracing::warn!(member = id, from, %error, "a state could not be taken");
                    acknowledge(0, Arrival::Refused);
                }
            }
        });
        self.receiving = Some(Receiving { from, transfer, chunks, task });
    }

    /// All of a state is here: raft decides whether it is taken.
    pub(super) fn state_received(&mut self, received: Box<Received>) -> Result<(), Error> {
        let (from, transfer) = (received.message.from, received.transfer);
        if self.receiving.as_ref().is_some_and(|receiving| receiving.transfer == transfer) {
            self.receiving = None;
        }
        self.arrived = Some((from, transfer));
        self.send(from, &done(transfer));
        let message = received.message.clone();
        if let Verdict::Drop(reason) = guard::check_state(&self.raft, &message) {
            tracing::warn!(member = self.id, from, reason, "a state was dropped");
            return Ok(());
        }
        self.received = Some(received);
        if let Err(error) = self.raft.step(message) {
            tracing::debug!(member = self.id, %error, "a state was not taken");
        }
        self.draw_election_timeout();
        if self.raft.snap().is_none() {
            // It came too late.
            self.received = None;
        }
        Ok(())
    }

    /// Puts a state that raft has taken in the place of the log and the replica.
    pub(super) fn install(&mut self, number: u64, index: u64, batch: Batch) -> Result<Write, Error> {
        let received = self.received.take().filter(|received| received.point.index == index);
        let received = received.ok_or_else(|| failed("installing a state", "it is not there"))?;
        let Received { point, machine, staged, .. } = *received;
        tracing::info!(member = self.id, index, "goes on from a state that the leader has sent");
        self.proposals.lose_track();
        self.undispatched.clear();
        (self.dispatched, self.dispatched_term, self.term_begin) = (index, point.term, index);
        (self.saved, self.written) = (index, 0);
        self.membership = point.membership.clone();
        self.raft.mut_store().install(point);
        self.tell_applier(Apply::Install(Box::new(machine), index));
        self.members_changed();
        self.reads_ready();
        let batch = Batch { state: Some(batch.state.unwrap_or_else(|| self.raft.raft.hard_state())), ..batch };
        Ok(Write::Install { number, index, staged, batch })
    }

    /// Saves the state from time to time, so that the log before it can go.
    pub(super) fn save_if_due(&mut self) {
        let entries = self.dispatched - self.saved;
        let large = self.written >= self.options.snapshot_bytes;
        // Writing the state again is worth it once as much was written to the log.
        let worth = self.written >= self.states.size();
        let waits = || self.save_again.is_some_and(|at| self.options.clock.now() < at);
        let due = worth && (entries >= self.options.snapshot_entries || (large && entries > 0)) && !waits();
        if !self.saving && self.dispatched > 0 && (due || !self.defragmenting.is_empty()) {
            self.saving = true;
            self.thorough = std::mem::take(&mut self.defragmenting);
            self.written = 0;
            self.tell_applier(Apply::Snapshot(None, self.point()));
        }
    }

    pub(super) fn save(&mut self, point: Point, state: SnapshotGuard) {
        let (states, events, index) = (self.states.clone(), self.events.clone(), point.index);
        let thorough = !self.thorough.is_empty();
        // Those that have ended take space until they are looked at.
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(async move {
            let result = states.save(point, state, thorough).await;
            let _stopped = events.send(Event::Saved(index, result));
        });
    }

    pub(super) fn state_saved(&mut self, index: u64, result: Result<(), Error>) {
        self.saving = false;
        for reply in self.thorough.drain(..) {
            answer(reply, result.clone());
        }
        match result {
            Ok(()) => {
                self.save_again = None;
                self.saved = self.saved.max(index);
                self.tell_writer(Write::DropTo(self.saved));
            }
            // The log grows on until the next one.
            Err(error) => {
                self.save_again = Some(self.options.clock.now() + SAVE_AGAIN);
                tracing::warn!(member = self.id, %error, "the state could not be saved; the log is kept");
            }
        }
    }

    /// Drops entries from memory that no follower needs that keeps up, more or less.
    pub(super) fn trim_if_due(&mut self) {
        if self.dispatched >= self.trimmed + TRIM {
            self.trimmed = self.dispatched;
            self.trim();
        }
    }

    fn trim(&mut self) {
        let RaftOptions { catch_up_entries, catch_up_bytes, .. } = self.options;
        let behind = |entries| self.dispatched.saturating_sub(entries);
        let mut to = behind(catch_up_entries);
        if self.leads() {
            // Followers that are active and a little slower get more.
            let progress =
                self.raft.raft.prs().iter().filter(|(id, progress)| **id != self.id && progress.recent_active);
            let slowest = progress.map(|(_, progress)| progress.matched).min().unwrap_or(u64::MAX);
            to = to.min(slowest.max(behind(4 * catch_up_entries)));
        }
        to = to.max(self.raft.store().index_for(catch_up_bytes).min(self.dispatched));
        // A state that is on its way is of no use without what follows it.
        let under_way = self.sending.values().map(|sending| sending.point.index).min().unwrap_or(u64::MAX);
        let to = to.min(under_way.max(self.raft.store().index_for(4 * catch_up_bytes)));
        self.raft.mut_store().drop_to(to);
    }
}
