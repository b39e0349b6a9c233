//! Events as bytes, made once for all watchers of them.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;

use crate::{
    Event, WatchBatch,
    etcd::{
        convert,
        grpc::Encoded,
        proto::etcdserverpb::{ResponseHeader, WatchResponse},
    },
};

/// Batches that are remembered, and their bytes in all, at most.
const BATCHES: usize = 64;
const BYTES: usize = 4 << 20;

/// The number of `events` in a [`WatchResponse`].
const EVENTS: u32 = 11;

/// The latest batches of events with their bytes: watchers of one range are handed the same batch, one after the other.
#[derive(Default)]
pub(crate) struct EncodedEvents {
    latest: Mutex<Latest>,
}

#[derive(Default)]
struct Latest {
    batches: VecDeque<(Arc<[Event]>, Bytes)>,
    bytes: usize,
}

impl EncodedEvents {
    /// A watch's answers with the events of some batches: one, or several of at most about `part` bytes.
    pub(crate) fn answers(
        &self,
        header: ResponseHeader,
        watch_id: i64,
        batches: &[WatchBatch],
        part: usize,
    ) -> Vec<Encoded> {
        let head = WatchResponse { header: Some(header), watch_id, ..Default::default() };
        let shared = self.encoded(batches);
        if shared.iter().map(Bytes::len).sum::<usize>() <= part {
            return vec![Encoded { own: head.encode_to_vec(), shared }];
        }
        let mut parts: Vec<BytesMut> = Vec::new();
        for event in batches.iter().flat_map(|batch| batch.events.iter()) {
            let mut bytes = BytesMut::new();
            encode(event, &mut bytes);
            match parts.last_mut() {
                Some(last) if last.len() + bytes.len() <= part => last.unsplit(bytes),
                _ => parts.push(bytes),
            }
        }
        let last = parts.len().saturating_sub(1);
        let answer = |(i, bytes): (usize, BytesMut)| {
            let head = WatchResponse { fragment: i < last, ..head.clone() };
            Encoded { own: head.encode_to_vec(), shared: vec![bytes.freeze()] }
        };
        parts.into_iter().enumerate().map(answer).collect()
    }

    fn encoded(&self, batches: &[WatchBatch]) -> Vec<Bytes> {
        let mut latest = self.latest.lock();
        batches.iter().map(|batch| latest.encoded(&batch.events)).collect()
    }
}

impl Latest {
    fn encoded(&mut self, events: &Arc<[Event]>) -> Bytes {
        if let Some((_, bytes)) = self.batches.iter().rev().find(|(known, _)| Arc::ptr_eq(known, events)) {
            return bytes.clone();
        }
        let mut out = BytesMut::new();
        for event in events.iter() {
            encode(event, &mut out);
        }
        let bytes = out.freeze();
        self.bytes += bytes.len();
        self.batches.push_back((events.clone(), bytes.clone()));
        while self.batches.len() > BATCHES || self.bytes > BYTES {
            let Some((_, old)) = self.batches.pop_front() else { break };
            self.bytes -= old.len();
        }
        bytes
    }
}

fn encode(event: &Event, out: &mut BytesMut) {
    prost::encoding::message::encode(EVENTS, &convert::event(event), out);
}
