//! `--pod-cidr` and `--service-cidr`: real ranges on the loopback device, in a network namespace of the test's own.
#![allow(missing_docs)]

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{MiniCluster, binary, eventually, have, text};

/// What the machine's administrator has routed: everything else goes to a neighbour that never answers.
const OWN: &str = "ip link set lo up
    ip link add uplink type bridge
    ip link set uplink up
    ip address add 192.0.2.1/24 dev uplink
    ip route add default via 192.0.2.2";
const RANGES: [&str; 4] = ["--pod-cidr", "10.142.0.0/16", "--service-cidr", "10.143.0.0/16"];

/// Moves this thread, and what it starts, into a network namespace of its own.
fn own_network() -> bool {
    if !have("ip") {
        return false;
    }
    let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .map_err(|e| e.to_string())
        .and_then(|()| Command::new("sh").args(["-e", "-c", OWN]).output().map_err(|e| e.to_string()))
        .and_then(|output| if output.status.success() { Ok(()) } else { Err(text(&output)) });
    if let Err(why) = &made {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "a network namespace is required in CI: {why}");
        println!("skipped: no network namespace with a default route: {why}");
    }
    made.is_ok()
}

/// The routes that lead to one of the ranges.
fn routes() -> Vec<String> {
    let output = Command::new("ip").args(["route", "show", "table", "all"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let ours = |line: &&str| line.contains("10.142.") || line.contains("10.143.");
    text(&output).lines().filter(ours).map(str::to_owned).collect()
}

fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn real_ranges_are_served_and_leave_no_routes() {
    if !have("kubectl") || !own_network() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = MiniCluster::start(&dir.path().join("data"), &RANGES);
    let there = routes();
    for range in ["10.142.0.0/16", "10.143.0.0/16"] {
        for kind in ["unreachable", "local"] {
            let route = format!("{kind} {range} ");
            assert!(there.iter().any(|line| line.starts_with(&route)), "{route}: {there:#?}");
        }
    }
    cluster.k_in(&["apply", "-f", "-"], &common::web());
    cluster.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let pods = cluster.k(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}"]);
    let service = cluster.k(&["get", "service", "web-service", "-o", "jsonpath={.spec.clusterIP}"]);
    assert!(service.starts_with("10.143."), "{service}");
    for pod in pods.split_whitespace() {
        assert!(pod.starts_with("10.142."), "{pod}");
        let answer = get(&format!("{pod}:5000")).unwrap();
        assert!(answer.contains("hello from web-"), "{answer}");
    }
    eventually(Duration::from_secs(20), || match get(&format!("{service}:8080")) {
        Ok(answer) if answer.contains("hello from web-") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Nobody listens here: refused at once, and never sent to where the default route leads.
    for address in ["10.142.200.1:80", "10.143.200.1:80"] {
        let begin = Instant::now();
        let error = get(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}: {error}");
        assert!(begin.elapsed() < Duration::from_secs(1), "{address}");
    }

    // A second cluster may not have the ranges, and does the first one no harm.
    let second = dir.path().join("second");
    let refused = binary().arg("--data-dir").arg(&second).args(["--api-port", "0"]).args(RANGES).output().unwrap();
    assert!(!refused.status.success());
    assert!(text(&refused).contains("10.142.0.0/16 is in use by another process"), "{}", text(&refused));
    assert_eq!(routes(), there);
    assert!(get(&format!("{service}:8080")).is_ok());

    // What a killed one leaves behind is the next one's, and goes with it.
    cluster.kill();
    assert_eq!(routes(), there);
    MiniCluster::start(&dir.path().join("data"), &RANGES).stop();
    assert_eq!(routes(), [""; 0]);
}

#[test]
fn a_start_that_fails_or_is_interrupted_leaves_no_routes() {
    if !own_network() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let data = dir.path().join("failed");
    let failed = binary().arg("--data-dir").arg(data).args(["--api-port", &port]).args(RANGES).output().unwrap();
    assert!(!failed.status.success());
    assert!(text(&failed).contains("in use"), "{}", text(&failed));
    assert_eq!(routes(), [""; 0], "{}", text(&failed));

    // A container runtime that never answers keeps the start waiting for its nodes.
    let socket = dir.path().join("runtime.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut child = binary()
        .arg("--data-dir")
        .arg(dir.path().join("interrupted"))
        .args(["--api-port", "0", "--runtime", &format!("cri:unix://{}", socket.display())])
        .args(RANGES)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually(Duration::from_secs(30), || if routes().len() == 4 { Ok(()) } else { Err(format!("{:#?}", routes())) });
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(routes(), [""; 0]);
}
