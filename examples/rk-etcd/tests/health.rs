//! What a running server says of its health, and settings that show only in one that runs.

mod process;

use process::{Etcd, Server, is_there, wait_for};

#[test]
fn health_is_told_as_etcd_tells_it() {
    if !is_there("etcd") || !is_there("etcdctl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::start_with(&dir.path().display().to_string(), &["--quota-backend-bytes", "200000"]);
    let server = Server::start(&["--quota-backend-bytes", "200000"]);
    let paths = ["/health", "/health?exclude=NOSPACE", "/health?exclude=CORRUPT", "/health?exclude", "/health?a=b"];
    // This etcd does not tell the reason yet.
    let health = |(code, body): (u16, String)| {
        let said = body.trim_end().strip_suffix('}').unwrap().split(',').next().unwrap().to_owned();
        (code, said)
    };
    let same = || paths.map(|path| (path, health(server.http(path)), health(etcd.http(path))));
    for (path, ours, theirs) in same() {
        assert_eq!(ours, theirs, "{path}");
        assert_eq!(ours, (200, r#"{"health":"true""#.into()), "{path}");
    }
    let value = "x".repeat(50_000);
    let full = |put: std::process::Output| String::from_utf8_lossy(&put.stderr).contains("database space exceeded");
    wait_for("the quota of one", || full(server.command(&["put", "a", &value]).output().unwrap()));
    wait_for("the quota of the other", || full(etcd.command(&["put", "a", &value]).output().unwrap()));
    for (path, ours, theirs) in same() {
        assert_eq!(ours, theirs, "{path}");
        assert_eq!(ours.0, if path == "/health?exclude=NOSPACE" { 200 } else { 503 }, "{path}");
    }
    assert_eq!(server.http("/health").1, r#"{"health":"false","reason":"ALARM NOSPACE"}"#);
    // An alarm is no reason to be started anew, or to be sent no requests: these are of later versions of etcd.
    assert_eq!([server.http("/livez").0, server.http("/readyz").0], [200, 200]);
    // Its status has the alarm, too.
    let alarm = |status: String| {
        let begin = status.find("memberID:").unwrap();
        let (id, kind) = status[begin..].split_once(' ').unwrap();
        assert_ne!(id, "memberID:0");
        kind.trim().to_owned()
    };
    let ours = alarm(server.ctl(&["endpoint", "status"]));
    assert_eq!((ours.as_str(), &alarm(etcd.ctl(&["endpoint", "status"]))), ("alarm:NOSPACE", &ours));
}

#[test]
fn one_without_a_leader_is_alive_and_not_ready() {
    let mut members = Server::start_cluster(&["a", "b", "c"]);
    wait_for("a leader", || members[0].http("/health").0 == 200);
    members.truncate(1);
    let reason = (503, r#"{"health":"false","reason":"RAFT NO LEADER"}"#.to_owned());
    wait_for("it to know", || members[0].http("/health") == reason);
    assert_eq!(members[0].http("/health?serializable=false"), reason);
    assert_eq!(members[0].http("/readyz"), (503, "RAFT NO LEADER\n".into()));
    assert_eq!(members[0].http("/health?serializable=true"), (200, r#"{"health":"true","reason":""}"#.into()));
    assert_eq!(members[0].http("/livez"), (200, "ok\n".into()));
}

#[test]
fn the_environment_is_read_as_etcd_reads_it() {
    if !is_there("etcdctl") {
        return;
    }
    let server = Server::start_by_environment(&[("ETCD_NAME", "of-the-environment"), ("ETCD_MAX_TXN_OPS", "2")], &[]);
    assert!(server.ctl(&["member", "list"]).contains(", started, of-the-environment, "));
    // A flag counts for more.
    let environment = [("ETCD_NAME", "of-the-environment"), ("ETCD_CLIENT_CERT_AUTH", "false")];
    let server = Server::start_by_environment(&environment, &["--name", "of-the-flag"]);
    assert!(server.ctl(&["member", "list"]).contains(", started, of-the-flag, "));
    for (name, value) in [("ETCD_SNAPSHOT_COUNT", "many"), ("ETCD_LISTEN_CLIENT_URLS", "nowhere")] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_rk-etcd")).env(name, value).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let flag = format!("--{}", name.strip_prefix("ETCD_").unwrap().to_lowercase().replace('_', "-"));
        assert!(!output.status.success() && error.contains(&flag) && error.contains(value), "{error}");
    }
}

#[test]
fn tokens_tell_clusters_of_the_same_members_apart() {
    if !is_there("etcdctl") {
        return;
    }
    let peer = process::free_address();
    let ids = |token: &str| {
        let server = Server::start_at(&peer, &["--initial-cluster-token", token]);
        let fields = server.ctl(&["endpoint", "status", "-w", "json"]);
        let id = |name: &str| fields.split(name).nth(1).unwrap().split([',', '}']).next().unwrap().to_owned();
        (id("\"cluster_id\":"), id("\"member_id\":"))
    };
    let (one, other) = (ids("one"), ids("other"));
    assert!(one.0 != other.0 && one.1 != other.1, "{one:?} {other:?}");
    assert_eq!(ids("one"), one);
}

#[test]
fn history_is_compacted_by_itself() {
    if !is_there("etcdctl") {
        return;
    }
    let server = Server::start(&["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1s"]);
    server.ctl(&["put", "a", "1"]);
    server.ctl(&["put", "a", "2"]);
    wait_for("the first put to be compacted", || {
        let past = server.command(&["get", "a", "--rev", "2"]).output().unwrap();
        String::from_utf8_lossy(&past.stderr).contains("required revision has been compacted")
    });
    assert_eq!(server.ctl(&["get", "a", "--print-value-only"]), "2\n");
}
