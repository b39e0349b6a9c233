//! The laboratory's API: plugins that bind pods, extenders, volumes and claims on devices do in virtual time what they do in a cluster.
#![cfg(feature = "simulate")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use parking_lot::Mutex;
use rk_api::Api;
use rk_sched::{
    Profile, Registration, SchedulerConfig,
    framework::{
        Bind, BindContext, CycleState, Extender, ExtenderError, ExtenderFilter, ExtenderParts, Permit, PermitAnswer,
        Plugin, PostBind, PreBind, Reserve, Status,
    },
    model::PodInfo,
    simulate::{
        Options, Run, Workload, objects, simulate,
        workload::{Action, Job, Scope, Steady, Step},
    },
};
use serde_json::{Value, json};

fn at_once(action: Action) -> (Duration, Action) {
    (Duration::ZERO, action)
}

fn node(name: &str, cpu: &str) -> (Duration, Action) {
    let node = json!({"status": {"capacity": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}});
    at_once(Action::SetNode(Arc::new(objects::node(node, name).unwrap())))
}

/// A pod that asks for one core; `spec` has more of it.
fn job(name: &str, spec: &Value, seconds: Option<u64>) -> Job {
    let container = json!({"name": "c", "resources": {"requests": {"cpu": "1"}}});
    let mut pod = json!({"spec": {"containers": [container]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    let pod = Arc::new(objects::pod(pod, name, "default").unwrap());
    Job { pod, duration: seconds.map(Duration::from_secs), restarts: false }
}

fn pod(name: &str, spec: &Value, seconds: Option<u64>) -> (Duration, Action) {
    at_once(Action::CreatePod(Arc::new(job(name, spec, seconds))))
}

fn other(object: Value) -> (Duration, Action) {
    let namespaced = ["PersistentVolumeClaim", "ResourceClaim", "ResourceClaimTemplate"].map(Value::from);
    let namespace = namespaced.contains(&object["kind"]).then_some("default");
    at_once(Action::Apply(objects::other(object, "", namespace).unwrap()))
}

fn run(actions: Vec<(Duration, Action)>, config: &SchedulerConfig) -> Run {
    let workload = Workload { name: "test".to_owned(), steps: vec![Step::Play { actions, background: false }] };
    let explain = (0..9).map(|number| format!("default/p{number}")).collect();
    simulate(&workload, config, &Options { explain, ..Options::default() }, 1, &mut |_| {}).unwrap()
}

fn of_profile(profile: Profile) -> SchedulerConfig {
    SchedulerConfig { profiles: vec![profile], ..SchedulerConfig::default() }
}

/// Counts what it is called for, and takes its time.
#[derive(Default)]
struct Counting {
    calls: Mutex<Vec<String>>,
    refusals: AtomicUsize,
}

impl Counting {
    fn note(&self, what: &str, pod: &PodInfo) {
        self.calls.lock().push(format!("{what} {}", pod.name));
    }
}

struct Counted(Arc<Counting>);

impl Plugin for Counted {
    fn name(&self) -> &'static str {
        "Counted"
    }
}

impl Reserve for Counted {
    fn reserve(&self, _: &mut CycleState, pod: &PodInfo, _: &str) -> Status {
        self.0.note("reserve", pod);
        Status::success()
    }

    fn unreserve(&self, _: &CycleState, pod: &PodInfo, _: &str) {
        self.0.note("unreserve", pod);
    }
}

impl Permit for Counted {
    fn permit(&self, _: &CycleState, _: &PodInfo, _: &str) -> PermitAnswer {
        PermitAnswer::Allow
    }
}

#[async_trait]
impl PreBind for Counted {
    async fn pre_bind(&self, context: &BindContext<'_>) -> Status {
        self.0.note("prebind", context.pod);
        tokio::time::sleep(Duration::from_secs(3)).await;
        // The first pod has to be tried twice.
        if self.0.refusals.fetch_add(1, Ordering::Relaxed) == 0 { Status::error("not now") } else { Status::success() }
    }
}

#[async_trait]
impl Bind for Counted {
    async fn bind(&self, context: &BindContext<'_>) -> Status {
        let api = Api::<Pod>::namespaced(Arc::clone(context.client), &context.pod.namespace);
        let seen = api.get(&context.pod.name).await.unwrap();
        assert_eq!(seen.spec.as_ref().unwrap().node_name, None);
        let body = json!({"target": {"name": context.node}});
        match api.create_subresource(&context.pod.name, "binding", body).await {
            Ok(_) => Status::success(),
            Err(error) => Status::error(error.to_string()),
        }
    }
}

#[async_trait]
impl PostBind for Counted {
    async fn post_bind(&self, context: &BindContext<'_>) {
        let api = Api::<Pod>::namespaced(Arc::clone(context.client), &context.pod.namespace);
        let seen = api.get(&context.pod.name).await.unwrap();
        assert_eq!(seen.spec.as_ref().unwrap().node_name.as_deref(), Some(context.node));
        self.0.note("postbind", context.pod);
    }
}

#[test]
fn a_plugin_of_all_binding_points_runs_as_in_a_cluster_in_virtual_time() {
    let once = || {
        let counting = Arc::new(Counting::default());
        let plugin = Registration::new(Counted(Arc::clone(&counting))).reserve().permit().pre_bind().bind().post_bind();
        let profile = Profile::kubernetes("default-scheduler").without("DefaultBinder").with(plugin);
        let actions = vec![node("n", "4"), pod("p1", &json!({}), None), pod("p2", &json!({}), None)];
        let run = run(actions, &of_profile(profile));
        let calls = counting.calls.lock().clone();
        (run, calls)
    };
    let started = std::time::Instant::now();
    let (first, calls) = once();
    assert!(started.elapsed() < Duration::from_secs(3), "virtual seconds take no real ones");
    assert_eq!((first.summary.scheduled, first.summary.failed_bindings), (2, 1), "{:?}", first.history);
    let of = |pod: &str| calls.iter().filter(|call| call.ends_with(pod)).map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("p2"), ["reserve p2", "prebind p2", "postbind p2"]);
    let twice = ["reserve p1", "prebind p1", "unreserve p1", "reserve p1", "prebind p1", "postbind p1"];
    assert_eq!(of("p1"), twice);
    // Three seconds, a back-off of one, and three seconds again.
    assert!(first.waits[0] > 3.0 && first.waits[0] < 3.1, "{:?}", first.waits);
    assert!(first.waits[1] > 6.0 && first.waits[1] < 7.2, "{:?}", first.waits);
    assert!(
        first.history.iter().any(|line| line.contains("running PreBind plugin \"Counted\": not now")),
        "{:?}",
        first.history
    );
    assert_eq!(first, once().0);
}

#[tokio::test]
async fn a_simulation_runs_within_another_runtime() {
    let run = run(vec![node("n", "4"), pod("p1", &json!({}), Some(5))], &SchedulerConfig::default());
    assert_eq!(run.summary.finished, 1);
}

/// Takes what is on one node only, and binds if it is to.
struct Only {
    node: &'static str,
    binds: bool,
    asked: AtomicUsize,
}

#[async_trait]
impl Extender for Only {
    fn name(&self) -> &str {
        "only"
    }

    fn parts(&self) -> ExtenderParts {
        ExtenderParts { filter: true, bind: self.binds, ..ExtenderParts::default() }
    }

    async fn filter(&self, _: &PodInfo, nodes: &[Arc<Node>]) -> Result<ExtenderFilter, ExtenderError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        // Real time, which is nobody's virtual time.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let names = nodes.iter().filter_map(|node| node.metadata.name.clone());
        let (fit, unfit): (Vec<_>, Vec<_>) = names.partition(|name| name == self.node);
        let failed = unfit.into_iter().map(|name| (name, "not mine".to_owned())).collect();
        Ok(ExtenderFilter { nodes: fit, failed, ..ExtenderFilter::default() })
    }

    async fn bind(&self, _: &PodInfo, _: &str) -> Result<(), ExtenderError> {
        Ok(())
    }
}

#[test]
fn extenders_are_asked_while_virtual_time_stands_still() {
    for binds in [false, true] {
        let only = Arc::new(Only { node: "b", binds, asked: AtomicUsize::new(0) });
        let config = SchedulerConfig { extenders: vec![only.clone()], ..SchedulerConfig::default() };
        let actions = vec![node("a", "64"), node("b", "2"), node("c", "64")];
        let pods = (0..3).map(|number| pod(&format!("p{number}"), &json!({}), None));
        let run = run(actions.into_iter().chain(pods).collect(), &config);
        assert_eq!((run.summary.scheduled, run.summary.unscheduled), (2, 1), "{:?}", run.history);
        assert!(only.asked.load(Ordering::Relaxed) >= 3);
        let text = run.history.join("\n");
        assert_eq!(text.matches("bound to b").count(), 2, "{text}");
        assert!(text.contains("2 not mine") && text.contains("1 Insufficient cpu"), "{text}");
        assert!(run.summary.wait.max < 0.02, "{:?}", run.summary.wait);
    }
}

fn wanting(claim: &str) -> Value {
    json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]})
}

fn claim(name: &str, class: &str) -> (Duration, Action) {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "resources": {"requests": {"storage": "1Gi"}}});
    other(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}))
}

fn class(name: &str, provisioner: &str) -> (Duration, Action) {
    other(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"}))
}

#[test]
fn volumes_are_bound_and_provided() {
    let local = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"}, "spec": {
        "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
        "local": {"path": "/disk"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]}]}},
    }});
    let driver = json!({"name": "disks.example.com", "nodeID": "a", "topologyKeys": ["kubernetes.io/hostname"]});
    let csi = |node: &str| {
        other(json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": node},
            "spec": {"drivers": [driver]}}))
    };
    let once = || {
        let actions = vec![
            node("a", "2"),
            node("b", "2"),
            csi("a"),
            csi("b"),
            class("local", "kubernetes.io/no-provisioner"),
            class("made", "disks.example.com"),
            other(local.clone()),
            claim("given", "local"),
            claim("second", "local"),
            claim("fresh", "made"),
            pod("p1", &wanting("given"), Some(100)),
            pod("p2", &wanting("second"), Some(100)),
            pod("p3", &wanting("fresh"), Some(10)),
        ];
        let mut actions = actions;
        // It has to go where the volume is that was provided for the one before.
        let Action::CreatePod(later) = pod("p4", &wanting("fresh"), Some(10)).1 else { unreachable!() };
        actions.push((Duration::from_secs(50), Action::CreatePod(later)));
        run(actions, &SchedulerConfig::default())
    };
    let found = once();
    let text = found.history.join("\n");
    assert!(text.contains("default/p1  bound to b"), "{text}");
    assert!(text.contains("default/p2  attempt 1: Unschedulable: 0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind"), "{text}");
    let place = |pod: &str| {
        let line = found.history.iter().find(|line| line.contains(&format!("default/{pod}  bound to "))).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(place("p3"), place("p4"), "{text}");
    assert_eq!((found.summary.scheduled, found.summary.finished, found.summary.unscheduled), (3, 3, 1), "{text}");
    // Providing takes 1 to 3 s, and it is looked for after 0.1, 0.3, 0.7, 1.5, 2.5 and 3.5 s.
    assert!(found.summary.wait.max > 1.0 && found.summary.wait.max < 3.6, "{:?}", found.waits);
    assert_eq!(found, once());
}

/// A pod with a volume that comes and goes with it.
fn ephemeral(class: &str) -> Value {
    let spec = json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}},
    });
    let template = json!({"metadata": {"labels": {"of": "pod"}}, "spec": spec});
    json!({"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]})
}

/// Notes the claim and the volume of each pod that is bound.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<Value>>>);

impl Plugin for Noting {
    fn name(&self) -> &'static str {
        "Noting"
    }
}

#[async_trait]
impl PostBind for Noting {
    async fn post_bind(&self, context: &BindContext<'_>) {
        let claims = Api::<PersistentVolumeClaim>::namespaced(context.client.clone(), "default");
        let volumes = Api::<PersistentVolume>::all(context.client.clone());
        let claim = claims.get(&format!("{}-scratch", context.pod.name)).await.unwrap();
        let volume = volumes.get(claim.spec.as_ref().unwrap().volume_name.as_deref().unwrap()).await.unwrap();
        let spec = volume.spec.as_ref().unwrap();
        self.0.lock().push(json!({
            "owner": claim.metadata.owner_references.as_ref().unwrap()[0].uid, "labels": claim.metadata.labels,
            "volume": volume.metadata.name, "policy": spec.persistent_volume_reclaim_policy,
        }));
    }
}

#[test]
fn claims_of_ephemeral_volumes_come_and_go_with_their_pods() {
    let once =
        other(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "at-once"},
        "provisioner": "disks.example.com", "volumeBindingMode": "Immediate", "reclaimPolicy": "Retain"}));
    // There is room for one volume on the only node.
    let csi = other(json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "a"}, "spec": {
        "drivers": [{"name": "disks.example.com", "nodeID": "a", "topologyKeys": [], "allocatable": {"count": 1}}]}}));
    let noting = Noting::default();
    let profile = Profile::kubernetes("default-scheduler").with(Registration::new(noting.clone()).post_bind());
    let actions = vec![
        node("a", "4"),
        csi,
        class("late", "disks.example.com"),
        once,
        pod("p1", &ephemeral("late"), Some(10)),
        pod("p2", &ephemeral("late"), Some(10)),
        (Duration::from_secs(100), Action::CreatePod(Arc::new(job("p3", &ephemeral("at-once"), Some(10))))),
    ];
    let run = run(actions, &of_profile(profile));
    let text = run.history.join("\n");
    assert_eq!((run.summary.finished, run.summary.unscheduled), (3, 0), "{text}");
    // The second one waits until the first one has gone with its volume.
    assert!(text.contains("1 node(s) exceed max volume count"), "{text}");
    let found = noting.0.lock().clone();
    let expected = |pod: &str, policy: &str| {
        json!({
            "owner": format!("default/{pod}"), "labels": {"of": "pod"}, "volume": format!("pvc-default-{pod}-scratch"),
            "policy": policy,
        })
    };
    assert_eq!(found, [expected("p1", "Delete"), expected("p2", "Delete"), expected("p3", "Retain")], "{text}");
}

#[test]
fn a_claim_of_that_name_that_is_not_the_pods_own_stays() {
    let actions = vec![
        node("a", "4"),
        class("late", "disks.example.com"),
        claim("p1-scratch", "late"),
        pod("p1", &ephemeral("late"), Some(10)),
    ];
    let run = run(actions, &SchedulerConfig::default());
    let text = run.history.join("\n");
    assert_eq!((run.summary.scheduled, run.summary.unscheduled), (0, 1), "{text}");
    assert!(text.contains("p1-scratch"), "{text}");
}

#[test]
fn claims_on_devices_come_and_go_with_their_pods() {
    let devices: Vec<Value> = (0..1).map(|number| json!({"name": format!("d{number}")})).collect();
    let slice = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"}, "spec": {
        "driver": "gpu.example.com", "nodeName": "a", "devices": devices,
        "pool": {"name": "a", "generation": 1, "resourceSliceCount": 1},
    }});
    let class =
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "gpu"}, "spec": {}});
    let spec = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}});
    let template = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
        "metadata": {"name": "t"}, "spec": {"spec": spec}});
    let shared = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "shared"},
        "spec": spec});
    let of_template = json!({"resourceClaims": [{"name": "c", "resourceClaimTemplateName": "t"}]});
    let of_shared = json!({"resourceClaims": [{"name": "c", "resourceClaimName": "shared"}]});
    let actions = vec![
        node("a", "8"),
        node("b", "8"),
        other(class),
        other(slice),
        other(template),
        other(shared),
        pod("p1", &of_template, Some(10)),
        pod("p2", &of_template, Some(10)),
        (Duration::from_secs(1), Action::CreatePod(Arc::new(job("p3", &of_shared, Some(10))))),
        (Duration::from_secs(1), Action::CreatePod(Arc::new(job("p4", &of_shared, Some(10))))),
    ];
    let run = run(actions, &SchedulerConfig::default());
    let text = run.history.join("\n");
    assert_eq!((run.summary.finished, run.summary.unscheduled), (4, 0), "{text}");
    assert_eq!(text.matches("bound to a").count(), 4, "there is but one device: {text}");
    // One after the other, but for the two that share a claim.
    assert!(run.summary.makespan > 30.0 && run.summary.makespan < 33.0, "{} {text}", run.summary.makespan);
}

#[test]
fn a_steady_stream_replaces_pods_that_were_scheduled() {
    let make = |number: u64| {
        let spec = json!({"terminationGracePeriodSeconds": 0});
        Some(Action::CreatePod(Arc::new(job(&format!("s{number}"), &spec, None))))
    };
    let steady =
        Steady { scope: Scope::namespace("default"), count: 3, duration: Duration::from_secs(2), make: Arc::new(make) };
    let steps = vec![
        Step::Play { actions: vec![node("n", "3")], background: false },
        Step::Steady(steady),
        Step::Await { stage: rk_sched::simulate::workload::Stage::Scheduled, scope: Scope::everything() },
    ];
    let workload = Workload { name: "steady".to_owned(), steps };
    let options = Options { cycle: Duration::from_millis(100), binding: Duration::ZERO, ..Options::default() };
    let run = simulate(&workload, &SchedulerConfig::default(), &options, 1, &mut |_| {}).unwrap();
    // A cycle every 100 ms for two seconds; those that are created last are scheduled as well.
    let scheduled = run.summary.scheduled;
    assert!((20..=24).contains(&scheduled) && run.summary.unscheduled == 0, "{:?}", run.summary);
    assert_eq!((run.summary.pods, run.summary.stalled), (scheduled, None));
}

#[test]
fn decisions_are_told_in_full() {
    let actions = vec![node("a", "4"), node("b", "2"), node("c", "500m"), pod("p1", &json!({}), None)];
    let run = run(actions, &SchedulerConfig::default());
    let text = run.history.join("\n");
    // LeastAllocated over cpu and memory: (3/4 + 1) / 2 and (1/2 + 1) / 2, with what pods without a request for memory are taken to ask for.
    let fit = |score: i64| format!("NodeResourcesFit {score} (raw {score}, {score} × 1)");
    assert!(text.contains(&fit(86)) && text.contains(&fit(73)), "{text}");
    assert!(text.contains("    c: NodeResourcesFit refused: Insufficient cpu"), "{text}");
    assert!(text.contains("    in the queue after 0.000 s: attempt 1"), "{text}");
    assert!(text.contains("    a: 154 = NodeResourcesFit 86") && text.contains("    b: 135 = "), "{text}");
    let [explained] = &run.explanations[..] else { panic!("one decision: {:?}", run.explanations) };
    assert_eq!(explained.decision.nodes.iter().map(|node| node.node.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    for node in &explained.decision.nodes {
        assert_eq!(node.total, node.scores.iter().map(|score| score.score * score.weight).sum::<i64>());
    }
}
