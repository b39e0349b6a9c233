//! Committed entries on their way to the applier, and those among them that change the members.

use bytes::{Buf, BufMut, Bytes};
use raft::eraftpb::{ConfChangeV2, Entry, EntryType};
use rk_store::Error;
use tokio::time::Instant;

use super::{Node, failed};
use crate::{
    MemberId,
    applier::{Apply, Encoded, Item},
    membership::Change,
    proposals::{Payload, answer},
    reads::AfterRead,
};

/// What the context of an entry says: whether it changes the members, and who proposed it under which number.
pub(super) struct Origin {
    pub change: bool,
    pub member: MemberId,
    pub number: u64,
}

impl Origin {
    pub(super) fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(17);
        out.put_u8(u8::from(self.change));
        out.put_u64(self.member);
        out.put_u64(self.number);
        out.into()
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        Some(Self {
            change: bytes.try_get_u8().ok()? == 1,
            member: bytes.try_get_u64().ok()?,
            number: bytes.try_get_u64().ok()?,
        })
    }
}

impl Node {
    /// Hands committed entries on, in order.
    pub(super) fn dispatch(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        let Some(last) = entries.last().map(|entry| entry.index) else { return Ok(()) };
        let mut items = Vec::with_capacity(entries.len());
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            // Leaders begin their term with an empty entry.
            if let Some(origin) = Origin::decode(&entry.context) {
                let waiting = if origin.member == self.id { self.proposals.committed(origin.number) } else { None };
                if origin.change {
                    self.change_members(&entry, waiting)?;
                } else {
                    let (command, reply) = match waiting {
                        Some(Payload::Command { command, reply, .. }) => (Encoded::Plain(command), Some(reply)),
                        _ => (Encoded::Bytes(entry.data), None),
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

    fn change_members(&mut self, entry: &Entry, waiting: Option<Payload>) -> Result<(), Error> {
        let malformed = || failed("an entry of the log", "it does not say how the members change");
        let conf_change = match entry.get_entry_type() {
            EntryType::EntryNormal => None,
            _ => Some(protobuf::Message::parse_from_carllerche_bytes(&entry.data).map_err(|_| malformed())?),
        };
        let data = conf_change.as_ref().map_or(&entry.data, |change: &ConfChangeV2| &change.context);
        let change = Change::decode(data.clone()).ok_or_else(malformed)?;
        let result = self.membership.apply(&change);
        if result.is_ok() {
            if let Some(conf_change) = conf_change {
                self.raft.apply_conf_change(&conf_change).map_err(|error| failed("changing the members", error))?;
            }
            self.members_changed();
            tracing::info!(member = self.id, ?change, "the members have changed");
        }
        if change == Change::Remove(self.id) && result.is_ok() {
            // The others are still to learn that the entry is committed.
            self.leaving = Some(Instant::now() + self.patience());
        }
        if let Some(Payload::Change { reply, .. }) = waiting {
            answer(reply, result.map(|()| self.membership.list()));
        }
        Ok(())
    }

    pub(super) fn members_changed(&mut self) {
        *self.shared.membership.write() = self.membership.clone();
        self.transport.set_members(&self.membership);
        let members = &self.membership.members;
        self.heard.retain(|id, _| members.contains_key(id));
        self.publish();
    }

    /// Whether it is time to stop.
    pub(super) fn leave(&self) -> Result<(), Error> {
        match self.leaving {
            Some(at) if at <= Instant::now() => {
                Err(Error::Unavailable("this member was removed from the group".into()))
            }
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
