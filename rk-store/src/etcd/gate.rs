//! What etcd asks of a member before it answers: that it votes, and that it knows a leader, if the client wants that.

use std::{pin::pin, time::Duration};

use futures::{
    Stream, StreamExt,
    future::{Either, select},
};
use http::{HeaderMap, Response};
use tokio::{sync::watch, time::timeout};
use tonic::Status;

use super::{
    grpc::{self, Body, Encoded},
    service::{RANGE, SNAPSHOT, STATUS, Shared},
    status,
};
use crate::MemberId;

/// What a client says (clientv3's `WithRequireLeader`) that would rather hear nothing from a member that is cut off.
pub(super) const REQUIRES_LEADER: &str = "hasleader";

/// Whether a client wants to be answered only while there is a leader.
pub(super) fn requires_leader(headers: &HeaderMap) -> bool {
    headers.get(REQUIRES_LEADER).is_some_and(|value| value == "true")
}

impl Shared {
    /// Whether this member answers requests of this kind now. What a learner may read is looked at with the request itself.
    pub(super) fn admit(&self, path: &str, headers: &HeaderMap) -> Result<(), Status> {
        if ![RANGE, STATUS, SNAPSHOT].contains(&path) {
            self.votes()?;
        }
        if requires_leader(headers) && self.cluster.leader().borrow().is_none() {
            return Err(status::NO_LEADER.into());
        }
        Ok(())
    }

    /// Refuses what a learner may not answer.
    pub(super) fn votes(&self) -> Result<(), Status> {
        if self.cluster.is_learner() { Err(status::NOT_FOR_LEARNERS.into()) } else { Ok(()) }
    }

    /// The answers of a streaming method. They end with an error when there was no leader for long, if the client wants that.
    pub(super) fn stream(
        &self,
        path: &'static str,
        requires_leader: bool,
        answers: impl Stream<Item = Result<Encoded, Status>> + Send + 'static,
    ) -> Response<Body> {
        if !requires_leader {
            return grpc::stream(self.metrics.stream(path, answers));
        }
        let ends = ended_without_leader(self.cluster.leader(), self.options.leader_patience);
        grpc::stream(self.metrics.stream(path, until(answers, ends)))
    }
}

/// Ends once there was no leader for this long at a stretch, or there is nobody to tell.
async fn ended_without_leader(mut leader: watch::Receiver<Option<MemberId>>, patience: Duration) -> Status {
    while leader.wait_for(Option::is_none).await.is_ok() {
        if timeout(patience, leader.wait_for(Option::is_some)).await.is_err() {
            break;
        }
    }
    status::NO_LEADER.into()
}

/// Answers, until one of them is an error or `ends` gives one.
fn until(
    answers: impl Stream<Item = Result<Encoded, Status>> + Send + 'static,
    ends: impl Future<Output = Status> + Send + 'static,
) -> impl Stream<Item = Result<Encoded, Status>> + Send + 'static {
    let both = (answers.boxed(), Box::pin(ends));
    futures::stream::unfold(Some(both), |both| async {
        let (mut answers, ends) = both?;
        let answer = match select(pin!(answers.next()), ends).await {
            Either::Left((answer, ends)) => return Some((answer?, Some((answers, ends)))),
            Either::Right((status, _)) => Err(status),
        };
        Some((answer, None))
    })
}
