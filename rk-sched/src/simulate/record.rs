//! What is measured while a simulation runs, and what it adds up to.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    statistics::Distribution,
    workload::{Action, Step, Workload},
};
use crate::model::{NodeInfo, PodInfo, Resources, Snapshot};

/// The figures of one run. All are of the cluster's time, so the same seed gives the same figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The run's seed.
    pub seed: u64,
    /// Pods that are measured: none that came with their node.
    pub pods: u64,
    /// Those that got a node.
    pub scheduled: u64,
    /// Those that never did.
    pub unscheduled: u64,
    /// Those that ran to their end.
    pub finished: u64,
    /// Scheduling cycles.
    pub attempts: u64,
    /// Pods that had to go for more important ones.
    pub preemptions: u64,
    /// Runs of pods that failed.
    pub failures: u64,
    /// Pods that were lost with their node.
    pub lost: u64,
    /// Bindings that failed.
    pub failed_bindings: u64,
    /// Seconds from the first measured pod's creation to the last one's end, or binding where it has no end.
    pub makespan: f64,
    /// Measured pods bound per second, from the first one's creation to the last one's binding.
    pub throughput: f64,
    /// Seconds from a measured pod's creation to its binding.
    pub wait: Distribution,
    /// The part of each resource that was requested by pods on nodes, over the time.
    pub utilization: BTreeMap<String, f64>,
    /// The part of what was free of each resource that lay on nodes where a pod drawn at random from the workload did not fit, over the time
    /// (the measure of "Beware of Fragmentation", USENIX ATC 2023).
    pub fragmentation: BTreeMap<String, f64>,
    /// How unevenly nodes were used: the standard deviation of the nodes' use of their most used resource, over the time.
    pub spread: f64,
    /// By value of the label [`Options::share_by`](super::Options::share_by): the part of the requested cores that lay on nodes that have
    /// it, over the time.
    pub shares: BTreeMap<String, f64>,
    /// What the workload waited for in vain; then the rest of it was not done.
    pub stalled: Option<String>,
}

/// A moment of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the start.
    pub seconds: f64,
    /// Pods without a node.
    pub pending: u64,
    /// Pods on nodes.
    pub running: u64,
    /// Nodes.
    pub nodes: u64,
    /// The part of each resource that is requested, in the order of [`Run::resources`](super::Run::resources).
    pub utilization: Vec<f64>,
    /// The fragmentation of each resource.
    pub fragmentation: Vec<f64>,
    /// How unevenly the nodes are used.
    pub spread: f64,
    /// The parts of the requested cores by value of the nodes' label.
    pub shares: BTreeMap<String, f64>,
}

/// More samples than this are thinned out to half.
const SAMPLES: usize = 512;
/// How many sorts of pods stand for the workload where fragmentation is measured.
const SORTS: usize = 8;
/// How many resources are followed.
const RESOURCES: usize = 4;

/// What a pod asks for, by resource.
type Demand = Vec<(Arc<str>, i64)>;

/// Follows a run.
pub(super) struct Recorder {
    /// The resources that are followed: cpu, memory, then the extended ones that pods ask for.
    pub(super) names: Vec<Arc<str>>,
    /// What the most common pods ask for, with the part of the pods that they are.
    sorts: Vec<(Resources, f64)>,
    pub(super) samples: Vec<Sample>,
    interval: Duration,
    next: Duration,
    /// When the first pod came.
    first: Option<Duration>,
    /// Requested and allocatable now, by resource. Sums over all nodes are wider than what one node can have.
    now: Vec<(i128, i128)>,
    /// Sums over time of what was requested and what was there.
    sums: Vec<(f64, f64)>,
    last: Duration,
    pub(super) pending: u64,
    pub(super) running: u64,
    /// Whether the cluster changed since the last sample.
    changed: bool,
    /// The label that the work is shared out by.
    label: Option<String>,
    /// What was found at each node's place.
    uses: Vec<Use>,
}

impl Recorder {
    pub(super) fn new(workload: &Workload, label: Option<&str>) -> Self {
        let mut counts: BTreeMap<Demand, (Resources, u64)> = BTreeMap::new();
        for step in &workload.steps {
            let Step::Play { actions, .. } = step else { continue };
            for (_, action) in actions {
                let Action::CreatePod(job) = action else { continue };
                let Some(spec) = &job.pod.spec else { continue };
                let requests = crate::model::pod_requests(spec);
                let fixed = [("cpu", requests.milli_cpu), ("memory", requests.memory)].map(|(n, a)| (Arc::from(n), a));
                let key = fixed.into_iter().chain(requests.scalars.iter().cloned()).collect();
                counts.entry(key).or_insert((requests, 0)).1 += 1;
            }
        }
        let mut names: Vec<Arc<str>> = vec![Arc::from("cpu"), Arc::from("memory")];
        let extended = counts.values().flat_map(|(requests, _)| &requests.scalars);
        for (name, _) in extended.filter(|(_, amount)| *amount > 0) {
            if !names.contains(name) && names.len() < RESOURCES {
                names.push(Arc::clone(name));
            }
        }
        let mut sorts: Vec<(Resources, u64)> = counts.into_values().collect();
        sorts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        sorts.truncate(SORTS);
        let total = sorts.iter().map(|(_, count)| count).sum::<u64>() as f64;
        Self {
            now: vec![(0, 0); names.len()],
            sums: vec![(0.0, 0.0); names.len()],
            names,
            sorts: sorts.into_iter().map(|(requests, count)| (requests, count as f64 / total)).collect(),
            samples: Vec::new(),
            interval: Duration::from_millis(100),
            next: Duration::ZERO,
            first: None,
            last: Duration::ZERO,
            pending: 0,
            running: 0,
            changed: true,
            label: label.map(str::to_owned),
            uses: Vec::new(),
        }
    }

    /// A pod came.
    pub(super) fn arrived(&mut self, now: Duration) {
        self.first.get_or_insert(now);
        self.last = self.last.max(self.first.unwrap_or(now));
    }

    /// A pod came to a node, or left one.
    pub(super) fn pod(&mut self, pod: &PodInfo, comes: bool) {
        for ((used, _), name) in self.now.iter_mut().zip(&self.names) {
            let amount = i128::from(pod.requests.get(name));
            *used += if comes { amount } else { -amount };
        }
        self.running = if comes { self.running + 1 } else { self.running.saturating_sub(1) };
        self.changed = true;
    }

    /// A node with what pods can have of it came, or left.
    pub(super) fn node(&mut self, allocatable: &Resources, comes: bool) {
        for ((_, total), name) in self.now.iter_mut().zip(&self.names) {
            let amount = i128::from(allocatable.get(name));
            *total += if comes { amount } else { -amount };
        }
        self.changed = true;
    }

    /// Time goes on to `now`; until then the cluster was as it is.
    pub(super) fn advance(&mut self, now: Duration, snapshot: &Snapshot) {
        while self.next <= now {
            self.sample(snapshot);
            self.next += self.interval;
        }
        if self.first.is_some() && now > self.last {
            let passed = (now - self.last).as_secs_f64();
            for ((used, total), (used_sum, total_sum)) in self.now.iter().zip(&mut self.sums) {
                *used_sum += *used as f64 * passed;
                *total_sum += *total as f64 * passed;
            }
            self.last = now;
        }
    }

    fn sample(&mut self, snapshot: &Snapshot) {
        let seconds = self.next.as_secs_f64();
        let sample = match self.samples.last() {
            Some(last) if !self.changed => Sample { seconds, pending: self.pending, ..last.clone() },
            _ => self.look(seconds, snapshot),
        };
        self.keep(sample);
    }

    fn look(&mut self, seconds: f64, snapshot: &Snapshot) -> Sample {
        let (fragmentation, spread) = self.shape(snapshot);
        Sample {
            seconds,
            pending: self.pending,
            running: self.running,
            nodes: snapshot.len() as u64,
            utilization: self.now.iter().map(|(used, total)| part(*used as f64, *total as f64)).collect(),
            fragmentation,
            spread,
            shares: self.label.as_ref().map(|label| shares(label, snapshot)).unwrap_or_default(),
        }
    }

    /// Keeps a sample; too many are thinned out.
    fn keep(&mut self, sample: Sample) {
        self.changed = false;
        self.samples.push(sample);
        if self.samples.len() >= SAMPLES {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            // The next one is an interval behind the last: at an even place of the new grid.
            self.interval *= 2;
            let steps = self.samples.len() as u32;
            self.next = self.interval.saturating_mul(steps) - self.interval;
        }
    }

    /// How fragmented each resource is, and how unevenly the nodes are used. Only nodes that changed since the last time are looked at.
    fn shape(&mut self, snapshot: &Snapshot) -> (Vec<f64>, f64) {
        self.uses.resize_with(snapshot.slots(), Use::default);
        let (mut free, mut lost) = ([0.0; RESOURCES], [0.0; RESOURCES]);
        let (mut sum, mut squares) = (0.0, 0.0);
        for (index, node) in snapshot.nodes() {
            let known = &mut self.uses[index.0 as usize];
            if known.generation != node.generation {
                *known = Use::of(node, &self.names, &self.sorts);
            }
            for ((free, lost), of_node) in free.iter_mut().zip(&mut lost).zip(known.free) {
                *free += of_node;
                *lost += of_node * known.misfit;
            }
            sum += known.most;
            squares += known.most * known.most;
        }
        let nodes = snapshot.len() as f64;
        let mean = part(sum, nodes);
        let spread = (part(squares, nodes) - mean * mean).max(0.0).sqrt();
        let parts = lost.iter().zip(free).take(self.names.len());
        (parts.map(|(lost, free)| part(*lost, free)).collect(), spread)
    }

    /// The means over time, by resource. A run that was over before the first sample is told by how it ended.
    pub(super) fn finish(&mut self, summary: &mut Summary, snapshot: &Snapshot) {
        let first = self.first.unwrap_or_default().as_secs_f64();
        let end = self.look(self.last.as_secs_f64(), snapshot);
        let mut counted: Vec<&Sample> = self.samples.iter().filter(|sample| sample.seconds >= first).collect();
        if counted.is_empty() {
            counted.push(&end);
        }
        let mean = |of: &dyn Fn(&Sample) -> f64| {
            let sum: f64 = counted.iter().map(|sample| of(sample)).sum();
            part(sum, counted.len() as f64)
        };
        for (index, name) in self.names.iter().enumerate() {
            let (used, total) = self.sums[index];
            summary.utilization.insert(name.to_string(), part(used, total));
            summary.fragmentation.insert(name.to_string(), mean(&|sample| sample.fragmentation[index]));
        }
        summary.spread = mean(&|sample| sample.spread);
        let busy: Vec<&&Sample> = counted.iter().filter(|sample| sample.shares.values().sum::<f64>() > 0.0).collect();
        for value in counted.iter().flat_map(|sample| sample.shares.keys()) {
            summary.shares.entry(value.clone()).or_insert_with(|| {
                let sum: f64 = busy.iter().filter_map(|sample| sample.shares.get(value)).sum();
                part(sum, busy.len() as f64)
            });
        }
    }
}

fn part(of: f64, whole: f64) -> f64 {
    if whole > 0.0 { of / whole } else { 0.0 }
}

/// Whether a node has room for what a pod asks for.
fn fits(wanted: &Resources, node: &NodeInfo) -> bool {
    let free = |name: &str| node.allocatable.get(name).saturating_sub(node.requested.get(name));
    let room = |name: &str, amount: i64| amount == 0 || amount <= free(name);
    (node.pods.len() as i64) < node.allowed_pods
        && room("cpu", wanted.milli_cpu)
        && room("memory", wanted.memory)
        && wanted.scalars.iter().all(|(name, amount)| room(name, *amount))
}

/// What is asked of a node when it is looked at.
#[derive(Default)]
struct Use {
    /// The node's, when it was looked at.
    generation: u64,
    /// What is free, by resource.
    free: [f64; RESOURCES],
    /// The part of the workload's pods that do not fit.
    misfit: f64,
    /// The part of its most used resource that is used.
    most: f64,
}

impl Use {
    fn of(node: &NodeInfo, names: &[Arc<str>], sorts: &[(Resources, f64)]) -> Self {
        let misfit = sorts.iter().filter(|(wanted, _)| !fits(wanted, node)).map(|(_, part)| part).sum();
        let mut found = Self { generation: node.generation, misfit, ..Self::default() };
        for (at, name) in names.iter().enumerate() {
            let (total, used) = (node.allocatable.get(name), node.requested.get(name));
            found.free[at] = total.saturating_sub(used).max(0) as f64;
            found.most = found.most.max(part(used as f64, total as f64));
        }
        found
    }
}

/// The part of the requested cores on the nodes of each value of a label; a node without it has the empty one.
fn shares(label: &str, snapshot: &Snapshot) -> BTreeMap<String, f64> {
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    for (_, node) in snapshot.nodes() {
        let value = node.labels().get(label).map(String::as_str).unwrap_or_default();
        let requested = node.requested.milli_cpu as f64;
        match shares.get_mut(value) {
            Some(share) => *share += requested,
            None => drop(shares.insert(value.to_owned(), requested)),
        }
    }
    let total: f64 = shares.values().sum();
    shares.values_mut().for_each(|share| *share = part(*share, total));
    shares
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{objects, workload::Job},
        *,
    };

    fn pod(cpu: &str) -> k8s_openapi::api::core::v1::Pod {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        objects::pod(json!({"spec": {"containers": [container]}}), cpu, "default").unwrap()
    }

    fn workload(cpus: &[&str]) -> Workload {
        let create = |cpu: &&str| {
            let job = Job { pod: Arc::new(pod(cpu)), duration: None, restarts: false };
            (Duration::ZERO, Action::CreatePod(Arc::new(job)))
        };
        let actions = cpus.iter().map(create).collect();
        Workload { name: String::new(), steps: vec![Step::Play { actions, background: false }] }
    }

    fn cluster(free: &[(&str, &str)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (index, (total, used)) in free.iter().enumerate() {
            let node = json!({"status": {"capacity": {"cpu": total, "pods": "10"}}});
            let name = format!("n{index}");
            snapshot.set_node(Arc::new(objects::node(node, &name).unwrap()));
            let mut used = pod(used);
            used.metadata.uid = Some(name.clone());
            snapshot.set_pod(Arc::new(PodInfo::new(Arc::new(used))), &name);
        }
        snapshot
    }

    #[test]
    fn fragmentation_is_what_is_free_where_pods_do_not_fit() {
        // Half of the pods want one core, half two. Free: one core, and three.
        let mut recorder = Recorder::new(&workload(&["1", "2"]), None);
        let (found, _) = recorder.shape(&cluster(&[("4", "3"), ("4", "1")]));
        assert_eq!(found, [0.5 / 4.0, 0.0]);
    }

    #[test]
    fn spread_is_the_standard_deviation_of_use() {
        let spread = |free| Recorder::new(&workload(&[]), None).shape(&cluster(free)).1;
        assert_eq!(spread(&[("4", "2"), ("4", "2")]), 0.0);
        assert_eq!(spread(&[("4", "1"), ("4", "3")]), 0.25);
    }

    #[test]
    fn what_was_found_of_a_node_is_found_anew_once_it_changes() {
        let mut recorder = Recorder::new(&workload(&["1", "2"]), None);
        let mut snapshot = cluster(&[("4", "3"), ("4", "1")]);
        recorder.shape(&snapshot);
        snapshot.remove_pod("n0");
        let fresh = Recorder::new(&workload(&["1", "2"]), None).shape(&snapshot);
        assert_eq!(recorder.shape(&snapshot), fresh);
    }

    #[test]
    fn work_is_shared_out_by_a_label() {
        let shares = shares("kubernetes.io/hostname", &cluster(&[("4", "1"), ("4", "3")]));
        assert_eq!(shares, BTreeMap::from([("n0".to_owned(), 0.25), ("n1".to_owned(), 0.75)]));
        assert_eq!(super::shares("zone", &cluster(&[("4", "1")])), BTreeMap::from([(String::new(), 1.0)]));
    }

    #[test]
    fn utilization_is_weighted_by_time_from_the_first_pod_on() {
        let mut recorder = Recorder::new(&workload(&["1"]), None);
        let snapshot = cluster(&[]);
        let info = PodInfo::new(Arc::new(pod("1")));
        recorder.node(&Resources { milli_cpu: 4000, ..Resources::default() }, true);
        recorder.advance(Duration::from_secs(50), &snapshot);
        recorder.arrived(Duration::from_secs(50));
        recorder.advance(Duration::from_secs(60), &snapshot);
        recorder.pod(&info, true);
        recorder.advance(Duration::from_secs(90), &snapshot);
        let mut summary = Summary::default();
        recorder.finish(&mut summary, &snapshot);
        // A quarter of the cores for 30 of 40 seconds.
        assert_eq!(summary.utilization["cpu"], 0.25 * 30.0 / 40.0);
    }

    #[test]
    fn a_run_that_is_over_before_the_first_sample_is_told_by_its_end() {
        let mut recorder = Recorder::new(&workload(&["1", "2"]), Some("kubernetes.io/hostname"));
        let snapshot = cluster(&[("4", "3"), ("4", "1")]);
        recorder.advance(Duration::from_millis(10), &cluster(&[]));
        recorder.arrived(Duration::from_millis(10));
        recorder.advance(Duration::from_millis(60), &snapshot);
        let mut summary = Summary::default();
        recorder.finish(&mut summary, &snapshot);
        assert_eq!((summary.fragmentation["cpu"], summary.spread), (0.5 / 4.0, 0.25));
        assert_eq!(summary.shares["n1"], 0.25);
    }

    #[test]
    fn sums_over_nodes_are_wider_than_what_a_node_can_have() {
        let mut recorder = Recorder::new(&workload(&["1"]), None);
        let huge = Resources { memory: i64::MAX, ..Resources::default() };
        (0..3).for_each(|_| recorder.node(&huge, true));
        (0..3).for_each(|_| recorder.node(&huge, false));
        assert_eq!(recorder.now, [(0, 0), (0, 0)]);
    }

    #[test]
    fn samples_stay_few_and_evenly_apart() {
        let mut recorder = Recorder::new(&workload(&[]), None);
        recorder.advance(Duration::from_secs(100_000), &cluster(&[]));
        assert!((SAMPLES / 2 - 1..SAMPLES).contains(&recorder.samples.len()), "{}", recorder.samples.len());
        let apart = |pair: &[Sample]| pair[1].seconds - pair[0].seconds;
        let first = apart(&recorder.samples[..2]);
        assert!(recorder.samples.windows(2).all(|pair| (apart(pair) - first).abs() < 1e-6));
        assert_eq!(recorder.samples[0].seconds, 0.0);
    }
}
