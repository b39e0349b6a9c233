//! One container: its record on disk, its process, its output.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::{broadcast, mpsc, watch},
};

use super::{
    cgroup::Cgroup,
    launch::{self, signal_group},
    log::{LineCutter, LogFile},
};
use crate::{
    fsutil,
    runtime::types::{Container, ContainerConfig, ContainerState, ContainerStatus},
};

/// What is kept on disk of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) sandbox: String,
    pub(super) pod_uid: String,
    pub(super) config: ContainerConfig,
    pub(super) log_path: PathBuf,
    pub(super) state: ContainerState,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) exit_code: i32,
    pub(super) reason: String,
    pub(super) message: String,
    /// Process id and start time of the main process, which leads its group.
    pub(super) process: Option<(i32, u64)>,
    pub(super) cgroup: Option<Cgroup>,
}

/// Which stream a piece of output is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

/// A container of this agent.
pub(super) struct Process {
    /// Folder with the record, the container's own root and its copies of folders.
    pub(super) folder: PathBuf,
    pub(super) record: Mutex<Record>,
    /// Output as it comes, for those attached.
    pub(super) output: broadcast::Sender<(Stream, Bytes)>,
    /// The main process's standard input.
    pub(super) stdin: Mutex<Option<mpsc::Sender<Bytes>>>,
    /// The terminal, for resizing.
    pub(super) terminal: Mutex<Option<std::os::fd::OwnedFd>>,
    pub(super) log: Mutex<Option<LogFile>>,
    /// Groups of commands run in the container, which end with it.
    pub(super) execs: Mutex<BTreeSet<i32>>,
    /// True once the container has ended and its record says how.
    pub(super) ended: watch::Sender<bool>,
}

impl Process {
    pub(super) fn new(folder: PathBuf, record: Record) -> Self {
        let ended = record.state == ContainerState::Exited;
        Self {
            folder,
            record: Mutex::new(record),
            output: broadcast::channel(256).0,
            stdin: Mutex::default(),
            terminal: Mutex::default(),
            log: Mutex::default(),
            execs: Mutex::default(),
            ended: watch::channel(ended).0,
        }
    }

    /// Changes the record, in memory and on disk.
    pub(super) fn update(&self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let mut record = self.record.lock();
        change(&mut record);
        save(&self.folder.join("state.json"), &*record)
    }

    pub(super) fn listed(&self) -> Container {
        let record = self.record.lock();
        Container {
            id: record.id.clone(),
            pod_sandbox_id: record.sandbox.clone(),
            metadata: record.config.metadata.clone(),
            image: record.config.image.clone(),
            state: record.state,
            created_at: record.created_at,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }
    }

    pub(super) fn status(&self) -> ContainerStatus {
        let container = self.listed();
        let record = self.record.lock();
        ContainerStatus {
            image_ref: super::image_id(&record.config.image),
            container,
            started_at: record.started_at,
            finished_at: record.finished_at,
            exit_code: record.exit_code,
            reason: record.reason.clone(),
            message: record.message.clone(),
            log_path: record.log_path.clone(),
        }
    }

    /// Reads one stream of the main process to its end, into the log and to those attached.
    pub(super) async fn pump(&self, stream: Stream, mut from: impl AsyncRead + Unpin) {
        let mut cutter = LineCutter::new(if stream == Stream::Out { "stdout" } else { "stderr" });
        let mut buffer = bytes::BytesMut::with_capacity(16 * 1024);
        loop {
            match from.read_buf(&mut buffer).await {
                // A terminal whose other side is gone reads as an I/O error.
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let piece = buffer.split().freeze();
            self.to_log(|log| cutter.push(&piece, log));
            // Nobody attached is no error.
            let _ = self.output.send((stream, piece));
            buffer.reserve(16 * 1024);
        }
        self.to_log(|log| cutter.finish(log));
    }

    fn to_log(&self, write: impl FnOnce(&mut LogFile) -> io::Result<()>) {
        if let Some(log) = self.log.lock().as_mut()
            && let Err(error) = write(log)
        {
            tracing::warn!(container = %self.record.lock().id, %error, "container output lost");
        }
    }

    /// The main process ended: its group goes too, as a real container's processes do.
    pub(super) async fn finish(&self, exit_code: i32, reason: &str, message: &str) {
        let (process, cgroup) = {
            let record = self.record.lock();
            (record.process, record.cgroup.clone())
        };
        if let Some((pid, _)) = process {
            signal_group(pid, Signal::SIGKILL);
        }
        for group in std::mem::take(&mut *self.execs.lock()) {
            signal_group(group, Signal::SIGKILL);
        }
        let mut reason = reason.to_owned();
        if let Some(cgroup) = &cgroup {
            if cgroup.oom_killed() {
                "OOMKilled".clone_into(&mut reason);
            }
            for pid in cgroup.processes() {
                // Gone between the look and the signal is as good.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            }
            cgroup.remove_when_empty().await;
        }
        *self.stdin.lock() = None;
        *self.terminal.lock() = None;
        let saved = self.update(|record| {
            record.state = ContainerState::Exited;
            record.finished_at = Some(rk_api::now());
            record.exit_code = exit_code;
            record.reason = reason;
            message.clone_into(&mut record.message);
            record.process = None;
            record.cgroup = None;
        });
        if let Err(error) = saved {
            tracing::warn!(folder = %self.folder.display(), %error, "container record not saved");
        }
        self.ended.send_replace(true);
    }

    /// Ends the main process: asks, waits, kills.
    pub(super) async fn stop(&self, timeout: Duration) {
        let mut ended = self.ended.subscribe();
        let Some((pid, _)) = self.record.lock().process else { return };
        let is_over = async { ended.wait_for(|ended| *ended).await.is_ok() };
        tokio::pin!(is_over);
        if !timeout.is_zero() {
            signal_group(pid, Signal::SIGTERM);
            if tokio::time::timeout(timeout, &mut is_over).await.is_ok() {
                return;
            }
        }
        signal_group(pid, Signal::SIGKILL);
        is_over.await;
    }

    /// Whether the recorded process still is that process.
    pub(super) fn leftover(&self) -> Option<i32> {
        let (pid, started) = self.record.lock().process?;
        (launch::start_time(pid) == Some(started)).then_some(pid)
    }
}

/// Writes a record.
pub(super) fn save(path: &Path, record: &impl Serialize) -> io::Result<()> {
    fsutil::replace(path, &serde_json::to_vec(record)?, 0o600)
}
