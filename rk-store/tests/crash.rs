//! `kill -9` at any moment loses nothing that was acknowledged.
//!
//! A child process, this program again, writes to a store and prints what the store has acknowledged; it is killed after a
//! random time, and the store it leaves must hold all of that. Each round goes on with the directory of
//! the one before, with log segments and checkpoints small enough to be made all the time.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use rk_store::{DurableOptions, DurableStore, KeyRange, KeyValue, RangeRequest, Store};

const ROUNDS: usize = 100;
const WRITERS: usize = 8;
const CHILD_DIR: &str = "RK_STORE_CRASH_TEST_DIR";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match std::env::var_os(CHILD_DIR) {
        Some(dir) => runtime.block_on(write_for_ever(Path::new(&dir))),
        None => runtime.block_on(kill_again_and_again()),
    }
}

async fn open(dir: &Path) -> DurableStore {
    let mut options = DurableOptions::default();
    (options.segment_bytes, options.checkpoint_bytes) = (8 << 10, 32 << 10);
    DurableStore::open(dir, options).await.expect("a store opens after a crash")
}

fn number(kv: &KeyValue) -> u64 {
    let digits = kv.value.split(|byte| *byte == b' ').next().unwrap_or_default();
    String::from_utf8_lossy(digits).parse().unwrap()
}

async fn numbers(store: &DurableStore) -> Vec<u64> {
    let mut numbers = vec![0; WRITERS];
    for kv in store.range(RangeRequest::new(KeyRange::all())).await.unwrap().kvs {
        let writer: usize = String::from_utf8_lossy(&kv.key).parse().unwrap();
        assert_eq!(number(&kv), kv.version, "a number is missing from the history of writer {writer}");
        numbers[writer] = number(&kv);
    }
    numbers
}

/// Each writer counts up from where it was.
async fn write_for_ever(dir: &Path) {
    let store = Arc::new(open(dir).await);
    let begin = numbers(&store).await;
    let writers = begin.into_iter().enumerate().map(|(writer, mut number)| {
        let store = store.clone();
        async move {
            loop {
                number += 1;
                let value = format!("{number} {}", "x".repeat(number as usize % 300));
                let revision = store.put(format!("{writer}").into(), value.into()).await.unwrap();
                // One write call for one line, so that a kill can't mix lines.
                std::io::stdout().lock().write_all(format!("{writer} {number}\n").as_bytes()).unwrap();
                if revision.is_multiple_of(64) {
                    store.compact(revision - 32).await.unwrap();
                }
            }
        }
    });
    futures::future::join_all(writers).await;
}

async fn kill_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let mut acknowledged = vec![0; WRITERS];
    let mut random = u64::from(std::process::id());
    println!("seed {random}");
    for round in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (told, first) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let lines = lines.map_while(Result::ok).inspect(|_| {
                // Half of the rounds do not listen.
                let _unheard = told.send(());
            });
            lines.collect::<Vec<_>>()
        });
        // Half of the kills come while the child writes, the others at any time, while it opens the store too.
        if round % 2 == 0 {
            first.recv_timeout(Duration::from_secs(60)).expect("the child writes");
        }
        tokio::time::sleep(Duration::from_millis((random >> 33) % 90)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            let (writer, number) = line.split_once(' ').unwrap();
            acknowledged[writer.parse::<usize>().unwrap()] = number.parse().unwrap();
        }
        let store = open(dir.path()).await;
        let found = numbers(&store).await;
        for (writer, (found, acknowledged)) in found.iter().zip(&acknowledged).enumerate() {
            // One more may be there: written, but not acknowledged in time.
            assert!(
                (*acknowledged..=acknowledged + 1).contains(found),
                "round {round}: writer {writer} was told of {acknowledged}, and {found} is there"
            );
        }
        acknowledged = found;
        store.close().await;
    }
    let total: u64 = acknowledged.iter().sum();
    assert!(total > ROUNDS as u64, "only {total} writes in {ROUNDS} rounds: the test tests nothing");
    println!("{ROUNDS} kills, {total} writes, nothing lost, {:.1} s", begin.elapsed().as_secs_f32());
}
