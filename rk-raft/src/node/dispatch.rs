//! Committed entries on their way to the applier, and those among them that change the members.

use std::collections::VecDeque;

use raft::eraftpb::{ConfChangeV2, Entry};
use rk_store::{ClusterError, Error};
use tokio::time::Instant;

use super::{Node, failed, removed};
use crate::{
    MemberId,
    applier::{Apply, Encoded, Item},
    entry::{Content, Origin},
    membership::Change,
    message::Message,
    proposals::{Payload, answer},
    reads::AfterRead,
};

/// Committed entries that wait until it is durable that a change of members among them, or before them, is committed. A member that
/// forgot that could need the help of one that was removed and is gone.
#[derive(Default)]
pub(crate) struct Undispatched {
    /// With the number of the write that must be durable.
    entries: VecDeque<(u64, Vec<Entry>)>,
    /// The number of the last write that is.
    pub durable: u64,
}

impl Undispatched {
    pub(super) fn push(&mut self, entries: Vec<Entry>, after: Option<u64>) {
        if !entries.is_empty() {
            self.entries.push_back((after.unwrap_or(0), entries));
        }
    }

    fn next(&mut self) -> Option<Vec<Entry>> {
        self.entries.front().filter(|(after, _)| *after <= self.durable)?;
        self.entries.pop_front().map(|(_, entries)| entries)
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

impl Node {
    /// Hands on what waits for nothing any more.
    pub(super) fn dispatch_durable(&mut self) -> Result<(), Error> {
        while let Some(entries) = self.undispatched.next() {
            self.dispatch(entries)?;
        }
        Ok(())
    }

    /// Hands committed entries on, in order.
    fn dispatch(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        let Some(last) = entries.last().map(|entry| entry.index) else { return Ok(()) };
        let mut items = Vec::with_capacity(entries.len());
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            match Content::of(entry)? {
                Content::Nothing => {}
                Content::LeaveJoint => self.leave_joint()?,
                Content::Change { origin, change, conf_change } => {
                    let waiting = self.waiting(origin);
                    self.change_members(change, conf_change, waiting)?;
                }
                Content::Command(origin, data) => {
                    let (command, reply) = match self.waiting(origin) {
                        Some(Payload::Command { command, reply, .. }) => (Encoded::Plain(command), Some(reply)),
                        _ => (Encoded::Bytes(data), None),
                    };
                    items.push(Item { index, command, reply });
                }
            }
            self.dispatched = index;
            if term > self.dispatched_term {
                (self.dispatched_term, self.term_begin) = (term, index);
                self.proposals.term_began(term);
            }
        }
        self.tell_applier(Apply::Entries(items, last));
        self.raft.advance_apply_to(last);
        self.reads_ready();
        Ok(())
    }

    /// Who waits here for an entry.
    fn waiting(&mut self, origin: Origin) -> Option<Payload> {
        if origin.member == self.id { self.proposals.committed(origin.number) } else { None }
    }

    fn change_members(
        &mut self,
        change: Change,
        conf_change: Option<ConfChangeV2>,
        waiting: Option<Payload>,
    ) -> Result<(), Error> {
        let result = self.membership.apply(&change);
        if result.is_ok() {
            if let Some(conf_change) = conf_change {
                self.raft.apply_conf_change(&conf_change).map_err(|error| failed("changing the members", error))?;
            }
            self.members_changed();
            tracing::info!(member = self.id, ?change, "the members have changed");
        }
        if change == Change::Remove(self.id) && result.is_ok() {
            self.step_down();
            self.leave_soon();
        }
        if let Some(Payload::Change { reply, .. }) = waiting {
            match result {
                // It is done once the old voters are needed no more.
                Ok(()) if self.membership.is_joint() && change.is_of_raft() => {
                    let deadline = self.options.clock.now() + self.options.request_timeout;
                    self.changing = Some((reply, deadline));
                }
                result => answer(reply, result.map(|()| self.membership.list())),
            }
        }
        Ok(())
    }

    /// Ends a joint configuration.
    fn leave_joint(&mut self) -> Result<(), Error> {
        if !self.membership.is_joint() {
            return Ok(());
        }
        let gone = self.membership.leave_joint();
        self.raft.apply_conf_change(&ConfChangeV2::default()).map_err(|error| failed("changing the members", error))?;
        self.members_changed();
        tracing::info!(member = self.id, ?gone, "the members have changed together");
        if gone.contains(&self.id) {
            self.step_down();
            self.told.get_or_insert_default();
        }
        Ok(())
    }

    /// Another member says that this one was removed. One that leaves with others goes on until most of those who stay know that: they
    /// may need its vote until then, and what others who leave know is not known to them. Once one of those who stay has told it, it does
    /// not wait for the others for ever.
    pub(super) fn told_removed(&mut self, by: MemberId) -> Result<(), Error> {
        let patience = self.patience();
        if self.membership.leaving.contains(&by) {
            return Ok(());
        }
        if self.membership.leaving.contains(&self.id) {
            self.told.get_or_insert_default();
        }
        let Some(told) = &mut self.told else { return Err(removed()) };
        told.insert(by);
        let voters: Vec<_> = self.membership.voters().map(|voter| voter.id).collect();
        if voters.iter().filter(|id| told.contains(id)).count() > voters.len() / 2 {
            return Err(removed());
        }
        let last = self.options.clock.now() + 3 * patience;
        self.leaving.get_or_insert(last);
        Ok(())
    }

    /// As one that is no member any more, leads no longer.
    fn step_down(&mut self) {
        if self.leads() {
            // An earlier leader's wish, which this one found in its log, or a change of all who could lead. Raft panics on a leader
            // that is no member.
            self.raft.ping();
            self.raft.raft.become_follower(self.raft.raft.term, raft::INVALID_ID);
        }
    }

    /// Answers whoever waits for the end of a joint configuration, if it has come or is not waited for any longer.
    pub(super) fn answer_change(&mut self, now: Instant) {
        let over = !self.membership.is_joint();
        if let Some((reply, _)) = self.changing.take_if(|(_, deadline)| over || *deadline <= now) {
            answer(reply, if over { Ok(self.membership.list()) } else { Err(ClusterError::TimedOut) });
        }
    }

    pub(super) fn members_changed(&mut self) {
        *self.shared.membership.write() = self.membership.clone();
        self.transport.set_members(&self.membership);
        let members = &self.membership.members;
        self.heard.retain(|id, _| members.contains_key(id));
        self.answer_change(self.options.clock.now());
        self.publish();
    }

    /// As one that was removed, stops once the others had time to learn it too. One that leaves a single voter behind can't: without this
    /// member's vote that one could do nothing if it forgot the removal now. It is told when it may ([`Message::Removed`]).
    pub(super) fn leave_soon(&mut self) {
        if self.membership.voters().count() > 1 {
            self.leaving = Some(self.options.clock.now() + self.patience());
        }
    }

    /// Asks the others whether this member was removed: one that does not vote would never learn it, if it hears of nobody; and one
    /// that votes asks only voters for their votes, who may be gone themselves, if it knows no leader.
    pub(super) fn ask_whether_removed(&mut self, now: Instant) {
        let patience = self.patience();
        let recent = |at: &Instant| now.saturating_duration_since(*at) < patience;
        let lost = match self.membership.votes(self.id) {
            true => self.raft.raft.leader_id == raft::INVALID_ID,
            false => !self.heard.values().any(recent),
        };
        if !lost || recent(&self.asked) {
            return;
        }
        self.asked = now;
        self.membership.members.keys().filter(|id| **id != self.id).for_each(|id| self.send(*id, &Message::Belongs));
    }

    /// Whether it is time to stop.
    pub(super) fn leave(&self) -> Result<(), Error> {
        match self.leaving {
            Some(at) if at <= self.options.clock.now() => Err(removed()),
            _ => Ok(()),
        }
    }

    /// Goes on with reads that waited for entries handed on by now.
    pub(super) fn reads_ready(&mut self) {
        let (mut reads, mut checks) = (Vec::new(), Vec::new());
        for read in self.reads.ready(self.dispatched) {
            match read {
                AfterRead::Read(reply, _) => reads.push(reply),
                AfterRead::Lease(check) if check.found.is_some() => self.lease_confirmed(check),
                AfterRead::Lease(check) => checks.push(check),
            }
        }
        if !reads.is_empty() {
            self.tell_applier(Apply::Reads(reads));
        }
        if !checks.is_empty() {
            self.tell_applier(Apply::Checks(checks));
        }
    }
}
