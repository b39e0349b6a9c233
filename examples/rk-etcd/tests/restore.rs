//! A cluster that is lost, and one made of its snapshot.

mod process;

use std::process::{Command, Output};

use process::{Etcd, Server, etcdctl_is_there, is_there, wait_for};
use rk_store::{
    Store,
    etcd::{EtcdOptions, EtcdStore},
};

/// Lines that tell of a cluster and not of what it holds.
const OF_THE_CLUSTER: [&str; 3] = ["\"ClusterID\"", "\"MemberID\"", "\"RaftTerm\""];

fn content(fields: &str) -> Vec<String> {
    let lines = fields.lines().filter(|line| !OF_THE_CLUSTER.iter().any(|name| line.starts_with(name)));
    lines.map(str::to_owned).collect()
}

fn cluster_id(fields: &str) -> String {
    fields.lines().find(|line| line.starts_with("\"ClusterID\"")).unwrap().to_owned()
}

/// Runs `snapshot restore` into a directory.
fn restore(file: &str, dir: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rk-etcd"));
    command.args(["snapshot", "restore", file, "--data-dir", dir]).args(more).output().unwrap()
}

/// What `snapshot restore` complains of.
fn refused(file: &str, dir: &str, more: &[&str]) -> String {
    let output = restore(file, dir, more);
    assert!(!output.status.success(), "{file} is restored");
    String::from_utf8(output.stderr).unwrap()
}

/// Puts pairs one after the other.
fn put_all<'a>(url: &str, pairs: impl Iterator<Item = (String, &'a str)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = EtcdStore::new(EtcdOptions::new([url])).unwrap();
        for (key, value) in pairs {
            store.put(key.into(), value.to_owned().into()).await.unwrap();
        }
    });
}

fn id_of_lease(granted: &str) -> String {
    granted.split_whitespace().nth(1).unwrap().to_owned()
}

const ALL: [&str; 5] = ["get", "", "--prefix", "-w", "fields"];

fn hashes_are_equal(member: &Server, count: usize) -> bool {
    let hashes = member.command(&["endpoint", "hashkv", "--cluster"]).output().unwrap();
    let hashes = String::from_utf8(hashes.stdout).unwrap();
    let hashes: Vec<_> = hashes.lines().map(|line| line.rsplit(", ").next().unwrap()).collect();
    hashes.len() == count && hashes.iter().all(|hash| *hash == hashes[0])
}

#[test]
fn three_new_members_go_on_from_the_snapshot_of_three_that_were_lost() {
    if !etcdctl_is_there() {
        return;
    }
    let mut old = Server::start_cluster(&["a", "b", "c"]);
    let first = &old[0];
    wait_for("a leader", || first.command(&["put", "k0", "first"]).output().unwrap().status.success());
    let lease = id_of_lease(&first.ctl(&["lease", "grant", "1000"]));
    put_all(&first.url, (1..40).map(|i| (format!("k{}", i % 11), if i % 2 == 0 { "even" } else { "odd" })));
    first.ctl(&["put", "bound", "x", "--lease", &lease]);
    first.ctl(&["del", "k3"]);
    first.ctl(&["compaction", "10"]);
    let (all, past) = (first.ctl(&ALL), first.ctl(&["get", "k3", "--rev", "20", "-w", "fields"]));
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("saved.db").display().to_string();
    first.ctl(&["snapshot", "save", &file]);
    first.ctl(&["put", "later", "lost"]);
    // All are lost. New ones take their names, addresses and token, and one of the old ones comes back among them.
    old.iter_mut().for_each(Server::kill);
    let peers: Vec<_> = ["a", "b", "c"].into_iter().zip(old.iter().map(|member| member.peer.clone())).collect();
    let mut restored = Server::restore(&file, &peers);
    let third = restored.pop().unwrap();
    let new: Vec<_> =
        restored.into_iter().zip(&peers).map(|(dir, (name, peer))| Server::start_restored(dir, name, peer)).collect();
    old[2].kill_and_restart(std::time::Duration::from_secs(30));
    wait_for("a leader", || new[0].command(&ALL).output().unwrap().status.success());
    let restored_all = new[0].ctl(&ALL);
    assert_eq!(content(&restored_all), content(&all));
    assert_ne!(cluster_id(&restored_all), cluster_id(&all));
    assert_eq!(content(&new[1].ctl(&["get", "k3", "--rev", "20", "-w", "fields"])), content(&past));
    assert!(new[0].ctl_fails(&["get", "k3", "--rev", "9"]).contains("has been compacted"));
    assert_eq!(new[0].ctl(&["get", "later"]), "");
    let left = new[1].ctl(&["lease", "timetolive", &lease, "--keys"]);
    assert!(left.contains("granted with TTL(1000s)") && left.ends_with("attached keys([bound])\n"), "{left}");
    // The old one finds nobody who takes it for a member.
    wait_for("a refusal", || {
        new[0].log().contains("a peer was refused") && old[2].log().contains("cluster id mismatch")
    });
    assert_eq!(old[2].http("/health").0, 503);
    assert_eq!(new[0].ctl(&["put", "k0", "goes on"]), "OK\n");
    drop(old);
    let third = Server::start_restored(third, "c", &peers[2].1);
    wait_for("the third", || third.command(&["get", "k0"]).output().unwrap().stdout == b"k0\ngoes on\n");
    wait_for("equal hashes", || hashes_are_equal(&third, 3));
    assert_eq!(third.ctl(&["member", "list"]).matches(", started, ").count(), 3);
    // The leases live on too.
    third.ctl(&["lease", "revoke", &lease]);
    assert_eq!(new[0].ctl(&["get", "bound"]), "");
}

#[test]
fn what_an_etcd_has_saved_is_restored() {
    if !etcdctl_is_there() || !is_there("etcd") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let (file, data) = (path("saved.db"), path("restored"));
    let etcd = Etcd::start_on(&path("etcd"));
    let lease = id_of_lease(&etcd.ctl(&["lease", "grant", "1000"]));
    let value = "x".repeat(9000);
    put_all(&etcd.url, (0..400).map(|i| (format!("k{}", i % 150), if i % 50 == 0 { &value } else { "small" })));
    etcd.ctl(&["put", "bound", "x", "--lease", &lease]);
    etcd.ctl(&["del", "k1", "--prefix"]);
    etcd.ctl(&["compaction", "--physical", "200"]);
    etcd.ctl(&["put", "k1", "again"]);
    etcd.ctl(&["user", "add", "somebody:secret"]);
    etcd.ctl(&["snapshot", "save", &file]);
    let output = restore(&file, &data, &["--skip-hash-check"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("the snapshot's 1 users and roles are left out"), "{told}");
    let server = Server::start_on(&data);
    assert_eq!(content(&server.ctl(&ALL)), content(&etcd.ctl(&ALL)));
    for revision in ["200", "300", "402"] {
        let past = ["get", "", "--prefix", "--rev", revision, "-w", "fields"];
        assert_eq!(content(&server.ctl(&past)), content(&etcd.ctl(&past)), "{revision}");
    }
    assert!(server.ctl_fails(&["get", "k7", "--rev", "199"]).contains("has been compacted"));
    let left = server.ctl(&["lease", "timetolive", &lease, "--keys"]);
    assert!(left.contains("granted with TTL(1000s)") && left.ends_with("attached keys([bound])\n"), "{left}");
    // What it saves is what an etcd restores again.
    let (again, back) = (path("again.db"), path("back"));
    server.ctl(&["snapshot", "save", &again]);
    server.ctl(&["snapshot", "restore", &again, "--data-dir", &back]);
    assert_eq!(content(&Etcd::start_on(&back).ctl(&ALL)), content(&server.ctl(&ALL)));
}

#[test]
fn a_snapshot_of_protected_data_is_not_opened_to_all() {
    if !etcdctl_is_there() || !is_there("etcd") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let etcd = Etcd::start_on(&path("etcd"));
    etcd.ctl(&["user", "add", "root:secret"]);
    etcd.ctl(&["auth", "enable"]);
    etcd.ctl(&["--user", "root:secret", "snapshot", "save", &path("saved.db")]);
    let error = refused(&path("saved.db"), &path("data"), &[]);
    assert!(error.contains("not supported: a snapshot of a cluster whose authentication is on"), "{error}");
}

#[test]
fn what_can_not_be_restored_is_told_and_leaves_nothing_behind() {
    if !etcdctl_is_there() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let server = Server::start(&[]);
    let value = "x".repeat(100);
    put_all(&server.url, (0..200).map(|i| (format!("k{i}"), value.as_str())));
    let file = path("saved.db");
    server.ctl(&["snapshot", "save", &file]);
    let bytes = std::fs::read(&file).unwrap();
    let damaged = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        std::fs::write(path(name), bytes).unwrap();
        path(name)
    };
    let flipped = damaged("flipped", &|bytes| bytes[20_000] ^= 1);
    let cut = damaged("cut", &|bytes| bytes.truncate(bytes.len() - 4096));
    let foreign = damaged("foreign", &|bytes| bytes.fill(b'x'));
    let data = path("data");
    for (file, more, reason) in [
        (&path("none"), &[] as &[&str], "No such file"),
        (&flipped, &[], "the hash of its content is another than the one at its end"),
        (&cut, &[], "the hash of its content is another than the one at its end"),
        (&cut, &["--skip-hash-check"], "it is cut"),
        (&foreign, &["--skip-hash-check"], "it does not begin as a bbolt file"),
        (&file, &["--initial-cluster", "a=http://127.0.0.1:1"], "couldn't find local name \"default\""),
        (&file, &["--initial-cluster", "default=http://127.0.0.1:1"], "missing from --initial-advertise-peer-urls"),
        (&file, &["--wal-dir", "x"], "unexpected argument '--wal-dir'"),
    ] {
        let error = refused(file, &data, more);
        assert!(error.contains(reason), "{error}");
    }
    // As one that was killed leaves it.
    std::fs::create_dir_all(scratch.path().join("data/restoring/log")).unwrap();
    assert!(restore(&file, &data, &[]).status.success());
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1);
    let error = refused(&file, &data, &[]);
    assert!(error.contains("is there and not empty"), "{error}");
    let mut left: Vec<_> = std::fs::read_dir(scratch.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort_unstable();
    assert_eq!(left, ["cut", "data", "flipped", "foreign", "saved.db"]);
    assert_eq!(Server::start_on(&data).ctl(&["get", "", "--prefix", "--keys-only"]).matches('k').count(), 200);
    // A member with an etcd's directory is told the way.
    std::fs::create_dir_all(scratch.path().join("etcd/member/wal")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_rk-etcd")).args(["--data-dir", &path("etcd")]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("rk-etcd snapshot restore FILE"), "{error}");
}
