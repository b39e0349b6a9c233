//! The real kubectl's everyday verbs against a running `mini-cluster`.
#![allow(missing_docs)]

mod common;

use common::{MiniCluster, eventually, have, text, web};
use std::{
    io::{Read, Write},
    process::Stdio,
    time::Duration,
};

fn cluster(args: &[&str]) -> Option<(tempfile::TempDir, MiniCluster)> {
    if !have("kubectl") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = MiniCluster::start(&dir.path().join("data"), args);
    Some((dir, cluster))
}

const SLEEPER: &[&str] = &[
    "run",
    "sleeper",
    "--image=host",
    "--restart=Never",
    "--command",
    "--",
    "sh",
    "-c",
    "echo started; exec sleep 600",
];

#[test]
fn reading_verbs() {
    let Some((_dir, c)) = cluster(&["--agents", "1"]) else { return };
    c.k(SLEEPER);
    c.k(&["wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s"]);
    let wide = c.k(&["get", "pods", "-o", "wide"]);
    assert!(wide.contains("NOMINATED NODE") && wide.contains("127."), "{wide}");
    assert!(c.k(&["get", "pod", "sleeper", "-o", "yaml"]).contains("\nkind: Pod\n"));
    assert!(c.k(&["get", "pod", "sleeper", "-o", "json"]).contains("\"kind\": \"Pod\""));
    assert_eq!(c.k(&["get", "pod", "sleeper", "-o", "jsonpath={.status.phase}"]), "Running");
    let custom = c.k(&["get", "pods", "-o", "custom-columns=N:.metadata.name,P:.status.phase"]);
    assert!(custom.contains("sleeper   Running"), "{custom}");
    assert_eq!(c.k(&["get", "pods", "-o", "name"]), "pod/sleeper\n");
    assert!(c.k(&["get", "pods", "-A", "--show-labels"]).contains("run=sleeper"));
    assert!(c.k(&["get", "pods", "-l", "run=sleeper", "--no-headers"]).contains("1/1"));
    assert!(c.k(&["get", "pods", "--sort-by=.metadata.creationTimestamp"]).contains("sleeper"));
    assert!(c.k(&["get", "all"]).contains("service/kubernetes"));
    assert!(c.k(&["get", "events"]).contains("Scheduled"));
    assert!(c.k(&["events", "--for", "pod/sleeper"]).contains("Started"));
    assert!(c.k(&["describe", "pod", "sleeper"]).contains("Successfully assigned default/sleeper"));
    assert!(c.k(&["describe", "node"]).contains("Allocated resources"));
    assert!(c.k(&["describe", "service", "kubernetes"]).contains("Endpoints:"));
    assert!(c.k(&["api-versions"]).lines().any(|line| line == "apps/v1"));
    assert!(c.k(&["api-resources"]).contains("deployments"));
    assert!(c.k(&["explain", "pod.spec.containers"]).contains("imagePullPolicy"));
    assert!(c.k(&["explain", "deployment.spec.strategy"]).contains("rollingUpdate"));
    assert!(c.k(&["version"]).contains("Server Version: v1.36"));
    assert!(c.k(&["cluster-info"]).contains("control plane"));
    assert!(c.k(&["auth", "whoami"]).contains("Username"));
    assert_eq!(c.k(&["auth", "can-i", "create", "pods"]).trim(), "yes");
    assert!(c.k(&["auth", "can-i", "--list"]).contains("*.*"));
    assert!(c.k(&["get", "--raw", "/readyz?verbose"]).contains("readyz check passed"));
    assert!(c.k_fails(&["top", "nodes"]).to_lowercase().contains("metrics api not available"));
    assert!(c.k_fails(&["get", "pod", "absent"]).contains("pods \"absent\" not found"));
    let unknown = c.k_fails(&["get", "pods", "--field-selector=spec.nope=1"]);
    assert!(unknown.contains(r#"field selector "spec.nope=1": field label not supported: spec.nope"#), "{unknown}");
    let unknown = c.k_fails(&["get", "cm", "--field-selector=data=1"]);
    assert!(unknown.contains(r#""data" is not a known field selector: only "metadata.name""#), "{unknown}");
    assert!(c.k_fails(&["get", "pods", "--as=bob"]).contains(r#"User "bob" cannot list resource "pods""#));
    assert!(c.k_fails(&["wait", "--for=condition=Ready", "pod/absent"]).contains("not found"));
    c.k(&["wait", "--for=jsonpath={.status.phase}=Running", "pod/sleeper", "--timeout=10s"]);
    assert!(c.k_fails(&["get", "nonsense"]).contains("the server doesn't have a resource type \"nonsense\""));
    for kind in [
        "cm",
        "secret",
        "sa",
        "ns",
        "no",
        "svc",
        "ep",
        "ev",
        "rs",
        "sts",
        "ds",
        "cj",
        "job",
        "hpa",
        "ing",
        "netpol",
        "pdb",
        "pv",
        "pvc",
        "sc",
        "crd",
        "csr",
        "pc",
        "quota",
        "limits",
        "rc",
        "endpointslices",
        "leases",
        "roles",
        "clusterroles",
        "ingressclasses",
        "runtimeclasses",
    ] {
        c.k(&["get", kind, "-A"]);
    }
}

#[test]
fn writing_verbs() {
    let Some((dir, c)) = cluster(&["--agents", "1"]) else { return };
    let file = dir.path().join("web.yaml");
    std::fs::write(&file, web()).unwrap();
    let file = file.to_str().unwrap();
    assert!(c.k(&["apply", "-f", file, "--dry-run=server"]).contains("created (server dry run)"));
    assert!(c.kubectl(&["diff", "-f", file]).output().unwrap().status.code() == Some(1), "diff says there is one");
    c.k(&["apply", "-f", file]);
    c.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(c.kubectl(&["diff", "-f", file]).output().unwrap().status.success(), "no diff after apply");
    assert!(c.k(&["apply", "-f", file]).contains("unchanged"));
    // Server-side apply: another manager conflicts, force wins.
    c.k(&["apply", "--server-side", "-f", file, "--force-conflicts"]);
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3}\n";
    let mut conflicting = c.kubectl(&["apply", "--server-side", "--field-manager=other", "-f", "-"]);
    let mut child = conflicting.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(other.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success() && text(&output).contains(".spec.replicas"), "{}", text(&output));
    c.k_in(&["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"], other);
    assert_eq!(c.k(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"]), "3");
    // Who applied on the client's side may go on on the server's, and back.
    let configmap =
        |value: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: cm}}\ndata: {{a: {value}}}\n");
    c.k_in(&["apply", "-f", "-"], &configmap("one"));
    c.k_in(&["apply", "--server-side", "-f", "-"], &configmap("two"));
    assert!(
        c.k_in(&["apply", "--server-side", "--dry-run=server", "-f", "-"], &configmap("three")).contains("(server")
    );
    c.k_in(&["apply", "-f", "-"], &configmap("four"));
    assert_eq!(c.k(&["get", "cm", "cm", "-o", "jsonpath={.data.a}"]), "four");
    // Edits of all kinds.
    c.k(&["label", "deployment", "web", "tier=front"]);
    assert!(c.k_fails(&["label", "deployment", "web", "tier=back"]).contains("already has a value"));
    c.k(&["label", "deployment", "web", "tier-"]);
    c.k(&["annotate", "deployment", "web", "note=hello"]);
    c.k(&["patch", "deployment", "web", "-p", r#"{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":1}}}}"#]);
    c.k(&["patch", "deployment", "web", "--type=merge", "-p", r#"{"metadata":{"annotations":{"note":null}}}"#]);
    c.k(&[
        "patch",
        "deployment",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/spec/replicas","value":2}]"#,
    ]);
    c.k(&["set", "image", "deployment/web", "web=other:1"]);
    c.k(&["set", "resources", "deployment/web", "--limits=cpu=250m"]);
    let mut edit = c.kubectl(&["edit", "deployment", "web"]);
    let edited =
        edit.env("KUBE_EDITOR", "sed -i s/revisionHistoryLimit:.*/revisionHistoryLimit:\\ 4/").output().unwrap();
    assert!(text(&edited).contains("edited"), "{}", text(&edited));
    assert_eq!(c.k(&["get", "deploy", "web", "-o", "jsonpath={.spec.revisionHistoryLimit}"]), "4");
    c.k(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    c.k(&["rollout", "restart", "deployment/web"]);
    c.k(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    c.k(&["rollout", "pause", "deployment/web"]);
    c.k(&["rollout", "resume", "deployment/web"]);
    c.k(&["rollout", "undo", "deployment/web", "--to-revision=1"]);
    c.k(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    // replace, and a stale one.
    let stale = c.k(&["get", "deploy", "web", "-o", "yaml"]);
    c.k(&["annotate", "deployment", "web", "again=1"]);
    let path = dir.path().join("stale.yaml");
    std::fs::write(&path, &stale).unwrap();
    assert!(c.k_fails(&["replace", "-f", path.to_str().unwrap()]).contains("the object has been modified"));
    // The ingress and the service.
    let got = eventually(Duration::from_secs(20), || http_get(c.ingress, "web.local", "/"));
    assert!(got.contains("hello from web-"), "{got}");
    c.k(&["delete", "-f", file]);
    c.until(&["get", "pods", "-o", "name"], |said| said.contains("No resources") || said.is_empty());
}

fn http_get(port: u16, host: &str, path: &str) -> Result<String, String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").map_err(|e| e.to_string())?;
    let mut body = String::new();
    stream.read_to_string(&mut body).map_err(|e| e.to_string())?;
    if body.starts_with("HTTP/1.1 200") { Ok(body) } else { Err(body) }
}

#[test]
fn creating_each_kind() {
    let Some((_dir, c)) = cluster(&["--agents", "0"]) else { return };
    for args in [
        "create namespace made",
        "create configmap cm --from-literal=a=1",
        "create secret generic s --from-literal=p=q",
        "create secret tls t --cert=CERT --key=KEY",
        "create secret docker-registry r --docker-server=x --docker-username=u --docker-password=p",
        "create serviceaccount robot",
        "create deployment d --image=host -- sleep 600",
        "create job j --image=host -- true",
        "create cronjob cj --image=host --schedule=0_0_1_1_* -- true",
        "create service clusterip s1 --tcp=80:8080",
        "create service nodeport s2 --tcp=80:8080",
        "create service loadbalancer s3 --tcp=80:8080",
        "create service externalname s4 --external-name=example.org",
        "create ingress i --rule=a.local/*=s1:80",
        "create role r --verb=get --resource=pods",
        "create rolebinding rb --role=r --user=u",
        "create clusterrole cr --verb=get --resource=nodes",
        "create clusterrolebinding crb --clusterrole=cr --user=u",
        "create quota q --hard=pods=10",
        "create priorityclass pc --value=5",
        "create poddisruptionbudget pdb --selector=app=x --min-available=1",
        "expose deployment d --port=80",
        "autoscale deployment d --min=1 --max=3",
    ] {
        let (cert, key) = (c.data.join("pki/ca.crt"), c.data.join("pki/ca.key"));
        let args: Vec<String> = args
            .split(' ')
            .map(|arg| {
                arg.replace('_', " ").replace("CERT", cert.to_str().unwrap()).replace("KEY", key.to_str().unwrap())
            })
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let said = c.k(&args);
        assert!(
            said.contains("created") || said.contains("exposed") || said.contains("autoscaled"),
            "{args:?}: {said}"
        );
    }
    assert!(!c.k(&["create", "token", "robot"]).is_empty());
    c.until(&["get", "job", "j"], |said| said.contains("1/1"));
    c.k(&["create", "job", "from-cron", "--from=cronjob/cj"]);
    c.until(&["get", "job", "from-cron"], |said| said.contains("1/1"));
    c.k(&["delete", "namespace", "made"]);
}

#[test]
fn reaching_into_pods() {
    let Some((dir, c)) = cluster(&["--agents", "1"]) else { return };
    c.k(SLEEPER);
    c.k(&["wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s"]);
    assert_eq!(c.k(&["logs", "sleeper"]), "started\n");
    assert!(
        c.k(&["logs", "sleeper", "--timestamps"]).contains("Z started")
            || c.k(&["logs", "sleeper", "--timestamps"]).contains(" started")
    );
    assert_eq!(c.k(&["exec", "sleeper", "--", "echo", "hi"]), "hi\n");
    assert_eq!(c.k_in(&["exec", "-i", "sleeper", "--", "cat"], "through"), "through");
    let failing = c.kubectl(&["exec", "sleeper", "--", "sh", "-c", "echo err >&2; exit 7"]).output().unwrap();
    assert_eq!(failing.status.code(), Some(7), "{}", text(&failing));
    assert!(text(&failing).contains("err"));
    // cp, both ways.
    let (from, back) = (dir.path().join("from"), dir.path().join("back"));
    std::fs::write(&from, "payload").unwrap();
    let there = dir.path().join("copied");
    c.k(&["cp", from.to_str().unwrap(), &format!("sleeper:{}", there.display())]);
    c.k(&["cp", &format!("sleeper:{}", there.display()), back.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&back).unwrap(), "payload");
    // port-forward to a pod and through a service.
    c.k_in(&["apply", "-f", "-"], &web());
    c.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    for target in ["deployment/web", "service/web-service"] {
        let port = common::free_port();
        let inner = if target.starts_with("service") { 8080 } else { 5000 };
        let mut forward =
            c.kubectl(&["port-forward", target, &format!("{port}:{inner}")]).stdout(Stdio::null()).spawn().unwrap();
        for _ in 0..3 {
            let got = eventually(Duration::from_secs(20), || http_get(port, "localhost", "/"));
            assert!(got.contains("hello from web-"), "{got}");
        }
        forward.kill().unwrap();
        forward.wait().unwrap();
    }
    // attach to a program that answers its input.
    c.k_in(&["apply", "-f", "-"], "apiVersion: v1\nkind: Pod\nmetadata: {name: echo}\nspec: {containers: [{name: c, image: host, stdin: true, command: [cat]}]}\n");
    c.k(&["wait", "--for=condition=Ready", "pod/echo", "--timeout=60s"]);
    let mut attach = c.kubectl(&["attach", "-i", "echo"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    attach.stdin.as_mut().unwrap().write_all(b"marco\n").unwrap();
    let mut answer = [0; 6];
    attach.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"marco\n");
    attach.kill().unwrap();
    attach.wait().unwrap();
    // debug adds an ephemeral container.
    c.k(&["debug", "sleeper", "--image=host", "--container=dbg", "--", "sh", "-c", "echo debugging"]);
    c.until(&["logs", "sleeper", "-c", "dbg"], |said| said.contains("debugging"));
    // ... to a node, and to a copy of the pod.
    let node = c.k(&["get", "pod", "sleeper", "-o", "jsonpath={.spec.nodeName}"]);
    let created = c.kubectl(&["debug", &format!("node/{node}"), "--image=host", "--", "echo", "on the node"]).output();
    let created = text(&created.unwrap());
    let debugger = created.split_whitespace().find(|word| word.starts_with("node-debugger-")).unwrap().to_owned();
    c.until(&["logs", &debugger], |said| said.contains("on the node"));
    c.k(&[
        "debug",
        "sleeper",
        "--copy-to=copy",
        "--container=sleeper",
        "--",
        "sh",
        "-c",
        "echo copied; exec sleep 600",
    ]);
    c.until(&["logs", "copy", "-c", "sleeper"], |said| said.contains("copied"));
    // run, attached, and gone afterwards.
    let run = ["run", "once", "--image=host", "--restart=Never", "--rm", "-i", "--command", "--"];
    let said = c.k_in(&[&run[..], &["sh", "-c", "read word; echo got $word"]].concat(), "it\n");
    assert!(said.contains("got it"), "{said}");
    assert!(c.k_fails(&["get", "pod", "once"]).contains("not found"));
    c.k(&["delete", "pod", "sleeper", "--now"]);
}

#[test]
fn keeping_nodes() {
    let Some((_dir, c)) = cluster(&["--agents", "1"]) else { return };
    let nodes = c.k(&["get", "nodes", "-o", "name"]);
    let agent = nodes.lines().find(|name| name.contains("agent")).unwrap().trim_start_matches("node/").to_owned();
    c.k_in(&["apply", "-f", "-"], &web());
    c.k(&["scale", "deployment/web", "--replicas=4"]);
    c.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    c.k(&["cordon", &agent]);
    assert!(c.k(&["get", "node", &agent]).contains("SchedulingDisabled"));
    c.k(&["drain", &agent, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s"]);
    c.until(&["get", "deploy", "web"], |said| said.contains("4/4"));
    assert!(!c.k(&["get", "pods", "-o", "wide"]).lines().any(|line| line.contains(&agent) && line.contains("Running")));
    c.k(&["uncordon", &agent]);
    c.k(&["taint", "node", &agent, "only=special:NoSchedule"]);
    assert!(c.k(&["describe", "node", &agent]).contains("only=special:NoSchedule"));
    c.k(&["taint", "node", &agent, "only-"]);
    // Cascades.
    c.k(&["delete", "deployment", "web", "--cascade=orphan"]);
    assert!(c.k(&["get", "rs", "-o", "name"]).contains("web"));
    c.k(&["delete", "rs", "-l", "app=web", "--cascade=foreground"]);
    c.until(&["get", "pods", "-o", "name"], |said| !said.contains("web"));
    // Nothing of all this was worth a warning of a controller.
    assert!(!c.k(&["events", "--types=Warning"]).contains("ReconcileFailed"), "{}", c.log());
}
