//! What is measured: an API that is there, or a server started for the occasion.

use std::{
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    http2::{Connection, Method, Request},
    kubeconfig::Endpoint,
    process::{self, Usage},
};

/// How servers to be started are.
#[derive(Debug, Clone)]
pub struct Servers {
    /// The program.
    pub program: PathBuf,
    /// Where their folders are made.
    pub dir: PathBuf,
}

/// An API to load.
pub struct Target {
    /// Where it is.
    pub endpoint: Endpoint,
    pids: Vec<u32>,
    /// What ends with this.
    started: Option<(Child, TempDir)>,
    /// From the start of the program until it said that it serves.
    pub ready_after: Duration,
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((child, _dir)) = &mut self.started {
            // It may have ended by itself.
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

impl Target {
    /// An API that is there.
    pub fn existing(kubeconfig: &Path, pids: &[u32]) -> io::Result<Self> {
        let endpoint = Endpoint::read(kubeconfig)?;
        Ok(Self { endpoint, pids: pids.to_vec(), started: None, ready_after: Duration::ZERO })
    }

    /// Starts a server on a fresh folder.
    pub fn start(servers: &Servers, arguments: &[&str]) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("rk-benches-api-").tempdir_in(&servers.dir)?;
        let begun = Instant::now();
        let mut child = Command::new(&servers.program)
            .arg("--dir")
            .arg(dir.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", servers.program.display())))?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let ready_after = begun.elapsed();
        let pids = vec![child.id()];
        let started = Some((child, dir));
        let Some(kubeconfig) = line.trim().strip_prefix("ready ") else {
            return Err(io::Error::other(format!("{} did not get ready: {line:?}", servers.program.display())));
        };
        let endpoint = Endpoint::read(Path::new(kubeconfig))?;
        Ok(Self { endpoint, pids, started, ready_after })
    }

    /// What its processes have used.
    pub fn usage(&self) -> io::Result<Usage> {
        self.pids.iter().map(|pid| process::usage(*pid)).sum()
    }

    /// Whether it is known which processes serve it.
    pub fn is_measurable(&self) -> bool {
        !self.pids.is_empty()
    }

    /// A connection to it.
    pub async fn connect(&self) -> io::Result<Connection> {
        Connection::open(&self.endpoint, "application/json", false).await
    }

    /// Makes an object that may be there.
    pub async fn ensure(&self, path: &str, body: serde_json::Value) -> io::Result<()> {
        let request = Request { method: Method::Post, path: path.to_owned(), body: body.to_string().into() };
        match self.connect().await?.ask(request).await {
            Err(error) if !error.to_string().contains("AlreadyExists") => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a namespace of this name, or empties the ConfigMaps of the one that is there.
    pub async fn namespace(&self, name: &str) -> io::Result<()> {
        let body = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.ensure("/api/v1/namespaces", body).await?;
        self.empty(name).await
    }

    /// The same where the server lives on.
    pub async fn tidy(&self, namespace: &str) -> io::Result<()> {
        if self.started.is_some() { Ok(()) } else { self.empty(namespace).await }
    }

    /// Deletes the ConfigMaps of a namespace.
    pub async fn empty(&self, namespace: &str) -> io::Result<()> {
        loop {
            let path = format!("/api/v1/namespaces/{namespace}/configmaps");
            let request = Request { method: Method::Delete, path, body: Vec::new() };
            match self.connect().await?.ask(request).await {
                // Many are more than one request may take.
                Err(error) if error.to_string().contains("Timeout") => {}
                emptied => return emptied.map(drop),
            }
        }
    }
}
