//! A store's history of transactions, for the linearizability checker.
//!
//! Keys that are touched together make one object, and each object is checked alone. The model knows values, versions and leases, no
//! revisions: those count the whole store's changes, and are checked by themselves (see [`revisions`]). So a guard may ask
//! for a version or a value, or for a creation revision of 0.

use std::{cmp::Ordering, collections::BTreeMap};

use bytes::Bytes;
use rk_store::{
    Compare, CompareOp, CompareTarget, KeyRange, KeyValue, LeaseId, Op, OpResponse, Revision, Txn, TxnResponse,
};

use super::linear::{self, Model, Operation, Verdict};

/// A transaction as a client saw it.
#[derive(Clone)]
pub struct Call {
    /// What was asked for.
    pub txn: Txn,
    /// What was answered, if anything was.
    pub answer: Option<TxnResponse>,
}

/// A key's value, version and lease.
type Cell = (Bytes, u64, LeaseId);

/// The keys of one object. Its state is what they hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct KvModel;

impl Model for KvModel {
    type State = BTreeMap<Bytes, Cell>;
    type Call = Call;

    fn start(&self) -> Self::State {
        BTreeMap::new()
    }

    fn step(&self, state: &Self::State, call: &Call) -> Option<Self::State> {
        let succeeded = call.txn.compare.iter().all(|compare| holds(state, compare));
        let ops = if succeeded { &call.txn.success } else { &call.txn.failure };
        let Some(answer) = &call.answer else {
            return ops.iter().try_fold(state.clone(), |state, op| apply(state, op, None));
        };
        if answer.succeeded != succeeded || answer.responses.len() != ops.len() {
            return None;
        }
        ops.iter().zip(&answer.responses).try_fold(state.clone(), |state, (op, answer)| apply(state, op, Some(answer)))
    }
}

fn holds(state: &BTreeMap<Bytes, Cell>, compare: &Compare) -> bool {
    let ordering = match (state.get(&compare.range.start), &compare.target) {
        (Some((value, ..)), CompareTarget::Value(wanted)) => value.cmp(wanted),
        (None, CompareTarget::Value(_)) => return false,
        (cell, CompareTarget::Version(wanted)) => cell.map_or(0, |cell| cell.1).cmp(wanted),
        (cell, CompareTarget::CreateRevision(0)) => u8::from(cell.is_some()).cmp(&0),
        (cell, CompareTarget::Lease(wanted)) => cell.map_or(0, |cell| cell.2).cmp(wanted),
        (_, target) => unreachable!("a guard that the model does not know: {target:?}"),
    };
    match compare.op {
        CompareOp::Equal => ordering == Ordering::Equal,
        CompareOp::Greater => ordering == Ordering::Greater,
        CompareOp::Less => ordering == Ordering::Less,
        CompareOp::NotEqual => ordering != Ordering::Equal,
    }
}

/// The state after an operation, `None` if it was not answered so.
fn apply(mut state: BTreeMap<Bytes, Cell>, op: &Op, answer: Option<&OpResponse>) -> Option<BTreeMap<Bytes, Cell>> {
    match (op, answer) {
        (Op::Range(request), Some(OpResponse::Range(found))) => {
            let held = state.range::<[u8], _>(request.range.bounds());
            if !held.eq_by_cells(&found.kvs) {
                return None;
            }
        }
        (Op::Put(put), _) => {
            let version = state.get(&put.key).map_or(1, |cell| cell.1 + 1);
            state.insert(put.key.clone(), (put.value.clone(), version, put.lease));
        }
        (Op::Delete(delete), answer) => {
            let before = state.len();
            state.retain(|key, _| !delete.range.contains(key));
            let gone = (before - state.len()) as u64;
            if let Some(OpResponse::Delete { deleted, .. }) = answer
                && *deleted != gone
            {
                return None;
            }
        }
        _ => {}
    }
    Some(state)
}

trait EqByCells {
    fn eq_by_cells(self, found: &[KeyValue]) -> bool;
}

impl<'a, I: Iterator<Item = (&'a Bytes, &'a Cell)>> EqByCells for I {
    fn eq_by_cells(self, found: &[KeyValue]) -> bool {
        let found = found.iter().map(|kv| (&kv.key, &kv.value, kv.version, kv.lease));
        self.map(|(key, (value, version, lease))| (key, value, *version, *lease)).eq(found)
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for compare in &self.txn.compare {
            write!(f, "if {:?} {:?} {:?} ", compare.range.start, compare.op, compare.target)?;
        }
        show_ops(f, &self.txn.success)?;
        if !self.txn.failure.is_empty() {
            f.write_str(" else ")?;
            show_ops(f, &self.txn.failure)?;
        }
        let Some(answer) = &self.answer else { return f.write_str(" -> unknown") };
        write!(f, " -> {} at {}", if answer.succeeded { "then" } else { "else" }, answer.revision)?;
        for response in &answer.responses {
            match response {
                OpResponse::Range(found) => {
                    let found = found.kvs.iter().map(|kv| (&kv.key, &kv.value, kv.version, kv.mod_revision));
                    write!(f, " found {:?}", found.collect::<Vec<_>>())?;
                }
                OpResponse::Delete { deleted, .. } => write!(f, " deleted {deleted}")?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn show_ops(f: &mut std::fmt::Formatter<'_>, ops: &[Op]) -> std::fmt::Result {
    for op in ops {
        match op {
            Op::Range(request) => write!(f, "get {:?}; ", request.range.start)?,
            Op::Put(put) => write!(f, "put {:?} = {:?}; ", put.key, put.value)?,
            Op::Delete(delete) => write!(f, "delete {:?}; ", delete.range.start)?,
            Op::Txn(_) => f.write_str("txn; ")?,
        }
    }
    Ok(())
}

/// The ranges that a txn touches.
fn ranges(txn: &Txn) -> Vec<KeyRange> {
    let guards = txn.compare.iter().map(|compare| compare.range.clone());
    let ops = txn.success.iter().chain(&txn.failure).flat_map(|op| match op {
        Op::Range(request) => vec![request.range.clone()],
        Op::Put(put) => vec![KeyRange::key(put.key.clone())],
        Op::Delete(delete) => vec![delete.range.clone()],
        Op::Txn(txn) => ranges(txn),
    });
    guards.chain(ops).collect()
}

/// The operations of each object: those that touch the same keys, straight or by way of others.
fn objects(history: &[Operation<Call>]) -> Vec<Vec<Operation<Call>>> {
    // Stretches of keys that belong together, by where they start, with the operations that touch them.
    let mut objects: Vec<(Vec<KeyRange>, Vec<usize>)> = Vec::new();
    for (i, operation) in history.iter().enumerate() {
        let touched = ranges(&operation.call.txn);
        let overlaps = |ranges: &[KeyRange]| ranges.iter().any(|a| touched.iter().any(|b| overlap(a, b)));
        let (joined, apart): (Vec<_>, Vec<_>) = objects.into_iter().partition(|(ranges, _)| overlaps(ranges));
        let (mut ranges, mut operations) = (Vec::new(), Vec::new());
        for (other_ranges, other_operations) in joined {
            ranges.extend(other_ranges);
            operations.extend(other_operations);
        }
        for range in touched {
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        }
        operations.push(i);
        objects = apart;
        objects.push((ranges, operations));
    }
    objects.into_iter().map(|(_, operations)| operations.iter().map(|&i| history[i].clone()).collect()).collect()
}

fn overlap(a: &KeyRange, b: &KeyRange) -> bool {
    let before = |a: &KeyRange, b: &KeyRange| a.end.as_ref().is_some_and(|end| *end <= b.start);
    !before(a, b) && !before(b, a)
}

/// Whether a store's history is linearizable. It begins with an empty store.
///
/// Where an object's operations overlap so much that the search for their order is given up, they are searched once more in the order
/// that their revisions give them. That asks for more than an order that respects real time: for the one of the revisions.
///
/// # Panics
/// If a guard asks for what the model does not know.
pub fn check(history: &[Operation<Call>]) -> Verdict {
    let mut undecided = Verdict::Linearizable;
    for object in objects(history) {
        match check_object(&object, history, linear::MOST_STEPS) {
            Verdict::Linearizable => {}
            Verdict::Undecided(steps) => undecided = Verdict::Undecided(steps),
            violated => return violated,
        }
    }
    undecided
}

fn check_object(object: &[Operation<Call>], history: &[Operation<Call>], most_steps: usize) -> Verdict {
    match linear::search(&KvModel, object, most_steps) {
        Verdict::Undecided(_) => linear::search(&KvModel, &by_revision(object, history), most_steps),
        verdict => verdict,
    }
}

/// The operations with revisions for times: a change happened at its own, and what changed nothing between that which it was told of and
/// the next. One without an answer happened after all those that had ended before it began, or never.
fn by_revision(object: &[Operation<Call>], history: &[Operation<Call>]) -> Vec<Operation<Call>> {
    let told = |operation: &Operation<Call>| operation.call.answer.as_ref().map(|answer| answer.revision);
    let mut ended: Vec<_> = history.iter().filter_map(|operation| Some((operation.end?, told(operation)?))).collect();
    ended.sort_unstable();
    let mut highest = 0;
    for (_, revision) in &mut ended {
        highest = highest.max(*revision);
        *revision = highest;
    }
    let before = |time: u64| ended[..ended.partition_point(|(end, _)| *end < time)].last().map_or(0, |(_, last)| *last);
    let placed = |operation: &Operation<Call>| {
        let at = told(operation).map(|revision| 2 * revision + u64::from(!changes(&operation.call)));
        let begin = at.unwrap_or_else(|| 2 * before(operation.begin) + 2);
        Operation { begin, end: at, ..operation.clone() }
    };
    object.iter().map(placed).collect()
}

/// What is wrong with the revisions that clients were told: what began after another thing had ended must not be told of an earlier one,
/// and no two changes share one.
pub fn revisions(history: &[Operation<Call>]) -> Result<(), String> {
    let answered = |operation: &Operation<Call>| {
        Some((operation.begin, operation.end?, operation.call.answer.as_ref()?.revision, changes(&operation.call)))
    };
    let mut by_begin: Vec<_> = history.iter().filter_map(|operation| Some((answered(operation)?, operation))).collect();
    by_begin.sort_by_key(|((begin, ..), _)| *begin);
    let mut by_end = by_begin.clone();
    by_end.sort_by_key(|((_, end, ..), _)| *end);
    let mut ended = by_end.into_iter().peekable();
    let mut floor: (Revision, Option<&Operation<Call>>) = (0, None);
    let mut made = BTreeMap::new();
    for ((begin, _, revision, change), operation) in by_begin {
        while let Some(((_, _, earlier, _), operation)) = ended.next_if(|((_, end, ..), _)| *end < begin) {
            if earlier > floor.0 {
                floor = (earlier, Some(operation));
            }
        }
        if revision < floor.0 || (change && revision == floor.0) {
            return Err(format!("{operation:?} was told of revision {revision} after {:?}", floor.1));
        }
        if change && let Some(other) = made.insert(revision, operation) {
            return Err(format!("{operation:?} and {other:?} share revision {revision}"));
        }
    }
    Ok(())
}

/// Whether a call that was answered has changed something.
fn changes(call: &Call) -> bool {
    let Some(answer) = &call.answer else { return false };
    let ops = if answer.succeeded { &call.txn.success } else { &call.txn.failure };
    ops.iter().zip(&answer.responses).any(|(op, answer)| match (op, answer) {
        (Op::Put(_), _) => true,
        (Op::Delete(_), OpResponse::Delete { deleted, .. }) => *deleted > 0,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use rk_store::{DeleteRequest, MemoryStore, PutRequest, RangeRequest, Store};

    use super::*;

    fn put(key: &'static str, value: &'static str) -> Op {
        Op::Put(PutRequest::new(key, value))
    }

    fn get(range: KeyRange) -> Op {
        Op::Range(RangeRequest::new(range))
    }

    fn delete(range: KeyRange) -> Op {
        Op::Delete(DeleteRequest { range, prev_kv: false })
    }

    fn guard(key: &'static str, target: CompareTarget) -> Compare {
        Compare { range: KeyRange::key(key), op: CompareOp::Equal, target }
    }

    fn txn(compare: Vec<Compare>, success: Vec<Op>, failure: Vec<Op>) -> Txn {
        Txn { compare, success, failure }
    }

    /// What a real store answers to these, one after another.
    fn history(txns: Vec<Txn>) -> Vec<Operation<Call>> {
        let store = MemoryStore::new();
        let operation = |(at, txn): (u64, Txn)| {
            let answer = block_on(store.txn(txn.clone())).unwrap();
            Operation { client: 1, call: Call { txn, answer: Some(answer) }, begin: 2 * at, end: Some(2 * at + 1) }
        };
        (1..).zip(txns).map(operation).collect()
    }

    fn sample() -> Vec<Operation<Call>> {
        history(vec![
            txn(vec![], vec![put("a", "1"), put("b", "1")], vec![]),
            txn(vec![guard("a", CompareTarget::Value("1".into()))], vec![put("a", "2")], vec![get(KeyRange::key("a"))]),
            txn(vec![guard("a", CompareTarget::Version(1))], vec![put("a", "3")], vec![get(KeyRange::prefix(""))]),
            txn(vec![guard("x", CompareTarget::CreateRevision(0))], vec![put("x", "1")], vec![]),
            txn(vec![], vec![delete(KeyRange::key("b"))], vec![]),
            txn(vec![], vec![get(KeyRange::key("x"))], vec![]),
            txn(vec![], vec![get(KeyRange::key("a"))], vec![]),
        ])
    }

    /// Puts of one key that all overlap, done in the order opposite to that of their begins, and a read behind each of them.
    fn crossed(puts: u64) -> Vec<Operation<Call>> {
        let put = |i: u64| txn(vec![], vec![Op::Put(PutRequest::new("a", i.to_string()))], vec![]);
        let read = || txn(vec![], vec![get(KeyRange::key("a"))], vec![]);
        let mut operations = history((0..puts).flat_map(|i| [put(i), read()]).collect());
        for (i, pair) in (0..).zip(operations.chunks_mut(2)) {
            (pair[0].begin, pair[0].end) = (puts - i, Some(10 * puts + i));
            (pair[1].begin, pair[1].end) = (2 * puts + 2 * i, Some(2 * puts + 2 * i + 1));
        }
        operations
    }

    #[test]
    fn what_overlaps_too_much_is_decided_by_its_revisions() {
        const STEPS: usize = 20_000;
        let mut history = crossed(40);
        assert_eq!(linear::search(&KvModel, &history, STEPS), Verdict::Undecided(STEPS));
        assert_eq!(check_object(&history, &history, STEPS), Verdict::Linearizable);
        // A change that nobody was told of still has its place.
        history[20].call.answer = None;
        history[20].end = None;
        assert_eq!(check_object(&history, &history, STEPS), Verdict::Linearizable);
        history.remove(20);
        assert!(matches!(check_object(&history, &history, STEPS), Verdict::Violated(_)), "a value from nowhere");
    }

    #[test]
    fn what_a_store_answers_passes() {
        assert_eq!(check(&sample()), Verdict::Linearizable);
        assert_eq!(revisions(&sample()), Ok(()));
        // What is not known to have happened may have.
        let mut history = sample();
        (history[3].end, history[3].call.answer) = (None, None);
        assert_eq!(check(&history), Verdict::Linearizable);
    }

    #[test]
    fn wrong_answers_are_found() {
        for wrong in [0, 1, 2, 3] {
            let mut history = sample();
            let answer = history[[1, 2, 4, 6][wrong]].call.answer.as_mut().unwrap();
            match wrong {
                0 | 1 => answer.succeeded = !answer.succeeded,
                2 => answer.responses = vec![OpResponse::Delete { deleted: 0, prev_kvs: Vec::new() }],
                _ => {
                    let OpResponse::Range(found) = &mut answer.responses[0] else { panic!("a range") };
                    found.kvs[0].version += 1;
                }
            }
            assert!(matches!(check(&history), Verdict::Violated(_)), "wrong answer {wrong}");
        }
    }

    #[test]
    fn wrong_revisions_are_found() {
        let mut history = sample();
        history[5].call.answer.as_mut().unwrap().revision -= 1;
        assert!(revisions(&history).unwrap_err().contains("after"), "back in time");
        let mut history = sample();
        // Beside each other, but of one revision.
        history[1].begin = 1;
        history[0].call.answer.as_mut().unwrap().revision += 1;
        assert!(revisions(&history).unwrap_err().contains("share"), "{:?}", revisions(&history));
    }

    #[test]
    fn keys_touched_together_are_one_object() {
        let sizes = |history: Vec<Operation<Call>>| {
            let mut sizes: Vec<_> = objects(&history).iter().map(Vec::len).collect();
            sizes.sort_unstable();
            sizes
        };
        let one = |key: &'static str| txn(vec![], vec![put(key, "1")], vec![]);
        assert_eq!(sizes(history(vec![one("a"), one("b"), one("a"), one("c")])), [1, 1, 2]);
        let both = txn(vec![], vec![put("a", "2"), put("b", "2")], vec![]);
        assert_eq!(sizes(history(vec![one("a"), one("b"), both, one("c")])), [1, 3]);
        let prefix = txn(vec![], vec![get(KeyRange::prefix("k/"))], vec![]);
        assert_eq!(sizes(history(vec![one("k/1"), one("k/2"), prefix, one("l")])), [1, 3]);
    }
}
