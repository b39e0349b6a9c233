//! The Election service.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{Request, Response};
use tonic::Status;

use super::{
    convert,
    gate::requires_leader,
    grpc::{self, Body, Encoded},
    lock::Leaving,
    proto::v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
        ResignRequest, ResignResponse,
    },
    queue::{line, status},
    service::{OBSERVE, Shared},
};
use crate::{EventKind, KeyRange, KeyValue, Revision, WatchRequest};

fn leader_key(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

impl Shared {
    pub(crate) async fn campaign(&self, request: CampaignRequest) -> Result<CampaignResponse, Status> {
        let place = self.enqueue(&request.name, request.lease, request.value.clone()).await?;
        let mut waiting = Leaving { shared: Some(self.clone()), key: place.key.clone(), created: place.created };
        if place.found.as_ref().is_some_and(|found| *found != request.value) {
            let replaced = self.replace(place.key.clone(), place.created, place.lease, request.value).await?;
            replaced.ok_or_else(not_leader)?;
        }
        self.turn(&request.name, &place).await?;
        waiting.shared = None;
        let leader =
            LeaderKey { name: request.name, key: place.key, rev: convert::signed(place.created), lease: place.lease };
        Ok(CampaignResponse { header: Some(self.header(place.revision)), leader: Some(leader) })
    }

    pub(crate) async fn proclaim(&self, request: ProclaimRequest) -> Result<ProclaimResponse, Status> {
        let leader = leader_key(request.leader)?;
        let created = convert::unsigned(leader.rev);
        let replaced = self.replace(leader.key, created, leader.lease, request.value).await?;
        Ok(ProclaimResponse { header: Some(self.header(replaced.ok_or_else(not_leader)?)) })
    }

    pub(crate) async fn leader(&self, request: LeaderRequest) -> Result<LeaderResponse, Status> {
        let (kv, revision) = self.first(&request.name).await?;
        let kv = kv.ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(LeaderResponse { header: Some(self.header(revision)), kv: Some(convert::kv(kv)) })
    }

    pub(crate) async fn resign(&self, request: ResignRequest) -> Result<ResignResponse, Status> {
        let leader = leader_key(request.leader)?;
        let revision = self.leave(leader.key, convert::unsigned(leader.rev)).await?;
        Ok(ResignResponse { header: Some(self.header(revision)) })
    }
}

/// Serves a stream of announcements.
pub(crate) async fn observe<B>(shared: Arc<Shared>, request: Request<B>) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let led = requires_leader(request.headers());
    let request: LeaderRequest = grpc::one(request, shared.max_message()).await?;
    Ok(shared.stream(OBSERVE, led, announcements(shared.clone(), request.name)))
}

/// What an observer follows.
enum Observed {
    /// The next leader, elected after this revision.
    Next,
    /// This leader, whose announcement at this revision was told.
    Leader { key: Bytes, told: Revision },
    /// Nothing: it has failed.
    Ended,
}

fn announcements(shared: Arc<Shared>, name: Bytes) -> impl Stream<Item = Result<Encoded, Status>> {
    futures::stream::unfold((shared, name, Observed::Next), |(shared, name, observed)| async {
        let next = match observed {
            Observed::Next => shared.next_leader(&name).await,
            Observed::Leader { key, told } => match shared.next_announcement(key, told).await {
                Ok(Some(kv)) => Ok((kv.mod_revision, kv)),
                Ok(None) => shared.next_leader(&name).await,
                Err(status) => Err(status),
            },
            Observed::Ended => return None,
        };
        Some(match next {
            Ok((revision, kv)) => {
                let observed = Observed::Leader { key: kv.key.clone(), told: kv.mod_revision };
                let header = Some(shared.header(revision));
                let answer = LeaderResponse { header, kv: Some(convert::kv(kv)) };
                (Ok(answer.into()), (shared, name, observed))
            }
            Err(status) => (Err(status), (shared, name, Observed::Ended)),
        })
    })
}

impl Shared {
    /// Waits until someone leads; the store's revision then, and the leader's pair.
    async fn next_leader(&self, name: &[u8]) -> Result<(Revision, KeyValue), Status> {
        loop {
            let (kv, revision) = self.first(name).await?;
            if let Some(kv) = kv {
                return Ok((revision, kv));
            }
            let puts =
                WatchRequest { no_delete: true, ..WatchRequest::new(KeyRange::prefix(line(name)), revision + 1) };
            let mut watch = self.store.watch(puts).await.map_err(status)?;
            while let Some(batch) = watch.next().await {
                if !batch.map_err(status)?.events.is_empty() {
                    break;
                }
            }
        }
    }

    /// The leader's next announcement, `None` if it leads no more.
    async fn next_announcement(&self, key: Bytes, told: Revision) -> Result<Option<KeyValue>, Status> {
        let mut watch = self.store.watch(WatchRequest::new(KeyRange::key(key), told + 1)).await.map_err(status)?;
        while let Some(batch) = watch.next().await {
            if let Some(event) = batch.map_err(status)?.events.first() {
                return Ok((event.kind == EventKind::Put).then(|| event.kv.clone()));
            }
        }
        Ok(None)
    }
}
