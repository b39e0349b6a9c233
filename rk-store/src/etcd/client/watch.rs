//! A watch on an etcd cluster: a stream of its own for each.

use futures::StreamExt;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tonic::{Request, Status, Streaming, metadata::MetadataValue};

use super::{EtcdStore, convert, errors};
use crate::{
    Error, Event, PROGRESS_INTERVAL, ProgressRequest, Revision, WatchBatch, WatchRequest, WatchStream,
    etcd::{
        convert::{signed, unsigned},
        gate::REQUIRES_LEADER,
        proto::etcdserverpb::{
            self as pb, WatchCreateRequest, WatchProgressRequest, WatchResponse, watch_client::WatchClient,
            watch_create_request::FilterType, watch_request::RequestUnion,
        },
    },
};

struct Watcher {
    answers: Streaming<WatchResponse>,
    requests: mpsc::Sender<pb::WatchRequest>,
    asked: ProgressRequest,
    /// Changes before this revision are not wanted.
    from: Revision,
    /// When to ask for progress without being asked, if ever.
    next_progress: Option<Instant>,
    /// The last revision told.
    reached: Revision,
    /// Whether someone waits for an answer about progress.
    answer_wanted: bool,
}

fn message(union: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(union) }
}

fn over() -> Status {
    Status::unavailable("the watch has ended")
}

/// Starts a watch; it is there when this returns. A member that has lost its leader would tell it nothing, so it ends there.
pub(super) async fn watch(store: &EtcdStore, request: WatchRequest) -> Result<WatchStream, Error> {
    let (key, range_end) = convert::key_and_end(request.range);
    let left_out = [(request.no_put, FilterType::Noput), (request.no_delete, FilterType::Nodelete)];
    let create = WatchCreateRequest {
        key,
        range_end,
        // One revision earlier: etcd lets a watch begin at the compact revision itself, although deletes at it are
        // forgotten. The first change is at revision 2.
        start_revision: match request.start_revision {
            0 => 0,
            revision => signed(revision.saturating_sub(1).max(1)),
        },
        // etcd's interval may be ten minutes: asked for instead.
        progress_notify: false,
        filters: left_out.into_iter().filter(|(left_out, _)| *left_out).map(|(_, kind)| kind.into()).collect(),
        prev_kv: request.prev_kv,
        watch_id: 0,
        fragment: false,
    };
    let (requests, received) = mpsc::channel(4);
    let to_send = futures::stream::unfold(received, |mut received| async { Some((received.recv().await?, received)) });
    let first = futures::stream::iter([message(RequestUnion::CreateRequest(create))]);
    let opened = store
        .call(async |channel| {
            let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
            let mut request = Request::new(first.chain(to_send));
            request.metadata_mut().insert(REQUIRES_LEADER, MetadataValue::from_static("true"));
            let mut answers = client.watch(request).await?.into_inner();
            let created = answers.message().await?.ok_or_else(over)?;
            Ok((answers, created))
        })
        .await;
    let (answers, created) = opened.map_err(errors::error)?;
    if created.canceled {
        return Err(Error::Invalid(created.cancel_reason));
    }
    let asked = ProgressRequest::default();
    let watcher = Watcher {
        answers,
        requests,
        asked: asked.clone(),
        from: request.start_revision,
        next_progress: request.progress.then(next_progress),
        reached: convert::revision(created.header),
        answer_wanted: false,
    };
    let batches = futures::stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(batch) => Some((Ok(batch), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(WatchStream::new(batches, asked))
}

fn next_progress() -> Instant {
    Instant::now() + PROGRESS_INTERVAL
}

impl Watcher {
    async fn next(&mut self) -> Result<WatchBatch, Error> {
        let batch = self.next_batch().await?;
        self.reached = self.reached.max(batch.revision);
        self.next_progress = self.next_progress.map(|_| next_progress());
        Ok(batch)
    }

    async fn next_batch(&mut self) -> Result<WatchBatch, Error> {
        loop {
            if self.asked.take() {
                self.answer_wanted = true;
                self.ask_progress().await?;
            }
            let due = self.next_progress;
            let answer = tokio::select! {
                answer = self.answers.message() => answer.map_err(errors::error)?,
                () = self.asked.requested() => continue,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.next_progress = Some(next_progress());
                    self.ask_progress().await?;
                    continue;
                }
            };
            let answer = answer.ok_or_else(|| errors::error(over()))?;
            if answer.canceled {
                return Err(self.cancelled(&answer));
            }
            if answer.events.is_empty() {
                let revision = convert::revision(answer.header);
                if std::mem::take(&mut self.answer_wanted) || revision > self.reached {
                    return Ok(WatchBatch { revision, events: [].into() });
                }
                continue;
            }
            let events = answer.events.into_iter().filter_map(convert::event);
            let events: Vec<Event> = events.filter(|event| event.kv.mod_revision >= self.from).collect();
            // The header's revision may be beyond these events where etcd catches up with history.
            if let Some(revision) = events.last().map(|event| event.kv.mod_revision) {
                return Ok(WatchBatch { revision, events: events.into() });
            }
        }
    }

    async fn ask_progress(&mut self) -> Result<(), Error> {
        let progress = message(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        self.requests.send(progress).await.map_err(|_| errors::error(over()))
    }

    fn cancelled(&self, answer: &WatchResponse) -> Error {
        match unsigned(answer.compact_revision) {
            0 => Error::Unavailable(format!("etcd has ended the watch: {}", answer.cancel_reason)),
            compacted => Error::Compacted { requested: self.from, compacted },
        }
    }
}
