//! Snapshots in etcd's files, which may be anybody's: damaged pages, with the checksums of their metas as they must be.

use std::{io::Write, sync::Arc};

use bytes::{Buf, Bytes};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use prost::Message;
use rk_store::{
    Member, MemoryEngine, MemoryStore, Op, PutRequest, Store, Txn,
    etcd::{EtcdServer, ServerOptions, SnapshotFile, Standalone, proto::etcdserverpb::SnapshotResponse},
    restore_snapshot,
};

use crate::mutate::{ODD, Random, mutate};

const PAGE: usize = 4096;
/// Where a meta begins in its page, and how many of its bytes its checksum is of.
const META: usize = 16;
const SUMMED: usize = 56;

/// A snapshot as `etcdctl snapshot save` gets it: leaves and branches, a value that overflows its page, a lease.
pub async fn whole() -> Vec<u8> {
    let store = Arc::new(MemoryStore::new());
    store.lease_grant(7, 100).await.expect("a lease is granted");
    for i in 0..300_usize {
        let value = "x".repeat(if i == 150 { 2 * PAGE } else { i });
        let put = PutRequest { lease: i64::from(i % 9 == 0) * 7, ..PutRequest::new(format!("key-{}", i % 200), value) };
        store.txn(Txn { success: vec![Op::Put(put)], ..Txn::default() }).await.expect("a put is done");
    }
    let cluster = Arc::new(Standalone::new(1, Member { id: 1, ..Member::default() }, store.clone()));
    let server = EtcdServer::new(store, cluster, ServerOptions::default());
    let request = Request::post("/etcdserverpb.Maintenance/Snapshot").header(header::CONTENT_TYPE, "application/grpc");
    let request = request.body(Full::new(Bytes::from_static(&[0; 5]))).expect("the method is a path");
    let answer = server.handle(request).await.into_body().collect().await;
    let mut frames = answer.expect("a snapshot is sent").to_bytes();
    let mut file = Vec::new();
    while frames.len() > 5 {
        frames.advance(1);
        let len = frames.get_u32() as usize;
        let message = SnapshotResponse::decode(frames.split_to(len)).expect("it is a part of a snapshot");
        file.extend(message.blob);
    }
    file
}

/// Changes numbers of some pages, or those of a meta.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    match random.below(8) {
        0 => mutate(bytes, 0, random),
        1 => {
            let begin = random.below(2) * PAGE + META;
            let meta = &mut bytes[begin..begin + SUMMED + 8];
            let at = 8 * random.below(SUMMED / 8);
            let odd = if random.below(2) == 0 { ODD[random.below(ODD.len())] } else { random.below(40) as u64 };
            meta[at..at + 8].copy_from_slice(&odd.to_le_bytes());
            let sum = fnv1a(&meta[..SUMMED]);
            meta[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        }
        _ => {
            for _ in 0..1 + random.below(3) {
                // Most of what a page says stands at its begin.
                let within = if random.below(4) == 0 { PAGE } else { 64 };
                let at = (2 + random.below(bytes.len() / PAGE - 2)) * PAGE + random.below(within);
                let odd = if random.below(2) == 0 { ODD[random.below(ODD.len())] } else { random.below(40) as u64 };
                let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&odd.to_le_bytes()[..width]);
            }
        }
    }
}

/// The checksum of a meta.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A file is restored, or refused for what is wrong with it.
pub async fn file(whole: &[u8], random: &mut Random) -> bool {
    let mut bytes = whole.to_vec();
    damage(&mut bytes, random);
    let mut written = tempfile::NamedTempFile::new().expect("a file is made");
    written.write_all(&bytes).expect("it is written");
    let Ok(file) = SnapshotFile::open_unchecked(written.path()) else { return false };
    restore_snapshot(Arc::new(MemoryEngine::new()), file.into_stream()).await.is_ok()
}
