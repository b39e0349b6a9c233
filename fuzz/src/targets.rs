//! What is fed, and what must hold.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use futures::StreamExt;
use rk_store::{
    log::{Log, LogBatch, LogOptions},
    testing::disk::{FaultDisk, Survives},
    *,
};

use crate::{
    api::api,
    cel::cel,
    file,
    mutate::{Random, mutate, mutate_payload, mutate_snapshot},
    peer::peer,
    request::{self, Requests},
};

/// Whole things to be damaged.
pub struct Corpus {
    commands: Vec<Vec<u8>>,
    head: Vec<u8>,
    log: FaultDisk,
    values: FaultDisk,
    checkpoint: FaultDisk,
    snapshot: Vec<u8>,
    file: Vec<u8>,
    requests: Requests,
}

type Done<'a> = Pin<Box<dyn Future<Output = bool> + 'a>>;
/// Runs one case; whether what was read was taken as whole.
pub type Target = for<'a> fn(&'a Corpus, &'a mut Random) -> Done<'a>;

pub const NAMES: [&str; 11] =
    ["command", "head", "log", "values", "checkpoint", "snapshot", "file", "request", "peer", "api", "cel"];

pub fn find(name: &str) -> Option<Target> {
    Some(match name {
        "command" => |corpus, random| Box::pin(async { command(corpus, random) }),
        "head" => |corpus, random| Box::pin(async { head(corpus, random) }),
        "log" => |corpus, random| Box::pin(async { log(corpus, random) }),
        "values" => |corpus, random| Box::pin(async { values(corpus, random) }),
        "checkpoint" => |corpus, random| Box::pin(checkpoint(corpus, random)),
        "snapshot" => |corpus, random| Box::pin(snapshot(corpus, random)),
        "file" => |corpus, random| Box::pin(file::file(&corpus.file, random)),
        "request" => |corpus, random| Box::pin(request::request(&corpus.requests, random)),
        "peer" => |_, random| Box::pin(peer(random)),
        "api" => |_, random| Box::pin(api(random)),
        "cel" => |_, random| Box::pin(async { cel(random) }),
        _ => return None,
    })
}

const DIR: &str = "data";

async fn open(disk: &FaultDisk, in_memory: bool) -> Result<DurableStore, Error> {
    let mut options = DurableOptions::default();
    options.disk = Arc::new(disk.clone());
    if in_memory { DurableStore::open_in_memory(DIR, options).await } else { DurableStore::open(DIR, options).await }
}

/// Does some of everything to a store, and has it write a checkpoint.
async fn fill(store: &DurableStore) {
    store.lease_grant(7, 100).await.expect("a lease is granted");
    for i in 0..40_u64 {
        let put = PutRequest {
            lease: (i % 9 == 0) as i64 * 7,
            ..PutRequest::new(format!("key-{}", i % 12), "x".repeat(i as usize))
        };
        store.txn(Txn { success: vec![Op::Put(put)], ..Txn::default() }).await.expect("a put is done");
    }
    store.delete(KeyRange::key("key-3")).await.expect("a delete is done");
    store.compact(20).await.expect("history is compacted");
    store.checkpoint().await.expect("a checkpoint is written");
    store.put("last".into(), "behind the checkpoint".into()).await.expect("a put is done");
}

pub async fn corpus() -> Corpus {
    let (values, checkpoint) = (FaultDisk::new(1), FaultDisk::new(2));
    let mut snapshot = Vec::new();
    for (disk, in_memory) in [(&values, false), (&checkpoint, true)] {
        let store = open(disk, in_memory).await.expect("a store opens");
        fill(&store).await;
        let mut stream = store.snapshot().await.expect("a snapshot is taken");
        snapshot.clear();
        while let Some(bytes) = stream.next().await {
            snapshot.extend(bytes.expect("a snapshot is read"));
        }
        drop(stream);
        store.close().await;
    }
    let log = FaultDisk::new(3);
    let mut options = LogOptions::default();
    options.segment_bytes = 400;
    let mut writing = Log::open(Path::new(DIR), Arc::new(log.clone()), options).expect("a log opens");
    for i in 1..30_u64 {
        let mut batch = LogBatch::default();
        batch.state(&i.to_le_bytes());
        batch.entry(i - i / 10, |out| out.extend(vec![i as u8; i as usize]));
        writing.append(&[batch]).expect("a batch is written");
    }
    let compare =
        Compare { range: KeyRange::prefix("a"), op: CompareOp::Greater, target: CompareTarget::Value("x".into()) };
    let ops = vec![
        Op::Put(PutRequest::new("key", "value")),
        Op::Range(RangeRequest::new(KeyRange::all())),
        Op::Delete(DeleteRequest { range: KeyRange::prefix("b"), prev_kv: true }),
    ];
    let inner = Txn { compare: vec![compare.clone()], success: ops.clone(), failure: ops.clone() };
    let txn = Txn { compare: vec![compare], success: ops, failure: vec![Op::Txn(inner)] };
    let commands =
        [Command::Txn(txn), Command::Compact(9), Command::LeaseGrant { id: 7, ttl: 9 }, Command::LeaseRevoke { id: 7 }];
    let encode = |command: &Command| {
        let mut out = Vec::new();
        command.encode(&mut out);
        out
    };
    let mut machine = Machine::new(Arc::new(MemoryEngine::new())).expect("an engine in memory does not fail");
    for id in 1..5 {
        machine.apply(&Command::LeaseGrant { id, ttl: 100 }).result.expect("a lease is granted");
    }
    let mut head = Vec::new();
    machine.snapshot_head().encode(&mut head);
    let commands = commands.iter().map(encode).collect();
    let (file, requests) = (file::whole().await, request::requests());
    Corpus { commands, head, log, values, checkpoint, snapshot, file, requests }
}

/// What is read again is what was written, whatever that is.
fn command(corpus: &Corpus, random: &mut Random) -> bool {
    let mut bytes = corpus.commands[random.below(corpus.commands.len())].clone();
    mutate(&mut bytes, 0, random);
    let Ok(command) = Command::decode(bytes.into()) else { return false };
    let mut again = Vec::new();
    command.encode(&mut again);
    assert_eq!(Command::decode(again.into()), Ok(command.clone()));
    // A machine refuses what makes no sense.
    let mut machine = Machine::new(Arc::new(MemoryEngine::new())).expect("an engine in memory does not fail");
    let applied = machine.apply(&command);
    assert!(!matches!(applied.result, Err(Error::Unavailable(_))));
    true
}

fn head(corpus: &Corpus, random: &mut Random) -> bool {
    let mut bytes = corpus.head.clone();
    mutate(&mut bytes, 0, random);
    let Ok(head) = SnapshotHead::decode(bytes.into()) else { return false };
    let mut again = Vec::new();
    head.encode(&mut again);
    assert_eq!(SnapshotHead::decode(again.into()), Ok(head));
    true
}

/// A copy of a disk with one of its files damaged.
fn damaged(disk: &FaultDisk, dir: &str, random: &mut Random) -> FaultDisk {
    let disk = disk.copy(Survives::Nothing);
    let mut files: Vec<PathBuf> =
        disk.list(Path::new(dir)).expect("a folder is listed").iter().map(|name| Path::new(dir).join(name)).collect();
    files.sort();
    let file = &files[random.below(files.len())];
    let change = |bytes: &mut Vec<u8>| match random.below(4) {
        0 => mutate(bytes, 0, random),
        _ => mutate_payload(bytes, random),
    };
    disk.damage(file, change).expect("a file is damaged");
    disk
}

/// A log that opens can be read or says what is wrong, and can be written.
fn log(corpus: &Corpus, random: &mut Random) -> bool {
    let disk = Arc::new(damaged(&corpus.log, DIR, random));
    let mut log = match Log::open(Path::new(DIR), disk.clone(), LogOptions::default()) {
        Ok(log) => log,
        Err(Error::Corrupt { .. }) => return false,
        Err(error) => panic!("{error}"),
    };
    let reader = log.reader();
    let (first, next) = (reader.first(), reader.next());
    let entries = reader.entries(first..next, usize::MAX);
    match &entries {
        Ok(entries) => assert_eq!(entries.len() as u64, next - first),
        Err(Error::Corrupt { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    // The largest index has nothing behind it.
    if next < u64::MAX - 1 {
        let mut batch = LogBatch::default();
        batch.entry(next, |out| out.extend(b"more"));
        log.append(&[batch]).expect("a log goes on");
        drop(log);
        let log = Log::open(Path::new(DIR), disk, LogOptions::default()).expect("a log opens again");
        assert_eq!(log.reader().next(), next + 1);
    }
    entries.is_ok()
}

fn values(corpus: &Corpus, random: &mut Random) -> bool {
    let dir = Path::new(DIR).join("values");
    let disk = damaged(&corpus.values, dir.to_str().expect("a name"), random);
    let engine = match SegmentEngine::open(&dir, Arc::new(disk), SegmentOptions::default()) {
        Ok(engine) => Arc::new(engine),
        Err(Error::Corrupt { .. }) => return false,
        Err(error) => panic!("{error}"),
    };
    let recovered = Machine::recover(engine.clone());
    let mut records = 0;
    let scanned = engine.scan(Position::first(0), Position::first(Revision::MAX), &mut |_, _| {
        records += 1;
        true
    });
    scanned.is_ok() && matches!(recovered, Ok(Some(_)))
}

/// A store opens or says what is wrong.
async fn checkpoint(corpus: &Corpus, random: &mut Random) -> bool {
    let disk = damaged(&corpus.checkpoint, DIR, random);
    let Ok(store) = open(&disk, true).await else { return false };
    let read = store.range(RangeRequest::new(KeyRange::all())).await.is_ok();
    store.close().await;
    read
}

async fn snapshot(corpus: &Corpus, random: &mut Random) -> bool {
    let mut bytes = corpus.snapshot.clone();
    match random.below(4) {
        0 => mutate(&mut bytes, 0, random),
        _ => mutate_snapshot(&mut bytes, random),
    }
    let pieces: Vec<_> = bytes.chunks(1 + random.below(500)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    restore_snapshot(Arc::new(MemoryEngine::new()), futures::stream::iter(pieces)).await.is_ok()
}
