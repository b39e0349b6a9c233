//! Audit events in a file, written by a thread of its own.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::AuditSink;

/// How the file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLogOptions {
    /// Events that wait to be written; more are dropped, and counted.
    pub buffer: usize,
    /// Events written at once.
    pub batch: usize,
    /// Bytes after which the file is renamed and another one begun; 0 for never.
    pub max_bytes: u64,
    /// Renamed files that are kept; 0 for all.
    pub max_backups: usize,
}

impl Default for AuditLogOptions {
    /// kube-apiserver's: 10,000 events wait, files of 100 MB, all kept.
    fn default() -> Self {
        Self { buffer: 10_000, batch: 400, max_bytes: 100 << 20, max_backups: 0 }
    }
}

enum Work {
    Event(Bytes),
    Flush(oneshot::Sender<()>),
}

/// Writes events as lines of JSON. What is written is not synced: an audit log may lose its last lines with the machine.
pub struct AuditLog {
    work: mpsc::Sender<Work>,
    dropped: Arc<AtomicU64>,
}

impl AuditLog {
    /// Appends to a file, of mode 0600 if it is new.
    ///
    /// # Errors
    /// The file can't be opened, or there can be no thread.
    pub fn open(path: &Path, options: AuditLogOptions) -> io::Result<Arc<Self>> {
        let (work, received) = mpsc::channel(options.buffer.max(1));
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer { path: path.to_owned(), file: open(path)?, written: 0, options };
        let writer = Writer { written: writer.file.get_ref().metadata()?.len(), ..writer };
        let lost = Arc::clone(&dropped);
        std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || writer.run(received, &lost))?;
        Ok(Arc::new(Self { work, dropped }))
    }

    /// Events that were dropped, for too many waited or the file could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything taken so far is written.
    pub async fn flush(&self) {
        let (done, told) = oneshot::channel();
        if self.work.send(Work::Flush(done)).await.is_ok() {
            // The writer answers before it ends.
            let _ = told.await;
        }
    }
}

impl AuditSink for AuditLog {
    fn take(&self, event: Bytes) {
        if self.work.try_send(Work::Event(event)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn open(path: &Path) -> io::Result<BufWriter<File>> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(BufWriter::new)
}

struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    written: u64,
    options: AuditLogOptions,
}

impl Writer {
    fn run(mut self, mut work: mpsc::Receiver<Work>, dropped: &AtomicU64) {
        let mut batch = Vec::new();
        while work.blocking_recv_many(&mut batch, self.options.batch.max(1)) > 0 {
            let mut flushed = Vec::new();
            for work in batch.drain(..) {
                match work {
                    Work::Event(event) => {
                        if let Err(error) = self.write(&event) {
                            dropped.fetch_add(1, Ordering::Relaxed);
                            tracing::error!(path = %self.path.display(), %error, "an audit event can't be written");
                        }
                    }
                    Work::Flush(done) => flushed.push(done),
                }
            }
            if let Err(error) = self.file.flush() {
                tracing::error!(path = %self.path.display(), %error, "the audit log can't be written");
            }
            for done in flushed {
                // Who waited may have gone.
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self, event: &[u8]) -> io::Result<()> {
        let length = event.len() as u64 + 1;
        if self.options.max_bytes > 0 && self.written > 0 && self.written + length > self.options.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(event)?;
        self.file.write_all(b"\n")?;
        self.written += length;
        Ok(())
    }

    /// What the names of old files begin and end with.
    fn around(&self) -> (String, String) {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let ending = self.path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
        (format!("{stem}-"), ending)
    }

    /// Begins another file; the old one gets the time into its name.
    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let (begins, ends) = self.around();
        let now = crate::now().strftime("%Y-%m-%dT%H-%M-%S%.6f");
        match std::fs::rename(&self.path, self.path.with_file_name(format!("{begins}{now}{ends}"))) {
            // Somebody took it away, or another could not be begun the last time.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = open(&self.path)?;
        self.written = 0;
        // No event is lost for files that stay.
        if let Err(error) = self.prune() {
            tracing::warn!(path = %self.path.display(), %error, "old audit logs can't be removed");
        }
        Ok(())
    }

    /// Removes the oldest files, if they are too many.
    fn prune(&self) -> io::Result<()> {
        if self.options.max_backups == 0 {
            return Ok(());
        }
        let (begins, ends) = self.around();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Files of others may begin alike: only what has a time there is one of these.
        let is_time = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_digit())
                && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | 'T' | '.'))
        };
        let is_backup =
            |name: &str| name.strip_prefix(&begins).and_then(|rest| rest.strip_suffix(&ends)).is_some_and(is_time);
        let mut old: Vec<_> = std::fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
        old.retain(|path| path.file_name().is_some_and(|name| is_backup(&name.to_string_lossy())));
        old.sort();
        let surplus = old.len().saturating_sub(self.options.max_backups);
        // Of those that can't be removed the first is told, once the others are gone.
        let removed: Vec<_> = old.iter().take(surplus).map(std::fs::remove_file).collect();
        removed.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_begun_anew_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let options = AuditLogOptions { max_bytes: 10, max_backups: 2, ..AuditLogOptions::default() };
        let log = AuditLog::open(&path, options).unwrap();
        std::fs::write(folder.path().join("audit-policy.log"), "somebody else's").unwrap();
        for i in 0..5 {
            log.take(format!("event {i}").into());
            log.flush().await;
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "event 4\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
        assert!(folder.path().join("audit-policy.log").exists());
        std::fs::remove_file(&path).unwrap();
        log.take("event 5".into());
        log.flush().await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "event 5\n");
        assert_eq!(log.dropped(), 0);
    }

    #[tokio::test]
    async fn no_event_is_lost_where_an_old_file_can_not_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        std::fs::create_dir(folder.path().join("audit-2020-01-01T00-00-00.000000.log")).unwrap();
        let options = AuditLogOptions { max_bytes: 10, max_backups: 1, ..AuditLogOptions::default() };
        let log = AuditLog::open(&path, options).unwrap();
        for i in 0..3 {
            log.take(format!("event {i}").into());
            log.flush().await;
        }
        assert_eq!((log.dropped(), std::fs::read_to_string(&path).unwrap().as_str()), (0, "event 2\n"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "the others are removed");
    }
}
