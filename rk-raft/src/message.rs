//! What packets say: raft's own messages, and what members tell each other besides.
//!
//! The first byte is the kind. A member that is told something of a kind it does not know drops it: whoever speaks a newer
//! version learns of the older one when the members connect.

use bytes::{Buf, BufMut, Bytes};
use protobuf::Message as _;
use raft::eraftpb;
use rk_store::{ClusterError, LeaseId};

use crate::codec::{put_bytes, take_bytes};

/// The payload of a packet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    /// A message of the raft library.
    Raft(Box<eraftpb::Message>),
    /// Asks the leader for the seconds left of a lease, after renewing it if so wanted.
    LeaseAsk {
        /// Comes back with the answer.
        token: u64,
        id: LeaseId,
        renew: bool,
    },
    /// The leader's answer.
    LeaseAnswer { token: u64, answer: LeaseAnswer },
    /// Has the leader of `term` propose entries. Those with numbers below `floor` are settled, however often they come.
    Propose { term: u64, floor: u64, items: Vec<Proposed> },
    /// The leader of `term` did not propose an entry, and won't in that term.
    Refused { term: u64, number: u64, reason: Refusal },
    /// A part of a state that a follower lacks.
    Chunk(Chunk),
    /// How many parts of a transfer have arrived in order.
    ChunkAck { transfer: u64, next: u64, state: Arrival },
    /// Whoever gets this was removed from the group.
    Removed,
    /// Whoever sends this hears of nobody, and asks whether it was removed.
    Belongs,
}

/// An entry to be proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proposed {
    /// The proposing member's number for it.
    pub number: u64,
    /// Whether it changes the members, or else the store.
    pub change: bool,
    pub data: Bytes,
}

/// Why a leader does not propose an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not now: the leadership is being handed over, or another change of members is under way.
    Later,
    LearnerNotReady,
    NotEnoughStarted,
    Unhealthy,
}

impl Refusal {
    /// What the client is told, unless the entry is to be proposed again.
    pub(crate) fn error(self) -> Option<ClusterError> {
        match self {
            Self::Later => None,
            Self::LearnerNotReady => Some(ClusterError::LearnerNotReady),
            Self::NotEnoughStarted => Some(ClusterError::NotEnoughStarted),
            Self::Unhealthy => Some(ClusterError::Unhealthy),
        }
    }
}

/// A part of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The transfer's number, new for each.
    pub transfer: u64,
    /// The part's number, from 0.
    pub number: u64,
    pub last: bool,
    /// The first part says which state it is, the others are its records.
    pub data: Bytes,
}

/// How a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    Going,
    /// All of it is there.
    Done,
    /// It can't be taken, or is not known.
    Refused,
}

/// What a leader says of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseAnswer {
    /// The lease has this many seconds left.
    Left(i64),
    /// There is no such lease.
    NotFound,
    /// The member asked does not lead.
    NotLeader,
}

const RAFT: u8 = 0;
const LEASE_ASK: u8 = 1;
const LEASE_ANSWER: u8 = 2;
const PROPOSE: u8 = 3;
const REFUSED: u8 = 4;
const CHUNK: u8 = 5;
const CHUNK_ACK: u8 = 6;
const REMOVED: u8 = 7;
const BELONGS: u8 = 8;

impl Message {
    pub(crate) fn encode(&self) -> Result<Bytes, protobuf::ProtobufError> {
        let mut out = Vec::new();
        match self {
            Self::Raft(message) => {
                out.reserve(1 + message.compute_size() as usize);
                out.put_u8(RAFT);
                message.write_to_vec(&mut out)?;
            }
            Self::LeaseAsk { token, id, renew } => {
                out.put_u8(LEASE_ASK);
                out.put_u64(*token);
                out.put_i64(*id);
                out.put_u8(u8::from(*renew));
            }
            Self::LeaseAnswer { token, answer } => {
                out.put_u8(LEASE_ANSWER);
                out.put_u64(*token);
                let (kind, left) = match answer {
                    LeaseAnswer::Left(left) => (0, *left),
                    LeaseAnswer::NotFound => (1, 0),
                    LeaseAnswer::NotLeader => (2, 0),
                };
                out.put_u8(kind);
                out.put_i64(left);
            }
            Self::Propose { term, floor, items } => {
                out.reserve(17 + items.iter().map(|item| item.data.len() + 13).sum::<usize>());
                out.put_u8(PROPOSE);
                out.put_u64(*term);
                out.put_u64(*floor);
                for item in items {
                    out.put_u64(item.number);
                    out.put_u8(u8::from(item.change));
                    put_bytes(&mut out, &item.data);
                }
            }
            Self::Refused { term, number, reason } => {
                out.put_u8(REFUSED);
                out.put_u64(*term);
                out.put_u64(*number);
                out.put_u8(match reason {
                    Refusal::Later => 0,
                    Refusal::LearnerNotReady => 1,
                    Refusal::NotEnoughStarted => 2,
                    Refusal::Unhealthy => 3,
                });
            }
            Self::Chunk(chunk) => {
                out.reserve(18 + chunk.data.len());
                out.put_u8(CHUNK);
                out.put_u64(chunk.transfer);
                out.put_u64(chunk.number);
                out.put_u8(u8::from(chunk.last));
                out.put_slice(&chunk.data);
            }
            Self::ChunkAck { transfer, next, state } => {
                out.put_u8(CHUNK_ACK);
                out.put_u64(*transfer);
                out.put_u64(*next);
                out.put_u8(match state {
                    Arrival::Going => 0,
                    Arrival::Done => 1,
                    Arrival::Refused => 2,
                });
            }
            Self::Removed => out.put_u8(REMOVED),
            Self::Belongs => out.put_u8(BELONGS),
        }
        Ok(out.into())
    }

    /// Reads a payload, `None` if it is none.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        Some(match bytes.try_get_u8().ok()? {
            RAFT => Self::Raft(Box::new(eraftpb::Message::parse_from_carllerche_bytes(&bytes).ok()?)),
            LEASE_ASK => Self::LeaseAsk {
                token: bytes.try_get_u64().ok()?,
                id: bytes.try_get_i64().ok()?,
                renew: bytes.try_get_u8().ok()? == 1,
            },
            LEASE_ANSWER => {
                let (token, kind) = (bytes.try_get_u64().ok()?, bytes.try_get_u8().ok()?);
                let left = bytes.try_get_i64().ok()?;
                let answer = match kind {
                    0 => LeaseAnswer::Left(left),
                    1 => LeaseAnswer::NotFound,
                    2 => LeaseAnswer::NotLeader,
                    _ => return None,
                };
                Self::LeaseAnswer { token, answer }
            }
            PROPOSE => {
                let (term, floor) = (bytes.try_get_u64().ok()?, bytes.try_get_u64().ok()?);
                let mut items = Vec::new();
                while !bytes.is_empty() {
                    let (number, change) = (bytes.try_get_u64().ok()?, bytes.try_get_u8().ok()? == 1);
                    items.push(Proposed { number, change, data: take_bytes(&mut bytes)? });
                }
                Self::Propose { term, floor, items }
            }
            REFUSED => Self::Refused {
                term: bytes.try_get_u64().ok()?,
                number: bytes.try_get_u64().ok()?,
                reason: match bytes.try_get_u8().ok()? {
                    0 => Refusal::Later,
                    1 => Refusal::LearnerNotReady,
                    2 => Refusal::NotEnoughStarted,
                    3 => Refusal::Unhealthy,
                    _ => return None,
                },
            },
            CHUNK => Self::Chunk(Chunk {
                transfer: bytes.try_get_u64().ok()?,
                number: bytes.try_get_u64().ok()?,
                last: bytes.try_get_u8().ok()? == 1,
                data: bytes,
            }),
            CHUNK_ACK => Self::ChunkAck {
                transfer: bytes.try_get_u64().ok()?,
                next: bytes.try_get_u64().ok()?,
                state: match bytes.try_get_u8().ok()? {
                    0 => Arrival::Going,
                    1 => Arrival::Done,
                    2 => Arrival::Refused,
                    _ => return None,
                },
            },
            REMOVED => Self::Removed,
            BELONGS => Self::Belongs,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_their_bytes() {
        let mut append = eraftpb::Message { term: 3, from: 1, to: 2, ..eraftpb::Message::default() };
        append.set_entries(vec![eraftpb::Entry { index: 7, data: "command".into(), ..Default::default() }].into());
        let items = vec![
            Proposed { number: 4, change: false, data: "put".into() },
            Proposed { number: 5, change: true, data: "add".into() },
        ];
        let messages = [
            Message::Raft(Box::new(append)),
            Message::LeaseAsk { token: 1, id: -5, renew: true },
            Message::LeaseAnswer { token: 1, answer: LeaseAnswer::Left(9) },
            Message::LeaseAnswer { token: 1, answer: LeaseAnswer::NotFound },
            Message::LeaseAnswer { token: 1, answer: LeaseAnswer::NotLeader },
            Message::Propose { term: 2, floor: 3, items },
            Message::Refused { term: 2, number: 4, reason: Refusal::Unhealthy },
            Message::Chunk(Chunk { transfer: 1, number: 2, last: true, data: "records".into() }),
            Message::ChunkAck { transfer: 1, next: 3, state: Arrival::Done },
            Message::Removed,
            Message::Belongs,
        ];
        for message in messages {
            let bytes = message.encode().unwrap();
            assert_eq!(Message::decode(bytes.clone()), Some(message));
            for len in 0..bytes.len().min(40) {
                // Whatever a cut packet gives, it does not panic.
                drop(Message::decode(bytes.slice(..len)));
            }
        }
    }
}
