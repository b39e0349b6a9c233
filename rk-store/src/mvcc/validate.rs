//! What makes a txn impossible whatever the state: the rules of etcd's `v3rpc/key.go`.

use std::collections::HashSet;

use bytes::Bytes;

use crate::{Error, KeyRange, Op, Txn, command::MAX_DEPTH};

/// Most operations and most compares in one level of a txn: etcd's default `--max-txn-ops`.
pub const MAX_TXN_OPS: usize = 128;

/// Most bytes in the keys and values of one request: etcd's default `--max-request-bytes`.
pub const MAX_REQUEST_BYTES: usize = 3 << 19;

/// Refuses a txn with an empty key, with too many or too deep operations or too many bytes, or that changes one key twice.
pub fn validate(txn: &Txn) -> Result<(), Error> {
    let mut bytes = 0;
    check_shape(txn, 0, &mut bytes)?;
    for ops in [&txn.success, &txn.failure] {
        changes(ops)?;
    }
    Ok(())
}

/// Whether a txn can change nothing, whichever way it goes.
pub fn is_read_only(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Range(_) => true,
        Op::Put(_) | Op::Delete(_) => false,
        Op::Txn(txn) => is_read_only(txn),
    })
}

fn invalid<T>(reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::Invalid(reason.into()))
}

fn check_shape(txn: &Txn, depth: usize, bytes: &mut usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return invalid(format!("txns nest deeper than {MAX_DEPTH}"));
    }
    if [txn.compare.len(), txn.success.len(), txn.failure.len()].into_iter().any(|len| len > MAX_TXN_OPS) {
        return invalid(format!("too many operations in a txn: at most {MAX_TXN_OPS}"));
    }
    let ranges = txn.compare.iter().map(|compare| &compare.range);
    *bytes += ranges.map(|range| range.start.len() + range.end.as_ref().map_or(0, Bytes::len)).sum::<usize>();
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Range(_) | Op::Delete(_) => {}
            Op::Put(put) if put.key.is_empty() => return invalid("the key is empty"),
            Op::Put(put) => *bytes += put.key.len() + put.value.len(),
            Op::Txn(txn) => check_shape(txn, depth + 1, bytes)?,
        }
        if *bytes > MAX_REQUEST_BYTES {
            return invalid(format!("the request is too large: at most {MAX_REQUEST_BYTES} bytes"));
        }
    }
    Ok(())
}

type Changes<'a> = (HashSet<&'a Bytes>, Vec<&'a KeyRange>);

/// The keys put and ranges deleted by one branch, or an error if a key could change twice.
fn changes(ops: &[Op]) -> Result<Changes<'_>, Error> {
    let mut puts: HashSet<&Bytes> = HashSet::new();
    let mut deletes: Vec<&KeyRange> =
        ops.iter().filter_map(|op| if let Op::Delete(delete) = op { Some(&delete.range) } else { None }).collect();
    let twice = |key: &Bytes| Error::Invalid(format!("key {:?} is changed twice in one txn", key));
    for op in ops {
        let Op::Txn(txn) = op else { continue };
        let (then_puts, then_deletes) = changes(&txn.success)?;
        let (else_puts, else_deletes) = changes(&txn.failure)?;
        if let Some(key) =
            puts.iter().find(|key| then_deletes.iter().chain(&else_deletes).any(|range| range.contains(key)))
        {
            return Err(twice(key));
        }
        // Only one of the branches is done, so they may put the same key.
        for key in then_puts.union(&else_puts) {
            if deletes.iter().any(|range| range.contains(key)) || !puts.insert(*key) {
                return Err(twice(key));
            }
        }
        deletes.extend(then_deletes);
        deletes.extend(else_deletes);
    }
    for op in ops {
        let Op::Put(put) = op else { continue };
        if deletes.iter().any(|range| range.contains(&put.key)) || !puts.insert(&put.key) {
            return Err(twice(&put.key));
        }
    }
    Ok((puts, deletes))
}
