//! What packets say: raft's own messages, and questions about leases, which only the leader can answer.

use bytes::{Buf, BufMut, Bytes};
use protobuf::Message as _;
use raft::eraftpb;
use rk_store::LeaseId;

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
        }
        Ok(out.into())
    }

    /// Reads a payload, `None` if it is none.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        match bytes.try_get_u8().ok()? {
            RAFT => {
                eraftpb::Message::parse_from_carllerche_bytes(&bytes).ok().map(|message| Self::Raft(Box::new(message)))
            }
            LEASE_ASK => Some(Self::LeaseAsk {
                token: bytes.try_get_u64().ok()?,
                id: bytes.try_get_i64().ok()?,
                renew: bytes.try_get_u8().ok()? == 1,
            }),
            LEASE_ANSWER => {
                let (token, kind) = (bytes.try_get_u64().ok()?, bytes.try_get_u8().ok()?);
                let left = bytes.try_get_i64().ok()?;
                let answer = match kind {
                    0 => LeaseAnswer::Left(left),
                    1 => LeaseAnswer::NotFound,
                    2 => LeaseAnswer::NotLeader,
                    _ => return None,
                };
                Some(Self::LeaseAnswer { token, answer })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_their_bytes() {
        let mut append = eraftpb::Message { term: 3, from: 1, to: 2, ..eraftpb::Message::default() };
        append.set_entries(vec![eraftpb::Entry { index: 7, data: "command".into(), ..Default::default() }].into());
        let messages = [
            Message::Raft(Box::new(append)),
            Message::LeaseAsk { token: 1, id: -5, renew: true },
            Message::LeaseAnswer { token: 1, answer: LeaseAnswer::Left(9) },
            Message::LeaseAnswer { token: 1, answer: LeaseAnswer::NotFound },
            Message::LeaseAnswer { token: 1, answer: LeaseAnswer::NotLeader },
        ];
        for message in messages {
            let bytes = message.encode().unwrap();
            assert_eq!(Message::decode(bytes.clone()), Some(message));
            for len in 0..bytes.len().min(12) {
                // Whatever a cut packet gives, it does not panic.
                drop(Message::decode(bytes.slice(..len)));
            }
        }
    }
}
