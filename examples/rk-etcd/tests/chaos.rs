//! Three rk-etcd as real processes, each in a network namespace of its own with a disk of its own, while members are killed and
//! paused, cut off from each other and short of space. What clients see over gRPC is judged as in `rk_raft::sim`.
//!
//! All of it lives in namespaces of its own (network, mounts, processes), which the test enters by starting itself again with `unshare`. So
//! no packet leaves them, nothing in them meets other runs, and nothing is left behind, whichever way the test ends.
//!
//! `RK_CHAOS_SECONDS` says how long things go wrong, `RK_CHAOS_SEED` decides what, and `RK_CHAOS_VERBOSE` prints what happens.

#[path = "chaos/faults.rs"]
mod faults;
#[path = "chaos/member.rs"]
mod member;
#[path = "chaos/world.rs"]
mod world;

use std::{process::Command, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_raft::sim::{Clients, Scene};

use member::Group;

/// Set for the process inside the namespaces.
const INSIDE: &str = "RK_CHAOS_INSIDE";

/// How much longer watchers follow: what clients have done last is told by then.
const LONGER: Duration = Duration::from_secs(4);

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text:?}")),
        Err(_) => default,
    }
}

#[test]
fn three_processes_keep_the_promises_whatever_happens_to_them() {
    if std::env::var_os(INSIDE).is_none() {
        if world::can_be_made() {
            run_inside();
        }
        return;
    }
    world::make();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(chaos(number("RK_CHAOS_SEED", 1), number("RK_CHAOS_SECONDS", 20)));
}

/// Runs this test in namespaces of its own, which end with it.
fn run_inside() {
    let mut again = Command::new("unshare");
    again.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    again.arg(std::env::current_exe().unwrap()).arg("--nocapture").env(INSIDE, "1");
    assert!(again.status().unwrap().success(), "see above");
}

async fn chaos(seed: u64, seconds: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let scene = Scene::new(std::env::var_os("RK_CHAOS_VERBOSE").is_some());
    let group = Arc::new(Group::start(&scene));
    scene.all_work(&group.ids()).await;
    let until = scene.now() + seconds * 1000;
    let clients = Clients::start(&scene, &mut random, until, LONGER);
    let faults = tokio::spawn(faults::make(group.clone(), random.random(), until));
    let clients = clients.finish().await;
    // A panic is noted as a violation.
    let _noted = faults.await;
    scene.tell(|| "all faults end".into());
    group.recover();
    // One that has just noticed a full disk ends yet.
    let ids = group.ids();
    let revision = group.supervised(scene.all_work(&ids)).await;
    let report = clients.check(&group.ids(), revision, seed).await;
    group.check_logs(&scene);
    println!("{report:?}\n{}", group.faults());
    if !report.violations.is_empty() {
        group.print_logs();
        let violations = report.violations.join("\n");
        panic!("`RK_CHAOS_SEED={seed} RK_CHAOS_SECONDS={seconds}`:\n{violations}");
    }
    assert!(report.unseen < report.revisions / 10, "too little was seen to be judged");
    assert!(report.operations as u64 > 5 * seconds, "clients could do too little");
}
