//! Who belongs to the group, as part of the replicated state: members, their attributes, and who was removed.
//!
//! Changes are entries of the log. Each is checked where it is applied, against what all members agree on by then,
//! so all of them refuse the same ones.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes};
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use rk_store::{ClusterError, Member, MemberId};
use sha2::{Digest, Sha256};

use crate::codec::{put_bytes, put_strings, take_string, take_strings};

/// Most learners that a group has at a time: etcd's default.
pub const MAX_LEARNERS: usize = 1;

/// The members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// The group's id.
    pub cluster_id: u64,
    /// The members.
    pub members: BTreeMap<MemberId, Member>,
    /// Members that were removed: they never come back under their ids.
    pub removed: BTreeSet<MemberId>,
}

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
}

fn id_of(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let id = hash.finalize().iter().take(8).fold(0, |id, &byte| (id << 8) | u64::from(byte));
    id.max(1)
}

/// The id of a member with these peer URLs in the group of this token. `salt` tells members apart that are added later.
pub(crate) fn member_id(peer_urls: &[String], token: &str, salt: &[u8]) -> MemberId {
    let mut urls = peer_urls.to_vec();
    urls.sort_unstable();
    id_of(&[urls.join(",").as_bytes(), token.as_bytes(), salt])
}

impl Membership {
    /// A new group of these members, all of them voters: each with its name and its peer URLs. All who are told the same
    /// members and the same token come to the same ids.
    ///
    /// # Errors
    /// [`ClusterError::InvalidUrls`] if a member has no URLs, [`ClusterError::PeerUrlExists`] if two have the same one.
    pub fn bootstrap(members: &[(String, Vec<String>)], token: &str) -> Result<Self, ClusterError> {
        let mut group = Self::default();
        for (name, peer_urls) in members {
            let id = member_id(peer_urls, token, &[]);
            let member = Member { id, name: name.clone(), peer_urls: peer_urls.clone(), ..Member::default() };
            group.apply(&Change::Add(member))?;
        }
        let ids: Vec<u8> = group.members.keys().flat_map(|id| id.to_be_bytes()).collect();
        group.cluster_id = id_of(&[&ids, token.as_bytes()]);
        Ok(group)
    }

    /// A group of members with these numbers, for tests and for groups that need no addresses.
    pub fn numbered(ids: &[MemberId]) -> Self {
        let member = |&id: &MemberId| (id, Member { id, name: id.to_string(), ..Member::default() });
        Self { cluster_id: 1, members: ids.iter().map(member).collect(), removed: BTreeSet::new() }
    }

    /// A new group of one of the members, without the others: `salt` tells its id from that of another such group.
    pub(crate) fn alone(&self, id: MemberId, salt: u64) -> Self {
        let mut member = self.members.get(&id).cloned().unwrap_or(Member { id, ..Member::default() });
        member.is_learner = false;
        let others = self.members.keys().copied().filter(|other| *other != id);
        Self {
            cluster_id: id_of(&[&self.cluster_id.to_be_bytes(), &id.to_be_bytes(), &salt.to_be_bytes()]),
            removed: self.removed.iter().copied().chain(others).collect(),
            members: BTreeMap::from([(id, member)]),
        }
    }

    /// The members that vote.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !member.is_learner)
    }

    /// What raft must know of the members.
    pub(crate) fn conf_state(&self) -> ConfState {
        let ids = |learner| {
            self.members.values().filter(|member| member.is_learner == learner).map(|member| member.id).collect()
        };
        ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() }
    }

    /// The members in the order of their ids.
    pub(crate) fn list(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }

    fn get(&mut self, id: MemberId) -> Result<&mut Member, ClusterError> {
        self.members.get_mut(&id).ok_or(ClusterError::MemberNotFound)
    }

    fn check_urls(&self, id: MemberId, peer_urls: &[String]) -> Result<(), ClusterError> {
        let mut others = self.members.values().filter(|member| member.id != id);
        if others.any(|member| member.peer_urls.iter().any(|url| peer_urls.contains(url))) {
            return Err(ClusterError::PeerUrlExists);
        }
        Ok(())
    }

    /// Whether a change is possible now.
    pub(crate) fn check(&self, change: &Change) -> Result<(), ClusterError> {
        self.clone().apply(change)
    }

    /// Makes a change.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<(), ClusterError> {
        match change {
            Change::Add(member) => {
                if self.removed.contains(&member.id) || self.members.contains_key(&member.id) {
                    return Err(ClusterError::MemberExists);
                }
                self.check_urls(member.id, &member.peer_urls)?;
                let learners = self.members.values().filter(|member| member.is_learner).count();
                if member.is_learner && learners >= MAX_LEARNERS {
                    return Err(ClusterError::TooManyLearners);
                }
                self.members.insert(member.id, member.clone());
            }
            Change::Remove(id) => {
                self.members.remove(id).ok_or(ClusterError::MemberNotFound)?;
                self.removed.insert(*id);
            }
            Change::Promote(id) => {
                let member = self.get(*id)?;
                if !member.is_learner {
                    return Err(ClusterError::NotLearner);
                }
                member.is_learner = false;
            }
            Change::Update(id, peer_urls) => {
                self.check_urls(*id, peer_urls)?;
                self.get(*id)?.peer_urls.clone_from(peer_urls);
            }
            Change::Publish(id, name, client_urls) => {
                let member = self.get(*id)?;
                member.name.clone_from(name);
                member.client_urls.clone_from(client_urls);
            }
        }
        Ok(())
    }

    /// Appends the membership's bytes to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.cluster_id);
        out.put_u32(self.members.len() as u32);
        for member in self.members.values() {
            put_member(out, member);
        }
        out.put_u32(self.removed.len() as u32);
        self.removed.iter().for_each(|id| out.put_u64(*id));
    }

    /// Takes a membership off the front.
    pub(crate) fn decode(from: &mut Bytes) -> Option<Self> {
        let mut group = Self { cluster_id: from.try_get_u64().ok()?, ..Self::default() };
        for _ in 0..from.try_get_u32().ok()? {
            let member = take_member(from)?;
            group.members.insert(member.id, member);
        }
        for _ in 0..from.try_get_u32().ok()? {
            group.removed.insert(from.try_get_u64().ok()?);
        }
        Some(group)
    }
}

fn put_member(out: &mut Vec<u8>, member: &Member) {
    out.put_u64(member.id);
    put_bytes(out, member.name.as_bytes());
    put_strings(out, &member.peer_urls);
    put_strings(out, &member.client_urls);
    out.put_u8(u8::from(member.is_learner));
}

fn take_member(from: &mut Bytes) -> Option<Member> {
    Some(Member {
        id: from.try_get_u64().ok()?,
        name: take_string(from)?,
        peer_urls: take_strings(from)?,
        client_urls: take_strings(from)?,
        is_learner: from.try_get_u8().ok()? == 1,
    })
}

impl Change {
    /// What raft is to change, if who votes or listens changes.
    pub(crate) fn conf_change(&self) -> Option<ConfChangeV2> {
        let (id, kind) = match self {
            Self::Add(member) if member.is_learner => (member.id, ConfChangeType::AddLearnerNode),
            Self::Add(member) => (member.id, ConfChangeType::AddNode),
            Self::Promote(id) => (*id, ConfChangeType::AddNode),
            Self::Remove(id) => (*id, ConfChangeType::RemoveNode),
            Self::Update(..) | Self::Publish(..) => return None,
        };
        let mut single = ConfChangeSingle { node_id: id, ..ConfChangeSingle::default() };
        single.set_change_type(kind);
        let mut change = ConfChangeV2::default();
        change.set_changes(vec![single].into());
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
        }
        out.into()
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        let from = &mut bytes;
        let change = match from.try_get_u8().ok()? {
            0 => Self::Add(take_member(from)?),
            1 => Self::Remove(from.try_get_u64().ok()?),
            2 => Self::Promote(from.try_get_u64().ok()?),
            3 => Self::Update(from.try_get_u64().ok()?, take_strings(from)?),
            4 => Self::Publish(from.try_get_u64().ok()?, take_string(from)?, take_strings(from)?),
            _ => return None,
        };
        bytes.is_empty().then_some(change)
    }
}

/// Whether a group can be told of peers at these URLs.
pub(crate) fn check_urls(peer_urls: &[String]) -> Result<(), ClusterError> {
    let usable = |url: &String| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        rest.is_some_and(|address| address.contains(':') && !address.contains('/'))
    };
    if peer_urls.is_empty() || !peer_urls.iter().all(usable) { Err(ClusterError::InvalidUrls) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Membership {
        let member = |name: &str, port: u16| (name.to_owned(), vec![format!("http://127.0.0.1:{port}")]);
        Membership::bootstrap(&[member("a", 1), member("b", 2), member("c", 3)], "token").unwrap()
    }

    #[test]
    fn all_members_come_to_the_same_ids() {
        assert_eq!(three(), three());
        let urls = vec!["http://127.0.0.1:1".to_owned()];
        let other = Membership::bootstrap(&[("a".into(), urls)], "other token").unwrap();
        assert_ne!(three().cluster_id, other.cluster_id);
        assert!(three().members.keys().all(|id| !other.members.contains_key(id)), "the token is part of the ids");
    }

    #[test]
    fn changes_survive_their_bytes() {
        let member = Member { id: 9, name: "n".into(), peer_urls: vec!["p".into()], ..Member::default() };
        let changes = [
            Change::Add(member),
            Change::Remove(1),
            Change::Promote(2),
            Change::Update(3, vec!["a".into(), "b".into()]),
            Change::Publish(4, "name".into(), vec!["c".into()]),
        ];
        for change in changes {
            let bytes = change.to_bytes();
            assert_eq!(Change::decode(bytes.clone()), Some(change));
            assert!((0..bytes.len()).all(|len| Change::decode(bytes.slice(..len)).is_none()));
        }
        let mut bytes = Vec::new();
        three().encode(&mut bytes);
        assert_eq!(Membership::decode(&mut bytes.into()), Some(three()));
    }

    #[test]
    fn impossible_changes_are_refused_and_change_nothing() {
        let mut group = three();
        let first = group.list()[0].clone();
        let new = Member { id: 5, peer_urls: vec!["http://h:9".into()], is_learner: true, ..Member::default() };
        let refused = |change: Change| format!("{:?}", three().check(&change).unwrap_err());
        assert_eq!(refused(Change::Add(first.clone())), "MemberExists");
        assert_eq!(refused(Change::Add(Member { id: 5, ..first.clone() })), "PeerUrlExists");
        assert_eq!(refused(Change::Remove(5)), "MemberNotFound");
        assert_eq!(refused(Change::Promote(first.id)), "NotLearner");
        assert_eq!(refused(Change::Update(5, vec![])), "MemberNotFound");
        group.apply(&Change::Add(new.clone())).unwrap();
        let second = Member { id: 6, peer_urls: vec!["http://h:8".into()], ..new };
        assert!(matches!(group.apply(&Change::Add(second)), Err(ClusterError::TooManyLearners)));
        group.apply(&Change::Promote(5)).unwrap();
        group.apply(&Change::Remove(5)).unwrap();
        let again = Member { id: 5, peer_urls: vec!["http://h:7".into()], ..Member::default() };
        assert!(matches!(group.apply(&Change::Add(again)), Err(ClusterError::MemberExists)), "ids are not given again");
    }
}
