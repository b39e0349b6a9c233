//! The Watch service: any number of watches on one stream.
//!
//! The stream of answers drives everything: while the client does not read, nothing is read from the store for it.
//! A watch that the store cuts because it fell behind goes on from history, as etcd's do.

mod encode;
mod follow;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{AbortHandle, BoxStream, SelectAll, abortable},
};
use http::{Request, Response};
use tonic::Status;

pub(crate) use self::encode::EncodedEvents;
use self::follow::{Asked, follow};
use super::{
    convert::{key_range, signed, unsigned},
    gate::requires_leader,
    grpc::{Body, Encoded, Inbox},
    proto::etcdserverpb::{
        WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    service::{Shared, WATCH},
    status::status,
};
use crate::{Error, Revision, WatchBatch};

/// A watch's number in its stream.
type WatchId = i64;

/// The number in answers that are about all watches of a stream.
const ALL: WatchId = -1;

/// Batches that are taken from a watch in one go, and go out as one answer.
const TOGETHER: usize = 64;

/// What a watch came upon; the watch ends with an error.
type Found = (WatchId, Vec<Result<WatchBatch, Error>>);

struct Watch {
    stop: AbortHandle,
    asked: Asked,
    fragment: bool,
}

/// A client's question how far all watches are, being answered.
struct Progress {
    /// The watches that have not said yet.
    waiting: HashSet<WatchId>,
    /// The least of what the others said.
    reached: Option<Revision>,
}

/// One client's stream.
struct Session<B> {
    shared: Arc<Shared>,
    inbox: Inbox<B>,
    watches: SelectAll<BoxStream<'static, Found>>,
    by_id: HashMap<WatchId, Watch>,
    next_id: WatchId,
    progress: Option<Progress>,
    /// Answers that are ready.
    outbox: VecDeque<Result<Encoded, Status>>,
    ended: bool,
}

impl<B> Drop for Session<B> {
    fn drop(&mut self) {
        let metrics = &self.shared.metrics;
        metrics.watch_streams.fetch_sub(1, Ordering::Relaxed);
        metrics.watchers.fetch_sub(self.by_id.len() as u64, Ordering::Relaxed);
    }
}

/// Serves a stream of watches.
pub(crate) fn serve<B>(shared: Arc<Shared>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    shared.metrics.watch_streams.fetch_add(1, Ordering::Relaxed);
    let led = requires_leader(request.headers());
    let session = Session {
        inbox: Inbox::new(request.into_body(), shared.max_message()),
        shared: shared.clone(),
        watches: SelectAll::new(),
        by_id: HashMap::new(),
        next_id: 0,
        progress: None,
        outbox: VecDeque::new(),
        ended: false,
    };
    // In a box: it is moved with every answer.
    let answers = futures::stream::unfold(Box::new(session), |mut session| async {
        if session.ended {
            return None;
        }
        let answer = session.next().await?;
        session.ended = answer.is_err();
        Some((answer, session))
    });
    shared.stream(WATCH, led, answers)
}

impl<B> Session<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    /// The next answer, `None` once the client has no more to say.
    async fn next(&mut self) -> Option<Result<Encoded, Status>> {
        loop {
            if let Some(answer) = self.outbox.pop_front() {
                return Some(answer);
            }
            tokio::select! {
                request = self.inbox.next::<WatchRequest>() => {
                    let done = match request? {
                        Ok(request) => self.request(request).await,
                        Err(status) => Err(status),
                    };
                    self.outbox.extend(done.err().map(Err));
                }
                Some((id, found)) = self.watches.next() => {
                    self.found(id, found);
                }
            }
        }
    }

    fn answer(&mut self, answer: WatchResponse) {
        self.outbox.push_back(Ok(answer.into()));
    }

    async fn request(&mut self, request: WatchRequest) -> Result<(), Status> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                let answer = self.create(create).await?;
                self.answer(answer);
            }
            Some(RequestUnion::CancelRequest(cancel)) if self.by_id.contains_key(&cancel.watch_id) => {
                let header = Some(self.shared.header_now().await?);
                self.answer(WatchResponse { header, watch_id: cancel.watch_id, canceled: true, ..Default::default() });
                self.end(cancel.watch_id);
            }
            Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) if self.by_id.is_empty() => {
                let header = Some(self.shared.header_now().await?);
                self.answer(WatchResponse { header, watch_id: ALL, ..Default::default() });
            }
            Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) => {
                for watch in self.by_id.values() {
                    watch.asked.ask();
                }
                let waiting = self.by_id.keys().copied().collect();
                self.progress = Some(Progress { waiting, reached: None });
            }
            Some(RequestUnion::CancelRequest(_)) | None => {}
        }
        Ok(())
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Result<WatchResponse, Status> {
        let header = self.shared.header_now().await?;
        let refused = |reason: &str| WatchResponse {
            header: Some(header),
            watch_id: ALL,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..Default::default()
        };
        let leaves_out = |kind| create.filters().any(|filter| filter == kind);
        let (no_put, no_delete) = (leaves_out(FilterType::Noput), leaves_out(FilterType::Nodelete));
        // No key is the smallest one.
        let key = if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key };
        let range = key_range(key, create.range_end);
        if range.is_empty() {
            return Ok(refused("mvcc: watcher range is empty"));
        }
        let id = if create.watch_id == 0 {
            while self.by_id.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            self.next_id += 1;
            self.next_id - 1
        } else if self.by_id.contains_key(&create.watch_id) {
            return Ok(refused("mvcc: duplicate watch ID provided on the WatchStream"));
        } else {
            create.watch_id
        };
        let start_revision = match create.start_revision {
            0 => unsigned(header.revision) + 1,
            // Before the first change there is nothing to miss.
            revision => unsigned(revision).max(1),
        };
        let request = crate::WatchRequest {
            range,
            start_revision,
            prev_kv: create.prev_kv,
            progress: create.progress_notify,
            no_put,
            no_delete,
        };
        let asked = Asked::default();
        let found = follow(self.shared.clone(), request, asked.clone());
        let found = found.ready_chunks(TOGETHER).map(move |found| (id, found));
        let (found, stop) = abortable(found);
        self.watches.push(found.boxed());
        self.by_id.insert(id, Watch { stop, asked, fragment: create.fragment });
        self.shared.metrics.watchers.fetch_add(1, Ordering::Relaxed);
        Ok(WatchResponse { header: Some(header), watch_id: id, created: true, ..Default::default() })
    }

    /// Forgets a watch.
    fn end(&mut self, id: WatchId) {
        if let Some(watch) = self.by_id.remove(&id) {
            watch.stop.abort();
            self.shared.metrics.watchers.fetch_sub(1, Ordering::Relaxed);
        }
        self.progress(id, None);
    }

    fn found(&mut self, id: WatchId, found: Vec<Result<WatchBatch, Error>>) {
        // Events that follow one another.
        let mut batches = Vec::with_capacity(found.len());
        for found in found {
            match found {
                Ok(batch) if !batch.events.is_empty() => batches.push(batch),
                other => {
                    self.events(id, &std::mem::take(&mut batches));
                    self.other(id, other);
                }
            }
        }
        self.events(id, &batches);
    }

    fn events(&mut self, id: WatchId, batches: &[WatchBatch]) {
        let (Some(last), Some(watch)) = (batches.last(), self.by_id.get(&id)) else { return };
        let count = batches.iter().map(|batch| batch.events.len() as u64).sum();
        self.shared.metrics.events.fetch_add(count, Ordering::Relaxed);
        let header = self.shared.header(last.revision);
        let part = if watch.fragment { self.shared.max_message() } else { usize::MAX };
        let answers = self.shared.events.answers(header, id, batches, part);
        self.outbox.extend(answers.into_iter().map(Ok));
    }

    /// What is not events.
    fn other(&mut self, id: WatchId, found: Result<WatchBatch, Error>) {
        if !self.by_id.contains_key(&id) {
            return;
        }
        match found {
            Ok(batch) => {
                if self.progress(id, Some(batch.revision)) {
                    return;
                }
                let header = Some(self.shared.header(batch.revision));
                self.answer(WatchResponse { header, watch_id: id, ..Default::default() });
            }
            Err(Error::Compacted { compacted, .. }) => {
                self.end(id);
                // etcd's answer has no revision here.
                let (header, compact_revision) = (Some(self.shared.header(0)), signed(compacted));
                self.answer(WatchResponse {
                    header,
                    watch_id: id,
                    canceled: true,
                    compact_revision,
                    ..Default::default()
                });
            }
            Err(error) => self.outbox.push_back(Err(status(error))),
        }
    }

    /// Notes how far a watch is, if that was asked; `None` if it has ended. Answers once all have said.
    fn progress(&mut self, id: WatchId, reached: Option<Revision>) -> bool {
        let Some(progress) = &mut self.progress else { return false };
        if !progress.waiting.remove(&id) {
            return false;
        }
        progress.reached = [progress.reached, reached].into_iter().flatten().min();
        if progress.waiting.is_empty() {
            let reached = progress.reached;
            self.progress = None;
            if let Some(reached) = reached {
                let header = Some(self.shared.header(reached));
                self.answer(WatchResponse { header, watch_id: ALL, ..Default::default() });
            }
        }
        true
    }
}
