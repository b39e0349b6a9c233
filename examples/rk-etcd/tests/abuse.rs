//! Clients that send nonsense, ask for very much, or do not read what they asked for: others must not notice.

#[path = "process/mod.rs"]
mod process;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use futures::StreamExt;
use rk_store::{
    Store,
    etcd::{
        EtcdOptions, EtcdStore,
        proto::etcdserverpb::{
            self as pb, maintenance_client::MaintenanceClient, watch_client::WatchClient, watch_request::RequestUnion,
        },
    },
};
use tokio::time::timeout;
use tonic::transport::Channel;

use process::Server;

const PATIENCE: Duration = Duration::from_secs(60);

fn store(server: &Server) -> EtcdStore {
    EtcdStore::new(EtcdOptions::new([&server.url])).unwrap()
}

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(server.url.clone()).unwrap().connect().await.unwrap()
}

/// A stream of these watches.
async fn watch(channel: &Channel, watches: Vec<pb::WatchCreateRequest>) -> tonic::Streaming<pb::WatchResponse> {
    let request = |create| pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = futures::stream::iter(watches.into_iter().map(request)).chain(futures::stream::pending());
    let mut client = WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    client.watch(requests).await.unwrap().into_inner()
}

/// A watch of all keys.
fn all(start_revision: i64) -> Vec<pb::WatchCreateRequest> {
    vec![pb::WatchCreateRequest { key: "\0".into(), range_end: "\0".into(), start_revision, ..Default::default() }]
}

/// The server's resident memory, in MiB.
fn memory(server: &Server) -> u64 {
    let (_, metrics) = server.http("/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
    line.parse::<u64>().unwrap() >> 20
}

/// Sends bytes and reads whatever comes, until the server hangs up or says nothing for a moment.
fn send(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // It may hang up before it has all of it.
    let _hung_up = stream.write_all(bytes);
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
    }
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_over_the_wire_is_refused_and_does_no_harm() {
    let server = Server::start(&[]);
    let store = store(&server);
    store.put("a".into(), "1".into()).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let random: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let with_preface = |bytes: &[u8]| [&preface[..], bytes].concat();
    let long_header = format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    for bytes in [
        random.clone(),
        with_preface(&random),
        // A frame of 16 MiB, a frame of an unknown kind, half of the preface, settings that make no sense.
        with_preface(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        with_preface(&[0, 0, 1, 0xee, 0xff, 0x7f, 0xff, 0xff, 0xff, 0]),
        preface[..10].to_vec(),
        with_preface(&[0, 0, 5, 4, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]),
        long_header.into_bytes(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /etcdserverpb.KV/Put HTTP/1.1\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0"
            .to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    ] {
        send(&server, &bytes);
    }
    for (path, status) in [("/metrics/../x", 404), ("/health?serializable=%zz", 200), ("//", 404), ("/version?", 200)] {
        assert_eq!(server.http(path).0, status, "{path}");
    }
    assert_eq!(store.get("a".into()).await.unwrap().unwrap().value, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_watches_on_one_connection() {
    const WATCHES: usize = 10_000;
    let server = Server::start(&[]);
    let create = |i: usize| pb::WatchCreateRequest {
        key: format!("k/{}", i % 100).into(),
        watch_id: i as i64 + 1,
        ..Default::default()
    };
    let channel = channel(&server).await;
    let begin = Instant::now();
    let mut answers = watch(&channel, (0..WATCHES).map(create).collect()).await;
    for _ in 0..WATCHES {
        assert!(timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap().created);
    }
    let created = begin.elapsed();
    let store = store(&server);
    for key in 0..100 {
        store.put(format!("k/{key}").into(), "x".into()).await.unwrap();
    }
    let mut told = vec![0; WATCHES + 1];
    while told.iter().sum::<usize>() < WATCHES {
        let answer = timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
        assert!(!answer.canceled);
        told[answer.watch_id as usize] += answer.events.len();
    }
    assert!(told[1..].iter().all(|count| *count == 1), "each once");
    println!("{WATCHES} watches in {created:?}, an event for each in {:?}, {} MiB", begin.elapsed(), memory(&server));
    // As many streams as one connection has, if not quite as many.
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(watch(&channel, vec![create(0)]).await);
    }
    store.put("k/0".into(), "y".into()).await.unwrap();
    for stream in &mut streams {
        while timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap().events.is_empty() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_slows_nobody_and_takes_no_memory() {
    const PUTS: usize = 2400;
    let server = Server::start(&[]);
    let store = store(&server);
    let value = "x".repeat(100_000);
    store.put("a".into(), value.clone().into()).await.unwrap();
    // Watches that are not read, each on a connection of its own, some from the past.
    let mut unread = Vec::new();
    for i in 0..20 {
        // A client without keep-alive: on a busy machine it would give up before it reads.
        unread.push(watch(&channel(&server).await, all(i % 2)).await);
    }
    // A snapshot that is not read, either.
    let snapshot = MaintenanceClient::new(channel(&server).await).snapshot(pb::SnapshotRequest {}).await.unwrap();
    // What is kept for them is limited, so once that is reached memory grows no more.
    let mut seen = Vec::new();
    for i in 0..PUTS {
        timeout(PATIENCE, store.put(format!("k/{}", i % 10).into(), value.clone().into())).await.unwrap().unwrap();
        if (i + 1) % (PUTS / 2) == 0 {
            seen.push(memory(&server));
        }
    }
    println!("MiB of memory with so many times {} MB put before 20 watches that read nothing: {seen:?}", PUTS / 20);
    assert!(seen[1] < seen[0] + 60, "memory grew from {} to {} MiB", seen[0], seen[1]);
    // Those that read at last are told all, in order.
    for mut watch in unread.into_iter().take(2) {
        let (mut last, mut events) = (0, 0);
        while events < PUTS {
            let answer = timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap();
            for kv in answer.events.into_iter().filter_map(|event| event.kv).filter(|kv| kv.key != "a") {
                assert!(kv.mod_revision > last);
                (last, events) = (kv.mod_revision, events + 1);
            }
        }
    }
    let mut pieces = snapshot.into_inner();
    let mut bytes = 0;
    while let Some(piece) = timeout(PATIENCE, pieces.message()).await.unwrap().unwrap() {
        bytes += piece.blob.len();
    }
    assert!(bytes > value.len(), "{bytes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections() {
    let count: usize = std::env::var("RK_CONNECTIONS").map_or(500, |count| count.parse().unwrap());
    let server = Server::start(&[]);
    let before = memory(&server);
    let begin = Instant::now();
    let mut stores = Vec::new();
    for _ in 0..count {
        let store = EtcdStore::new(EtcdOptions::new([&server.url])).unwrap();
        store.get("a".into()).await.unwrap();
        stores.push(store);
    }
    let connected = begin.elapsed();
    let puts = stores.iter().enumerate().map(|(i, store)| store.put(format!("{i}").into(), "x".into()));
    // Some hundreds at a time: it is the connections that are many.
    let mut puts = futures::stream::iter(puts).buffer_unordered(300);
    while let Some(put) = puts.next().await {
        put.unwrap();
    }
    println!("{count} connections in {connected:?}, {before} to {} MiB", memory(&server));
}
