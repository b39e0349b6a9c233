//! What other members connect to.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::{PROTOCOL_VERSION, Shared, proto};
use crate::{Lane, Packet};

/// Answers that wait for the network. A probe that finds no room is not answered.
const WELCOMES: usize = 4;

pub(super) struct Server {
    pub(super) shared: Arc<Shared>,
}

impl Server {
    /// Whether this member listens to whoever says this of itself.
    fn check(&self, hello: &proto::Hello) -> Result<(), Status> {
        let own = &self.shared.identity;
        if hello.version != PROTOCOL_VERSION {
            return Err(Status::failed_precondition(format!(
                "the peer speaks version {} of the protocol, and this member version {PROTOCOL_VERSION}",
                hello.version
            )));
        }
        if hello.cluster_id != own.cluster_id {
            return Err(Status::failed_precondition(format!(
                "cluster id mismatch: this member belongs to the cluster {:x}, and the peer to {:x}",
                own.cluster_id, hello.cluster_id
            )));
        }
        if hello.to != own.member_id {
            return Err(Status::failed_precondition(format!(
                "this is the member {:x} and not {:x}: its address or its data directory was given to another",
                own.member_id, hello.to
            )));
        }
        let members = self.shared.members.read();
        if members.removed.contains(&hello.from) {
            return Err(Status::permission_denied(format!("the member {:x} was removed from the cluster", hello.from)));
        }
        if hello.from == own.member_id {
            return Err(Status::failed_precondition(format!(
                "another process runs as the member {:x}: its data directory was copied",
                own.member_id
            )));
        }
        if !members.members.contains_key(&hello.from) {
            // It may have been added a moment ago.
            return Err(Status::unavailable(format!("the member {:x} is not known here", hello.from)));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl proto::peer_server::Peer for Server {
    type CarryStream = Pin<Box<dyn Stream<Item = Result<proto::Welcome, Status>> + Send>>;

    async fn carry(&self, request: Request<Streaming<proto::Frame>>) -> Result<Response<Self::CarryStream>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.ok_or_else(|| Status::invalid_argument("no frame has come"))?;
        let hello = first.hello.ok_or_else(|| Status::invalid_argument("the first frame does not say who speaks"))?;
        if let Err(status) = self.check(&hello) {
            tracing::warn!(peer = hello.from, reason = status.message(), "a peer was refused");
            return Err(status);
        }
        let (shared, from) = (self.shared.clone(), hello.from);
        let lane = if hello.lane == 0 { Lane::Raft } else { Lane::Bulk };
        let (welcomes, answers) = mpsc::channel(WELCOMES);
        tokio::spawn(async move {
            let to = shared.identity.member_id;
            let welcome = |probe| Ok(proto::Welcome { version: PROTOCOL_VERSION, probe });
            if welcomes.send(welcome(0)).await.is_err() {
                return;
            }
            let proto::Frame { mut packets, mut probe, .. } = first;
            loop {
                if probe != 0 && welcomes.try_send(welcome(probe)).is_err() {
                    tracing::trace!(
                        peer = from,
                        "a probe is not answered: the peer does not take what it was told before"
                    );
                }
                shared.count(from, &packets, |traffic| &mut traffic.received);
                for payload in packets {
                    // One that can't keep up slows the peer down, whose queue then drops packets.
                    if shared.inbox.send(Packet { from, to, lane, payload }).await.is_err() {
                        return;
                    }
                }
                if shared.members.read().removed.contains(&from) {
                    let removed = format!("the member {from:x} was removed from the cluster");
                    // It may have gone already.
                    let _gone = welcomes.send(Err(Status::permission_denied(removed))).await;
                    return;
                }
                (packets, probe) = match frames.message().await {
                    Ok(Some(frame)) => (frame.packets, frame.probe),
                    Ok(None) => return,
                    Err(status) => {
                        tracing::debug!(peer = from, reason = status.message(), "a peer's stream has ended");
                        return;
                    }
                };
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(answers))))
    }

    async fn members(&self, _: Request<proto::MembersRequest>) -> Result<Response<proto::MembersResponse>, Status> {
        let members = self.shared.members.read();
        let members = members.list().into_iter().map(|member| proto::Member {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            is_learner: member.is_learner,
        });
        let cluster_id = self.shared.identity.cluster_id;
        Ok(Response::new(proto::MembersResponse { cluster_id, members: members.collect() }))
    }
}
