//! Executes a txn against the current state. Nothing is changed here: the changes are handed back as events.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use bytes::Bytes;

use super::{Machine, index::Birth, range, record::tombstone};
use crate::{
    Compare, CompareOp, CompareTarget, DeleteRequest, Error, Event, EventKind, KeyValue, Op, OpResponse, PutRequest,
    RangeRequest, RangeResponse, Txn, TxnResponse,
};

/// Runs a valid txn: its answer, and the changes it makes in order.
///
/// As in etcd, which branches are taken, nested txns included, is decided by the state before the txn; then the puts and reads on
/// the way are checked, and only then is anything done.
pub(crate) fn execute(machine: &Machine, txn: &Txn) -> Result<(TxnResponse, Vec<Event>), Error> {
    let mut branches = Vec::new();
    choose(machine, txn, &mut branches)?;
    visit(txn, &mut branches.iter(), &mut |op| if let Op::Put(put) = op { check_put(machine, put) } else { Ok(()) })?;
    visit(txn, &mut branches.iter(), &mut |op| {
        if let Op::Range(range) = op { machine.resolve(range.revision).map(drop) } else { Ok(()) }
    })?;
    let several = branches.len() > 1 || branch(txn, branches[0]).len() > 1;
    let mut execution = Execution { machine, events: Vec::new(), staged: several.then(BTreeMap::new) };
    let response = execution.txn(txn, &mut branches.iter())?;
    Ok((response, execution.events))
}

/// Notes for a txn and then for those in the branch it takes whether its guards hold.
fn choose(machine: &Machine, txn: &Txn, branches: &mut Vec<bool>) -> Result<(), Error> {
    let mut succeeded = true;
    for compare in &txn.compare {
        succeeded = succeeded && holds(machine, compare)?;
    }
    branches.push(succeeded);
    for op in branch(txn, succeeded) {
        if let Op::Txn(txn) = op {
            choose(machine, txn, branches)?;
        }
    }
    Ok(())
}

fn branch(txn: &Txn, succeeded: bool) -> &[Op] {
    if succeeded { &txn.success } else { &txn.failure }
}

/// The branch that was chosen for the txn that comes next.
fn taken(branches: &mut std::slice::Iter<'_, bool>) -> bool {
    *branches.next().expect("a branch was chosen for every txn on the way")
}

/// Calls `check` with each operation on the way.
fn visit(
    txn: &Txn,
    branches: &mut std::slice::Iter<'_, bool>,
    check: &mut impl FnMut(&Op) -> Result<(), Error>,
) -> Result<(), Error> {
    branch(txn, taken(branches)).iter().try_for_each(|op| match op {
        Op::Txn(txn) => visit(txn, branches, check),
        op => check(op),
    })
}

fn check_put(machine: &Machine, put: &PutRequest) -> Result<(), Error> {
    if (put.ignore_value || put.ignore_lease) && machine.index.find(&put.key, machine.revision).is_none() {
        return Err(Error::KeyNotFound);
    }
    if put.lease != 0 { machine.leases.ttl(put.lease).map(drop) } else { Ok(()) }
}

/// The changes that delete these keys, those of them that are there.
pub(crate) fn delete_keys(machine: &Machine, keys: Vec<Bytes>) -> Result<Vec<Event>, Error> {
    let mut execution = Execution { machine, events: Vec::new(), staged: None };
    for key in keys {
        execution.delete_key(&key)?;
    }
    Ok(execution.events)
}

struct Execution<'a> {
    machine: &'a Machine,
    events: Vec<Event>,
    /// Index into `events` of each key's last change, if there are operations that come after others.
    staged: Option<BTreeMap<Bytes, usize>>,
}

impl Execution<'_> {
    /// The revision that reads inside the txn report: the next one, once something has changed.
    fn revision(&self) -> u64 {
        self.machine.revision + u64::from(!self.events.is_empty())
    }

    /// A key's last change by the operations so far.
    fn staged(&self, key: &[u8]) -> Option<&Event> {
        self.staged.as_ref()?.get(key).map(|&i| &self.events[i])
    }

    /// A key's pair as the operations so far have left it.
    fn current(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        match self.staged(key) {
            Some(event) => Ok((event.kind == EventKind::Put).then(|| event.kv.clone())),
            None => self.machine.at(key, self.machine.revision),
        }
    }

    /// What a key's pair is as the operations so far have left it.
    fn birth(&self, key: &[u8]) -> Option<Birth> {
        match self.staged(key) {
            Some(Event { kind: EventKind::Put, kv, .. }) => Some(Birth::of(kv)),
            Some(_) => None,
            None => self.machine.index.birth(key),
        }
    }

    fn txn(&mut self, txn: &Txn, branches: &mut std::slice::Iter<'_, bool>) -> Result<TxnResponse, Error> {
        let succeeded = taken(branches);
        let mut responses = Vec::new();
        for op in branch(txn, succeeded) {
            responses.push(match op {
                Op::Range(range) => OpResponse::Range(self.range(range)?),
                Op::Put(put) => self.put(put)?,
                Op::Delete(delete) => self.delete(delete)?,
                Op::Txn(txn) => OpResponse::Txn(self.txn(txn, branches)?),
            });
        }
        Ok(TxnResponse { succeeded, responses, revision: self.revision() })
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let staged = match &self.staged {
            Some(staged) if request.revision == 0 && !staged.is_empty() => staged,
            _ => return Ok(RangeResponse { revision: self.revision(), ..self.machine.range(request)? }),
        };
        let before = self.machine.range(&RangeRequest::new(request.range.clone()))?;
        let mut pairs: BTreeMap<_, _> = before.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        for (key, &i) in staged.iter().filter(|(key, _)| request.range.contains(key)) {
            match self.events[i].kind {
                EventKind::Put => pairs.insert(key.clone(), self.events[i].kv.clone()),
                EventKind::Delete => pairs.remove(key),
            };
        }
        let count = pairs.len() as u64;
        let kvs = pairs.into_values().take(range::fetched(request)).collect();
        Ok(range::answer(request, kvs, count, self.revision()))
    }

    fn put(&mut self, put: &PutRequest) -> Result<OpResponse, Error> {
        // The index knows what most puts need of the pair before, so those need not touch the engine.
        let whole = put.prev_kv || put.ignore_value || put.ignore_lease;
        let before = if whole { self.current(&put.key)? } else { None };
        let birth = self.birth(&put.key);
        let revision = self.machine.revision + 1;
        let kept = |wanted: bool| before.as_ref().filter(|_| wanted);
        let value = kept(put.ignore_value).map_or(&put.value, |kv| &kv.value).clone();
        let lease = kept(put.ignore_lease).map_or(put.lease, |kv| kv.lease);
        let kv = KeyValue {
            key: put.key.clone(),
            value,
            create_revision: birth.map_or(revision, |birth| birth.created),
            mod_revision: revision,
            version: birth.map_or(0, |birth| birth.version) + 1,
            lease,
        };
        self.stage(EventKind::Put, kv);
        Ok(OpResponse::Put { prev_kv: before.filter(|_| put.prev_kv) })
    }

    fn delete(&mut self, delete: &DeleteRequest) -> Result<OpResponse, Error> {
        let stored =
            self.machine.index.range(&delete.range, self.machine.revision).map(|(key, _)| Bytes::copy_from_slice(key));
        let staged = self.staged.iter().flatten().map(|(key, _)| key).filter(|key| delete.range.contains(key)).cloned();
        let keys: BTreeSet<_> = stored.chain(staged).collect();
        let mut deleted = Vec::new();
        for key in keys {
            deleted.extend(self.delete_key(&key)?);
        }
        let count = deleted.len() as u64;
        Ok(OpResponse::Delete { deleted: count, prev_kvs: if delete.prev_kv { deleted } else { Vec::new() } })
    }

    fn delete_key(&mut self, key: &Bytes) -> Result<Option<KeyValue>, Error> {
        let Some(before) = self.current(key)? else { return Ok(None) };
        self.stage(EventKind::Delete, tombstone(before.key.clone(), self.machine.revision + 1));
        Ok(Some(before))
    }

    fn stage(&mut self, kind: EventKind, kv: KeyValue) {
        if let Some(staged) = &mut self.staged {
            staged.insert(kv.key.clone(), self.events.len());
        }
        self.events.push(Event { kind, kv, prev_kv: None });
    }
}

/// Whether a guard holds. All guards of a txn, of nested ones too, are about the state before it, as in etcd.
fn holds(machine: &Machine, compare: &Compare) -> Result<bool, Error> {
    let mut any = false;
    for (_, position) in machine.index.range(&compare.range, machine.revision) {
        any = true;
        let ordering = match &compare.target {
            // The index knows this one: the guard of every update need not touch the engine.
            CompareTarget::ModRevision(wanted) => position.revision.cmp(wanted),
            target => ordering(&machine.load(position)?, target),
        };
        if !relation_holds(ordering, compare.op) {
            return Ok(false);
        }
    }
    if any {
        return Ok(true);
    }
    // Nothing there: compared as zeros, except a value, which nothing equals or differs from.
    Ok(match &compare.target {
        CompareTarget::Value(_) => false,
        target => relation_holds(ordering(&tombstone(Bytes::new(), 0), target), compare.op),
    })
}

fn ordering(kv: &KeyValue, target: &CompareTarget) -> Ordering {
    match target {
        CompareTarget::Version(wanted) => kv.version.cmp(wanted),
        CompareTarget::CreateRevision(wanted) => kv.create_revision.cmp(wanted),
        CompareTarget::ModRevision(wanted) => kv.mod_revision.cmp(wanted),
        CompareTarget::Value(wanted) => kv.value.cmp(wanted),
        CompareTarget::Lease(wanted) => kv.lease.cmp(wanted),
    }
}

fn relation_holds(ordering: Ordering, op: CompareOp) -> bool {
    match op {
        CompareOp::Equal => ordering == Ordering::Equal,
        CompareOp::Greater => ordering == Ordering::Greater,
        CompareOp::Less => ordering == Ordering::Less,
        CompareOp::NotEqual => ordering != Ordering::Equal,
    }
}
