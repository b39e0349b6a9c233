//! Proposals on their way to the leader, and into its log.

use std::mem::take;

use protobuf::Message as _;
use raft::eraftpb::{self, Entry, EntryType, MessageType};
use rk_store::{ClusterError, Command, LeaseId, Member};
use tokio::time::{Duration, Instant};

use super::Node;
use crate::{
    MemberId,
    entry::Origin,
    membership::Change,
    message::{Message, Proposed, Refusal},
    proposals::{Known, Reply, answer},
};

/// Time before a lease that could not be ended is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Bytes of proposals in one packet, about.
const PACKET_BYTES: usize = 1 << 20;

fn message(entries: Vec<Entry>, from: MemberId) -> eraftpb::Message {
    let mut message = eraftpb::Message { from, ..eraftpb::Message::default() };
    message.set_msg_type(MessageType::MsgPropose);
    message.set_entries(entries.into());
    message
}

impl Node {
    /// Proposes what waits, as far as there is a leader.
    pub(super) fn send_proposals(&mut self) {
        let now = self.options.clock.now();
        // One without a state yet would lose sight of what it has proposed when the state comes.
        if !self.proposals.has_unsent()
            || self.dispatched == 0
            || self.raft.raft.leader_id == raft::INVALID_ID
            || self.patience.is_some_and(|until| now < until)
        {
            return;
        }
        self.patience = None;
        let next_number = &mut self.next_number;
        let items = self.proposals.send(self.raft.raft.term, now, || {
            *next_number += 1;
            *next_number
        });
        self.send_items(items);
    }

    /// Sends again what seems lost.
    pub(super) fn resend_proposals(&mut self, before: Instant, now: Instant) {
        if self.raft.raft.leader_id != raft::INVALID_ID && !self.leads() {
            let items = self.proposals.resend(self.raft.raft.term, before, now);
            self.send_items(items);
        }
    }

    fn send_items(&mut self, items: Vec<Proposed>) {
        if items.is_empty() {
            return;
        }
        if self.leads() {
            return self.propose(self.id, items);
        }
        let (leader, term, floor) = (self.raft.raft.leader_id, self.raft.raft.term, self.proposals.floor());
        let (mut packet, mut bytes) = (Vec::new(), 0);
        for item in items {
            if bytes > 0 && bytes + item.data.len() > PACKET_BYTES {
                self.send(leader, &Message::Propose { term, floor, items: take(&mut packet) });
                bytes = 0;
            }
            bytes += item.data.len();
            packet.push(item);
        }
        self.send(leader, &Message::Propose { term, floor, items: packet });
    }

    /// As the leader of that term, takes what another member proposes.
    pub(super) fn take_from(&mut self, from: MemberId, term: u64, floor: u64, mut items: Vec<Proposed>) {
        if !self.leads() || self.raft.raft.term != term {
            // The next leader's first entry tells the sender that these won't come.
            return;
        }
        let mut refused = Vec::new();
        items.retain(|item| match self.taken.take(term, from, floor, item.number) {
            Known::No => true,
            Known::Proposed => false,
            Known::Refused(reason) => {
                refused.push((item.number, reason));
                false
            }
        });
        refused.into_iter().for_each(|(number, reason)| self.refuse(from, number, reason));
        self.propose(from, items);
    }

    /// As the leader, appends entries to the log; those that can't be now are refused.
    fn propose(&mut self, from: MemberId, items: Vec<Proposed>) {
        let mut commands = Vec::with_capacity(items.len());
        for item in items {
            if item.change {
                self.propose_commands(from, take(&mut commands));
                self.propose_change(from, item);
            } else {
                commands.push(item);
            }
        }
        self.propose_commands(from, commands);
    }

    fn propose_commands(&mut self, from: MemberId, items: Vec<Proposed>) {
        if items.is_empty() {
            return;
        }
        let entry = |item: &Proposed| Entry {
            data: item.data.clone(),
            context: Origin { change: false, member: from, number: item.number }.to_bytes(),
            ..Entry::default()
        };
        let entries = items.iter().map(entry).collect();
        if self.raft.step(message(entries, self.id)).is_err() {
            items.iter().for_each(|item| self.refuse(from, item.number, Refusal::Later));
        }
    }

    fn propose_change(&mut self, from: MemberId, item: Proposed) {
        let Some(change) = Change::decode(item.data.clone()) else {
            tracing::warn!(member = self.id, from, "a change of members could not be read");
            return;
        };
        if let Err(reason) = self.may_change(&change) {
            return self.refuse(from, item.number, reason);
        }
        let mut entry = Entry {
            context: Origin { change: true, member: from, number: item.number }.to_bytes(),
            ..Entry::default()
        };
        match change.conf_change() {
            None => entry.data = item.data,
            Some(conf_change) => {
                entry.set_entry_type(EntryType::EntryConfChangeV2);
                entry.data = conf_change.write_to_bytes().expect("a change of members has bytes").into();
            }
        }
        if self.raft.step(message(vec![entry], self.id)).is_err() {
            self.refuse(from, item.number, Refusal::Later);
        }
    }

    fn refuse(&mut self, from: MemberId, number: u64, reason: Refusal) {
        let term = self.raft.raft.term;
        if from == self.id {
            self.refused(number, term, reason);
        } else {
            self.taken.refuse(from, number, reason);
            self.send(from, &Message::Refused { term, number, reason });
        }
    }

    pub(super) fn refused(&mut self, number: u64, term: u64, reason: Refusal) {
        if reason == Refusal::Later {
            self.patience = Some(self.options.clock.now() + self.options.tick);
        }
        self.proposals.refused(number, term, reason);
    }

    /// Whether the leader lets the members change so now: etcd's rules (`server.go`), with its strict check of reconfigurations.
    fn may_change(&mut self, change: &Change) -> Result<(), Refusal> {
        if change.is_of_raft() && (self.raft.raft.has_pending_conf() || self.membership.is_joint()) {
            return Err(Refusal::Later);
        }
        // What is impossible anyway is told where it is applied.
        if self.membership.check(change).is_err() {
            return Ok(());
        }
        if let Change::Several(changes) = change {
            return self.may_change_together(change, changes);
        }
        let voters: Vec<Member> = self.membership.voters().cloned().collect();
        let started = |member: &&Member| !member.name.is_empty();
        let enough = |members: usize, started: usize| started > members / 2;
        let running = voters.iter().filter(started).count();
        match change {
            Change::Add(member) if !member.is_learner => {
                // The second member of a group of one is how its data gets a copy at all.
                if !(enough(voters.len() + 1, running) || (voters.len(), running) == (1, 1)) {
                    return Err(Refusal::NotEnoughStarted);
                }
                if voters.iter().any(|member| !self.is_active(member.id)) {
                    return Err(Refusal::Unhealthy);
                }
            }
            Change::Promote(id) => {
                self.has_caught_up(*id)?;
                if !enough(voters.len() + 1, running + 1) {
                    return Err(Refusal::NotEnoughStarted);
                }
            }
            Change::Remove(id) if voters.iter().any(|member| member.id == *id) => {
                let left = voters.iter().filter(|member| member.id != *id);
                if !enough(voters.len() - 1, left.filter(started).count()) {
                    return Err(Refusal::NotEnoughStarted);
                }
                let active = voters.iter().filter(|member| self.is_active(member.id)).count();
                // One that is down is no part of the active majority.
                if self.is_active(*id) && !enough(voters.len(), active - 1) && voters.len() > 2 {
                    return Err(Refusal::Unhealthy);
                }
                if *id == self.id {
                    self.hand_over(&[]);
                    return Err(Refusal::Later);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The same for several changes: the members that vote afterwards must be able to end the joint configuration.
    fn may_change_together(&mut self, change: &Change, changes: &[Change]) -> Result<(), Refusal> {
        for change in changes {
            if let Change::Promote(id) = change {
                self.has_caught_up(*id)?;
            }
        }
        let mut after = self.membership.clone();
        // It was checked above.
        let _checked = after.apply(change);
        let voters: Vec<_> = after.voters().collect();
        let most = |able: usize| able > voters.len() / 2;
        if !most(voters.iter().filter(|voter| !voter.name.is_empty()).count()) {
            return Err(Refusal::NotEnoughStarted);
        }
        if !most(voters.iter().filter(|voter| self.is_active(voter.id)).count()) {
            return Err(Refusal::Unhealthy);
        }
        // Unless nobody else can, another member leads the group through it.
        let leaving: Vec<_> = after.leaving.into_iter().collect();
        if leaving.contains(&self.id) && self.hand_over(&leaving) {
            return Err(Refusal::Later);
        }
        Ok(())
    }

    /// etcd's rule for learners that become voters: nine tenths of the leader's log.
    fn has_caught_up(&self, id: MemberId) -> Result<(), Refusal> {
        let matched = |id| self.raft.raft.prs().get(id).map_or(0, |progress| progress.matched);
        if (matched(id) as f64) < 0.9 * (matched(self.id) as f64) { Err(Refusal::LearnerNotReady) } else { Ok(()) }
    }

    fn is_active(&self, id: MemberId) -> bool {
        let patience = 5 * self.patience();
        id == self.id || self.heard.get(&id).is_some_and(|heard| self.options.clock.elapsed(*heard) < patience)
    }

    /// As the leader, has the member lead that is best prepared and not among `leaving`; whether there is one.
    fn hand_over(&mut self, leaving: &[MemberId]) -> bool {
        let stays = |member: &&Member| member.id != self.id && !leaving.contains(&member.id);
        let others = self.membership.voters().filter(stays).filter(|member| self.is_active(member.id));
        let matched = |id| self.raft.raft.prs().get(id).map_or(0, |progress| progress.matched);
        let best = others.map(|member| (matched(member.id), member.id)).max();
        if let Some((_, best)) = best {
            self.start_transfer(best);
        }
        best.is_some()
    }

    fn start_transfer(&mut self, to: MemberId) {
        // Whoever is told to lead does not wait until this member's lease is over.
        self.transferred = self.raft.raft.term;
        self.shared.set_lease(None);
        self.raft.transfer_leader(to);
    }

    pub(super) fn transfer(&mut self, to: MemberId, reply: Reply<(), ClusterError>) {
        // Raft ignores, without a word, who can't lead; the leadership would stay as it is.
        let result = match self.membership.members.get(&to) {
            _ if !self.leads() => Err(ClusterError::NotLeader),
            None => Err(ClusterError::BadTransferee),
            Some(member) if member.is_learner || self.membership.leaving.contains(&to) => {
                Err(ClusterError::BadTransferee)
            }
            Some(_) => {
                if to != self.id {
                    self.start_transfer(to);
                }
                Ok(())
            }
        };
        answer(reply, result);
    }

    /// As the leader, ends leases whose time is over.
    pub(super) fn end_leases(&mut self, ended: Vec<LeaseId>) {
        let entry = |id: &LeaseId| {
            let mut data = Vec::new();
            Command::LeaseRevoke { id: *id }.encode(&mut data);
            let context = Origin { change: false, member: self.id, number: 0 }.to_bytes();
            Entry { data: data.into(), context, ..Entry::default() }
        };
        let entries = ended.iter().map(entry).collect();
        if self.raft.step(message(entries, self.id)).is_err() {
            ended.iter().for_each(|id| self.replica.lease_clock().retry(*id, RETRY_DELAY));
        }
    }
}
