//! One member or three of a peer, in processes of their own, on fresh directories.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message;
use rk_store::etcd::proto::etcdserverpb::StatusResponse;
use tempfile::TempDir;

use crate::{
    http2::{Connection, Event},
    messages::{self, path},
    process::{self, Usage},
};

/// How long a server may take to start, and a call that is no part of a measurement.
const PATIENCE: Duration = Duration::from_secs(120);
/// The time between two looks whether a server is ready.
const POLL: Duration = Duration::from_millis(2);

/// A server to be measured.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its name in the table.
    pub name: &'static str,
    /// Its program, which takes etcd's flags.
    pub program: PathBuf,
}

#[derive(Debug)]
struct Member {
    child: Option<Child>,
    address: SocketAddr,
    command: Vec<String>,
    dir: PathBuf,
}

/// Running members of one peer. They are killed when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    program: PathBuf,
    /// Removed last.
    _dir: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.kill(at);
        }
    }
}

fn failed(what: String) -> io::Error {
    io::Error::other(what)
}

/// A port that no one has now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// One call on a connection of its own; its answer.
pub async fn call(address: SocketAddr, path: &'static str, body: &[u8]) -> io::Result<Bytes> {
    let answer = async {
        let mut connection = Connection::open(address).await?;
        connection.call(0, path, body, true);
        match connection.event().await? {
            Event::Message(_, message) => Ok(message),
            Event::Large(_, bytes) => Err(failed(format!("{path} answered with {bytes} bytes"))),
            Event::End(..) => Err(failed(format!("{path} was refused"))),
        }
    };
    tokio::time::timeout(PATIENCE, answer).await?
}

impl Cluster {
    /// Starts so many members with directories below `dir`, and waits until each serves.
    pub async fn start(peer: &Peer, members: usize, dir: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("rk-benches-etcd-").tempdir_in(dir)?;
        let ports = (0..members).map(|_| Ok((free_port()?, free_port()?))).collect::<io::Result<Vec<_>>>()?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let initial: Vec<_> = ports.iter().enumerate().map(|(i, (_, p))| format!("m{i}={}", url(*p))).collect();
        let mut cluster = Self { members: Vec::new(), program: peer.program.clone(), _dir: dir };
        for (i, (client, peer)) in ports.iter().enumerate() {
            let data = cluster._dir.path().join(format!("m{i}"));
            let pairs = [
                ("name", format!("m{i}")),
                ("data-dir", data.display().to_string()),
                ("listen-client-urls", url(*client)),
                ("advertise-client-urls", url(*client)),
                ("listen-peer-urls", url(*peer)),
                ("initial-advertise-peer-urls", url(*peer)),
                ("initial-cluster", initial.join(",")),
                ("initial-cluster-state", "new".to_owned()),
                ("initial-cluster-token", "rk-benches-etcd".to_owned()),
                ("heartbeat-interval", "100".to_owned()),
                ("election-timeout", "1000".to_owned()),
                ("quota-backend-bytes", (8_u64 << 30).to_string()),
                ("log-level", "warn".to_owned()),
            ];
            cluster.members.push(Member {
                child: None,
                address: (Ipv4Addr::LOCALHOST, *client).into(),
                command: pairs.into_iter().flat_map(|(flag, value)| [format!("--{flag}"), value]).collect(),
                dir: data,
            });
        }
        for at in 0..members {
            cluster.spawn(at)?;
        }
        for at in 0..members {
            cluster.ready(at).await?;
        }
        Ok(cluster)
    }

    fn log(&self, at: usize) -> PathBuf {
        self.members[at].dir.with_extension("log")
    }

    fn spawn(&mut self, at: usize) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.log(at))?;
        let member = &mut self.members[at];
        let mut command = Command::new(&self.program);
        // Debian's unit sets neither; a user's environment must not change what is measured.
        command.args(&member.command).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        member.child = Some(command.spawn().map_err(|error| failed(format!("{}: {error}", self.program.display())))?);
        Ok(())
    }

    /// Waits until a member answers a linearizable read.
    async fn ready(&mut self, at: usize) -> io::Result<()> {
        let begun = Instant::now();
        let read = messages::get(messages::key(0), false);
        let address = self.members[at].address;
        loop {
            if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(1), call(address, path::RANGE, &read)).await {
                return Ok(());
            }
            let gone = match &mut self.members[at].child {
                Some(child) => child.try_wait()?.map(|status| status.to_string()),
                None => Some("not started".to_owned()),
            };
            let waited = (begun.elapsed() > PATIENCE).then(|| format!("not ready after {PATIENCE:?}"));
            if let Some(reason) = gone.or(waited) {
                let log = fs::read_to_string(self.log(at)).unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(5).collect();
                return Err(failed(format!(
                    "{}: {reason}; its last words:\n{}",
                    self.program.display(),
                    last.join("\n")
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends a member with SIGKILL.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.members[at].child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends a member with SIGTERM, and starts it again; the time until it serves.
    pub async fn restart(&mut self, at: usize) -> io::Result<Duration> {
        if let Some(mut child) = self.members[at].child.take() {
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
            child.wait()?;
        }
        let begun = Instant::now();
        self.spawn(at)?;
        self.ready(at).await?;
        Ok(begun.elapsed())
    }

    /// Where clients connect, by member.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.address).collect()
    }

    /// A member's status.
    pub async fn status(&self, at: usize) -> io::Result<StatusResponse> {
        let answer = call(self.members[at].address, path::STATUS, &messages::empty()).await?;
        StatusResponse::decode(answer).map_err(|error| failed(format!("a status: {error}")))
    }

    /// Which member leads.
    pub async fn leader(&self) -> io::Result<usize> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            for at in 0..self.members.len() {
                let status = self.status(at).await?;
                if status.header.is_some_and(|header| header.member_id == status.leader) {
                    return Ok(at);
                }
            }
            tokio::time::sleep(POLL).await;
        }
        Err(failed("no member leads".into()))
    }

    /// What all members together have used.
    pub fn usage(&self) -> io::Result<Usage> {
        self.members.iter().filter_map(|member| member.child.as_ref()).map(|child| process::usage(child.id())).sum()
    }

    /// Bytes on disk that the members' directories take, holes not counted.
    pub fn disk_size(&self) -> io::Result<u64> {
        self.members.iter().map(|member| blocks(&member.dir)).sum()
    }
}

fn blocks(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let own = fs::symlink_metadata(path)?;
    if !own.is_dir() {
        return Ok(own.blocks() * 512);
    }
    fs::read_dir(path)?.map(|entry| blocks(&entry?.path())).sum()
}
