//! Random groups, extenders, and changes of the cluster while those are asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_sched::{
    engine::{Decision, Engine, Placement, Refusal},
    framework::Status,
};
use tokio::time::Instant;

use super::{extenders::Picky, filler, gang_of, node_of, pod_of};

/// Where others put pods, and the scheduler never does, as the extender is against it.
const ELSEWHERE: &str = "elsewhere";

struct World {
    random: StdRng,
    now: Instant,
    picky: Arc<Picky>,
    engine: Engine,
    /// How many pods each gang needs.
    minimum: BTreeMap<String, usize>,
    /// Pods that wait, by name, with their gang.
    waiting: BTreeMap<String, String>,
    /// Pods on nodes, by name, with the node.
    bound: BTreeMap<String, String>,
    /// Who has to go.
    evicted: BTreeSet<String>,
    pods: usize,
    /// How often anything was changed while extenders were asked, and how often less important pods had to go.
    raced: usize,
    evictions: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let (picky, now) = (Picky::new(&["n0", "n1", "n2"]), Instant::now());
        let mut engine = picky.engine(seed, now);
        for name in ["n0", "n1", "n2", ELSEWHERE] {
            engine.set_node(node_of(name, if name == ELSEWHERE { "100" } else { "4" }), now);
        }
        Self {
            random: StdRng::seed_from_u64(seed),
            now,
            picky,
            engine,
            minimum: BTreeMap::new(),
            waiting: BTreeMap::new(),
            bound: BTreeMap::new(),
            evicted: BTreeSet::new(),
            pods: 0,
            raced: 0,
            evictions: 0,
        }
    }

    fn pod(&self, name: &str, node: Option<&str>) -> Pod {
        let gang = name.split_once('-').map(|(gang, _)| gang);
        let mut pod = (*pod_of(name, gang, "1", 5)).clone();
        pod.spec.as_mut().unwrap().node_name = node.map(str::to_owned);
        pod
    }

    fn on_nodes(&self, gang: &str) -> usize {
        self.bound.keys().filter(|name| name.split_once('-').is_some_and(|(of, _)| of == gang)).count()
    }

    fn some(&mut self, names: Vec<String>) -> Option<String> {
        let at = self.random.random_range(0..names.len().max(1));
        names.into_iter().nth(at)
    }

    /// Somebody else does something.
    fn change(&mut self) {
        match self.random.random_range(0..6) {
            0 | 1 => {
                let Some(name) = self.some(self.waiting.keys().cloned().collect()) else { return };
                self.waiting.remove(&name);
                self.engine.remove_pod(&name, self.now);
            }
            2 => {
                let Some(name) = self.some(self.waiting.keys().cloned().collect()) else { return };
                self.waiting.remove(&name);
                self.bound.insert(name.clone(), ELSEWHERE.to_owned());
                self.engine.set_pod(Arc::new(self.pod(&name, Some(ELSEWHERE))), self.now);
            }
            3 => {
                let Some(name) = self.some(self.bound.keys().cloned().collect()) else { return };
                self.go(&name);
            }
            4 => {
                self.pods += 1;
                let name = format!("f{}", self.pods);
                self.bound.insert(name.clone(), ELSEWHERE.to_owned());
                self.engine.set_pod(filler(&name, ELSEWHERE, "1"), self.now);
            }
            _ => {
                let Some(gang) = self.some(self.minimum.keys().cloned().collect()) else { return };
                self.add_member(&gang);
            }
        }
    }

    /// A pod on a node is gone.
    fn go(&mut self, name: &str) {
        self.bound.remove(name);
        self.evicted.remove(name);
        self.engine.remove_pod(name, self.now);
    }

    fn add_member(&mut self, gang: &str) {
        self.pods += 1;
        let name = format!("{gang}-{}", self.pods);
        self.waiting.insert(name.clone(), gang.to_owned());
        self.engine.set_pod(Arc::new(self.pod(&name, None)), self.now);
    }

    fn add_gang(&mut self) {
        let (name, least) = (format!("g{}", self.minimum.len()), self.random.random_range(1..4));
        self.engine.set_group("default", &name, Some(gang_of(&name, least)), self.now);
        self.minimum.insert(name.clone(), least);
        for _ in 0..least + self.random.random_range(0..2) {
            self.add_member(&name);
        }
    }

    /// Less important pods fill nodes.
    fn fill(&mut self) {
        let node = format!("n{}", self.random.random_range(0..3));
        let used = self.bound.values().filter(|on| **on == node).count();
        if used < 4 {
            self.pods += 1;
            let name = format!("f{}", self.pods);
            self.bound.insert(name.clone(), node.clone());
            self.engine.set_pod(filler(&name, &node, "1"), self.now);
        }
    }

    /// All decisions that there are now. While extenders are asked about the first, things change.
    async fn decide(&mut self, races: bool) {
        let mut placed = BTreeSet::new();
        let mut first = races;
        while let Some(mut decision) = self.engine.next(self.now) {
            while let Decision::Ask(question) = decision {
                let answer = question.ask().await;
                if first && self.random.random_bool(0.3) {
                    self.raced += 1;
                    self.change();
                }
                decision = self.engine.answer(*question, answer, self.now);
            }
            first = false;
            match decision {
                Decision::Place(placement) => {
                    placed.extend(placement.pod.name.split_once('-').map(|(gang, _)| gang.to_owned()));
                    self.bind(&placement);
                }
                Decision::Refused(refusal) => self.refused(&refusal),
                _ => {}
            }
        }
        for gang in placed {
            let (on_nodes, least) = (self.on_nodes(&gang), self.minimum[&gang]);
            assert!(on_nodes >= least, "{on_nodes} of {gang} are placed, {least} have to be");
        }
    }

    fn bind(&mut self, placement: &Placement) {
        let (name, node) = (placement.pod.name.to_string(), placement.node.to_string());
        assert!(self.waiting.remove(&name).is_some(), "{name} is placed, and does not wait");
        let snapshot = self.engine.snapshot();
        let info = snapshot.node(snapshot.find(&node).unwrap());
        assert!(info.requested.milli_cpu <= info.allocatable.milli_cpu, "{node} is given too much, with {name}");
        assert!(self.engine.bound(&placement.pod.uid, Status::success(), self.now).is_none());
        self.engine.set_pod(Arc::new(self.pod(&name, Some(&node))), self.now);
        self.bound.insert(name, node);
    }

    fn refused(&mut self, refusal: &Refusal) {
        assert!(self.waiting.contains_key(&*refusal.pod.name), "{} is refused, and does not wait", refusal.pod.name);
        for victim in refusal.eviction.iter().flat_map(|eviction| &eviction.victims) {
            self.evictions += 1;
            assert!(victim.name.starts_with('f'), "{} is no less important", victim.name);
            self.evicted.insert(victim.name.to_string());
        }
    }

    /// The engine sees what there is, and keeps nothing else.
    fn check(&self) {
        let snapshot = self.engine.snapshot();
        let seen = snapshot.nodes().flat_map(|(_, node)| {
            node.pods.iter().map(move |entry| (entry.pod.name.to_string(), node.name.to_string()))
        });
        assert_eq!(seen.collect::<BTreeMap<_, _>>(), self.bound);
        let (active, backoff, unschedulable) = self.engine.counts();
        assert_eq!(active + backoff + unschedulable, self.waiting.len(), "{:?} wait", self.waiting);
    }

    async fn run(&mut self) {
        for _ in 0..60 {
            self.now += Duration::from_millis(self.random.random_range(1..4000));
            match self.random.random_range(0..5) {
                0 if self.minimum.len() < 5 => self.add_gang(),
                1 | 2 => self.fill(),
                3 => {
                    let Some(name) = self.some(self.evicted.iter().cloned().collect()) else { continue };
                    self.go(&name);
                }
                _ => {}
            }
            self.decide(true).await;
            self.check();
        }
        // In the end there is room for all.
        for name in std::mem::take(&mut self.evicted) {
            self.go(&name);
        }
        self.picky.leaves.lock().insert("large".to_owned());
        self.engine.set_node(node_of("large", "1000"), self.now);
        self.decide(false).await;
        while let Some(wake) = self.engine.wake_at().filter(|_| self.engine.counts().1 > 0) {
            self.now = wake.max(self.now);
            self.decide(false).await;
        }
        self.check();
        for (name, gang) in &self.waiting {
            let all = self.on_nodes(gang) + self.waiting.values().filter(|of| *of == gang).count();
            let why = self.engine.explain(name).map(|why| why.to_string()).unwrap_or_default();
            assert!(all < self.minimum[gang], "{name} waits, and {all} of its gang are there: {why}");
        }
    }
}

#[tokio::test]
async fn what_changes_while_extenders_are_asked_about_a_gang_is_seen() {
    let (mut raced, mut evictions) = (0, 0);
    for seed in 0..200 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        world.run().await;
        (raced, evictions) = (raced + world.raced, evictions + world.evictions);
    }
    assert!(raced > 200 && evictions > 20, "{raced} changes, {evictions} evictions");
}
