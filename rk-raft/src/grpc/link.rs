//! The way to one peer: a queue, and a task that keeps a stream to it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rk_store::Error;
use tokio::{sync::mpsc, task::AbortHandle};
use tonic::Code;

use super::{PROTOCOL_VERSION, Shared, connect, proto};
use crate::{Lane, MemberId, Packet, message::Message, node::failed};

/// Packets that wait, of raft and of states.
const QUEUE: usize = 4096;
const BULK_QUEUE: usize = 64;
/// Packets in a frame, and bytes unless one packet has more.
const FRAME: usize = 64;
const FRAME_BYTES: usize = 4 << 20;
/// Frames that wait for the network.
const FRAMES: usize = 4;
/// The pause before the first try to connect again, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Link {
    queue: mpsc::Sender<Bytes>,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    pub(super) fn start(shared: Arc<Shared>, to: MemberId, urls: Vec<String>, lane: Lane) -> Self {
        let (queue, packets) = mpsc::channel(if lane == Lane::Raft { QUEUE } else { BULK_QUEUE });
        let task = tokio::spawn(run(shared, to, urls, lane, packets)).abort_handle();
        Self { queue, task }
    }

    pub(super) fn send(&self, payload: Bytes) {
        if self.queue.try_send(payload).is_err() {
            tracing::trace!("a packet was dropped: too many wait");
        }
    }
}

async fn run(shared: Arc<Shared>, to: MemberId, urls: Vec<String>, lane: Lane, mut packets: mpsc::Receiver<Bytes>) {
    let (member, mut pause, mut said) = (shared.identity.member_id, PAUSE, String::new());
    for url in urls.iter().cycle() {
        // States are rare: nobody keeps a connection for them.
        let first = match lane {
            Lane::Raft => None,
            Lane::Bulk => match packets.recv().await {
                Some(first) => Some(first),
                None => return,
            },
        };
        let (error, welcome) = stream(&shared, to, url, lane, first, &mut packets).await;
        if welcome {
            pause = PAUSE;
        }
        let text = error.to_string();
        if text != said {
            tracing::warn!(member, peer = to, url, error = text, "a peer is not reached");
            said = text;
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// Keeps a stream to a peer until it ends, which is told, and whether it was welcome.
async fn stream(
    shared: &Arc<Shared>,
    to: MemberId,
    url: &str,
    lane: Lane,
    first: Option<Bytes>,
    packets: &mut mpsc::Receiver<Bytes>,
) -> (Error, bool) {
    let channel = match connect(url, shared.tls.as_ref()).await {
        Ok(channel) => channel,
        Err(error) => return (error, false),
    };
    let hello = proto::Hello {
        version: PROTOCOL_VERSION,
        cluster_id: shared.identity.cluster_id,
        from: shared.identity.member_id,
        to,
        lane: u32::from(lane == Lane::Bulk),
    };
    let (frames, outgoing) = mpsc::channel(FRAMES);
    let frame = proto::Frame { hello: Some(hello), packets: first.into_iter().collect() };
    let refused = |status: tonic::Status| (refusal(shared, to, &status), false);
    if frames.send(frame).await.is_err() {
        return (failed("a peer's stream", "it has ended"), false);
    }
    let mut client = proto::peer_client::PeerClient::new(channel);
    let mut welcomes = match client.carry(tokio_stream::wrappers::ReceiverStream::new(outgoing)).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return refused(status),
    };
    match welcomes.message().await {
        Ok(Some(_)) => tracing::debug!(member = shared.identity.member_id, peer = to, "a peer is reached"),
        Ok(None) => return (failed("a peer's stream", "it has ended"), false),
        Err(status) => return refused(status),
    }
    let mut batch = Vec::with_capacity(FRAME);
    loop {
        tokio::select! {
            ended = welcomes.message() => match ended {
                Ok(Some(_)) => {}
                Ok(None) => return (failed("a peer's stream", "it has ended"), true),
                Err(status) => return (refusal(shared, to, &status), true),
            },
            count = packets.recv_many(&mut batch, FRAME) => {
                shared.count(to, &batch, |traffic| &mut traffic.sent);
                let mut ended = count == 0;
                while !ended && !batch.is_empty() {
                    let frame = proto::Frame { hello: None, packets: take_frame(&mut batch) };
                    ended = frames.send(frame).await.is_err();
                }
                if ended {
                    return (failed("a peer's stream", "it has ended"), true);
                }
            }
        }
    }
}

/// Takes the packets of one frame: what a peer reads at once is limited.
fn take_frame(packets: &mut Vec<Bytes>) -> Vec<Bytes> {
    let mut bytes = 0;
    let fits = |packet: &&Bytes| {
        bytes += packet.len();
        bytes <= FRAME_BYTES
    };
    let count = packets.iter().take_while(fits).count().max(1);
    let rest = packets.split_off(count.min(packets.len()));
    std::mem::replace(packets, rest)
}

/// Why a peer has refused this member, who learns here if it was removed.
fn refusal(shared: &Shared, from: MemberId, status: &tonic::Status) -> Error {
    if status.code() == Code::PermissionDenied
        && let Ok(payload) = Message::Removed.encode()
    {
        // A full inbox has other news first; the peer will refuse again.
        let _full = shared.inbox.try_send(Packet { from, to: shared.identity.member_id, lane: Lane::Raft, payload });
    }
    failed("a peer's stream", status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_of_limited_size() {
        let sizes = [10, FRAME_BYTES - 10, 1, FRAME_BYTES + 1, 5, 5];
        let mut packets: Vec<_> = sizes.iter().map(|size| Bytes::from(vec![0; *size])).collect();
        let mut frames = Vec::new();
        while !packets.is_empty() {
            frames.push(take_frame(&mut packets).iter().map(Bytes::len).collect::<Vec<_>>());
        }
        let wanted = [vec![10, FRAME_BYTES - 10], vec![1], vec![FRAME_BYTES + 1], vec![5, 5]];
        assert_eq!(frames, wanted);
    }
}
