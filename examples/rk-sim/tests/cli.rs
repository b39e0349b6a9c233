//! The program as a user runs it.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

fn rk_sim(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rk-sim")).current_dir(folder).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What it says on standard output, having succeeded.
fn said(folder: &Path, arguments: &[&str]) -> String {
    let output = rk_sim(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = rk_sim(folder, arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

#[test]
fn a_trace_is_made_and_schedulers_are_compared_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    said(here, &["generate", "--nodes", "6", "--pods", "60", "--to", "trace"]);
    let compare = |html: &str| {
        let files = ["--html", html, "--csv", "out.csv", "--json", "out.json"];
        let flags = ["-s", "default", "-s", "full:packing,-ImageLocality", "--seeds", "2", "--pod-failures", "0.1"];
        said(here, &[&["trace", "trace/nodes.csv", "trace/pods.csv"][..], &files, &flags].concat())
    };
    let (first, second) = (compare("one.html"), compare("two.html"));
    assert_eq!(first, second);
    assert!(first.starts_with("pods\n") && first.contains("default") && first.contains("full"), "{first}");
    assert!(first.lines().any(|line| line.starts_with("makespan [s]")), "{first}");
    let page = fs::read_to_string(here.join("one.html")).unwrap();
    assert_eq!(page, fs::read_to_string(here.join("two.html")).unwrap());
    assert!(page.contains("<svg") && !page.contains("<script"));
    assert!(fs::read_to_string(here.join("out.csv")).unwrap().contains("\npods,full,2,makespan,s,"));
    let json: serde_json::Value = serde_json::from_slice(&fs::read(here.join("out.json")).unwrap()).unwrap();
    assert_eq!(json["schedulers"][0]["runs"].as_array().unwrap().len(), 2);
}

#[test]
fn workloads_and_dumps_run_and_pods_are_explained() {
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rk-sched/tests/workloads");
    let list = said(&inputs, &["perf", "performance-config.yaml", "--list", "-w", "short"]);
    assert_eq!(list, "Basic/4Nodes  [small, short]  270 pods/s\n");
    let basic = said(&inputs, &["perf", "performance-config.yaml", "-w", "Basic", "--seeds", "1"]);
    assert!(basic.starts_with("Basic/4Nodes\n"), "{basic}");
    let explained = said(&inputs, &["manifests", "dump.yaml", "--seeds", "1", "--explain", "default/late"]);
    assert!(explained.contains("default/late  attempt 1: Unschedulable: 0/2 nodes are available"), "{explained}");
    let output = rk_sim(&inputs, &["manifests", "dump.yaml", "--seeds", "1", "-q", "--explain", "default/lat"]);
    assert_eq!(text(&output.stderr), "no pod was named default/lat\n");
}

#[test]
fn a_workload_runs_under_the_scheduler_that_it_is_meant_for() {
    let folder = tempfile::tempdir().unwrap();
    let case = "- name: Own\n  schedulerConfigPath: own-config.yaml\n  workloadTemplate:\n  - {opcode: createNodes, count: 1}\n  \
                - {opcode: createPods, count: 1}\n  workloads: [{name: only}]\n";
    fs::write(folder.path().join("performance-config.yaml"), case).unwrap();
    let config = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
    fs::write(folder.path().join("own-config.yaml"), config).unwrap();
    let header = |arguments: &[&str]| {
        let text = said(folder.path(), &[&["perf", "performance-config.yaml", "--seeds", "1"], arguments].concat());
        text.lines().nth(1).unwrap().trim().to_owned()
    };
    assert_eq!(header(&[]), "own-config");
    assert_eq!(header(&["-s", "packing"]), "packing");
}

#[test]
fn configuration_files_are_compared() {
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rk-sched/tests/workloads");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, profiles: &str| {
        let path = folder.path().join(name);
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        fs::write(&path, format!("{head}profiles: {profiles}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let plain = file("plain.yaml", "[{plugins: {score: {disabled: [{name: '*'}]}}}]");
    let said = said(&inputs, &["manifests", "dump.yaml", "-s", "default", "-c", &plain]);
    assert!(said.contains("default") && said.contains("plain"), "{said}");
    let error = refused(&inputs, &["manifests", "dump.yaml", "-c", &file("wrong.yaml", "[{plugin: 1}]")]);
    assert!(error.contains("wrong.yaml: ") && error.contains("profiles[0].plugin"), "{error}");
}

/// An HTTP extender that takes one node, and how often it was asked.
fn extender(node: &'static str) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut question, mut buffer) = (Vec::new(), [0; 4096]);
            let whole = |question: &[u8]| {
                let text = String::from_utf8_lossy(question).to_lowercase();
                let (head, body) = text.split_once("\r\n\r\n")?;
                let length: usize = head.split_once("content-length: ")?.1.split("\r\n").next()?.parse().ok()?;
                (body.len() >= length).then_some(())
            };
            while whole(&question).is_none() {
                let read = stream.read(&mut buffer).unwrap();
                question.extend_from_slice(&buffer[..read]);
            }
            assert!(question.starts_with(b"POST /filter "));
            count.fetch_add(1, Ordering::Relaxed);
            let body = format!(r#"{{"NodeNames": ["{node}"], "FailedNodes": {{}}}}"#);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
    (port, asked)
}

#[test]
fn extenders_of_a_configuration_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let node = |name: &str| {
        format!("kind: Node\nmetadata: {{name: {name}}}\nstatus: {{capacity: {{cpu: 4, memory: 8Gi, pods: 10}}}}")
    };
    let pod = "kind: Pod\nmetadata: {name: p, namespace: default}\nspec: {containers: [{name: c}]}";
    fs::write(here.join("dump.yaml"), format!("{}\n---\n{}\n---\n{pod}\n", node("one"), node("two"))).unwrap();
    for chosen in ["one", "two"] {
        let (port, asked) = extender(chosen);
        let config = format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nextenders:\n\
             - {{urlPrefix: 'http://127.0.0.1:{port}', filterVerb: filter, nodeCacheCapable: true, weight: 1}}\n"
        );
        fs::write(here.join("config.yaml"), config).unwrap();
        let text =
            said(here, &["manifests", "dump.yaml", "-c", "config.yaml", "--seeds", "2", "--explain", "default/p"]);
        assert_eq!(text.matches(&format!("default/p  bound to {chosen}")).count(), 2, "{text}");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}

#[test]
fn what_is_wrong_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rk-sched/tests/workloads");
    let error = refused(folder.path(), &["trace", "none.csv", "none.csv"]);
    assert!(error.starts_with("error: none.csv: "), "{error}");
    let error = refused(&inputs, &["perf", "performance-config.yaml", "-w", "Nothing"]);
    assert!(error.contains("no workload is named, or has the label, \"Nothing\""), "{error}");
    let error = refused(&inputs, &["manifests", "dump.yaml", "-s", "best"]);
    assert!(error.contains("scheduler \"best\": there are `default` and `packing`"), "{error}");
    let error = refused(&inputs, &["manifests", "dump.yaml", "--pod-failures", "1.5"]);
    assert!(error.contains("pod_failures is 1.5: must be 0 or more and less than 1"), "{error}");
    let error = refused(&inputs, &["perf", "performance-config.yaml", "-w", "Never", "--seeds", "1"]);
    assert!(
        error.contains("error: not finished: Never/only: default, seed 1: step 4: 2 pods were not scheduled"),
        "{error}"
    );
}
