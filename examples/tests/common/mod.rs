//! A running `mini-cluster` of one's own, and the real kubectl bound to it.
#![allow(dead_code, missing_docs)] // each test file uses a part

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

pub use rk_store::testing::free_port;

/// A cluster as its user has it: the binary, a data folder, a kubeconfig.
pub struct MiniCluster {
    child: Child,
    pub data: PathBuf,
    pub kubeconfig: PathBuf,
    pub ingress: u16,
}

/// The binary, ready to be given options.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mini-cluster"))
}

impl MiniCluster {
    /// Starts on a data folder and waits for `ready`.
    pub fn start(data: &Path, args: &[&str]) -> Self {
        Self::start_at(data, 0, args)
    }

    /// The same with the API on this port.
    pub fn start_at(data: &Path, api_port: u16, args: &[&str]) -> Self {
        Self::start_reading(data, api_port, args, Stdio::null())
    }

    /// The same with something on its standard input.
    pub fn start_reading(data: &Path, api_port: u16, args: &[&str], input: Stdio) -> Self {
        let ingress = free_port();
        let kubeconfig = data.join("kubeconfig");
        let mut child = binary()
            .args(["--api-port", &api_port.to_string(), "-p", &format!("{ingress}:80@loadbalancer")])
            .arg("--data-dir")
            .arg(data)
            .args(args)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::from(std::fs::OpenOptions::new().create(true).append(true).open(log_of(data)).unwrap()))
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        if !lines.by_ref().map_while(Result::ok).any(|line| line == "ready") {
            let status = child.wait().unwrap();
            panic!("the cluster ended ({status}):\n{}", std::fs::read_to_string(log_of(data)).unwrap_or_default());
        }
        // Nobody reads further output; a closed pipe must not stop the cluster, so keep reading it.
        std::thread::spawn(move || lines.count());
        Self { child, data: data.to_owned(), kubeconfig, ingress }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The kubectl command, bound to this cluster.
    pub fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(self.data.join("kubectl-cache"));
        command.args(args);
        command
    }

    /// What kubectl says; it must succeed.
    pub fn k(&self, args: &[&str]) -> String {
        let output = self.kubectl(args).output().unwrap();
        assert!(output.status.success(), "kubectl {args:?}: {}\n{}", text(&output), self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// What kubectl says when it must fail.
    pub fn k_fails(&self, args: &[&str]) -> String {
        let output = self.kubectl(args).output().unwrap();
        assert!(!output.status.success(), "kubectl {args:?} succeeded: {}", text(&output));
        text(&output)
    }

    /// kubectl with something on its standard input.
    pub fn k_in(&self, args: &[&str], input: &str) -> String {
        use std::io::Write;
        let mut command = self.kubectl(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "kubectl {args:?}: {}\n{}", text(&output), self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until kubectl's answer satisfies `done`.
    pub fn until(&self, args: &[&str], done: impl Fn(&str) -> bool) -> String {
        eventually(Duration::from_secs(60), || {
            let output = self.kubectl(args).output().unwrap();
            let said = text(&output);
            if done(&said) { Ok(said) } else { Err(format!("kubectl {args:?}: {said}\n{}", self.log())) }
        })
    }

    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(log_of(&self.data)).unwrap_or_default();
        log.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Ends the process at once, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as a user would, with SIGTERM; it must end well.
    pub fn stop(mut self) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the cluster ended with {status}:\n{}", self.log());
    }
}

impl Drop for MiniCluster {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
            let end = Instant::now() + Duration::from_secs(10);
            while self.child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn log_of(data: &Path) -> PathBuf {
    data.with_extension("log")
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Tries until it works, or panics with the last failure.
pub fn eventually<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) if Instant::now() > end => panic!("not within {limit:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Whether a program is there. In CI it must be; elsewhere the test says that it skips.
pub fn have(program: &str) -> bool {
    let there =
        Command::new("sh").args(["-c", &format!("command -v {program}")]).output().is_ok_and(|o| o.status.success());
    assert!(there || std::env::var("CI").as_deref() != Ok("true"), "{program} is required in CI");
    if !there {
        println!("skipped: {program} is not on this machine");
    }
    there
}

/// The demo's web application, served by the binary under test.
pub fn web() -> String {
    include_str!("../../src/demo/web.yaml").replace("MINI_CLUSTER", env!("CARGO_BIN_EXE_mini-cluster"))
}
