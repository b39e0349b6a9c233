//! Reads, and what only the leader knows of leases.

use bytes::{Buf, BufMut};
use raft::eraftpb::{self, MessageType};
use rk_store::{Error, LeaseId};

use super::Node;
use crate::{
    MemberId,
    message::{LeaseAnswer, Message},
    proposals::answer,
    reads::{AfterRead, LeaseCheck},
};

/// A read's number, with the member it comes from.
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

impl Node {
    /// Asks once for all reads that have come up, one round at a time.
    pub(super) fn ask_reads(&mut self) {
        if !self.reads.new.is_empty() {
            self.ask();
        }
    }

    fn ask(&mut self) {
        let can_answer =
            self.raft.raft.leader_id != raft::INVALID_ID && (!self.leads() || self.raft.raft.commit_to_current_term());
        if self.reads.asked.is_some() || !can_answer {
            return;
        }
        let number = self.number();
        let reads = std::mem::take(&mut self.reads.new);
        self.reads.asked = Some((number, reads, self.options.clock.now()));
        self.raft.read_index(context(self.id, number));
    }

    /// A majority has confirmed that the leader led when it was asked.
    pub(super) fn read_answered(&mut self, request: &[u8], index: u64) {
        let Some(number) = own_number(request, self.id) else { return };
        let Some(asked) = self.reads.answered(number, index) else { return };
        if self.options.lease_reads && self.leads() && self.transferred != self.raft.raft.term {
            // Those who have answered vote for nobody else for an election timeout from then on. They count in ticks, the
            // first of which may be short, and their clocks may be faster than this one.
            let ticks = self.options.election_ticks.saturating_sub(1) as u32;
            self.shared.set_lease(Some(asked + self.options.tick * ticks * 3 / 4));
        }
        self.reads_ready();
    }

    /// As the leader, has the lease confirmed with each heartbeat.
    pub(super) fn keep_lease(&mut self) {
        if self.options.lease_reads && self.leads() && self.raft.raft.heartbeat_elapsed() == 0 {
            self.ask();
        }
    }

    /// Whether a vote could break the lease of a leader that this member followed before it was started again.
    pub(super) fn must_not_vote(&self, message: &eraftpb::Message) -> bool {
        let asks = matches!(message.get_msg_type(), MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        asks && self.options.lease_reads && self.options.clock.elapsed(self.started) < self.patience()
    }

    /// Sends a client's question about a lease to the leader.
    pub(super) fn ask_leader(&mut self, token: u64) {
        let leader = self.raft.raft.leader_id;
        let patience = self.patience();
        let Some(question) = self.questions.get_mut(&token) else { return };
        question.again = self.options.clock.now() + patience;
        let (id, renew) = (question.id, question.renew);
        if leader == self.id {
            self.look_at_lease(token, self.id, id, renew);
        } else if leader != raft::INVALID_ID {
            self.send(leader, &Message::LeaseAsk { token, id, renew });
        }
    }

    /// As the leader, looks at a lease and has a majority confirm that this is the leader still: only then is what it found
    /// worth telling. A lease that is not found may be one that is not applied yet, so that is looked at afterwards.
    pub(super) fn look_at_lease(&mut self, token: u64, from: MemberId, id: LeaseId, renew: bool) {
        if !self.leads() {
            return self.tell(from, token, LeaseAnswer::NotLeader);
        }
        // An entry of an earlier leader may be about to end the lease: what is found before those are applied is worth nothing.
        let term = self.raft.raft.term;
        let settled = self.dispatched_term == term && self.shared.applied() >= self.term_begin;
        let found = match settled.then(|| self.clock(id, renew)) {
            Some(LeaseAnswer::Left(left)) => Some((term, LeaseAnswer::Left(left))),
            _ => None,
        };
        let deadline = self.options.clock.now() + self.options.request_timeout;
        self.reads.new.push(AfterRead::Lease(LeaseCheck { token, from, id, renew, found, deadline }));
    }

    pub(super) fn lease_confirmed(&mut self, check: LeaseCheck) {
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

    pub(super) fn lease_answered(&mut self, token: u64, found: LeaseAnswer) {
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
}
