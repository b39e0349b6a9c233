//! The MVCC state machine: [`Command`]s in, revisions out.
//!
//! A [`Machine`] is deterministic and synchronous: it knows neither disk, clock nor network, so the same commands in the
//! same order make the same state in a store on a log and in each member of a raft group. A command is first
//! executed against the current state, giving the changes; then the changes go to the engine as one batch, and last
//! to the index in memory. A command that fails has changed nothing.
//!
//! ```text
//! Command ─ txn::execute ─► changes ─┬─► Engine   position → record (key, value, versions)
//!                                    ├─► Index    key → positions since the compact revision
//!                                    └─► Commit   the events, for watchers
//! ```

mod index;
mod leases;
mod range;
pub(crate) mod record;
mod snapshot;
mod txn;
mod validate;

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use self::{
    index::{Birth, Index},
    leases::Leases,
};
pub(crate) use self::{range::answer as range_answer, snapshot::Restoring, validate::takes_space};
pub use self::{
    record::Position,
    snapshot::{SnapshotChunk, SnapshotHead, snapshot_records},
    validate::{Limits, MAX_REQUEST_BYTES, MAX_TXN_OPS, is_read_only},
};
use crate::{
    Alarm, AlarmKind, Command, Engine, Error, Event, EventKind, KeyRange, KeyValue, Lease, LeaseId, MAX_LEASE_TTL,
    Outcome, RangeRequest, RangeResponse, Revision, Txn, TxnResponse, codec::DecodeError,
};

/// What one revision changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The revision.
    pub revision: Revision,
    /// Its changes in order, without the pairs before: [`Machine::with_before`] has them.
    pub events: Arc<[Event]>,
}

/// What applying a [`Command`] led to.
#[derive(Debug)]
pub struct Applied {
    /// The answer for whoever sent the command.
    pub result: Result<Outcome, Error>,
    /// The revision made, if the command changed keys.
    pub commit: Option<Commit>,
}

/// The state machine. See the module's description.
pub struct Machine {
    engine: Arc<dyn Engine>,
    index: Index,
    leases: Leases,
    revision: Revision,
    compacted: Revision,
    alarms: BTreeSet<Alarm>,
    garbage: Vec<Position>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("revision", &self.revision)
            .field("compacted", &self.compacted)
            .field("keys", &self.index.live())
            .finish_non_exhaustive()
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::Unavailable(format!("a record in the engine: {error}"))
    }
}

impl Machine {
    /// The empty state, at revision 1, over an engine that is emptied.
    pub fn new(engine: Arc<dyn Engine>) -> Result<Self, Error> {
        engine.clear()?;
        Ok(Self::over(engine))
    }

    fn over(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            index: Index::default(),
            leases: Leases::default(),
            revision: 1,
            compacted: 0,
            alarms: BTreeSet::new(),
            garbage: Vec::new(),
        }
    }

    /// The current revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// History before it is gone: reads and watches go back to it and no further; 0 if nothing was compacted.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Keys there now.
    pub fn keys(&self) -> u64 {
        self.index.live()
    }

    /// The engine's records.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Applies a command. [`Error::Unavailable`] means that the engine failed: the state here is unchanged but no
    /// longer that of others who applied the same command, so no more commands may follow.
    pub fn apply(&mut self, command: &Command) -> Applied {
        match self.try_apply(command) {
            Ok((outcome, commit)) => Applied { result: Ok(outcome), commit },
            // What can't be read now could be read by others, or by this one before.
            Err(error @ Error::Corrupt { .. }) => {
                Applied { result: Err(Error::Unavailable(error.to_string())), commit: None }
            }
            Err(error) => Applied { result: Err(error), commit: None },
        }
    }

    fn try_apply(&mut self, command: &Command) -> Result<(Outcome, Option<Commit>), Error> {
        self.check_alarms(command)?;
        match command {
            Command::Txn(txn) => {
                Limits::NONE.check(txn)?;
                let (mut response, events) = txn::execute(self, txn)?;
                let commit = self.commit(events)?;
                response.revision = self.revision;
                Ok((Outcome::Txn(response), commit))
            }
            Command::Compact(revision) => self.compact(*revision).map(|()| (Outcome::Done, None)),
            Command::LeaseGrant { id, ttl } => {
                if *id == 0 {
                    return Err(Error::Invalid("a lease's id is not 0".into()));
                }
                if *ttl > MAX_LEASE_TTL {
                    return Err(Error::LeaseTtlTooLarge(*ttl));
                }
                self.leases.grant(*id, Lease::granted(*id, *ttl).granted_ttl)?;
                Ok((Outcome::Done, None))
            }
            Command::LeaseRevoke { id } => {
                let events = txn::delete_keys(self, self.leases.keys(*id)?)?;
                let commit = self.commit(events)?;
                self.leases.revoke(*id);
                Ok((Outcome::Done, commit))
            }
            Command::Alarm { alarm, active } => {
                if *active {
                    self.alarms.insert(*alarm);
                } else {
                    self.alarms.remove(alarm);
                }
                Ok((Outcome::Done, None))
            }
        }
    }

    /// What alarms refuse: with one of corruption every change, with one of space what takes some.
    fn check_alarms(&self, command: &Command) -> Result<(), Error> {
        if matches!(command, Command::Alarm { .. }) {
            return Ok(());
        }
        let active = |kind| self.alarms.iter().any(|alarm| alarm.kind == kind);
        if active(AlarmKind::Corrupt) {
            return Err(Error::CorruptAlarm);
        }
        if takes_space(command) > 0 && active(AlarmKind::NoSpace) {
            return Err(Error::NoSpace("the alarm of the quota is active".into()));
        }
        Ok(())
    }

    /// The alarms that are active, in order.
    pub fn alarms(&self) -> impl Iterator<Item = Alarm> + '_ {
        self.alarms.iter().copied()
    }

    /// Makes the next revision of these changes, if there are any.
    fn commit(&mut self, mut events: Vec<Event>) -> Result<Option<Commit>, Error> {
        if events.is_empty() {
            return Ok(None);
        }
        let revision = self.revision + 1;
        let mut records = Vec::with_capacity(events.len());
        for (rank, event) in (0..).zip(&mut events) {
            let at = Position { revision, rank };
            let record = record::encode(at, event.kind, &event.kv);
            // The event shares the record's memory from here on, instead of the request's.
            event.kv = record::decode(at, &record.bytes)?.kv;
            records.push(record);
        }
        self.engine.append(records)?;
        for (rank, event) in (0..).zip(&events) {
            self.note(Position { revision, rank }, event);
        }
        self.revision = revision;
        Ok(Some(Commit { revision, events: events.into() }))
    }

    /// The changes of the newest revision, each with the pair that was there at the revision before.
    pub fn with_before(&self, commit: &Commit) -> Result<Arc<[Event]>, Error> {
        let with_before = |event: &Event| {
            // As in etcd, what a txn has deleted and made anew was not there before.
            let is_new = event.kind == EventKind::Put && event.kv.create_revision == commit.revision;
            let prev_kv = if is_new { None } else { self.at(&event.kv.key, commit.revision - 1)? };
            Ok(Event { prev_kv, ..event.clone() })
        };
        commit.events.iter().map(with_before).collect()
    }

    /// Takes a change that the engine holds into the index and the leases.
    fn note(&mut self, at: Position, event: &Event) {
        let put = (event.kind == EventKind::Put).then(|| Birth::of(&event.kv));
        self.index.insert(&event.kv.key, at, put);
        self.leases.bind(&event.kv.key, event.kv.lease);
    }

    fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        if revision <= self.compacted {
            return Err(Error::Compacted { requested: revision, compacted: self.compacted });
        }
        if revision > self.revision {
            return Err(Error::FutureRevision { requested: revision, current: self.revision });
        }
        self.compacted = revision;
        self.garbage.extend(self.index.compact(revision));
        Ok(())
    }

    /// Takes the positions of records that no read will see any more. Whoever applies commands gives them to
    /// [`remove_records`] when it suits.
    pub fn take_garbage(&mut self) -> Vec<Position> {
        std::mem::take(&mut self.garbage)
    }

    /// The revision a read asks for, 0 being now.
    fn resolve(&self, revision: Revision) -> Result<Revision, Error> {
        match revision {
            0 => Ok(self.revision),
            _ if revision < self.compacted => Err(Error::Compacted { requested: revision, compacted: self.compacted }),
            _ if revision > self.revision => Err(Error::FutureRevision { requested: revision, current: self.revision }),
            _ => Ok(revision),
        }
    }

    /// Where the pairs are that a read's answer is made from.
    pub(crate) fn find(&self, request: &RangeRequest) -> Result<Found, Error> {
        let at = self.resolve(request.revision)?;
        let mut found = self.index.range(&request.range, at).map(|(_, position)| position);
        let positions: Vec<_> = found.by_ref().take(range::fetched(request)).collect();
        let count = (positions.len() + found.count()) as u64;
        Ok(Found { positions, count, revision: self.revision })
    }

    /// The answer made of what was found.
    pub(crate) fn answer(&self, request: &RangeRequest, found: &Found) -> Result<RangeResponse, Error> {
        let kvs = found.positions.iter().map(|&position| self.load(position)).collect::<Result<_, _>>()?;
        Ok(range::answer(request, kvs, found.count, found.revision))
    }

    /// Reads keys.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        self.answer(request, &self.find(request)?)
    }

    /// Runs a txn that [`is_read_only`].
    pub fn read_txn(&self, txn: &Txn) -> Result<TxnResponse, Error> {
        Limits::NONE.check(txn)?;
        if !is_read_only(txn) {
            return Err(Error::Invalid("a txn with writes where only reads are possible".into()));
        }
        Ok(txn::execute(self, txn)?.0)
    }

    /// The pair of a key as it was at a revision that is not compacted.
    pub(crate) fn at(&self, key: &[u8], revision: Revision) -> Result<Option<KeyValue>, Error> {
        self.index.find(key, revision).map(|position| self.load(position)).transpose()
    }

    fn load(&self, at: Position) -> Result<KeyValue, Error> {
        let event = load(&*self.engine, at)?.ok_or_else(|| {
            Error::Unavailable(format!("the engine has lost the change {} of revision {}", at.rank, at.revision))
        })?;
        Ok(event.kv)
    }

    /// A lease's time to live as granted, in seconds.
    pub fn lease_ttl(&self, id: LeaseId) -> Result<i64, Error> {
        self.leases.ttl(id)
    }

    /// The keys bound to a lease, in order.
    pub fn lease_keys(&self, id: LeaseId) -> Result<Vec<bytes::Bytes>, Error> {
        self.leases.keys(id)
    }

    /// The leases alive, each with its granted time to live in seconds.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, i64)> + '_ {
        self.leases.iter()
    }
}

/// What a read finds in the index.
pub(crate) struct Found {
    /// Where the pairs are, in key order.
    pub(crate) positions: Vec<Position>,
    /// How many the range holds.
    pub(crate) count: u64,
    /// The revision now.
    pub(crate) revision: Revision,
}

/// The change at a place, without the pair before; `None` if it was removed.
pub(crate) fn load(engine: &dyn Engine, at: Position) -> Result<Option<Event>, Error> {
    engine.get(at)?.map(|record| Ok(record::decode(at, &record)?)).transpose()
}

/// The pairs at some places; `None` if one of them was removed.
pub(crate) fn load_all(engine: &dyn Engine, places: &[Position]) -> Result<Option<Vec<KeyValue>>, Error> {
    let (mut kvs, mut failure) = (Vec::with_capacity(places.len()), None);
    let all = engine.get_many(places, &mut |at, bytes| {
        match record::decode(at, bytes) {
            Ok(event) => kvs.push(event.kv),
            Err(error) => failure = Some(error),
        }
        failure.is_none()
    })?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(all.then_some(kvs)),
    }
}

/// The changes of the keys in `range`, from some revisions: those of whole revisions, until about `budget` records
/// were looked at. The revision reached comes with them.
pub(crate) fn scan_history(
    engine: &dyn Engine,
    range: &KeyRange,
    revisions: Range<Revision>,
    budget: usize,
) -> Result<(Revision, Vec<Event>), Error> {
    let (mut events, mut looked, mut reached) = (Vec::new(), 0, revisions.end - 1);
    let mut failure = None;
    engine.scan(Position::first(revisions.start), Position::first(revisions.end), &mut |at, record| {
        if looked >= budget && at.rank == 0 {
            reached = at.revision - 1;
            return false;
        }
        looked += 1;
        match record::decode(at, record) {
            Ok(event) if range.contains(&event.kv.key) => events.push(event),
            Ok(_) => {}
            Err(error) => failure = Some(error),
        }
        failure.is_none()
    })?;
    failure.map_or(Ok((reached, events)), |error| Err(error.into()))
}

/// Removes records from an engine, in batches, so that no reader waits long.
pub fn remove_records(engine: &dyn Engine, positions: &[Position]) -> Result<(), Error> {
    for chunk in positions.chunks(512) {
        engine.remove(chunk)?;
    }
    Ok(())
}
