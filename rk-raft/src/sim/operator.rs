//! Members that come and go while clients work, and whether what was said of them holds.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_store::{Cluster, ClusterError, Error, Member, Store};
use tokio::time::sleep;

use super::group::Group;
use crate::{MemberChange, MemberId, RaftStore};

/// The only one who changes the members.
struct Operator {
    group: Arc<Group>,
    random: StdRng,
    /// The members as they must be, and which of them are learners.
    members: BTreeMap<MemberId, bool>,
    /// Members added so far.
    added: u16,
}

/// What became of a change.
enum Outcome {
    Done(Vec<Member>),
    /// It did not take place.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// Most members at a time.
const MOST: usize = 6;
/// Time after which nothing is under way any more of a request that has failed: more than a packet may take.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// Tries to promote a learner before that is given up.
const TRIES: usize = 60;

/// Changes the members until `until` in milliseconds of the run, one change after another, and ends with the last one done; the members
/// as they are then, and which of them are learners.
pub(crate) async fn operate(group: Arc<Group>, seed: u64, until: u64) -> BTreeMap<MemberId, bool> {
    let members = group.ids().into_iter().map(|id| (id, false)).collect();
    let mut operator = Operator { group, random: StdRng::seed_from_u64(seed), members, added: 0 };
    loop {
        let pause = Duration::from_millis(operator.random.random_range(100..2500));
        sleep(pause).await;
        if operator.group.trace.now() >= until {
            return operator.members;
        }
        operator.work().await;
    }
}

impl Operator {
    async fn work(&mut self) {
        let ids: Vec<_> = self.members.keys().copied().collect();
        let voters = self.members.values().filter(|is_learner| !**is_learner).count();
        let learners = ids.len() - voters;
        let any = ids[self.random.random_range(0..ids.len())];
        match self.random.random_range(0..12) {
            0..3 if ids.len() < MOST && learners == 0 => {
                if let Some(id) = self.add(true).await
                    && self.random.random_bool(0.85)
                {
                    self.promote(id).await;
                }
            }
            3 if ids.len() < MOST => drop(self.add(false).await),
            4..6 if voters > 1 => drop(self.remove(any).await),
            6 if voters > 1 => {
                let leader = self.group.any(&mut self.random).and_then(|store| store.leader());
                if let Some(leader) = leader.filter(|leader| self.members.contains_key(leader)) {
                    self.remove(leader).await;
                }
            }
            7..9 if voters > 2 && !self.members[&any] => {
                self.group.lose(any);
                while !self.remove(any).await {
                    sleep(Duration::from_millis(300)).await;
                }
                if learners == 0
                    && let Some(id) = self.add(true).await
                {
                    self.promote(id).await;
                }
            }
            9 => {
                let leader = self.group.any(&mut self.random).and_then(|store| self.group.member(store.leader()?));
                if let Some(leader) = leader {
                    let result = leader.move_leader(any).await;
                    self.group.trace.tell(|| format!("operator: leadership from {} to {any}: {result:?}", leader.id()));
                }
            }
            10 if voters > 2 && !self.members[&any] => {
                // A learner takes the place of one that is dead, if there is one that is well enough.
                self.group.lose(any);
                let learner = self.members.iter().find(|(_, is_learner)| **is_learner).map(|(id, _)| *id);
                let place = learner.map_or_else(|| self.addition(false), MemberChange::Promote);
                let mut tries = 0;
                while !self.change_together(vec![place.clone(), MemberChange::Remove(any)]).await {
                    tries += 1;
                    if tries > TRIES / 2 && self.remove(any).await {
                        break;
                    }
                    sleep(Duration::from_millis(300)).await;
                }
            }
            11 if ids.len() < MOST => {
                let other = ids[self.random.random_range(0..ids.len())];
                let mut changes = vec![self.addition(false)];
                match self.random.random_range(0..3) {
                    0 => changes.push(self.addition(learners == 0)),
                    1 if voters > 1 => changes.push(MemberChange::Remove(any)),
                    _ if voters > 2 && any != other => {
                        changes.extend([MemberChange::Remove(any), MemberChange::Remove(other)]);
                    }
                    _ => return,
                }
                self.change_together(changes).await;
            }
            _ => {}
        }
    }

    /// A new member, at an address of its own.
    fn addition(&mut self, learner: bool) -> MemberChange {
        self.added += 1;
        MemberChange::Add { peer_urls: vec![format!("http://127.0.0.1:{}", self.added)], learner }
    }

    /// Makes changes by joint consensus; whether they took place.
    async fn change_together(&mut self, changes: Vec<MemberChange>) -> bool {
        let mut wanted = self.members.clone();
        let mut added = Vec::new();
        for change in &changes {
            match change {
                MemberChange::Add { peer_urls, learner } => added.push((peer_urls[0].clone(), *learner)),
                MemberChange::Promote(id) => drop(wanted.insert(*id, false)),
                MemberChange::Remove(id) => {
                    self.group.note_removal(*id);
                    wanted.remove(id);
                }
            }
        }
        let store = self.ask().await;
        let what = format!("together {changes:?}");
        let mut members = match self.outcome(&what, store.change_members(changes).await) {
            Outcome::Done(members) => members,
            Outcome::Refused => return false,
            Outcome::Unknown => {
                let url = added.first().map(|(url, _)| url.clone());
                self.settled(url.as_deref()).await
            }
        };
        loop {
            let mut after = wanted.clone();
            for (url, learner) in &added {
                let id = members.iter().find(|member| member.peer_urls.contains(url)).map(|member| member.id);
                after.extend(id.map(|id| (id, *learner)));
            }
            let found = of(&members);
            if found == after || found == self.members {
                let news: Vec<_> = found.keys().filter(|id| !self.members.contains_key(id)).copied().collect();
                self.members = found;
                for id in news {
                    self.begin(id).await;
                }
                return self.members == after;
            }
            // Those that leave are members until all is done.
            members = self.settled(None).await;
        }
    }

    /// A member to ask.
    async fn ask(&mut self) -> Arc<RaftStore> {
        loop {
            match self.group.any(&mut self.random) {
                Some(store) => return store,
                None => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn outcome(&self, what: &str, result: Result<Vec<Member>, ClusterError>) -> Outcome {
        use ClusterError::*;
        self.group.trace.tell(|| match &result {
            Ok(members) => format!("operator: {what}: members {:?}", of(members)),
            Err(error) => format!("operator: {what}: {error}"),
        });
        match result {
            Ok(members) => Outcome::Done(members),
            Err(TimedOut | Store(Error::Timeout | Error::Unavailable(_))) => Outcome::Unknown,
            Err(_) => Outcome::Refused,
        }
    }

    /// Starts a new member, if that was not done.
    async fn begin(&self, id: MemberId) {
        if !self.group.ids().contains(&id) {
            self.group.add(id, true);
        }
        self.group.start(id).await;
    }

    /// The members, once nothing is under way any more; perhaps one more, with this address.
    async fn settled(&mut self, adding: Option<&str>) -> Vec<Member> {
        sleep(UNDER_WAY).await;
        loop {
            let store = self.ask().await;
            // What an earlier leader has in its log and this is not in can't be committed any more.
            if store.put("operator".into(), self.group.trace.now().to_string().into()).await.is_ok()
                && let Ok(members) = store.members(true).await
            {
                self.group.trace.tell(|| format!("operator: members {:?}", of(&members)));
                return members;
            }
            // Once there is a second voter, the group does nothing without it.
            let known = store.members(false).await.unwrap_or_default();
            let of = |url: &str| known.iter().find(|member| member.peer_urls.iter().any(|of| of == url));
            if let Some(member) = adding.and_then(of) {
                self.begin(member.id).await;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Notes the members after a change that makes them `wanted`, or left them as they were.
    fn note(&mut self, members: &[Member], wanted: BTreeMap<MemberId, bool>) {
        let found = of(members);
        if found != wanted && found != self.members {
            let before = &self.members;
            self.group
                .trace
                .violation(format!("the members are {found:?}, were {before:?} and may have become {wanted:?}"));
        }
        self.members = found;
    }

    async fn add(&mut self, learner: bool) -> Option<MemberId> {
        self.added += 1;
        let url = format!("http://127.0.0.1:{}", self.added);
        let store = self.ask().await;
        let result = store.member_add(vec![url.clone()], learner).await.map(|(_, members)| members);
        let members = match self.outcome(&format!("adding {url}"), result) {
            Outcome::Done(members) => members,
            Outcome::Refused => return None,
            Outcome::Unknown => self.settled(Some(&url)).await,
        };
        let id = members.iter().find(|member| member.peer_urls.contains(&url)).map(|member| member.id);
        let mut wanted = self.members.clone();
        wanted.extend(id.map(|id| (id, learner)));
        self.note(&members, wanted);
        let id = id?;
        self.begin(id).await;
        Some(id)
    }

    async fn promote(&mut self, id: MemberId) {
        for _ in 0..TRIES {
            let store = self.ask().await;
            let members = match self.outcome(&format!("promoting {id}"), store.member_promote(id).await) {
                Outcome::Done(members) => members,
                Outcome::Refused => {
                    sleep(Duration::from_millis(200)).await;
                    continue;
                }
                Outcome::Unknown => self.settled(None).await,
            };
            let mut wanted = self.members.clone();
            wanted.insert(id, false);
            self.note(&members, wanted);
            if self.members.get(&id) == Some(&false) {
                return;
            }
        }
    }

    /// Whether the member is gone.
    async fn remove(&mut self, id: MemberId) -> bool {
        self.group.note_removal(id);
        let store = self.ask().await;
        let members = match self.outcome(&format!("removing {id}"), store.member_remove(id).await) {
            Outcome::Done(members) => members,
            Outcome::Refused => return false,
            Outcome::Unknown => self.settled(None).await,
        };
        let mut wanted = self.members.clone();
        wanted.remove(&id);
        self.note(&members, wanted);
        !self.members.contains_key(&id)
    }
}

/// Who is a member, and whether as a learner.
pub(crate) fn of(members: &[Member]) -> BTreeMap<MemberId, bool> {
    members.iter().map(|member| (member.id, member.is_learner)).collect()
}
