//! The types of the contract as messages, and answers back.

use bytes::Bytes;

use crate::{
    Alarm, AlarmKind, Compare, CompareOp, CompareTarget, DeleteRequest, Error, Event, EventKind, KeyRange, KeyValue,
    Op, OpResponse, PutRequest, RangeRequest, RangeResponse, Revision, SortOrder, SortTarget, Txn, TxnResponse,
    etcd::{
        convert::{signed, unsigned},
        proto::{
            etcdserverpb::{self as pb, compare, request_op, response_op},
            mvccpb,
        },
    },
};

/// A range's key and end as etcd writes them.
pub(super) fn key_and_end(range: KeyRange) -> (Bytes, Bytes) {
    let only_key = |end: &Bytes| end.strip_suffix(&[0]).is_some_and(|key| key == range.start);
    match range.end {
        Some(end) if only_key(&end) => (range.start, Bytes::new()),
        end => {
            // The empty key is before all others and never there.
            let start = if range.start.is_empty() { Bytes::from_static(&[0]) } else { range.start };
            (start, end.unwrap_or(Bytes::from_static(&[0])))
        }
    }
}

pub(super) fn range(request: RangeRequest) -> pb::RangeRequest {
    use pb::range_request::{SortOrder as Order, SortTarget as Target};
    let (key, range_end) = key_and_end(request.range);
    let order = match request.sort_order {
        SortOrder::None => Order::None,
        SortOrder::Ascend => Order::Ascend,
        SortOrder::Descend => Order::Descend,
    };
    let target = match request.sort_target {
        SortTarget::Key => Target::Key,
        SortTarget::Version => Target::Version,
        SortTarget::CreateRevision => Target::Create,
        SortTarget::ModRevision => Target::Mod,
        SortTarget::Value => Target::Value,
    };
    pb::RangeRequest {
        key,
        range_end,
        limit: signed(request.limit as u64),
        revision: signed(request.revision),
        sort_order: order.into(),
        sort_target: target.into(),
        serializable: request.serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: signed(request.min_mod_revision),
        max_mod_revision: signed(request.max_mod_revision),
        min_create_revision: signed(request.min_create_revision),
        max_create_revision: signed(request.max_create_revision),
    }
}

fn put(request: PutRequest) -> pb::PutRequest {
    pb::PutRequest {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

fn delete(request: DeleteRequest) -> pb::DeleteRangeRequest {
    let (key, range_end) = key_and_end(request.range);
    pb::DeleteRangeRequest { key, range_end, prev_kv: request.prev_kv }
}

pub(super) fn txn(txn: Txn) -> pb::TxnRequest {
    let ops = |ops: Vec<Op>| ops.into_iter().map(op).collect();
    pb::TxnRequest {
        compare: txn.compare.into_iter().map(guard).collect(),
        success: ops(txn.success),
        failure: ops(txn.failure),
    }
}

fn op(op: Op) -> pb::RequestOp {
    use request_op::Request;
    let request = match op {
        Op::Range(request) => Request::RequestRange(range(request)),
        Op::Put(request) => Request::RequestPut(put(request)),
        Op::Delete(request) => Request::RequestDeleteRange(delete(request)),
        Op::Txn(inner) => Request::RequestTxn(txn(inner)),
    };
    pb::RequestOp { request: Some(request) }
}

fn guard(guard: Compare) -> pb::Compare {
    use compare::{CompareResult, CompareTarget as Target, TargetUnion as Wanted};
    let (key, range_end) = key_and_end(guard.range);
    let result = match guard.op {
        CompareOp::Equal => CompareResult::Equal,
        CompareOp::Greater => CompareResult::Greater,
        CompareOp::Less => CompareResult::Less,
        CompareOp::NotEqual => CompareResult::NotEqual,
    };
    let (target, wanted) = match guard.target {
        CompareTarget::Version(wanted) => (Target::Version, Wanted::Version(signed(wanted))),
        CompareTarget::CreateRevision(wanted) => (Target::Create, Wanted::CreateRevision(signed(wanted))),
        CompareTarget::ModRevision(wanted) => (Target::Mod, Wanted::ModRevision(signed(wanted))),
        CompareTarget::Value(wanted) => (Target::Value, Wanted::Value(wanted)),
        CompareTarget::Lease(wanted) => (Target::Lease, Wanted::Lease(wanted)),
    };
    pb::Compare { result: result.into(), target: target.into(), key, range_end, target_union: Some(wanted) }
}

fn kv(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: unsigned(kv.create_revision),
        mod_revision: unsigned(kv.mod_revision),
        version: unsigned(kv.version),
        lease: kv.lease,
    }
}

fn kvs(all: Vec<mvccpb::KeyValue>) -> Vec<KeyValue> {
    all.into_iter().map(kv).collect()
}

/// The revision of a header.
pub(super) fn revision(header: Option<pb::ResponseHeader>) -> Revision {
    header.map_or(0, |header| unsigned(header.revision))
}

pub(super) fn range_answer(answer: pb::RangeResponse) -> RangeResponse {
    RangeResponse {
        kvs: kvs(answer.kvs),
        more: answer.more,
        count: unsigned(answer.count),
        revision: revision(answer.header),
    }
}

pub(super) fn txn_answer(answer: pb::TxnResponse) -> Result<TxnResponse, Error> {
    use response_op::Response;
    let response = |op: pb::ResponseOp| {
        Ok(match op.response {
            Some(Response::ResponseRange(answer)) => OpResponse::Range(range_answer(answer)),
            Some(Response::ResponsePut(answer)) => OpResponse::Put { prev_kv: answer.prev_kv.map(kv) },
            Some(Response::ResponseDeleteRange(answer)) => {
                OpResponse::Delete { deleted: unsigned(answer.deleted), prev_kvs: kvs(answer.prev_kvs) }
            }
            Some(Response::ResponseTxn(answer)) => OpResponse::Txn(txn_answer(answer)?),
            None => return Err(Error::Unavailable("etcd's answer leaves an operation out".into())),
        })
    };
    Ok(TxnResponse {
        succeeded: answer.succeeded,
        revision: revision(answer.header),
        responses: answer.responses.into_iter().map(response).collect::<Result<_, _>>()?,
    })
}

pub(super) fn event(event: mvccpb::Event) -> Option<Event> {
    let kind = match event.r#type() {
        mvccpb::event::EventType::Put => EventKind::Put,
        mvccpb::event::EventType::Delete => EventKind::Delete,
    };
    Some(Event { kind, kv: kv(event.kv?), prev_kv: event.prev_kv.map(kv) })
}

pub(super) fn alarm_type(kind: AlarmKind) -> i32 {
    match kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    }
    .into()
}

pub(super) fn alarm(alarm: pb::AlarmMember) -> Option<Alarm> {
    let kind = match alarm.alarm() {
        pb::AlarmType::None => return None,
        pb::AlarmType::Nospace => AlarmKind::NoSpace,
        pb::AlarmType::Corrupt => AlarmKind::Corrupt,
    };
    Some(Alarm { member: alarm.member_id, kind })
}
