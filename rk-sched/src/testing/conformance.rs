//! What every plugin has to keep to, tried on random clusters.

use std::{collections::BTreeSet, sync::Arc};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    objects::{Objects, give_volumes},
    random_node, random_pod,
};
use crate::{
    framework::{
        Candidates, ClusterEvent, Code, CycleState, Hint, MAX_SCORE, MIN_SCORE, NodeScore, PreFilter, Profile,
        Refusals, Score, Status,
    },
    model::{NodeIndex, NodeInfo, PodInfo, Snapshot},
};

/// A rule that a plugin broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{plugin}, seed {seed}: {rule}")]
pub struct Violation {
    /// The plugin.
    pub plugin: String,
    /// The seed of the cluster on which it happened.
    pub seed: u64,
    /// The rule, and how it was broken.
    pub rule: String,
}

/// Tries every plugin of a profile on the random clusters of these seeds.
///
/// The clusters have nodes, pods, and claims and volumes with all that decides where they can be used.
///
/// The rules: names are unique and not empty; Filter answers yes or no, gives a reason for a no, and gives
/// the same answer to the same question; the batch forms of Filter and Score answer as those per node; PreFilter too is repeatable, and its `add_pod` and `remove_pod` undo each other;
/// normalized scores are within [`MIN_SCORE`] and [`MAX_SCORE`]; and a hint never skips an event that turns a no into a yes.
///
/// # Errors
/// The first rule that is broken.
pub fn conformance(profile: &Profile, seeds: impl IntoIterator<Item = u64>) -> Result<(), Violation> {
    let mut names = BTreeSet::new();
    for enabled in profile.enabled() {
        let name = enabled.plugin.name();
        if name.is_empty() || !names.insert(name) {
            let rule = "a plugin's name is unique and not empty".to_owned();
            return Err(Violation { plugin: name.to_owned(), seed: 0, rule });
        }
    }
    for seed in seeds {
        Trial::new(seed).run(profile)?;
    }
    Ok(())
}

/// A plugin as the suite asks it.
struct Asked<'a> {
    enabled: &'a crate::framework::Enabled,
    seed: u64,
}

impl Asked<'_> {
    fn broken(&self, rule: impl Into<String>) -> Violation {
        Violation { plugin: self.enabled.plugin.name().to_owned(), seed: self.seed, rule: rule.into() }
    }

    /// The state after PreFilter. Err is a no for all nodes; `None` if there is nothing to filter.
    fn pre_filter(&self, pod: &PodInfo, snapshot: &Snapshot) -> Result<Result<Option<CycleState>, Status>, Violation> {
        let mut state = CycleState::default();
        let Some(plugin) = &self.enabled.points.pre_filter else { return Ok(Ok(Some(state))) };
        match plugin.pre_filter(&mut state, pod, snapshot) {
            Ok(_) => Ok(Ok(Some(state))),
            Err(status) if status.is_skip() => Ok(Ok(None)),
            Err(status) if status.is_rejected() => Ok(Err(status)),
            Err(status) => Err(self.broken(format!("PreFilter answers yes, no or skip, not {status}"))),
        }
    }

    /// The answers of Filter for all nodes.
    fn answers(
        &self,
        state: Option<&CycleState>,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Vec<Status>, Violation> {
        let (Some(plugin), Some(state)) = (&self.enabled.points.filter, state) else {
            return Ok(snapshot.nodes().map(|_| Status::success()).collect());
        };
        let mut answers = Vec::new();
        for (_, node) in snapshot.nodes() {
            let status = plugin.filter(state, pod, node);
            if !status.is_success() && !status.is_rejected() {
                return Err(self.broken(format!("Filter answers yes or no, not {status}")));
            }
            if status.is_rejected() && status.reasons().all(str::is_empty) {
                return Err(self.broken("a no of Filter has a reason"));
            }
            if plugin.filter(state, pod, node) != status {
                return Err(self.broken(format!("Filter gives the same answer to the same question (first {status})")));
            }
            answers.push(status);
        }
        Ok(answers)
    }

    /// Whether each node would do, as far as this plugin is concerned.
    fn verdict(&self, pod: &PodInfo, snapshot: &Snapshot) -> Result<Vec<bool>, Violation> {
        match self.pre_filter(pod, snapshot)? {
            Ok(state) => Ok(self.answers(state.as_ref(), pod, snapshot)?.iter().map(Status::is_success).collect()),
            Err(_) => Ok(snapshot.nodes().map(|_| false).collect()),
        }
    }

    fn check_repeatable(&self, pod: &PodInfo, snapshot: &Snapshot) -> Result<(), Violation> {
        if self.verdict(pod, snapshot)? == self.verdict(pod, snapshot)? {
            return Ok(());
        }
        Err(self.broken("PreFilter and Filter give the same answer to the same question"))
    }

    fn check_batch(&self, pod: &PodInfo, snapshot: &Snapshot) -> Result<(), Violation> {
        let (Some(plugin), Ok(Some(state))) = (&self.enabled.points.filter, self.pre_filter(pod, snapshot)?) else {
            return Ok(());
        };
        let nodes: Vec<NodeIndex> = snapshot.nodes().map(|(index, _)| index).collect();
        let mut refusals = Refusals::default();
        let mut candidates = Candidates::new(snapshot, nodes.clone(), &mut refusals);
        plugin.filter_batch(&state, pod, &mut candidates);
        let left =
            candidates.finish().map_err(|status| self.broken(format!("Filter answers yes or no, not {status}")))?;
        for (node, answer) in nodes.into_iter().zip(self.answers(Some(&state), pod, snapshot)?) {
            let batch = match refusals.get(node) {
                Some(status) => status.clone(),
                None if left.contains(&node) => Status::success(),
                None => return Err(self.broken("the batch form of Filter answers for all nodes")),
            };
            if batch != answer {
                return Err(
                    self.broken(format!("the batch form of Filter answers as that per node: {batch}, {answer}"))
                );
            }
        }
        Ok(())
    }

    fn check_inverse(
        &self,
        pod: &PodInfo,
        other: &PodInfo,
        node: NodeIndex,
        snapshot: &Snapshot,
    ) -> Result<(), Violation> {
        let Some(plugin) = &self.enabled.points.pre_filter else { return Ok(()) };
        let Ok(Some(mut state)) = self.pre_filter(pod, snapshot)? else { return Ok(()) };
        let before = self.answers(Some(&state), pod, snapshot)?;
        let node = snapshot.node(node);
        let plugin: &dyn PreFilter = plugin.as_ref();
        plugin.add_pod(&mut state, pod, other, node);
        plugin.remove_pod(&mut state, pod, other, node);
        if self.answers(Some(&state), pod, snapshot)? == before {
            return Ok(());
        }
        Err(self.broken("remove_pod undoes add_pod"))
    }

    fn check_scores(&self, pod: &PodInfo, snapshot: &Snapshot) -> Result<(), Violation> {
        let Some((plugin, _)) = &self.enabled.points.score else { return Ok(()) };
        let plugin: &dyn Score = plugin.as_ref();
        let nodes: Vec<NodeIndex> = snapshot.nodes().map(|(index, _)| index).collect();
        let mut state = CycleState::default();
        if let Some(pre_score) = &self.enabled.points.pre_score {
            let status = pre_score.pre_score(&mut state, pod, snapshot, &nodes);
            if status.is_skip() {
                return Ok(());
            }
            if status.code() != Code::Success {
                return Err(self.broken(format!("PreScore answers yes or skip, not {status}")));
            }
        }
        let mut scores = Vec::new();
        for node in nodes {
            let score = plugin.score(&state, pod, snapshot.node(node));
            let score = score.map_err(|status| self.broken(format!("Score answers a number, not {status}")))?;
            scores.push(NodeScore { node, score });
        }
        let mut batch: Vec<_> = scores.iter().map(|score| NodeScore { score: i64::MIN, ..*score }).collect();
        let scored = plugin.score_batch(&state, pod, snapshot, &mut batch);
        scored.map_err(|status| self.broken(format!("Score answers a number, not {status}")))?;
        if batch != scores {
            return Err(self.broken(format!("the batch form of Score answers as that per node: {batch:?}, {scores:?}")));
        }
        let normalized = plugin.normalize(&state, pod, &mut scores);
        normalized.map_err(|status| self.broken(format!("normalize does not fail: {status}")))?;
        match scores.iter().find(|score| !(MIN_SCORE..=MAX_SCORE).contains(&score.score)) {
            Some(score) => Err(self.broken(format!("scores are from {MIN_SCORE} to {MAX_SCORE}: {}", score.score))),
            None => Ok(()),
        }
    }

    /// After `event` the snapshot is as given: if that made a node do that did not before, the hint has to say so.
    fn check_hint(
        &self,
        pod: &PodInfo,
        before: &[bool],
        event: &ClusterEvent,
        snapshot: &Snapshot,
    ) -> Result<(), Violation> {
        // Only a pod that no node would do for waits for events.
        if before.iter().any(|fits| *fits) || !self.verdict(pod, snapshot)?.iter().any(|fits| *fits) {
            return Ok(());
        }
        if self.enabled.plugin.hint(pod, event) == Hint::Queue {
            return Ok(());
        }
        let (name, kind) = (&pod.name, event.name());
        Err(self.broken(format!("a hint does not skip an event that makes a pod fit ({kind}, pod {name})")))
    }
}

/// A random cluster.
struct Trial {
    seed: u64,
    random: StdRng,
    snapshot: Snapshot,
    nodes: usize,
    placed: Vec<Arc<str>>,
    pods: usize,
    objects: Objects,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut trial = Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            snapshot: Snapshot::default(),
            nodes: 0,
            placed: Vec::new(),
            pods: 0,
            objects: Objects::default(),
        };
        for _ in 0..trial.random.random_range(1..6) {
            trial.add_node();
        }
        for _ in 0..trial.random.random_range(0..40) {
            trial.objects.change(&mut trial.random, &mut trial.snapshot);
        }
        for _ in 0..trial.random.random_range(0..12) {
            trial.place_pod();
        }
        trial
    }

    fn add_node(&mut self) -> ClusterEvent {
        let node = Arc::new(random_node(&mut self.random, self.nodes));
        self.nodes += 1;
        self.snapshot.set_node(Arc::clone(&node));
        ClusterEvent::NodeAdd(Arc::new(NodeInfo::new(node)))
    }

    fn pod(&mut self) -> Arc<PodInfo> {
        self.pods += 1;
        let mut pod = random_pod(&mut self.random, self.pods);
        if self.random.random_bool(0.4) {
            give_volumes(&mut self.random, &mut pod);
        }
        Arc::new(PodInfo::new(Arc::new(pod)))
    }

    fn some_node(&mut self) -> NodeIndex {
        let at = self.random.random_range(0..self.snapshot.len());
        self.snapshot.order()[at]
    }

    fn place_pod(&mut self) -> ClusterEvent {
        let (pod, node) = (self.pod(), self.some_node());
        let name = Arc::clone(&self.snapshot.node(node).name);
        self.placed.push(Arc::clone(&pod.uid));
        self.snapshot.set_pod(Arc::clone(&pod), &name);
        ClusterEvent::AssignedPodAdd(pod)
    }

    fn change(&mut self) -> ClusterEvent {
        match self.random.random_range(0..8) {
            4.. => ClusterEvent::Object(self.objects.change(&mut self.random, &mut self.snapshot)),
            0 => self.add_node(),
            1 => self.place_pod(),
            2 => {
                let index = self.some_node();
                let old = Arc::clone(&self.snapshot.node(index).node);
                let mut new = random_node(&mut self.random, 0);
                new.metadata.name.clone_from(&old.metadata.name);
                let new = Arc::new(new);
                self.snapshot.set_node(Arc::clone(&new));
                let info = |node| Arc::new(NodeInfo::new(node));
                ClusterEvent::NodeUpdate { old: info(old), new: info(new) }
            }
            _ if self.placed.is_empty() => self.place_pod(),
            _ => {
                let at = self.random.random_range(0..self.placed.len());
                let uid = self.placed.swap_remove(at);
                let gone = self.snapshot.remove_pod(&uid).expect("placed pods are in the snapshot");
                ClusterEvent::AssignedPodDelete(gone)
            }
        }
    }

    fn run(mut self, profile: &Profile) -> Result<(), Violation> {
        let waiting: Vec<Arc<PodInfo>> = (0..6).map(|_| self.pod()).collect();
        let all: Vec<Asked<'_>> = profile.enabled().iter().map(|enabled| Asked { enabled, seed: self.seed }).collect();
        for asked in &all {
            for pod in &waiting {
                asked.check_repeatable(pod, &self.snapshot)?;
                asked.check_batch(pod, &self.snapshot)?;
                let (other, node) = (self.pod(), self.some_node());
                asked.check_inverse(pod, &other, node, &self.snapshot)?;
                asked.check_scores(pod, &self.snapshot)?;
            }
        }
        for _ in 0..20 {
            let mut before = Vec::new();
            for asked in &all {
                for pod in &waiting {
                    before.push(asked.verdict(pod, &self.snapshot)?);
                }
            }
            let event = self.change();
            let mut before = before.iter();
            for asked in &all {
                for pod in &waiting {
                    asked.check_batch(pod, &self.snapshot)?;
                    asked.check_scores(pod, &self.snapshot)?;
                    let before = before.next().map(Vec::as_slice).unwrap_or_default();
                    asked.check_hint(pod, before, &event, &self.snapshot)?;
                }
            }
        }
        Ok(())
    }
}
