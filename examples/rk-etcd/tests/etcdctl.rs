//! The real `etcdctl` on rk-etcd.

mod process;

use std::{io::Write, process::Stdio, time::Duration};

use process::{Server, etcdctl_is_there, wait_for};

/// One server for one test, or nothing where there is no etcdctl.
fn server() -> Option<Server> {
    etcdctl_is_there().then(|| Server::start(&[]))
}

#[test]
fn put_get_and_all_the_flags_of_get() {
    let Some(server) = server() else { return };
    for (key, value) in [("a1", "z"), ("a2", "y"), ("a3", "x"), ("b1", "w")] {
        assert_eq!(server.ctl(&["put", key, value]), "OK\n");
    }
    assert_eq!(server.ctl(&["put", "a1", "v", "--prev-kv"]), "OK\na1\nz\n");
    assert_eq!(server.ctl(&["get", "a1"]), "a1\nv\n");
    assert_eq!(server.ctl(&["get", "a1", "--print-value-only"]), "v\n");
    assert_eq!(server.ctl(&["get", "a1", "--rev", "2", "--print-value-only"]), "z\n");
    assert_eq!(server.ctl(&["get", "a", "--prefix", "--keys-only"]), "a1\n\na2\n\na3\n\n");
    assert_eq!(server.ctl(&["get", "a", "--prefix", "--limit", "2", "--print-value-only"]), "v\ny\n");
    assert_eq!(server.ctl(&["get", "a2", "b1", "--print-value-only"]), "y\nx\n");
    assert_eq!(server.ctl(&["get", "a2", "--from-key", "--print-value-only"]), "y\nx\nw\n");
    assert_eq!(server.ctl(&["get", "", "--prefix", "--print-value-only"]), "v\ny\nx\nw\n");
    let sorted = |by, order| {
        server.ctl(&["get", "", "--prefix", "--print-value-only", "--sort-by", by, "--order", order]).replace('\n', "")
    };
    assert_eq!(sorted("KEY", "DESCEND"), "wxyv");
    assert_eq!(sorted("VALUE", "ASCEND"), "vwxy");
    assert_eq!(sorted("MODIFY", "DESCEND"), "vwxy");
    assert_eq!(sorted("CREATE", "ASCEND"), "vyxw");
    assert_eq!(sorted("VERSION", "DESCEND"), "vyxw");
    assert_eq!(server.ctl(&["get", "a2", "--consistency", "s", "--print-value-only"]), "y\n");
    let json = server.ctl(&["get", "a1", "-w", "json"]);
    assert!(json.contains(r#""create_revision":2,"mod_revision":6,"version":2"#), "{json}");
    assert_eq!(server.ctl(&["put", "a1", "--ignore-value"]), "OK\n");
    assert!(server.ctl_fails(&["put", "none", "--ignore-value"]).contains("etcdserver: key not found"));
    assert_eq!(server.ctl(&["get", "a1", "--print-value-only"]), "v\n");
    let error = server.ctl_fails(&["get", "a1", "--rev", "99"]);
    assert!(error.contains("etcdserver: mvcc: required revision is a future revision"), "{error}");
}

#[test]
fn del_and_compaction() {
    let Some(server) = server() else { return };
    for key in ["a1", "a2", "b1"] {
        server.ctl(&["put", key, "x"]);
    }
    assert_eq!(server.ctl(&["del", "a1", "--prev-kv"]), "1\na1\nx\n");
    assert_eq!(server.ctl(&["del", "", "--prefix"]), "2\n");
    assert_eq!(server.ctl(&["compaction", "4"]), "compacted revision 4\n");
    let error = server.ctl_fails(&["get", "a1", "--rev", "2"]);
    assert!(error.contains("etcdserver: mvcc: required revision has been compacted"), "{error}");
    assert_eq!(server.ctl(&["get", "a1", "--rev", "4", "--print-value-only"]), "x\n");
    assert_eq!(server.ctl(&["compaction", "--physical", "5"]), "compacted revision 5\n");
    assert!(server.ctl(&["defrag"]).starts_with("Finished defragmenting"));
}

#[test]
fn txn() {
    let Some(server) = server() else { return };
    server.ctl(&["put", "a", "1"]);
    let run = |txn: &str| {
        let mut child = server.command(&["txn"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(txn.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let guarded = "value(\"a\") = \"1\"\nmod(\"a\") < \"9\"\n\nput b then\nget a\n\nput b else\n\n";
    assert_eq!(run(guarded), "SUCCESS\n\nOK\n\na\n1\n");
    assert_eq!(server.ctl(&["get", "b", "--print-value-only"]), "then\n");
    server.ctl(&["put", "a", "2"]);
    assert_eq!(run(guarded), "FAILURE\n\nOK\n");
    assert_eq!(run("version(\"x\") = \"0\"\n\ndel b\n\n\n"), "SUCCESS\n\n1\n");
}

#[test]
fn watch_now_and_from_a_past_revision() {
    let Some(server) = server() else { return };
    server.ctl(&["put", "a", "1"]);
    server.ctl(&["put", "a", "2"]);
    let mut past = server.follow(&["watch", "a", "--rev", "2", "--prev-kv"]);
    past.expect("PUT\na\n1\nPUT\na\n1\na\n2\n");
    let mut now = server.follow(&["watch", "a", "--prefix"]);
    // There is no telling from outside when the watch has begun, so keys are put until it shows one.
    let mut i = 0;
    wait_for("the watch to show a put", || {
        i += 1;
        server.ctl(&["put", &format!("a{i}"), "x"]);
        now.read().contains("PUT\n")
    });
    server.ctl(&["del", "a"]);
    past.expect("DELETE\na\n2\na\n\n");
    now.expect("DELETE\na\n");
    server.ctl(&["compaction", "4"]);
    let mut gone = server.follow(&["watch", "a", "--rev", "2"]);
    gone.expect("required revision has been compacted");
}

#[test]
fn lease() {
    let Some(server) = server() else { return };
    let granted = server.ctl(&["lease", "grant", "100"]);
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(100s)\n"));
    server.ctl(&["put", "k", "v", "--lease", &id]);
    assert_eq!(server.ctl(&["lease", "list"]), format!("found 1 leases\n{id}\n"));
    let left = server.ctl(&["lease", "timetolive", &id, "--keys"]);
    assert!(left.contains("granted with TTL(100s)") && left.ends_with("attached keys([k])\n"), "{left}");
    assert_eq!(server.ctl(&["lease", "keep-alive", "--once", &id]), format!("lease {id} keepalived with TTL(100)\n"));
    assert_eq!(server.ctl(&["lease", "revoke", &id]), format!("lease {id} revoked\n"));
    assert_eq!(server.ctl(&["get", "k"]), "");
    assert_eq!(server.ctl(&["lease", "timetolive", &id]), format!("lease {id} already expired\n"));
    let error = server.ctl_fails(&["lease", "revoke", &id]);
    assert!(error.contains("etcdserver: requested lease not found"), "{error}");
    // A lease nobody keeps alive ends, and its keys with it; etcd's shortest is 2 seconds.
    let short = server.ctl(&["lease", "grant", "1"]);
    assert!(short.contains("TTL(2s)"), "{short}");
    let id = short.split_whitespace().nth(1).unwrap();
    server.ctl(&["put", "k", "v", "--lease", id]);
    wait_for("the lease to end", || server.ctl(&["get", "k"]).is_empty());
}

#[test]
fn put_keeps_a_lease_if_told_so() {
    let Some(server) = server() else { return };
    let granted = server.ctl(&["lease", "grant", "100"]);
    let id = granted.split_whitespace().nth(1).unwrap();
    server.ctl(&["put", "kept", "1", "--lease", id]);
    server.ctl(&["put", "lost", "1", "--lease", id]);
    server.ctl(&["put", "kept", "2", "--ignore-lease"]);
    server.ctl(&["put", "lost", "2"]);
    server.ctl(&["lease", "revoke", id]);
    assert_eq!(server.ctl(&["get", "", "--prefix"]), "lost\n2\n");
    assert!(server.ctl_fails(&["put", "k", "v", "--lease", id]).contains("etcdserver: requested lease not found"));
}

#[test]
fn del_from_a_key_and_watch_of_a_range() {
    let Some(server) = server() else { return };
    for key in ["a", "b", "c"] {
        server.ctl(&["put", key, key]);
    }
    let mut watch = server.follow(&["watch", "b", "d", "--rev", "2", "--prev-kv"]);
    watch.expect("PUT\nb\nb\nPUT\nc\nc\n");
    assert_eq!(server.ctl(&["del", "b", "--from-key", "--prev-kv"]), "2\nb\nb\nc\nc\n");
    assert_eq!(server.ctl(&["get", "", "--from-key", "--keys-only"]), "a\n\n");
    watch.expect("DELETE\nb\nb\nb\n\nDELETE\nc\nc\nc\n");
    let mut run = server.follow(&[
        "watch",
        "a",
        "--rev",
        "2",
        "--",
        "sh",
        "-c",
        "echo $ETCD_WATCH_KEY was $ETCD_WATCH_EVENT_TYPE",
    ]);
    run.expect("\"a\" was \"PUT\"");
}

#[test]
fn lock_and_elect() {
    let Some(server) = server() else { return };
    assert_eq!(server.ctl(&["lock", "l", "echo", "held"]), "held\n");
    let mut first = server.follow(&["lock", "l"]);
    first.expect("l/");
    let mut second = server.follow(&["lock", "l"]);
    wait_for("the second to wait", || server.ctl(&["get", "l/", "--prefix", "--keys-only"]).matches("l/").count() == 2);
    assert_eq!(second.read(), "", "the lock is held");
    first.interrupt();
    second.expect("l/");
    second.interrupt();
    let mut leader = server.follow(&["elect", "e", "one"]);
    leader.expect("e/");
    let mut observer = server.follow(&["elect", "-l", "e"]);
    observer.expect("one");
    let mut next = server.follow(&["elect", "e", "two"]);
    wait_for("the second to wait", || server.ctl(&["get", "e/", "--prefix", "--keys-only"]).matches("e/").count() == 2);
    leader.interrupt();
    next.expect("two");
    observer.expect("two");
}

#[test]
fn members_endpoints_and_alarms() {
    let Some(server) = server() else { return };
    server.ctl(&["put", "a", "1"]);
    let members = server.ctl(&["member", "list"]);
    assert!(members.contains(", started, default, ") && members.contains(&server.url), "{members}");
    let id = members.split(',').next().unwrap().to_owned();
    let status = server.ctl(&["endpoint", "status"]);
    assert!(status.contains(&format!("{id}, 3.6.")) && status.contains(", true, false, "), "{status}");
    let health = server.ctl_all(&["endpoint", "health"]);
    assert!(health.contains("is healthy"), "{health}");
    let hash = server.ctl(&["endpoint", "hashkv"]);
    assert_eq!(hash, server.ctl(&["endpoint", "hashkv"]), "nothing has changed");
    server.ctl(&["put", "a", "2"]);
    assert_ne!(hash, server.ctl(&["endpoint", "hashkv"]));
    assert_eq!(server.ctl(&["move-leader", &id]), format!("Leadership transferred from {id} to {id}\n"));
    assert_eq!(server.ctl(&["alarm", "list"]), "");
    let error = server.ctl_fails(&["member", "remove", "63"]);
    assert!(error.contains("etcdserver: member not found"), "{error}");
    let error = server.ctl_fails(&["auth", "enable"]);
    assert!(!error.is_empty());
}

#[test]
fn the_quota_raises_an_alarm_that_disarm_ends() {
    if !etcdctl_is_there() {
        return;
    }
    let server = Server::start(&["--quota-backend-bytes", "200000"]);
    let value = "x".repeat(50_000);
    let refused = (0..10).find_map(|_| {
        let put = server.command(&["put", "a", &value]).output().unwrap();
        (!put.status.success()).then(|| String::from_utf8_lossy(&put.stderr).into_owned())
    });
    let refused = refused.expect("the quota is reached");
    assert!(refused.contains("etcdserver: mvcc: database space exceeded"), "{refused}");
    assert!(server.ctl(&["alarm", "list"]).contains("alarm:NOSPACE"));
    let (_, body) = server.http("/health");
    assert!(body.contains("\"health\":\"false\""), "{body}");
    let json = server.ctl(&["get", "a", "-w", "json"]);
    let revision = json.split("\"revision\":").nth(1).unwrap().split([',', '}']).next().unwrap().to_owned();
    server.ctl(&["compaction", &revision]);
    server.ctl(&["defrag"]);
    assert!(server.ctl(&["alarm", "disarm"]).contains("alarm:NOSPACE"));
    assert_eq!(server.ctl(&["alarm", "list"]), "");
    assert_eq!(server.ctl(&["put", "a", "small"]), "OK\n");
}

#[test]
fn make_mirror() {
    if !etcdctl_is_there() {
        return;
    }
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    from.ctl(&["put", "m/1", "before"]);
    let _mirror = from.follow(&["make-mirror", &to.url]);
    wait_for("what was there before", || to.ctl(&["get", "m/1", "--print-value-only"]) == "before\n");
    from.ctl(&["put", "m/2", "after"]);
    wait_for("what comes after", || to.ctl(&["get", "m/2", "--print-value-only"]) == "after\n");
    from.ctl(&["del", "m/1"]);
    wait_for("the delete", || to.ctl(&["get", "m/1"]).is_empty());
}

#[test]
fn check_perf() {
    let Some(server) = server() else { return };
    server.ctl(&["put", "other", "x"]);
    // It takes a minute, beside the other tests, and judges a machine that does much else meanwhile: so it may fail, but not break off.
    let output = server.command(&["check", "perf", "--load", "s"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let verdicts: Vec<_> = told.lines().filter(|line| line.contains("PASS") || line.contains("FAIL")).collect();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(" writes/s\n") && told.contains("Slowest request took") && error.is_empty(), "{error}{told}");
    assert_eq!(output.status.success(), verdicts.last() == Some(&"PASS"), "{verdicts:?}");
    assert_eq!(server.ctl(&["get", "", "--prefix", "--keys-only"]), "other\n\n");
}

#[test]
fn watch_is_told_what_to_watch_while_it_runs() {
    let Some(server) = server() else { return };
    let (mut watch, mut stdin) = server.follow_and_tell(&["watch", "-i"]);
    stdin.write_all(b"watch a --prev-kv\n").unwrap();
    let putting = |key: &str, value: &str, seen: &mut dyn FnMut() -> bool| {
        // It does not say when it watches.
        wait_for("a change to be seen", || {
            server.ctl(&["put", key, value]);
            seen()
        });
    };
    putting("a", "1", &mut || watch.read().contains("PUT\na\n"));
    stdin.write_all(b"watch b c\n").unwrap();
    putting("bb", "2", &mut || watch.read().contains("PUT\nbb\n2\n"));
    server.ctl(&["del", "a"]);
    watch.expect("DELETE\na\n1\n");
    watch.interrupt();
}

#[test]
fn there_are_no_users_and_roles() {
    let Some(server) = server() else { return };
    for list in ["user", "role"] {
        assert_eq!(server.ctl(&[list, "list"]), "");
    }
    for add in [&["user", "add", "somebody:secret"] as &[&str], &["role", "add", "some"]] {
        let error = server.ctl_fails(add);
        assert!(error.contains("etcdserver: this server has no users and roles"), "{error}");
    }
    assert!(server.ctl_fails(&["user", "get", "somebody"]).contains("etcdserver: user name not found"));
    assert!(server.ctl_fails(&["role", "get", "some"]).contains("etcdserver: role name not found"));
    assert!(server.ctl_fails(&["auth", "enable"]).contains("etcdserver: root user does not exist"));
    assert_eq!(server.ctl(&["auth", "disable"]), "Authentication Disabled\n");
    // As with an etcd without authentication, who says who they are is served as all are.
    server.ctl(&["put", "a", "1"]);
    assert_eq!(server.ctl(&["--user", "somebody:secret", "get", "a", "--print-value-only"]), "1\n");
}

#[test]
fn plain_http() {
    let server = Server::start(&["--listen-metrics-urls", "http://127.0.0.1:0"]);
    assert_eq!(server.http("/health"), (200, r#"{"health":"true","reason":""}"#.into()));
    assert_eq!(server.http("/livez").0, 200);
    assert_eq!(server.http("/readyz").0, 200);
    let (_, version) = server.http("/version");
    assert!(version.contains("\"etcdserver\":\"3.6."), "{version}");
    let (_, metrics) = server.http("/metrics");
    for name in ["etcd_server_has_leader 1", "etcd_mvcc_db_total_size_in_bytes", "grpc_server_started_total{"] {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
    assert_eq!(server.http("/nothing").0, 404);
}

#[test]
fn data_survive_kill_9() {
    let Some(mut server) = server() else { return };
    server.ctl(&["put", "a", "1"]);
    let before = server.ctl(&["member", "list"]);
    server.kill_and_restart(Duration::from_secs(30));
    assert_eq!(server.ctl(&["get", "a", "--print-value-only"]), "1\n");
    assert_eq!(server.ctl(&["member", "list"]), before);
}

#[test]
fn snapshot_save_status_and_restore() {
    let Some(server) = server() else { return };
    server.ctl(&["lease", "grant", "1000"]);
    let value = "x".repeat(9000);
    for i in 0..300 {
        server.ctl(&["put", &format!("k{}", i % 200), if i % 50 == 0 { &value } else { "small" }]);
    }
    server.ctl(&["del", "k7"]);
    server.ctl(&["compaction", "100"]);
    let file = server.scratch("saved.db").display().to_string();
    server.ctl(&["snapshot", "save", &file]);
    // Checks every page, and that each belongs to one place.
    let status = server.ctl(&["snapshot", "status", &file, "-w", "json"]);
    assert!(status.contains("\"revision\":302,"), "{status}");
    if !process::is_there("etcd") {
        return;
    }
    // The real etcd goes on from it: with the hash of the whole file checked, and the history since the compaction.
    let dir = server.scratch("restored").display().to_string();
    server.ctl(&["snapshot", "restore", &file, "--data-dir", &dir]);
    let etcd = process::Etcd::start_on(&dir);
    let all = ["get", "", "--prefix", "-w", "fields"];
    let pairs = |text: String| {
        let header = ["\"ClusterID\"", "\"MemberID\"", "\"RaftTerm\""];
        let lines = text.lines().filter(|line| !header.iter().any(|name| line.starts_with(name)));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(pairs(etcd.ctl(&all)), pairs(server.ctl(&all)));
    let past = ["get", "k7", "--rev", "200", "-w", "fields"];
    assert_eq!(pairs(etcd.ctl(&past)), pairs(server.ctl(&past)));
    assert!(etcd.fails(&["get", "k7", "--rev", "99"]).contains("has been compacted"));
    assert!(etcd.ctl(&["lease", "list"]).contains("found 1 leases"));
}

#[test]
fn three_members_move_their_leader_and_outlive_it() {
    if !etcdctl_is_there() {
        return;
    }
    let mut members = Server::start_cluster(&["a", "b", "c"]);
    let put = |member: &Server, key: &str| {
        let put = || member.command(&["put", key, "x"]).output().unwrap().status.success();
        wait_for("a put", put);
    };
    put(&members[0], "first");
    assert_eq!(members[1].ctl(&["member", "list"]).matches(", started, ").count(), 3);
    let leader = |members: &[Server]| {
        members.iter().position(|member| member.ctl(&["endpoint", "status"]).contains(", true, false, "))
    };
    let first = leader(&members).expect("a leader");
    let next = (first + 1) % 3;
    let status = members[next].ctl(&["endpoint", "status"]);
    let id = status.split(", ").nth(1).unwrap();
    assert!(members[first].ctl(&["move-leader", id]).starts_with("Leadership transferred"));
    wait_for("the other to lead", || leader(&members) == Some(next));
    drop(members.remove(next));
    put(&members[0], "second");
    for member in &members {
        assert_eq!(member.ctl(&["get", "", "--prefix", "--keys-only"]), "first\n\nsecond\n\n");
    }
}

#[test]
fn members_are_added_promoted_updated_and_removed() {
    if !etcdctl_is_there() {
        return;
    }
    let mut members = Server::start_cluster(&["a", "b", "c"]);
    let first = &members[0];
    let output = |args: &[&str]| first.command(args).output().unwrap();
    // Refused until all members have been seen for a while.
    let retried = |args: &[&str]| {
        let mut last = None;
        wait_for("a change of members", || {
            let done = output(args);
            let succeeded = done.status.success();
            last = Some(String::from_utf8(done.stdout).unwrap());
            succeeded
        });
        last.unwrap()
    };
    first.ctl(&["put", "a", "1"]);
    let (peer, other) = (process::free_address(), process::free_address());
    let added = retried(&["member", "add", "d", "--learner", &format!("--peer-urls=http://{peer}")]);
    assert!(added.contains("ETCD_NAME=\"d\"") && added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""), "{added}");
    let id = added.split_whitespace().nth(1).unwrap().to_owned();
    let cluster = added.lines().find_map(|line| line.strip_prefix("ETCD_INITIAL_CLUSTER=\"")).unwrap();
    let listed = |members: &Server| members.ctl(&["member", "list"]);
    assert!(listed(first).contains(&format!("{id}, unstarted, , http://{peer}, , true")), "{}", listed(first));
    let error = first.ctl_fails(&["member", "promote", &id]);
    assert!(error.contains("can only promote a learner member which is in sync with leader"), "{error}");
    let fourth = Server::join("d", &peer, cluster.trim_end_matches('"'));
    retried(&["member", "promote", &id]);
    let error = first.ctl_fails(&["member", "promote", &id]);
    assert!(error.contains("etcdserver: can only promote a learner member"), "{error}");
    assert_eq!(fourth.ctl(&["get", "a", "--print-value-only"]), "1\n");
    wait_for("its name", || listed(first).contains(&format!("{id}, started, d, http://{peer}, {}, false", fourth.url)));
    // All of them, by what one tells of the others.
    let status = first.ctl(&["endpoint", "status", "--cluster"]);
    assert_eq!((status.lines().count(), status.matches(", true, false, ").count()), (4, 1), "{status}");
    wait_for("equal hashes", || {
        let hashes = first.ctl(&["endpoint", "hashkv", "--cluster"]);
        let hashes: Vec<_> = hashes.lines().map(|line| line.rsplit(", ").next().unwrap().to_owned()).collect();
        hashes.len() == 4 && hashes.iter().all(|hash| *hash == hashes[0])
    });
    assert_eq!(first.ctl_all(&["endpoint", "health", "--cluster"]).matches("is healthy").count(), 4);
    assert_eq!(first.ctl(&["defrag", "--cluster"]).matches("Finished defragmenting").count(), 4);
    retried(&["member", "update", &id, &format!("--peer-urls=http://{other}")]);
    assert!(listed(first).contains(&format!("http://{other}")));
    retried(&["member", "update", &id, &format!("--peer-urls=http://{peer}")]);
    retried(&["member", "remove", &id]);
    assert_eq!(listed(first).lines().count(), 3);
    // The leader too.
    let leader = members.iter().position(|member| member.ctl(&["endpoint", "status"]).contains(", true, false, "));
    let leader = leader.unwrap();
    let id = members[leader].ctl(&["endpoint", "status"]).split(", ").nth(1).unwrap().to_owned();
    let next = (leader + 1) % 3;
    wait_for("the leader to be removed", || {
        members[next].command(&["member", "remove", &id]).output().unwrap().status.success()
            || listed(&members[next]).lines().count() == 2
    });
    drop(members.remove(leader));
    wait_for("a put", || members[0].command(&["put", "a", "2"]).output().unwrap().status.success());
    assert_eq!(listed(&members[1]).lines().count(), 2);
}
