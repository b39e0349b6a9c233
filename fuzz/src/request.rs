//! Requests of clients of the etcd v3 API: damaged, with right and wrong frames, to a server over a store in memory.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use prost::Message;
use rk_store::{
    KeyRange, Member, MemoryStore, Op, PutRequest, Store, Txn,
    etcd::{
        EtcdServer, ServerOptions, Standalone,
        proto::{
            etcdserverpb::{self as pb, compare::TargetUnion, request_op::Request as Wanted},
            v3electionpb as election, v3lockpb as lock,
        },
    },
};

use crate::{
    mutate::{Random, mutate},
    protobuf::mutate_message,
};

/// Whole requests, each of one message or more, with their methods.
pub type Requests = Vec<(&'static str, Vec<Vec<u8>>)>;

/// How long an answer is waited for, by a clock that needs no time. Locks and watches may wait for ever.
const PATIENCE: Duration = Duration::from_secs(2);

fn range() -> pb::RangeRequest {
    pb::RangeRequest {
        key: "key".into(),
        range_end: "kez".into(),
        limit: 3,
        revision: 4,
        sort_order: 1,
        sort_target: 3,
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 1,
        max_mod_revision: 9,
        min_create_revision: 1,
        max_create_revision: 9,
    }
}

fn put() -> pb::PutRequest {
    pb::PutRequest { key: "key-1".into(), value: "value".into(), lease: 7, prev_kv: true, ..Default::default() }
}

fn delete() -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: "key-2".into(), range_end: "key-4".into(), prev_kv: true }
}

fn txn() -> pb::TxnRequest {
    let op = |wanted| pb::RequestOp { request: Some(wanted) };
    let compare = |target, union| pb::Compare {
        key: "key-1".into(),
        range_end: "key-5".into(),
        result: 1,
        target,
        target_union: Some(union),
    };
    let compare = vec![
        compare(0, TargetUnion::Version(1)),
        compare(1, TargetUnion::CreateRevision(2)),
        compare(2, TargetUnion::ModRevision(3)),
        compare(3, TargetUnion::Value("value".into())),
        compare(4, TargetUnion::Lease(7)),
    ];
    let ops = vec![
        op(Wanted::RequestRange(range())),
        op(Wanted::RequestPut(put())),
        op(Wanted::RequestDeleteRange(pb::DeleteRangeRequest { key: "key-9".into(), ..Default::default() })),
    ];
    let inner = pb::TxnRequest { compare: compare.clone(), success: ops.clone(), failure: Vec::new() };
    pb::TxnRequest { compare, failure: vec![op(Wanted::RequestTxn(inner))], success: ops }
}

fn watches() -> Vec<Vec<u8>> {
    use pb::watch_request::RequestUnion::{CancelRequest, CreateRequest, ProgressRequest};
    let create = pb::WatchCreateRequest {
        key: "key".into(),
        range_end: [0][..].into(),
        start_revision: 2,
        progress_notify: true,
        filters: vec![1],
        prev_kv: true,
        watch_id: 5,
        fragment: true,
    };
    let unions = [
        CreateRequest(create),
        ProgressRequest(pb::WatchProgressRequest {}),
        CancelRequest(pb::WatchCancelRequest { watch_id: 5 }),
    ];
    unions.map(|union| pb::WatchRequest { request_union: Some(union) }.encode_to_vec()).into()
}

pub fn requests() -> Requests {
    let leader = || election::LeaderKey { name: "vote".into(), key: "vote/7".into(), rev: 9, lease: 7 };
    let urls = || vec!["http://127.0.0.1:1".to_owned()];
    let one: Vec<(&'static str, Vec<u8>)> = vec![
        ("/etcdserverpb.KV/Range", range().encode_to_vec()),
        ("/etcdserverpb.KV/Put", put().encode_to_vec()),
        ("/etcdserverpb.KV/DeleteRange", delete().encode_to_vec()),
        ("/etcdserverpb.KV/Txn", txn().encode_to_vec()),
        ("/etcdserverpb.KV/Txn", txn().encode_to_vec()),
        ("/etcdserverpb.KV/Compact", pb::CompactionRequest { revision: 5, physical: true }.encode_to_vec()),
        ("/etcdserverpb.Lease/LeaseGrant", pb::LeaseGrantRequest { ttl: 9, id: 8 }.encode_to_vec()),
        ("/etcdserverpb.Lease/LeaseRevoke", pb::LeaseRevokeRequest { id: 7 }.encode_to_vec()),
        ("/etcdserverpb.Lease/LeaseTimeToLive", pb::LeaseTimeToLiveRequest { id: 7, keys: true }.encode_to_vec()),
        ("/etcdserverpb.Lease/LeaseLeases", Vec::new()),
        ("/etcdserverpb.Lease/LeaseKeepAlive", pb::LeaseKeepAliveRequest { id: 7 }.encode_to_vec()),
        (
            "/etcdserverpb.Cluster/MemberAdd",
            pb::MemberAddRequest { peer_urls: urls(), is_learner: true }.encode_to_vec(),
        ),
        ("/etcdserverpb.Cluster/MemberRemove", pb::MemberRemoveRequest { id: 1 }.encode_to_vec()),
        ("/etcdserverpb.Cluster/MemberUpdate", pb::MemberUpdateRequest { id: 1, peer_urls: urls() }.encode_to_vec()),
        ("/etcdserverpb.Cluster/MemberPromote", pb::MemberPromoteRequest { id: 1 }.encode_to_vec()),
        ("/etcdserverpb.Cluster/MemberList", pb::MemberListRequest { linearizable: true }.encode_to_vec()),
        ("/etcdserverpb.Maintenance/Alarm", pb::AlarmRequest { action: 1, member_id: 1, alarm: 1 }.encode_to_vec()),
        ("/etcdserverpb.Maintenance/Status", Vec::new()),
        ("/etcdserverpb.Maintenance/Defragment", Vec::new()),
        ("/etcdserverpb.Maintenance/Hash", Vec::new()),
        ("/etcdserverpb.Maintenance/HashKV", pb::HashKvRequest { revision: 4 }.encode_to_vec()),
        ("/etcdserverpb.Maintenance/MoveLeader", pb::MoveLeaderRequest { target_id: 1 }.encode_to_vec()),
        (
            "/etcdserverpb.Maintenance/Downgrade",
            pb::DowngradeRequest { action: 1, version: "3.5".into() }.encode_to_vec(),
        ),
        ("/etcdserverpb.Auth/UserAdd", b"\n\x04name\x12\x08password".to_vec()),
        ("/etcdserverpb.Auth/RoleGrantPermission", b"\n\x04name\x12\x07\x08\x01\x12\x03key".to_vec()),
        ("/v3lockpb.Lock/Lock", lock::LockRequest { name: "lock".into(), lease: 7 }.encode_to_vec()),
        ("/v3lockpb.Lock/Unlock", lock::UnlockRequest { key: "lock/7".into() }.encode_to_vec()),
        (
            "/v3electionpb.Election/Campaign",
            election::CampaignRequest { name: "vote".into(), lease: 7, value: "me".into() }.encode_to_vec(),
        ),
        (
            "/v3electionpb.Election/Proclaim",
            election::ProclaimRequest { leader: Some(leader()), value: "me".into() }.encode_to_vec(),
        ),
        ("/v3electionpb.Election/Leader", election::LeaderRequest { name: "vote".into() }.encode_to_vec()),
        ("/v3electionpb.Election/Observe", election::LeaderRequest { name: "vote".into() }.encode_to_vec()),
        ("/v3electionpb.Election/Resign", election::ResignRequest { leader: Some(leader()) }.encode_to_vec()),
    ];
    let one = one.into_iter().map(|(method, message)| (method, vec![message]));
    one.chain([("/etcdserverpb.Watch/Watch", watches())]).collect()
}

/// Sends a few requests; whether one of them was more than refused.
pub async fn request(requests: &Requests, random: &mut Random) -> bool {
    let store = Arc::new(MemoryStore::new());
    store.lease_grant(7, 100).await.expect("a lease is granted");
    for i in 0..8 {
        let put = PutRequest { lease: (i % 3) * 7 % 14, ..PutRequest::new(format!("key-{i}"), "value") };
        store.txn(Txn { success: vec![Op::Put(put)], ..Txn::default() }).await.expect("a put is done");
    }
    store.delete(KeyRange::key("key-3")).await.expect("a delete is done");
    let cluster = Arc::new(Standalone::new(1, Member { id: 1, ..Member::default() }, store.clone()));
    let server = EtcdServer::new(store, cluster, ServerOptions::default());
    let mut answered = false;
    for _ in 0..1 + random.below(6) {
        let (method, messages) = &requests[random.below(requests.len())];
        let mut body = Vec::new();
        for message in messages {
            let mut message = message.clone();
            if random.below(8) > 0 {
                mutate_message(&mut message, random);
            }
            body.push(0);
            body.extend((message.len() as u32).to_be_bytes());
            body.extend(message);
        }
        if random.below(16) == 0 {
            mutate(&mut body, 0, random);
        }
        let request = Request::post(*method).header(header::CONTENT_TYPE, "application/grpc");
        let request = request.body(Full::new(Bytes::from(body))).expect("the method is a path");
        let answer = async {
            let answer = server.handle(request).await;
            let refused = answer.headers().contains_key("grpc-status");
            answered |= !refused;
            answer.into_body().collect().await
        };
        // A watch goes on, and a lock waits.
        let _answer = tokio::time::timeout(PATIENCE, answer).await;
    }
    answered
}
