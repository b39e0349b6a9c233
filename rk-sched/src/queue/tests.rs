use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;

fn pod(name: &str, priority: i32, gates: &[&str]) -> Arc<PodInfo> {
    let gates: Vec<_> = gates.iter().map(|name| json!({"name": name})).collect();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "namespace": "default"},
        "spec": {"containers": [], "priority": priority, "schedulingGates": gates},
    }))
    .unwrap();
    Arc::new(PodInfo::new(Arc::new(pod)))
}

fn queue() -> Queue {
    let profile = Arc::new(Profile::kubernetes("default-scheduler"));
    let sort = Arc::clone(profile.queue_sort());
    let profiles = HashMap::from([("default-scheduler".to_owned(), profile)]);
    let waits = Waits {
        initial_backoff: Duration::from_secs(1),
        max_backoff: Duration::from_secs(10),
        unschedulable: Duration::from_secs(300),
    };
    Queue::new(Arc::new(profiles), sort, waits)
}

fn none() -> Snapshot {
    Snapshot::default()
}

fn popped(queue: &mut Queue, now: Instant) -> Option<String> {
    queue.pop(&none(), now).map(|queued| queued.pod.name.to_string())
}

#[test]
fn important_pods_go_first_then_older_ones() {
    let (mut queue, mut now) = (queue(), Instant::now());
    for (name, priority) in [("old", 0), ("high", 5), ("young", 0), ("gone", 9)] {
        queue.add(pod(name, priority, &[]), &none(), now);
        now += Duration::from_millis(1);
    }
    queue.remove("gone");
    queue.add(pod("old", 0, &[]), &none(), now);
    assert_eq!(popped(&mut queue, now).as_deref(), Some("high"));
    assert_eq!(popped(&mut queue, now).as_deref(), Some("old"));
    assert_eq!(popped(&mut queue, now).as_deref(), Some("young"));
    assert_eq!(popped(&mut queue, now), None);
}

#[test]
fn failures_wait_twice_as_long_each_time_up_to_the_longest() {
    let (mut queue, mut now) = (queue(), Instant::now());
    queue.add(pod("p", 0, &[]), &none(), now);
    for seconds in [1, 2, 4, 8, 10, 10] {
        let queued = queue.pop(&none(), now).unwrap();
        queue.failed(queued, now);
        let wait = Duration::from_secs(seconds);
        assert_eq!(queue.next_backoff(), Some(now + wait));
        now += wait - Duration::from_millis(1);
        assert!(queue.pop(&none(), now).is_none());
        now += Duration::from_millis(1);
    }
}

#[test]
fn refused_pods_wait_for_an_event_that_their_plugin_wants() {
    let (mut queue, now) = (queue(), Instant::now());
    queue.add(pod("p", 0, &[]), &none(), now);
    let mut queued = queue.pop(&none(), now).unwrap();
    queued.plugins.insert("NodeResourcesFit");
    queue.refused(queued, &none(), now);
    assert!(queue.pop(&none(), now).is_none());
    queue.on_event(&ClusterEvent::AssignedPodAdd(pod("other", 0, &[])), &none(), now);
    assert!(queue.pop(&none(), now).is_none(), "a pod that comes makes no room");
    queue.on_event(&ClusterEvent::AssignedPodDelete(pod("other", 0, &[])), &none(), now);
    // In back-off still, but there is nothing better to do.
    assert_eq!(queue.counts(), (0, 1, 0));
    assert_eq!(popped(&mut queue, now).as_deref(), Some("p"));
}

#[test]
fn what_nobody_wakes_is_tried_again_after_five_minutes() {
    let (mut queue, mut now) = (queue(), Instant::now());
    queue.add(pod("p", 0, &[]), &none(), now);
    let mut queued = queue.pop(&none(), now).unwrap();
    queued.plugins.insert("NodeResourcesFit");
    queue.refused(queued, &none(), now);
    now += Duration::from_secs(299);
    queue.flush_unschedulable(&none(), now);
    assert!(queue.pop(&none(), now).is_none());
    now += Duration::from_secs(1);
    queue.flush_unschedulable(&none(), now);
    assert_eq!(popped(&mut queue, now).as_deref(), Some("p"));
}

#[test]
fn gates_keep_pods_out_until_they_go() {
    let (mut queue, now) = (queue(), Instant::now());
    queue.add(pod("p", 0, &["a", "b"]), &none(), now);
    assert!(queue.pop(&none(), now).is_none());
    queue.update(pod("p", 0, &["b"]), &none(), now);
    queue.on_event(&ClusterEvent::AssignedPodDelete(pod("other", 0, &[])), &none(), now);
    assert!(queue.pop(&none(), now).is_none());
    queue.update(pod("p", 0, &[]), &none(), now);
    let queued = queue.pop(&none(), now).unwrap();
    assert_eq!((queued.pod.name.as_ref(), queued.attempts), ("p", 1));
}

#[test]
fn what_happens_while_a_pod_is_in_flight_is_not_missed() {
    let (mut queue, now) = (queue(), Instant::now());
    for (name, priority) in [("a", 3), ("b", 2), ("c", 1)] {
        queue.add(pod(name, priority, &[]), &none(), now);
    }
    let leaves = |name| ClusterEvent::AssignedPodDelete(pod(name, 0, &[]));
    let refused = |mut queued: QueuedPod| {
        queued.plugins.insert("NodeResourcesFit");
        queued
    };
    let first = queue.pop(&none(), now).unwrap();
    queue.on_event(&leaves("other"), &none(), now);
    let second = queue.pop(&none(), now).unwrap();
    queue.on_event(&leaves("b"), &none(), now);
    queue.refused(refused(first), &none(), now);
    assert_eq!(queue.counts(), (1, 1, 0), "room was made while it was on its way");
    queue.refused(refused(second), &none(), now);
    assert_eq!(queue.counts(), (1, 1, 1), "its own leaving makes no room, and the other's was before its time");
    let third = queue.pop(&none(), now).unwrap();
    queue.refused(refused(third), &none(), now);
    assert_eq!(queue.counts(), (0, 1, 2), "nothing is kept for a pod that took off later");
}
