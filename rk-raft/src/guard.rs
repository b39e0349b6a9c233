//! Which of the messages of peers raft may see.
//!
//! The library takes messages to be those of a sound peer and panics on some that are not: with a commit index behind the log's
//! end, with an empty read request, and so on. A peer of another group, one that has lost its disk, or a bug there must not bring
//! this member down.

use raft::{
    RawNode, Storage,
    eraftpb::{Entry, Message, MessageType},
};

use crate::MemberId;

/// What is to become of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Raft takes it.
    Pass,
    /// It is dropped, for this reason.
    Drop(&'static str),
    /// It shows that this member no longer has what it had acknowledged: it must not go on.
    Amnesia,
}

/// No group comes to a term like this, and raft counts on from it.
const MOST_TERM: u64 = u64::MAX / 2;

/// Looks at the message that a state came with.
pub(crate) fn check_state<S: Storage>(raft: &RawNode<S>, message: &Message) -> Verdict {
    if message.get_msg_type() != MessageType::MsgSnapshot || message.to != raft.raft.id {
        return Verdict::Drop("it tells of no state, or is not for this member");
    }
    if !(1..=MOST_TERM).contains(&message.term) {
        return Verdict::Drop("its term is out of reach");
    }
    Verdict::Pass
}

/// Looks at a message from a peer.
pub(crate) fn check<S: Storage>(raft: &RawNode<S>, from: MemberId, message: &Message) -> Verdict {
    use MessageType::*;
    if message.from != from || message.to != raft.raft.id {
        return Verdict::Drop("it is not from whom it came, or not for this member");
    }
    let kind = message.get_msg_type();
    // Without a term raft takes a message for its own; only reads travel so.
    if (message.term == 0) != (kind == MsgReadIndex) {
        return Verdict::Drop("it has no term where one belongs");
    }
    if message.term > MOST_TERM {
        return Verdict::Drop("its term is out of reach");
    }
    let last = raft.raft.raft_log.last_index();
    match kind {
        MsgAppend => {
            if (message.index == 0) != (message.log_term == 0) {
                return Verdict::Drop("it does not say which entry comes before its own");
            }
            let follows = |(place, entry): (u64, &Entry)| {
                Some(entry.index) == message.index.checked_add(1 + place) && (1..=message.term).contains(&entry.term)
            };
            if !(0..).zip(message.entries.iter()).all(follows) {
                return Verdict::Drop("its entries do not follow each other");
            }
            Verdict::Pass
        }
        // The leader tells only of entries that this member has acknowledged.
        MsgHeartbeat if message.term >= raft.raft.term && message.commit > last => Verdict::Amnesia,
        MsgAppendResponse if message.term == raft.raft.term && message.index.max(message.reject_hint) > last => {
            Verdict::Drop("it answers for entries that were never sent")
        }
        MsgReadIndex | MsgReadIndexResp if message.entries.len() != 1 => Verdict::Drop("it is not one read"),
        MsgSnapshot => Verdict::Drop("states come in chunks"),
        MsgPropose | MsgTransferLeader => Verdict::Drop("members ask for this in other words"),
        MsgHup | MsgBeat | MsgUnreachable | MsgSnapStatus | MsgCheckQuorum => {
            Verdict::Drop("members tell this only themselves")
        }
        _ => Verdict::Pass,
    }
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::HardState;

    use super::*;
    use crate::{
        log::{Point, cache::LogCache},
        logging,
        membership::Membership,
    };

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
        range.map(|index| Entry { index, term, ..Entry::default() }).collect()
    }

    /// A member with the entries 2 to 5 of term 2, in term 3.
    fn member() -> RawNode<LogCache> {
        let point = Point { index: 1, term: 1, membership: Membership::numbered(&[1, 2, 3]) };
        let vote = HardState { term: 3, commit: 4, ..HardState::default() };
        let config = raft::Config { id: 1, applied: 1, ..raft::Config::default() };
        RawNode::new(&config, LogCache::new(point, vote, entries(2..=5, 2)), &logging::logger(1)).unwrap()
    }

    fn message(kind: MessageType, fill: impl FnOnce(&mut Message)) -> Message {
        let mut message = Message { from: 2, to: 1, term: 3, ..Message::default() };
        message.set_msg_type(kind);
        fill(&mut message);
        message
    }

    #[test]
    fn messages_that_raft_would_panic_on_are_dropped() {
        use MessageType::*;
        let drops = [
            message(MsgAppend, |m| m.from = 3),
            message(MsgAppend, |m| m.to = 2),
            message(MsgAppend, |m| m.term = 0),
            message(MsgAppend, |m| (m.index, m.log_term) = (u64::MAX, 0)),
            message(MsgAppend, |m| {
                (m.index, m.log_term) = (u64::MAX, 3);
                m.set_entries(entries(0..=0, 3).into());
            }),
            message(MsgAppend, |m| {
                (m.index, m.log_term) = (5, 2);
                m.set_entries(entries(7..=8, 3).into());
            }),
            message(MsgAppend, |m| {
                (m.index, m.log_term) = (5, 2);
                m.set_entries(entries(6..=6, 4).into());
            }),
            message(MsgAppendResponse, |m| m.index = 6),
            message(MsgAppendResponse, |m| (m.reject, m.reject_hint) = (true, u64::MAX)),
            message(MsgReadIndex, |m| m.term = 0),
            message(MsgReadIndexResp, |_| {}),
            message(MsgSnapshot, |_| {}),
            message(MsgPropose, |_| {}),
            message(MsgPropose, |m| m.term = 0),
            message(MsgHup, |_| {}),
            message(MsgRequestVote, |m| m.term = 0),
        ];
        for message in drops {
            assert!(matches!(check(&member(), 2, &message), Verdict::Drop(_)), "{message:?}");
        }
    }

    #[test]
    fn a_state_comes_with_its_own_kind_of_message() {
        use MessageType::*;
        assert_eq!(check_state(&member(), &message(MsgSnapshot, |_| {})), Verdict::Pass);
        let drops = [
            message(MsgReadIndex, |_| {}),
            message(MsgSnapshot, |m| m.to = 2),
            message(MsgSnapshot, |m| m.term = 0),
            message(MsgSnapshot, |m| m.term = u64::MAX),
        ];
        for message in drops {
            assert!(matches!(check_state(&member(), &message), Verdict::Drop(_)), "{message:?}");
        }
    }

    #[test]
    fn a_commit_index_behind_the_end_shows_that_entries_were_lost() {
        let beat = |term, commit| message(MessageType::MsgHeartbeat, |m| (m.term, m.commit) = (term, commit));
        assert_eq!(check(&member(), 2, &beat(3, 5)), Verdict::Pass);
        assert_eq!(check(&member(), 2, &beat(3, 6)), Verdict::Amnesia);
        assert_eq!(check(&member(), 2, &beat(2, 6)), Verdict::Pass, "of an earlier term, which raft does not look at");
    }

    #[test]
    fn whatever_passes_raft_can_take() {
        use rand::{RngExt, SeedableRng, rngs::StdRng};
        for seed in 0..20_000 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut member = member();
            for _ in 0..4 {
                let mut number = || random.random_range(0..8u64);
                let mut message = Message {
                    from: 2 + number() % 2,
                    to: 1,
                    term: number(),
                    log_term: number() / 2,
                    index: number(),
                    commit: number(),
                    commit_term: number(),
                    reject: number() < 3,
                    reject_hint: number(),
                    ..Message::default()
                };
                let kinds = <MessageType as protobuf::ProtobufEnum>::values();
                message.set_msg_type(kinds[(number() * 8 + number()) as usize % kinds.len()]);
                let count = number() / 2;
                let first = message.index + 1;
                message.set_entries(
                    (0..count).map(|i| Entry { index: first + i, term: number(), ..Entry::default() }).collect(),
                );
                if check(&member, message.from, &message) == Verdict::Pass {
                    // A refusal is as good as any answer; a panic is not.
                    let _refused = member.step(message);
                }
            }
        }
    }
}
