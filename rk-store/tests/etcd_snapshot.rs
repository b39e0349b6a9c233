//! Snapshots in etcd's files: what a server sends is what [`SnapshotFile`] reads, and nothing else is.

mod peer;

use std::{path::PathBuf, sync::Arc};

use pb::maintenance_client::MaintenanceClient;
use peer::serve;
use proptest::prelude::*;
use rk_store::{
    Alarm, AlarmKind, Error, KeyRange, Limits, MemoryOptions, MemoryStore, Op, PutRequest, RangeRequest, Store, Txn,
    etcd::{SnapshotFile, proto::etcdserverpb as pb},
};
use tempfile::TempDir;

/// The file that a server of this store sends.
async fn saved(store: Arc<MemoryStore>) -> Vec<u8> {
    let mut client = MaintenanceClient::connect(serve(store).await).await.unwrap();
    let mut pieces = client.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        bytes.extend_from_slice(&piece.blob);
    }
    bytes
}

/// A store with some of everything, and the bytes of its file: branches, a page that overflows, and buckets of all kinds.
async fn some_file() -> (Arc<MemoryStore>, Vec<u8>) {
    let store = Arc::new(MemoryStore::new());
    store.lease_grant(7, 1000).await.unwrap();
    store.lease_grant(-9, 5000).await.unwrap();
    for i in 0..300 {
        let value = if i == 100 { "x".repeat(9000) } else { format!("value {i}") };
        let bound = PutRequest { lease: 7 * (i % 2), ..PutRequest::new(format!("key-{}", i % 90), value) };
        let other = PutRequest::new(format!("other-{}", i % 7), "");
        let success = vec![Op::Put(bound), Op::Put(other)];
        store.txn(Txn { success, ..Txn::default() }).await.unwrap();
    }
    store.delete(KeyRange::prefix("key-1")).await.unwrap();
    store.compact(150).await.unwrap();
    store.activate_alarm(Alarm { member: 5, kind: AlarmKind::NoSpace }).await.unwrap();
    let bytes = saved(store.clone()).await;
    (store, bytes)
}

/// Reads a file with these bytes, to the end.
async fn restore(dir: &TempDir, bytes: &[u8], check: bool) -> Result<MemoryStore, Error> {
    let path: PathBuf = dir.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    let file = if check { SnapshotFile::open(path) } else { SnapshotFile::open_unchecked(path) };
    MemoryStore::restore(file?.into_stream(), MemoryOptions::default()).await
}

async fn facts(store: &MemoryStore) -> impl PartialEq + std::fmt::Debug {
    let mut reads = Vec::new();
    for revision in [150, 200, 0] {
        let request = RangeRequest { revision, ..RangeRequest::new(KeyRange::all()) };
        reads.push(store.range(request).await.unwrap());
    }
    let mut leases = Vec::new();
    for id in store.leases().await.unwrap() {
        let lease = store.lease_time_to_live(id, true).await.unwrap();
        leases.push((id, lease.granted_ttl, lease.keys));
    }
    (reads, leases, store.alarms().await.unwrap(), store.hash_kv(0).await.unwrap())
}

#[tokio::test]
async fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, bytes) = some_file().await;
    let restored = restore(&dir, &bytes, true).await.unwrap();
    assert_eq!(facts(&restored).await, facts(&store).await);
    assert_eq!(restored.leases().await.unwrap(), [-9, 7]);
    // Without its hash it is read by who does not want one.
    let pages = &bytes[..bytes.len() - 32];
    let error = restore(&dir, pages, true).await.unwrap_err().to_string();
    assert!(error.contains("it has no hash at its end"), "{error}");
    assert_eq!(facts(&restore(&dir, pages, false).await.unwrap()).await, facts(&store).await);
    let alarm = Alarm { member: 5, kind: AlarmKind::NoSpace };
    restored.deactivate_alarm(alarm).await.unwrap();
    assert_eq!(restored.put("a".into(), "1".into()).await.unwrap(), 303);
}

#[tokio::test]
async fn a_value_may_be_as_large_as_any_server_takes() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { request_bytes: 33 << 20, ..Limits::default() };
    let store = Arc::new(MemoryStore::with_options(MemoryOptions { limits, ..MemoryOptions::default() }));
    store.put("k".into(), vec![b'x'; 32 << 20].into()).await.unwrap();
    let restored = restore(&dir, &saved(store.clone()).await, true).await.unwrap();
    assert_eq!(restored.hash_kv(0).await.unwrap(), store.hash_kv(0).await.unwrap());
}

#[tokio::test]
async fn nothing_was_ever_put() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = saved(Arc::new(MemoryStore::new())).await;
    assert_eq!(restore(&dir, &bytes, false).await.unwrap().put("a".into(), "1".into()).await.unwrap(), 2);
}

#[tokio::test]
async fn what_is_no_file_of_etcds_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let missing = SnapshotFile::open(dir.path().join("none"));
    assert!(matches!(missing, Err(Error::Io { .. })), "{missing:?}");
    for bytes in [Vec::new(), b"rksnap1\n".repeat(1000), vec![0; 1 << 20]] {
        let error = restore(&dir, &bytes, false).await.unwrap_err().to_string();
        assert!(error.contains("it is no snapshot of etcd: it does not begin as a bbolt file"), "{error}");
    }
}

/// Damages bytes where it hurts: mostly in the numbers of pages and of their elements.
fn damage(bytes: &mut Vec<u8>, page: usize, at: usize, value: u32, kind: u8) {
    let len = bytes.len();
    match kind {
        0 => bytes.truncate((page * 4096 + at) % len),
        1 => bytes[(page * 4096 + at * 37) % len] ^= 1 << (value % 8),
        _ => {
            let at = (page * 4096 + at % 128 * 4) % (len - 4);
            let small = [0, 1, 2, 4, u32::MAX, 1 << 31, 0xffff_0001];
            let value = if kind == 2 { small[value as usize % small.len()] } else { value };
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
}

static WHOLE: tokio::sync::OnceCell<Vec<u8>> = tokio::sync::OnceCell::const_new();

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn damage_is_an_error_and_no_panic(page in 0..24_usize, at in 0..4096_usize, value: u32, kind in 0..4_u8) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let whole = WHOLE.get_or_init(async || some_file().await.1).await;
            let mut bytes = whole.clone();
            damage(&mut bytes, page, at, value, kind);
            let checked = restore(&dir, &bytes, true).await;
            prop_assert_eq!(checked.is_ok(), bytes == *whole);
            // Without the hash what makes sense may be taken; a store can be read to its end then.
            if let Ok(store) = restore(&dir, &bytes, false).await {
                store.range(RangeRequest::new(KeyRange::all())).await.unwrap();
                store.hash_kv(0).await.unwrap();
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn pages_that_lead_to_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, bytes) = some_file().await;
    let branches: Vec<_> = (2..bytes.len() / 4096).filter(|page| bytes[page * 4096 + 8] == 1).collect();
    assert!(!branches.is_empty());
    for branch in branches {
        // Its last child is itself.
        let mut looped = bytes.clone();
        let count = usize::from(u16::from_le_bytes([bytes[branch * 4096 + 10], bytes[branch * 4096 + 11]]));
        let child = branch * 4096 + 16 + (count - 1) * 16 + 8;
        looped[child..child + 8].copy_from_slice(&(branch as u64).to_le_bytes());
        let error = restore(&dir, &looped, false).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}
