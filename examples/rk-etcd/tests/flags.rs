//! What flags do: limits, metrics, and flags that are none.

#[path = "process/mod.rs"]
mod process;

use std::{
    collections::BTreeSet,
    process::{Command, Output},
};

use process::{Etcd, Server, is_there, wait_for};
use rk_store::{
    Error, Op, PutRequest, Store, Txn,
    etcd::{EtcdOptions, EtcdStore},
};

fn run(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rk-etcd")).args(flags).output().unwrap()
}

#[test]
fn what_is_no_flag_is_refused_by_name() {
    for flag in ["--no-such-flag", "-discovery", "--wal-dir=/tmp"] {
        let output = run(&[flag]);
        let error = String::from_utf8_lossy(&output.stderr);
        let name = flag.trim_start_matches('-').split('=').next().unwrap();
        assert!(!output.status.success() && error.contains(&format!("unexpected argument '--{name}'")), "{error}");
    }
}

fn puts(count: usize, value: usize) -> Txn {
    let put = |i| Op::Put(PutRequest::new(format!("{i:04}"), vec![b'x'; value]));
    Txn { success: (0..count).map(put).collect(), ..Txn::default() }
}

#[tokio::test]
async fn limits_above_the_defaults_and_below_take_effect() {
    let client = |server: &Server| EtcdStore::new(EtcdOptions::new([&server.url])).unwrap();
    let server = Server::start(&["--max-txn-ops", "300", "--max-request-bytes", "4000000"]);
    let store = client(&server);
    assert!(store.txn(puts(300, 1)).await.unwrap().succeeded);
    assert!(matches!(store.txn(puts(301, 1)).await, Err(Error::TooManyOps(_))));
    assert!(store.txn(puts(1, 3_900_000)).await.unwrap().succeeded);
    assert!(matches!(store.txn(puts(1, 4_000_001)).await, Err(Error::RequestTooLarge(_))));
    // So large that it is refused before it is read.
    assert!(matches!(store.txn(puts(1, 5_000_000)).await, Err(Error::RequestTooLarge(_))));
    assert_eq!(store.get("0000".into()).await.unwrap().unwrap().value.len(), 3_900_000);
    let server = Server::start(&["--max-txn-ops", "3", "--max-request-bytes", "1000"]);
    let store = client(&server);
    assert!(store.txn(puts(3, 10)).await.unwrap().succeeded);
    assert!(matches!(store.txn(puts(4, 10)).await, Err(Error::TooManyOps(_))));
    assert!(matches!(store.txn(puts(1, 1000)).await, Err(Error::RequestTooLarge(_))));
    // A state with more than the limits is read at the next start, whatever they are then.
    let mut server = Server::start(&["--max-txn-ops", "200"]);
    client(&server).txn(puts(200, 1)).await.unwrap();
    server.kill_and_restart_with(&[("--max-txn-ops", "10")]);
    assert_eq!(client(&server).status().await.unwrap().keys, 200);
}

#[tokio::test]
async fn the_state_is_saved_after_as_many_changes_as_are_said() {
    let saved = |server: &Server| {
        let (_, metrics) = server.http("/metrics");
        let count =
            metrics.lines().find_map(|line| line.strip_prefix("etcd_disk_backend_commit_duration_seconds_count "));
        count.unwrap().parse::<u64>().unwrap()
    };
    let mut syncs = Vec::new();
    for flags in [&["--snapshot-count", "40"][..], &["--snapshot-count", "300"], &[]] {
        let server = Server::start(flags);
        let store = EtcdStore::new(EtcdOptions::new([&server.url])).unwrap();
        let before = saved(&server);
        for i in 0..400 {
            store.put("a".into(), format!("{i:0100}").into()).await.unwrap();
        }
        if !flags.is_empty() {
            wait_for("the state to be saved", || saved(&server) > before);
        }
        syncs.push(saved(&server) - before);
    }
    assert!(syncs[0] > 2 * syncs[1] && syncs[2] == 0, "{syncs:?}");
}

/// The names of the metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

#[test]
fn metrics_have_etcds_names_kinds_and_labels() {
    if !is_there("etcd") || !is_there("etcdctl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::start_on(&dir.path().display().to_string());
    let server = Server::start(&[]);
    let ask = |command: &mut Command| assert!(command.output().unwrap().status.success());
    ask(&mut server.command(&["put", "a", "b"]));
    ask(&mut etcd.command(&["put", "a", "b"]));
    let mut watch = server.follow(&["watch", "a", "--rev", "1"]);
    watch.expect("PUT");
    watch.interrupt();
    let ((_, ours), theirs) = (server.http("/metrics"), etcd.http("/metrics").1);
    // The series that dashboards and alerts of etcd's own mixin are made of, and what else is told of the main parts. Those of other
    // members are in `members_tell_of_each_other_as_etcds_do`; `grpc_server_handling_seconds` etcd itself tells only if asked to.
    let wanted = "etcd_server_has_leader etcd_server_is_leader etcd_server_leader_changes_seen_total \
        etcd_server_proposals_committed_total etcd_server_proposals_applied_total etcd_server_proposals_pending \
        etcd_server_proposals_failed_total etcd_server_heartbeat_send_failures_total etcd_server_slow_apply_total \
        etcd_server_slow_read_indexes_total etcd_server_read_indexes_failed_total etcd_server_quota_backend_bytes etcd_server_version etcd_server_id \
        etcd_cluster_version etcd_disk_wal_fsync_duration_seconds etcd_disk_backend_commit_duration_seconds \
        etcd_mvcc_db_total_size_in_bytes etcd_mvcc_db_total_size_in_use_in_bytes etcd_debugging_mvcc_keys_total \
        etcd_network_client_grpc_received_bytes_total etcd_network_client_grpc_sent_bytes_total \
        etcd_mvcc_put_total etcd_mvcc_range_total etcd_mvcc_txn_total etcd_mvcc_delete_total \
        grpc_server_started_total grpc_server_handled_total process_resident_memory_bytes \
        process_start_time_seconds process_open_fds process_max_fds process_cpu_seconds_total";
    let kinds =
        |text: &str, name: &str| text.lines().find(|l| l.starts_with(&format!("# TYPE {name} "))).map(str::to_owned);
    for name in wanted.split_whitespace() {
        assert_eq!(kinds(&ours, name), kinds(&theirs, name), "{name}");
        assert!(names(&ours).contains(name), "{name} is not in {ours}");
    }
    // Those that count requests are labelled alike.
    let line = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",\
        grpc_type=\"unary\"} 1";
    assert!(ours.contains(line) && theirs.contains(line), "{ours}");
    for line in ["etcd_server_has_leader 1", "etcd_server_is_leader 1", "etcd_debugging_mvcc_keys_total 1"] {
        assert!(ours.contains(line) && theirs.contains(line), "{line}");
    }
    let bounds = |text: &str| {
        let bound = |line: &str| {
            Some(line.strip_prefix("etcd_disk_wal_fsync_duration_seconds_bucket{")?.split('}').next()?.to_owned())
        };
        text.lines().filter_map(bound).collect::<Vec<_>>()
    };
    assert_eq!(bounds(&ours), bounds(&theirs));
    // A stream that has ended is not counted as one that goes on.
    let ended = "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\"";
    wait_for("the watch to be over", || server.http("/metrics").1.contains(ended));
}

/// The series of a metric by its members' labels: their names, and how many there are.
fn by_member(text: &str, name: &str) -> Option<(String, Vec<String>, usize)> {
    let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")))?;
    let count = if kind == "histogram" { "_count" } else { "" };
    let series: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&format!("{name}{count}{{"))).collect();
    let labels = |series: &&str| -> Vec<_> {
        let labels = series.split('}').next().unwrap_or_default().split(',');
        labels.map(|label| label.split('=').next().unwrap_or_default().to_owned()).collect()
    };
    Some((kind.to_owned(), series.first().map(labels)?, series.len()))
}

#[test]
fn members_tell_of_each_other_as_etcds_do() {
    if !is_there("etcd") || !is_there("etcdctl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c"];
    let (mut theirs, mut ours) = (Etcd::start_cluster(dir.path(), &names), Server::start_cluster(&names));
    // With one that is down there are failures to be told of.
    drop((theirs.pop(), ours.pop()));
    let wanted = [
        "etcd_network_peer_sent_bytes_total",
        "etcd_network_peer_received_bytes_total",
        "etcd_network_peer_sent_failures_total",
        "etcd_network_peer_round_trip_time_seconds",
        "etcd_network_active_peers",
    ];
    // etcd measures the way there and back for half a minute before it tells.
    let begin = std::time::Instant::now();
    for name in wanted {
        let (their, our) = loop {
            let told = (by_member(&theirs[0].http("/metrics").1, name), by_member(&ours[0].http("/metrics").1, name));
            match told {
                (Some(their), Some(our)) => break (their, our),
                told => assert!(begin.elapsed().as_secs() < 90, "{name}: {told:?}"),
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        };
        assert_eq!((&our.0, &our.1), (&their.0, &their.1), "{name}");
        assert!((1..=2).contains(&our.2), "{name} is told of {} members", our.2);
    }
    let seen = |what: &str, wanted: &dyn Fn(&str) -> bool| {
        wait_for(what, || ours[0].http("/metrics").1.lines().any(wanted));
    };
    let above_zero = |line: &str, name: &str| line.starts_with(name) && !line.ends_with(" 0");
    seen("round trips", &|line| above_zero(line, "etcd_network_peer_round_trip_time_seconds_count{To="));
    seen("failures", &|line| above_zero(line, "etcd_network_peer_sent_failures_total{To="));
    seen("a member that is there", &|line| line.starts_with("etcd_network_active_peers{") && line.ends_with(" 1"));
    seen("a member that is not", &|line| line.starts_with("etcd_network_active_peers{") && line.ends_with(" 0"));
    let bounds = |text: &str| {
        let bound = |line: &str| {
            line.strip_prefix("etcd_network_peer_round_trip_time_seconds_bucket{")?;
            Some(line.split("le=").nth(1)?.split('}').next()?.to_owned())
        };
        text.lines().filter_map(bound).collect::<BTreeSet<_>>()
    };
    assert_eq!(bounds(&ours[0].http("/metrics").1), bounds(&theirs[0].http("/metrics").1));
}

#[test]
fn members_count_what_they_send_each_other() {
    let members = Server::start_cluster(&["a", "b", "c"]);
    // The leader hears of both others, who need not have heard of each other.
    wait_for("a member that has bytes from each of the others", || {
        members.iter().any(|member| {
            let (_, metrics) = member.http("/metrics");
            let seen = |name: &str| {
                let lines = metrics.lines().filter(|line| line.starts_with(name));
                lines.filter(|line| !line.ends_with(" 0")).count()
            };
            seen("etcd_network_peer_sent_bytes_total{To=") == 2
                && seen("etcd_network_peer_received_bytes_total{From=") == 2
                && seen("etcd_network_active_peers{") == 2
                && seen("etcd_server_leader_changes_seen_total") == 1
        })
    });
}

#[test]
fn a_member_that_is_cut_off_counts_the_reads_it_could_not_answer() {
    if !is_there("etcdctl") {
        return;
    }
    let mut members = Server::start_cluster(&["a", "b", "c"]);
    members[0].ctl(&["put", "a", "1"]);
    members.truncate(1);
    let refused = members[0].ctl_fails(&["--command-timeout", "30s", "get", "a"]);
    assert!(refused.contains("no leader") || refused.contains("timed out"), "{refused}");
    let counted = |line: &str| line.starts_with("etcd_server_read_indexes_failed_total ") && !line.ends_with(" 0");
    wait_for("the read to be counted", || members[0].http("/metrics").1.lines().any(counted));
}
