//! The laboratory: whole clusters in virtual time.
#![cfg(feature = "simulate")]

use std::{path::Path, sync::Arc, time::Duration};

use rk_sched::{
    Profile, SchedulerConfig,
    simulate::{
        Experiment, NodeChurn, Options, Run, Variant, Workload, manifests, objects, perf, report, simulate, trace,
        workload::{Action, Job, Step},
    },
};
use serde_json::{Value, json};

fn node(name: &str, cpu: &str) -> (Duration, Action) {
    let node = json!({"status": {"capacity": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}});
    (Duration::ZERO, Action::SetNode(Arc::new(objects::node(node, name).unwrap())))
}

fn pod(at: u64, name: &str, cpu: &str, priority: i32, seconds: Option<u64>) -> (Duration, Action) {
    let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
    let pod = objects::pod(json!({"spec": {"containers": [container], "priority": priority}}), name, "default");
    let duration = seconds.map(Duration::from_secs);
    let job = Job { pod: Arc::new(pod.unwrap()), duration, restarts: true };
    (Duration::from_secs(at), Action::CreatePod(Arc::new(job)))
}

fn workload(actions: Vec<(Duration, Action)>) -> Workload {
    Workload { name: "test".to_owned(), steps: vec![Step::Play { actions, background: false }] }
}

fn run(workload: &Workload, options: &Options) -> Run {
    let config = SchedulerConfig::default();
    simulate(workload, &config, options, 1, &mut |_| {}).unwrap()
}

/// The histories of these pods, without the times.
fn explaining(pods: &[&str]) -> Options {
    Options { explain: pods.iter().map(|pod| (*pod).to_owned()).collect(), ..Options::default() }
}

#[test]
fn pods_wait_for_room_and_run_one_after_another() {
    let pods = [pod(0, "a", "1", 0, Some(100)), pod(1, "b", "1", 0, Some(50)), pod(2, "c", "1", 0, Some(10))];
    let run = run(&workload([vec![node("n", "2")], pods.into()].concat()), &Options::default());
    let summary = &run.summary;
    assert_eq!((summary.pods, summary.scheduled, summary.finished, summary.unscheduled), (3, 3, 3, 0));
    // The third waits from second 2 until the second one ends, at 51.
    assert!((summary.wait.max - 49.0).abs() < 0.1, "{summary:?}");
    assert!((summary.makespan - 100.0).abs() < 0.1, "{summary:?}");
    // 160 core-seconds of 200.
    assert!((summary.utilization["cpu"] - 0.8).abs() < 0.01, "{summary:?}");
}

#[test]
fn important_pods_make_others_go_which_are_replaced() {
    let pods = vec![node("n", "2"), pod(0, "low", "2", 0, Some(100)), pod(10, "high", "2", 10, Some(20))];
    let run = run(&workload(pods), &explaining(&["default/low", "default/high"]));
    assert_eq!((run.summary.preemptions, run.summary.pods, run.summary.finished), (1, 3, 2));
    let history = run.history.join("\n");
    assert!(
        history.contains("default/high  attempt 1: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."),
        "{history}"
    );
    assert!(history.contains("Room is being made on n by preempting low."), "{history}");
    assert!(history.contains("default/low  preempted"), "{history}");
    assert!(history.contains("default/low-r1  bound to n"), "{history}");
    // The one that was preempted begins anew once the other has ended: 10 s, a second to stop, 20 s, 100 s.
    assert!((run.summary.makespan - 131.0).abs() < 2.0, "{}", run.summary.makespan);
}

#[test]
fn what_fails_is_tried_again() {
    let pods: Vec<_> = (0..200).map(|number| pod(number / 10, &format!("p{number}"), "100m", 0, Some(60))).collect();
    let workload = workload([vec![node("a", "8"), node("b", "8")], pods].concat());
    let options = Options { binding_failures: 0.2, pod_failures: 0.2, retries: 100, ..Options::default() };
    let unlucky = run(&workload, &options);
    let summary = &unlucky.summary;
    assert!(summary.failed_bindings > 20 && summary.failures > 20, "{summary:?}");
    assert_eq!(summary.finished, 200);
    assert_eq!(summary.pods, 200 + summary.failures);
    assert_eq!((summary.scheduled, summary.unscheduled), (summary.pods, 0));
    let once = run(&workload, &Options { pod_failures: 0.2, retries: 0, ..Options::default() });
    assert_eq!(once.summary.finished + once.summary.failures, 200);
}

#[test]
fn nodes_leave_and_come_back() {
    let pods: Vec<_> = (0..50).map(|number| pod(number * 10, &format!("p{number}"), "1", 0, Some(300))).collect();
    let nodes = (0..5).map(|number| node(&format!("n{number}"), "8")).collect();
    let churn = NodeChurn { between_failures: Duration::from_secs(400), outage: Duration::from_secs(60) };
    let options = Options { node_churn: Some(churn), ..Options::default() };
    let run = run(&workload([nodes, pods].concat()), &options);
    assert!(run.summary.lost > 5, "{:?}", run.summary);
    assert_eq!(run.summary.finished, 50, "each is replaced until it has run: {:?}", run.summary);
    assert!(run.samples.iter().any(|sample| sample.nodes < 5));
}

#[test]
fn no_node_is_ever_given_more_than_it_has() {
    let generated = trace_workload(20, 600, 1.1);
    let options = Options { binding_failures: 0.1, pod_failures: 0.1, ..Options::default() };
    let run = run(&generated, &options);
    for sample in &run.samples {
        assert!(sample.utilization.iter().all(|part| (0.0..=1.0).contains(part)), "{sample:?}");
        assert!(sample.fragmentation.iter().all(|part| (0.0..=1.0).contains(part)), "{sample:?}");
    }
    let last = run.samples.last().unwrap();
    assert!(last.seconds > 0.0 && run.summary.finished + 20 > 600, "{:?}", run.summary);
}

fn trace_workload(nodes: usize, pods: usize, load: f64) -> Workload {
    trace::generate(nodes, pods, load, 7).workload("generated").unwrap()
}

#[test]
fn a_trace_that_was_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (nodes, pods) = (folder.path().join("nodes.csv"), folder.path().join("pods.csv"));
    let generated = trace::generate(5, 20, 0.5, 7);
    trace::write(&generated, &nodes, &pods).unwrap();
    let source = trace::Source { nodes, pods, units: trace::Units::default() };
    assert_eq!(jobs(&trace::workload("w", &source).unwrap()), jobs(&generated.workload("w").unwrap()));
}

fn experiment(threads: usize) -> (String, String, Value) {
    let packing = || Profile::kubernetes("default-scheduler").without("PodTopologySpread").without("NodeResourcesFit");
    let churn = NodeChurn { between_failures: Duration::from_secs(5000), outage: Duration::from_secs(100) };
    let experiment = Experiment {
        workload: trace_workload(10, 150, 0.9),
        variants: vec![
            Variant::profile("default", || Profile::kubernetes("default-scheduler")),
            Variant::profile("other", packing),
        ],
        options: Options { pod_failures: 0.1, binding_failures: 0.1, node_churn: Some(churn), ..Options::default() },
        seeds: vec![1, 2],
    };
    let comparison = experiment.run(threads, &|_, _, _| {}).unwrap();
    (report::html(&comparison).unwrap(), report::csv(&comparison).unwrap(), report::json(&comparison))
}

#[test]
fn the_same_seeds_give_the_same_bytes_on_any_number_of_threads() {
    let (first, second) = (experiment(1), experiment(3));
    assert_eq!(first.2.to_string(), second.2.to_string());
    assert!(first == second, "the reports differ");
    let html = first.0;
    assert!(html.contains("<svg") && !html.contains("<script") && !html.contains("src="));
    let runs = first.2["schedulers"][0]["runs"].as_array().unwrap();
    assert_ne!(runs[0]["summary"]["wait"], runs[1]["summary"]["wait"], "other seeds give other runs");
}

fn case(name: &str) -> perf::Case {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads/performance-config.yaml");
    perf::cases(&path).unwrap().into_iter().find(|case| case.name() == name).unwrap()
}

#[test]
fn workloads_of_scheduler_perf_run_as_they_are() {
    let basic = case("Basic/4Nodes");
    assert_eq!((basic.threshold(), basic.labels().collect::<Vec<_>>()), (Some(270.0), vec!["small", "short"]));
    let run_of = |name: &str| run(&case(name).workload().unwrap(), &Options::default()).summary;
    let basic = run_of("Basic/4Nodes");
    // Only those of the operation that collects metrics are measured.
    assert_eq!((basic.pods, basic.scheduled, basic.stalled), (20, 20, None));
    let churn = run_of("Churn/only");
    assert!(churn.pods > 10 && churn.scheduled == 10 && churn.unscheduled == churn.pods - 10, "{churn:?}");
    let update = run_of("Update/only");
    assert_eq!((update.pods, update.scheduled, &update.stalled), (3, 3, &None));
    // The last node is large enough after the third tick of 10 ms, and the pod's back-off is cut short.
    assert!(update.wait.max > 0.03 && update.wait.max < 0.1, "{update:?}");
    let sets = run_of("Sets/only");
    assert_eq!((sets.pods, sets.scheduled, sets.stalled), (6, 6, None));
    let devices = run_of("Devices/only");
    assert_eq!((devices.pods, devices.scheduled, devices.stalled), (5, 5, None));
    // Three of the four devices are taken before the pods come.
    let allocated = run_of("Allocated/some");
    assert_eq!((allocated.pods, allocated.scheduled, allocated.stalled), (2, 1, None));
    let stalled = run_of("Allocated/tooMany").stalled.unwrap();
    assert!(stalled.ends_with(": could not allocate claim 4 out of 5"), "{stalled}");
    // As many as can be scheduled within two seconds, of a millisecond each.
    let steady = run_of("Steady/only");
    assert!(steady.scheduled > 20 && steady.pods <= steady.scheduled + 3 && steady.stalled.is_none(), "{steady:?}");
}

#[test]
fn a_workload_that_waits_in_vain_says_so() {
    let never = run(&case("Never/only").workload().unwrap(), &Options::default()).summary;
    assert_eq!(never.stalled.as_deref(), Some("step 4: 2 pods were not scheduled after 600 s"));
    assert_eq!((never.scheduled, never.unscheduled), (0, 2));
}

#[test]
fn wrong_workload_files_are_refused_with_their_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("performance-config.yaml");
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let error = perf::cases(&path).and_then(|cases| cases[0].workload());
        error.unwrap_err().to_string()
    };
    let with = |op: &str| refused(&format!("- name: A\n  workloadTemplate: [{op}]\n  workloads: [{{name: w}}]\n"));
    assert!(refused("- nam: A\n").contains("performance-config.yaml: "));
    assert!(with("{opcode: explode}").contains("explode"));
    let error = with("{opcode: createNodes, countParam: $n}");
    assert!(error.ends_with("workload \"w\" has no parameter \"$n\""), "{error}");
    let error = with("{opcode: createPods, count: 1, podTemplatePath: none.yaml}");
    assert!(error.contains("none.yaml: "), "{error}");
    let error = with("{opcode: sleep, duration: long}");
    assert!(error.ends_with("sleep: \"long\" is no duration"), "{error}");
    let error = with("{opcode: createNodes, count: 1, colour: red}");
    assert!(error.ends_with("createNodes: colour is not supported"), "{error}");
    let error = with("{opcode: createResourceDriver, driverName: d, nodes: 'x-*'}");
    assert!(error.ends_with("createResourceDriver: no node is named \"x-*\""), "{error}");
}

fn trace_of(nodes: &str, pods: &str, units: trace::Units) -> Result<Workload, trace::TraceError> {
    trace::parse("trace", nodes.as_bytes(), pods.as_bytes(), units)
}

/// By pod: name, when it comes, how long it runs, what it asks for of cores, memory and GPUs.
fn jobs(workload: &Workload) -> Vec<(String, u64, Option<u64>, i64, i64, i64)> {
    let Step::Play { actions, .. } = &workload.steps[0] else { panic!("a trace is played") };
    let jobs = actions.iter().filter_map(|(at, action)| match action {
        Action::CreatePod(job) => {
            let requests = rk_sched::model::pod_requests(job.pod.spec.as_ref().unwrap());
            let runs = job.duration.map(|duration| duration.as_secs());
            let name = job.pod.metadata.name.clone().unwrap();
            Some((name, at.as_secs(), runs, requests.milli_cpu, requests.memory >> 20, requests.get(trace::GPU)))
        }
        _ => None,
    });
    jobs.collect()
}

#[test]
fn traces_of_three_clusters_are_read_by_their_columns() {
    let own = trace_of(
        "name,cpu_milli,memory_mib,gpu,gpu_model\nn1,8000,16384,2,V100\n",
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time,scheduled_time\n\
         p,1500,1024,1,500,V100|T4,100,400,150\nP 2,500,,0,0,,130,,\n",
        trace::Units::default(),
    );
    let own = own.unwrap();
    assert_eq!(jobs(&own), [("p".to_owned(), 0, Some(250), 1500, 1024, 500), ("p-2".to_owned(), 30, None, 500, 0, 0)]);
    assert_eq!(run(&own, &Options::default()).summary.scheduled, 2);

    let alibaba = trace_of(
        "machine,gpu_type,cap_cpu,cap_mem,cap_gpu\nm,T4,96,512,2\n",
        "job_name,inst_num,start_time,end_time,plan_cpu,plan_mem,plan_gpu\nj,2,10,70,600,29.3,50\n",
        trace::Units::default(),
    );
    let one = |name: &str| (name.to_owned(), 0, Some(60), 6000, 30003, 500);
    assert_eq!(jobs(&alibaba.unwrap()), [one("j"), one("j-2")]);

    let google = trace_of(
        "machine_id,capacity.cpus,capacity.memory\n1,1.0,0.5\n",
        "collection_id,time,end_time,resource_request.cpus,resource_request.memory,priority\n7,5000000,65000000,0.25,0.125,200\n",
        trace::Units { cores: 64.0, memory: 256.0, seconds: 1e-6 },
    );
    assert_eq!(jobs(&google.unwrap()), [("7".to_owned(), 0, Some(60), 16_000, 32 << 10, 0)]);
}

#[test]
fn wrong_traces_are_refused_with_line_and_column() {
    let nodes = "name,cpu_milli,memory_mib\nn,1000,1\n";
    let refused = |nodes: &str, pods: &str| trace_of(nodes, pods, trace::Units::default()).unwrap_err().to_string();
    let error = refused(nodes, "name,cpu_milli\na,1\nb,many\n");
    assert!(error.ends_with("pods.csv: line 3: column cpu_milli: \"many\" is no number"), "{error}");
    let error = refused(nodes, "name,cpu_milli\na,-1\n");
    assert!(error.ends_with("\"-1\" is out of range"), "{error}");
    let error = refused("name,memory_mib\nn,1\n", "name,cpu_milli\na,1\n");
    assert!(error.contains("nodes.csv: there is no column cpu_milli or cpu"), "{error}");
    assert!(refused(nodes, "name,cpu_milli\n").ends_with("there are no rows"));
    let error = refused(nodes, "name,cpu_milli,instances\na,1,1e14\n");
    assert!(error.ends_with("\"1e14\" is more than a million"), "{error}");
    let error = refused(nodes, "name,cpu_milli\n--,1\n");
    assert!(error.ends_with("line 2: column name: \"--\" is no name"), "{error}");
    let error = refused(nodes, "name,cpu_milli,creation_time\na,1,1e12\n");
    assert!(error.ends_with("column creation_time: \"1e12\" is out of range as a time"), "{error}");
    let error = refused(nodes, "name,cpu_milli,priority\na,1,3e9\n");
    assert!(error.ends_with("column priority: \"3e9\" is out of range"), "{error}");
    for unit in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let units = trace::Units { memory: unit, ..trace::Units::default() };
        let error = trace_of(nodes, "name,cpu_milli\na,1\n", units).unwrap_err().to_string();
        assert_eq!(error, format!("a unit is {unit}: must be a number above 0"));
    }
}

#[test]
fn rows_without_a_time_come_first_and_names_are_never_used_twice() {
    let nodes = "name,cpu_milli,memory_mib\nn,1000,1\n";
    let pods = "name,cpu_milli,creation_time,deletion_time\na,1,1000,1060\na,1,1010,\na-2,1,1020,1030\nb,1,,1070\n";
    let read = trace_of(nodes, pods, trace::Units::default()).unwrap();
    let times: Vec<_> = jobs(&read).into_iter().map(|(name, at, runs, ..)| (name, at, runs)).collect();
    let job = |name: &str, at, runs| (name.to_owned(), at, runs);
    let expected = [job("a", 0, Some(60)), job("a-2", 10, None), job("a-2-2", 20, Some(10)), job("b", 0, None)];
    assert_eq!(times, expected);
}

#[test]
fn dumps_of_kubectl_run() {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads/dump.yaml")).unwrap();
    let replayed = |replay| {
        let workload = manifests::workload("dump", manifests::parse(&text).unwrap(), replay).unwrap();
        run(&workload, &explaining(&["default/late"]))
    };
    let anew = replayed(manifests::Replay::Anew);
    assert_eq!((anew.summary.pods, anew.summary.scheduled), (3, 2), "{:?}", anew.history);
    let keep = replayed(manifests::Replay::Keep);
    // Those that stay on their nodes are not measured.
    assert_eq!((keep.summary.pods, keep.summary.scheduled, keep.summary.unscheduled), (1, 0, 1));
    let said = "default/late  attempt 1: Unschedulable: 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.";
    assert!(keep.history.iter().any(|line| line.contains(said)), "{:?}", keep.history);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let options = Options { pod_failures: 2.0, ..Options::default() };
    let refused = simulate(&workload(Vec::new()), &SchedulerConfig::default(), &options, 1, &mut |_| {}).unwrap_err();
    assert_eq!(refused.to_string(), "pod_failures is 2: must be 0 or more and less than 1");
    let config = SchedulerConfig { profiles: Vec::new(), ..SchedulerConfig::default() };
    let refused = simulate(&workload(Vec::new()), &config, &Options::default(), 1, &mut |_| {}).unwrap_err();
    assert_eq!(refused.to_string(), "a scheduler needs at least one profile");
}
