//! The Watch service: any number of watches on one stream.
//!
//! The stream of answers drives everything: while the client does not read, nothing is read from the store for it.
//! A watch that the store cuts because it fell behind goes on from history, as etcd's do.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::{
    Stream, StreamExt,
    stream::{AbortHandle, BoxStream, SelectAll, abortable},
};
use http::{Request, Response};
use prost::Message;
use tonic::Status;

use super::{
    convert::{self, key_range, signed, unsigned},
    grpc::{self, Body, Encoded, Inbox},
    proto::etcdserverpb::{
        WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    service::Shared,
    status::status,
};
use crate::{Error, Event, WatchBatch, WatchStream};

/// A watch's number in its stream.
type WatchId = i64;

/// The number in answers that are about all watches of a stream.
const ALL: WatchId = -1;

/// What a watch came upon; the watch ends with an error.
type Found = (WatchId, Result<WatchBatch, Error>);

/// One client's stream.
struct Session<B> {
    shared: Arc<Shared>,
    inbox: Inbox<B>,
    watches: SelectAll<BoxStream<'static, Found>>,
    by_id: HashMap<WatchId, AbortHandle>,
    next_id: WatchId,
    ended: bool,
}

/// Serves a stream of watches.
pub(crate) fn serve<B>(shared: Arc<Shared>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let inbox = Inbox::new(request.into_body(), shared.max_message());
    let session = Session { shared, inbox, watches: SelectAll::new(), by_id: HashMap::new(), next_id: 0, ended: false };
    grpc::stream(futures::stream::unfold(session, |mut session| async {
        if session.ended {
            return None;
        }
        let answer = session.next().await?;
        session.ended = answer.is_err();
        Some((answer, session))
    }))
}

impl<B> Session<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    /// The next answer, `None` once the client has no more to say.
    async fn next(&mut self) -> Option<Result<Encoded, Status>> {
        loop {
            tokio::select! {
                request = self.inbox.next::<WatchRequest>() => match request? {
                    Ok(request) => match self.request(request).await {
                        Ok(Some(answer)) => return Some(Ok(answer.into())),
                        Ok(None) => {}
                        Err(status) => return Some(Err(status)),
                    },
                    Err(status) => return Some(Err(status)),
                },
                Some((id, found)) = self.watches.next(), if !self.by_id.is_empty() => {
                    if self.by_id.contains_key(&id) {
                        return Some(self.found(id, found));
                    }
                }
            }
        }
    }

    async fn request(&mut self, request: WatchRequest) -> Result<Option<WatchResponse>, Status> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await.map(Some),
            Some(RequestUnion::CancelRequest(cancel)) => {
                let Some(watch) = self.by_id.remove(&cancel.watch_id) else { return Ok(None) };
                watch.abort();
                let header = Some(self.shared.header_now().await?);
                Ok(Some(WatchResponse { header, watch_id: cancel.watch_id, canceled: true, ..Default::default() }))
            }
            Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) => {
                let header = Some(self.shared.header_now().await?);
                Ok(Some(WatchResponse { header, watch_id: ALL, ..Default::default() }))
            }
            None => Ok(None),
        }
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
        let start = match create.start_revision {
            0 => unsigned(header.revision) + 1,
            revision => unsigned(revision),
        };
        let request = crate::WatchRequest {
            range,
            start_revision: start,
            prev_kv: create.prev_kv,
            progress: create.progress_notify,
            no_put,
            no_delete,
        };
        let found = follow(self.shared.clone(), request).map(move |found| (id, found));
        let (found, abort) = abortable(found);
        self.watches.push(found.boxed());
        self.by_id.insert(id, abort);
        Ok(WatchResponse { header: Some(header), watch_id: id, created: true, ..Default::default() })
    }

    fn found(&mut self, id: WatchId, found: Result<WatchBatch, Error>) -> Result<Encoded, Status> {
        match found {
            Ok(batch) => {
                let head = WatchResponse {
                    header: Some(self.shared.header(batch.revision)),
                    watch_id: id,
                    ..Default::default()
                };
                Ok(Encoded { own: head.encode_to_vec(), shared: encode_events(&batch.events) })
            }
            Err(Error::Compacted { compacted, .. }) => {
                self.by_id.remove(&id);
                // etcd's answer has no revision here.
                let header = Some(self.shared.header(0));
                let compact_revision = signed(compacted);
                let answer =
                    WatchResponse { header, watch_id: id, canceled: true, compact_revision, ..Default::default() };
                Ok(answer.into())
            }
            Err(error) => Err(status(error)),
        }
    }
}

/// The events as they are in a [`WatchResponse`].
fn encode_events(events: &[Event]) -> Bytes {
    let mut out = BytesMut::new();
    for event in events {
        prost::encoding::message::encode(11, &convert::event(event), &mut out);
    }
    out.freeze()
}

/// A watch that goes on from where it was when the store cuts it.
fn follow(shared: Arc<Shared>, request: crate::WatchRequest) -> impl Stream<Item = Result<WatchBatch, Error>> {
    enum State {
        /// To be begun; whether the watch has delivered anything since it was begun last.
        Begin {
            fresh: bool,
        },
        Running(WatchStream, bool),
        Ended,
    }
    futures::stream::unfold((shared, request, State::Begin { fresh: true }), |(shared, mut request, mut state)| async {
        loop {
            match state {
                State::Begin { fresh } => match shared.store.watch(request.clone()).await {
                    Ok(stream) => state = State::Running(stream, fresh),
                    Err(error) => return Some((Err(error), (shared, request, State::Ended))),
                },
                State::Running(mut stream, fresh) => match stream.next().await {
                    Some(Ok(batch)) => {
                        request.start_revision = request.start_revision.max(batch.revision + 1);
                        return Some((Ok(batch), (shared, request, State::Running(stream, true))));
                    }
                    // One that is cut again before it has delivered anything can't be helped.
                    Some(Err(Error::Unavailable(_))) if fresh => state = State::Begin { fresh: false },
                    Some(Err(error)) => return Some((Err(error), (shared, request, State::Ended))),
                    None => return None,
                },
                State::Ended => return None,
            }
        }
    })
}
