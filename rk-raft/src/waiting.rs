//! The requests of a member's own clients that wait for the group.

use std::collections::{BTreeMap, VecDeque};

use rk_store::{Error, LeaseId, Outcome};
use tokio::{sync::oneshot, time::Instant};

use crate::{MemberId, message::LeaseAnswer};

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Answers whoever asked. They may have stopped waiting; what they asked for is done all the same.
pub(crate) fn answer<T>(reply: Reply<T>, result: Result<T, Error>) {
    let _gone = reply.send(result);
}

/// A proposal that has no leader yet to go to.
pub(crate) struct Unsent {
    pub command: Vec<u8>,
    pub reply: Reply<Outcome>,
    pub deadline: Instant,
}

/// Proposals of this member.
#[derive(Default)]
pub(crate) struct Proposals {
    pub unsent: VecDeque<Unsent>,
    /// By their numbers; answered when this member applies them.
    pub sent: BTreeMap<u64, (Reply<Outcome>, Instant)>,
}

/// What is done once this member knows that it is up to date.
pub(crate) enum AfterRead {
    /// A client reads, or starts a watch.
    Read(Reply<()>, Instant),
    /// The leader answers about a lease: it still led after it had looked.
    Lease(LeaseCheck),
}

/// A leader's look at a lease, to be confirmed.
pub(crate) struct LeaseCheck {
    pub token: u64,
    /// The member that asks.
    pub from: MemberId,
    pub id: LeaseId,
    pub renew: bool,
    /// What was found, and in which term. `None` if the leader must be up to date before it looks.
    pub found: Option<(u64, LeaseAnswer)>,
    pub deadline: Instant,
}

impl AfterRead {
    pub(crate) fn deadline(&self) -> Instant {
        match self {
            Self::Read(_, deadline) => *deadline,
            Self::Lease(check) => check.deadline,
        }
    }
}

/// Reads of this member that wait until it is known what is committed.
#[derive(Default)]
pub(crate) struct Reads {
    /// Not yet asked for.
    pub new: Vec<AfterRead>,
    /// Asked for under this number, at this time.
    pub asked: BTreeMap<u64, (Vec<AfterRead>, Instant)>,
    /// Answered: they wait until this index is applied.
    pub indexed: BTreeMap<u64, Vec<AfterRead>>,
}

/// A client's question about a lease.
pub(crate) struct LeaseQuestion {
    pub id: LeaseId,
    pub renew: bool,
    pub reply: Reply<i64>,
    pub deadline: Instant,
    /// When to ask again.
    pub again: Instant,
}

/// Takes the values out of a map for which `wanted` holds, in the order of their keys: nothing here may depend on chance.
fn extract<V>(map: &mut BTreeMap<u64, V>, wanted: impl Fn(&V) -> bool) -> Vec<V> {
    let keys: Vec<_> = map.iter().filter(|(_, value)| wanted(value)).map(|(key, _)| *key).collect();
    keys.iter().filter_map(|key| map.remove(key)).collect()
}

fn unknown() -> Error {
    Error::Unavailable("the group did not answer in time; whether the request took effect is not known".into())
}

fn no_quorum() -> Error {
    Error::Unavailable("there is no leader that a majority follows".into())
}

impl Proposals {
    /// Fails those whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        // All wait equally long, so the first is the oldest.
        while self.unsent.front().is_some_and(|unsent| unsent.deadline <= now) {
            if let Some(late) = self.unsent.pop_front() {
                answer(late.reply, Err(no_quorum()));
            }
        }
        for (reply, _) in extract(&mut self.sent, |(_, deadline)| *deadline <= now) {
            answer(reply, Err(unknown()));
        }
    }
}

impl Reads {
    /// Drops those whose time is over, and asks again for those asked for before `before`.
    pub(crate) fn expire(&mut self, now: Instant, before: Instant) {
        let lost = extract(&mut self.asked, |(_, asked)| *asked <= before);
        self.new.extend(lost.into_iter().flat_map(|(reads, _)| reads));
        for late in self.new.extract_if(.., |read| read.deadline() <= now) {
            if let AfterRead::Read(reply, _) = late {
                answer(reply, Err(no_quorum()));
            }
        }
    }

    /// Takes what may go on now that `applied` is applied.
    pub(crate) fn ready(&mut self, applied: u64) -> Vec<AfterRead> {
        let later = self.indexed.split_off(&(applied + 1));
        std::mem::replace(&mut self.indexed, later).into_values().flatten().collect()
    }
}

/// Fails the questions whose time is over; the numbers of those to be asked again.
pub(crate) fn expire_questions(questions: &mut BTreeMap<u64, LeaseQuestion>, now: Instant) -> Vec<u64> {
    for late in extract(questions, |question| question.deadline <= now) {
        answer(late.reply, Err(no_quorum()));
    }
    questions.iter().filter(|(_, question)| question.again <= now).map(|(token, _)| *token).collect()
}
