//! The commands of the state machine, and their bytes: the entries of a log.

use bytes::{BufMut, Bytes};

use crate::{
    Alarm, AlarmKind, Compare, CompareOp, CompareTarget, DeleteRequest, KeyRange, LeaseId, Op, PutRequest,
    RangeRequest, Revision, SortOrder, SortTarget, Txn, TxnResponse,
    codec::{DecodeError, Reader, put_bytes},
};

/// How deep txns may nest.
pub(crate) const MAX_DEPTH: usize = 16;

/// Everything that changes a store. Commands hold no time and no chance: applied in the same order they make the
/// same state everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Runs a transaction.
    Txn(Txn),
    /// Forgets history before a revision.
    Compact(Revision),
    /// Adds a lease.
    LeaseGrant {
        /// The id, not 0: whoever proposes the command has chosen one.
        id: LeaseId,
        /// Time to live in seconds.
        ttl: i64,
    },
    /// Ends a lease and deletes its keys: on request or because its time is over.
    LeaseRevoke {
        /// The lease.
        id: LeaseId,
    },
    /// Raises an alarm or ends it.
    Alarm {
        /// The alarm.
        alarm: Alarm,
        /// Whether it is active from now on.
        active: bool,
    },
}

/// What a [`Command`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// A txn ran.
    Txn(TxnResponse),
    /// Anything else was done.
    Done,
}

const TXN: u8 = 1;
const COMPACT: u8 = 2;
const LEASE_GRANT: u8 = 3;
const LEASE_REVOKE: u8 = 4;
const ALARM: u8 = 5;

impl Command {
    /// Appends the command's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Txn(txn) => {
                out.put_u8(TXN);
                put_txn(out, txn);
            }
            Self::Compact(revision) => {
                out.put_u8(COMPACT);
                out.put_u64_le(*revision);
            }
            Self::LeaseGrant { id, ttl } => {
                out.put_u8(LEASE_GRANT);
                out.put_i64_le(*id);
                out.put_i64_le(*ttl);
            }
            Self::LeaseRevoke { id } => {
                out.put_u8(LEASE_REVOKE);
                out.put_i64_le(*id);
            }
            Self::Alarm { alarm, active } => {
                out.put_u8(ALARM);
                put_alarm(out, *alarm);
                out.put_u8(u8::from(*active));
            }
        }
    }

    /// Reads a command from exactly its bytes; keys and values share their memory.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let command = match reader.u8()? {
            TXN => Self::Txn(read_txn(&mut reader, 0)?),
            COMPACT => Self::Compact(reader.u64()?),
            LEASE_GRANT => Self::LeaseGrant { id: reader.i64()?, ttl: reader.i64()? },
            LEASE_REVOKE => Self::LeaseRevoke { id: reader.i64()? },
            ALARM => Self::Alarm { alarm: read_alarm(&mut reader)?, active: reader.bool()? },
            _ => return Err(DecodeError("an unknown command")),
        };
        reader.end()?;
        Ok(command)
    }
}

pub(crate) fn put_alarm(out: &mut Vec<u8>, alarm: Alarm) {
    out.put_u64_le(alarm.member);
    out.put_u8(match alarm.kind {
        AlarmKind::NoSpace => 1,
        AlarmKind::Corrupt => 2,
    });
}

pub(crate) fn read_alarm(reader: &mut Reader) -> Result<Alarm, DecodeError> {
    let member = reader.u64()?;
    let kind = match reader.u8()? {
        1 => AlarmKind::NoSpace,
        2 => AlarmKind::Corrupt,
        _ => return Err(DecodeError("an unknown alarm")),
    };
    Ok(Alarm { member, kind })
}

pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("a txn has fewer than 2^32 parts"));
}

fn put_range(out: &mut Vec<u8>, range: &KeyRange) {
    put_bytes(out, &range.start);
    out.put_u8(u8::from(range.end.is_some()));
    if let Some(end) = &range.end {
        put_bytes(out, end);
    }
}

fn read_range(reader: &mut Reader) -> Result<KeyRange, DecodeError> {
    let start = reader.bytes()?;
    let end = if reader.bool()? { Some(reader.bytes()?) } else { None };
    Ok(KeyRange { start, end })
}

fn put_txn(out: &mut Vec<u8>, txn: &Txn) {
    put_count(out, txn.compare.len());
    for compare in &txn.compare {
        put_compare(out, compare);
    }
    for ops in [&txn.success, &txn.failure] {
        put_count(out, ops.len());
        for op in ops {
            put_op(out, op);
        }
    }
}

fn read_txn(reader: &mut Reader, depth: usize) -> Result<Txn, DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError("txns nest too deep"));
    }
    let mut txn = Txn::default();
    for _ in 0..reader.count()? {
        txn.compare.push(read_compare(reader)?);
    }
    for ops in [&mut txn.success, &mut txn.failure] {
        for _ in 0..reader.count()? {
            ops.push(read_op(reader, depth)?);
        }
    }
    Ok(txn)
}

fn put_compare(out: &mut Vec<u8>, compare: &Compare) {
    put_range(out, &compare.range);
    out.put_u8(match compare.op {
        CompareOp::Equal => 0,
        CompareOp::Greater => 1,
        CompareOp::Less => 2,
        CompareOp::NotEqual => 3,
    });
    match &compare.target {
        CompareTarget::Version(version) => {
            out.put_u8(0);
            out.put_u64_le(*version);
        }
        CompareTarget::CreateRevision(revision) => {
            out.put_u8(1);
            out.put_u64_le(*revision);
        }
        CompareTarget::ModRevision(revision) => {
            out.put_u8(2);
            out.put_u64_le(*revision);
        }
        CompareTarget::Value(value) => {
            out.put_u8(3);
            put_bytes(out, value);
        }
        CompareTarget::Lease(lease) => {
            out.put_u8(4);
            out.put_i64_le(*lease);
        }
    }
}

fn read_compare(reader: &mut Reader) -> Result<Compare, DecodeError> {
    let range = read_range(reader)?;
    let op = match reader.u8()? {
        0 => CompareOp::Equal,
        1 => CompareOp::Greater,
        2 => CompareOp::Less,
        3 => CompareOp::NotEqual,
        _ => return Err(DecodeError("an unknown relation in a compare")),
    };
    let target = match reader.u8()? {
        0 => CompareTarget::Version(reader.u64()?),
        1 => CompareTarget::CreateRevision(reader.u64()?),
        2 => CompareTarget::ModRevision(reader.u64()?),
        3 => CompareTarget::Value(reader.bytes()?),
        4 => CompareTarget::Lease(reader.i64()?),
        _ => return Err(DecodeError("an unknown target in a compare")),
    };
    Ok(Compare { range, op, target })
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Range(range) => {
            out.put_u8(0);
            put_range(out, &range.range);
            out.put_u64_le(range.revision);
            out.put_u64_le(range.limit as u64);
            out.put_u8(u8::from(range.keys_only));
            out.put_u8(u8::from(range.count_only));
            out.put_u8(range.sort_order as u8);
            out.put_u8(range.sort_target as u8);
            for bound in
                [range.min_mod_revision, range.max_mod_revision, range.min_create_revision, range.max_create_revision]
            {
                out.put_u64_le(bound);
            }
            out.put_u8(u8::from(range.serializable));
        }
        Op::Put(put) => {
            out.put_u8(1);
            put_bytes(out, &put.key);
            put_bytes(out, &put.value);
            out.put_i64_le(put.lease);
            out.put_u8(u8::from(put.prev_kv));
            out.put_u8(u8::from(put.ignore_value));
            out.put_u8(u8::from(put.ignore_lease));
        }
        Op::Delete(delete) => {
            out.put_u8(2);
            put_range(out, &delete.range);
            out.put_u8(u8::from(delete.prev_kv));
        }
        Op::Txn(txn) => {
            out.put_u8(3);
            put_txn(out, txn);
        }
    }
}

fn read_op(reader: &mut Reader, depth: usize) -> Result<Op, DecodeError> {
    Ok(match reader.u8()? {
        0 => Op::Range(RangeRequest {
            range: read_range(reader)?,
            revision: reader.u64()?,
            limit: usize::try_from(reader.u64()?).unwrap_or(usize::MAX),
            keys_only: reader.bool()?,
            count_only: reader.bool()?,
            sort_order: match reader.u8()? {
                0 => SortOrder::None,
                1 => SortOrder::Ascend,
                2 => SortOrder::Descend,
                _ => return Err(DecodeError("an unknown order")),
            },
            sort_target: match reader.u8()? {
                0 => SortTarget::Key,
                1 => SortTarget::Version,
                2 => SortTarget::CreateRevision,
                3 => SortTarget::ModRevision,
                4 => SortTarget::Value,
                _ => return Err(DecodeError("an unknown sort target")),
            },
            min_mod_revision: reader.u64()?,
            max_mod_revision: reader.u64()?,
            min_create_revision: reader.u64()?,
            max_create_revision: reader.u64()?,
            serializable: reader.bool()?,
        }),
        1 => Op::Put(PutRequest {
            key: reader.bytes()?,
            value: reader.bytes()?,
            lease: reader.i64()?,
            prev_kv: reader.bool()?,
            ignore_value: reader.bool()?,
            ignore_lease: reader.bool()?,
        }),
        2 => Op::Delete(DeleteRequest { range: read_range(reader)?, prev_kv: reader.bool()? }),
        3 => Op::Txn(read_txn(reader, depth + 1)?),
        _ => return Err(DecodeError("an unknown operation")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deep(depth: usize) -> Txn {
        let inner = if depth == 0 { Vec::new() } else { vec![Op::Txn(deep(depth - 1))] };
        Txn { success: inner, ..Txn::default() }
    }

    #[test]
    fn commands_survive_their_bytes() {
        let range = KeyRange::prefix("b");
        let target = [
            CompareTarget::Version(1),
            CompareTarget::CreateRevision(2),
            CompareTarget::ModRevision(3),
            CompareTarget::Value("v".into()),
            CompareTarget::Lease(-4),
        ];
        let op = [CompareOp::Equal, CompareOp::Greater, CompareOp::Less, CompareOp::NotEqual, CompareOp::Equal];
        let compare = target.into_iter().zip(op);
        let compare = compare.map(|(target, op)| Compare { range: range.clone(), op, target }).collect();
        let read = RangeRequest {
            revision: 9,
            limit: 7,
            keys_only: true,
            sort_order: SortOrder::Descend,
            sort_target: SortTarget::Value,
            max_mod_revision: 8,
            serializable: true,
            ..RangeRequest::new(KeyRange::all())
        };
        let success = vec![
            Op::Range(read),
            Op::Put(PutRequest { lease: 5, ignore_value: true, ..PutRequest::new("a", "") }),
            Op::Txn(deep(2)),
        ];
        let failure = vec![Op::Delete(DeleteRequest { range, prev_kv: true })];
        for command in [
            Command::Txn(Txn { compare, success, failure }),
            Command::Compact(3),
            Command::LeaseGrant { id: 7, ttl: 60 },
            Command::LeaseRevoke { id: -7 },
            Command::Alarm { alarm: Alarm { member: 3, kind: AlarmKind::Corrupt }, active: true },
        ] {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            assert_eq!(Command::decode(bytes.clone().into()), Ok(command));
            for len in 0..bytes.len() {
                assert!(Command::decode(bytes[..len].to_vec().into()).is_err(), "{len} of {} bytes", bytes.len());
            }
            bytes.push(0);
            assert!(Command::decode(bytes.into()).is_err(), "a byte too many");
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let mut bytes = Vec::new();
        Command::Txn(deep(MAX_DEPTH + 1)).encode(&mut bytes);
        assert_eq!(Command::decode(bytes.into()), Err(DecodeError("txns nest too deep")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_command_or_an_error(kind in 0..7u8, mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            bytes.insert(0, kind);
            if let Ok(command) = Command::decode(bytes.clone().into()) {
                let mut again = Vec::new();
                command.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
