//! Certificates of servers, members and clients.

mod process;

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use process::{Server, certificates::Authority, etcdctl_is_there, is_there, wait_for};
use rcgen::KeyPair;
use rk_store::{
    Store,
    etcd::{EtcdOptions, EtcdStore},
};

/// The name in the certificate that a server shows.
fn shown(address: &str, dir: &Path) -> String {
    let path = |name| dir.join(name).display().to_string();
    let output = Command::new("openssl")
        .args(["s_client", "-connect", address, "-alpn", "h2", "-cert", &path("cert"), "-key", &path("key")])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let subject = text.lines().find_map(|line| line.strip_prefix("subject="));
    subject.unwrap_or_default().rsplit('=').next().unwrap().trim().to_owned()
}

#[tokio::test]
async fn certificates_are_read_again_when_they_change() {
    if !is_there("openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "one");
    let path = |name| dir.path().join(name).display().to_string();
    let (cert, key, ca) = (path("cert"), path("key"), path("ca"));
    let server = Server::start_tls(&[
        ("--cert-file", &cert),
        ("--key-file", &key),
        ("--trusted-ca-file", &ca),
        ("--client-cert-auth", "true"),
        ("--peer-cert-file", &cert),
        ("--peer-key-file", &key),
        ("--peer-trusted-ca-file", &ca),
        ("--peer-client-cert-auth", "true"),
    ]);
    let client = |with_certificate: bool| {
        let mut options = EtcdOptions::new([&server.url]);
        let read = |path: &str| std::fs::read(path).unwrap();
        options.ca = Some(read(&ca));
        options.identity = with_certificate.then(|| (read(&cert), read(&key)));
        EtcdStore::new(options).unwrap()
    };
    client(true).put("a".into(), "1".into()).await.unwrap();
    assert!(client(false).put("a".into(), "2".into()).await.is_err(), "a client without a certificate");
    let all = || [shown(&server.address, dir.path()), shown(&server.peer, dir.path())];
    assert_eq!(all(), ["one", "one"]);
    authority.write(dir.path(), "two");
    assert_eq!(all(), ["two", "two"]);
    // What fits to nothing is not used, until it does.
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let own = tempfile::tempdir().unwrap();
    authority.write(own.path(), "client");
    assert_eq!([shown(&server.address, own.path()), shown(&server.peer, own.path())], ["two", "two"]);
    authority.write(dir.path(), "three");
    assert_eq!(all(), ["three", "three"]);
    client(true).put("a".into(), "3".into()).await.unwrap();
}

/// The flags for a member's certificate, its key and its authority.
fn peer_flags([cert, key, ca]: &[String; 3]) -> [(&str, &str); 3] {
    [("--peer-cert-file", cert), ("--peer-key-file", key), ("--peer-trusted-ca-file", ca)]
}

#[test]
fn a_group_and_its_clients_show_each_other_certificates() {
    if !etcdctl_is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (of_clients, of_peers) = (Authority::new(), Authority::new());
    let server = of_clients.issue(dir.path(), "server", 1);
    let peer = of_peers.issue(dir.path(), "peer", 1);
    let [cert, key, ca] = &server;
    let mut flags = vec!["--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca];
    flags.extend(peer_flags(&peer).iter().flat_map(|(flag, path)| [*flag, *path]));
    flags.extend(["--client-cert-auth", "--peer-client-cert-auth"]);
    let [client_cert, client_key, _] = of_clients.issue(dir.path(), "client", 1);
    let client = ["--cacert", ca, "--cert", &client_cert, "--key", &client_key];
    let mut members = Server::start_cluster_tls(&["a", "b", "c"], &flags, &client);
    let put = |member: &Server, value: &str| {
        wait_for("a put", || member.command(&["put", "a", value]).output().unwrap().status.success());
    };
    put(&members[0], "1");
    for member in &members {
        assert_eq!(member.ctl(&["get", "a", "--print-value-only"]), "1\n");
    }
    let health = members[0].ctl_all(&["endpoint", "health", "--cluster"]);
    assert_eq!((health.matches("is healthy").count(), health.matches("https://").count()), (3, 3), "{health}");
    // Nobody is let in without a certificate, nor with one of another authority.
    let [other_cert, other_key, _] = of_peers.issue(dir.path(), "other", 1);
    for without in [vec!["--cacert", ca], vec!["--cacert", ca, "--cert", &other_cert, "--key", &other_key]] {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &members[0].url, "--command-timeout", "2s"]);
        assert!(!command.args(&without).args(["get", "a"]).output().unwrap().status.success(), "{without:?}");
    }
    // Nor, if it is to be one for a certain host, with one for another.
    let allowed = |host: &str| {
        let server = Server::start_tls(&[
            ("--cert-file", cert),
            ("--key-file", key),
            ("--trusted-ca-file", ca),
            ("--client-cert-allowed-hostname", host),
            ("--peer-auto-tls", "true"),
        ]);
        server.command(&[&client[..], &["put", "a", "1"]].concat()).output().unwrap()
    };
    assert!(allowed("127.0.0.1").status.success());
    assert!(!allowed("127.0.0.2").status.success());
    // Members, too, are of one authority: one whose certificate is of another's reaches none, and none it.
    members[2].kill_and_restart_with(&peer_flags(&server));
    put(&members[0], "2");
    wait_for("it to be refused", || members[2].log().contains("a peer is not reached"));
    members[2].ctl_fails(&["get", "a", "--command-timeout", "1s"]);
    members[2].kill_and_restart_with(&peer_flags(&peer));
    wait_for("what it has missed", || {
        members[2].command(&["get", "a", "--print-value-only"]).output().unwrap().stdout == b"2\n"
    });
}

#[test]
fn a_group_makes_its_own_certificates() {
    if !etcdctl_is_there() {
        return;
    }
    let mut members = Server::start_cluster_tls(
        &["a", "b", "c"],
        &["--auto-tls", "--peer-auto-tls"],
        &["--insecure-skip-tls-verify", "--insecure-transport=false"],
    );
    wait_for("a put", || members[0].command(&["put", "a", "1"]).output().unwrap().status.success());
    for member in &members {
        assert_eq!(member.ctl(&["get", "a", "--print-value-only"]), "1\n");
    }
    // They are kept, and are for where the server is; the key is nobody else's.
    let own = members[0].data().join("fixtures/client");
    let (cert, key) = (own.join("cert.pem"), own.join("key.pem"));
    let before = std::fs::read(&cert).unwrap();
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    members[0].kill_and_restart(std::time::Duration::from_secs(30));
    assert_eq!(std::fs::read(&cert).unwrap(), before);
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &members[0].url, "--cacert"]).arg(&cert);
    let got = command.args(["get", "a", "--print-value-only"]).output().unwrap();
    assert_eq!((String::from_utf8_lossy(&got.stdout), String::from_utf8_lossy(&got.stderr)), ("1\n".into(), "".into()));
    // Nothing is sent in the clear.
    let plain = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &members[0].address, "--command-timeout", "2s", "get", "a"])
        .output()
        .unwrap();
    assert!(!plain.status.success());
}
