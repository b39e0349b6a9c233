//! Races: engines against an API in miniature whose answers get lost, that gets requests long after they were given up, and whose news come late,
//! in another order across kinds, or not at all before the next list; pods, nodes, claims and volumes come, change and go meanwhile, pods wait
//! for permits and for their gangs, leaders change in the middle of bindings, and two schedulers share a cluster. Pods are bound by the real
//! VolumeBinding and DefaultBinder. All of it is decided by a seed, in virtual time.
//!
//! What holds at every step:
//! - With one scheduler no node is ever given more than it has, neither in the API nor in the scheduler's own view.
//! - With two, each is right by what it has seen: where both fill a node at once, the node's kubelet refuses the pod that came last, as
//!   Kubernetes' does, and then the scheduler that placed it had not seen the other's pod yet.
//! - No pod is bound twice, and no binding is tried of a pod that the scheduler knows to be bound or gone.
//! - A pod is bound with its claims bound, to the node where its volume is; one that needs a permit has it; of a gang enough pods are placed at
//!   once.
//!
//! And once the faults stop: no pod waits that fits somewhere, though none is tried again for want of an event; the scheduler's view is that of
//! the API, and with room for all every pod is bound, but for those whose volumes are on other nodes.
//!
//! 200 seeds run with the tests. `RK_SCHED_SEEDS=0..10000 cargo test --release -p rk-sched --features testing --test races` runs others;
//! a failing seed says how to run it alone, which tells all that happened.
#![cfg(feature = "testing")]

mod api;
mod plugins;
mod scheduler;
mod wire;
mod world;

use std::ops::Range;

use world::{Bug, World};

fn seeds(default: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("RK_SCHED_SEEDS") else { return default };
    let number = |text: &str| text.parse::<u64>().expect("RK_SCHED_SEEDS is a seed, or like 0..10000");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&text)..number(&text) + 1,
    }
}

#[test]
fn nothing_is_overcommitted_lost_or_bound_twice() {
    let seeds = seeds(0..200);
    let alone = seeds.end - seeds.start == 1;
    for seed in seeds {
        let mut world = World::new(seed, None);
        if let Err(wrong) = world.run() {
            if alone {
                println!("{}", world.history().join("\n"));
            }
            panic!(
                "{wrong}\nRK_SCHED_SEEDS={seed} cargo test -p rk-sched --features testing --test races -- nothing_is"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        let run = || {
            let mut world = World::new(seed, None);
            world.run().unwrap();
            world.history().to_vec()
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}

#[test]
fn planted_bugs_are_found() {
    for bug in Bug::ALL {
        let found = (0..100).find(|seed| World::new(*seed, Some(bug)).run().is_err());
        let seed = found.unwrap_or_else(|| panic!("{bug:?} is not found in 100 seeds"));
        println!("{bug:?} is found with seed {seed}");
    }
}
