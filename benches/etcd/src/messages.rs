//! The requests, encoded ahead where they do not change.

use std::io;

use bytes::Bytes;
use prost::{
    Message,
    encoding::{DecodeContext, WireType},
};
use rk_store::etcd::proto::etcdserverpb::{
    CompactionRequest, Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest,
    WatchRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
    response_op::Response,
    watch_request::RequestUnion,
};

use crate::http2::frame_message;

/// The methods called.
pub mod path {
    /// KV.Put
    pub const PUT: &str = "/etcdserverpb.KV/Put";
    /// KV.Range
    pub const RANGE: &str = "/etcdserverpb.KV/Range";
    /// KV.Txn
    pub const TXN: &str = "/etcdserverpb.KV/Txn";
    /// KV.Compact
    pub const COMPACT: &str = "/etcdserverpb.KV/Compact";
    /// Watch.Watch
    pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
    /// Maintenance.Status
    pub const STATUS: &str = "/etcdserverpb.Maintenance/Status";
    /// Maintenance.Defragment
    pub const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
}

/// Bytes of a value.
pub const VALUE: usize = 1024;

/// Digits of a key's number.
const DIGITS: usize = 12;

/// The key of a number. All keys lie in one prefix and in the order of their numbers.
pub fn key(number: u64) -> Bytes {
    format!("/registry/bench/{number:0DIGITS$}").into()
}

/// The end of the prefix in which all keys lie.
pub const PREFIX_END: &[u8] = b"/registry/bench0";

/// A value that does not compress; the same for the same number.
pub fn value(number: u64) -> Bytes {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(VALUE);
    while bytes.len() < VALUE {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.into()
}

fn body(message: &impl prost::Message) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.encoded_len() + 5);
    frame_message(&mut body, message);
    body
}

fn put_request(key: Bytes, value: Bytes) -> PutRequest {
    PutRequest { key, value, ..PutRequest::default() }
}

/// A put.
pub fn put(key: Bytes, value: Bytes) -> Vec<u8> {
    body(&put_request(key, value))
}

/// A put of several keys at once.
pub fn put_many(pairs: impl Iterator<Item = (Bytes, Bytes)>) -> Vec<u8> {
    let success = pairs.map(|(key, value)| RequestOp { request: Some(Request::RequestPut(put_request(key, value))) });
    body(&TxnRequest { success: success.collect(), ..TxnRequest::default() })
}

/// A read of one key.
pub fn get(key: Bytes, serializable: bool) -> Vec<u8> {
    body(&RangeRequest { key, serializable, ..RangeRequest::default() })
}

/// A read of as many keys from this one on.
pub fn list(key: Bytes, limit: i64) -> Vec<u8> {
    body(&RangeRequest { key, range_end: Bytes::from_static(PREFIX_END), limit, ..RangeRequest::default() })
}

/// What kube-apiserver does to update an object: put if the key was last changed at this revision, else read it.
pub fn update(key: Bytes, value: Bytes, mod_revision: i64) -> Vec<u8> {
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(mod_revision)),
        ..Compare::default()
    };
    let get = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    body(&TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(Request::RequestPut(put_request(key, value))) }],
        failure: vec![RequestOp { request: Some(Request::RequestRange(get)) }],
    })
}

fn broken(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// The revision of a key after an [`update`], whichever way it went.
pub fn updated(answer: &Bytes) -> io::Result<i64> {
    let answer = TxnResponse::decode(answer.clone()).map_err(broken)?;
    let revision = answer.header.map_or(0, |header| header.revision);
    match answer.responses.into_iter().next().and_then(|response| response.response) {
        Some(Response::ResponseRange(range)) => Ok(range.kvs.first().map_or(0, |kv| kv.mod_revision)),
        Some(Response::ResponsePut(_)) => Ok(revision),
        _ => Err(broken("a txn without an answer")),
    }
}

/// The fields of a message that have a length, by their numbers: all that a watcher needs, without decoding the rest.
fn fields(mut message: &[u8]) -> impl Iterator<Item = io::Result<(u32, &[u8])>> {
    std::iter::from_fn(move || {
        while !message.is_empty() {
            match field(&mut message) {
                Ok(None) => {}
                Ok(Some(field)) => return Some(Ok(field)),
                Err(error) => {
                    message = &[];
                    return Some(Err(broken(error)));
                }
            }
        }
        None
    })
}

fn field<'a>(message: &mut &'a [u8]) -> Result<Option<(u32, &'a [u8])>, prost::DecodeError> {
    let (number, kind) = prost::encoding::decode_key(message)?;
    if kind != WireType::LengthDelimited {
        prost::encoding::skip_field(kind, number, message, DecodeContext::default())?;
        return Ok(None);
    }
    let length = prost::encoding::decode_varint(message)? as usize;
    // A length beyond the end leaves what is there, which then is no key of ours.
    let (field, rest) = message.split_at(length.min(message.len()));
    *message = rest;
    Ok(Some((number, field)))
}

/// The numbers of the keys whose changes a watch answer tells.
pub fn watched(answer: &[u8]) -> impl Iterator<Item = io::Result<u64>> {
    fields(answer).filter_map(|field| match field {
        Ok((11, event)) => Some(event_key(event)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

fn event_key(event: &[u8]) -> io::Result<u64> {
    for field in fields(event) {
        let (2, kv) = field? else { continue };
        for field in fields(kv) {
            if let (1, key) = field? {
                let digits = std::str::from_utf8(&key[key.len().saturating_sub(DIGITS)..]).map_err(broken)?;
                return digits.parse().map_err(broken);
            }
        }
    }
    Err(broken("an event without a key"))
}

/// A request of which only the key's number changes.
#[derive(Debug)]
pub struct Template {
    body: Vec<u8>,
    digits: usize,
}

impl Template {
    fn new(body: Vec<u8>) -> Self {
        let digits = body.windows(DIGITS).position(|window| window == [b'0'; DIGITS]).expect("key 0 is in it");
        Self { body, digits }
    }

    /// A put; all values are the same.
    pub fn put() -> Self {
        Self::new(put(key(0), value(1)))
    }

    /// A read.
    pub fn get(serializable: bool) -> Self {
        Self::new(get(key(0), serializable))
    }

    /// Appends the request for a key.
    pub fn write(&mut self, number: u64, body: &mut Vec<u8>) {
        let mut rest = number;
        for digit in self.body[self.digits..self.digits + DIGITS].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        body.extend_from_slice(&self.body);
    }
}

/// Watches of the whole prefix, several on one stream.
pub fn watch(watches: usize) -> Vec<u8> {
    let create = WatchCreateRequest {
        key: Bytes::from_static(b"/registry/bench/"),
        range_end: Bytes::from_static(PREFIX_END),
        ..WatchCreateRequest::default()
    };
    body(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).repeat(watches)
}

/// A compaction that waits until its space is free.
pub fn compact(revision: i64) -> Vec<u8> {
    body(&CompactionRequest { revision, physical: true })
}

/// A message with no fields.
pub fn empty() -> Vec<u8> {
    vec![0; 5]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_writes_what_would_be_encoded() {
        let (mut template, mut body) = (Template::put(), Vec::new());
        template.write(1234, &mut body);
        assert_eq!(body, put(key(1234), value(1)));
    }

    #[test]
    fn events_tell_their_keys() {
        use rk_store::etcd::proto::{
            etcdserverpb::{ResponseHeader, WatchResponse},
            mvccpb::{Event, KeyValue},
        };
        let event = |number| Event {
            kv: Some(KeyValue { key: key(number), value: value(1), mod_revision: 7, ..KeyValue::default() }),
            ..Event::default()
        };
        let header = Some(ResponseHeader { revision: 8, ..ResponseHeader::default() });
        let answer = WatchResponse { header, watch_id: 3, events: vec![event(5), event(999)], ..Default::default() };
        let numbers: Vec<_> = watched(&answer.encode_to_vec()).map(Result::unwrap).collect();
        assert_eq!(numbers, [5, 999]);
    }

    #[test]
    fn values_have_their_length_and_differ() {
        assert_eq!(value(1).len(), VALUE);
        assert_ne!(value(1), value(3));
        assert!(key(9) < key(10) && key(u64::from(u32::MAX)) < PREFIX_END);
    }
}
