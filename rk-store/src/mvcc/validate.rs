//! What makes a txn impossible whatever the state: the rules of etcd's `v3rpc/key.go`.

use std::collections::HashSet;

use bytes::Bytes;

use crate::{Command, Error, KeyRange, Op, PutRequest, Txn, command::MAX_DEPTH};

/// Most operations and most compares in a txn, with those of the txns around it: etcd's default `--max-txn-ops`.
pub const MAX_TXN_OPS: usize = 128;

/// Most bytes in the keys and values of one request that may change something: etcd's default `--max-request-bytes`.
pub const MAX_REQUEST_BYTES: usize = 3 << 19;

/// What a store takes in one txn at most, as its proposer checks it: what was proposed is applied whatever the limits of the member
/// that applies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most operations and most compares, with those of the txns around it: etcd's `--max-txn-ops`.
    pub txn_ops: usize,
    /// Most bytes in the keys and values of a txn that may change something: etcd's `--max-request-bytes`, which limits what goes into
    /// the log.
    pub request_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { txn_ops: MAX_TXN_OPS, request_bytes: MAX_REQUEST_BYTES }
    }
}

impl Limits {
    /// No limits.
    pub(crate) const NONE: Self = Self { txn_ops: usize::MAX, request_bytes: usize::MAX };

    /// Refuses a txn with an empty key, with too many or too deep operations or too many bytes, or that changes one key twice.
    pub fn check(&self, txn: &Txn) -> Result<(), Error> {
        let bytes = self.check_shape(txn, 0, self.txn_ops)?;
        for ops in [&txn.success, &txn.failure] {
            changes(ops)?;
        }
        if bytes > self.request_bytes && !is_read_only(txn) {
            return Err(Error::RequestTooLarge(self.request_bytes));
        }
        Ok(())
    }

    /// The bytes in the keys and values of a txn that is not too deep and has not too many operations.
    fn check_shape(&self, txn: &Txn, depth: usize, max_ops: usize) -> Result<usize, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Invalid(format!("txns nest deeper than {MAX_DEPTH}")));
        }
        let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
        // What a txn has takes from what each txn inside it may have.
        let left = max_ops.checked_sub(ops).ok_or(Error::TooManyOps(self.txn_ops))?;
        let len = |range: &KeyRange| {
            // The end of a single key is no more than a way to say so.
            let end = if range.as_key().is_some() { None } else { range.end.as_ref() };
            range.start.len() + end.map_or(0, Bytes::len)
        };
        let mut bytes = txn.compare.iter().map(|compare| len(&compare.range)).sum();
        for op in txn.success.iter().chain(&txn.failure) {
            bytes += match op {
                Op::Range(range) => len(&range.range),
                Op::Delete(delete) => len(&delete.range),
                Op::Put(put) => {
                    check_put(put)?;
                    put.key.len() + put.value.len()
                }
                Op::Txn(txn) => self.check_shape(txn, depth + 1, left)?,
            };
        }
        Ok(bytes)
    }
}

/// Whether a txn can change nothing, whichever way it goes.
pub fn is_read_only(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Range(_) => true,
        Op::Put(_) | Op::Delete(_) => false,
        Op::Txn(txn) => is_read_only(txn),
    })
}

/// About how many bytes a command may add to the store, by etcd's count; 0 if it adds none.
pub(crate) fn takes_space(command: &Command) -> u64 {
    /// For a record's own needs.
    const OVERHEAD: usize = 512;
    fn of_ops(ops: &[Op]) -> usize {
        let of = |op: &Op| match op {
            Op::Range(_) | Op::Delete(_) => 0,
            Op::Put(put) => OVERHEAD + put.key.len() + put.value.len(),
            Op::Txn(txn) => of_txn(txn),
        };
        ops.iter().map(of).sum()
    }
    fn of_txn(txn: &Txn) -> usize {
        of_ops(&txn.success).max(of_ops(&txn.failure))
    }
    match command {
        Command::Txn(txn) => of_txn(txn) as u64,
        Command::LeaseGrant { .. } => OVERHEAD as u64,
        Command::Compact(_) | Command::LeaseRevoke { .. } | Command::Alarm { .. } => 0,
    }
}

fn check_put(put: &PutRequest) -> Result<(), Error> {
    match put {
        _ if put.key.is_empty() => Err(Error::EmptyKey),
        _ if put.ignore_value && !put.value.is_empty() => Err(Error::ValueProvided),
        _ if put.ignore_lease && put.lease != 0 => Err(Error::LeaseProvided),
        _ => Ok(()),
    }
}

type Changes<'a> = (HashSet<&'a Bytes>, Vec<&'a KeyRange>);

/// The keys put and ranges deleted by one branch, or an error if a key could change twice. As in etcd, a
/// nested txn may delete what an earlier one beside it has put: then the key changes twice at one revision, and is gone.
fn changes(ops: &[Op]) -> Result<Changes<'_>, Error> {
    let mut puts: HashSet<&Bytes> = HashSet::new();
    let mut deletes: Vec<&KeyRange> =
        ops.iter().filter_map(|op| if let Op::Delete(delete) = op { Some(&delete.range) } else { None }).collect();
    let twice = |key: &Bytes| Error::DuplicateKey(key.clone());
    for op in ops {
        let Op::Txn(txn) = op else { continue };
        let (then_puts, then_deletes) = changes(&txn.success)?;
        let (else_puts, else_deletes) = changes(&txn.failure)?;
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
