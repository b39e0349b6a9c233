//! A group as its clients see it, simulated or of real processes: whom they can ask, what they do, and what is made of what they saw.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::{join, join_all};
use parking_lot::Mutex;
use rand::{RngExt, rngs::StdRng};
use rk_store::{Clock, KeyRange, Revision, Store};
use tokio::task::JoinHandle;

use super::{
    Report, client,
    history::History,
    kv, leases,
    linear::Verdict,
    trace::Trace,
    watching::{self, Log},
};
use crate::MemberId;

/// Time after the last fault in which every member must work again.
pub const RECOVERY: Duration = Duration::from_secs(20);
/// Time in which leases that nobody keeps alive must have ended then.
const LAST_LEASES: Duration = Duration::from_secs(12);

/// The members that clients can ask, and where is noted what they see.
pub struct Scene {
    pub(crate) trace: Trace,
    pub(crate) history: History,
    pub(crate) log: Log,
    stores: Mutex<BTreeMap<MemberId, Arc<dyn Store>>>,
    /// The highest revision of which a compaction was asked for.
    compacted: AtomicU64,
    clocks: Mutex<Vec<Clock>>,
}

impl Scene {
    /// A scene without members; with `verbose`, what happens is printed. Time counts from now.
    pub fn new(verbose: bool) -> Arc<Self> {
        Self::with_trace(Trace::new(verbose))
    }

    pub(crate) fn with_trace(trace: Trace) -> Arc<Self> {
        let (history, log) = (History::default(), Log::default());
        Arc::new(Self {
            trace,
            history,
            log,
            stores: Mutex::default(),
            compacted: AtomicU64::new(0),
            clocks: Mutex::default(),
        })
    }

    /// Lets clients ask a member.
    pub fn enter(&self, id: MemberId, store: Arc<dyn Store>) {
        self.stores.lock().insert(id, store);
    }

    /// Keeps clients from asking a member that is known not to run.
    pub fn leave(&self, id: MemberId) {
        self.stores.lock().remove(&id);
    }

    /// Takes down all that a member shows of the log, until it refuses watches.
    pub async fn follow(self: Arc<Self>, id: MemberId, store: Arc<dyn Store>) {
        self.log.clone().follow(id, store, self.trace.clone()).await;
    }

    /// Milliseconds since the scene's begin.
    pub fn now(&self) -> u64 {
        self.trace.now()
    }

    /// Notes something worth reading.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        self.trace.tell(what);
    }

    /// Notes that a promise was broken.
    pub fn violation(&self, what: impl Into<String>) {
        self.trace.violation(what);
    }

    fn store(&self, id: MemberId) -> Option<Arc<dyn Store>> {
        self.stores.lock().get(&id).cloned()
    }

    /// Any member that can be asked.
    pub(crate) fn any(&self, random: &mut StdRng) -> Option<Arc<dyn Store>> {
        let stores = self.stores.lock();
        let at = random.random_range(0..stores.len().max(1));
        stores.values().nth(at).cloned()
    }

    pub(crate) fn note_compaction(&self, revision: Revision) {
        self.compacted.fetch_max(revision, Ordering::Relaxed);
    }

    /// The highest revision of which a compaction was asked for.
    pub(crate) fn compacted(&self) -> Revision {
        self.compacted.load(Ordering::Relaxed)
    }

    /// Adds a clock that leases may end by; without any, they end by the machine's.
    pub(crate) fn add_clock(&self, clock: Clock) {
        self.clocks.lock().push(clock);
    }

    /// The most time that has passed between two moments, in milliseconds of the run, by any member's clock.
    pub(crate) fn longest(&self, from: u64, to: u64) -> Duration {
        let at = |milliseconds| self.trace.begin() + Duration::from_millis(milliseconds);
        let clocks = self.clocks.lock();
        let passed = clocks.iter().map(|clock| clock.shows(at(to)) - clock.shows(at(from)));
        passed.max().unwrap_or(at(to) - at(from))
    }

    /// Has a member make a change, however many tries it takes; its revision.
    pub(crate) async fn works(&self, id: MemberId) -> Revision {
        loop {
            if let Some(store) = self.store(id) {
                let value = format!("after/{id} at {}", self.now());
                match store.put(format!("after/{id}").into(), value.into()).await {
                    Ok(revision) => return revision,
                    Err(error) => self.tell(|| format!("member {id} does not work yet: {error}")),
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sees that each of these members works within [`RECOVERY`] from now on, when all faults have ended; the revision that all have
    /// reached.
    pub async fn all_work(&self, ids: &[MemberId]) -> Revision {
        let all = async {
            let mut revision = 0;
            for id in ids {
                revision = revision.max(self.works(*id).await);
            }
            revision
        };
        tokio::time::timeout(RECOVERY, all).await.unwrap_or_else(|_| {
            self.violation(format!("not every member works {RECOVERY:?} after the last fault"));
            0
        })
    }

    /// Waits until these members have no leases, or should have none.
    async fn wait_for_leases(&self, ids: &[MemberId]) {
        let none_is_left = async {
            for store in ids.iter().filter_map(|id| self.store(*id)) {
                while store.leases().await.is_ok_and(|leases| !leases.is_empty()) {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        };
        if tokio::time::timeout(LAST_LEASES, none_is_left).await.is_err() {
            self.tell(|| format!("leases are left after {LAST_LEASES:?}"));
        }
    }

    /// Checks that these members hold the same, and no lease any more; the revision that they are at.
    async fn same_everywhere(&self, ids: &[MemberId], revision: Revision) -> Revision {
        let mut first: Option<(u64, u64, u64, u32)> = None;
        for id in ids {
            let Some(store) = self.store(*id) else { continue };
            let state = async {
                let leases = store.leases().await?;
                let (status, hash) = (store.status().await?, store.hash_kv(0).await?);
                Ok::<_, rk_store::Error>((leases, (status.revision, status.compact_revision, status.keys, hash.hash)))
            };
            match state.await {
                Ok((leases, state)) => {
                    if !leases.is_empty() {
                        self.violation(format!("nobody keeps leases {leases:?} alive, and member {id} has them"));
                    }
                    if state.0 < revision {
                        self.violation(format!("member {id} is at {state:?}, and {revision} was acknowledged"));
                    }
                    let first = *first.get_or_insert(state);
                    if first != state {
                        self.violation(format!("members differ: {first:?} and, member {id}, {state:?}"));
                    }
                }
                Err(error) => self.violation(format!("member {id} does not tell its state: {error}")),
            }
        }
        first.map_or(0, |state| state.0)
    }
}

/// Clients at work on a scene.
pub struct Clients {
    scene: Arc<Scene>,
    writers: Vec<JoinHandle<()>>,
    owners: Vec<JoinHandle<Vec<leases::Used>>>,
    watchers: Vec<JoinHandle<watching::Watched>>,
    compactor: JoinHandle<()>,
}

impl Clients {
    /// Has clients work until `until` in milliseconds of the scene, and watchers `longer`, so that they are told all. What they do is
    /// decided by `random`.
    pub fn start(scene: &Arc<Scene>, random: &mut StdRng, until: u64, longer: Duration) -> Self {
        let writers = (1..=5).map(|i| tokio::spawn(client::client(scene.clone(), i, random.random(), until)));
        let writers: Vec<_> = writers.collect();
        let owners = (6..=7).map(|i| tokio::spawn(leases::owner(scene.clone(), i, random.random(), until)));
        let owners: Vec<_> = owners.collect();
        let ranges = [KeyRange::all(), KeyRange::prefix("lease/"), KeyRange::prefix("1/"), KeyRange::all()];
        let watchers = ranges.into_iter().enumerate().map(|(i, range)| {
            let until = until + u64::try_from(longer.as_millis()).unwrap_or(0);
            tokio::spawn(watching::watcher(scene.clone(), range, i == 0, random.random(), until))
        });
        let watchers: Vec<_> = watchers.collect();
        let compactor = tokio::spawn(client::compactor(scene.clone(), random.random(), until));
        Self { scene: scene.clone(), writers, owners, watchers, compactor }
    }

    /// Waits until all have done what they do until the time given; watchers go on.
    ///
    /// # Panics
    /// If a client has.
    pub async fn finish(self) -> Finished {
        let Self { scene, writers, owners, watchers, compactor } = self;
        let used = join(join_all(writers), join_all(owners)).await.1;
        compactor.await.expect("the compactor does not panic");
        Finished { scene, used: used.into_iter().flatten().flatten().collect(), watchers }
    }
}

/// Clients that have done their work, and watchers that still follow.
pub struct Finished {
    scene: Arc<Scene>,
    used: Vec<leases::Used>,
    watchers: Vec<JoinHandle<watching::Watched>>,
}

impl Finished {
    /// Checks nothing: the group is not in a state to be checked.
    pub(crate) fn give_up(self, seed: u64) -> Report {
        let (trace, violations) = self.scene.trace.end();
        Report { seed, trace, operations: 0, revisions: 0, events: 0, unseen: 0, undecided: false, violations }
    }

    /// Checks all that is to be checked at the end, when the members `ids` have all reached `revision`.
    pub async fn check(self, ids: &[MemberId], revision: Revision, seed: u64) -> Report {
        let Self { scene, used, watchers } = self;
        let Scene { trace, history, log, .. } = &*scene;
        let watched = join_all(watchers).await;
        scene.wait_for_leases(ids).await;
        let revisions = scene.same_everywhere(ids, revision).await;
        used.iter().for_each(|used| used.check(log, &scene));
        let mut events = 0;
        for watched in watched.into_iter().flatten() {
            watched.check(log, trace);
            events += watched.events();
        }
        let unseen = log.missing(revisions);
        let history = history.operations();
        log.check_writes(&history, scene.compacted(), trace);
        if let Err(reason) = kv::revisions(&history) {
            trace.violation(reason);
        }
        let verdict = kv::check(&history);
        if let Verdict::Violated(reason) = &verdict {
            trace.violation(format!("the history is not linearizable: {reason}"));
        }
        let undecided = matches!(verdict, Verdict::Undecided(_));
        let (trace, violations) = trace.end();
        Report { seed, trace, operations: history.len(), revisions, events, unseen, undecided, violations }
    }
}
