//! Who belongs to the group, as part of the replicated state: members, their attributes, and who was removed.
//!
//! Changes are entries of the log. Each is checked where it is applied, against what all members agree on by then,
//! so all of them refuse the same ones.
//!
//! Several changes at once go through a joint configuration (section 6 of the raft paper, and 4.3 of its author's thesis): from the entry
//! that makes them on, decisions take a majority of the old voters and one of the new, until the leader's next such entry ends that.

mod change;

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes};
use raft::eraftpb::ConfState;
use rk_store::{ClusterError, Error, Member, MemberId};
use sha2::{Digest, Sha256};

pub(crate) use self::change::Change;
use self::change::{put_member, take_member};

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
    /// In a joint configuration, the voters of the one that it came from: a majority of them too must agree. Else none.
    pub outgoing: BTreeSet<MemberId>,
    /// In a joint configuration, the members that are removed when it ends.
    pub leaving: BTreeSet<MemberId>,
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
        Self { cluster_id: 1, members: ids.iter().map(member).collect(), ..Self::default() }
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
            ..Self::default()
        }
    }

    fn staying(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !self.leaving.contains(&member.id))
    }

    /// The members that vote. In a joint configuration these are the new voters.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.staying().filter(|member| !member.is_learner)
    }

    /// Whether a member's vote counts, among the old voters or the new.
    pub(crate) fn votes(&self, id: MemberId) -> bool {
        self.outgoing.contains(&id) || self.voters().any(|voter| voter.id == id)
    }

    /// Whether the configuration is a joint one.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// What raft must know of the members.
    pub(crate) fn conf_state(&self) -> ConfState {
        let ids =
            |learner| self.staying().filter(|member| member.is_learner == learner).map(|member| member.id).collect();
        ConfState {
            voters: ids(false),
            learners: ids(true),
            voters_outgoing: self.outgoing.iter().copied().collect(),
            auto_leave: self.is_joint(),
            ..ConfState::default()
        }
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
        if self.is_joint() && change.is_of_raft() {
            return Err(invalid("the members are changing: another change can be made afterwards"));
        }
        match change {
            Change::Several(changes) => *self = self.joint(changes)?,
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

    /// The joint configuration that leads to all these changes. They are made in an order in which none stands in another's way: what one
    /// that goes leaves, its address, is free for one that comes.
    fn joint(&self, changes: &[Change]) -> Result<Self, ClusterError> {
        let mut after = self.clone();
        let mut changed = BTreeSet::new();
        let mut ordered: Vec<_> = changes.iter().collect();
        ordered.sort_by_key(|change| match change {
            Change::Remove(_) => 0,
            Change::Promote(_) => 1,
            _ => 2,
        });
        for change in ordered {
            let id = change.subject().ok_or_else(|| invalid("only who votes or listens can be changed together"))?;
            if !changed.insert(id) {
                return Err(invalid(format!("the member {id:x} can't be changed twice at once")));
            }
            after.apply(change)?;
        }
        if after.voters().next().is_none() {
            return Err(invalid("nobody would be left to vote"));
        }
        let leaving: Vec<_> = self.members.values().filter(|member| !after.members.contains_key(&member.id)).collect();
        Ok(Self {
            outgoing: self.voters().map(|voter| voter.id).collect(),
            leaving: leaving.iter().map(|member| member.id).collect(),
            members: leaving.into_iter().map(|member| (member.id, member.clone())).chain(after.members).collect(),
            removed: self.removed.clone(),
            cluster_id: self.cluster_id,
        })
    }

    /// Ends a joint configuration; who was removed with it.
    pub(crate) fn leave_joint(&mut self) -> BTreeSet<MemberId> {
        self.outgoing.clear();
        let gone = std::mem::take(&mut self.leaving);
        self.members.retain(|id, _| !gone.contains(id));
        self.removed.extend(&gone);
        gone
    }

    /// Appends the membership's bytes to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.cluster_id);
        out.put_u32(self.members.len() as u32);
        for member in self.members.values() {
            put_member(out, member);
        }
        out.put_u32(self.removed.len() as u32 | if self.is_joint() { JOINT } else { 0 });
        self.removed.iter().for_each(|id| out.put_u64(*id));
        if self.is_joint() {
            for ids in [&self.outgoing, &self.leaving] {
                out.put_u32(ids.len() as u32);
                ids.iter().for_each(|id| out.put_u64(*id));
            }
        }
    }

    /// Takes a membership off the front.
    pub(crate) fn decode(from: &mut Bytes) -> Option<Self> {
        let mut group = Self { cluster_id: from.try_get_u64().ok()?, ..Self::default() };
        for _ in 0..from.try_get_u32().ok()? {
            let member = take_member(from)?;
            group.members.insert(member.id, member);
        }
        let removed = from.try_get_u32().ok()?;
        group.removed = take_ids(from, removed & !JOINT)?;
        if removed & JOINT != 0 {
            for ids in [&mut group.outgoing, &mut group.leaving] {
                let count = from.try_get_u32().ok()?;
                *ids = take_ids(from, count)?;
            }
        }
        Some(group)
    }
}

/// Marks the number of removed members in the bytes of a joint configuration.
const JOINT: u32 = 1 << 31;

fn take_ids(from: &mut Bytes, count: u32) -> Option<BTreeSet<MemberId>> {
    (0..count).map(|_| from.try_get_u64().ok()).collect()
}

fn invalid(reason: impl Into<String>) -> ClusterError {
    ClusterError::Store(Error::Invalid(reason.into()))
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
            Change::Several(vec![Change::Remove(1), Change::Promote(2)]),
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

    fn ids<'a>(members: impl IntoIterator<Item = &'a Member>) -> Vec<MemberId> {
        members.into_iter().map(|member| member.id).collect()
    }

    #[test]
    fn several_changes_go_through_a_joint_configuration() {
        let mut group = Membership::numbered(&[1, 2, 3]);
        let new =
            |id, is_learner| Member { id, peer_urls: vec![format!("http://h:{id}")], is_learner, ..Member::default() };
        group.apply(&Change::Add(new(4, true))).unwrap();
        let replace = Change::Several(vec![Change::Promote(4), Change::Remove(3), Change::Add(new(5, false))]);
        group.apply(&replace).unwrap();
        assert!(group.is_joint());
        assert_eq!(ids(group.voters()), [1, 2, 4, 5]);
        assert_eq!(ids(&group.list()), [1, 2, 3, 4, 5], "who leaves is there until the old voters are needed no more");
        let state = group.conf_state();
        assert_eq!((&state.voters[..], &state.voters_outgoing[..]), (&[1, 2, 4, 5][..], &[1, 2, 3][..]));
        assert!(state.auto_leave && state.learners.is_empty() && group.votes(3) && !group.removed.contains(&3));
        // It survives its bytes, and takes no other change but of names and addresses.
        let mut bytes = Vec::new();
        group.encode(&mut bytes);
        let bytes = Bytes::from(bytes);
        assert_eq!(Membership::decode(&mut bytes.clone()), Some(group.clone()));
        assert!((0..bytes.len()).all(|len| Membership::decode(&mut bytes.slice(..len)).is_none()));
        assert!(matches!(group.check(&Change::Remove(1)), Err(ClusterError::Store(Error::Invalid(_)))));
        group.apply(&Change::Update(1, vec!["http://h:1".into()])).unwrap();
        assert_eq!(group.leave_joint(), BTreeSet::from([3]));
        assert_eq!((ids(&group.list()), group.is_joint()), (vec![1, 2, 4, 5], false));
        assert!(group.removed.contains(&3) && !group.votes(3));
        assert!(matches!(group.apply(&Change::Add(new(3, false))), Err(ClusterError::MemberExists)));
    }

    #[test]
    fn in_what_order_changes_are_named_does_not_matter() {
        let mut group = Membership::numbered(&[1, 2, 3]);
        let new = |id, is_learner| Member { id, peer_urls: vec!["http://h:3".into()], is_learner, ..Member::default() };
        group.apply(&Change::Update(3, vec!["http://h:3".into()])).unwrap();
        group.apply(&Change::Add(Member { peer_urls: vec!["http://h:4".into()], ..new(4, true) })).unwrap();
        let changes = vec![Change::Add(new(5, true)), Change::Promote(4), Change::Remove(3)];
        for changes in [changes.clone(), changes.into_iter().rev().collect()] {
            let mut after = group.clone();
            after.apply(&Change::Several(changes)).unwrap();
            after.leave_joint();
            assert_eq!(ids(&after.list()), [1, 2, 4, 5]);
        }
    }

    #[test]
    fn impossible_changes_are_refused_together_too() {
        let group = Membership::numbered(&[1, 2]);
        let refused = |changes: Vec<Change>| group.check(&Change::Several(changes)).unwrap_err().to_string();
        assert!(refused(vec![Change::Remove(1), Change::Remove(2)]).contains("nobody would be left to vote"));
        assert!(refused(vec![Change::Remove(1), Change::Promote(1)]).contains("twice"));
        assert!(refused(vec![Change::Remove(1), Change::Update(2, vec![])]).contains("only who votes"));
        assert!(refused(vec![Change::Remove(1), Change::Remove(3)]).contains("not found"));
        let nested = Change::Several(vec![Change::Several(vec![Change::Remove(1)])]);
        assert_eq!(Change::decode(nested.to_bytes()), None);
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
