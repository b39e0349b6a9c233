//! What the laboratory measures, held to a case that is worked out by hand.
#![cfg(feature = "simulate")]

use std::{sync::Arc, time::Duration};

use rk_sched::{
    Profile,
    simulate::{
        Experiment, Options, Variant, Workload, objects, report,
        workload::{Action, Job, Step},
    },
};
use serde_json::json;

/// Two nodes of four cores; two pods take two cores each for 10 and for 20 s, and a third one, of four cores, has to wait for the first.
fn workload() -> Workload {
    let node = |name: &str| {
        let node = json!({"status": {"capacity": {"cpu": "4", "memory": "8Gi", "pods": "10"}}});
        Action::SetNode(Arc::new(objects::node(node, name).unwrap()))
    };
    let pod = |name: &str, cpu: &str, seconds| {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let pod = objects::pod(json!({"spec": {"containers": [container]}}), name, "default").unwrap();
        let duration = Some(Duration::from_secs(seconds));
        Action::CreatePod(Arc::new(Job { pod: Arc::new(pod), duration, restarts: false }))
    };
    let actions = [node("a"), node("b"), pod("p1", "2", 10), pod("p2", "2", 20), pod("p3", "4", 10)];
    let actions = actions.into_iter().map(|action| (Duration::ZERO, action)).collect();
    Workload { name: "by hand".to_owned(), steps: vec![Step::Play { actions, background: false }] }
}

fn experiment() -> Experiment {
    Experiment {
        workload: workload(),
        variants: ["one", "same"]
            .map(|name| Variant::profile(name, || Profile::kubernetes("default-scheduler")))
            .into(),
        // Nothing takes time but the pods.
        options: Options { cycle: Duration::ZERO, binding: Duration::ZERO, ..Options::default() },
        seeds: vec![1, 2, 3],
    }
}

#[test]
fn figures_are_those_of_a_calculation_by_hand() {
    let comparison = experiment().run(1, &|_, _, _| {}).unwrap();
    let summary = &comparison.outcomes[0].runs[0].summary;
    assert_eq!((summary.pods, summary.scheduled, summary.finished, summary.unscheduled), (3, 3, 3, 0));
    // The third is tried when it comes and when the first one ends.
    assert_eq!((summary.attempts, summary.preemptions, summary.failures, summary.lost), (4, 0, 0, 0));
    assert_eq!(summary.makespan, 20.0);
    assert_eq!(summary.throughput, 3.0 / 10.0);
    let wait = &summary.wait;
    assert_eq!((wait.mean, wait.p50, wait.p90, wait.p99, wait.max), (10.0 / 3.0, 0.0, 10.0, 10.0, 10.0));
    // 4 of 8 cores for 10 s, 6 of 8 for 10 s.
    assert_eq!(summary.utilization["cpu"], 0.625);
    // Samples are taken every 100 ms: 101 of the first ten seconds, 100 of the rest.
    let over = |first: f64, then: f64| (101.0 * first + 100.0 * then) / 201.0;
    let is = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
    // The nodes use half of their cores each; then all and half: a quarter from the mean.
    is(summary.spread, over(0.0, 0.25));
    // A third of the pods (that of four cores) fits neither node, then nothing fits the full one, which has no free core but all of its memory.
    is(summary.fragmentation["cpu"], over(1.0 / 3.0, 1.0 / 3.0));
    is(summary.fragmentation["memory"], over(1.0 / 3.0, (1.0 + 1.0 / 3.0) / 2.0));
    let run = &comparison.outcomes[0].runs[0];
    let at = |seconds: f64| run.samples.iter().find(|sample| sample.seconds >= seconds).unwrap();
    assert_eq!((at(5.0).utilization[0], at(5.0).pending, at(5.0).running), (0.5, 1, 2));
    assert_eq!((at(15.0).utilization[0], at(15.0).pending, at(15.0).running), (0.75, 0, 2));
}

#[test]
fn reports_tell_the_figures_and_are_the_same_each_time() {
    let reports = |threads| {
        let comparison = experiment().run(threads, &|_, _, _| {}).unwrap();
        let (csv, json) = (report::csv(&comparison).unwrap(), report::json(&comparison));
        (report::table(&comparison), csv, json.to_string(), report::html(&comparison).unwrap())
    };
    let (table, csv, json, html) = reports(1);
    for threads in [1, 2, 6] {
        assert!(reports(threads) == (table.clone(), csv.clone(), json.clone(), html.clone()), "{threads} threads");
    }
    let row = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {table}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    // All runs are alike, so intervals and differences are nothing.
    assert_eq!(row("makespan"), "makespan [s] 20 20");
    assert_eq!(row("wait_p90"), "wait_p90 [s] 10 10");
    assert_eq!(row("wait_mean"), "wait_mean [s] 3.333 3.333");
    assert_eq!(row("utilization.cpu"), "utilization.cpu [%] 62.5 62.5");
    assert_eq!(row("fragmentation.cpu"), "fragmentation.cpu [%] 33.3 33.3");
    assert_eq!(row("preemptions"), "preemptions 0 0");
    assert!(row("spread").starts_with("spread [%] 12.4"), "{table}");
    assert!(csv.contains("by hand,one,1,makespan,s,20\n") && csv.contains("by hand,same,3,utilization.cpu,%,62.5\n"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let makespan = &json["schedulers"][1]["metrics"]["makespan"];
    assert_eq!((&makespan["estimate"]["mean"], &makespan["estimate"]["count"]), (&json!(20.0), &json!(3)));
    assert_eq!(makespan["difference"]["mean"], 0.0);
    assert!(html.contains("makespan") && html.contains("62.5") && html.matches("<svg").count() >= 4, "{html}");
}
