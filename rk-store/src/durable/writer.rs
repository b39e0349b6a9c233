//! The one writer: takes what has queued up, logs it with one sync, applies it and answers.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    checkpoint,
    disk::Disk,
    lock::DirLock,
    log::{Log, LogError},
};
use crate::{Command, Error, Outcome, Replica};

/// Most requests that share a sync, and that wait for their turn.
pub(crate) const QUEUE: usize = 1024;

/// What is asked of the writer.
pub(crate) enum Request {
    /// Log and apply a command.
    Write(Command, oneshot::Sender<Result<Outcome, Error>>),
    /// Write a checkpoint now.
    Checkpoint(oneshot::Sender<Result<(), Error>>),
    /// Finish and give the directory up.
    Close(oneshot::Sender<()>),
}

/// Owns the log and the directory.
pub(crate) struct Writer {
    pub(crate) replica: Arc<Replica>,
    pub(crate) log: Log,
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segment_bytes: u64,
    pub(crate) checkpoint_bytes: u64,
    /// Bytes of the newest checkpoint.
    pub(crate) checkpoint_size: u64,
    /// Bytes of log and checkpoint, for everyone to read.
    pub(crate) disk_size: Arc<AtomicU64>,
    /// Why nothing can be written any more.
    pub(crate) broken: Option<String>,
    /// The size of the log at which the next checkpoint is due.
    pub(crate) checkpoint_at: u64,
    pub(crate) _lock: DirLock,
}

/// A checkpoint being written: the number of the command behind it, and its size in the end.
struct Running {
    next: u64,
    task: JoinHandle<Result<u64, Error>>,
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
}

/// Serves requests until all senders are gone or one asks to close.
pub(crate) async fn run(mut writer: Writer, mut requests: mpsc::Receiver<Request>) {
    let mut running: Option<Running> = None;
    let mut batch = Vec::with_capacity(QUEUE);
    let mut asked = Vec::new();
    loop {
        tokio::select! {
            biased;
            result = finished(&mut running) => {
                if let Some(done) = running.take() {
                    writer.checkpoint_done(done, result);
                }
            }
            count = requests.recv_many(&mut batch, QUEUE) => {
                if count == 0 {
                    break;
                }
            }
        }
        let (mut writes, mut closing) = (Vec::new(), Vec::new());
        for request in batch.drain(..) {
            match request {
                Request::Write(command, reply) => writes.push((command, reply)),
                Request::Checkpoint(reply) => asked.push(reply),
                Request::Close(reply) => closing.push(reply),
            }
        }
        if !writes.is_empty() {
            // Off the async threads: a sync may take many milliseconds.
            let committed = tokio::task::spawn_blocking(move || {
                writer.commit(writes);
                writer
            });
            writer = match committed.await {
                Ok(writer) => writer,
                // The runtime shuts down, or applying has panicked: either way no one writes any more.
                Err(error) => {
                    tracing::error!(%error, "the store's writer has ended");
                    return;
                }
            };
        }
        // One that is being written already lacks the latest commands, so whoever asks now gets the next one.
        if running.is_none() && (!asked.is_empty() || writer.log.size() >= writer.checkpoint_at) {
            running = writer.start_checkpoint(std::mem::take(&mut asked));
        }
        if !closing.is_empty() {
            requests.close();
            if let Some(done) = running.take() {
                finish(&mut writer, done).await;
            }
            writer.close();
            for reply in closing {
                // Whoever asked may have gone; the store is closed all the same.
                let _gone = reply.send(());
            }
            return;
        }
    }
    if let Some(done) = running.take() {
        finish(&mut writer, done).await;
    }
    writer.close();
}

async fn finished(running: &mut Option<Running>) -> Result<u64, Error> {
    match running {
        Some(running) => (&mut running.task).await.unwrap_or_else(|error| Err(Error::Unavailable(error.to_string()))),
        None => std::future::pending().await,
    }
}

async fn finish(writer: &mut Writer, running: Running) {
    let mut running = Some(running);
    let result = finished(&mut running).await;
    if let Some(done) = running {
        writer.checkpoint_done(done, result);
    }
}

impl Writer {
    /// Logs commands, applies them and answers. Runs off the async threads.
    fn commit(&mut self, writes: Vec<(Command, oneshot::Sender<Result<Outcome, Error>>)>) {
        let refused = match &self.broken {
            Some(reason) => Some(Error::Unavailable(reason.clone())),
            None => match self.log.append(writes.iter().map(|(command, _)| command)) {
                Ok(()) => None,
                Err(LogError::Refused(error)) => Some(error),
                Err(LogError::Broken(reason)) => Some(self.fail(reason)),
            },
        };
        for (command, reply) in writes {
            let result = match (&refused, &self.broken) {
                (Some(error), _) => Err(error.clone()),
                (None, Some(reason)) => Err(Error::Unavailable(reason.clone())),
                (None, None) => self.replica.apply(&command),
            };
            if let (None, None, Err(Error::Unavailable(reason))) = (&refused, &self.broken, &result) {
                self.fail(reason.clone());
            }
            // Whoever asked may have stopped waiting; the command is done all the same.
            let _gone = reply.send(result);
        }
        if self.broken.is_none()
            && self.log.segment_size() >= self.segment_bytes
            && let Err(error) = self.rotate()
        {
            // Nothing is lost: the segment grows on, and the next commit tries again.
            tracing::warn!(%error, "a new log segment could not be made");
        }
        self.publish_size();
    }

    /// Ends the watches and gives the directory up.
    fn close(mut self) {
        self.replica.close("the store was closed");
        if self.broken.is_none()
            && let Err(error) = self.log.finish()
        {
            // What was acknowledged is synced: only space allocated ahead stays.
            tracing::warn!(%error, "the log was not trimmed");
        }
    }

    /// Refuses every write from now on.
    fn fail(&mut self, reason: String) -> Error {
        tracing::error!(reason, "the store refuses writes from now on");
        let error = Error::Unavailable(reason.clone());
        self.broken = Some(reason);
        error
    }

    fn rotate(&mut self) -> Result<(), Error> {
        self.log.rotate().map_err(|error| match error {
            LogError::Refused(error) => error,
            LogError::Broken(reason) => self.fail(reason),
        })
    }

    fn publish_size(&self) {
        self.disk_size.store(self.log.size() + self.checkpoint_size, Ordering::Relaxed);
    }

    fn start_checkpoint(&mut self, waiting: Vec<oneshot::Sender<Result<(), Error>>>) -> Option<Running> {
        // Tried again once as much has been written again.
        self.checkpoint_at = self.log.size() + self.checkpoint_bytes;
        let refused = match &self.broken {
            Some(reason) => Some(Error::Unavailable(reason.clone())),
            None => self.rotate().err(),
        };
        if let Some(error) = refused {
            tracing::warn!(%error, "a checkpoint could not be begun");
            for reply in waiting {
                let _gone = reply.send(Err(error.clone()));
            }
            return None;
        }
        let (next, snapshot) = (self.log.next(), self.replica.snapshot());
        let (dir, disk) = (self.dir.clone(), self.disk.clone());
        let task = tokio::task::spawn_blocking(move || checkpoint::write(&dir, &*disk, next, &snapshot));
        Some(Running { next, task, waiting })
    }

    fn checkpoint_done(&mut self, done: Running, result: Result<u64, Error>) {
        let result = result.and_then(|size| {
            self.checkpoint_size = size;
            self.log.remove_before(done.next)
        });
        match &result {
            Ok(()) => {
                // The log may grow as large as the state before it is worth writing the state again.
                self.checkpoint_at = self.log.size() + self.checkpoint_bytes.max(self.checkpoint_size);
            }
            Err(error) => tracing::warn!(%error, "a checkpoint failed; the log is kept"),
        }
        self.publish_size();
        for reply in done.waiting {
            let _gone = reply.send(result.clone());
        }
    }
}
