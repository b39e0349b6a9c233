//! The Lease service.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tonic::Status;

use super::{
    gate::requires_leader,
    grpc::{Body, Encoded, Inbox},
    proto::etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
        LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
        LeaseTimeToLiveResponse,
    },
    service::{KEEP_ALIVE, Shared},
    status::status,
};
use crate::Error;

impl Shared {
    pub(crate) async fn lease_grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
        let lease = self.store.lease_grant(request.id, request.ttl).await.map_err(status)?;
        let header = Some(self.header_now().await?);
        Ok(LeaseGrantResponse { header, id: lease.id, ttl: lease.granted_ttl, error: String::new() })
    }

    pub(crate) async fn lease_revoke(&self, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Status> {
        self.store.lease_revoke(request.id).await.map_err(status)?;
        Ok(LeaseRevokeResponse { header: Some(self.header_now().await?) })
    }

    /// A lease that is not there has 0 seconds left.
    async fn lease_keep_alive(&self, request: LeaseKeepAliveRequest) -> Result<LeaseKeepAliveResponse, Status> {
        let ttl = match self.store.lease_keep_alive(request.id).await {
            Ok(lease) => lease.ttl,
            Err(Error::LeaseNotFound(_)) => 0,
            Err(error) => return Err(status(error)),
        };
        Ok(LeaseKeepAliveResponse { header: Some(self.header_now().await?), id: request.id, ttl })
    }

    /// A lease that is not there has -1 seconds left.
    pub(crate) async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        let answer = match self.store.lease_time_to_live(request.id, request.keys).await {
            Ok(lease) => LeaseTimeToLiveResponse {
                header: None,
                id: request.id,
                ttl: lease.ttl,
                granted_ttl: lease.granted_ttl,
                keys: lease.keys,
            },
            Err(Error::LeaseNotFound(_)) => {
                LeaseTimeToLiveResponse { id: request.id, ttl: -1, ..LeaseTimeToLiveResponse::default() }
            }
            Err(error) => return Err(status(error)),
        };
        Ok(LeaseTimeToLiveResponse { header: Some(self.header_now().await?), ..answer })
    }

    pub(crate) async fn lease_leases(&self, _request: LeaseLeasesRequest) -> Result<LeaseLeasesResponse, Status> {
        let ids = self.store.leases().await.map_err(status)?;
        let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(LeaseLeasesResponse { header: Some(self.header_now().await?), leases })
    }
}

/// Serves a stream of keep-alives, one after the other.
pub(crate) fn keep_alive<B>(shared: Arc<Shared>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let led = requires_leader(request.headers());
    let inbox = Inbox::new(request.into_body(), shared.max_message());
    let answers = futures::stream::unfold(Some((shared.clone(), inbox)), |session| async {
        let (shared, mut inbox) = session?;
        let answer = match inbox.next().await? {
            Ok(request) => shared.lease_keep_alive(request).await,
            Err(status) => Err(status),
        };
        let session = answer.is_ok().then_some((shared, inbox));
        Some((answer.map(Encoded::from), session))
    });
    shared.stream(KEEP_ALIVE, led, answers)
}
