//! What a server offers over TLS, and whose certificates it takes.

mod process;

use std::{path::Path, process::Command};

use process::{
    Server,
    certificates::{Authority, replace},
    etcdctl_is_there, is_there, wait_for,
};

/// The flags for a member's certificate, its key and its authority.
fn peer_flags([cert, key, ca]: &[String; 3]) -> [(&str, &str); 3] {
    [("--peer-cert-file", cert), ("--peer-key-file", key), ("--peer-trusted-ca-file", ca)]
}

/// etcdctl's flags for a client's certificate.
fn shows([cert, key, ca]: &[String; 3]) -> [&str; 6] {
    ["--cert", cert, "--key", key, "--cacert", ca]
}

/// Whether a client with this certificate is let in.
fn is_let_in(server: &Server, client: &[String; 3]) -> bool {
    let args = [&shows(client)[..], &["--command-timeout", "2s", "put", "a", "1"]].concat();
    server.command(&args).output().unwrap().status.success()
}

#[test]
fn clients_whose_certificates_are_revoked_are_not_let_in() {
    if !etcdctl_is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let [cert, key, ca] = authority.issue(dir.path(), "server", 1);
    let (good, bad) = (authority.issue(dir.path(), "client", 2), authority.issue(dir.path(), "client", 3));
    let list = dir.path().join("crl");
    std::fs::write(&list, authority.revoke(&[3]).pem().unwrap()).unwrap();
    let server = Server::start_tls(&[
        ("--cert-file", &cert),
        ("--key-file", &key),
        ("--trusted-ca-file", &ca),
        ("--client-cert-auth", "true"),
        ("--client-crl-file", &list.display().to_string()),
        ("--peer-auto-tls", "true"),
    ]);
    let now = || [&good, &bad].map(|client| is_let_in(&server, client));
    assert_eq!(now(), [true, false]);
    // The list of the moment counts, in either form; one that can't be read leaves the one before.
    replace(&list, authority.revoke(&[2, 3]).der());
    assert_eq!(now(), [false, false]);
    replace(&list, "nothing");
    assert_eq!(now(), [false, false]);
    replace(&list, authority.revoke(&[]).der());
    assert_eq!(now(), [true, true]);
    replace(&list, authority.revoke(&[2]).pem().unwrap());
    assert_eq!(now(), [false, true]);
}

#[test]
fn members_are_those_with_the_right_name_and_a_certificate_that_is_not_revoked() {
    if !etcdctl_is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let member = authority.issue(dir.path(), "member", 1);
    let list = dir.path().join("crl");
    std::fs::write(&list, authority.revoke(&[3]).pem().unwrap()).unwrap();
    let list = list.display().to_string();
    let mut flags = vec!["--auto-tls", "--peer-client-cert-auth", "--peer-crl-file", &list];
    flags.extend(["--peer-cert-allowed-cn", "other,member"]);
    flags.extend(peer_flags(&member).iter().flat_map(|(flag, path)| [*flag, *path]));
    let client = ["--insecure-skip-tls-verify", "--insecure-transport=false"];
    let mut members = Server::start_cluster_tls(&["a", "b", "c"], &flags, &client);
    let put = |member: &Server, value: &str| {
        wait_for("a put", || member.command(&["put", "a", value]).output().unwrap().status.success());
    };
    put(&members[0], "0");
    let found = |member: &Server, value: &str| {
        let got = member.command(&["get", "a", "--print-value-only"]).output().unwrap().stdout;
        got == format!("{value}\n").as_bytes()
    };
    wait_for("all to have it", || members.iter().all(|member| found(member, "0")));
    let others = [("stranger", 2, "the certificate of \"stranger\" is not allowed here"), ("member", 3, "Revoked")];
    for (i, (name, number, reason)) in others.into_iter().enumerate() {
        let value = format!("by {i}");
        members[2].kill_and_restart_with(&peer_flags(&authority.issue(dir.path(), name, number)));
        put(&members[0], &value);
        wait_for(reason, || members[0].log().contains(reason));
        members[2].ctl_fails(&["get", "a", "--command-timeout", "1s"]);
        members[2].kill_and_restart_with(&peer_flags(&member));
        wait_for("what it has missed", || found(&members[2], &value));
    }
    // One of several hosts is enough.
    for (hosts, alone) in [("localhost,127.0.0.1", false), ("localhost", true)] {
        members[2].forget_flag("--peer-cert-allowed-cn");
        members[2].kill_and_restart_with(&[("--peer-cert-allowed-hostname", hosts)]);
        put(&members[0], hosts);
        if alone {
            members[2].ctl_fails(&["get", "a", "--command-timeout", "1s"]);
        } else {
            wait_for("what it has missed", || found(&members[2], hosts));
        }
    }
}

/// The suite that a server takes of these, by openssl's names.
fn agreed(server: &Server, dir: &Path, version: &str, suites: &[&str]) -> Option<String> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &server.address, version]).stdin(std::process::Stdio::null());
    if !suites.is_empty() {
        command.args(["-cipher", &suites.join(":")]);
    }
    let output = command.current_dir(dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let suite = text.lines().find_map(|line| line.split_once("Cipher is "))?.1.trim();
    (suite != "(NONE)").then(|| suite.to_owned())
}

#[test]
fn only_what_is_named_is_offered() {
    if !etcdctl_is_there() || !is_there("openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [cert, key, ca] = Authority::new().issue(dir.path(), "server", 1);
    let strong = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305";
    let start = |more: &[(&str, &str)]| {
        let own =
            [("--cert-file", &*cert), ("--key-file", &key), ("--peer-auto-tls", "true"), ("--cipher-suites", strong)];
        Server::start_tls(&[&own[..], more].concat())
    };
    let server = start(&[("--tls-max-version", "TLS1.2")]);
    assert_eq!(server.command(&["--cacert", &ca, "put", "a", "1"]).output().unwrap().stdout, b"OK\n");
    let (weak, known) = ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384");
    let agreed = |server: &Server, version, suites: &[&str]| agreed(server, dir.path(), version, suites);
    assert_eq!(agreed(&server, "-tls1_2", &[weak]), None);
    assert_eq!(agreed(&server, "-tls1_2", &[weak, known]).as_deref(), Some(known));
    assert_eq!(agreed(&server, "-tls1_3", &[]), None);
    // The suites of TLS 1.3 are not chosen.
    let server = start(&[]);
    assert_eq!(agreed(&server, "-tls1_2", &[weak]), None);
    assert!(agreed(&server, "-tls1_3", &[]).is_some());
}

#[test]
fn rules_that_make_no_sense_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let [cert, key, ca] = authority.issue(dir.path(), "server", 1);
    let nothing = dir.path().join("nothing").display().to_string();
    let certs = ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca];
    let peers = ["--listen-peer-urls", "https://127.0.0.1:1", "--initial-advertise-peer-urls", "https://127.0.0.1:1"];
    let peer_ca = ["--peer-trusted-ca-file", &ca];
    let cases = [
        (vec!["--cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,NULL"], "unexpected TLS cipher suite \"NULL\""),
        (vec!["--tls-min-version", "TLS1.1"], "unexpected TLS version \"TLS1.1\""),
        (vec!["--tls-min-version", "TLS1.3", "--tls-max-version", "TLS1.2"], "is greater than max version"),
        (
            vec!["--tls-min-version", "TLS1.3", "--cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
            "cipher suites cannot be configured",
        ),
        ([&certs[..], &["--client-crl-file", &nothing]].concat(), "No such file"),
        ([&certs[..], &["--client-crl-file", &key]].concat(), &key),
        (vec!["--client-crl-file", &nothing], "--trusted-ca-file"),
        (vec!["--peer-cert-allowed-cn", "a"], "--peer-trusted-ca-file"),
        (
            [&peer_ca[..], &["--peer-cert-allowed-cn", "a", "--peer-cert-allowed-hostname", "b"]].concat(),
            "cannot be used with",
        ),
        (
            [&peers[..], &peer_ca, &["--peer-auto-tls", "--peer-cert-allowed-cn", "a"]].concat(),
            "nobody proves who they are",
        ),
    ];
    for (flags, wanted) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rk-etcd"));
        let output = command.arg("--data-dir").arg(dir.path().join("data")).args(&flags).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(wanted), "{flags:?}: {error}");
    }
}
