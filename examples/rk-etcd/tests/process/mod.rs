//! rk-etcd and etcdctl as processes.

// No test uses all of it.
#![allow(dead_code)]

use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
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
    dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Server {
    /// Starts a server on an empty folder.
    pub fn start(flags: &[&str]) -> Self {
        let server = Self::start_member("default", "http", &free_address(), flags);
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
        let peers: Vec<_> = names.iter().map(|name| (*name, free_address())).collect();
        let cluster = peers.iter().map(|(name, peer)| format!("{name}=http://{peer}")).collect::<Vec<_>>().join(",");
        let flags = ["--initial-cluster", &cluster];
        let start = |(name, peer): &(&str, String)| Self::start_member(name, "http", peer, &flags);
        let members: Vec<_> = peers.iter().map(start).collect();
        members.iter().for_each(|member| member.ready(PATIENCE));
        members
    }

    fn start_member(name: &str, scheme: &str, peer: &str, flags: &[&str]) -> Self {
        let address = free_address();
        let dir = tempfile::tempdir().unwrap();
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
        let mut all: Vec<String> = own.iter().flat_map(|(flag, value)| [(*flag).into(), (*value).into()]).collect();
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let child = spawn(&all, &dir);
        Self { child, flags: all, address, url, peer: peer.into(), dir }
    }

    fn ready(&self, patience: Duration) {
        let begin = Instant::now();
        while TcpStream::connect(&self.address).is_err() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(begin.elapsed() < patience, "rk-etcd does not listen: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the server as a crash would and starts it on the same folder.
    pub fn kill_and_restart(&mut self, patience: Duration) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.flags, &self.dir);
        self.ready(patience);
    }

    /// The same with more flags, each in place of the same one given before.
    pub fn kill_and_restart_with(&mut self, flags: &[&str]) {
        for pair in flags.chunks(2) {
            if let Some(at) = self.flags.iter().position(|flag| flag == pair[0]) {
                self.flags.drain(at..at + 2);
            }
            self.flags.extend(pair.iter().map(|flag| (*flag).to_owned()));
        }
        self.kill_and_restart(PATIENCE);
    }

    /// A path for a test's own files.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// etcdctl with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        // A job in the background ignores Ctrl-C, and what it starts does so too unless it is told not to.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", "etcdctl", "--endpoints", &self.url]).args(args);
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
        let path = self.dir.path().join(format!("follow-{}", free_address()));
        let file = File::create(&path).unwrap();
        let child = self.command(args).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Follow { child, path }
    }

    /// A plain GET; the status and the body.
    pub fn http(&self, path: &str) -> (u16, String) {
        http(&self.address, path)
    }
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

fn spawn(flags: &[String], dir: &TempDir) -> Child {
    let log = File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_rk-etcd")).args(flags).stdout(Stdio::null()).stderr(log).spawn().unwrap()
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
    url: String,
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
        let (url, peer) = (format!("http://{}", free_address()), format!("http://{}", free_address()));
        let child = Command::new("etcd")
            .args(["--data-dir", dir, "--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Self { child, url };
        wait_for("etcd", || etcd.command(&["get", "ready"]).output().unwrap().status.success());
        etcd
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
