//! The endpoints of the `kubernetes` Service where several servers share a store: kube-apiserver's lease reconciler.
//!
//! Each server keeps a key of its own in the store, bound to a lease that it renews. The endpoints are the servers whose
//! keys are there: one that ends takes its key away, and that of one that dies goes with its lease.

use std::{net::IpAddr, time::Duration};

use rk_store::{Error as StoreError, LeaseId, Op, PutRequest, Store, Txn};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{ApiServer, against_others, objects};
use crate::{
    LabelSelector,
    server::{Server, UserInfo, storage::key},
};

/// The collection of the servers' keys, named as kube-apiserver names it.
const LEASES: &str = "masterleases";
/// Seconds that a server counts after its last renewal.
const TTL: i64 = 15;
/// How often it renews, and looks at the others.
const PERIOD: Duration = Duration::from_secs(10);
/// How soon it tries again when the store did not answer.
const RETRY: Duration = Duration::from_secs(1);
/// How long a server that ends tries to take itself out.
const LEAVE: Duration = Duration::from_secs(3);

/// Keeps `own` among the endpoints of the `kubernetes` Service until `shutdown`, and takes out of them the servers that have
/// gone. `own` names the address of this server alone; all servers have the same port.
pub async fn keep_endpoints(server: &Server, own: &ApiServer, shutdown: CancellationToken) {
    let cache = &server.core.cache;
    let mut changes = cache.collection(LEASES).waiter();
    let mut lease = None;
    loop {
        changes.see_all();
        let renewed = async {
            lease = Some(renew(&*cache.store, lease, own).await.map_err(|error| error.to_string())?);
            follow(server, own).await
        };
        let pause = match renewed.await {
            Ok(()) => PERIOD,
            Err(error) => {
                tracing::warn!(error, "can't keep this server among the endpoints of the kubernetes service");
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
            () = changes.changed() => {}
        }
    }
    let Some(lease) = lease else { return };
    let left = async {
        cache.store.lease_revoke(lease).await.map_err(|error| error.to_string())?;
        follow(server, own).await
    };
    match tokio::time::timeout(LEAVE, left).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error, "this server stays among the endpoints of the kubernetes service for some seconds");
        }
        Err(_) => tracing::warn!("this server could not leave the endpoints of the kubernetes service in time"),
    }
}

/// Renews the lease, or puts the server's key under a new one.
async fn renew(store: &dyn Store, lease: Option<LeaseId>, own: &ApiServer) -> Result<LeaseId, StoreError> {
    if let Some(lease) = lease {
        match store.lease_keep_alive(lease).await {
            Err(StoreError::LeaseNotFound(_)) => {}
            kept => return kept.map(|kept| kept.id),
        }
    }
    let lease = store.lease_grant(0, TTL).await?.id;
    let put = |ip: &IpAddr| {
        let value = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": ip},
            "subsets": [{"addresses": [{"ip": ip}]}]});
        Op::Put(PutRequest { lease, ..PutRequest::new(key::full(LEASES, &ip.to_string()), value.to_string()) })
    };
    let success = own.addresses.iter().map(put).collect();
    store.txn(Txn { compare: Vec::new(), success, failure: Vec::new() }).await?;
    Ok(lease)
}

/// Brings the endpoints to the servers whose keys are there.
async fn follow(server: &Server, own: &ApiServer) -> Result<(), String> {
    server.core.cache.sync().await.map_err(|error| error.to_string())?;
    let keys = server.core.cache.collection(LEASES).select("", &LabelSelector::everything());
    let mut addresses: Vec<IpAddr> = keys.iter().filter_map(|key| key.meta().name.parse().ok()).collect();
    addresses.sort_unstable();
    // The last server leaves them as they are: whoever looks finds nobody either way.
    if addresses.is_empty() {
        return Ok(());
    }
    let all = ApiServer { addresses, ..own.clone() };
    let client = server.client(UserInfo::loopback());
    against_others(&*client, || objects::kubernetes_service(&all)).await.map_err(|error| error.to_string())
}
