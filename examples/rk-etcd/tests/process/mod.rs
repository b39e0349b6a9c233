//! rk-etcd and etcdctl as processes.

// No test uses all of it.
#![allow(dead_code)]

pub mod certificates;

use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a program is installed. In CI it must be.
pub fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").env("ETCDCTL_API", "3").output().is_ok();
    assert!(found || std::env::var("CI").is_err(), "{program} is required in CI");
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Whether etcdctl is installed.
pub fn etcdctl_is_there() -> bool {
    is_there("etcdctl")
}

/// Polls until a condition holds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An address that was free a moment ago.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", rk_store::testing::free_port())
}

/// A running rk-etcd, killed when dropped.
pub struct Server {
    child: Child,
    flags: Vec<String>,
    /// Where clients reach it.
    pub address: String,
    pub url: String,
    /// Where other members reach it.
    pub peer: String,
    /// What etcdctl is told besides where it is.
    ctl: Vec<String>,
    dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// Starts a server on an empty folder.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_at(&free_address(), flags)
    }

    /// Starts a server on a data directory that is there.
    pub fn start_on(data: &str) -> Self {
        Self::start(&["--data-dir", data])
    }

    /// Starts a server on an empty folder that other members would reach here.
    pub fn start_at(peer: &str, flags: &[&str]) -> Self {
        let server = Self::start_member("default", "http", peer, flags);
        server.ready(PATIENCE);
        server
    }

    /// Starts a server that has where it is, and more, from its environment instead of flags.
    pub fn start_by_environment(more: &[(&str, &str)], flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (address, peer) = (free_address(), free_address());
        let (url, peer_url) = (format!("http://{address}"), format!("http://{peer}"));
        let child = Command::new(env!("CARGO_BIN_EXE_rk-etcd"))
            .env("ETCD_DATA_DIR", dir.path().join("data"))
            .envs([("ETCD_LISTEN_CLIENT_URLS", &url), ("ETCD_ADVERTISE_CLIENT_URLS", &url)])
            .envs([("ETCD_LISTEN_PEER_URLS", &peer_url), ("ETCD_INITIAL_ADVERTISE_PEER_URLS", &peer_url)])
            .envs(more.iter().copied())
            .args(flags)
            .stdout(Stdio::null())
            .stderr(log_file(&dir))
            .spawn()
            .unwrap();
        let server = Self { child, flags: Vec::new(), address, url, peer, ctl: Vec::new(), dir };
        server.ready(PATIENCE);
        server
    }

    /// Starts a server that speaks TLS, with these flags and their values.
    pub fn start_tls(flags: &[(&str, &str)]) -> Self {
        let flags: Vec<_> = flags.iter().map(|(flag, value)| format!("{flag}={value}")).collect();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let server = Self::start_member("default", "https", &free_address(), &flags);
        server.ready(PATIENCE);
        server
    }

    /// Starts a member that a cluster was told of.
    pub fn join(name: &str, peer: &str, cluster: &str) -> Self {
        let flags = ["--initial-cluster", cluster, "--initial-cluster-state", "existing"];
        let server = Self::start_member(name, "http", peer, &flags);
        server.ready(PATIENCE);
        server
    }

    /// Starts a cluster.
    pub fn start_cluster(names: &[&str]) -> Vec<Self> {
        Self::start_cluster_of("http", names, &[])
    }

    /// Starts a cluster that speaks TLS with these flags, and has etcdctl know how with those.
    pub fn start_cluster_tls(names: &[&str], flags: &[&str], ctl: &[&str]) -> Vec<Self> {
        let mut members = Self::start_cluster_of("https", names, flags);
        for member in &mut members {
            member.ctl = ctl.iter().map(|flag| (*flag).to_owned()).collect();
        }
        members
    }

    fn start_cluster_of(scheme: &str, names: &[&str], flags: &[&str]) -> Vec<Self> {
        let peers: Vec<_> = names.iter().map(|name| (*name, free_address())).collect();
        let cluster = cluster(scheme, &peers);
        let flags = [flags, &["--initial-cluster", &cluster]].concat();
        let start = |(name, peer): &(&str, String)| Self::start_member(name, scheme, peer, &flags);
        let members: Vec<_> = peers.iter().map(start).collect();
        members.iter().for_each(|member| member.ready(PATIENCE));
        members
    }

    fn start_member(name: &str, scheme: &str, peer: &str, flags: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), name, scheme, peer, flags)
    }

    /// Restores a snapshot for each member of a new cluster, with these names and peer addresses; the flags to start them with.
    pub fn restore(file: &str, peers: &[(&str, String)]) -> Vec<(TempDir, String)> {
        let cluster = cluster("http", peers);
        let restore = |(name, peer): &(&str, String)| {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("data").display().to_string();
            let output = Command::new(env!("CARGO_BIN_EXE_rk-etcd"))
                .args(["snapshot", "restore", file, "--name", name, "--data-dir", &data])
                .args(["--initial-cluster", &cluster])
                .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            (dir, cluster.clone())
        };
        peers.iter().map(restore).collect()
    }

    /// Starts a member on what was restored for it.
    pub fn start_restored(restored: (TempDir, String), name: &str, peer: &str) -> Self {
        let (dir, cluster) = restored;
        Self::start_in(dir, name, "http", peer, &["--initial-cluster", &cluster])
    }

    fn start_in(dir: TempDir, name: &str, scheme: &str, peer: &str, flags: &[&str]) -> Self {
        let address = free_address();
        let (url, peer_url) = (format!("{scheme}://{address}"), format!("{scheme}://{peer}"));
        let data = dir.path().join("data").display().to_string();
        let own = [
            ("--name", name),
            ("--data-dir", data.as_str()),
            ("--listen-client-urls", &url),
            ("--advertise-client-urls", &url),
            ("--listen-peer-urls", &peer_url),
            ("--initial-advertise-peer-urls", &peer_url),
        ];
        let own = own.iter().filter(|(flag, _)| !flags.contains(flag));
        let mut all: Vec<String> = own.flat_map(|(flag, value)| [(*flag).into(), (*value).into()]).collect();
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let child = spawn(&all, &dir);
        Self { child, flags: all, address, url, peer: peer.into(), ctl: Vec::new(), dir }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn ready(&self, patience: Duration) {
        let begin = Instant::now();
        while TcpStream::connect(&self.address).is_err() {
            assert!(begin.elapsed() < patience, "rk-etcd does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the server as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends the server as a crash would and starts it on the same folder.
    pub fn kill_and_restart(&mut self, patience: Duration) {
        self.kill();
        self.child = spawn(&self.flags, &self.dir);
        self.ready(patience);
    }

    /// The same with more flags and their values, each in place of the same one given before.
    pub fn kill_and_restart_with(&mut self, flags: &[(&str, &str)]) {
        for (name, value) in flags {
            self.forget_flag(name);
            self.flags.extend([(*name).to_owned(), (*value).to_owned()]);
        }
        self.kill_and_restart(PATIENCE);
    }

    /// Has the next start be without a flag and its value.
    pub fn forget_flag(&mut self, name: &str) {
        if let Some(at) = self.flags.iter().position(|flag| flag == name) {
            self.flags.drain(at..at + 2);
        }
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A path for a test's own files.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// etcdctl with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        // A job in the background ignores Ctrl-C, and what it starts does so too unless it is told not to.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", "etcdctl", "--endpoints", &self.url]).args(&self.ctl).args(args);
        command.env("ETCDCTL_API", "3");
        command
    }

    /// What etcdctl prints; it must succeed.
    pub fn ctl(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {args:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What etcdctl prints on both outputs; it must succeed.
    pub fn ctl_all(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// What etcdctl complains of; it must fail.
    pub fn ctl_fails(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(!output.status.success(), "etcdctl {args:?} succeeds");
        String::from_utf8(output.stderr).unwrap()
    }

    /// An etcdctl that goes on.
    pub fn follow(&self, args: &[&str]) -> Follow {
        self.following(args, Stdio::inherit())
    }

    /// The same, and what it reads from.
    pub fn follow_and_tell(&self, args: &[&str]) -> (Follow, ChildStdin) {
        let mut follow = self.following(args, Stdio::piped());
        let stdin = follow.child.stdin.take().unwrap();
        (follow, stdin)
    }

    fn following(&self, args: &[&str], stdin: Stdio) -> Follow {
        let path = self.dir.path().join(format!("follow-{}", free_address()));
        let file = File::create(&path).unwrap();
        let child = self.command(args).stdin(stdin).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Follow { child, path }
    }

    /// A plain GET; the status and the body.
    pub fn http(&self, path: &str) -> (u16, String) {
        http(&self.address, path)
    }
}

/// `--initial-cluster` of these members.
fn cluster(scheme: &str, peers: &[(&str, String)]) -> String {
    peers.iter().map(|(name, peer)| format!("{name}={scheme}://{peer}")).collect::<Vec<_>>().join(",")
}

fn http(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    // Of HTTP/1.0, so that the body comes in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn log_file(dir: &TempDir) -> File {
    File::options().create(true).append(true).open(dir.path().join("log")).unwrap()
}

fn spawn(flags: &[String], dir: &TempDir) -> Child {
    Command::new(env!("CARGO_BIN_EXE_rk-etcd")).args(flags).stdout(Stdio::null()).stderr(log_file(dir)).spawn().unwrap()
}

/// An etcdctl that runs, killed when dropped.
pub struct Follow {
    child: Child,
    path: PathBuf,
}

impl Drop for Follow {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.child.kill().is_ok() {
            self.child.wait().unwrap();
        }
    }
}

impl Follow {
    /// What it has printed so far.
    pub fn read(&mut self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.path).unwrap()).into_owned()
    }

    /// Waits until it has printed this.
    pub fn expect(&mut self, text: &str) {
        let begin = Instant::now();
        loop {
            let read = self.read();
            if read.contains(text) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{text:?} is not in {read:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as Ctrl-C does.
    pub fn interrupt(&mut self) {
        let kill = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        self.child.wait().unwrap();
    }
}

/// A real etcd, killed when dropped.
pub struct Etcd {
    child: Child,
    /// Where clients reach it.
    pub url: String,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Etcd {
    /// Starts an etcd on a folder.
    pub fn start_on(dir: &str) -> Self {
        Self::start_with(dir, &[])
    }

    /// Starts an etcd on a folder with more flags.
    pub fn start_with(dir: &str, flags: &[&str]) -> Self {
        let (url, peer) = (format!("http://{}", free_address()), format!("http://{}", free_address()));
        let child = Command::new("etcd")
            .args(["--data-dir", dir, "--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer])
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Self { child, url };
        etcd.ready();
        etcd
    }

    fn ready(&self) {
        wait_for("etcd", || self.command(&["get", "ready"]).output().unwrap().status.success());
    }

    /// Starts a member that a cluster was told of, be it as a learner.
    pub fn join(dir: &str, name: &str, peer: &str, cluster: &str) -> Self {
        let (url, peer_url) = (format!("http://{}", free_address()), format!("http://{peer}"));
        let child = Command::new("etcd")
            .args(["--name", name, "--data-dir", dir, "--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", cluster, "--initial-cluster-state", "existing"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Self { child, url };
        wait_for("etcd", || etcd.command(&["endpoint", "status"]).output().unwrap().status.success());
        etcd
    }

    /// Starts a cluster on folders in this one.
    pub fn start_cluster(dir: &Path, names: &[&str]) -> Vec<Self> {
        let peers: Vec<_> = names.iter().map(|name| (*name, format!("http://{}", free_address()))).collect();
        let cluster = peers.iter().map(|(name, peer)| format!("{name}={peer}")).collect::<Vec<_>>().join(",");
        let start = |(name, peer): &(&str, String)| {
            let url = format!("http://{}", free_address());
            let child = Command::new("etcd")
                .args(["--name", name, "--initial-cluster", &cluster, "--data-dir"])
                .arg(dir.join(name))
                .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
                .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            Self { child, url }
        };
        let members: Vec<_> = peers.iter().map(start).collect();
        members.iter().for_each(Self::ready);
        members
    }

    /// etcdctl with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url]).args(args);
        command
    }

    /// A plain GET; the status and the body.
    pub fn http(&self, path: &str) -> (u16, String) {
        http(self.url.strip_prefix("http://").unwrap(), path)
    }

    /// What etcdctl prints; it must succeed.
    pub fn ctl(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What etcdctl complains of; it must fail.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(!output.status.success(), "etcdctl {args:?} succeeds");
        String::from_utf8(output.stderr).unwrap()
    }
}
