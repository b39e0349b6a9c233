//! The way to one peer: a queue, and a task that keeps a stream to it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use rk_store::Error;
use tokio::{sync::mpsc, task::AbortHandle, time::Instant};
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
/// Time between two measurements of the way there and back.
const PROBE: Duration = Duration::from_secs(1);
/// Measurements that wait for their answers.
const PROBES: usize = 8;
/// The pause before the first try to connect again, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a link waits before it connects again: twice as long each time, up to a limit, until it was welcome.
struct BackOff(Duration);

impl BackOff {
    fn next(&mut self, welcome: bool) -> Duration {
        let pause = if welcome { PAUSE } else { self.0 };
        self.0 = (2 * pause).min(LONGEST_PAUSE);
        pause
    }
}

#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    to: MemberId,
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
        let task = tokio::spawn(run(shared.clone(), to, urls, lane, packets)).abort_handle();
        Self { shared, to, queue, task }
    }

    pub(super) fn send(&self, payload: Bytes) {
        if self.queue.try_send(payload).is_err() {
            tracing::trace!("a packet was dropped: too many wait");
            self.shared.note(self.to, |traffic| traffic.failures += 1);
        }
    }
}

async fn run(shared: Arc<Shared>, to: MemberId, urls: Vec<String>, lane: Lane, mut packets: mpsc::Receiver<Bytes>) {
    let (member, mut back_off, mut said) = (shared.identity.member_id, BackOff(PAUSE), String::new());
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
        shared.note(to, |traffic| {
            traffic.failures += 1;
            traffic.connected &= lane != Lane::Raft;
        });
        let text = error.to_string();
        if text != said {
            tracing::warn!(member, peer = to, url, error = text, "a peer is not reached");
            said = text;
        }
        tokio::time::sleep(back_off.next(welcome)).await;
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
    let frame = proto::Frame { hello: Some(hello), packets: first.into_iter().collect(), probe: 0 };
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
        Ok(Some(_)) => {
            tracing::debug!(member = shared.identity.member_id, peer = to, "a peer is reached");
            shared.note(to, |traffic| traffic.connected |= lane == Lane::Raft);
        }
        Ok(None) => return (failed("a peer's stream", "it has ended"), false),
        Err(status) => return refused(status),
    }
    let mut batch = Vec::with_capacity(FRAME);
    let mut probes = tokio::time::interval(PROBE);
    probes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut probe, mut unanswered) = (0, VecDeque::with_capacity(PROBES));
    loop {
        tokio::select! {
            _ = probes.tick(), if lane == Lane::Raft => {
                let frame = proto::Frame { probe: probe + 1, ..proto::Frame::default() };
                // Where frames wait, it waits for the next time: it is the network that is measured.
                if frames.try_send(frame).is_ok() {
                    probe += 1;
                    unanswered.truncate(PROBES - 1);
                    unanswered.push_front((probe, Instant::now()));
                }
            }
            ended = welcomes.message() => match ended {
                Ok(Some(welcome)) => {
                    if let Some(at) = unanswered.iter().position(|(probe, _)| *probe == welcome.probe) {
                        let sent = unanswered[at].1;
                        // Nor will those before it be answered.
                        unanswered.truncate(at);
                        shared.note(to, |traffic| traffic.round_trips.note(sent.elapsed()));
                    }
                },
                Ok(None) => return (failed("a peer's stream", "it has ended"), true),
                Err(status) => return (refusal(shared, to, &status), true),
            },
            count = packets.recv_many(&mut batch, FRAME) => {
                shared.count(to, &batch, |traffic| &mut traffic.sent);
                let mut ended = count == 0;
                while !ended && !batch.is_empty() {
                    let frame = proto::Frame { hello: None, packets: take_frame(&mut batch), probe: 0 };
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
    fn pauses_grow_until_a_peer_is_reached() {
        let mut back_off = BackOff(PAUSE);
        let pauses: Vec<_> = (0..7).map(|_| back_off.next(false).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!([true, false, false].map(|welcome| back_off.next(welcome).as_millis()), [50, 100, 200]);
    }

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
