//! Feeds damaged and arbitrary bytes to what rk-store, rk-raft and rk-api read from disk and from others: nothing may panic, hang, take memory
//! without bound or be taken for what it is not.
//!
//! `cargo run --profile fuzz -p rk-fuzz -- TARGET [SECONDS [FIRST]]` runs cases one after the other, from number
//! FIRST on, for that much CPU time (600 s). A case is made from its number alone, and a case that fails prints it. Targets:
//! - command, head, log, values, checkpoint, snapshot: what rk-store keeps and backs up;
//! - file: snapshots in etcd's files;
//! - request: what clients send a server of the etcd v3 API;
//! - peer: what members of a raft group send each other;
//! - api: what clients send an API server;
//! - cel: expressions of rules and policies, over an object.

mod api;
mod cel;
mod file;
mod mutate;
mod peer;
mod protobuf;
mod request;
mod targets;

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
};

use self::mutate::Random;

static CASE: AtomicU64 = AtomicU64::new(0);

/// Most bytes of memory that this process may come to, ever: far more than any case needs.
const MOST_MEMORY: u64 = 1 << 30;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let number = |i: usize, otherwise: u64| arguments.get(i).map_or(Ok(otherwise), |text| text.parse::<u64>());
    let target = arguments.first().and_then(|name| targets::find(name));
    let (Some(target), Ok(seconds), Ok(first)) = (target, number(1, 600), number(2, 0)) else {
        eprintln!("usage: rk-fuzz {} [SECONDS [FIRST]]", targets::NAMES.join("|"));
        return ExitCode::FAILURE;
    };
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("case {} fails:", CASE.load(Ordering::Relaxed));
        usual(panic);
        // Wherever it was: a task's panic would stay its own.
        std::process::exit(101);
    }));
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime starts")
    };
    let corpus = runtime().block_on(targets::corpus());
    let mut read = 0_u64;
    let mut case = first;
    while cpu_seconds() < seconds {
        // What cases leave running ends with it.
        let runtime = runtime();
        for _ in 0..100 {
            CASE.store(case, Ordering::Relaxed);
            read += u64::from(runtime.block_on(target(&corpus, &mut Random::new(case))));
            case += 1;
            if cpu_seconds() >= seconds {
                break;
            }
        }
        let memory = most_memory();
        assert!(memory < MOST_MEMORY, "one of the last 100 cases took {memory} bytes of memory");
    }
    println!("{} cases in {} s of CPU time, {read} of them read as whole", case - first, cpu_seconds());
    ExitCode::SUCCESS
}

/// CPU time of this process.
fn cpu_seconds() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which is in brackets: user and system time are the 12th and 13th fields, in hundredths of a second.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) / 100
}

/// The most memory that this process has taken so far.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    kilobytes.unwrap_or(0_u64) << 10
}
