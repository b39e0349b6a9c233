//! Reads that hold the state's lock only to find out where things are, not while the engine fetches them.
//!
//! A record never changes while it is there. So a read that found all it looked for is right, whatever was applied meanwhile; one that
//! misses a record was overtaken by compaction and looks again.

use crate::{
    Error, Event, KeyRange, RangeRequest, RangeResponse, Replica, Revision,
    mvcc::{load_all, range_answer, scan_history},
};

/// Pairs that are fetched under the lock: to give it up would cost more.
const FEW: usize = 16;

impl Replica {
    /// Reads keys.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let machine = self.machine();
        let found = machine.find(request)?;
        if found.positions.len() <= FEW {
            return machine.answer(request, &found);
        }
        let engine = machine.engine().clone();
        drop(machine);
        let Some(kvs) = load_all(&*engine, &found.positions)? else { return self.machine().range(request) };
        Ok(range_answer(request, kvs, found.count, found.revision))
    }

    /// The changes of `range` from the revision `from` on: those of whole revisions, until about `budget`
    /// records were looked at. The revision reached comes with them.
    pub(crate) fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        prev_kv: bool,
        budget: usize,
    ) -> Result<(Revision, Vec<Event>), Error> {
        let (engine, current) = {
            let machine = self.machine();
            (machine.engine().clone(), machine.revision())
        };
        let (reached, mut events) = scan_history(&*engine, range, from..current + 1, budget)?;
        // Records go only after the compact revision has risen.
        let machine = self.machine();
        let compacted = machine.compacted();
        if from < compacted {
            return Err(Error::Compacted { requested: from, compacted });
        }
        if prev_kv {
            for event in &mut events {
                // Of a change at the compact revision itself it is gone.
                if event.kv.mod_revision > compacted {
                    event.prev_kv = machine.at(&event.kv.key, event.kv.mod_revision - 1)?;
                }
            }
        }
        Ok((reached, events))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{Command, Machine, MemoryEngine, Op, Position, PutRequest, Txn, *};

    fn put(replica: &Replica, i: usize) {
        let success = vec![Op::Put(PutRequest::new(format!("k{i:03}"), format!("{i}")))];
        replica.apply(&Command::Txn(Txn { success, ..Txn::default() })).unwrap();
    }

    #[test]
    fn large_reads_beside_compaction_are_whole() {
        let replica = Replica::new(Machine::new(Arc::new(MemoryEngine::new())).unwrap(), 10);
        (0..100).for_each(|i| put(&replica, i));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for i in 0..5000 {
                    put(&replica, i % 100);
                    let revision = replica.status().revision;
                    replica.apply(&Command::Compact(revision)).unwrap();
                }
            });
            let mut last = 0;
            while !writer.is_finished() {
                let answer = replica.range(&RangeRequest::new(KeyRange::all())).unwrap();
                assert_eq!(answer.kvs.len(), 100);
                let newest = answer.kvs.iter().map(|kv| kv.mod_revision).max().unwrap();
                assert_eq!(newest, answer.revision, "the newest pair is the last put");
                assert!(answer.revision >= last);
                last = answer.revision;
                match replica.history(&KeyRange::all(), last - 3, false, 1000) {
                    Ok((reached, events)) => {
                        assert!(events.iter().map(|event| event.kv.mod_revision).eq(last - 3..=reached))
                    }
                    Err(error) => assert!(matches!(error, Error::Compacted { .. }), "{error}"),
                }
            }
            writer.join().unwrap();
        });
        assert!(replica.machine().engine().get(Position::first(2)).unwrap().is_none());
    }
}
