//! Messages of the API and the types of the contract, one from the other.

use bytes::Bytes;
use tonic::Status;

use super::{
    proto::{
        etcdserverpb::{self as pb, compare, request_op, response_op},
        mvccpb,
    },
    status,
};
use crate::{
    Compare, CompareOp, CompareTarget, DeleteRequest, Event, EventKind, KeyRange, KeyValue, Op, OpResponse, PutRequest,
    RangeRequest, RangeResponse, Revision, SortOrder, SortTarget, Txn, TxnResponse,
};

/// A number as the wire has it; none here comes near the difference.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number from the wire, where what is below zero means zero.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The range of a request: one key if there is no end, no end if that is a zero byte.
pub(crate) fn key_range(key: Bytes, range_end: Bytes) -> KeyRange {
    match &range_end[..] {
        [] => KeyRange::key(key),
        [0] => KeyRange { start: key, end: None },
        _ => KeyRange { start: key, end: Some(range_end) },
    }
}

fn given(key: &Bytes) -> Result<(), Status> {
    if key.is_empty() { Err(status::EMPTY_KEY.into()) } else { Ok(()) }
}

pub(crate) fn range(request: pb::RangeRequest) -> Result<RangeRequest, Status> {
    use pb::range_request::{SortOrder as Order, SortTarget as Target};
    given(&request.key)?;
    let sort_order = match Order::try_from(request.sort_order) {
        Ok(Order::None) => SortOrder::None,
        Ok(Order::Ascend) => SortOrder::Ascend,
        Ok(Order::Descend) => SortOrder::Descend,
        Err(_) => return Err(status::INVALID_SORT.into()),
    };
    let sort_target = match Target::try_from(request.sort_target) {
        Ok(Target::Key) => SortTarget::Key,
        Ok(Target::Version) => SortTarget::Version,
        Ok(Target::Create) => SortTarget::CreateRevision,
        Ok(Target::Mod) => SortTarget::ModRevision,
        Ok(Target::Value) => SortTarget::Value,
        Err(_) => return Err(status::INVALID_SORT.into()),
    };
    Ok(RangeRequest {
        range: key_range(request.key, request.range_end),
        revision: unsigned(request.revision),
        limit: usize::try_from(request.limit).unwrap_or(0),
        keys_only: request.keys_only,
        count_only: request.count_only,
        sort_order,
        sort_target,
        min_mod_revision: unsigned(request.min_mod_revision),
        max_mod_revision: unsigned(request.max_mod_revision),
        min_create_revision: unsigned(request.min_create_revision),
        max_create_revision: unsigned(request.max_create_revision),
        serializable: request.serializable,
    })
}

pub(crate) fn put(request: pb::PutRequest) -> Result<PutRequest, Status> {
    given(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(status::VALUE_PROVIDED.into());
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(status::LEASE_PROVIDED.into());
    }
    Ok(PutRequest {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    })
}

pub(crate) fn delete(request: pb::DeleteRangeRequest) -> Result<DeleteRequest, Status> {
    given(&request.key)?;
    Ok(DeleteRequest { range: key_range(request.key, request.range_end), prev_kv: request.prev_kv })
}

/// A txn of at most `max_ops` guards and operations, those of the txns inside counted with the longest list around them.
pub(crate) fn txn(request: pb::TxnRequest, max_ops: usize) -> Result<Txn, Status> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = max_ops.checked_sub(most).ok_or(status::TOO_MANY_OPS)?;
    let ops = |ops: Vec<pb::RequestOp>| ops.into_iter().map(|request| op(request, left)).collect::<Result<_, _>>();
    Ok(Txn {
        compare: request
            .compare
            .into_iter()
            .filter_map(|compare| guard(compare).transpose())
            .collect::<Result<_, _>>()?,
        success: ops(request.success)?,
        failure: ops(request.failure)?,
    })
}

fn op(request: pb::RequestOp, max_ops: usize) -> Result<Op, Status> {
    Ok(match request.request {
        Some(request_op::Request::RequestRange(request)) => Op::Range(range(request)?),
        Some(request_op::Request::RequestPut(request)) => Op::Put(put(request)?),
        Some(request_op::Request::RequestDeleteRange(request)) => Op::Delete(delete(request)?),
        Some(request_op::Request::RequestTxn(request)) => Op::Txn(txn(request, max_ops)?),
        None => return Err(status::KEY_NOT_FOUND.into()),
    })
}

/// A guard, `None` for one that holds whatever is there.
fn guard(compare: pb::Compare) -> Result<Option<Compare>, Status> {
    use compare::{CompareResult, CompareTarget as Target, TargetUnion as Wanted};
    given(&compare.key)?;
    // etcd lets what it does not know hold.
    let Ok(relation) = CompareResult::try_from(compare.result) else { return Ok(None) };
    let op = match relation {
        CompareResult::Equal => CompareOp::Equal,
        CompareResult::Greater => CompareOp::Greater,
        CompareResult::Less => CompareOp::Less,
        CompareResult::NotEqual => CompareOp::NotEqual,
    };
    let range = key_range(compare.key, compare.range_end);
    // Where all that may be found relates to the wanted in one way: nothing has a version less than 0.
    let fixed = |holds: bool| {
        let never = Compare { range: range.clone(), op: CompareOp::Less, target: CompareTarget::Version(0) };
        Ok((!holds).then_some(never))
    };
    // A wanted of another kind than the target counts as zero, or as no value.
    let number = match (Target::try_from(compare.target), &compare.target_union) {
        (Ok(Target::Version), Some(Wanted::Version(wanted)))
        | (Ok(Target::Create), Some(Wanted::CreateRevision(wanted)))
        | (Ok(Target::Mod), Some(Wanted::ModRevision(wanted))) => *wanted,
        _ => 0,
    };
    let Ok(wanted) = u64::try_from(number) else {
        return fixed(matches!(op, CompareOp::Greater | CompareOp::NotEqual));
    };
    let target = match (Target::try_from(compare.target), compare.target_union) {
        (Ok(Target::Version), _) => CompareTarget::Version(wanted),
        (Ok(Target::Create), _) => CompareTarget::CreateRevision(wanted),
        (Ok(Target::Mod), _) => CompareTarget::ModRevision(wanted),
        (Ok(Target::Value), Some(Wanted::Value(wanted))) => CompareTarget::Value(wanted),
        (Ok(Target::Value), _) => CompareTarget::Value(Bytes::new()),
        (Ok(Target::Lease), Some(Wanted::Lease(wanted))) => CompareTarget::Lease(wanted),
        (Ok(Target::Lease), _) => CompareTarget::Lease(0),
        // A target that etcd does not know equals whatever is wanted.
        (Err(_), _) => return fixed(op == CompareOp::Equal),
    };
    Ok(Some(Compare { range, op, target }))
}

pub(crate) fn kv(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: signed(kv.create_revision),
        mod_revision: signed(kv.mod_revision),
        version: signed(kv.version),
        lease: kv.lease,
    }
}

pub(crate) fn event(event: &Event) -> mvccpb::Event {
    let r#type = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event { r#type: r#type.into(), kv: Some(kv(event.kv.clone())), prev_kv: event.prev_kv.clone().map(kv) }
}

pub(crate) fn range_answer(
    answer: RangeResponse,
    header: &dyn Fn(Revision) -> pb::ResponseHeader,
) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header(answer.revision)),
        kvs: answer.kvs.into_iter().map(kv).collect(),
        more: answer.more,
        count: signed(answer.count),
    }
}

/// Answers inside a txn have a header with a revision and nothing else, as etcd's have.
pub(crate) fn txn_answer(answer: TxnResponse, header: &dyn Fn(Revision) -> pb::ResponseHeader) -> pb::TxnResponse {
    use response_op::Response;
    let inner = |revision| pb::ResponseHeader { revision: signed(revision), ..pb::ResponseHeader::default() };
    let revision = answer.revision;
    let response = |response| match response {
        OpResponse::Range(answer) => Response::ResponseRange(range_answer(answer, &inner)),
        OpResponse::Put { prev_kv } => {
            Response::ResponsePut(pb::PutResponse { header: Some(inner(revision)), prev_kv: prev_kv.map(kv) })
        }
        OpResponse::Delete { deleted, prev_kvs } => Response::ResponseDeleteRange(pb::DeleteRangeResponse {
            header: Some(inner(revision)),
            deleted: signed(deleted),
            prev_kvs: prev_kvs.into_iter().map(kv).collect(),
        }),
        OpResponse::Txn(answer) => Response::ResponseTxn(txn_answer(answer, &inner)),
    };
    let responses = answer.responses.into_iter();
    pb::TxnResponse {
        header: Some(header(revision)),
        succeeded: answer.succeeded,
        responses: responses.map(|r| pb::ResponseOp { response: Some(response(r)) }).collect(),
    }
}
