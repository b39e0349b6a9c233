//! The Lock service.

use bytes::Bytes;
use tonic::Status;

use super::{
    proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse},
    queue::{self, without_code},
    service::Shared,
    status,
};
use crate::{DeleteRequest, KeyRange, Op};

impl Shared {
    pub(crate) async fn lock(&self, request: LockRequest) -> Result<LockResponse, Status> {
        let place = self.enqueue(&request.name, request.lease, Bytes::new()).await?;
        // Whoever stops waiting gives the place up.
        let mut waiting = Leaving { shared: Some(self.clone()), key: place.key.clone(), created: place.created };
        let revision = self.turn(&request.name, &place).await?;
        if self.store.get(place.key.clone()).await.map_err(queue::status)?.is_none() {
            return Err(Status::unknown("mutex: session is expired"));
        }
        waiting.shared = None;
        Ok(LockResponse { header: Some(self.header(revision)), key: place.key })
    }

    pub(crate) async fn unlock(&self, request: UnlockRequest) -> Result<UnlockResponse, Status> {
        if request.key.is_empty() {
            return Err(without_code(&status::EMPTY_KEY.into()));
        }
        let delete = DeleteRequest { range: KeyRange::key(request.key), prev_kv: false };
        let (_, revision) = self.run(Op::Delete(delete)).await.map_err(|status| without_code(&status))?;
        Ok(UnlockResponse { header: Some(self.header(revision)) })
    }
}

/// Gives a place in a line up when dropped, unless the place was kept.
pub(crate) struct Leaving {
    pub(crate) shared: Option<Shared>,
    pub(crate) key: Bytes,
    pub(crate) created: crate::Revision,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            let (key, created) = (self.key.clone(), self.created);
            tokio::spawn(async move {
                if let Err(status) = shared.leave(key, created).await {
                    // Its lease ends it then.
                    tracing::debug!(%status, "a place in a line was not given up");
                }
            });
        }
    }
}
