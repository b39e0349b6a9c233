//! What a watch hands to its watcher.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::{
    Stream, StreamExt,
    stream::{BoxStream, Fuse},
};
use tokio::sync::Notify;

use crate::{Error, WatchBatch};

/// The changes a watch delivers, in order. It ends after an error.
///
/// Whoever wants to know how far the watch has come asks by [`WatchStream::request_progress`] or, while someone else
/// reads the stream, by a [`ProgressRequest`]: once every change up to the store's revision is delivered, a
/// [`WatchBatch`] without events tells that revision.
pub struct WatchStream {
    batches: Fuse<BoxStream<'static, Result<WatchBatch, Error>>>,
    progress: ProgressRequest,
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchStream").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl WatchStream {
    /// A watch of these batches, whose maker answers what is asked by `progress`.
    pub fn new(
        batches: impl Stream<Item = Result<WatchBatch, Error>> + Send + 'static,
        progress: ProgressRequest,
    ) -> Self {
        Self { batches: batches.boxed().fuse(), progress }
    }

    /// Asks once how far the watch has come.
    pub fn request_progress(&self) {
        self.progress.request();
    }

    /// A handle to ask by while the stream is read elsewhere.
    pub fn progress_request(&self) -> ProgressRequest {
        self.progress.clone()
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_next_unpin(context)
    }
}

/// The question to a watch how far it has come. Clones ask the same watch; requests that come before the answer share it.
#[derive(Debug, Clone, Default)]
pub struct ProgressRequest {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    asked: AtomicBool,
    wake: Notify,
}

impl ProgressRequest {
    /// Asks.
    pub fn request(&self) {
        self.shared.asked.store(true, Ordering::SeqCst);
        self.shared.wake.notify_one();
    }

    /// Takes the question, if there is one: for whoever makes the batches.
    pub fn take(&self) -> bool {
        self.shared.asked.swap(false, Ordering::SeqCst)
    }

    /// Waits until there may be a question to take: for whoever makes the batches.
    pub async fn requested(&self) {
        self.shared.wake.notified().await;
    }
}
