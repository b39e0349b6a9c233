//! Plugins of a user's own at the extension points around binding, and preemption, against the real API server.

mod cluster;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cluster::{Cluster, bound, unscheduled};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use parking_lot::Mutex;
use rk_api::{Api, DeleteOptions, Patch};
use rk_sched::{
    Profile, Registration, Scheduler, SchedulerConfig,
    framework::{
        BindContext, CycleState, Permit, PermitAnswer, Plugin, PostBind, PreBind, Reserve, Status, WaitingPods,
    },
    model::PodInfo,
};
use serde_json::json;

fn config(profile: Profile) -> SchedulerConfig {
    SchedulerConfig { profiles: vec![profile], seed: Some(1), ..SchedulerConfig::default() }
}

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: &str, pod: &PodInfo) {
        self.0.lock().push(format!("{what} {}", pod.name));
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

/// Notes what happens to pods; fails their first PreBinds.
struct Witness {
    log: Log,
    failures: AtomicUsize,
}

impl Plugin for Witness {
    fn name(&self) -> &'static str {
        "Witness"
    }
}

impl Reserve for Witness {
    fn reserve(&self, _: &mut CycleState, pod: &PodInfo, _: &str) -> Status {
        self.log.note("reserve", pod);
        Status::success()
    }

    fn unreserve(&self, _: &CycleState, pod: &PodInfo, _: &str) {
        self.log.note("unreserve", pod);
    }
}

#[async_trait]
impl PreBind for Witness {
    async fn pre_bind(&self, context: &BindContext<'_>) -> Status {
        self.log.note("pre-bind", context.pod);
        let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { Status::error("not yet") } else { Status::success() }
    }
}

#[async_trait]
impl PostBind for Witness {
    async fn post_bind(&self, context: &BindContext<'_>) {
        self.log.note("post-bind", context.pod);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_binding_gives_the_node_back_and_is_tried_again_after_its_back_off() {
    let log = Log::default();
    let witness = Witness { log: log.clone(), failures: AtomicUsize::new(2) };
    let profile =
        Profile::kubernetes("default-scheduler").with(Registration::new(witness).reserve().pre_bind().post_bind());
    let cluster = Cluster::start(config(profile)).await;
    cluster.node("n", "1", json!({})).await;
    let began = tokio::time::Instant::now();
    cluster.pod("p", "1", json!({})).await;
    assert_eq!(cluster.node_of("p").await, "n");
    assert_eq!(cluster.event("p", "FailedScheduling").await, "running PreBind plugin \"Witness\": not yet");
    cluster.event("p", "Scheduled").await;
    // Back-offs of one second and of two.
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    let once = ["reserve p", "pre-bind p", "unreserve p"];
    let expected: Vec<&str> = [&once[..], &once[..], &["reserve p", "pre-bind p", "post-bind p"]].concat();
    assert_eq!(log.all(), expected);
}

/// Lets pods go in pairs.
struct Pairs {
    waiting: WaitingPods,
    patience: Duration,
}

impl Plugin for Pairs {
    fn name(&self) -> &'static str {
        "Pairs"
    }
}

impl Permit for Pairs {
    fn permit(&self, _: &CycleState, _: &PodInfo, _: &str) -> PermitAnswer {
        let waiting = self.waiting.list();
        for (other, _) in &waiting {
            self.waiting.allow(&other.uid, "Pairs");
        }
        if waiting.is_empty() { PermitAnswer::Wait(self.patience) } else { PermitAnswer::Allow }
    }
}

#[tokio::test(start_paused = true)]
async fn permit_holds_a_pod_back_until_it_is_allowed_or_time_is_over() {
    let waiting = WaitingPods::default();
    let pairs = Pairs { waiting: waiting.clone(), patience: Duration::from_secs(60) };
    let profile = Profile::kubernetes("default-scheduler").with(Registration::new(pairs).permit());
    let cluster = Cluster::start(SchedulerConfig { waiting: waiting.clone(), ..config(profile) }).await;
    cluster.node("n", "4", json!({})).await;
    cluster.pod("one", "1", json!({})).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(bound(&cluster.pods.get("one").await.unwrap()), None);
    assert_eq!(waiting.list().len(), 1);
    cluster.pod("two", "1", json!({})).await;
    assert_eq!((cluster.node_of("one").await, cluster.node_of("two").await), ("n".to_owned(), "n".to_owned()));

    cluster.pod("three", "1", json!({})).await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    let pod = cluster.pod_until("three", |pod| unscheduled(pod).is_some()).await;
    let (reason, message) = unscheduled(&pod).unwrap();
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("Unschedulable", "0/1 nodes are available: 1 rejected due to timeout after waiting 1m0s at plugin Pairs.")
    );
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    cluster.pods.delete("three", now).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_more_important_pod_takes_the_place_of_a_lesser_one() {
    let cluster = Cluster::start(config(Profile::kubernetes("default-scheduler"))).await;
    cluster.node("n", "2", json!({})).await;
    cluster.pod("low", "2", json!({"spec": {"priority": 1}})).await;
    cluster.node_of("low").await;
    cluster.pod("high", "2", json!({"spec": {"priority": 10}})).await;
    let nominated = cluster
        .pod_until("high", |pod| pod.status.as_ref().is_some_and(|status| status.nominated_node_name.is_some()))
        .await;
    assert_eq!(nominated.status.as_ref().unwrap().nominated_node_name.as_deref(), Some("n"));
    let low = cluster.pod_until("low", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    let conditions = low.status.as_ref().unwrap().conditions.as_ref().unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c.type_ == "DisruptionTarget" && c.reason.as_deref() == Some("PreemptionByScheduler"))
    );
    assert!(cluster.event("low", "Preempted").await.starts_with("Preempted by pod "));
    // A lesser pod does not slip into the room that is being made.
    cluster.pod("sly", "1", json!({"spec": {"priority": 5}})).await;
    cluster.pod_until("sly", |pod| unscheduled(pod).is_some()).await;
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    cluster.pods.delete("low", now).await.unwrap();
    assert_eq!(cluster.node_of("high").await, "n");
    assert_eq!(bound(&cluster.pods.get("sly").await.unwrap()), None);
}

#[tokio::test(start_paused = true)]
async fn profiles_answer_to_their_names() {
    let packing = Profile::kubernetes("packing").without("NodeResourcesFit").with(
        Registration::new(rk_sched::plugins::NodeResourcesFit {
            strategy: rk_sched::plugins::ScoringStrategy::MostAllocated,
            ..Default::default()
        })
        .filter()
        .score(100),
    );
    let profiles = vec![Profile::kubernetes("default-scheduler"), packing];
    let cluster = Cluster::start(SchedulerConfig { profiles, seed: Some(1), ..SchedulerConfig::default() }).await;
    cluster.node("small", "2", json!({})).await;
    cluster.node("big", "8", json!({})).await;
    cluster.pod("spread", "1", json!({})).await;
    cluster.pod("pack", "1", json!({"spec": {"schedulerName": "packing"}})).await;
    assert_eq!(cluster.node_of("spread").await, "big");
    assert_eq!(cluster.node_of("pack").await, "small");
}

#[tokio::test(start_paused = true)]
async fn contradicting_configurations_are_refused() {
    let cluster = Cluster::start(SchedulerConfig::default()).await;
    let twice = vec![Profile::kubernetes("a"), Profile::kubernetes("a")];
    let refused = |config| Scheduler::new(cluster.client.clone(), config).err().unwrap().to_string();
    assert_eq!(
        refused(SchedulerConfig { profiles: twice, ..SchedulerConfig::default() }),
        "two profiles answer to the schedulerName \"a\""
    );
    assert_eq!(
        refused(SchedulerConfig { percentage_of_nodes_to_score: 101, ..SchedulerConfig::default() }),
        "percentage_of_nodes_to_score is 101: must be 0 to 100"
    );
    let none = SchedulerConfig { profiles: Vec::new(), ..SchedulerConfig::default() };
    assert_eq!(refused(none), "a scheduler needs at least one profile");
}

#[tokio::test(start_paused = true)]
async fn many_pods_are_bound_and_no_node_is_overcommitted() {
    let cluster = Cluster::start(config(Profile::kubernetes("default-scheduler"))).await;
    for i in 0..10 {
        cluster.node(&format!("n{i}"), "2", json!({})).await;
    }
    for i in 0..45 {
        cluster.pod(&format!("p{i}"), "500m", json!({})).await;
    }
    let mut used = std::collections::BTreeMap::<String, usize>::new();
    for i in 0..45 {
        let pod = cluster.pod_until(&format!("p{i}"), |pod| bound(pod).is_some() || unscheduled(pod).is_some()).await;
        if let Some(node) = bound(&pod) {
            *used.entry(node).or_default() += 1;
        }
    }
    assert_eq!(used.len(), 10);
    assert!(used.values().all(|pods| *pods == 4), "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn claims_are_waited_for_and_told_their_node() {
    let cluster = Cluster::start(config(Profile::kubernetes("default-scheduler"))).await;
    cluster.node("n", "4", json!({})).await;
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    cluster.pod("p", "1", json!({"spec": {"volumes": volumes}})).await;
    let said = async |text: &str| {
        cluster.pod_until("p", |pod| unscheduled(pod).is_some_and(|(_, message)| message.contains(text))).await;
    };
    said("0/1 nodes are available: persistentvolumeclaim \"data\" not found.").await;
    let claims = Api::<PersistentVolumeClaim>::namespaced(cluster.client.clone(), "default");
    let claim = json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}},
    }});
    claims.create(&cluster::object(claim)).await.unwrap();
    said("pod has unbound immediate PersistentVolumeClaims").await;
    let class = json!({
        "metadata": {"name": "local"}, "provisioner": "example.com/local",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    Api::<StorageClass>::all(cluster.client.clone()).create(&cluster::object(class)).await.unwrap();
    let selected = async || {
        let claim = claims.get("data").await.unwrap();
        claim.metadata.annotations.as_ref()?.get("volume.kubernetes.io/selected-node").cloned()
    };
    let node = loop {
        if let Some(node) = selected().await {
            break node;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(node, "n");
    assert_eq!(bound(&cluster.pods.get("p").await.unwrap()), None);
    let volume = json!({"metadata": {"name": "pv-1"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "nfs": {"server": "s", "path": "/"},
    }});
    Api::<PersistentVolume>::all(cluster.client.clone()).create(&cluster::object(volume)).await.unwrap();
    let done = json!({"pv.kubernetes.io/bind-completed": "yes"});
    let provided = json!({"metadata": {"annotations": done}, "spec": {"volumeName": "pv-1"}});
    claims.patch("data", Patch::merge(provided)).await.unwrap();
    claims.patch_status("data", Patch::merge(json!({"status": {"phase": "Bound"}}))).await.unwrap();
    assert_eq!(cluster.node_of("p").await, "n");
}
