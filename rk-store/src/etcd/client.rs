//! The [`Store`] contract over an etcd cluster.

mod convert;
mod errors;
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DefragmentRequest, HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, SnapshotRequest, StatusRequest,
    alarm_request::AlarmAction, kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
};
use crate::{
    Alarm, Error, HashKv, KeyRange, Lease, LeaseId, RangeRequest, RangeResponse, Revision, SnapshotStream, Store,
    StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream,
};

/// Where an etcd cluster is and how it is reached.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EtcdOptions {
    /// URLs of members: `http://HOST:PORT` or `https://HOST:PORT`. One is used until it fails, then the next.
    pub endpoints: Vec<String>,
    /// The authorities, as PEM, that members' certificates must come from, for `https`.
    pub ca: Option<Vec<u8>>,
    /// This client's certificate and key, as PEM, where the cluster wants one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// How long a request may take before it fails with [`Error::Unavailable`]. Watches and snapshots take as long as they take.
    pub request_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

impl EtcdOptions {
    /// A cluster at these URLs.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ca: None,
            identity: None,
            request_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
        }
    }
}

/// An etcd cluster as a [`Store`].
///
/// - A request that fails because a member can't be reached fails with [`Error::Unavailable`], and the next one goes
///   to the next member; a write that failed so may yet take effect.
/// - A watch ends with [`Error::NoLeader`] where its member has lost the others, and goes on at another one when it is started again.
/// - [`StoreStatus::compact_revision`] and the compact revision in errors are found by asking etcd for reads at past
///   revisions, a few dozen at most.
/// - etcd before 3.4.25 and 3.5.8 may answer a progress request before it has sent all events up to that revision.
#[derive(Debug, Clone)]
pub struct EtcdStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    channels: Vec<Channel>,
    /// The channel in use.
    current: AtomicUsize,
    /// History is known to be gone below this revision.
    compacted: AtomicU64,
    request_timeout: Duration,
}

impl EtcdStore {
    /// A store of this cluster. Connects with the first request.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no URL or one is none, or if certificates can't be read.
    pub fn new(options: EtcdOptions) -> Result<Self, Error> {
        let invalid = |error: tonic::transport::Error| Error::Invalid(format!("an etcd endpoint: {error:?}"));
        let mut channels = Vec::new();
        for url in &options.endpoints {
            let mut endpoint = Endpoint::from_shared(url.clone())
                .map_err(invalid)?
                .connect_timeout(options.connect_timeout)
                .tcp_nodelay(true)
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(16 << 20)
                .http2_keep_alive_interval(Duration::from_secs(10))
                .keep_alive_timeout(Duration::from_secs(5));
            if url.starts_with("https:") {
                let mut tls = ClientTlsConfig::new();
                if let Some(ca) = &options.ca {
                    tls = tls.ca_certificate(Certificate::from_pem(ca));
                }
                if let Some((certificate, key)) = &options.identity {
                    tls = tls.identity(Identity::from_pem(certificate, key));
                }
                endpoint = endpoint.tls_config(tls).map_err(invalid)?;
            }
            channels.push(endpoint.connect_lazy());
        }
        if channels.is_empty() {
            return Err(Error::Invalid("no etcd endpoint".into()));
        }
        let request_timeout = options.request_timeout;
        let inner = Inner { channels, current: AtomicUsize::new(0), compacted: AtomicU64::new(0), request_timeout };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn channel(&self) -> (usize, Channel) {
        let current = self.inner.current.load(Ordering::Relaxed);
        (current, self.inner.channels[current % self.inner.channels.len()].clone())
    }

    /// Sends a request to the member in use, and the next ones to another if that fails.
    async fn call<A>(&self, request: impl AsyncFnOnce(Channel) -> Result<A, Status>) -> Result<A, Status> {
        let (current, channel) = self.channel();
        let answer = tokio::time::timeout(self.inner.request_timeout, request(channel)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::unavailable("no answer in time")));
        if answer.as_ref().is_err_and(|status| status.code() == tonic::Code::Unavailable) {
            // Another request may have gone on to the next member already.
            let next = current.wrapping_add(1);
            let _moved = self.inner.current.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        answer
    }

    fn kv(channel: Channel) -> KvClient<Channel> {
        KvClient::new(channel).max_decoding_message_size(usize::MAX)
    }

    async fn raw_range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let request = convert::range(request);
        let answer = self.call(async |channel| Self::kv(channel).range(request).await).await?;
        Ok(convert::range_answer(answer.into_inner()))
    }

    /// The revision now.
    async fn revision(&self) -> Result<Revision, Status> {
        Ok(self.raw_range(RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::key("\0")) }).await?.revision)
    }

    /// The compact revision, by bisection: a read at it works and one before it does not. 0 and 1 are the same.
    async fn compacted(&self) -> Result<Revision, Status> {
        let mut low = self.inner.compacted.load(Ordering::Relaxed);
        let mut high = self.revision().await?;
        let nothing = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::key("\0")) };
        while low < high {
            let middle = low + (high - low) / 2;
            let probe = RangeRequest { revision: middle.max(1), ..nothing.clone() };
            match self.raw_range(probe).await {
                Ok(_) => high = middle,
                Err(status) if status.code() == tonic::Code::OutOfRange => low = middle + 1,
                Err(status) => return Err(status),
            }
        }
        self.inner.compacted.fetch_max(low, Ordering::Relaxed);
        Ok(low)
    }

    fn lease_client(channel: Channel) -> LeaseClient<Channel> {
        LeaseClient::new(channel)
    }

    fn maintenance(channel: Channel) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX)
    }

    async fn alarm(&self, action: AlarmAction, alarm: Option<Alarm>) -> Result<Vec<Alarm>, Error> {
        let request = AlarmRequest {
            action: action.into(),
            member_id: alarm.map_or(0, |alarm| alarm.member),
            alarm: alarm.map_or(0, |alarm| convert::alarm_type(alarm.kind)),
        };
        let answer = self.call(async |channel| Self::maintenance(channel).alarm(request).await).await;
        let alarms = answer.map_err(errors::error)?.into_inner().alarms;
        let mut alarms: Vec<_> = alarms.into_iter().filter_map(convert::alarm).collect();
        alarms.sort_unstable();
        Ok(alarms)
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        if request.range.is_empty() {
            // etcd has other uses for an end before the beginning.
            let revision = self.revision().await.map_err(errors::error)?;
            return Ok(RangeResponse { revision, ..RangeResponse::default() });
        }
        let revision = request.revision;
        match self.raw_range(request).await {
            Ok(answer) => Ok(answer),
            Err(status) => Err(self.explain(status, revision, 0).await),
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        let (revision, lease) = (errors::newest_read(&txn), errors::some_lease(&txn));
        let request = convert::txn(txn);
        match self.call(async |channel| Self::kv(channel).txn(request).await).await {
            Ok(answer) => convert::txn_answer(answer.into_inner()),
            Err(status) => Err(self.explain(status, revision, lease).await),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, Error> {
        watch::watch(self, request).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let request = CompactionRequest { revision: super::convert::signed(revision), physical: true };
        match self.call(async |channel| Self::kv(channel).compact(request).await).await {
            Ok(_) => Ok(()),
            Err(status) => Err(self.explain(status, revision, 0).await),
        }
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<Lease, Error> {
        let request = LeaseGrantRequest { ttl, id };
        let answer = self.call(async |channel| Self::lease_client(channel).lease_grant(request).await).await;
        let answer = answer.map_err(|status| errors::of_lease(status, id, ttl))?.into_inner();
        Ok(Lease { id: answer.id, granted_ttl: answer.ttl, ttl: answer.ttl, keys: Vec::new() })
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), Error> {
        let request = LeaseRevokeRequest { id };
        let answer = self.call(async |channel| Self::lease_client(channel).lease_revoke(request).await).await;
        answer.map(drop).map_err(|status| errors::of_lease(status, id, 0))
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        let answer = self
            .call(async |channel| {
                let requests = futures::stream::iter([LeaseKeepAliveRequest { id }]);
                // The stream must stay open until the answer is there.
                let requests = requests.chain(futures::stream::pending());
                let mut answers = Self::lease_client(channel).lease_keep_alive(requests).await?.into_inner();
                answers.message().await?.ok_or_else(|| Status::unavailable("the stream has ended"))
            })
            .await
            .map_err(|status| errors::of_lease(status, id, 0))?;
        match answer.ttl {
            0 => Err(Error::LeaseNotFound(id)),
            ttl => Ok(Lease { id, granted_ttl: ttl, ttl, keys: Vec::new() }),
        }
    }

    async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<Lease, Error> {
        let request = LeaseTimeToLiveRequest { id, keys };
        let answer = self.call(async |channel| Self::lease_client(channel).lease_time_to_live(request).await).await;
        let answer = answer.map_err(|status| errors::of_lease(status, id, 0))?.into_inner();
        if answer.ttl < 0 {
            return Err(Error::LeaseNotFound(id));
        }
        let mut keys = answer.keys;
        keys.sort_unstable();
        Ok(Lease { id, granted_ttl: answer.granted_ttl, ttl: answer.ttl, keys })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        let answer = self.call(async |channel| Self::lease_client(channel).lease_leases(LeaseLeasesRequest {}).await);
        let mut ids: Vec<_> =
            answer.await.map_err(errors::error)?.into_inner().leases.into_iter().map(|lease| lease.id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, Error> {
        let request = HashKvRequest { revision: super::convert::signed(revision) };
        match self.call(async |channel| Self::maintenance(channel).hash_kv(request).await).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let now = answer.header.map_or(0, |header| super::convert::unsigned(header.revision));
                Ok(HashKv {
                    hash: answer.hash,
                    revision: if revision == 0 { now } else { revision },
                    compact_revision: super::convert::unsigned(answer.compact_revision),
                })
            }
            Err(status) => Err(self.explain(status, revision, 0).await),
        }
    }

    async fn snapshot(&self) -> Result<SnapshotStream, Error> {
        let answer = self.call(async |channel| Self::maintenance(channel).snapshot(SnapshotRequest {}).await).await;
        let pieces = answer.map_err(errors::error)?.into_inner();
        Ok(pieces.map_ok(|piece| piece.blob).map_err(errors::error).boxed())
    }

    async fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        self.alarm(AlarmAction::Get, None).await
    }

    async fn activate_alarm(&self, alarm: Alarm) -> Result<(), Error> {
        self.alarm(AlarmAction::Activate, Some(alarm)).await.map(drop)
    }

    async fn deactivate_alarm(&self, alarm: Alarm) -> Result<(), Error> {
        self.alarm(AlarmAction::Deactivate, Some(alarm)).await.map(drop)
    }

    async fn defragment(&self) -> Result<(), Error> {
        let answer = self.call(async |channel| Self::maintenance(channel).defragment(DefragmentRequest {}).await);
        answer.await.map(drop).map_err(errors::error)
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        let answer = self.call(async |channel| Self::maintenance(channel).status(StatusRequest {}).await).await;
        let answer = answer.map_err(errors::error)?.into_inner();
        let count = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::all()) };
        let now = self.raw_range(count).await.map_err(errors::error)?;
        // etcd does not tell whether it was compacted at its first revision, where there is nothing.
        let compacted = self.compacted().await.map_err(errors::error)?;
        Ok(StoreStatus {
            revision: now.revision,
            compact_revision: if compacted <= 1 { 0 } else { compacted },
            keys: now.count,
            disk_size: super::convert::unsigned(answer.db_size),
            size_in_use: super::convert::unsigned(answer.db_size_in_use),
        })
    }
}
