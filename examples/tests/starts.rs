//! What a cluster starts with: manifests of its command line, static pods of its folder, a folder that was copied.
#![allow(missing_docs)]

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use common::{MiniCluster, binary, have, text};

fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\ndata: {{by: {name}}}\n")
}

#[test]
fn manifests_are_applied_before_it_is_ready() {
    if !have("kubectl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [file, input] = ["file.yaml", "input.yaml"].map(|name| dir.path().join(name));
    fs::write(&file, format!("{}---\n{}", config_map("first"), config_map("second"))).unwrap();
    fs::write(&input, config_map("third")).unwrap();
    let args = ["--agents", "0", "-f", file.to_str().unwrap(), "-f", "-"];
    let stdin = Stdio::from(fs::File::open(&input).unwrap());
    let cluster = MiniCluster::start_reading(&dir.path().join("data"), 0, &args, stdin);
    let by = cluster.k(&["get", "configmaps", "first", "second", "third", "-o", "jsonpath={.items[*].data.by}"]);
    assert_eq!(by, "first second third");
    cluster.stop();
}

#[test]
fn a_manifest_that_can_not_be_applied_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = "apiVersion: example.com/v1\nkind: Unheard\nmetadata: {name: x}\n";
    let wrong = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name, namespace: default}\n";
    for (name, content, said) in [
        ("absent", None, "No such file or directory"),
        ("garbled", Some(format!("{}---\nkind: [\n", config_map("good"))), "document 2: "),
        ("kindless", Some("metadata: {name: x}\n".to_owned()), "document 1: apiVersion or kind is missing"),
        ("unknown", Some(unknown.to_owned()), "Unheard"),
        ("wrong", Some(wrong.to_owned()), "metadata.name"),
    ] {
        let file = dir.path().join(name);
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let data = dir.path().join(format!("data-{name}"));
        let mut command = binary();
        command.args(["--agents", "0", "--api-port", "0", "--data-dir"]).arg(&data).arg("-f").arg(&file);
        let output = command.output().unwrap();
        let (output, status) = (text(&output), output.status);
        assert!(!status.success() && output.contains(said), "{name}: {status}: {output}");
        assert!(!output.lines().any(|line| line == "ready"), "{name}: {output}");
        let begun = matches!(name, "unknown" | "wrong");
        assert_eq!(data.exists(), begun, "{name}: what can be seen in the file is seen before anything starts");
    }
}

#[test]
fn static_pods_of_a_node_s_folder_run() {
    if !have("kubectl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let manifests = data.join("nodes/rk-agent-0/manifests");
    fs::create_dir_all(&manifests).unwrap();
    let manifest = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
             - {{name: main, image: host, imagePullPolicy: Never, command: [sleep, '1000']}}\n"
        )
    };
    fs::write(manifests.join("early.yaml"), manifest("early")).unwrap();
    let cluster = MiniCluster::start(&data, &["--agents", "1"]);
    fs::write(manifests.join("late.yaml"), manifest("late")).unwrap();
    for pod in ["early-rk-agent-0", "late-rk-agent-0"] {
        cluster.until(&["get", "pod", pod, "-o", "jsonpath={.status.phase}"], |phase| phase == "Running");
    }
    fs::remove_file(manifests.join("late.yaml")).unwrap();
    cluster.until(&["get", "pod", "late-rk-agent-0"], |said| said.contains("NotFound"));
    assert!(cluster.k(&["get", "pods", "-o", "name"]).contains("pod/early-rk-agent-0"));
    cluster.stop();
}

fn copy(from: &Path, to: &Path) {
    let output = Command::new("cp").arg("-a").args([from, to]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_copy_of_a_stopped_cluster_s_folder_is_the_cluster() {
    if !have("kubectl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [data, copied] = ["data", "copied"].map(|name| dir.path().join(name));
    let cluster = MiniCluster::start(&data, &[]);
    cluster.k_in(&["apply", "-f", "-"], &common::web());
    cluster.k_in(&["apply", "-f", "-"], &config_map("kept"));
    cluster.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let identities = |cluster: &MiniCluster| {
        let path = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid}{\"\\n\"}{end}";
        let all = "pods,deployments,replicasets,services,ingresses,configmaps,nodes,serviceaccounts";
        cluster.k(&["get", all, "--sort-by=.metadata.uid", "-o", path])
    };
    let before = identities(&cluster);
    let restarts =
        ["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}"];
    assert_eq!(cluster.k(&restarts), "0 0");
    cluster.stop();
    copy(&data, &copied);
    // Nothing may lean on where the folder was.
    fs::remove_dir_all(&data).unwrap();

    let cluster = MiniCluster::start(&copied, &[]);
    assert_eq!(identities(&cluster), before);
    cluster.until(&restarts, |counts| counts == "1 1");
    cluster.k(&["wait", "pods", "-l", "app=web", "--for=condition=Ready", "--timeout=60s"]);
    assert!(cluster.k(&["exec", "deploy/web", "--", "sh", "-c", "echo $POD_NAME"]).starts_with("web-"));
    let pod = cluster.k(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);
    cluster.k(&["logs", &pod]);
    cluster.k(&["logs", &pod, "--previous"]);
    cluster.k(&["scale", "deployment/web", "--replicas=3"]);
    cluster.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.stop();
    assert!(!data.exists(), "nothing was written to where the folder was");
}

#[test]
fn a_terminal_shows_the_start_and_then_what_runs() {
    if !have("script") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [manifest, pid, typescript] = ["web.yaml", "pid", "typescript"].map(|name| dir.path().join(name));
    fs::write(&manifest, common::web()).unwrap();
    let run = format!(
        "stty cols 160 rows 60; echo $$ > {pid}; exec {cluster} --agents 1 --api-port 0 -p {port}:80@loadbalancer --data-dir {data} -f {manifest}",
        pid = pid.display(),
        cluster = binary().get_program().display(),
        port = common::free_port(),
        data = dir.path().join("data").display(),
        manifest = manifest.display(),
    );
    let mut script = Command::new("script");
    script.args(["-qefc", &run]).arg(&typescript).env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null());
    let mut terminal = script.spawn().unwrap();
    let shown = common::eventually(Duration::from_secs(60), || {
        let shown = String::from_utf8_lossy(&fs::read(&typescript).unwrap_or_default()).into_owned();
        let all = ["ready", "rk-agent-0", "Ready", "DEPLOYMENT", "default/web", "2/2", "RECENT EVENTS", "Pod/web-"];
        match all.into_iter().find(|part| !shown.contains(part)) {
            Some(part) => Err(format!("no {part}: {shown}")),
            None => Ok(shown),
        }
    });
    // Steps of the start, each with its time, come before what runs.
    let (start, _) = shown.split_once("RECENT EVENTS").unwrap();
    assert!(start.contains(" s] "), "{start}");
    let pid = fs::read_to_string(&pid).unwrap();
    assert!(Command::new("kill").arg(pid.trim()).status().unwrap().success());
    assert!(terminal.wait().unwrap().success());
}

#[test]
fn the_demo_shows_all_and_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.args(["--demo", "--api-port", "0", "-p", &format!("{}:80@loadbalancer", common::free_port())]);
    command.arg("--data-dir").arg(dir.path().join("data"));
    let output = command.output().unwrap();
    let (told, status) = (text(&output), output.status);
    assert!(status.success(), "{status}: {told}");
    let (_, done) = told.split_once("demo done in ").unwrap_or_else(|| panic!("{told}"));
    let steps = [
        "deploy a web",
        "through its service",
        "through the ingress",
        "scale it",
        "kill a container",
        "kill a node",
        "remove it",
    ];
    for step in steps {
        assert!(done.contains(step), "{step}: {told}");
    }
}
