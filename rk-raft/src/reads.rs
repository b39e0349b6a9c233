//! The requests of a member's own clients that wait until it is known what is committed, and for the leader's word on a lease.

use std::collections::BTreeMap;

use rk_store::{Error, LeaseId};
use tokio::time::Instant;

use crate::{
    MemberId,
    message::LeaseAnswer,
    proposals::{Reply, answer},
};

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
    fn deadline(&self) -> Instant {
        match self {
            Self::Read(_, deadline) => *deadline,
            Self::Lease(check) => check.deadline,
        }
    }
}

/// Reads of this member that wait until it is known what is committed. Those that come while one round to a majority is
/// under way share the next.
#[derive(Default)]
pub(crate) struct Reads {
    /// Not yet asked for.
    pub new: Vec<AfterRead>,
    /// Asked for under this number, at this time.
    pub asked: Option<(u64, Vec<AfterRead>, Instant)>,
    /// Answered: they wait until this index is committed here too.
    pub indexed: BTreeMap<u64, Vec<AfterRead>>,
    /// How often the leader had to be asked again, and how many reads were given up.
    pub slow: u64,
    pub failed: u64,
}

impl Reads {
    /// The answer to the round of this number has come: when it was asked for.
    pub(crate) fn answered(&mut self, number: u64, index: u64) -> Option<Instant> {
        let (_, reads, asked) = self.asked.take_if(|(asked, ..)| *asked == number)?;
        self.indexed.entry(index).or_default().extend(reads);
        Some(asked)
    }

    /// Drops those whose time is over, and asks again for those asked for before `before`.
    pub(crate) fn expire(&mut self, now: Instant, before: Instant) {
        if let Some((_, reads, _)) = self.asked.take_if(|(_, _, asked)| *asked <= before) {
            // The lease is renewed without a read that waits for it.
            self.slow += u64::from(!reads.is_empty());
            self.new.extend(reads);
        }
        let waiting = self.indexed.values_mut().chain([&mut self.new]);
        for late in waiting.flat_map(|reads| reads.extract_if(.., |read| read.deadline() <= now)) {
            if let AfterRead::Read(reply, _) = late {
                answer(reply, Err(Error::NoLeader));
                self.failed += 1;
            }
        }
    }

    /// Takes what may go on now that the entries up to this index are known.
    pub(crate) fn ready(&mut self, index: u64) -> Vec<AfterRead> {
        if self.indexed.first_key_value().is_none_or(|(first, _)| *first > index) {
            return Vec::new();
        }
        let later = self.indexed.split_off(&(index + 1));
        std::mem::replace(&mut self.indexed, later).into_values().flatten().collect()
    }
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

/// Fails the questions whose time is over; the numbers of those to be asked again.
pub(crate) fn expire_questions(questions: &mut BTreeMap<u64, LeaseQuestion>, now: Instant) -> Vec<u64> {
    let late: Vec<_> = questions.iter().filter(|(_, question)| question.deadline <= now).map(|(n, _)| *n).collect();
    for late in late.iter().filter_map(|token| questions.remove(token)) {
        answer(late.reply, Err::<i64, Error>(Error::NoLeader));
    }
    questions.iter().filter(|(_, question)| question.again <= now).map(|(token, _)| *token).collect()
}
