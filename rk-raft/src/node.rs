//! A member at work: one task that owns the raft state and feeds the replica.
//!
//! ```text
//! requests ─► propose ─► raft log ─► committed ─► Replica::apply ─► answer, watchers
//!    packets ◄──────────► (other members)
//! ```
//! - A proposal goes to the leader, through raft's own forwarding; the member that proposed it answers when it
//!   applies the entry itself. So what a client was told of, it also finds at its member.
//! - A read asks the leader how far the log is committed (ReadIndex), which the leader confirms with a majority, and waits until that
//!   is applied here.
//! - Leases end by the leader's clock. Whoever becomes the leader gives every lease its whole time again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use raft::{
    RawNode, SnapshotStatus, StateRole,
    eraftpb::{self, Entry, EntryType, MessageType, Snapshot},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_store::{Command, Error, LeaseId, Outcome, Replica};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};

use crate::{
    MemberId, Packet, RaftLog, RaftOptions, Transport, logging,
    message::{LeaseAnswer, Message},
    snapshot,
    waiting::{AfterRead, LeaseCheck, LeaseQuestion, Proposals, Reads, Reply, Unsent, answer, expire_questions},
};

/// What a member's clients ask of it.
pub(crate) enum Request {
    Propose(Command, Reply<Outcome>),
    /// Answers once this member has applied all that was acknowledged before.
    Barrier(Reply<()>),
    /// The seconds left of a lease, renewed if so wanted.
    Lease {
        id: LeaseId,
        renew: bool,
        reply: Reply<i64>,
    },
}

/// Requests and packets taken in one go, before the state they make is written and sent.
const BATCH: usize = 256;
/// Bytes of entries in one message, about.
const MESSAGE_BYTES: u64 = 1 << 20;
/// Time before a lease that could not be ended is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

pub(crate) struct Node<L: RaftLog> {
    id: MemberId,
    raft: RawNode<L>,
    replica: Arc<Replica>,
    transport: Arc<dyn Transport>,
    options: RaftOptions,
    random: StdRng,
    /// The election timeout that `random` gave, in ticks.
    election_timeout: usize,
    /// The term and role that it was drawn for.
    drawn_for: Option<(u64, StateRole)>,
    applied: u64,
    snapshot_index: u64,
    next_number: u64,
    /// Members that were sent a snapshot, which raft is still to be told.
    snapshots_sent: Vec<MemberId>,
    proposals: Proposals,
    reads: Reads,
    questions: BTreeMap<u64, LeaseQuestion>,
    leader: watch::Sender<Option<MemberId>>,
}

fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Unavailable(format!("{what}: {error}"))
}

/// A proposal's or a read's number, with the member it comes from.
fn context(member: MemberId, number: u64) -> Vec<u8> {
    let mut context = Vec::with_capacity(16);
    context.put_u64(member);
    context.put_u64(number);
    context
}

/// The number in a context, if it is of this member.
fn own_number(mut context: &[u8], member: MemberId) -> Option<u64> {
    let (from, number) = (context.try_get_u64().ok()?, context.try_get_u64().ok()?);
    (from == member).then_some(number)
}

impl<L: RaftLog> Node<L> {
    /// A member that goes on from what its log holds; the replica stands at the log's snapshot.
    pub(crate) fn new(
        id: MemberId,
        log: L,
        replica: Arc<Replica>,
        transport: Arc<dyn Transport>,
        options: RaftOptions,
        leader: watch::Sender<Option<MemberId>>,
    ) -> Result<Self, Error> {
        let applied = log.newest_snapshot().map_or(0, |snapshot| snapshot.get_metadata().index);
        let config = raft::Config {
            id,
            applied,
            election_tick: options.election_ticks,
            heartbeat_tick: options.heartbeat_ticks,
            max_size_per_msg: MESSAGE_BYTES,
            max_committed_size_per_ready: 4 * MESSAGE_BYTES,
            // A member that was cut off must not disturb the group, and a leader that is must step down.
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let raft = RawNode::new(&config, log, &logging::logger(id)).map_err(|error| failed("starting raft", error))?;
        let mut random = StdRng::seed_from_u64(options.seed.wrapping_add(id));
        let mut node = Self {
            id,
            raft,
            replica,
            transport,
            // Numbers of an earlier life of this member may still be in the log.
            next_number: random.random(),
            random,
            options,
            election_timeout: 0,
            drawn_for: None,
            applied,
            snapshot_index: applied,
            snapshots_sent: Vec::new(),
            proposals: Proposals::default(),
            reads: Reads::default(),
            questions: BTreeMap::new(),
            leader,
        };
        node.draw_election_timeout();
        Ok(node)
    }

    /// Works until the log or the engine fails, which is told.
    pub(crate) async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        mut packets: mpsc::Receiver<Packet>,
    ) -> Error {
        let mut ticks = tokio::time::interval(self.options.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let replica = self.replica.clone();
        loop {
            let mut work = Ok(());
            tokio::select! {
                // In order, so that a run does not depend on chance. None can starve: the loop below takes from both queues, and
                // time passes one tick at a time.
                biased;
                _ = ticks.tick() => self.tick(),
                ended = replica.lease_clock().ended(), if self.leads() => self.end_leases(ended),
                Some(packet) = packets.recv() => self.receive(packet),
                request = requests.recv() => match request {
                    Some(request) => self.accept(request),
                    None => return Error::Unavailable("the member's store was dropped".into()),
                },
            }
            for _ in 0..BATCH {
                match (packets.try_recv(), requests.try_recv()) {
                    (Err(_), Err(_)) => break,
                    (packet, request) => {
                        packet.into_iter().for_each(|packet| self.receive(packet));
                        request.into_iter().for_each(|request| self.accept(request));
                    }
                }
            }
            self.ask_reads();
            while work.is_ok() && self.raft.has_ready() {
                work = self.process_ready();
            }
            if let Err(error) = work {
                return error;
            }
        }
    }

    fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    fn number(&mut self) -> u64 {
        self.next_number = self.next_number.wrapping_add(1);
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

    fn tick(&mut self) {
        self.raft.tick();
        self.draw_election_timeout();
        let now = Instant::now();
        self.proposals.expire(now);
        // An answer that has not come for so long is lost.
        let patience = self.options.tick * self.options.election_ticks as u32;
        self.reads.expire(now, now.checked_sub(patience).unwrap_or(now));
        for token in expire_questions(&mut self.questions, now) {
            self.ask_leader(token);
        }
        self.send_proposals();
    }

    fn receive(&mut self, packet: Packet) {
        match Message::decode(packet.payload) {
            Some(Message::Raft(message)) => {
                if let Err(error) = self.raft.step(*message) {
                    // A message of an earlier term or of a stranger, say: the sender does not wait for an answer.
                    tracing::debug!(member = self.id, from = packet.from, %error, "a message was not taken");
                }
                self.draw_election_timeout();
            }
            Some(Message::LeaseAsk { token, id, renew }) => self.look_at_lease(token, packet.from, id, renew),
            Some(Message::LeaseAnswer { token, answer }) => self.lease_answered(token, answer),
            None => tracing::warn!(member = self.id, from = packet.from, "a packet could not be read"),
        }
    }

    fn accept(&mut self, request: Request) {
        let deadline = Instant::now() + self.options.request_timeout;
        match request {
            Request::Propose(command, reply) => {
                let mut bytes = Vec::new();
                command.encode(&mut bytes);
                self.proposals.unsent.push_back(Unsent { command: bytes, reply, deadline });
                self.send_proposals();
            }
            Request::Barrier(reply) => self.reads.new.push(AfterRead::Read(reply, deadline)),
            Request::Lease { id, renew, reply } => {
                let token = self.number();
                let again = Instant::now();
                self.questions.insert(token, LeaseQuestion { id, renew, reply, deadline, again });
                self.ask_leader(token);
            }
        }
    }

    /// Proposes what waits, as far as there is a leader. What is refused here was sent to nobody and may be
    /// proposed again.
    fn send_proposals(&mut self) {
        while let Some(Unsent { command, reply, deadline }) = self.proposals.unsent.pop_front() {
            let number = self.number();
            match self.raft.propose(context(self.id, number), command.clone()) {
                Ok(()) => {
                    self.proposals.sent.insert(number, (reply, deadline));
                }
                Err(_) => {
                    self.proposals.unsent.push_front(Unsent { command, reply, deadline });
                    break;
                }
            }
        }
    }

    /// Asks once for all reads that have come up.
    fn ask_reads(&mut self) {
        let can_answer =
            self.raft.raft.leader_id != raft::INVALID_ID && (!self.leads() || self.raft.raft.commit_to_current_term());
        if self.reads.new.is_empty() || !can_answer {
            return;
        }
        let number = self.number();
        let reads = std::mem::take(&mut self.reads.new);
        self.reads.asked.insert(number, (reads, Instant::now()));
        self.raft.read_index(context(self.id, number));
    }

    fn process_ready(&mut self) -> Result<(), Error> {
        // Nothing may be proposed or stepped between `ready` and `advance`.
        let mut ready = self.raft.ready();
        let role = ready.ss().map(|state| (state.leader_id, state.raft_state));
        self.send_all(ready.take_messages());
        if !ready.snapshot().is_empty() {
            self.install(ready.snapshot().clone())?;
        }
        self.apply_all(ready.take_committed_entries())?;
        let (entries, state) = (ready.take_entries(), ready.hs().cloned());
        if !entries.is_empty() || state.is_some() {
            self.raft.mut_store().append(entries, state).map_err(|error| failed("writing the raft log", error))?;
        }
        self.send_all(ready.take_persisted_messages());
        for read in ready.take_read_states() {
            if let Some((reads, _)) =
                own_number(&read.request_ctx, self.id).and_then(|number| self.reads.asked.remove(&number))
            {
                self.reads.indexed.entry(read.index).or_default().extend(reads);
            }
        }
        let mut light = self.raft.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raft.mut_store().set_commit(commit).map_err(|error| failed("writing the raft log", error))?;
        }
        self.send_all(light.take_messages());
        self.apply_all(light.take_committed_entries())?;
        self.raft.advance_apply();
        for follower in std::mem::take(&mut self.snapshots_sent) {
            // Sent in one piece: if it gets lost, raft finds out by the follower's next answer.
            self.raft.report_snapshot(follower, SnapshotStatus::Finish);
        }
        if let Some((leader, role)) = role {
            self.role_changed(leader, role);
        }
        for read in self.reads.ready(self.applied) {
            self.after_read(read);
        }
        self.snapshot_if_due()
    }

    fn role_changed(&mut self, leader: MemberId, role: StateRole) {
        if role == StateRole::Leader {
            // Whoever led before may have promised time that this member knows nothing of.
            self.replica.lease_clock().restart();
        }
        let leader = (leader != raft::INVALID_ID).then_some(leader);
        self.leader.send_replace(leader);
        if leader.is_some() {
            self.send_proposals();
            let waiting: Vec<_> = self.questions.keys().copied().collect();
            waiting.into_iter().for_each(|token| self.ask_leader(token));
        }
    }

    fn send(&self, to: MemberId, message: &Message) {
        match message.encode() {
            Ok(payload) => self.transport.send(Packet { from: self.id, to, payload }),
            Err(error) => tracing::error!(member = self.id, to, %error, "a message could not be encoded"),
        }
    }

    fn send_all(&mut self, messages: Vec<eraftpb::Message>) {
        for message in messages {
            let (to, is_snapshot) = (message.to, message.get_msg_type() == MessageType::MsgSnapshot);
            self.send(to, &Message::Raft(Box::new(message)));
            if is_snapshot {
                self.snapshots_sent.push(to);
            }
        }
    }

    /// Takes a snapshot from the leader in the place of the log and the state.
    fn install(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        let index = snapshot.get_metadata().index;
        self.replica.restore(snapshot::decode(snapshot.get_data().to_vec().into())?);
        self.raft.mut_store().install(snapshot).map_err(|error| failed("writing a snapshot", error))?;
        (self.applied, self.snapshot_index) = (index, index);
        Ok(())
    }

    fn apply_all(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        for entry in entries {
            self.applied = entry.index;
            // Leaders begin their term with an empty entry; the group's members are fixed.
            if entry.data.is_empty() || entry.get_entry_type() != EntryType::EntryNormal {
                continue;
            }
            let command = Command::decode(Bytes::clone(&entry.data)).map_err(|error| failed("an entry", error))?;
            let result = self.replica.apply(&command);
            if let Err(error @ Error::Unavailable(_)) = result {
                return Err(error);
            }
            let waiting = own_number(&entry.context, self.id).and_then(|number| self.proposals.sent.remove(&number));
            if let Some((reply, _)) = waiting {
                answer(reply, result);
            }
        }
        Ok(())
    }

    fn snapshot_if_due(&mut self) -> Result<(), Error> {
        if self.applied - self.snapshot_index < self.options.snapshot_entries {
            return Ok(());
        }
        let error = |error: raft::Error| failed("making a snapshot", error);
        let mut snapshot = Snapshot::default();
        snapshot.data = snapshot::encode(&self.replica)?;
        let metadata = snapshot.mut_metadata();
        metadata.index = self.applied;
        metadata.term = self.raft.raft.raft_log.term(self.applied).map_err(error)?;
        metadata.set_conf_state(self.raft.raft.prs().conf().to_conf_state());
        self.raft.mut_store().install(snapshot).map_err(error)?;
        self.snapshot_index = self.applied;
        Ok(())
    }

    fn after_read(&mut self, read: AfterRead) {
        match read {
            AfterRead::Read(reply, _) => answer(reply, Ok(())),
            AfterRead::Lease(check) => self.lease_confirmed(check),
        }
    }

    /// Sends a client's question about a lease to the leader.
    fn ask_leader(&mut self, token: u64) {
        let leader = self.raft.raft.leader_id;
        let Some(question) = self.questions.get_mut(&token) else { return };
        question.again = Instant::now() + self.options.tick * self.options.election_ticks as u32;
        let (id, renew) = (question.id, question.renew);
        if leader == self.id {
            self.look_at_lease(token, self.id, id, renew);
        } else if leader != raft::INVALID_ID {
            self.send(leader, &Message::LeaseAsk { token, id, renew });
        }
    }

    /// As the leader, looks at a lease and has a majority confirm that this is the leader still: only then is what it found
    /// worth telling. A lease that is not found may be one that is not applied yet, so that is looked at afterwards.
    fn look_at_lease(&mut self, token: u64, from: MemberId, id: LeaseId, renew: bool) {
        if !self.leads() {
            return self.tell(from, token, LeaseAnswer::NotLeader);
        }
        let found = match self.clock(id, renew) {
            LeaseAnswer::Left(left) => Some((self.raft.raft.term, LeaseAnswer::Left(left))),
            _ => None,
        };
        let deadline = Instant::now() + self.options.request_timeout;
        self.reads.new.push(AfterRead::Lease(LeaseCheck { token, from, id, renew, found, deadline }));
    }

    fn lease_confirmed(&mut self, check: LeaseCheck) {
        let term = self.raft.raft.term;
        let answer = match check.found {
            _ if !self.leads() => LeaseAnswer::NotLeader,
            Some((found_in, _)) if found_in != term => LeaseAnswer::NotLeader,
            Some((_, answer)) => answer,
            None => match self.clock(check.id, check.renew) {
                // Found after all, so this too wants to be confirmed.
                answer @ LeaseAnswer::Left(_) => {
                    return self.reads.new.push(AfterRead::Lease(LeaseCheck { found: Some((term, answer)), ..check }));
                }
                answer => answer,
            },
        };
        self.tell(check.from, check.token, answer);
    }

    fn clock(&self, id: LeaseId, renew: bool) -> LeaseAnswer {
        let clock = self.replica.lease_clock();
        let left = if renew { clock.renew(id).ok() } else { clock.remaining(id) };
        left.map_or(LeaseAnswer::NotFound, LeaseAnswer::Left)
    }

    fn tell(&mut self, member: MemberId, token: u64, answer: LeaseAnswer) {
        if member == self.id {
            self.lease_answered(token, answer);
        } else {
            self.send(member, &Message::LeaseAnswer { token, answer });
        }
    }

    fn lease_answered(&mut self, token: u64, found: LeaseAnswer) {
        // One that does not lead knows of no lease; the question is asked again in time.
        if found == LeaseAnswer::NotLeader {
            return;
        }
        let Some(question) = self.questions.remove(&token) else { return };
        let result = match found {
            LeaseAnswer::Left(left) => Ok(left),
            _ => Err(Error::LeaseNotFound(question.id)),
        };
        answer(question.reply, result);
    }

    /// As the leader, ends leases whose time is over.
    fn end_leases(&mut self, ended: Vec<LeaseId>) {
        for id in ended {
            let mut command = Vec::new();
            Command::LeaseRevoke { id }.encode(&mut command);
            if self.raft.propose(Vec::new(), command).is_err() {
                self.replica.lease_clock().retry(id, RETRY_DELAY);
            }
        }
    }
}
