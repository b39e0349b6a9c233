//! The cluster around the schedulers: its faults, and what has to hold.

mod bindings;
mod kubelets;
mod settle;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_api::EventRecorder;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, time::Instant};

use crate::{
    api::{Api, Kind},
    plugins::Licences,
    scheduler::Scheduler,
    wire::Wire,
};

/// What a careless scheduler would do, to see that it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A placed pod's node is free again before it is bound.
    ForgetAssumed,
    /// Reserve is not taken back when a binding fails.
    NoUnreserve,
    /// The end of a binding that failed is not told.
    DropOutcome,
    /// A binding whose answer was lost counts as failed.
    BelieveSilence,
    /// What left while a watch was broken is not noticed.
    MissDeletions,
    /// A plugin wants no event that would change its mind.
    Deaf,
    /// A pod that has to wait for a permit does not.
    NoWait,
    /// The pods of a gang are placed one by one.
    NoGangs,
}

impl Bug {
    pub const ALL: [Self; 8] = [
        Self::ForgetAssumed,
        Self::NoUnreserve,
        Self::DropOutcome,
        Self::BelieveSilence,
        Self::MissDeletions,
        Self::Deaf,
        Self::NoWait,
        Self::NoGangs,
    ];
}

const NAMES: [&str; 2] = ["one", "two"];

pub struct World {
    random: StdRng,
    bug: Option<Bug>,
    /// Its clock stands still but for what passes here.
    runtime: Runtime,
    now: Instant,
    events: EventRecorder,
    api: Api,
    schedulers: Vec<Scheduler>,
    licences: Licences,
    leaders: u64,
    pods: u32,
    /// Claims that pods name already, and that are still to be made.
    unborn: Vec<(String, Value)>,
    /// Groups of that kind.
    unborn_groups: Vec<(String, Value)>,
    /// Cores of each node that was; one that comes back has no less.
    sizes: BTreeMap<String, u64>,
    /// How often each pod was bound, by uid.
    bound: BTreeMap<String, u32>,
    /// Uids in the order of their binding.
    order: Vec<String>,
    /// With two schedulers: pods that their kubelet has taken.
    admitted: BTreeSet<String>,
    /// The pods that a pod's scheduler knew on the node when it chose it.
    seen: BTreeMap<String, BTreeSet<String>>,
    /// The uids of the pods of each gang that were placed.
    members: BTreeMap<String, BTreeSet<String>>,
    /// Pods that were allowed to go on to their nodes.
    permitted: BTreeSet<String>,
    faults: bool,
    wrong: Option<String>,
    history: Vec<String>,
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without threads");
        let (now, events) =
            runtime.block_on(async { (Instant::now(), EventRecorder::new(Arc::new(Wire::default()), "races", "")) });
        let mut api = Api::default();
        for (name, provisioner) in [("local", "kubernetes.io/no-provisioner"), ("made", "example.com/makes")] {
            let class = json!({"provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});
            api.set(Kind::Class, name, class);
        }
        let mut sizes = BTreeMap::new();
        for number in 0..random.random_range(1..4) {
            let (name, size) = (format!("node-{number}"), random.random_range(4..9));
            api.set(Kind::Node, &name, node(&name, size));
            sizes.insert(name, size);
        }
        let two = seed % 3 == 2;
        let licences = Licences { deaf: bug == Some(Bug::Deaf), ..Licences::default() };
        licences.limit.store(random.random_range(1..4), Ordering::Relaxed);
        let names = &NAMES[..if two { 2 } else { 1 }];
        let start = |name: &&'static str| Scheduler::start(name, seed, licences.clone(), bug, &api, now);
        let schedulers = names.iter().map(start).collect();
        Self {
            random,
            bug,
            runtime,
            now,
            events,
            api,
            schedulers,
            licences,
            leaders: seed,
            pods: 0,
            unborn: Vec::new(),
            unborn_groups: Vec::new(),
            sizes,
            bound: BTreeMap::new(),
            order: Vec::new(),
            admitted: BTreeSet::new(),
            seen: BTreeMap::new(),
            members: BTreeMap::new(),
            permitted: BTreeSet::new(),
            faults: true,
            wrong: None,
            history: Vec::new(),
        }
    }

    /// What happened, in order.
    pub fn history(&self) -> &[String] {
        &self.history
    }

    /// A time of faults, then one without.
    ///
    /// # Errors
    /// What did not hold, behind what had happened last.
    pub fn run(&mut self) -> Result<(), String> {
        let steps = self.random.random_range(80..320);
        for _ in 0..steps {
            self.step();
            self.check()?;
        }
        self.settle()
    }

    fn two(&self) -> bool {
        self.schedulers.len() > 1
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// A fault, while there are faults.
    fn fault(&mut self, percent: u32) -> bool {
        self.faults && self.chance(percent)
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        self.history.push(what());
    }

    fn fail(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    fn check(&self) -> Result<(), String> {
        let Some(wrong) = &self.wrong else { return Ok(()) };
        let last = self.history.iter().rev().take(20).rev().cloned().collect::<Vec<_>>();
        Err(format!("{}\n{wrong}", last.join("\n")))
    }

    /// Time passes, for the bindings too.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.runtime.block_on(tokio::time::advance(time));
    }

    fn step(&mut self) {
        let which = self.random.random_range(0..self.schedulers.len());
        match self.random.random_range(0..116) {
            0..12 => self.add_pod(),
            12..17 => self.change_pod(),
            17..22 => self.delete_pod(),
            22..26 => self.change_node(),
            26..30 => self.change_volumes(),
            30..34 => self.volume_controller(),
            34..42 => self.kubelets(),
            42..46 => {
                let time = Duration::from_millis(self.random.random_range(1..5000));
                self.pass(time);
            }
            46 => self.change_leader(which),
            47..49 => {
                let kind = Kind::ALL[self.random.random_range(0..Kind::ALL.len())];
                self.relist(which, kind);
            }
            49..69 => {
                let kind = Kind::ALL[self.random.random_range(0..Kind::ALL.len())];
                self.schedulers[which].hear(kind, &self.api, self.now);
            }
            69..73 => self.schedulers[which].hear(Kind::Pod, &self.api, self.now),
            73..89 => {
                self.cycle(which);
            }
            89..107 => self.advance(which),
            107..113 => self.late(which),
            113..115 => self.permit(which),
            _ => self.evict(which),
        }
    }

    // What happens to schedulers.

    /// The leader is gone in the middle of its work. The next one starts once the lease is over; what was on its way has arrived
    /// by then, or never will.
    fn change_leader(&mut self, which: usize) {
        let calls = std::mem::take(&mut *self.schedulers[which].wire.0.lock());
        for call in calls {
            if self.chance(50) {
                // Nobody hears the answer.
                let _ = self.request(which, &call.request);
            }
        }
        while !self.schedulers[which].late.is_empty() {
            self.late(which);
        }
        self.schedulers[which].bindings.clear();
        self.pass(Duration::from_secs(15));
        self.leaders += 1;
        let name = self.schedulers[which].name;
        self.note(|| format!("{name} has a new leader"));
        let licences = Licences { held: Arc::default(), ..self.licences.clone() };
        self.schedulers[which] = Scheduler::start(name, self.leaders, licences, self.bug, &self.api, self.now);
    }

    fn relist(&mut self, which: usize, kind: Kind) {
        let name = self.schedulers[which].name;
        self.note(|| format!("{name} lists again, {kind:?}"));
        let missing = self.bug == Some(Bug::MissDeletions);
        self.schedulers[which].relist(kind, &self.api, self.now, missing);
    }
}

fn node(name: &str, cores: u64) -> Value {
    json!({
        "metadata": {"labels": {"kubernetes.io/hostname": name}}, "spec": {},
        "status": {"allocatable": {"cpu": cores.to_string(), "pods": "5"}},
    })
}
