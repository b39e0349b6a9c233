//! Members that may not answer: learners, and those without a leader where the client wants one. Each step is taken beside etcd.

mod process;

use std::time::Duration;

use futures::StreamExt;
use process::{Etcd, Server, free_address, is_there, wait_for};
use rk_store::{
    KeyRange, Store, WatchRequest,
    etcd::{
        EtcdOptions, EtcdStore,
        proto::etcdserverpb::{
            self as pb, cluster_client::ClusterClient, kv_client::KvClient, lease_client::LeaseClient,
            maintenance_client::MaintenanceClient, watch_client::WatchClient, watch_request::RequestUnion,
        },
    },
};
use tokio::time::timeout;
use tonic::{Code, Request, Status, Streaming, transport::Channel};

async fn channel(url: &str) -> Channel {
    Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap()
}

/// A request of a client that wants a leader, or not.
fn asks<T>(message: T, requires_leader: bool) -> Request<T> {
    let mut request = Request::new(message);
    if requires_leader {
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    }
    request
}

fn range(serializable: bool) -> pb::RangeRequest {
    pb::RangeRequest { key: "a".into(), serializable, ..Default::default() }
}

/// A watch that has begun.
async fn watch(channel: &Channel, requires_leader: bool) -> Result<Streaming<pb::WatchResponse>, Status> {
    let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = futures::stream::iter([create]).chain(futures::stream::pending());
    let mut answers = WatchClient::new(channel.clone()).watch(asks(requests, requires_leader)).await?.into_inner();
    assert!(answers.message().await?.is_some_and(|answer| answer.created));
    Ok(answers)
}

fn told<T>(what: &str, result: Result<T, Status>) -> String {
    match result {
        Ok(_) => format!("{what}: answered"),
        Err(status) => format!("{what}: {:?} {}", status.code(), status.message()),
    }
}

/// What a member says to requests of every kind.
async fn says(url: &str) -> Vec<String> {
    let channel = channel(url).await;
    let (mut kv, mut lease) = (KvClient::new(channel.clone()), LeaseClient::new(channel.clone()));
    let (mut cluster, mut upkeep) = (ClusterClient::new(channel.clone()), MaintenanceClient::new(channel.clone()));
    let put = pb::PutRequest { key: "a".into(), ..Default::default() };
    vec![
        told("serializable", kv.range(range(true)).await),
        told("linearizable", kv.range(range(false)).await),
        told("put", kv.put(put).await),
        told("txn", kv.txn(pb::TxnRequest::default()).await),
        told("compact", kv.compact(pb::CompactionRequest { revision: 1, physical: false }).await),
        told("grant", lease.lease_grant(pb::LeaseGrantRequest { ttl: 100, id: 7 }).await),
        told("leases", lease.lease_leases(pb::LeaseLeasesRequest {}).await),
        told("members", cluster.member_list(pb::MemberListRequest::default()).await),
        told("status", upkeep.status(pb::StatusRequest {}).await),
        told("hash", upkeep.hash_kv(pb::HashKvRequest { revision: 0 }).await),
        told("alarms", upkeep.alarm(pb::AlarmRequest::default()).await),
        told("watch", watch(&channel, false).await),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_answers_what_an_etcd_that_learns_does() {
    if !is_there("etcd") || !is_there("etcdctl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [first, second, third] = [(); 3].map(|()| free_address());
    let own = format!("http://{first}");
    let cluster = format!("default={own}");
    let flags = ["--listen-peer-urls", &own, "--initial-advertise-peer-urls", &own, "--initial-cluster", &cluster];
    let etcd = Etcd::start_with(&dir.path().join("first").display().to_string(), &flags);
    let server = Server::start(&[]);
    let both = [&*etcd.url, &server.url];
    for (url, peer) in both.into_iter().zip([&second, &third]) {
        let channel = channel(url).await;
        let put = pb::PutRequest { key: "a".into(), value: "1".into(), ..Default::default() };
        KvClient::new(channel.clone()).put(put).await.unwrap();
        let add = pb::MemberAddRequest { peer_urls: vec![format!("http://{peer}")], is_learner: true };
        let mut client = ClusterClient::new(channel);
        let added = client.member_add(add.clone()).await;
        added.unwrap_or_else(|status| panic!("{url}: {status}"));
    }
    let learner = dir.path().join("second").display().to_string();
    let etcd_learner = Etcd::join(&learner, "second", &second, &format!("{cluster},second=http://{second}"));
    let server_learner =
        Server::join("second", &third, &format!("default=http://{},second=http://{third}", server.peer));
    let mut answers = Vec::new();
    for url in [&etcd_learner.url, &server_learner.url] {
        let mut kv = KvClient::new(channel(url).await);
        for _ in 0..200 {
            if kv.range(range(true)).await.is_ok_and(|answer| answer.get_ref().count == 1) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        answers.push(says(url).await);
    }
    assert_eq!(answers[1], answers[0]);
    let answered: Vec<_> = answers[1].iter().filter_map(|said| said.strip_suffix(": answered")).collect();
    assert_eq!(answered, ["serializable", "status"]);
    // A copy of the data is one, whoever has it.
    let file = server_learner.scratch("saved.db").display().to_string();
    server_learner.ctl(&["snapshot", "save", &file]);
}

/// What a member that has lost the others, which `lose` does, says to clients that want a leader and to others.
async fn without_leader(url: &str, lose: impl FnOnce()) -> [String; 6] {
    let channel = channel(url).await;
    let mut kv = KvClient::new(channel.clone());
    kv.range(asks(range(false), true)).await.unwrap();
    let (mut led, mut other) = (watch(&channel, true).await.unwrap(), watch(&channel, false).await.unwrap());
    let store = EtcdStore::new(EtcdOptions::new([url])).unwrap();
    let mut followed = store.watch(WatchRequest::new(KeyRange::all(), 0)).await.unwrap();
    lose();
    let ended = timeout(Duration::from_secs(30), led.message()).await.expect("the watch ends");
    let goes_on = timeout(Duration::from_secs(2), other.message()).await.is_err();
    [
        told("a watch that wants a leader", ended),
        format!("another goes on: {goes_on}"),
        told("a read that wants a leader", kv.range(asks(range(true), true)).await),
        told("another", kv.range(asks(range(true), false)).await),
        told("a new watch that wants a leader", watch(&channel, true).await),
        format!("the store's: {:?}", timeout(Duration::from_secs(30), followed.next()).await.expect("it ends")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_want_a_leader_hear_that_there_is_none() {
    if !is_there("etcd") || !is_there("etcdctl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut etcds, mut members) =
        (Etcd::start_cluster(dir.path(), &["a", "b", "c"]), Server::start_cluster(&["a", "b", "c"]));
    wait_for("a put", || members[0].command(&["put", "a", "1"]).output().unwrap().status.success());
    let url = members[0].url.clone();
    let ours = without_leader(&url, || members.truncate(1)).await;
    let url = etcds[0].url.clone();
    let theirs = without_leader(&url, || etcds.truncate(1)).await;
    assert_eq!(ours, theirs);
    let none = format!("{:?} etcdserver: no leader", Code::Unavailable);
    assert_eq!([&ours[0], &ours[2]].map(|said| said.ends_with(&none)), [true, true], "{ours:?}");
    assert_eq!(ours[5], "the store's: Some(Err(NoLeader))");
    assert!(ours[1].ends_with("true") && ours[3].ends_with("answered"), "{ours:?}");
}
