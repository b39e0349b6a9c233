//! The soak of the API server: those who write, list and watch, webhooks that fail, and a control plane on a durable store that is ended
//! and started again under all of them. Whatever a list or a watch shows is compared with the store's own log of changes.
//!
//! It takes some seconds; `RK_SOAK_SECONDS=600 RK_SOAK_WATCHERS=500 cargo test --release -p rk-api --test soak -- --nocapture` is the long
//! form, which also looks at what is left in memory. `RK_SOAK_SEED` makes the choices of a run again that has printed it.
#![cfg(feature = "serve")]

mod hook;
mod load;
mod log;
mod plane;
mod watcher;

use std::{
    path::Path,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use rand::RngExt;
use rk_api::{DeleteOptions, ListOptions, Request, Verb, WriteOptions};
use rk_store::DurableStore;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use hook::Hook;
use load::{Counts, Writer, choices, keep_listing, resource};
use log::{Log, NAMESPACES, PATIENCE};
use plane::{Ending, Running, World, compact};
use watcher::keep_watching;

/// As `rk-apiserver` has it: glibc's keeps several times what is in use once much was freed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WRITERS: usize = 8;
const LISTERS: usize = 4;
/// From so many seconds on it is the long form.
const LONG: u64 = 60;

/// One run of the load.
struct Load {
    seconds: u64,
    watchers: usize,
    /// The longest that one of them watches the same.
    longest: Duration,
    /// Mean seconds from one start of the control plane to its end.
    restarts: f64,
    /// How long what is left in memory may take to go.
    settle: Duration,
    seed: u64,
}

/// What was seen of the process once the load had ended and what it made was deleted.
#[derive(Debug)]
struct Rest {
    revision: u64,
    resident_kib: u64,
    tasks: usize,
    files: usize,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_missed_and_nothing_is_left() {
    let (seconds, watchers) = (setting("RK_SOAK_SECONDS", 12), setting("RK_SOAK_WATCHERS", 50) as usize);
    let seed = setting("RK_SOAK_SEED", rand::random());
    println!("RK_SOAK_SEED={seed}");
    let long = seconds >= LONG;
    let folder = tempfile::tempdir().unwrap();
    // A write may wait for both webhooks, and has a minute.
    let hook = Hook::new(seed, if long { 25 } else { 10 });
    let webhooks = hook.serve().await;
    // Connections that nobody uses any more go after 100 s.
    let (longest, restarts, settle) = if long { (30, 25.0, 120) } else { (4, 3.0, 0) };
    let (longest, settle) = (Duration::from_secs(longest), Duration::from_secs(settle));
    let warm = Load { seconds: seconds / 6, watchers, longest, restarts, settle, seed: !seed };
    let before = run(folder.path(), &hook, &warm, 0, Some(webhooks)).await;
    let load = Load { seconds, seed, ..warm };
    let after = run(folder.path(), &hook, &load, before.revision, None).await;
    println!("before: {before:?}\nafter: {after:?}");
    assert!(after.tasks <= before.tasks + 8 && after.files <= before.files + 8, "something is left running");
    assert!(!long || after.resident_kib * 10 <= before.resident_kib * 11, "memory did not return");
}

/// Opens the folder, loads the control plane, ends and starts it meanwhile, and deletes what was made.
async fn run(
    folder: &Path,
    hook: &Hook,
    load: &Load,
    after: u64,
    webhooks: Option<[(&'static str, Value); 2]>,
) -> Rest {
    let world = Arc::new(World::new(Log::new(after, hook.clone())));
    world.compacted.store(after, Ordering::SeqCst);
    let mut running = Running::start(folder, &world).await;
    if let Some(webhooks) = webhooks {
        running.prepare(webhooks).await;
    }
    let (counts, failures) = (Arc::new(Counts::default()), hook.failures());
    let mut actors = actors(load, &world, &counts);
    let (mut draw, mut ended) = (choices(load.seed, usize::from(u16::MAX)), Vec::new());
    let failed = || [0, 1].map(|at| hook.failures()[at] - failures[at]);
    let end = Instant::now() + Duration::from_secs(load.seconds);
    loop {
        let life = Duration::from_secs_f64(load.restarts * draw.random_range(0.5..1.5));
        // On a busy machine it takes longer until there was a load to speak of.
        let until = if failed().contains(&0) { life } else { life.min(end.saturating_duration_since(Instant::now())) };
        tokio::select! {
            () = sleep(until) => {}
            Some(stopped) = actors.join_next() => panic!("an actor ended: {:?}", stopped.err()),
        }
        if Instant::now() >= end && !failed().contains(&0) && !ended.is_empty() {
            break;
        }
        let pause = Duration::from_millis(draw.random_range(0..1500));
        let ending = if draw.random_bool(0.5) { Ending::Orderly } else { Ending::StoreFirst(pause) };
        ended.push(running.end(&world, ending).await);
        running = Running::start(folder, &world).await;
        if draw.random_bool(0.5) {
            compact(&*running.store, &world, world.log.reached()).await;
        }
    }
    world.over.cancel();
    while let Some(stopped) = timeout(2 * PATIENCE, actors.join_next()).await.expect("all see what there is") {
        stopped.unwrap();
    }
    let [obeyed, ignored] = failed();
    let changes = world.log.len();
    println!(
        "{counts:?}, {changes} changes, {} restarts, webhook failures {obeyed} obeyed and {ignored} ignored",
        ended.len()
    );

    delete_all(&world).await;
    compact(&*running.store, &world, world.log.reached()).await;
    world.log.forget();
    running.store.checkpoint().await.expect("the store writes a checkpoint");
    let rest = settle(&world, load.settle).await;
    ended.push(running.end(&world, Ending::Orderly).await);
    all_gone(&ended).await;
    rest
}

/// Begins to write, list and watch.
fn actors(load: &Load, world: &Arc<World>, counts: &Arc<Counts>) -> JoinSet<()> {
    let mut actors = JoinSet::new();
    for number in 0..WRITERS {
        let (world, counts, choices) = (world.clone(), counts.clone(), choices(load.seed, number));
        actors.spawn(Writer { world, counts, number, pace: Duration::from_millis(30), choices }.run());
    }
    for number in 0..LISTERS {
        let (pace, choices) = (Duration::from_millis(100), choices(load.seed, WRITERS + number));
        actors.spawn(keep_listing(world.clone(), counts.clone(), (number, pace), choices));
    }
    for number in 0..load.watchers {
        let choices = choices(load.seed, WRITERS + LISTERS + number);
        actors.spawn(keep_watching(world.clone(), counts.clone(), (number, load.longest), choices));
    }
    actors
}

/// Deletes the objects of all writers, collection by collection.
async fn delete_all(world: &World) {
    let plane = world.plane().await;
    for (at, namespace) in NAMESPACES.iter().enumerate() {
        for collection in 0..2 {
            let (delete, list) = (DeleteOptions::default(), ListOptions::default());
            let deleted = plane.client(at).delete_collection(&resource(collection), namespace, delete, list).await;
            deleted.expect("a collection is deleted");
        }
    }
}

/// Waits, with a write now and then so that what is old is dropped, and looks at the process.
async fn settle(world: &World, time: Duration) -> Rest {
    let (begun, plane) = (Instant::now(), world.plane().await);
    loop {
        for collection in 0..2 {
            let request = |verb| Request {
                resource: resource(collection),
                namespace: "default".to_owned(),
                name: "touched".to_owned(),
                subresource: String::new(),
                verb,
            };
            let body =
                json!({"metadata": {"name": "touched", "labels": {"group": "red"}, "annotations": {"serial": "0"}}});
            let client = plane.client(0);
            client.request(request(Verb::Create(body, WriteOptions::default()))).await.unwrap();
            client.request(request(Verb::Delete(DeleteOptions::default()))).await.unwrap();
        }
        if begun.elapsed() >= time {
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
            return Rest { revision: world.log.reached(), resident_kib: resident_kib(), tasks, files };
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until nothing holds a store that was closed.
async fn all_gone(ended: &[Weak<DurableStore>]) {
    let begun = Instant::now();
    while ended.iter().any(|store| store.strong_count() > 0) {
        assert!(begun.elapsed() < PATIENCE, "something of a control plane that has ended is still there");
        sleep(Duration::from_millis(20)).await;
    }
}
