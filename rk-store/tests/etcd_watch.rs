//! What streams of watches and the hash of a store say, beside the real etcd.

mod peer;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use peer::{Etcd, has, serve};
use rk_store::{MemoryStore, etcd::proto::etcdserverpb as pb};
use tonic::{Streaming, transport::Channel};

use pb::{
    kv_client::KvClient, maintenance_client::MaintenanceClient, request_op::Request, watch_client::WatchClient,
    watch_request::RequestUnion,
};

/// How long a watch may say nothing that must say something.
const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(url: &str) -> Channel {
    Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap()
}

/// A server of this crate's, and an etcd where there is one.
async fn servers(flags: &[&str]) -> (Vec<Channel>, Option<Etcd>) {
    let own = connect(&serve(Arc::new(MemoryStore::new())).await).await;
    if !has("etcd") {
        return (vec![own], None);
    }
    let etcd = Etcd::start(flags).await;
    let theirs = connect(&etcd.url).await;
    (vec![own, theirs], Some(etcd))
}

/// Puts `count` keys in one txn, each with a value of so many bytes.
async fn put_all(channel: &Channel, count: usize, bytes: usize) -> i64 {
    let put = |i: usize| {
        let value = vec![b'x'; bytes].into();
        let put = pb::PutRequest { key: format!("k{i:02}").into(), value, ..Default::default() };
        pb::RequestOp { request: Some(Request::RequestPut(put)) }
    };
    let txn = pb::TxnRequest { success: (0..count).map(put).collect(), ..Default::default() };
    let answer = KvClient::new(channel.clone()).txn(txn).await.unwrap().into_inner();
    answer.header.unwrap().revision
}

async fn watch(channel: &Channel, creates: Vec<pb::WatchCreateRequest>) -> Streaming<pb::WatchResponse> {
    let requests = creates
        .into_iter()
        .map(|create| pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })
        .collect::<Vec<_>>();
    // A client that has no more to say has not gone.
    let requests = futures::stream::iter(requests).chain(futures::stream::pending());
    let mut client = WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    client.watch(requests).await.unwrap().into_inner()
}

async fn next(watch: &mut Streaming<pb::WatchResponse>) -> pb::WatchResponse {
    let next = tokio::time::timeout(PATIENCE, watch.message()).await.expect("the watch is silent");
    next.unwrap().expect("the watch has ended")
}

/// The next answers of a watch until all of so many events have come: of each the keys, and whether there is more of the same.
async fn parts(watch: &mut Streaming<pb::WatchResponse>, count: usize) -> Vec<(Vec<Bytes>, bool)> {
    let (mut parts, mut seen) = (Vec::new(), 0);
    while seen < count {
        let answer = next(watch).await;
        if answer.created {
            continue;
        }
        seen += answer.events.len();
        let keys = answer.events.into_iter().map(|event| event.kv.unwrap().key).collect();
        parts.push((keys, answer.fragment));
    }
    parts
}

#[tokio::test]
async fn what_is_too_large_for_a_message_comes_in_fragments_if_so_wanted() {
    const COUNT: usize = 14;
    let all: Vec<Bytes> = (0..COUNT).map(|i| format!("k{i:02}").into()).collect();
    let (channels, _etcd) = servers(&[]).await;
    let mut seen = Vec::new();
    for channel in &channels {
        // With the pairs before, the events of one revision are of 2.8 MB.
        put_all(channel, COUNT, 100 << 10).await;
        let create = |start_revision, fragment| pb::WatchCreateRequest {
            key: "k".into(),
            range_end: "l".into(),
            prev_kv: true,
            start_revision,
            fragment,
            ..Default::default()
        };
        let mut live = watch(channel, vec![create(0, true)]).await;
        assert!(next(&mut live).await.created);
        let revision = put_all(channel, COUNT, 100 << 10).await;
        let live = parts(&mut live, COUNT).await;
        let past = parts(&mut watch(channel, vec![create(revision, true)]).await, COUNT).await;
        assert_eq!(past, live);
        assert!(live.len() > 1, "{live:?}");
        // None but the last tells that it is the end; no event is cut, left out or told twice.
        for (i, (keys, fragment)) in live.iter().enumerate() {
            assert_eq!((*fragment, keys.is_empty()), (i + 1 < live.len(), false));
        }
        assert_eq!(live.iter().flat_map(|(keys, _)| keys.clone()).collect::<Vec<_>>(), all);
        let whole = parts(&mut watch(channel, vec![create(revision, false)]).await, COUNT).await;
        assert_eq!(whole, [(all.clone(), false)], "nobody asked for fragments");
        seen.push(live);
    }
    assert!(seen.iter().all(|parts| *parts == seen[0]), "{seen:?}");
}

#[tokio::test]
async fn a_watch_on_which_nothing_happens_tells_its_progress_if_so_wanted() {
    let (channels, _etcd) = servers(&["--experimental-watch-progress-notify-interval", "1s"]).await;
    for channel in &channels {
        let create = |watch_id, progress_notify| pb::WatchCreateRequest {
            key: "quiet".into(),
            watch_id,
            progress_notify,
            ..Default::default()
        };
        let mut watch = watch(channel, vec![create(7, true), create(8, false)]).await;
        for id in [7, 8] {
            let created = next(&mut watch).await;
            assert_eq!((created.created, created.watch_id), (true, id));
        }
        let revision = put_all(channel, 1, 1).await;
        // One that was under way may be of before.
        for _ in 0..2 {
            let told = next(&mut watch).await;
            assert_eq!((told.watch_id, told.created, told.canceled, told.events.len()), (7, false, false, 0));
            let reached = told.header.unwrap().revision;
            assert!(reached == revision || reached == revision - 1, "{reached} of {revision}");
        }
        let told = next(&mut watch).await;
        assert_eq!((told.watch_id, told.header.unwrap().revision), (7, revision));
    }
}

#[tokio::test]
async fn the_hash_of_all_is_told_with_its_revision() {
    let (channels, _etcd) = servers(&[]).await;
    for channel in &channels {
        let mut client = MaintenanceClient::new(channel.clone());
        let mut hash = async || {
            let answer = client.hash(pb::HashRequest {}).await.unwrap().into_inner();
            (answer.hash, answer.header.unwrap().revision)
        };
        let first = put_all(channel, 1, 1).await;
        let before = hash().await;
        assert_eq!(before.1, first);
        assert_eq!(hash().await, before, "nothing has changed");
        let second = put_all(channel, 1, 2).await;
        let after = hash().await;
        assert_eq!(after.1, second);
        assert_ne!(after.0, before.0);
    }
}
