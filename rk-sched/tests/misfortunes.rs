//! What befalls pods and nodes in the laboratory: the same under every scheduler, and without end for none.
#![cfg(feature = "simulate")]

use std::{sync::Arc, time::Duration};

use rk_sched::{
    SchedulerConfig,
    simulate::{
        NodeChurn, Options, Run, Workload, manifests, objects, simulate,
        workload::{Action, Job, Step},
    },
};
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_secs(60);

fn node(name: &str, cpu: &str) -> (Duration, Action) {
    let node = json!({"status": {"capacity": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}});
    (Duration::ZERO, Action::SetNode(Arc::new(objects::node(node, name).unwrap())))
}

fn job(name: &str, cpu: &str, change: &Value, duration: Option<Duration>) -> Action {
    let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
    let mut pod = json!({"spec": {"containers": [container]}});
    for (field, value) in change.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    let pod = objects::pod(pod, name, "default").unwrap();
    Action::CreatePod(Arc::new(Job { pod: Arc::new(pod), duration, restarts: true }))
}

fn pod(at: u64, name: &str, cpu: &str, duration: Option<Duration>) -> (Duration, Action) {
    (Duration::from_secs(at), job(name, cpu, &json!({}), duration))
}

fn workload(actions: Vec<(Duration, Action)>) -> Workload {
    Workload { name: "test".to_owned(), steps: vec![Step::Play { actions, background: false }] }
}

fn run(workload: &Workload, options: &Options) -> Run {
    simulate(workload, &SchedulerConfig::default(), options, 1, &mut |_| {}).unwrap()
}

fn explaining(pods: &[&str], options: Options) -> Options {
    Options { explain: pods.iter().map(|pod| (*pod).to_owned()).collect(), ..options }
}

/// The pods that this happened to, in the order of their names.
fn those(run: &Run, what: &str) -> Vec<String> {
    let of = |line: &String| {
        let mut parts = line.split("  ").skip(1);
        let pod = parts.next()?.to_owned();
        (parts.next()? == what).then_some(pod)
    };
    let mut pods: Vec<String> = run.history.iter().filter_map(of).collect();
    pods.sort();
    pods
}

#[test]
fn a_slow_scheduler_meets_the_same_failures_as_a_quick_one() {
    let names: Vec<String> = (0..60).map(|number| format!("p{number}")).collect();
    let pods = names.iter().enumerate().map(|(at, name)| pod(at as u64, name, "100m", Some(MINUTE)));
    let workload = workload([node("a", "64")].into_iter().chain(pods).collect());
    let wanted: Vec<String> = names.iter().map(|name| format!("default/{name}")).collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let failed = |cycle| {
        let options = Options { cycle, pod_failures: 0.3, retries: 20, ..Options::default() };
        those(&run(&workload, &explaining(&wanted, options)), "failed")
    };
    let quick = failed(Duration::from_millis(1));
    assert!(quick.len() > 10, "{quick:?}");
    // Replacements come at other times, and between others.
    assert_eq!(failed(Duration::from_millis(1700)), quick);
}

#[test]
fn one_that_takes_the_place_of_a_pod_on_a_node_is_scheduled() {
    let kept = job("kept", "2", &json!({"nodeName": "small", "priority": 0}), None);
    let urgent =
        job("urgent", "2", &json!({"nodeSelector": {"kubernetes.io/hostname": "small"}, "priority": 10}), None);
    let actions = vec![node("small", "2"), node("other", "2"), (Duration::ZERO, kept), (MINUTE, urgent)];
    let run = run(&workload(actions), &explaining(&["default/kept", "default/urgent"], Options::default()));
    let history = run.history.join("\n");
    assert!(history.contains("default/kept  preempted"), "{history}");
    assert!(history.contains("default/urgent  bound to small"), "{history}");
    assert!(history.contains("default/kept-r1  bound to other"), "{history}");
    // The first was on its node already, so that it waited for none.
    assert_eq!((run.summary.pods, run.summary.scheduled), (2, 2), "{:?}", run.summary);
}

#[test]
fn a_simulation_ends_though_some_node_is_always_away() {
    let nodes = (0..200).map(|number| node(&format!("n{number}"), "4"));
    let churn = NodeChurn { between_failures: 100 * MINUTE, outage: 10 * MINUTE };
    for (name, last) in [("fits", pod(1800, "p", "1", Some(MINUTE))), ("never fits", pod(1800, "p", "8", None))] {
        let workload = workload(nodes.clone().chain([last]).collect());
        let horizon = Some(24 * 60 * MINUTE);
        let run = run(&workload, &Options { node_churn: Some(churn), horizon, ..Options::default() });
        let ended = run.samples.last().unwrap().seconds;
        assert!(ended < 3600.0, "{name}: it ended after {ended} s");
    }
}

#[test]
fn pods_that_are_gone_leave_no_time_in_which_nodes_are_empty() {
    // The node that is lost comes back long after the pods have ended, and nobody waits for it.
    let pods = (0..8).map(|number| pod(0, &format!("p{number}"), "1", Some(MINUTE)));
    let nodes = (0..40).map(|number| node(&format!("n{number}"), "1"));
    let churn = NodeChurn { between_failures: 10 * MINUTE, outage: 600 * MINUTE };
    let options = Options { node_churn: Some(churn), ..Options::default() };
    let run = run(&workload(nodes.chain(pods).collect()), &options);
    assert_eq!(run.summary.finished, 8);
    assert!(run.samples.iter().any(|sample| sample.nodes < 40), "a node was lost");
    let ended = run.samples.last().unwrap().seconds;
    assert!(ended <= run.summary.makespan + 1.0, "{ended} {:?}", run.summary);
}

#[test]
fn a_pod_of_a_name_that_was_used_before_is_another_one() {
    // The first is deleted while it is being bound, and the second comes at once.
    let at = Duration::from_millis;
    let one = |node: &str| job("p", "1", &json!({"nodeSelector": {"kubernetes.io/hostname": node}}), None);
    let actions = vec![
        node("a", "4"),
        node("b", "4"),
        (at(0), one("a")),
        (at(20), Action::DeletePod("default".to_owned(), "p".to_owned())),
        (at(21), one("b")),
    ];
    let options = Options { binding: at(100), ..Options::default() };
    let run = run(&workload(actions), &explaining(&["default/p"], options));
    let bound: Vec<&String> = run.history.iter().filter(|line| line.contains("bound to")).collect();
    assert!(matches!(&bound[..], [one] if one.ends_with("default/p  bound to b")), "{:?}", run.history);
    assert_eq!((run.summary.pods, run.summary.scheduled, run.summary.failed_bindings), (2, 1, 0));
}

#[test]
fn what_never_ends_ends_with_the_century() {
    let forever = run(&workload(vec![node("a", "4"), pod(0, "p", "1", Some(Duration::MAX))]), &Options::default());
    assert_eq!((forever.summary.scheduled, forever.summary.finished), (1, 0));
    let actions = vec![node("a", "4"), (Duration::MAX, job("p", "1", &json!({}), None))];
    assert_eq!(run(&workload(actions), &Options::default()).summary.pods, 0);
}

#[test]
fn nodes_may_be_as_large_as_numbers_go() {
    let huge = |name: &str| {
        let node = json!({"status": {"capacity": {"cpu": "8E", "memory": "8Ei", "pods": "110"}}});
        (Duration::ZERO, Action::SetNode(Arc::new(objects::node(node, name).unwrap())))
    };
    let run = run(&workload(vec![huge("a"), huge("b"), pod(0, "p", "1", Some(MINUTE))]), &Options::default());
    assert_eq!(run.summary.finished, 1);
}

/// A node with a device, a pod that has it by a claim that was made for it, and another pod that waits for one.
const DEVICES: &str = r#"
kind: Node
metadata: {name: one}
status: {allocatable: {cpu: "4", memory: 8Gi, pods: "10"}}
---
kind: DeviceClass
metadata: {name: gpu}
spec: {}
---
kind: ResourceSlice
metadata: {name: slice}
spec: {driver: d.example.com, nodeName: one, pool: {name: one, generation: 1, resourceSliceCount: 1}, devices: [{name: gpu-0}]}
---
kind: ResourceClaim
metadata: {name: first-gpu-x7k2p, namespace: default, uid: claim-1, ownerReferences: [{apiVersion: v1, kind: Pod, name: first, uid: pod-1, controller: true}]}
spec: {devices: {requests: [{name: r, exactly: {deviceClassName: gpu}}]}}
status:
  allocation: {devices: {results: [{request: r, driver: d.example.com, pool: one, device: gpu-0}]}}
  reservedFor: [{resource: pods, name: first, uid: pod-1}]
---
kind: ResourceClaim
metadata: {name: shared, namespace: default, uid: claim-2}
spec: {devices: {requests: [{name: r, exactly: {deviceClassName: gpu}}]}}
---
kind: Pod
metadata: {name: first, namespace: default, uid: pod-1, creationTimestamp: "2026-01-01T00:00:00Z"}
spec: {nodeName: one, containers: [{name: c}], resourceClaims: [{name: gpu, resourceClaimTemplateName: gpu}]}
status: {phase: Running, resourceClaimStatuses: [{name: gpu, resourceClaimName: first-gpu-x7k2p}]}
---
kind: Pod
metadata: {name: second, namespace: default, uid: pod-2, creationTimestamp: "2026-01-01T00:01:00Z"}
spec: {containers: [{name: c}], resourceClaims: [{name: gpu, resourceClaimName: shared}]}
"#;

#[test]
fn devices_of_a_dump_are_kept_or_given_anew_with_their_pods() {
    let replayed = |replay| {
        let workload = manifests::workload("dump", manifests::parse(DEVICES).unwrap(), replay).unwrap();
        run(&workload, &explaining(&["default/first", "default/second"], Options::default()))
    };
    let kept = replayed(manifests::Replay::Keep);
    assert_eq!((kept.summary.scheduled, kept.summary.unscheduled), (0, 1), "{:?}", kept.history);
    let anew = replayed(manifests::Replay::Anew);
    assert_eq!((anew.summary.scheduled, anew.summary.unscheduled), (1, 1), "{:?}", anew.history);
    assert!(anew.history.iter().any(|line| line.ends_with("default/first  bound to one")), "{:?}", anew.history);
}
