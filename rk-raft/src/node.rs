//! A member at work: one task that owns the raft state and never waits for disk, state machine or network.
//!
//! ```text
//! requests ─► propose ─► raft ─┬─► writer ─► RaftLog          entries, vote: one sync for all that came up meanwhile
//!    packets ◄────────────────►│
//!                              └─► applier ─► Replica         committed entries: answers, watchers
//! ```
//! - A proposal goes to the leader; the member that proposed it answers when it applies the entry itself. So what a client
//!   was told of, it also finds at its member.
//! - A read asks the leader how far the log is committed (ReadIndex), which the leader confirms with a majority, and waits until that
//!   is applied here.
//! - Changes of members are entries too. They take effect where this task hands committed entries to the applier.
//! - A follower that needs entries from before the log gets the state in chunks, and so does a new member.
//! - Leases end by the leader's clock. Whoever becomes the leader gives every lease its whole time again.

mod dispatch;
mod inputs;
mod propose;
mod reads;
mod snapshots;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use raft::{
    RawNode, StateRole,
    eraftpb::{self, HardState, MessageType},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_store::{
    ClusterError, Error, Member, Replica,
    planted::{Bug, is_planted},
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

pub(crate) use self::inputs::{Event, Parts, Proposal, Queues, Received, Request};
use self::{
    dispatch::Undispatched,
    snapshots::{Receiving, Sending},
};
use crate::{
    MemberId, Packet, RaftOptions, Transport,
    applier::{self, Apply},
    entry::Content,
    guard::{self, Verdict},
    log::{Batch, Checkpoints, cache::LogCache, entries_behind},
    logging,
    membership::Membership,
    message::{Chunk, Message},
    proposals::{Payload, Proposals, Reply, Taken},
    reads::{LeaseQuestion, Reads, expire_questions},
    shared::Shared,
    ticks::Ticks,
    transport::Lane,
    writer::{self, Write},
};

/// Requests and packets taken in one go, before the state they make is written and sent.
const BATCH: usize = 512;
/// Bytes of entries in one message, about.
const MESSAGE_BYTES: u64 = 1 << 20;
/// Messages with entries on their way to one follower.
const INFLIGHT: usize = 64;
/// Bits of a number that count within one life of a member.
const LIFE_SHIFT: u32 = 40;

/// A ready that is not durable yet.
struct Unpersisted {
    /// The number that the writer tells.
    written: u64,
    /// The last ready that is durable with it: those behind it that wrote nothing.
    ready: u64,
    /// What may be sent then.
    messages: Vec<eraftpb::Message>,
}

pub(crate) struct Node {
    id: MemberId,
    raft: RawNode<LogCache>,
    membership: Membership,
    replica: Arc<Replica>,
    shared: Arc<Shared>,
    states: Arc<dyn Checkpoints>,
    transport: Arc<dyn Transport>,
    options: RaftOptions,
    random: StdRng,
    started: Instant,
    /// The election timeout that `random` gave, in ticks.
    election_timeout: usize,
    /// The term and role that it was drawn for.
    drawn_for: Option<(u64, StateRole)>,
    leader: MemberId,
    next_number: u64,
    /// The last entry handed to the applier.
    dispatched: u64,
    dispatched_term: u64,
    /// The first entry of that term, or one behind it.
    term_begin: u64,
    writer: mpsc::UnboundedSender<Write>,
    applier: mpsc::UnboundedSender<Apply>,
    events: mpsc::UnboundedSender<Event>,
    unpersisted: VecDeque<Unpersisted>,
    undispatched: Undispatched,
    /// The commit index, where it is newer than what was written.
    unwritten: Option<HardState>,
    proposals: Proposals,
    /// Where a command is encoded, so that its bytes take no more space than they need.
    encoded: Vec<u8>,
    taken: Taken,
    /// No proposals are sent before this: the leader asked for patience.
    patience: Option<Instant>,
    reads: Reads,
    questions: BTreeMap<u64, LeaseQuestion>,
    /// When each member was last heard of.
    heard: BTreeMap<MemberId, Instant>,
    /// The term in which the leadership was to be handed over: whoever is to lead may be elected at any time in it.
    transferred: u64,
    sending: BTreeMap<MemberId, Sending>,
    receiving: Option<Receiving>,
    received: Option<Box<Received>>,
    /// Whose transfer of a state was the last to arrive whole.
    arrived: Option<(MemberId, u64)>,
    /// The point of the newest state saved here, and what was written since.
    saved: u64,
    saving: bool,
    /// When it may be saved again where it could not be.
    save_again: Option<Instant>,
    /// Who waits for the state to be saved thoroughly: the next time, and this time.
    defragmenting: Vec<Reply<()>>,
    thorough: Vec<Reply<()>>,
    /// Up to where entries were looked at for trimming.
    trimmed: u64,
    written: u64,
    /// When this member stops, as it was removed.
    leaving: Option<Instant>,
    /// Who has told this member that it was removed, where it left a joint configuration.
    told: Option<BTreeSet<MemberId>>,
    /// When it has last asked whether it was.
    asked: Instant,
    /// When heartbeats were last sent, and in which term.
    heartbeat: Option<(u64, Instant)>,
    /// Who waits for the end of a joint configuration, and for how long.
    changing: Option<(Reply<Vec<Member>, ClusterError>, Instant)>,
    tasks: JoinSet<()>,
}

const REMOVED: &str = "this member was removed from the group";

fn removed() -> Error {
    Error::Unavailable(REMOVED.into())
}

/// Whether a member has stopped because it was removed.
pub(crate) fn is_removed(reason: &Error) -> bool {
    matches!(reason, Error::Unavailable(reason) if reason == REMOVED)
}

pub(crate) fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Unavailable(format!("{what}: {error}"))
}

impl Node {
    /// A member that goes on from what its log and its newest state hold; the replica stands at that state.
    pub(crate) fn new(parts: Parts) -> Result<(Self, mpsc::UnboundedReceiver<Event>), Error> {
        let Parts { id, point, recovered, log, states, transport, options, replica, shared } = parts;
        let config = raft::Config {
            id,
            applied: point.index,
            election_tick: options.election_ticks,
            heartbeat_tick: options.heartbeat_ticks,
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: INFLIGHT,
            max_committed_size_per_ready: 4 * MESSAGE_BYTES,
            max_uncommitted_size: 1 << 30,
            batch_append: true,
            // A member that was cut off must not disturb the group, and a leader that is must step down.
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let entries = entries_behind(&point, recovered.entries);
        let cache = LogCache::new(point.clone(), recovered.state, entries);
        let raft =
            RawNode::new(&config, cache, &logging::logger(id)).map_err(|error| failed("starting raft", error))?;
        let (events, listener) = mpsc::unbounded_channel();
        let (writer, writes) = mpsc::unbounded_channel();
        let (applier, work) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(writer::run(log, writes, events.clone(), shared.clone()));
        tasks.spawn(applier::run(replica.clone(), work, events.clone(), shared.clone()));
        transport.set_members(&point.membership);
        let started = options.clock.now();
        let mut node = Self {
            id,
            raft,
            membership: point.membership,
            replica,
            shared,
            states,
            transport,
            random: StdRng::seed_from_u64(options.seed.wrapping_add(id)),
            started,
            options,
            election_timeout: 0,
            drawn_for: None,
            leader: raft::INVALID_ID,
            // Numbers of an earlier life of this member may still be in the log.
            next_number: recovered.life << LIFE_SHIFT,
            dispatched: point.index,
            dispatched_term: point.term,
            term_begin: point.index,
            writer,
            applier,
            events,
            unpersisted: VecDeque::new(),
            undispatched: Undispatched::default(),
            unwritten: None,
            proposals: Proposals::default(),
            encoded: Vec::new(),
            taken: Taken::default(),
            patience: None,
            reads: Reads::default(),
            questions: BTreeMap::new(),
            heard: BTreeMap::new(),
            transferred: 0,
            sending: BTreeMap::new(),
            receiving: None,
            received: None,
            arrived: None,
            saved: point.index,
            saving: false,
            save_again: None,
            defragmenting: Vec::new(),
            thorough: Vec::new(),
            trimmed: 0,
            written: 0,
            leaving: None,
            told: None,
            asked: started,
            heartbeat: None,
            changing: None,
            tasks,
        };
        if !node.membership.is_joint() && node.membership.voters().map(|voter| voter.id).eq([id]) {
            // Nobody else could lead, so there is nothing to wait for.
            node.raft.campaign().map_err(|error| failed("starting raft", error))?;
        }
        if node.membership.removed.contains(&id) {
            node.leave_soon();
        }
        node.draw_election_timeout();
        Ok((node, listener))
    }

    /// Works until the log or the engine fails, or the member is removed, which is told.
    pub(crate) async fn run(mut self, mut queues: Queues, mut events: mpsc::UnboundedReceiver<Event>) -> Error {
        let mut ticks = Ticks::new(self.options.clock.clone(), self.options.tick);
        let replica = self.replica.clone();
        let Queues { requests, proposals, packets } = &mut queues;
        loop {
            let has_room = self.proposals.has_room();
            let mut work = Ok(());
            tokio::select! {
                // In order, so that a run does not depend on chance. None can starve: the loop below takes from all queues, and
                // time passes one tick at a time.
                biased;
                () = ticks.next() => work = self.tick(),
                ended = replica.lease_clock().ended(), if self.leads() => self.end_leases(ended),
                Some(event) = events.recv() => work = self.hear(event),
                Some(packet) = packets.recv() => work = self.receive(packet),
                Some(request) = requests.recv() => self.accept(request),
                proposal = proposals.recv(), if has_room => match proposal {
                    Some(proposal) => self.take(proposal),
                    None => return Error::Unavailable("the member's store was dropped".into()),
                },
            }
            for _ in 0..BATCH {
                let mut idle = true;
                if let Ok(event) = events.try_recv() {
                    (idle, work) = (false, work.and_then(|()| self.hear(event)));
                }
                if let Ok(packet) = packets.try_recv() {
                    (idle, work) = (false, work.and_then(|()| self.receive(packet)));
                }
                if let Ok(request) = requests.try_recv() {
                    idle = false;
                    self.accept(request);
                }
                if self.proposals.has_room()
                    && let Ok(proposal) = proposals.try_recv()
                {
                    idle = false;
                    self.take(proposal);
                }
                if idle || work.is_err() {
                    break;
                }
            }
            while work.is_ok() {
                self.send_proposals();
                self.ask_reads();
                if !self.raft.has_ready() {
                    break;
                }
                work = self.process_ready();
            }
            self.publish();
            self.prepare_states();
            self.save_if_due();
            self.trim_if_due();
            if let Err(error) = work.and_then(|()| self.leave()) {
                return error;
            }
        }
    }

    fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Puts our own random election timeout in the place of the one that the library draws from the system's randomness. A new
    /// one is drawn with each change of term or role, which does not depend on what the library drew.
    fn draw_election_timeout(&mut self) {
        let (term, role) = (self.raft.raft.term, self.raft.raft.state);
        if self.drawn_for != Some((term, role)) {
            self.drawn_for = Some((term, role));
            let ticks = self.options.election_ticks;
            self.election_timeout = self.random.random_range(ticks..2 * ticks);
        }
        if self.raft.raft.randomized_election_timeout() != self.election_timeout {
            self.raft.raft.set_randomized_election_timeout(self.election_timeout);
        }
    }

    /// How long an answer may take before it is taken for lost.
    fn patience(&self) -> std::time::Duration {
        self.options.tick * self.options.election_ticks as u32
    }

    /// Up to which entry a state from elsewhere holds everything, where raft does not know yet that it is applied. Until then it
    /// would look for those entries, which are not there, before it stands for election.
    fn installing(&self) -> Option<u64> {
        let begin = self.raft.store().begin();
        (self.raft.raft.raft_log.applied < begin).then_some(begin)
    }

    fn tick(&mut self) -> Result<(), Error> {
        if self.installing().is_none() {
            self.raft.tick();
        }
        self.draw_election_timeout();
        let now = self.options.clock.now();
        let before = now.checked_sub(self.patience()).unwrap_or(now);
        self.proposals.expire(now);
        if let Some(reason) = self.shared.no_space() {
            self.proposals.refuse_unsent(&Error::NoSpace(reason));
        }
        self.resend_proposals(before, now);
        self.reads.expire(now, before);
        self.shared.slow_reads.store(self.reads.slow, Relaxed);
        self.shared.failed_reads.store(self.reads.failed, Relaxed);
        for token in expire_questions(&mut self.questions, now) {
            self.ask_leader(token);
        }
        self.keep_lease();
        self.ask_whether_removed(now);
        self.answer_change(now);
        self.forget_unsent_states(before);
        Ok(())
    }

    fn hear(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Persisted(written) => self.persisted(written)?,
            Event::Snapshot { to: Some(to), point, state } => self.state_prepared(to, *point, state),
            Event::Snapshot { to: None, point, state } => self.save(*point, state),
            Event::Saved(index, result) => self.state_saved(index, result),
            Event::Reached(checks) => checks.into_iter().for_each(|check| self.lease_confirmed(check)),
            Event::Sent { to, transfer, whole } => self.state_sent(to, transfer, whole),
            Event::Received(received) => self.state_received(received)?,
            Event::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn receive(&mut self, packet: Packet) -> Result<(), Error> {
        let from = packet.from;
        if self.membership.removed.contains(&from) {
            self.send(from, &Message::Removed);
            return Ok(());
        }
        let Some(message) = Message::decode(packet.payload) else {
            tracing::warn!(member = self.id, from, "a packet could not be read");
            return Ok(());
        };
        self.heard.insert(from, self.options.clock.now());
        match message {
            Message::Raft(message) => self.step(from, *message)?,
            Message::LeaseAsk { token, id, renew } => self.look_at_lease(token, from, id, renew),
            Message::LeaseAnswer { token, answer } => self.lease_answered(token, answer),
            Message::Propose { term, floor, items } => self.take_from(from, term, floor, items),
            Message::Refused { term, number, reason } => self.refused(number, term, reason),
            Message::Chunk(chunk) => self.take_chunk(from, chunk),
            Message::ChunkAck { transfer, next, state } => self.chunk_acknowledged(from, transfer, next, state),
            Message::Removed if self.membership.members.contains_key(&from) => self.told_removed(from)?,
            // That was told above if it was.
            Message::Removed | Message::Belongs => {}
        }
        Ok(())
    }

    fn step(&mut self, from: MemberId, message: eraftpb::Message) -> Result<(), Error> {
        match guard::check(&self.raft, from, &message) {
            Verdict::Drop(reason) => tracing::warn!(member = self.id, from, reason, "a message was dropped"),
            Verdict::Amnesia => {
                return Err(Error::Unavailable(
                    "this member's log lacks entries that it has acknowledged: its data was lost or replaced. Remove \
                     the member and add it again as a new one"
                        .into(),
                ));
            }
            Verdict::Pass if self.must_not_vote(&message) => {}
            Verdict::Pass if message.get_msg_type() == MessageType::MsgTimeoutNow && self.installing().is_some() => {}
            Verdict::Pass => {
                if let Err(error) = self.raft.step(message) {
                    // A message of an earlier term or of a stranger, say: the sender does not wait for an answer.
                    tracing::debug!(member = self.id, from, %error, "a message was not taken");
                }
                self.draw_election_timeout();
            }
        }
        Ok(())
    }

    fn process_ready(&mut self) -> Result<(), Error> {
        // Nothing may be proposed or stepped between `ready` and `advance_append_async`.
        let mut ready = self.raft.ready();
        // Before anyone is told.
        self.publish();
        let changed = ready.ss().map(|state| (state.leader_id, state.raft_state));
        let at_once = ready.take_messages();
        let later = ready.take_persisted_messages();
        self.send_all(at_once);
        for read in ready.take_read_states() {
            self.read_answered(&read.request_ctx, read.index);
        }
        // A commit index alone is noted with the next write.
        self.unwritten = ready.hs().cloned().or(self.unwritten.take());
        let committed = ready.take_committed_entries();
        let changes = committed.iter().any(Content::is_change);
        let (number, must_write) = (ready.number(), ready.must_sync() || changes);
        let state = if must_write { self.unwritten.take() } else { None };
        let state = state.or_else(|| changes.then(|| self.raft.raft.hard_state()));
        let batch = Batch { entries: ready.take_entries(), state };
        self.written += batch.entries.iter().map(|entry| entry.data.len() as u64 + 64).sum::<u64>();
        let write = if ready.snapshot().is_empty() {
            must_write.then_some(Write::Batch(number, batch.clone()))
        } else {
            Some(self.install(number, ready.snapshot().get_metadata().index, batch.clone())?)
        };
        let appended = self.raft.mut_store().append(batch.entries);
        appended.map_err(|error| failed("appending to the log", error))?;
        self.raft.advance_append_async(ready);
        match (write, self.unpersisted.back_mut()) {
            (Some(write), _) => {
                self.unpersisted.push_back(Unpersisted { written: number, ready: number, messages: later });
                self.tell_writer(write);
            }
            (None, Some(last)) => {
                last.ready = number;
                last.messages.extend(later);
            }
            (None, None) => {
                self.raft.on_persist_ready(number);
                self.send_all(later);
            }
        }
        self.undispatched.push(committed, changes.then_some(number));
        self.dispatch_durable()?;
        if let Some((leader, role)) = changed {
            self.role_changed(leader, role);
        }
        Ok(())
    }

    fn persisted(&mut self, written: u64) -> Result<(), Error> {
        while self.unpersisted.front().is_some_and(|first| first.written <= written)
            && let Some(first) = self.unpersisted.pop_front()
        {
            self.raft.on_persist_ready(first.ready);
            self.send_all(first.messages);
        }
        if self.leads() && is_planted(Bug::AcknowledgeBeforeCommit) {
            let written = self.raft.raft.raft_log.persisted;
            self.raft.raft.raft_log.commit_to(written);
        }
        if let Some(index) = self.installing()
            && self.raft.raft.raft_log.persisted >= index
        {
            self.raft.advance_apply_to(index);
        }
        self.undispatched.durable = written;
        self.dispatch_durable()
    }

    fn tell_writer(&self, write: Write) {
        // It has failed if it is gone, and its last event says so.
        let _failed = self.writer.send(write);
    }

    fn tell_applier(&self, work: Apply) {
        let _failed = self.applier.send(work);
    }

    /// Tells this member's handles how it stands.
    fn publish(&self) {
        let raft = &self.raft.raft;
        let alone = self.leads() && raft.prs().is_singleton() && raft.commit_to_current_term();
        self.shared.publish(raft.term, raft.raft_log.committed, alone);
        if !self.leads() {
            self.shared.set_lease(None);
        }
    }

    fn role_changed(&mut self, leader: MemberId, role: StateRole) {
        if role == StateRole::Leader && !is_planted(Bug::LeaseEndsEarly) {
            // Whoever led before may have promised time that this member knows nothing of.
            self.replica.lease_clock().restart();
        } else {
            self.stop_sending_states();
        }
        self.patience = None;
        self.leader = leader;
        let leader = (leader != raft::INVALID_ID).then_some(leader);
        let before = self.shared.leader.send_replace(leader);
        if leader.is_some() {
            self.shared.leader_changes.fetch_add(u64::from(leader != before), Relaxed);
            self.send_proposals();
            let waiting: Vec<_> = self.questions.keys().copied().collect();
            waiting.into_iter().for_each(|token| self.ask_leader(token));
        }
    }

    /// Counts heartbeats that come late, as those of a leader that is overloaded do.
    fn note_heartbeat(&mut self) {
        let (now, term) = (self.options.clock.now(), self.raft.raft.term);
        let most = 2 * self.options.tick * self.options.heartbeat_ticks as u32;
        if let Some((before, last)) = self.heartbeat.replace((term, now))
            && before == term
            && now.saturating_duration_since(last) > most
        {
            self.shared.late_heartbeats.fetch_add(1, Relaxed);
        }
    }

    fn send(&self, to: MemberId, message: &Message) {
        let lane = if matches!(message, Message::Chunk(Chunk { .. })) { Lane::Bulk } else { Lane::Raft };
        match message.encode() {
            Ok(payload) => self.transport.send(Packet { from: self.id, to, lane, payload }),
            Err(error) => tracing::error!(member = self.id, to, %error, "a message could not be encoded"),
        }
    }

    fn send_all(&mut self, messages: Vec<eraftpb::Message>) {
        if messages.iter().any(|message| message.get_msg_type() == MessageType::MsgHeartbeat) {
            self.note_heartbeat();
        }
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.send_state(message);
            } else {
                self.send(message.to, &Message::Raft(Box::new(message)));
            }
        }
    }

    fn accept(&mut self, request: Request) {
        let deadline = self.options.clock.now() + self.options.request_timeout;
        match request {
            Request::Barrier(reply) => self.reads.new.push(crate::reads::AfterRead::Read(reply, deadline)),
            Request::Lease { id, renew, reply } => {
                let token = self.number();
                let again = self.options.clock.now();
                self.questions.insert(token, LeaseQuestion { id, renew, reply, deadline, again });
                self.ask_leader(token);
            }
            Request::Defragment(reply) => self.defragmenting.push(reply),
            Request::Transfer { to, reply } => self.transfer(to, reply),
        }
    }

    fn take(&mut self, proposal: Proposal) {
        let deadline = self.options.clock.now() + self.options.request_timeout;
        let payload = match proposal {
            Proposal::Command(command, reply) => {
                self.encoded.clear();
                command.encode(&mut self.encoded);
                Payload::Command { command, data: Bytes::copy_from_slice(&self.encoded), reply }
            }
            Proposal::Change(change, reply) => Payload::Change { change, reply },
        };
        self.proposals.push(payload, deadline);
    }
}
