//! A watch that goes on from where it was when the store cuts it.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use parking_lot::Mutex;

use crate::{
    Error, Event, EventKind, ProgressRequest, RangeRequest, Revision, WatchBatch, WatchRequest, WatchStream,
    etcd::service::Shared,
};

/// The question to a watch how far it is, which outlives the store's own stream.
#[derive(Clone, Default)]
pub(crate) struct Asked(Arc<Mutex<(bool, Option<ProgressRequest>)>>);

impl Asked {
    /// Asks; a batch without events answers.
    pub(crate) fn ask(&self) {
        let mut asked = self.0.lock();
        asked.0 = true;
        if let Some(request) = &asked.1 {
            request.request();
        }
    }

    /// Hands the question on to the stream that was begun.
    fn begin(&self, stream: &WatchStream) {
        let request = stream.progress_request();
        let mut asked = self.0.lock();
        if asked.0 {
            request.request();
        }
        asked.1 = Some(request);
    }

    fn answered(&self) {
        self.0.lock().0 = false;
    }
}

enum State {
    /// To be begun; whether the watch has delivered anything since it was begun last.
    Begin { fresh: bool },
    /// Begun.
    Running { stream: WatchStream, fresh: bool },
    /// Over.
    Ended,
}

struct Follower {
    shared: Arc<Shared>,
    request: WatchRequest,
    asked: Asked,
    state: State,
}

/// The batches of a watch, until history is compacted under it or the store fails.
pub(crate) fn follow(
    shared: Arc<Shared>,
    request: WatchRequest,
    asked: Asked,
) -> impl Stream<Item = Result<WatchBatch, Error>> {
    // In a box: it is moved with every batch.
    let follower = Box::new(Follower { shared, request, asked, state: State::Begin { fresh: true } });
    futures::stream::unfold(follower, |mut follower| async { Some((follower.next().await?, follower)) })
}

impl Follower {
    async fn next(&mut self) -> Option<Result<WatchBatch, Error>> {
        loop {
            match &mut self.state {
                State::Begin { fresh } => {
                    let fresh = *fresh;
                    match self.shared.store.watch(self.request.clone()).await {
                        Ok(stream) => {
                            self.asked.begin(&stream);
                            self.state = State::Running { stream, fresh };
                        }
                        Err(Error::Compacted { compacted, .. }) if compacted == self.request.start_revision => {
                            match self.at_compaction(compacted).await {
                                Ok(batch) => {
                                    self.request.start_revision = compacted + 1;
                                    if !batch.events.is_empty() {
                                        return Some(Ok(batch));
                                    }
                                }
                                Err(error) => return self.fail(error),
                            }
                        }
                        Err(error) => return self.fail(error),
                    }
                }
                State::Running { stream, fresh } => match stream.next().await {
                    Some(Ok(batch)) => {
                        *fresh = true;
                        self.request.start_revision = self.request.start_revision.max(batch.revision + 1);
                        if batch.events.is_empty() {
                            self.asked.answered();
                        }
                        return Some(Ok(batch));
                    }
                    // One that is cut again before it has delivered anything can't be helped.
                    Some(Err(Error::Unavailable(_))) if *fresh => self.state = State::Begin { fresh: false },
                    Some(Err(error)) => return self.fail(error),
                    None => self.state = State::Ended,
                },
                State::Ended => return None,
            }
        }
    }

    /// The changes at the compact revision itself as far as they are still there: an etcd watch may begin with them.
    async fn at_compaction(&mut self, compacted: Revision) -> Result<WatchBatch, Error> {
        let last_changed_there = RangeRequest {
            revision: compacted,
            min_mod_revision: compacted,
            serializable: true,
            ..RangeRequest::new(self.request.range.clone())
        };
        let found = self.shared.store.range(last_changed_there).await?;
        let events = found.kvs.into_iter().map(|kv| Event { kind: EventKind::Put, kv, prev_kv: None });
        Ok(WatchBatch { revision: compacted, events: events.filter(|event| self.request.wants(event)).collect() })
    }

    fn fail(&mut self, error: Error) -> Option<Result<WatchBatch, Error>> {
        self.state = State::Ended;
        Some(Err(error))
    }
}
