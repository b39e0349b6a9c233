//! What an entry of the log says.

use bytes::{Buf, BufMut, Bytes};
use raft::eraftpb::{ConfChangeV2, Entry, EntryType};
use rk_store::Error;

use crate::{MemberId, membership::Change, node::failed};

/// What the context of an entry says: whether it changes the members, and who proposed it under which number.
pub(crate) struct Origin {
    pub change: bool,
    pub member: MemberId,
    pub number: u64,
}

impl Origin {
    pub(crate) fn to_bytes(&self) -> Bytes {
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

/// See the module's description.
pub(crate) enum Content {
    /// Leaders begin their term with an empty entry.
    Nothing,
    /// A command of the store's state machine, as bytes.
    Command(Origin, Bytes),
    /// A change of the members, and of raft's view of them if who votes or listens changes.
    Change { origin: Origin, change: Change, conf_change: Option<ConfChangeV2> },
    /// The end of a joint configuration. Raft itself appends it, as the leader.
    LeaveJoint,
}

impl Content {
    /// Whether an entry changes who votes or listens.
    pub(crate) fn is_change(entry: &Entry) -> bool {
        entry.get_entry_type() != EntryType::EntryNormal
    }

    pub(crate) fn of(entry: Entry) -> Result<Self, Error> {
        let Some(origin) = Origin::decode(&entry.context) else {
            return Ok(if Self::is_change(&entry) { Self::LeaveJoint } else { Self::Nothing });
        };
        if !origin.change {
            return Ok(Self::Command(origin, entry.data));
        }
        let malformed = || failed("an entry of the log", "it does not say how the members change");
        let conf_change: Option<ConfChangeV2> = match entry.get_entry_type() {
            EntryType::EntryNormal => None,
            _ => Some(protobuf::Message::parse_from_carllerche_bytes(&entry.data).map_err(|_| malformed())?),
        };
        let data = conf_change.as_ref().map_or(&entry.data, |change| &change.context).clone();
        let change = Change::decode(data).ok_or_else(malformed)?;
        Ok(Self::Change { origin, change, conf_change })
    }
}
