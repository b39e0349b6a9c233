//! rk-etcd and etcdctl as processes.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
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
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A running rk-etcd, killed when dropped.
pub struct Server {
    child: Child,
    flags: Vec<String>,
    address: String,
    /// Where clients reach it.
    pub url: String,
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
        let server = Self::start_member("default", &format!("http://{}", free_address()), flags);
        server.ready(PATIENCE);
        server
    }

    /// Starts a cluster.
    pub fn start_cluster(names: &[&str]) -> Vec<Self> {
        let peers: Vec<_> = names.iter().map(|name| (*name, format!("http://{}", free_address()))).collect();
        let cluster = peers.iter().map(|(name, url)| format!("{name}={url}")).collect::<Vec<_>>().join(",");
        let start = |(name, peer): &(&str, String)| Self::start_member(name, peer, &["--initial-cluster", &cluster]);
        let members: Vec<_> = peers.iter().map(start).collect();
        members.iter().for_each(|member| member.ready(PATIENCE));
        members
    }

    fn start_member(name: &str, peer: &str, flags: &[&str]) -> Self {
        let address = free_address();
        let dir = tempfile::tempdir().unwrap();
        let url = format!("http://{address}");
        let data = dir.path().join("data").display().to_string();
        let own = [
            ("--name", name),
            ("--data-dir", data.as_str()),
            ("--listen-client-urls", &url),
            ("--advertise-client-urls", &url),
            ("--listen-peer-urls", peer),
            ("--initial-advertise-peer-urls", peer),
        ];
        let mut all: Vec<String> = own.iter().flat_map(|(flag, value)| [(*flag).into(), (*value).into()]).collect();
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let child = spawn(&all, &dir);
        Self { child, flags: all, address, url, dir }
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

    /// A path for a test's own files.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// etcdctl with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url]).args(args);
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
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
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

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url]).args(args);
        command
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
