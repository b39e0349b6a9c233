//! The state of the store on its way to a member that lacks it: in chunks, a few of which are under way at a time.
//!
//! The receiver takes chunks in order and tells how many it has. The sender sends again what was not acknowledged for a
//! while, so a transfer goes on after a break in the network where it stood, and is never faster than the receiver writes.
//! The first chunk says which state it is, all others hold records.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes};
use protobuf::Message as _;
use raft::eraftpb;
use rk_store::{Error, Position, SnapshotGuard, SnapshotHead};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::{
    MemberId,
    codec::{put_bytes, take_bytes},
    log::{Checkpoints, Incoming, Point},
    message::{Arrival, Chunk},
    node::{Received, failed},
};

/// Bytes of records in a chunk, about.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks on their way.
const WINDOW: usize = 8;
/// Chunks that wait for the receiver's disk; more are dropped and come again.
pub(crate) const INBOX: usize = 2 * WINDOW;
/// Silences, each as long as an answer may take, after which a transfer is given up.
const SILENCES: u32 = 60;

/// What the first chunk says.
struct Header {
    /// Raft's message, to be given to raft once the state is there.
    message: eraftpb::Message,
    point: Point,
    head: SnapshotHead,
}

impl Header {
    fn encode(&self) -> Result<Bytes, Error> {
        let mut out = Vec::new();
        put_bytes(&mut out, &self.message.write_to_bytes().map_err(|error| failed("a message", error))?);
        let mut point = Vec::new();
        self.point.encode(&mut point);
        put_bytes(&mut out, &point);
        self.head.encode(&mut out);
        Ok(out.into())
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        let message = eraftpb::Message::parse_from_carllerche_bytes(&take_bytes(&mut bytes)?).ok()?;
        let point = Point::decode(&mut take_bytes(&mut bytes)?)?;
        Some(Self { message, point, head: SnapshotHead::decode(bytes).ok()? })
    }
}

/// What is sent.
pub(crate) struct Outgoing {
    pub transfer: u64,
    pub message: eraftpb::Message,
    pub point: Point,
    pub state: SnapshotGuard,
    /// How long an answer may take.
    pub patience: Duration,
}

/// Sends a state; whether all of it has arrived.
pub(crate) async fn send(
    outgoing: Outgoing,
    send: impl Fn(Chunk),
    mut acks: mpsc::UnboundedReceiver<(u64, Arrival)>,
) -> Result<(), Error> {
    let Outgoing { transfer, message, point, state, patience } = outgoing;
    let header = Header { message, point, head: state.head().clone() }.encode()?;
    let mut under_way = VecDeque::from([Chunk { transfer, number: 0, last: false, data: header }]);
    send(under_way[0].clone());
    let (mut next, mut from, mut silences) = (1, Some(Position::first(0)), 0);
    loop {
        while under_way.len() < WINDOW
            && let Some(position) = from
        {
            let records = state.records(position, CHUNK_BYTES)?;
            from = records.next;
            let mut data = Vec::with_capacity(CHUNK_BYTES + (CHUNK_BYTES >> 3));
            for (key, record) in &records.pairs {
                put_bytes(&mut data, key);
                put_bytes(&mut data, record);
            }
            data.put_u32(crc32c::crc32c(&data));
            let chunk = Chunk { transfer, number: next, last: from.is_none(), data: data.into() };
            send(chunk.clone());
            under_way.push_back(chunk);
            next += 1;
            // Reading may take long, and others want their turn.
            tokio::task::yield_now().await;
        }
        match timeout_at(Instant::now() + patience, acks.recv()).await {
            Ok(Some((_, Arrival::Done))) => return Ok(()),
            Ok(Some((_, Arrival::Refused))) => return Err(failed("sending a state", "the receiver gave it up")),
            Ok(Some((arrived, Arrival::Going))) => {
                while under_way.front().is_some_and(|chunk| chunk.number < arrived) {
                    under_way.pop_front();
                    silences = 0;
                }
            }
            Ok(None) => return Err(failed("sending a state", "it is not wanted any more")),
            Err(_) if silences == SILENCES => return Err(failed("sending a state", "the receiver is silent")),
            Err(_) => {
                silences += 1;
                under_way.iter().cloned().for_each(&send);
            }
        }
    }
}

/// Takes a state from `from`; `acknowledge` tells the sender how it stands.
pub(crate) async fn receive(
    from: MemberId,
    transfer: u64,
    states: Arc<dyn Checkpoints>,
    mut chunks: mpsc::Receiver<Chunk>,
    acknowledge: impl Fn(u64, Arrival),
) -> Result<Received, Error> {
    let malformed = || failed("receiving a state", "a chunk could not be read");
    let mut next = 0;
    let mut begun: Option<(eraftpb::Message, Point, Box<dyn Incoming>)> = None;
    while let Some(chunk) = chunks.recv().await {
        if chunk.number != next {
            // Come again, or too early.
            acknowledge(next, Arrival::Going);
            continue;
        }
        match &mut begun {
            None => {
                let header = Header::decode(chunk.data).ok_or_else(malformed)?;
                let metadata = header.message.get_snapshot().get_metadata();
                if header.message.from != from || metadata != header.point.snapshot().get_metadata() {
                    return Err(malformed());
                }
                let incoming = states.receive(header.point.clone(), header.head).await?;
                begun = Some((header.message, header.point, incoming));
            }
            Some((.., incoming)) => incoming.push(records(chunk.data).ok_or_else(malformed)?).await?,
        }
        next += 1;
        if chunk.last
            && let Some((message, point, incoming)) = begun
        {
            // The last chunk is acknowledged with the whole state, and comes again until it is.
            let (machine, staged) = incoming.finish().await?;
            return Ok(Received { transfer, message, point, machine, staged });
        }
        acknowledge(next, Arrival::Going);
    }
    Err(failed("receiving a state", "another one has come"))
}

fn records(mut data: Bytes) -> Option<Vec<(Bytes, Bytes)>> {
    let end = data.len().checked_sub(4)?;
    let crc = data.split_off(end);
    if crc32c::crc32c(&data).to_be_bytes() != crc[..] {
        return None;
    }
    let mut records = Vec::new();
    while !data.is_empty() {
        // Copied, so that a record that outlives the others does not keep the whole chunk in memory.
        let (key, record) = (take_bytes(&mut data)?, take_bytes(&mut data)?);
        records.push((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&record)));
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use parking_lot::Mutex;
    use rk_store::{Command, DEFAULT_WATCH_BUFFER, Machine, MemoryEngine, Op, PutRequest, Replica, Txn};

    use super::*;
    use crate::{MemoryLog, membership::Membership};

    const PATIENCE: Duration = Duration::from_secs(1);

    /// A state of a good many chunks.
    fn outgoing() -> Outgoing {
        let replica = Replica::new(Machine::new(Arc::new(MemoryEngine::new())).unwrap(), DEFAULT_WATCH_BUFFER);
        for i in 0..80 {
            let put = Op::Put(PutRequest::new(format!("key {i}"), vec![b'x'; CHUNK_BYTES / 2]));
            replica.apply(&Command::Txn(Txn { success: vec![put], ..Txn::default() })).unwrap();
        }
        let point = Point { index: 9, term: 2, membership: Membership::numbered(&[1, 2]) };
        let mut message = eraftpb::Message { from: 1, ..eraftpb::Message::default() };
        message.set_snapshot(point.snapshot());
        Outgoing { transfer: 5, message, point, state: replica.snapshot(), patience: PATIENCE }
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_goes_on_where_it_stood_after_a_break() {
        let (to_receiver, chunks) = mpsc::channel(INBOX);
        let (to_sender, acks) = mpsc::unbounded_channel();
        // From the 12th chunk on nothing arrives for a while, in either direction.
        let (sent, end) = (AtomicUsize::new(0), Instant::now() + 10 * PATIENCE);
        let broken = || sent.load(Relaxed) >= 12 && Instant::now() < end;
        let numbers = Mutex::new(Vec::new());
        let carry = |chunk: Chunk| {
            sent.fetch_add(1, Relaxed);
            if !broken() {
                numbers.lock().push(chunk.number);
                // What finds no room comes again.
                let _full = to_receiver.try_send(chunk);
            }
        };
        let acknowledge = |arrived, how| {
            if !broken() {
                to_sender.send((arrived, how)).unwrap();
            }
        };
        let receiving = async {
            let received = receive(1, 5, Arc::new(MemoryLog::default()), chunks, acknowledge).await.unwrap();
            to_sender.send((0, Arrival::Done)).unwrap();
            received
        };
        let (sent_all, received) = tokio::join!(send(outgoing(), carry, acks), receiving);
        sent_all.unwrap();
        assert_eq!((received.point.index, received.machine.keys()), (9, 80));
        let numbers = numbers.into_inner();
        let last = *numbers.iter().max().unwrap() as usize;
        assert!(last > 30, "it is a state of many chunks");
        // All come once but those under way at the break.
        assert!(numbers.len() <= last + 1 + 2 * WINDOW, "{} chunks for {last}", numbers.len());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_under_way_than_the_receiver_takes() {
        let (to_sender, acks) = mpsc::unbounded_channel();
        let furthest = Mutex::new(0);
        let sending = send(outgoing(), |chunk| *furthest.lock() = chunk.number, acks);
        tokio::pin!(sending);
        let mut arrived = 0;
        for _ in 0..4 {
            assert!(timeout_at(Instant::now() + PATIENCE / 2, &mut sending).await.is_err());
            assert_eq!(*furthest.lock(), arrived + WINDOW as u64 - 1, "it waits for the receiver");
            arrived += 3;
            to_sender.send((arrived, Arrival::Going)).unwrap();
        }
    }
}
