//! The log's front for async code.

use tokio::sync::oneshot;

use super::{Log, LogBatch, LogReader};
use crate::{
    Error,
    serial::{Serial, Work},
};

/// Most bytes that share a frame.
const FRAME_BYTES: usize = 8 << 20;

type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

enum Task {
    Append(LogBatch),
    DropBefore(u64),
    Finish,
}

/// Writes a log away from its callers: those that wait at the same time share a sync. The log is closed with the last handle, once
/// it has written what was asked of it. Clones are handles of one log.
#[derive(Clone)]
pub struct LogWriter {
    serial: Serial<Writer>,
    reader: LogReader,
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogWriter").field("next", &self.reader.next()).finish_non_exhaustive()
    }
}

impl LogWriter {
    /// Gives a log to a writer.
    pub fn new(log: Log) -> Self {
        let (reader, disk) = (log.reader(), log.disk().clone());
        Self { serial: Serial::new(Writer { log, dirty: false }, disk), reader }
    }

    /// A reader of the log.
    pub fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// Adds a batch behind those given before and calls `done` once it would survive a power cut, or with what [`Log::append`] fails
    /// with. `done` is called on the thread that writes, in the order of the batches, and must not block it; it is dropped without a
    /// call if the runtime ends before.
    pub fn submit(&self, batch: LogBatch, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        self.serial.push((Task::Append(batch), Box::new(done)));
    }

    /// Adds a batch and returns once it would survive a power cut.
    ///
    /// # Errors
    /// Those of [`Log::append`].
    pub async fn append(&self, batch: LogBatch) -> Result<(), Error> {
        self.ask(Task::Append(batch)).await
    }

    /// Does [`Log::drop_before`] behind the batches given before.
    ///
    /// # Errors
    /// Those of [`Log::drop_before`].
    pub async fn drop_before(&self, index: u64) -> Result<(), Error> {
        self.ask(Task::DropBefore(index)).await
    }

    /// Waits for all that was asked before, and gives back the space that was taken ahead.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing that was acknowledged is in danger.
    pub async fn finish(&self) -> Result<(), Error> {
        self.ask(Task::Finish).await
    }

    async fn ask(&self, task: Task) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        // Whoever asked may have stopped waiting.
        self.serial.push((task, Box::new(move |result| drop(reply.send(result)))));
        answer.await.map_err(|_| Error::Unavailable("the log's writer has ended".into()))?
    }
}

struct Writer {
    log: Log,
    /// Whether something was written since the space taken ahead was given back.
    dirty: bool,
}

impl Work for Writer {
    type Item = (Task, Done);

    fn run(&mut self, items: Vec<Self::Item>, _: &Serial<Self>) {
        let (mut batches, mut waiting, mut size) = (Vec::new(), Vec::new(), 0);
        for (task, done) in items {
            match task {
                Task::Append(batch) => {
                    if size + batch.size() > FRAME_BYTES {
                        self.append(&mut batches, &mut waiting);
                        size = 0;
                    }
                    size += batch.size();
                    batches.push(batch);
                    waiting.push(done);
                }
                Task::DropBefore(index) => {
                    self.append(&mut batches, &mut waiting);
                    size = 0;
                    done(self.log.drop_before(index));
                }
                Task::Finish => {
                    self.append(&mut batches, &mut waiting);
                    size = 0;
                    done(self.finish());
                }
            }
        }
        self.append(&mut batches, &mut waiting);
    }
}

impl Writer {
    fn append(&mut self, batches: &mut Vec<LogBatch>, waiting: &mut Vec<Done>) {
        if batches.is_empty() {
            return;
        }
        self.dirty = true;
        let result = match self.log.append(batches) {
            // One that does not fit must not refuse the others.
            Err(Error::Invalid(_)) if batches.len() > 1 => {
                for (batch, done) in batches.drain(..).zip(waiting.drain(..)) {
                    done(self.log.append(&[batch]));
                }
                return;
            }
            result => result,
        };
        batches.clear();
        for done in waiting.drain(..) {
            done(result.clone());
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.dirty) || self.log.broken.is_some() {
            return Ok(());
        }
        self.log.finish().map_err(|error| Error::io("trimming the log", &error))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            // What was acknowledged is synced: only space taken ahead stays.
            tracing::debug!(%error, "the log was not trimmed");
        }
    }
}
