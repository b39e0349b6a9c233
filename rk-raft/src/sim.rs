//! A whole group in a deterministic simulation, and the checkers of what its clients saw.
//!
//! A run is decided by its seed alone: members, clients and everything that goes wrong live in one thread, their clock is tokio's paused
//! one, and every choice comes from the seed. So a run takes a fraction of a second for half a minute of the group's life, and one that
//! fails can be looked at again and again.
//!
//! ```text
//! clients, watchers, owners of leases, ─► members ◄─► network: delays, losses, cuts
//! an operator who changes the members        │ │
//!    │                                       │ └─► disks that forget what was not synced; clocks that do not agree
//!    └─► history                             └─► the log, as every member shows it
//!           └─────────────► checks ◄────────────┘
//! ```
//! What is checked:
//! - the history of reads and transactions is linearizable ([`linear`], [`kv`]), and revisions follow real time;
//! - every acknowledged change is in the log, each once, and the log is the same at all members;
//! - watches deliver exactly what the log holds, in order, or say that it was compacted;
//! - no lease ends early, and those forgotten end;
//! - in each term one member leads;
//! - the members are those that the operator was told of; those removed end, and end again when they are started again;
//! - once nothing goes wrong any more, every member works again within a bounded time, and all hold the same.
//!
//! ```
//! let report = rk_raft::sim::run(7, &rk_raft::sim::Options::default());
//! assert_eq!(report.violations, [""; 0]);
//! assert!(report.operations > 100);
//! ```

mod client;
mod clocks;
mod disk;
mod faults;
mod group;
mod history;
pub mod kv;
mod leases;
pub mod linear;
mod network;
mod operator;
mod scene;
mod trace;
mod watching;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::{join, join_all};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_store::{Cluster, MemberId};
use tokio::time::{sleep, timeout};

pub use self::scene::{Clients, Finished, RECOVERY, Scene};
use self::{group::Group, trace::Trace};

/// What a run is like, apart from what its seed decides.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How long things go wrong, by the group's clock.
    pub time: Duration,
    /// Whether what happens is printed.
    pub verbose: bool,
    /// A bug to be planted.
    #[cfg(feature = "planted-bugs")]
    pub bug: Option<rk_store::planted::Bug>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(15),
            verbose: false,
            #[cfg(feature = "planted-bugs")]
            bug: None,
        }
    }
}

/// What came out of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The run's seed.
    pub seed: u64,
    /// A number of all that happened: the same for the same seed.
    pub trace: u64,
    /// Transactions and reads that were recorded.
    pub operations: usize,
    /// Revisions made.
    pub revisions: u64,
    /// Events delivered to watchers.
    pub events: usize,
    /// Revisions that no member was seen to show before they were compacted.
    pub unseen: u64,
    /// Whether the search for an order of the history was given up.
    pub undecided: bool,
    /// Promises that were broken.
    pub violations: Vec<String>,
}

/// Runs the simulation of a seed.
///
/// # Panics
/// If no runtime can be made.
pub fn run(seed: u64, options: &Options) -> Report {
    #[cfg(feature = "planted-bugs")]
    rk_store::planted::plant(options.bug);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(simulate(seed, options))
}

/// The command that runs a seed again with these options and tells all that happens.
pub fn replay(seed: u64, options: &Options) -> String {
    let (feature, bug) = planted(options);
    let time = match options.time {
        time if time == Options::default().time => String::new(),
        time => format!(" --seconds {}", time.as_secs()),
    };
    format!(
        "cargo run --release -p rk-raft --features {feature} --example simulate -- --verbose --seed {seed}{time}{bug}"
    )
}

/// The feature that a run needs, and how it is told which bug to plant.
#[cfg(feature = "planted-bugs")]
fn planted(options: &Options) -> (&'static str, String) {
    match options.bug {
        Some(bug) => ("planted-bugs", format!(" --bug {bug:?}")),
        None => ("testing", String::new()),
    }
}

#[cfg(not(feature = "planted-bugs"))]
fn planted(_: &Options) -> (&'static str, &'static str) {
    ("testing", "")
}

async fn simulate(seed: u64, options: &Options) -> Report {
    let mut random = StdRng::seed_from_u64(seed);
    let trace = Trace::new(options.verbose);
    let size = if random.random_bool(0.7) { 3 } else { 5 };
    let group = Group::new(size, seed, options.time, &mut random, trace.clone());
    join_all(group.ids().into_iter().map(|id| group.start(id))).await;
    let until = u64::try_from(options.time.as_millis()).unwrap_or(u64::MAX);
    let clients = Clients::start(&group.scene, &mut random, until, RECOVERY);
    let faults = tokio::spawn(faults::make(group.clone(), random.random(), until));
    let changes = if random.random_bool(0.5) { until } else { 0 };
    let operator = tokio::spawn(operator::operate(group.clone(), random.random(), changes));
    let (clients, faults) = join(clients.finish(), faults).await;
    faults.expect("what makes faults does not panic");

    trace.tell(|| "all faults end".into());
    group.network.cut(Default::default());
    group.network.set_quality(Default::default());
    // The operator ends what was begun.
    let Ok(Ok(members)) = timeout(RECOVERY, operator).await else {
        trace.violation(format!("the members can't be changed {RECOVERY:?} after the last fault"));
        return clients.give_up(seed);
    };
    let revision = recover(&group, &members).await;
    same_members(&group, &members).await;
    clients.check(&members.keys().copied().collect::<Vec<_>>(), revision, seed).await
}

/// Sees that every member works again and that those removed end; the revision that all have reached.
async fn recover(group: &Arc<Group>, members: &BTreeMap<MemberId, bool>) -> u64 {
    let trace = &group.trace;
    let work = async {
        let mut revision = 0;
        for id in members.keys() {
            revision = revision.max(work_again(group, *id).await);
        }
        let former = group.former(members).into_iter().map(|id| async move {
            see_end(group, id, members).await;
            group.trace.tell(|| format!("member {id} is started again"));
            group.start(id).await;
            see_end(group, id, members).await;
        });
        join_all(former).await;
        revision
    };
    match timeout(RECOVERY, work).await {
        Ok(revision) => revision,
        Err(_) => {
            trace.violation(format!("not every member works or has ended {RECOVERY:?} after the last fault"));
            0
        }
    }
}

/// Has a member make a change; its revision.
async fn work_again(group: &Arc<Group>, id: MemberId) -> u64 {
    let start = async {
        loop {
            group.start(id).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        biased;
        revision = group.scene.works(id) => revision,
        () = start => 0,
    }
}

/// Time in which a member that was removed must have ended, if it knows anyone who can tell it that it was.
const END: Duration = Duration::from_secs(6);

/// Waits until a member that was removed has ended.
async fn see_end(group: &Arc<Group>, id: MemberId, members: &BTreeMap<MemberId, bool>) {
    let begin = group.trace.now();
    while !group.has_left(id) {
        group.start(id).await;
        sleep(Duration::from_millis(200)).await;
        let late = u128::from(group.trace.now() - begin) > END.as_millis();
        if let Some(store) = group.member(id).filter(|_| late)
            && let Ok(known) = store.members(false).await
            && !known.iter().any(|known| members.contains_key(&known.id))
        {
            return group.trace.tell(|| format!("member {id} knows nobody who is still there"));
        }
    }
}

/// Checks that all members know the same members.
async fn same_members(group: &Arc<Group>, members: &BTreeMap<MemberId, bool>) {
    for id in members.keys() {
        let Some(store) = group.member(*id) else { continue };
        match store.members(true).await {
            Ok(found) if operator::of(&found) == *members => {}
            found => group.trace.violation(format!("the members are {members:?}, and to member {id} {found:?}")),
        }
    }
}
