//! A change of the members, as it travels in an entry of the log.

use bytes::{Buf, BufMut, Bytes};
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};
use rk_store::{Member, MemberId};

use crate::codec::{put_bytes, put_strings, take_bytes, take_string, take_strings};

/// A change of the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Add(Member),
    Remove(MemberId),
    /// Makes a learner a voter.
    Promote(MemberId),
    /// Other peer URLs.
    Update(MemberId, Vec<String>),
    /// A member that has started tells its name and client URLs.
    Publish(MemberId, String, Vec<String>),
    /// Additions, removals and promotions of different members, all at once.
    Several(Vec<Change>),
}

pub(super) fn put_member(out: &mut Vec<u8>, member: &Member) {
    out.put_u64(member.id);
    put_bytes(out, member.name.as_bytes());
    put_strings(out, &member.peer_urls);
    put_strings(out, &member.client_urls);
    out.put_u8(u8::from(member.is_learner));
}

pub(super) fn take_member(from: &mut Bytes) -> Option<Member> {
    Some(Member {
        id: from.try_get_u64().ok()?,
        name: take_string(from)?,
        peer_urls: take_strings(from)?,
        client_urls: take_strings(from)?,
        is_learner: from.try_get_u8().ok()? == 1,
    })
}

impl Change {
    /// Whom it adds, removes or promotes; `None` for one that does nothing of that, or several of them.
    pub(crate) fn subject(&self) -> Option<MemberId> {
        match self {
            Self::Add(member) => Some(member.id),
            Self::Remove(id) | Self::Promote(id) => Some(*id),
            Self::Update(..) | Self::Publish(..) | Self::Several(_) => None,
        }
    }

    /// Whether it changes who votes or listens.
    pub(crate) fn is_of_raft(&self) -> bool {
        self.subject().is_some() || matches!(self, Self::Several(_))
    }

    /// The changes that it is made of.
    pub(crate) fn parts(&self) -> &[Self] {
        match self {
            Self::Several(changes) => changes,
            one => std::slice::from_ref(one),
        }
    }

    fn single(&self) -> Option<ConfChangeSingle> {
        let kind = match self {
            Self::Add(member) if member.is_learner => ConfChangeType::AddLearnerNode,
            Self::Add(_) | Self::Promote(_) => ConfChangeType::AddNode,
            Self::Remove(_) => ConfChangeType::RemoveNode,
            Self::Update(..) | Self::Publish(..) | Self::Several(_) => return None,
        };
        let mut single = ConfChangeSingle { node_id: self.subject()?, ..ConfChangeSingle::default() };
        single.set_change_type(kind);
        Some(single)
    }

    /// What raft is to change, if who votes or listens changes.
    pub(crate) fn conf_change(&self) -> Option<ConfChangeV2> {
        let singles: Vec<_> = self.parts().iter().map(Self::single).collect::<Option<_>>()?;
        let mut change = ConfChangeV2::default();
        if matches!(self, Self::Several(_)) {
            // Joint, whatever it changes; the leader ends it as soon as it can.
            change.set_transition(ConfChangeTransition::Implicit);
        }
        change.set_changes(singles.into());
        change.context = self.to_bytes();
        Some(change)
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Add(member) => {
                out.put_u8(0);
                put_member(&mut out, member);
            }
            Self::Remove(id) => {
                out.put_u8(1);
                out.put_u64(*id);
            }
            Self::Promote(id) => {
                out.put_u8(2);
                out.put_u64(*id);
            }
            Self::Update(id, peer_urls) => {
                out.put_u8(3);
                out.put_u64(*id);
                put_strings(&mut out, peer_urls);
            }
            Self::Publish(id, name, client_urls) => {
                out.put_u8(4);
                out.put_u64(*id);
                put_bytes(&mut out, name.as_bytes());
                put_strings(&mut out, client_urls);
            }
            Self::Several(changes) => {
                out.put_u8(5);
                out.put_u32(changes.len() as u32);
                changes.iter().for_each(|change| put_bytes(&mut out, &change.to_bytes()));
            }
        }
        out.into()
    }

    pub(crate) fn decode(bytes: Bytes) -> Option<Self> {
        Self::decode_within(bytes, true)
    }

    /// Several may not be made of several again.
    fn decode_within(mut bytes: Bytes, several: bool) -> Option<Self> {
        let from = &mut bytes;
        let change = match from.try_get_u8().ok()? {
            0 => Self::Add(take_member(from)?),
            1 => Self::Remove(from.try_get_u64().ok()?),
            2 => Self::Promote(from.try_get_u64().ok()?),
            3 => Self::Update(from.try_get_u64().ok()?, take_strings(from)?),
            4 => Self::Publish(from.try_get_u64().ok()?, take_string(from)?, take_strings(from)?),
            5 if several => {
                let count = from.try_get_u32().ok()?;
                Self::Several((0..count).map(|_| Self::decode_within(take_bytes(from)?, false)).collect::<Option<_>>()?)
            }
            _ => return None,
        };
        bytes.is_empty().then_some(change)
    }
}
