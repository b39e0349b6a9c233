//! Servers that leave for good: the group forgets the member of a server whose Node is deleted, as k3s does it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Node;
use rk_api::{Change, Informers};
use rk_raft::RaftStore;
use rk_store::{Cluster as _, ClusterError as MemberError, KeyRange, Store as _};
use tokio_util::sync::CancellationToken;

use super::door::place_key;

/// Pause between tries while the group does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Follows the nodes until `shutdown`. Every server does; the first one that finds a node deleted is enough.
pub(in crate::cluster) async fn forget_deleted(
    informers: Informers,
    member: Arc<RaftStore>,
    shutdown: CancellationToken,
) {
    let mut changes = informers.of::<Node>().subscribe();
    let follow = async {
        while let Some(change) = changes.recv().await {
            let Change::Deleted(node) = change else { continue };
            while let Err(error) = forget(&member, &node.meta().name).await {
                tracing::warn!(node = node.meta().name, %error, "the deleted node's member is still in the group");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follow => {}
    }
}

/// Takes the member of this name out of the group and frees its place.
async fn forget(member: &RaftStore, name: &str) -> Result<(), MemberError> {
    let Some(left) = member.members(true).await?.into_iter().find(|member| member.name == name) else { return Ok(()) };
    match member.member_remove(left.id).await {
        Ok(_) | Err(MemberError::MemberNotFound) => {}
        Err(error) => return Err(error),
    }
    tracing::info!(server = name, "the group has forgotten a server whose node was deleted");
    if let Some(place) = name.rsplit('-').next().and_then(|place| place.parse().ok()) {
        member.delete(KeyRange::key(place_key(place))).await?;
    }
    Ok(())
}
