//! A member's folder: its raft log, its vote and its states.
//!
//! ```text
//! log/         entries, and a note: who the member is, its vote, and in which slot its newest state is
//! state-a, -b  states as records in chunks, one of them the newest; engines that keep their records have these empty
//! engine-a, -b the folders of engines
//! lock         the process that has the folder
//! ```
//! The note changes with one write. So a new state and the log that goes on from it are there at once or not at all.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes};
use parking_lot::Mutex;
use raft::eraftpb::{Entry, EntryType, HardState};
use rk_store::{
    Command, Disk, Engine, Error, Machine, OsDisk, Replica, SegmentEngine, SegmentOptions, SnapshotStream, TimedDisk,
    log::{Log, LogBatch, LogOptions, LogWriter},
    planted::{Bug, is_planted},
    restore_snapshot,
};
use tokio::sync::oneshot;

use super::{Batch, Point, RaftLog, Recovered, Syncs, slots};
use crate::{
    MemberId, Membership,
    codec::{put_bytes, take_bytes},
    entry::Content,
    node::failed,
};

/// Makes the engine that holds a member's records, in a folder of its own that may hold what an earlier one has left.
pub type MakeEngine = Arc<dyn Fn(&Path, &Arc<dyn Disk>) -> Result<Arc<dyn Engine>, Error> + Send + Sync>;

/// How a member uses its folder.
#[derive(Clone)]
#[non_exhaustive]
pub struct MemberDirOptions {
    /// The size in bytes from which on the log goes on in a new file.
    pub segment_bytes: u64,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The engine; by default [`SegmentEngine`], which has values on disk only.
    pub engine: MakeEngine,
}

impl std::fmt::Debug for MemberDirOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberDirOptions").field("segment_bytes", &self.segment_bytes).finish_non_exhaustive()
    }
}

impl Default for MemberDirOptions {
    fn default() -> Self {
        Self {
            segment_bytes: LogOptions::default().segment_bytes,
            disk: Arc::new(OsDisk),
            engine: Arc::new(|dir, disk| {
                Ok(Arc::new(SegmentEngine::open(dir, disk.clone(), SegmentOptions::default())?))
            }),
        }
    }
}

/// Who a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity {
    /// The group's id.
    pub cluster_id: u64,
    /// The member's id.
    pub member_id: MemberId,
}

/// What the log keeps beside its entries.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Note {
    pub identity: Identity,
    pub life: u64,
    pub vote: HardState,
    /// Where the newest state is.
    pub slot: Option<u8>,
}

const VERSION: u8 = 1;

impl Note {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.put_u8(VERSION);
        out.put_u64(self.identity.cluster_id);
        out.put_u64(self.identity.member_id);
        out.put_u64(self.life);
        out.put_u64(self.vote.term);
        out.put_u64(self.vote.vote);
        out.put_u64(self.vote.commit);
        out.put_u8(self.slot.map_or(u8::MAX, |slot| slot));
        out
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        let from = &mut bytes;
        if from.try_get_u8().ok()? != VERSION {
            return None;
        }
        let identity = Identity { cluster_id: from.try_get_u64().ok()?, member_id: from.try_get_u64().ok()? };
        let life = from.try_get_u64().ok()?;
        let vote = HardState {
            term: from.try_get_u64().ok()?,
            vote: from.try_get_u64().ok()?,
            commit: from.try_get_u64().ok()?,
            ..HardState::default()
        };
        let slot = Some(from.try_get_u8().ok()?).filter(|slot| *slot != u8::MAX);
        Some(Self { identity, life, vote, slot })
    }
}

/// What the log's and the states' side of a folder share.
pub(super) struct Core {
    pub dir: PathBuf,
    pub options: MemberDirOptions,
    pub log: LogWriter,
    pub note: Mutex<Note>,
    syncs: Syncs,
    /// Held for as long as anything of the folder is in use.
    _lock: Box<dyn Send + Sync>,
}

/// A member's folder: a [`RaftLog`] and [`Checkpoints`](super::Checkpoints) on disk. What it has written survives `kill -9` and power
/// loss.
#[derive(Clone)]
pub struct MemberDir {
    pub(super) core: Arc<Core>,
    pub(super) slots: slots::Slots,
}

impl std::fmt::Debug for MemberDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberDir").field("dir", &self.core.dir).finish_non_exhaustive()
    }
}

/// Does work that waits for the disk, away from the caller.
pub(super) async fn on_disk<T: Send + 'static>(
    disk: &Arc<dyn Disk>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (reply, answer) = oneshot::channel();
    // Whoever asked may have stopped waiting.
    disk.run(Box::new(move || drop(reply.send(work()))));
    answer.await.map_err(|_| failed("the disk", "the runtime has ended"))?
}

impl MemberDir {
    /// Opens a member's folder, made if it is missing.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process has it, [`Error::Corrupt`], [`Error::NoSpace`], [`Error::Io`].
    pub async fn open(dir: impl AsRef<Path>, options: MemberDirOptions) -> Result<Self, Error> {
        let dir = dir.as_ref().to_owned();
        let disk = options.disk.clone();
        on_disk(&disk, move || Self::open_blocking(dir, options)).await
    }

    fn open_blocking(dir: PathBuf, mut options: MemberDirOptions) -> Result<Self, Error> {
        let (disk, log_dir, syncs) = (options.disk, dir.join("log"), Syncs::default());
        options.disk = Arc::new(TimedDisk::new(disk.clone(), syncs.states.clone()));
        slots::make_dir(&*disk, &log_dir)?;
        let lock = disk.lock(&dir)?;
        let mut log_options = LogOptions::default();
        log_options.segment_bytes = options.segment_bytes;
        let log = Log::open(&log_dir, Arc::new(TimedDisk::new(disk, syncs.log.clone())), log_options)?;
        let note = match log.reader().state() {
            Some(bytes) => Note::decode(bytes).ok_or_else(|| Error::Corrupt {
                file: log_dir.display().to_string(),
                offset: 0,
                reason: "its note is none of this version".into(),
            })?,
            None => Note::default(),
        };
        let core = Core { dir, options, log: LogWriter::new(log), note: Mutex::new(note), syncs, _lock: lock };
        Ok(Self { core: Arc::new(core), slots: slots::Slots::default() })
    }

    /// Whose folder it is, `None` for a new one.
    pub fn identity(&self) -> Option<Identity> {
        Some(self.core.note.lock().identity).filter(|identity| *identity != Identity::default())
    }

    /// Makes it the folder of a member of a new group, which begins with nothing, or with what a backup holds
    /// ([`rk_store::Store::snapshot`]). All first members of a group must begin with the same.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is a member's folder already, and those of [`MemberDir::open`] and [`restore_snapshot`].
    pub async fn bootstrap(
        &self,
        member_id: MemberId,
        members: Membership,
        backup: Option<SnapshotStream>,
    ) -> Result<(), Error> {
        self.check_new()?;
        let engine = self.first_engine().await?;
        let machine = match backup {
            Some(backup) => restore_snapshot(engine, backup).await?,
            None => Machine::new(engine)?,
        };
        let identity = Identity { cluster_id: members.cluster_id, member_id };
        let (point, vote) = (Point::bootstrap(members), HardState::default());
        let begin = Some((identity, vote, point.index));
        self.save_state(point, Replica::new(machine, 1).snapshot(), false, begin).await
    }

    /// Makes it the folder of a member that a group was told of, and that gets its state from there.
    ///
    /// # Errors
    /// As [`MemberDir::bootstrap`].
    pub async fn join(&self, identity: Identity) -> Result<(), Error> {
        self.check_new()?;
        self.write_note(|note| note.identity = identity).await
    }

    fn check_new(&self) -> Result<(), Error> {
        match self.identity() {
            None => Ok(()),
            Some(Identity { cluster_id, member_id }) => Err(Error::Invalid(format!(
                "{} holds the data of the member {member_id:x} of the cluster {cluster_id:x}",
                self.core.dir.display()
            ))),
        }
    }

    /// The engine of a member that has no state yet.
    pub(super) async fn first_engine(&self) -> Result<Arc<dyn Engine>, Error> {
        let this = self.clone();
        on_disk(&self.core.options.disk, move || this.slots.use_engine(&this.core, 0)).await
    }

    /// Makes of a member's folder that of the only member of a new group: all that was committed as far as this member
    /// knows is kept, all other members are forgotten. For when a majority is lost for good; no other member of the old group may go on.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is no member's folder or holds no state, and those of [`MemberDir::open`].
    pub async fn force_new_cluster(&self) -> Result<(), Error> {
        use super::Checkpoints;
        let old = self.identity().ok_or_else(|| Error::Invalid("there is no member to go on from".into()))?;
        let newest = Checkpoints::load(self).await?;
        let (mut point, machine) = newest.ok_or_else(|| Error::Invalid("there is no state to go on from".into()))?;
        let recovered = RaftLog::load(&mut self.clone()).await?;
        let replica = Replica::new(machine, 1);
        for entry in super::entries_behind(&point, recovered.entries) {
            if entry.index > recovered.state.commit {
                break;
            }
            (point.index, point.term) = (entry.index, entry.term);
            match Content::of(entry)? {
                Content::Nothing => {}
                Content::LeaveJoint => drop(point.membership.leave_joint()),
                Content::Change { change, .. } => {
                    // If it is refused here, it was refused then.
                    let _refused = point.membership.apply(&change);
                }
                Content::Command(_, data) => {
                    let command = Command::decode(data).map_err(|error| failed("an entry", error))?;
                    if let Err(error @ Error::Unavailable(_)) = replica.apply(&command) {
                        return Err(error);
                    }
                }
            }
        }
        point.membership = point.membership.alone(old.member_id, recovered.life);
        let identity = Identity { cluster_id: point.membership.cluster_id, ..old };
        let vote = HardState { term: recovered.state.term, ..HardState::default() };
        let index = point.index;
        self.save_state(point, replica.snapshot(), false, Some((identity, vote, index))).await
    }

    /// Changes the note, durably.
    pub(super) async fn write_note(&self, change: impl FnOnce(&mut Note)) -> Result<(), Error> {
        self.submit(LogBatch::default(), change).await
    }

    /// Writes a batch with a changed note behind those that were given before.
    pub(super) fn submit(
        &self,
        mut batch: LogBatch,
        change: impl FnOnce(&mut Note),
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let (reply, answer) = oneshot::channel();
        {
            // Under the lock: notes are written in the order in which they change.
            let mut note = self.core.note.lock();
            change(&mut note);
            batch.state(&note.encode());
            self.core.log.submit(batch, move |result| drop(reply.send(result)));
        }
        async move { answer.await.map_err(|_| failed("the log", "its writer has ended"))? }
    }
}

fn encode(entry: &Entry, out: &mut Vec<u8>) {
    out.put_u64(entry.term);
    out.put_u8(match entry.get_entry_type() {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    });
    put_bytes(out, &entry.context);
    out.put_slice(&entry.data);
}

fn decode(index: u64, mut bytes: Bytes) -> Option<Entry> {
    let mut entry = Entry { index, term: bytes.try_get_u64().ok()?, ..Entry::default() };
    entry.set_entry_type(match bytes.try_get_u8().ok()? {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => return None,
    });
    entry.context = take_bytes(&mut bytes)?;
    entry.data = bytes;
    Some(entry)
}

/// Bytes that an entry takes in a batch beside its data and context, at most, and those of a note.
const ENTRY_BYTES: usize = 32;
const NOTE_BYTES: usize = 96;

/// Bytes of entries read in one go.
const READ_BYTES: usize = 4 << 20;

#[async_trait]
impl RaftLog for MemberDir {
    async fn load(&mut self) -> Result<Recovered, Error> {
        self.write_note(|note| note.life += 1).await?;
        let (reader, dir) = (self.core.log.reader().clone(), self.core.dir.clone());
        let (life, state) = {
            let note = self.core.note.lock();
            (note.life, note.vote.clone())
        };
        on_disk(&self.core.options.disk, move || {
            let mut recovered = Recovered { life, state, entries: Vec::new() };
            let mut index = reader.first();
            while index < reader.next() {
                for bytes in reader.entries(index..reader.next(), READ_BYTES)? {
                    let entry = decode(index, bytes).ok_or_else(|| Error::Corrupt {
                        file: dir.join("log").display().to_string(),
                        offset: 0,
                        reason: format!("the entry {index} could not be read"),
                    })?;
                    recovered.entries.push(entry);
                    index += 1;
                }
            }
            Ok(recovered)
        })
        .await
    }

    async fn write(&mut self, batch: Batch) -> Result<(), Error> {
        let bytes =
            batch.entries.iter().map(|entry| entry.data.len() + entry.context.len() + ENTRY_BYTES).sum::<usize>();
        let mut log_batch = LogBatch::with_capacity(bytes + NOTE_BYTES);
        for entry in &batch.entries {
            log_batch.entry(entry.index, |out| encode(entry, out));
        }
        match batch.state {
            Some(state) if !is_planted(Bug::LoseHardState) => self.submit(log_batch, |note| note.vote = state).await,
            _ => self.core.log.append(log_batch).await,
        }
    }

    async fn drop_to(&mut self, index: u64) -> Result<(), Error> {
        self.core.log.drop_before(index + 1).await
    }

    async fn reset(&mut self, index: u64, state: HardState) -> Result<(), Error> {
        let mut batch = LogBatch::default();
        batch.reset(index + 1);
        // Held until the note is written.
        let published = self.slots.take_published();
        self.submit(batch, |note| {
            note.vote = state;
            note.slot = published.as_ref().map(|(slot, _)| *slot).or(note.slot);
        })
        .await
    }

    fn size(&self) -> u64 {
        self.core.log.reader().size()
    }

    fn syncs(&self) -> Syncs {
        self.core.syncs.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_and_entries_survive_their_bytes() {
        let vote = HardState { term: 3, vote: 2, commit: 9, ..HardState::default() };
        let identity = Identity { cluster_id: 5, member_id: 6 };
        for slot in [None, Some(0), Some(1)] {
            let note = Note { identity, life: 4, vote: vote.clone(), slot };
            assert_eq!(Note::decode(note.encode().into()), Some(note));
        }
        let mut entry = Entry { index: 7, term: 3, data: "d".into(), context: "c".into(), ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        let mut bytes = Vec::new();
        encode(&entry, &mut bytes);
        assert_eq!(decode(7, bytes.into()), Some(entry));
        assert_eq!(decode(7, Bytes::from_static(b"short")), None);
    }
}
