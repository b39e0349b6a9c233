//! Wrong requests, each to the real etcd and to this crate's server: the same codes and texts.

mod peer;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture};
use rk_store::{MemoryStore, etcd::proto::etcdserverpb as pb};
use tonic::{Status, transport::Channel};

use pb::{
    auth_client::AuthClient, cluster_client::ClusterClient, compare, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient, request_op::Request, watch_client::WatchClient,
};

type Run = Box<dyn Fn(Channel) -> BoxFuture<'static, Result<String, Status>>>;
type Case = (&'static str, Run);

/// A unary request; where it succeeds, `$tell` says what of the answer must be the same.
macro_rules! case {
    ($what:expr, $client:ident, $method:ident, $request:expr) => {
        case!($what, $client, $method, $request, |_| String::new())
    };
    ($what:expr, $client:ident, $method:ident, $request:expr, $tell:expr) => {{
        let request = $request;
        let run = move |channel: Channel| -> BoxFuture<'static, Result<String, Status>> {
            let request = request.clone();
            Box::pin(async move {
                let mut client = $client::new(channel).max_encoding_message_size(usize::MAX);
                Ok(tell(client.$method(request).await?.into_inner(), $tell))
            })
        };
        ($what, Box::new(run) as Run)
    }};
}

fn tell<A>(answer: A, tell: impl FnOnce(A) -> String) -> String {
    tell(answer)
}

fn key(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "x".into(), ..Default::default() }
}

fn delete(key: &'static str, range_end: &'static str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn puts(keys: &[&'static str]) -> Vec<pb::RequestOp> {
    keys.iter().map(|key| op(Request::RequestPut(put(key)))).collect()
}

fn then(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, ..Default::default() }
}

fn inner(success: Vec<pb::RequestOp>) -> pb::RequestOp {
    op(Request::RequestTxn(then(success)))
}

fn guard(key: &'static str) -> pb::Compare {
    pb::Compare { key: key.into(), target_union: Some(compare::TargetUnion::Version(1)), ..Default::default() }
}

fn found(answer: pb::RangeResponse) -> String {
    let keys: Vec<_> = answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
    format!("{keys:?} of {}, more {}", answer.count, answer.more)
}

fn said(answer: pb::TxnResponse) -> String {
    format!("{} with {}", answer.succeeded, answer.responses.len())
}

fn ranges() -> Vec<Case> {
    let all = || pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    vec![
        case!("range: no key", KvClient, range, pb::RangeRequest::default()),
        case!("range: only an end", KvClient, range, pb::RangeRequest { range_end: "z".into(), ..Default::default() }),
        case!("range: compacted", KvClient, range, pb::RangeRequest { revision: 2, ..key("a") }),
        case!("range: at the compact revision", KvClient, range, pb::RangeRequest { revision: 4, ..key("a") }, found),
        case!("range: future", KvClient, range, pb::RangeRequest { revision: 99, ..key("a") }),
        case!("range: negative revision", KvClient, range, pb::RangeRequest { revision: -5, ..key("a") }, found),
        case!("range: negative limit", KvClient, range, pb::RangeRequest { limit: -1, ..all() }, found),
        case!(
            "range: end before the key",
            KvClient,
            range,
            pb::RangeRequest { key: "b".into(), range_end: "a".into(), ..Default::default() },
            found
        ),
        case!(
            "range: end is the key",
            KvClient,
            range,
            pb::RangeRequest { key: "b".into(), range_end: "b".into(), ..Default::default() },
            found
        ),
        case!("range: only the newest", KvClient, range, pb::RangeRequest { min_mod_revision: 5, ..all() }, found),
        case!(
            "range: limit and filter",
            KvClient,
            range,
            pb::RangeRequest { limit: 1, max_create_revision: 4, ..all() },
            found
        ),
        case!(
            "range: count with limit",
            KvClient,
            range,
            pb::RangeRequest { limit: 1, count_only: true, ..all() },
            found
        ),
        case!("range: descending without target", KvClient, range, pb::RangeRequest { sort_order: 2, ..all() }, found),
        case!(
            "range: target without order",
            KvClient,
            range,
            pb::RangeRequest { sort_target: 3, limit: 2, ..all() },
            found
        ),
    ]
}

fn writes() -> Vec<Case> {
    vec![
        case!("put: no key", KvClient, put, pb::PutRequest::default()),
        case!("put: unknown lease", KvClient, put, pb::PutRequest { lease: 99, ..put("a") }),
        case!("put: negative lease", KvClient, put, pb::PutRequest { lease: -1, ..put("a") }),
        case!("put: value to keep", KvClient, put, pb::PutRequest { ignore_value: true, ..put("a") }),
        case!("put: lease to keep", KvClient, put, pb::PutRequest { ignore_lease: true, lease: 7, ..put("a") }),
        case!(
            "put: keep the value of nothing",
            KvClient,
            put,
            pb::PutRequest { ignore_value: true, value: Bytes::new(), ..put("nothing") }
        ),
        case!("put: keep the lease of nothing", KvClient, put, pb::PutRequest { ignore_lease: true, ..put("nothing") }),
        case!(
            "put: keep both",
            KvClient,
            put,
            pb::PutRequest { ignore_lease: true, ignore_value: true, value: Bytes::new(), ..put("a") }
        ),
        case!("put: too large", KvClient, put, pb::PutRequest { value: vec![0; 1600 << 10].into(), ..put("a") }),
        case!("put: far too large", KvClient, put, pb::PutRequest { value: vec![0; 3 << 20].into(), ..put("a") }),
        case!(
            "put: as large as may be",
            KvClient,
            put,
            pb::PutRequest { value: vec![0; 1500 << 10].into(), ..put("big") }
        ),
        case!("delete: no key", KvClient, delete_range, pb::DeleteRangeRequest::default()),
        case!("delete: only an end", KvClient, delete_range, delete("", "z")),
        case!("delete: nothing", KvClient, delete_range, delete("nothing", ""), |a| a.deleted.to_string()),
        case!("delete: end before the key", KvClient, delete_range, delete("z", "a"), |a| a.deleted.to_string()),
        case!("compact: compacted", KvClient, compact, pb::CompactionRequest { revision: 4, physical: false }),
        case!("compact: long compacted", KvClient, compact, pb::CompactionRequest { revision: 2, physical: true }),
        case!("compact: zero", KvClient, compact, pb::CompactionRequest { revision: 0, physical: false }),
        case!("compact: negative", KvClient, compact, pb::CompactionRequest { revision: -1, physical: false }),
        case!("compact: future", KvClient, compact, pb::CompactionRequest { revision: 999, physical: false }),
    ]
}

fn txns() -> Vec<Case> {
    let many = |count: usize| (0..count).map(|_| op(Request::RequestRange(key("a")))).collect::<Vec<_>>();
    let guards = |count: usize| (0..count).map(|_| guard("a")).collect::<Vec<_>>();
    let read_at = |revision| op(Request::RequestRange(pb::RangeRequest { revision, ..key("a") }));
    let del = |key, end| op(Request::RequestDeleteRange(delete(key, end)));
    let with_lease = |lease| op(Request::RequestPut(pb::PutRequest { lease, ..put("q") }));
    let of = |target: i32, union: Option<compare::TargetUnion>| pb::TxnRequest {
        compare: vec![pb::Compare { target, target_union: union, ..guard("a") }],
        ..Default::default()
    };
    vec![
        case!("txn: empty", KvClient, txn, pb::TxnRequest::default(), said),
        case!("txn: empty operation", KvClient, txn, then(vec![pb::RequestOp { request: None }])),
        case!(
            "txn: empty operation in the other branch",
            KvClient,
            txn,
            pb::TxnRequest { failure: vec![pb::RequestOp { request: None }], ..Default::default() }
        ),
        case!(
            "txn: guard without key",
            KvClient,
            txn,
            pb::TxnRequest { compare: vec![guard("")], ..Default::default() }
        ),
        case!("txn: put without key", KvClient, txn, then(puts(&[""]))),
        case!("txn: range without key", KvClient, txn, then(vec![op(Request::RequestRange(key("")))])),
        case!("txn: delete without key", KvClient, txn, then(vec![del("", "")])),
        case!("txn: a key twice", KvClient, txn, then(puts(&["t", "t"]))),
        case!(
            "txn: a key twice in the other branch",
            KvClient,
            txn,
            pb::TxnRequest { failure: puts(&["t", "t"]), ..Default::default() }
        ),
        case!(
            "txn: a key in both branches",
            KvClient,
            txn,
            pb::TxnRequest { success: puts(&["t"]), failure: puts(&["t"]), ..Default::default() },
            said
        ),
        case!("txn: put and delete", KvClient, txn, then([puts(&["t"]), vec![del("t", "")]].concat())),
        case!("txn: delete, then put", KvClient, txn, then([vec![del("s", "u")], puts(&["t"])].concat())),
        case!("txn: deletes that overlap", KvClient, txn, then(vec![del("s", "u"), del("t", "v")]), said),
        case!("txn: a key twice, once deeper", KvClient, txn, then([puts(&["t"]), vec![inner(puts(&["t"]))]].concat())),
        case!("txn: a key in two inner txns", KvClient, txn, then(vec![inner(puts(&["t"])), inner(puts(&["t"]))])),
        case!(
            "txn: a key in both branches of an inner txn",
            KvClient,
            txn,
            then(vec![op(Request::RequestTxn(pb::TxnRequest {
                success: puts(&["t"]),
                failure: puts(&["t"]),
                ..Default::default()
            }))]),
            said
        ),
        case!(
            "txn: inner delete of a key put",
            KvClient,
            txn,
            then([puts(&["t"]), vec![inner(vec![del("a", "z")])]].concat())
        ),
        case!("txn: inner put without key", KvClient, txn, then(vec![inner(puts(&[""]))])),
        case!("txn: inner empty operation", KvClient, txn, then(vec![inner(vec![pb::RequestOp { request: None }])])),
        case!("txn: 129 operations", KvClient, txn, then(many(129))),
        case!("txn: 128 operations", KvClient, txn, then(many(128)), said),
        case!("txn: 129 guards", KvClient, txn, pb::TxnRequest { compare: guards(129), ..Default::default() }),
        case!(
            "txn: 129 in the other branch",
            KvClient,
            txn,
            pb::TxnRequest { failure: many(129), ..Default::default() }
        ),
        case!("txn: 128 inside another", KvClient, txn, then(vec![inner(many(128))])),
        case!("txn: 127 inside another", KvClient, txn, then(vec![inner(many(127))]), said),
        case!("txn: read of the compacted", KvClient, txn, then(vec![read_at(2)])),
        case!("txn: read of the future", KvClient, txn, then(vec![read_at(99)])),
        case!("txn: write and read of the future", KvClient, txn, then([puts(&["t"]), vec![read_at(999)]].concat())),
        case!("txn: unknown lease", KvClient, txn, then(vec![with_lease(99)])),
        case!(
            "txn: unknown lease in the branch not taken",
            KvClient,
            txn,
            pb::TxnRequest { failure: vec![with_lease(99)], ..Default::default() },
            said
        ),
        case!(
            "txn: keep the value of nothing",
            KvClient,
            txn,
            then(vec![op(Request::RequestPut(pb::PutRequest {
                ignore_value: true,
                value: Bytes::new(),
                ..put("nothing")
            }))])
        ),
        case!(
            "txn: value to keep",
            KvClient,
            txn,
            then(vec![op(Request::RequestPut(pb::PutRequest { ignore_value: true, ..put("a") }))])
        ),
        case!(
            "txn: too large",
            KvClient,
            txn,
            then(vec![op(Request::RequestPut(pb::PutRequest { value: vec![0; 1600 << 10].into(), ..put("a") }))])
        ),
        case!("guard: wanted of another kind", KvClient, txn, of(2, Some(compare::TargetUnion::Version(5))), said),
        case!("guard: nothing wanted, version", KvClient, txn, of(0, None), said),
        case!("guard: nothing wanted, value", KvClient, txn, of(3, None), said),
        case!("guard: nothing wanted, lease", KvClient, txn, of(4, None), said),
        case!("guard: unknown target", KvClient, txn, of(9, Some(compare::TargetUnion::Version(5))), said),
        case!(
            "guard: more than a negative version, on an absent key",
            KvClient,
            txn,
            pb::TxnRequest {
                compare: vec![pb::Compare {
                    result: 1,
                    target_union: Some(compare::TargetUnion::Version(-1)),
                    ..guard("nothing")
                }],
                ..Default::default()
            },
            said
        ),
        case!(
            "guard: unknown relation",
            KvClient,
            txn,
            pb::TxnRequest { compare: vec![pb::Compare { result: 9, ..guard("a") }], ..Default::default() },
            said
        ),
        case!("guard: negative version", KvClient, txn, of(0, Some(compare::TargetUnion::Version(-1))), said),
        case!(
            "guard: less than a negative version",
            KvClient,
            txn,
            pb::TxnRequest {
                compare: vec![pb::Compare {
                    result: 1,
                    target_union: Some(compare::TargetUnion::Version(-1)),
                    ..guard("a")
                }],
                ..Default::default()
            },
            said
        ),
    ]
}

fn leases() -> Vec<Case> {
    let grant = |id, ttl| pb::LeaseGrantRequest { id, ttl };
    vec![
        case!("lease: known id", LeaseClient, lease_grant, grant(7, 100)),
        case!("lease: too long", LeaseClient, lease_grant, grant(8, 9_000_000_001)),
        case!("lease: as long as may be", LeaseClient, lease_grant, grant(9, 9_000_000_000), |a| a.ttl.to_string()),
        case!("lease: no time", LeaseClient, lease_grant, grant(10, 0), |a| a.ttl.to_string()),
        case!("lease: negative time", LeaseClient, lease_grant, grant(11, -3), |a| a.ttl.to_string()),
        case!("lease: negative id", LeaseClient, lease_grant, grant(-4, 100), |a| a.id.to_string()),
        case!("lease: revoke the unknown", LeaseClient, lease_revoke, pb::LeaseRevokeRequest { id: 99 }),
        case!("lease: revoke none", LeaseClient, lease_revoke, pb::LeaseRevokeRequest { id: 0 }),
        case!(
            "lease: time of the unknown",
            LeaseClient,
            lease_time_to_live,
            pb::LeaseTimeToLiveRequest { id: 99, keys: true },
            |a| format!("{} {}", a.ttl, a.granted_ttl)
        ),
        case!(
            "lease: time of none",
            LeaseClient,
            lease_time_to_live,
            pb::LeaseTimeToLiveRequest { id: 0, keys: false },
            |a| format!("{} {}", a.ttl, a.granted_ttl)
        ),
    ]
}

fn members() -> Vec<Case> {
    let urls = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
    let add = |list: &[&str]| pb::MemberAddRequest { peer_urls: urls(list), is_learner: false };
    let (none, no_scheme, no_port) = (add(&[]), add(&["localhost:1"]), add(&["http://localhost"]));
    let (path, ftp) = (add(&["http://localhost:1/path"]), add(&["ftp://localhost:1"]));
    let update = |id, list: &[&str]| pb::MemberUpdateRequest { id, peer_urls: urls(list) };
    let (unknown, bad) = (update(99, &["http://localhost:1"]), update(99, &["x"]));
    vec![
        case!("member: add without URLs", ClusterClient, member_add, none),
        case!("member: URL without scheme", ClusterClient, member_add, no_scheme),
        case!("member: URL without port", ClusterClient, member_add, no_port),
        case!("member: URL with a path", ClusterClient, member_add, path),
        case!("member: URL of another scheme", ClusterClient, member_add, ftp),
        case!("member: remove the unknown", ClusterClient, member_remove, pb::MemberRemoveRequest { id: 99 }),
        case!("member: promote the unknown", ClusterClient, member_promote, pb::MemberPromoteRequest { id: 99 }),
        case!("member: update the unknown", ClusterClient, member_update, unknown),
        case!("member: update to a bad URL", ClusterClient, member_update, bad),
    ]
}

fn maintenance() -> Vec<Case> {
    let alarm = |action, alarm| pb::AlarmRequest { action, member_id: 0, alarm };
    vec![
        case!("hash: future", MaintenanceClient, hash_kv, pb::HashKvRequest { revision: 999 }),
        case!("hash: compacted", MaintenanceClient, hash_kv, pb::HashKvRequest { revision: 2 }),
        case!("move leader: to the unknown", MaintenanceClient, move_leader, pb::MoveLeaderRequest { target_id: 99 }),
        case!("move leader: to none", MaintenanceClient, move_leader, pb::MoveLeaderRequest { target_id: 0 }),
        case!("alarm: list", MaintenanceClient, alarm, alarm(0, 0), |a| a.alarms.len().to_string()),
        case!("alarm: end what is not there", MaintenanceClient, alarm, alarm(2, 1), |a| a.alarms.len().to_string()),
        case!(
            "auth: log in",
            AuthClient,
            authenticate,
            pb::AuthenticateRequest { name: "a".into(), password: "b".into() }
        ),
        case!("auth: enable", AuthClient, auth_enable, pb::AuthEnableRequest {}),
        case!("auth: disable", AuthClient, auth_disable, pb::AuthDisableRequest {}),
        case!("auth: add nobody", AuthClient, user_add, pb::AuthUserAddRequest::default()),
        case!("auth: look at nobody", AuthClient, user_get, pb::AuthUserGetRequest { name: "x".into() }),
        case!("auth: users", AuthClient, user_list, pb::AuthUserListRequest {}, |a| a.users.len().to_string()),
        case!("auth: delete nobody", AuthClient, user_delete, pb::AuthUserDeleteRequest { name: "x".into() }),
        case!(
            "auth: password of nobody",
            AuthClient,
            user_change_password,
            pb::AuthUserChangePasswordRequest { name: "x".into(), password: "y".into(), ..Default::default() }
        ),
        case!(
            "auth: role of nobody",
            AuthClient,
            user_grant_role,
            pb::AuthUserGrantRoleRequest { user: "x".into(), role: "y".into() }
        ),
        case!(
            "auth: take a role from nobody",
            AuthClient,
            user_revoke_role,
            pb::AuthUserRevokeRoleRequest { name: "x".into(), role: "y".into() }
        ),
        case!("auth: add no role", AuthClient, role_add, pb::AuthRoleAddRequest::default()),
        case!("auth: look at no role", AuthClient, role_get, pb::AuthRoleGetRequest { role: "x".into() }),
        case!("auth: roles", AuthClient, role_list, pb::AuthRoleListRequest {}, |a| a.roles.len().to_string()),
        case!("auth: delete no role", AuthClient, role_delete, pb::AuthRoleDeleteRequest { role: "x".into() }),
        case!(
            "auth: grant to no role",
            AuthClient,
            role_grant_permission,
            pb::AuthRoleGrantPermissionRequest { name: "x".into(), perm: Some(Default::default()) }
        ),
        case!(
            "auth: revoke from no role",
            AuthClient,
            role_revoke_permission,
            pb::AuthRoleRevokePermissionRequest { role: "x".into(), ..Default::default() }
        ),
    ]
}

/// Keys of more bytes than a request that changes something may have, and of more than any message may have.
fn long_keys() -> Vec<Case> {
    let long = |kib: usize| Bytes::from(vec![b'k'; kib << 10]);
    let (over, far_over) = (long(1600), long(3072));
    let read = |key: &Bytes| pb::RangeRequest { key: key.clone(), ..Default::default() };
    let write = |key: &Bytes| pb::PutRequest { key: key.clone(), ..put("") };
    let erase = |key: &Bytes| pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
    let guarded = |key: &Bytes, success| pb::TxnRequest {
        compare: vec![pb::Compare { key: key.clone(), ..guard("") }],
        ..then(success)
    };
    let get = |key: &Bytes| op(Request::RequestRange(read(key)));
    let del = |key: &Bytes| op(Request::RequestDeleteRange(erase(key)));
    let ends = pb::DeleteRangeRequest { range_end: over.clone(), ..delete("a", "") };
    vec![
        case!("long key: put", KvClient, put, write(&over)),
        case!("long key: put, longer", KvClient, put, write(&far_over)),
        case!("long key: put, as long as may be", KvClient, put, write(&long(1500))),
        case!("long key: range", KvClient, range, read(&over), found),
        case!("long key: range, longer", KvClient, range, read(&far_over), found),
        case!(
            "long key: range to an end",
            KvClient,
            range,
            pb::RangeRequest { range_end: over.clone(), ..key("k") },
            |a| { a.count.to_string() }
        ),
        case!("long key: delete", KvClient, delete_range, erase(&over)),
        case!("long key: delete, longer", KvClient, delete_range, erase(&far_over)),
        case!("long key: delete to an end", KvClient, delete_range, ends),
        case!("long key: delete, as long as may be", KvClient, delete_range, erase(&long(1500)), |a| a
            .deleted
            .to_string()),
        case!("long key: guard alone", KvClient, txn, guarded(&over, vec![]), said),
        case!("long key: guard alone, longer", KvClient, txn, guarded(&far_over, vec![]), said),
        case!("long key: guard of a read", KvClient, txn, guarded(&over, vec![get(&"a".into())]), said),
        case!("long key: guard of a put", KvClient, txn, guarded(&over, puts(&["t"]))),
        case!("long key: guard of a delete", KvClient, txn, guarded(&over, vec![del(&"nothing".into())])),
        case!("long key: read in a txn", KvClient, txn, then(vec![get(&over)]), said),
        case!("long key: read beside a put", KvClient, txn, then([puts(&["t"]), vec![get(&over)]].concat())),
        case!("long key: read in an inner txn", KvClient, txn, then(vec![inner(vec![get(&over)])])),
        case!("long key: put in a txn", KvClient, txn, then(vec![op(Request::RequestPut(write(&over)))])),
        case!("long key: delete in a txn", KvClient, txn, then(vec![del(&over)])),
        case!("long key: delete in a txn, longer", KvClient, txn, then(vec![del(&far_over)])),
        case!(
            "long key: delete in the branch not taken",
            KvClient,
            txn,
            pb::TxnRequest { failure: vec![del(&over)], ..Default::default() }
        ),
        case!("too large: no key", KvClient, put, pb::PutRequest { value: over.clone(), ..Default::default() }),
        case!(
            "too large: value to keep",
            KvClient,
            put,
            pb::PutRequest { ignore_value: true, value: over, ..put("a") }
        ),
    ]
}

/// What a stream of watch requests is answered, in words; as many answers as asked for.
fn watch(what: &'static str, requests: Vec<pb::watch_request::RequestUnion>, answers: usize) -> Case {
    let run = move |channel: Channel| -> BoxFuture<'static, Result<String, Status>> {
        let requests: Vec<_> =
            requests.iter().map(|union| pb::WatchRequest { request_union: Some(union.clone()) }).collect();
        Box::pin(async move {
            let requests = futures::stream::iter(requests).chain(futures::stream::pending());
            let mut stream =
                WatchClient::new(channel).max_encoding_message_size(usize::MAX).watch(requests).await?.into_inner();
            let mut told = String::new();
            for _ in 0..answers {
                let answer = stream.message().await?.expect("the stream goes on");
                told += &format!(
                    "id {} created {} canceled {} compacted {} reason {:?} events {}\n",
                    answer.watch_id,
                    answer.created,
                    answer.canceled,
                    answer.compact_revision,
                    answer.cancel_reason,
                    answer.events.len()
                );
            }
            Ok(told)
        })
    };
    (what, Box::new(run))
}

fn watches() -> Vec<Case> {
    use pb::watch_request::RequestUnion::{CancelRequest, CreateRequest};
    let create = |key: &'static str, start_revision| pb::WatchCreateRequest {
        key: key.into(),
        start_revision,
        ..Default::default()
    };
    let ended =
        |key: &'static str, end: &'static str| pb::WatchCreateRequest { range_end: end.into(), ..create(key, 0) };
    let numbered = |watch_id| pb::WatchCreateRequest { watch_id, ..create("a", 0) };
    let long = |kib: usize| pb::WatchCreateRequest { key: vec![b'k'; kib << 10].into(), ..create("", 0) };
    let cancel = |watch_id| CancelRequest(pb::WatchCancelRequest { watch_id });
    vec![
        watch("watch: now", vec![CreateRequest(create("a", 0))], 1),
        watch("watch: no key", vec![CreateRequest(create("", 0))], 1),
        watch("watch: compacted", vec![CreateRequest(create("a", 2))], 2),
        watch("watch: at the compact revision", vec![CreateRequest(create("a", 4))], 2),
        watch("watch: behind the compact revision", vec![CreateRequest(create("b", 5))], 2),
        watch("watch: future", vec![CreateRequest(create("a", 999))], 1),
        watch("watch: end before the key", vec![CreateRequest(ended("b", "a"))], 1),
        watch("watch: end is the key", vec![CreateRequest(ended("b", "b"))], 1),
        watch("watch: two", vec![CreateRequest(create("a", 0)), CreateRequest(create("b", 0))], 2),
        watch("watch: number of its own", vec![CreateRequest(numbered(5)), CreateRequest(create("b", 0))], 2),
        watch("watch: number in use", vec![CreateRequest(numbered(5)), CreateRequest(numbered(5))], 2),
        watch("watch: cancel", vec![CreateRequest(numbered(5)), cancel(5)], 2),
        watch("watch: cancel the unknown", vec![cancel(77), CreateRequest(numbered(5))], 1),
        watch(
            "watch: cancel twice",
            vec![CreateRequest(numbered(5)), cancel(5), cancel(5), CreateRequest(numbered(6))],
            3,
        ),
        watch("watch: long key", vec![CreateRequest(long(1600))], 1),
        watch("watch: longer key", vec![CreateRequest(long(3072))], 1),
    ]
}

/// Keys a to d, a with history, at revision 7; compacted at 4; lease 7.
async fn prepare(channel: Channel) {
    let mut kv = KvClient::new(channel.clone());
    LeaseClient::new(channel).lease_grant(pb::LeaseGrantRequest { id: 7, ttl: 1000 }).await.expect("a lease");
    for name in ["a", "a", "a", "b", "c", "d"] {
        kv.put(put(name)).await.expect("a put");
    }
    kv.compact(pb::CompactionRequest { revision: 4, physical: true }).await.expect("a compaction");
}

#[tokio::test]
async fn wrong_requests_are_answered_as_etcd_does() {
    if !peer::has("etcd") {
        return;
    }
    let etcd = peer::Etcd::start(&[]).await;
    let own = peer::serve(Arc::new(MemoryStore::new())).await;
    let connect =
        |url: String| async move { Channel::from_shared(url).expect("a URL").connect().await.expect("a peer") };
    let (theirs, ours) = (connect(etcd.url.clone()).await, connect(own).await);
    prepare(theirs.clone()).await;
    prepare(ours.clone()).await;
    let all = [ranges(), watches(), writes(), txns(), long_keys(), leases(), members(), maintenance()];
    let (mut count, mut differ) = (0, Vec::new());
    for (what, run) in all.into_iter().flatten() {
        count += 1;
        let told = |answer: Result<String, Status>| match answer {
            Ok(told) => format!("ok: {told}"),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        };
        let patience = std::time::Duration::from_secs(10);
        let ask = |channel| async {
            let silent = |_| Err(Status::deadline_exceeded("no answer"));
            told(tokio::time::timeout(patience, run(channel)).await.unwrap_or_else(silent))
        };
        let (their, our) = (ask(theirs.clone()).await, ask(ours.clone()).await);
        if their != our {
            differ.push(format!("{what}\n  etcd: {their}\n  here: {our}"));
        }
    }
    assert!(count >= 100, "{count} requests");
    assert!(differ.is_empty(), "{} of {count} differ:\n{}", differ.len(), differ.join("\n"));
}

/// Where this server differs: an etcd whose authentication is off keeps users and roles that are added.
#[tokio::test]
async fn users_and_roles_are_refused_by_name() {
    let url = peer::serve(Arc::new(MemoryStore::new())).await;
    let mut auth = AuthClient::connect(url).await.expect("a server");
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.expect("a status").into_inner();
    assert_eq!((status.enabled, status.auth_revision), (false, 1));
    let user = pb::AuthUserAddRequest { name: "root".into(), password: "secret".into(), ..Default::default() };
    let role = pb::AuthRoleAddRequest { name: "root".into() };
    for refused in [auth.user_add(user).await.map(drop), auth.role_add(role).await.map(drop)] {
        let refused = refused.expect_err("it is kept");
        assert_eq!(refused.code(), tonic::Code::Unimplemented);
        assert_eq!(refused.message(), "etcdserver: this server has no users and roles");
    }
    let enable = auth.auth_enable(pb::AuthEnableRequest {}).await.expect_err("it is on");
    assert_eq!(enable.message(), "etcdserver: root user does not exist");
}
