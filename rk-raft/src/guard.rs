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
