//! The one writer: takes what has queued up, logs it with one sync, applies it and answers.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{checkpoint, closed};
use crate::{
    Command, Engine, Error, Outcome, Replica,
    log::{Log, LogBatch},
    serial::{Serial, Work},
};

/// Bytes of commands that share a sync, about.
const GROUP_BYTES: usize = 8 << 20;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What is asked of the writer.
pub(crate) enum Request {
    /// Log and apply a command.
    Write { command: Command, reply: Reply<Outcome>, _turn: OwnedSemaphorePermit },
    /// Write a checkpoint now; `thorough` as in [`Engine::persist`].
    Checkpoint { thorough: bool, reply: Option<Reply<()>> },
    /// The checkpoint under way has ended: its size.
    CheckpointDone(Result<u64, Error>),
    /// Finish and give the directory up.
    Close(oneshot::Sender<()>),
}

/// Owns the log and the directory.
pub(crate) struct Writer {
    pub(crate) replica: Arc<Replica>,
    pub(crate) log: Log,
    /// The number of the next command.
    pub(crate) next: u64,
    pub(crate) dir: PathBuf,
    pub(crate) checkpoint_bytes: u64,
    /// Bytes of the newest checkpoint.
    pub(crate) checkpoint_size: u64,
    /// The size of the log at which the next checkpoint is due.
    pub(crate) checkpoint_at: u64,
    /// Bytes of log and checkpoint, for everyone to read.
    pub(crate) disk_size: Arc<AtomicU64>,
    /// The checkpoint being written: the number of the command behind it, and who waits for it.
    pub(crate) running: Option<(u64, Vec<Reply<()>>)>,
    /// Whether a checkpoint is wanted that is not begun, and a thorough one.
    pub(crate) wanted: Option<bool>,
    /// Those who wait for it.
    pub(crate) waiting: Vec<Reply<()>>,
    pub(crate) closing: Vec<oneshot::Sender<()>>,
    /// Why nothing can be written any more.
    pub(crate) broken: Option<String>,
    /// Held until the store is closed.
    pub(crate) lock: Option<Box<dyn Send + Sync>>,
}

impl Work for Writer {
    type Item = Request;

    fn run(&mut self, requests: Vec<Request>, own: &Serial<Self>) {
        let (mut group, mut replies) = (LogBatch::default(), Vec::new());
        for request in requests {
            match request {
                Request::Write { command, reply, _turn } => {
                    group.entry(self.next + replies.len() as u64, |out| command.encode(out));
                    replies.push((command, reply, _turn));
                    if group.size() >= GROUP_BYTES {
                        self.commit(std::mem::take(&mut group), std::mem::take(&mut replies));
                    }
                }
                Request::Checkpoint { thorough, reply } => {
                    self.wanted = Some(self.wanted.unwrap_or(false) || thorough);
                    self.waiting.extend(reply);
                }
                Request::CheckpointDone(result) => self.checkpoint_done(result),
                Request::Close(reply) => self.closing.push(reply),
            }
        }
        self.commit(group, replies);
        // One that is being written already lacks the latest commands, so whoever asks now gets the next one.
        if self.running.is_none() && (self.wanted.is_some() || self.log.reader().size() >= self.checkpoint_at) {
            self.start_checkpoint(own);
        }
        if !self.closing.is_empty() && self.running.is_none() {
            self.close();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Writer {
    /// Logs commands, applies them and answers.
    fn commit(&mut self, group: LogBatch, writes: Vec<(Command, Reply<Outcome>, OwnedSemaphorePermit)>) {
        if writes.is_empty() {
            return;
        }
        let logged = match &self.broken {
            Some(reason) => Err(Error::Unavailable(reason.clone())),
            None if self.lock.is_none() => Err(closed()),
            // What is logged, the engine must be able to take up.
            None => self.engine().make_room().map_err(Error::from).and_then(|()| self.log.append(&[group])),
        };
        match &logged {
            Ok(()) => self.next += writes.len() as u64,
            Err(Error::Unavailable(reason)) if self.broken.is_none() && self.lock.is_some() => {
                self.fail(reason.clone());
            }
            Err(_) => {}
        }
        let mut answers = Vec::with_capacity(writes.len());
        for (command, reply, turn) in writes {
            let result = match (&logged, &self.broken) {
                (Err(error), _) => Err(error.clone()),
                (Ok(()), Some(reason)) => Err(Error::Unavailable(reason.clone())),
                (Ok(()), None) => self.replica.apply(&command),
            };
            if let (Ok(()), None, Err(Error::Unavailable(reason))) = (&logged, &self.broken, &result) {
                self.fail(reason.clone());
            }
            answers.push((reply, result, turn));
        }
        // All at once: who gets several of them does not wake for each.
        for (reply, result, _turn) in answers {
            // Whoever asked may have stopped waiting; the command is done all the same.
            let _gone = reply.send(result);
        }
        self.publish_size();
    }

    /// Ends the watches and gives the directory up.
    fn close(&mut self) {
        if self.lock.is_some() {
            self.replica.close("the store was closed");
            if self.broken.is_none()
                && let Err(error) = self.log.finish()
            {
                // What was acknowledged is synced: only space allocated ahead stays.
                tracing::warn!(%error, "the log was not trimmed");
            }
            self.lock = None;
        }
        for reply in self.closing.drain(..) {
            // Whoever asked may have gone; the store is closed all the same.
            let _gone = reply.send(());
        }
    }

    fn engine(&self) -> Arc<dyn Engine> {
        self.replica.machine().engine().clone()
    }

    /// Refuses every write from now on.
    fn fail(&mut self, reason: String) {
        tracing::error!(reason, "the store refuses writes from now on");
        self.broken = Some(reason);
    }

    fn publish_size(&self) {
        self.disk_size.store(self.log.reader().size() + self.checkpoint_size, Ordering::Relaxed);
    }

    fn start_checkpoint(&mut self, own: &Serial<Self>) {
        let (waiting, thorough) = (std::mem::take(&mut self.waiting), self.wanted.take().unwrap_or(false));
        // Tried again once as much has been written again.
        self.checkpoint_at = self.log.reader().size() + self.checkpoint_bytes;
        let refused = match &self.broken {
            Some(reason) => Some(Error::Unavailable(reason.clone())),
            None if self.lock.is_none() => Some(closed()),
            None => self.log.rotate().err(),
        };
        if let Some(error) = refused {
            tracing::warn!(%error, "a checkpoint could not be begun");
            for reply in waiting {
                let _gone = reply.send(Err(error.clone()));
            }
            return;
        }
        let (next, snapshot, own) = (self.next, self.replica.snapshot(), own.clone());
        let (dir, disk) = (self.dir.clone(), self.log.disk().clone());
        self.running = Some((next, waiting));
        let persists = self.engine().persists();
        let write = move || {
            let result = if persists {
                checkpoint::persist(&dir, &*disk, next, &snapshot, thorough)
            } else {
                checkpoint::write(&dir, &*disk, next, &snapshot)
            };
            drop(snapshot);
            own.push(Request::CheckpointDone(result));
        };
        self.log.disk().run(Box::new(write));
    }

    fn checkpoint_done(&mut self, result: Result<u64, Error>) {
        let Some((next, waiting)) = self.running.take() else { return };
        let result = result.and_then(|size| {
            self.checkpoint_size = size;
            self.log.drop_before(next)
        });
        match &result {
            Ok(()) => {
                // The log may grow as large as the state before it is worth writing the state again.
                self.checkpoint_at = self.log.reader().size() + self.checkpoint_bytes.max(self.checkpoint_size);
            }
            Err(error) => tracing::warn!(%error, "a checkpoint failed; the log is kept"),
        }
        self.publish_size();
        for reply in waiting {
            let _gone = reply.send(result.clone());
        }
    }
}
