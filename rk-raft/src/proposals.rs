//! The proposals of a member's own clients, and what becomes of them.
//!
//! A proposal is sent to the leader of one term, which takes it in that term only and only once, however often it comes. So what
//! was sent is settled by the log: it is there, or an entry of a later term is there first, and then it never will
//! be and is sent again, to the next leader.

use std::collections::{BTreeMap, VecDeque, btree_map::Entry};

use bytes::Bytes;
use rk_store::{ClusterError, Command, Error, Member, Outcome};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    MemberId,
    membership::Change,
    message::{Proposed, Refusal},
};

pub(crate) type Reply<T, E = Error> = oneshot::Sender<Result<T, E>>;

/// Answers whoever asked. They may have stopped waiting; what they asked for is done all the same.
pub(crate) fn answer<T, E>(reply: Reply<T, E>, result: Result<T, E>) {
    let _gone = reply.send(result);
}

/// What is proposed, and who waits for it.
pub(crate) enum Payload {
    Command { command: Command, data: Bytes, reply: Reply<Outcome> },
    Change { change: Change, reply: Reply<Vec<Member>, ClusterError> },
}

impl Payload {
    fn proposed(&self, number: u64) -> Proposed {
        match self {
            Self::Command { data, .. } => Proposed { number, change: false, data: data.clone() },
            Self::Change { change, .. } => Proposed { number, change: true, data: change.to_bytes() },
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Command { data, .. } => data.len() + 128,
            Self::Change { .. } => 1024,
        }
    }

    fn fail(self, error: Error) {
        match self {
            Self::Command { reply, .. } => answer(reply, Err(error)),
            Self::Change { reply, .. } => answer(reply, Err(ClusterError::Store(error))),
        }
    }

    fn time_out(self, error: Error) {
        match self {
            Self::Command { reply, .. } => answer(reply, Err(error)),
            Self::Change { reply, .. } => answer(reply, Err(ClusterError::TimedOut)),
        }
    }
}

struct Sent {
    payload: Payload,
    term: u64,
    deadline: Instant,
    /// When it was last sent.
    at: Instant,
}

/// See the module's description.
#[derive(Default)]
pub(crate) struct Proposals {
    unsent: VecDeque<(Payload, Instant)>,
    sent: BTreeMap<u64, Sent>,
    bytes: usize,
}

/// Most proposals of one member on their way, and most bytes of them.
const MOST: usize = 8192;
const MOST_BYTES: usize = 64 << 20;

impl Proposals {
    /// Whether more may come.
    pub(crate) fn has_room(&self) -> bool {
        self.unsent.len() + self.sent.len() < MOST && self.bytes < MOST_BYTES
    }

    pub(crate) fn push(&mut self, payload: Payload, deadline: Instant) {
        self.bytes += payload.bytes();
        self.unsent.push_back((payload, deadline));
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Takes what waits, as sent to the leader of a term.
    pub(crate) fn send(&mut self, term: u64, now: Instant, mut number: impl FnMut() -> u64) -> Vec<Proposed> {
        let mut items = Vec::with_capacity(self.unsent.len());
        for (payload, deadline) in self.unsent.drain(..) {
            let number = number();
            items.push(payload.proposed(number));
            self.sent.insert(number, Sent { payload, term, deadline, at: now });
        }
        items
    }

    /// Those sent in a term before `before` that are not settled, to be sent once more.
    pub(crate) fn resend(&mut self, term: u64, before: Instant, now: Instant) -> Vec<Proposed> {
        let lost = self.sent.iter_mut().filter(|(_, sent)| sent.term == term && sent.at <= before);
        let again = lost.map(|(number, sent)| {
            sent.at = now;
            sent.payload.proposed(*number)
        });
        again.collect()
    }

    /// The number below which all is settled.
    pub(crate) fn floor(&self) -> u64 {
        self.sent.first_key_value().map_or(u64::MAX, |(number, _)| *number)
    }

    /// Takes the proposal of an entry that was committed.
    pub(crate) fn committed(&mut self, number: u64) -> Option<Payload> {
        let payload = self.sent.remove(&number)?.payload;
        self.bytes -= payload.bytes();
        Some(payload)
    }

    /// An entry of this term was committed: those sent in earlier terms and still here are not in the log and never will be.
    pub(crate) fn term_began(&mut self, term: u64) {
        self.take_back(|sent| sent.term < term);
    }

    /// The leader of a term does not propose this one.
    pub(crate) fn refused(&mut self, number: u64, term: u64, reason: Refusal) {
        if self.sent.get(&number).is_none_or(|sent| sent.term != term) {
            return;
        }
        match reason.error() {
            None => self.take_back_one(number),
            Some(error) => match self.committed(number) {
                Some(Payload::Change { reply, .. }) => answer(reply, Err(error)),
                // Commands are refused for no other reason than that it is too early.
                Some(command) => command.fail(Error::Unavailable(error.to_string())),
                None => {}
            },
        }
    }

    fn take_back_one(&mut self, number: u64) {
        if let Some(sent) = self.sent.remove(&number) {
            self.unsent.push_back((sent.payload, sent.deadline));
        }
    }

    fn take_back(&mut self, which: impl Fn(&Sent) -> bool) {
        let numbers: Vec<_> = self.sent.iter().filter(|(_, sent)| which(sent)).map(|(number, _)| *number).collect();
        // Before those that came later, in their order.
        for number in numbers.into_iter().rev() {
            if let Some(sent) = self.sent.remove(&number) {
                self.unsent.push_front((sent.payload, sent.deadline));
            }
        }
    }

    /// The state was replaced by one from elsewhere, which may hold any of those sent.
    pub(crate) fn lose_track(&mut self) {
        for sent in std::mem::take(&mut self.sent).into_values() {
            self.bytes -= sent.payload.bytes();
            sent.payload.time_out(Error::Timeout);
        }
    }

    /// Fails those whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        let mut bytes = 0;
        let mut late = Vec::new();
        let mut kept = VecDeque::with_capacity(self.unsent.len());
        for (payload, deadline) in self.unsent.drain(..) {
            if deadline <= now {
                bytes += payload.bytes();
                late.push((payload, Error::NoLeader));
            } else {
                kept.push_back((payload, deadline));
            }
        }
        self.unsent = kept;
        let numbers: Vec<_> = self.sent.iter().filter(|(_, sent)| sent.deadline <= now).map(|(n, _)| *n).collect();
        for sent in numbers.iter().filter_map(|number| self.sent.remove(number)) {
            bytes += sent.payload.bytes();
            late.push((sent.payload, Error::Timeout));
        }
        self.bytes -= bytes;
        for (payload, error) in late {
            payload.time_out(error);
        }
    }

    /// Fails what waits to be sent: nothing can be written now.
    pub(crate) fn refuse_unsent(&mut self, error: &Error) {
        for (payload, _) in std::mem::take(&mut self.unsent) {
            self.bytes -= payload.bytes();
            payload.fail(error.clone());
        }
    }
}

/// What a leader has taken from other members in its term, so that it takes nothing twice.
#[derive(Default)]
pub(crate) struct Taken {
    term: u64,
    by_member: BTreeMap<MemberId, (u64, BTreeMap<u64, Option<Refusal>>)>,
}

/// How a leader knows a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It comes for the first time.
    No,
    /// It was proposed, or is settled.
    Proposed,
    /// It was refused, and the sender may not have heard of it. It must not be proposed any more: the sender may have.
    Refused(Refusal),
}

impl Taken {
    /// Takes one; `floor` is the number below which all of that member's are settled.
    pub(crate) fn take(&mut self, term: u64, from: MemberId, floor: u64, number: u64) -> Known {
        if self.term != term {
            *self = Self { term, by_member: BTreeMap::new() };
        }
        let (settled, numbers) = self.by_member.entry(from).or_default();
        if floor > *settled {
            *settled = floor;
            *numbers = numbers.split_off(&floor);
        }
        if number < *settled {
            return Known::Proposed;
        }
        match numbers.entry(number) {
            Entry::Vacant(place) => {
                place.insert(None);
                Known::No
            }
            Entry::Occupied(known) => known.get().map_or(Known::Proposed, Known::Refused),
        }
    }

    /// One that was taken and then not proposed after all.
    pub(crate) fn refuse(&mut self, from: MemberId, number: u64, reason: Refusal) {
        if let Some((_, numbers)) = self.by_member.get_mut(&from) {
            numbers.insert(number, Some(reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(proposals: &mut Proposals, deadline: Instant) -> oneshot::Receiver<Result<Outcome, Error>> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Compact(1);
        proposals.push(Payload::Command { command, data: Bytes::from_static(b"x"), reply }, deadline);
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_later_term_has_overtaken_is_sent_again() {
        let (mut proposals, now) = (Proposals::default(), Instant::now());
        let later = now + std::time::Duration::from_secs(1);
        let _first = put(&mut proposals, later);
        let _second = put(&mut proposals, later);
        let mut next = 0;
        let mut number = || {
            next += 1;
            next
        };
        assert_eq!(proposals.send(5, now, &mut number).len(), 2);
        assert_eq!(proposals.floor(), 1);
        assert!(proposals.committed(1).is_some());
        proposals.term_began(5);
        assert!(!proposals.has_unsent(), "it may come yet");
        assert_eq!(proposals.resend(5, now, now).len(), 1);
        proposals.term_began(6);
        let again = proposals.send(6, now, &mut number);
        assert_eq!(again.iter().map(|item| item.number).collect::<Vec<_>>(), [3]);
        proposals.refused(3, 5, Refusal::Later);
        assert!(!proposals.has_unsent(), "a refusal of an earlier term");
        proposals.refused(3, 6, Refusal::Later);
        assert!(proposals.has_unsent());
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_says_whether_the_outcome_is_known() {
        let (mut proposals, now) = (Proposals::default(), Instant::now());
        let mut sent = put(&mut proposals, now);
        proposals.send(1, now, || 1);
        let mut unsent = put(&mut proposals, now);
        proposals.expire(now);
        let text = |answer: &mut oneshot::Receiver<Result<Outcome, Error>>| {
            answer.try_recv().unwrap().unwrap_err().to_string()
        };
        assert!(text(&mut sent).contains("timed out"));
        assert!(text(&mut unsent).contains("no leader"));
        assert_eq!((proposals.bytes, proposals.has_room()), (0, true));
        let mut sent = put(&mut proposals, now);
        proposals.send(1, now, || 2);
        proposals.lose_track();
        assert!(text(&mut sent).contains("timed out"));
    }

    #[test]
    fn a_leader_takes_nothing_twice_in_a_term() {
        let mut taken = Taken::default();
        assert_eq!(taken.take(1, 7, 10, 10), Known::No);
        assert_eq!(taken.take(1, 7, 10, 10), Known::Proposed);
        assert_eq!(taken.take(1, 8, 10, 10), Known::No, "another member's");
        assert_eq!(taken.take(1, 7, 10, 12), Known::No);
        assert_eq!(taken.take(1, 7, 11, 10), Known::Proposed, "settled meanwhile");
        taken.refuse(7, 12, Refusal::LearnerNotReady);
        assert_eq!(taken.take(1, 7, 11, 12), Known::Refused(Refusal::LearnerNotReady), "its sender was told so");
        assert_eq!(taken.take(2, 7, 10, 10), Known::No, "another term");
    }
}
