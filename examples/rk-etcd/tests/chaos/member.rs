//! The members as processes, and what can be done to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write,
    path::PathBuf,
    pin::pin,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rk_raft::sim::Scene;
use rk_store::{
    Store,
    etcd::{EtcdOptions, EtcdStore},
};

use crate::world::{IDS, address, disk, in_namespace};

pub struct Group {
    pub scene: Arc<Scene>,
    members: BTreeMap<u64, Member>,
    /// How often each kind of fault was made.
    faults: Mutex<BTreeMap<&'static str, usize>>,
}

struct Member {
    id: u64,
    store: Arc<dyn Store>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    child: Option<Child>,
    /// Whether it is to stay away for now.
    down: bool,
    paused: bool,
    full: bool,
}

impl Group {
    /// Starts all members, and clients that take down what each shows of the log.
    pub fn start(scene: &Arc<Scene>) -> Self {
        let member = |id| {
            let mut options = EtcdOptions::new([format!("http://{}:2379", address(id))]);
            options.request_timeout = Duration::from_millis(2500);
            options.connect_timeout = Duration::from_secs(1);
            let store: Arc<dyn Store> = Arc::new(EtcdStore::new(options).unwrap());
            let (follower, shown) = (scene.clone(), store.clone());
            tokio::spawn(async move {
                loop {
                    follower.clone().follow(id, shown.clone()).await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            });
            (id, Member { id, store, state: Mutex::default() })
        };
        let members = IDS.into_iter().map(member).collect();
        let group = Self { scene: scene.clone(), members, faults: Mutex::default() };
        IDS.into_iter().for_each(|id| group.restart(id));
        group
    }

    pub fn ids(&self) -> Vec<u64> {
        IDS.into()
    }

    /// A member's clients' side.
    pub fn store(&self, id: u64) -> Arc<dyn Store> {
        self.member(id).store.clone()
    }

    fn member(&self, id: u64) -> &Member {
        &self.members[&id]
    }

    /// Notes a fault of this kind.
    pub fn count(&self, kind: &'static str) {
        *self.faults.lock().unwrap().entry(kind).or_default() += 1;
    }

    /// How often each kind of fault was made.
    pub fn faults(&self) -> String {
        format!("{:?}", self.faults.lock().unwrap())
    }

    /// Kills a member.
    pub fn kill(&self, id: u64) {
        let mut state = self.member(id).state.lock().unwrap();
        state.down = true;
        if let Some(mut child) = state.child.take() {
            self.scene.leave(id);
            child.kill().unwrap();
            child.wait().unwrap();
            state.paused = false;
            self.scene.tell(|| format!("member {id} is killed"));
        }
    }

    /// Starts a member on what its disk holds.
    pub fn restart(&self, id: u64) {
        let member = self.member(id);
        let mut state = member.state.lock().unwrap();
        state.down = false;
        if state.child.is_none() {
            state.child = Some(spawn(id));
            self.scene.enter(id, member.store.clone());
            self.scene.tell(|| format!("member {id} starts"));
        }
    }

    /// Starts members again that have ended by themselves, which they may only do on a full disk.
    fn supervise(&self) {
        for member in self.members.values() {
            let mut state = member.state.lock().unwrap();
            let Some(status) = state.child.as_mut().and_then(|child| child.try_wait().unwrap()) else { continue };
            state.child = None;
            self.scene.leave(member.id);
            if state.full {
                self.scene.tell(|| format!("member {} ends on a full disk: {status}", member.id));
                self.count("ended on a full disk");
            } else if !log(member.id).contains("No space left on device") {
                self.scene.violation(format!("member {} has ended: {status}", member.id));
            }
        }
        for (id, member) in &self.members {
            let state = member.state.lock().unwrap();
            let missing = state.child.is_none() && !state.down && !state.full;
            drop(state);
            if missing {
                self.restart(*id);
            }
        }
    }

    /// Stops a member's time, or lets it go on.
    pub fn pause(&self, id: u64, paused: bool) {
        let mut state = self.member(id).state.lock().unwrap();
        let Some(child) = &state.child else { return };
        let (signal, pid) = (if paused { "-STOP" } else { "-CONT" }, child.id().to_string());
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        if state.paused != paused {
            state.paused = paused;
            self.scene.tell(|| format!("member {id} {}", if paused { "is paused" } else { "goes on" }));
        }
    }

    /// Takes all the space that a member's disk has left, or gives it back.
    pub fn fill(&self, id: u64, full: bool) {
        let mut state = self.member(id).state.lock().unwrap();
        if state.full == full {
            return;
        }
        let filler = disk(id).join("filler");
        if full {
            let mut file = File::create(filler).unwrap();
            for size in [1 << 20, 4096, 1] {
                let bytes = vec![0; size];
                while file.write_all(&bytes).is_ok() {}
            }
        } else {
            std::fs::remove_file(filler).unwrap();
        }
        state.full = full;
        self.scene.tell(|| format!("the disk of member {id} is {}", if full { "full" } else { "not full any more" }));
    }

    /// Lets no packet from the first of each pair reach the second.
    pub fn cut(&self, links: &BTreeSet<(u64, u64)>) {
        self.scene.tell(|| format!("cut: {links:?}"));
        for to in IDS {
            let from = links.iter().filter(|link| link.1 == to).map(|link| link.0);
            let rules: String = from.map(|from| format!("-A INPUT -s {} -j DROP\n", address(from))).collect();
            let mut restore = in_namespace(to, "iptables-restore").arg("-w").stdin(Stdio::piped()).spawn().unwrap();
            write!(restore.stdin.take().unwrap(), "*filter\n{rules}COMMIT\n").unwrap();
            assert!(restore.wait().unwrap().success());
        }
    }

    /// Waits for something, and meanwhile starts members again that have ended by themselves.
    pub async fn supervised<T>(&self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                done = &mut what => return done,
                _ = looks.tick() => self.supervise(),
            }
        }
    }

    /// Ends all faults.
    pub fn recover(&self) {
        self.cut(&BTreeSet::new());
        for id in IDS {
            self.fill(id, false);
            self.pause(id, false);
            self.restart(id);
        }
    }

    /// A panic is a broken promise, even where it ends nothing.
    pub fn check_logs(&self, scene: &Scene) {
        for id in IDS {
            if let Some(line) = log(id).lines().find(|line| line.contains("panicked at")) {
                scene.violation(format!("member {id}: {line}"));
            }
        }
    }

    /// Prints the end of what each member has logged.
    pub fn print_logs(&self) {
        for id in IDS {
            let log = log(id);
            let lines: Vec<_> = log.lines().collect();
            println!("member {id}:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        IDS.into_iter().for_each(|id| self.kill(id));
    }
}

/// Beside the disks, so that it has space.
fn log_path(id: u64) -> PathBuf {
    disk(id).with_extension("log")
}

fn log(id: u64) -> String {
    std::fs::read_to_string(log_path(id)).unwrap()
}

fn spawn(id: u64) -> Child {
    let (client, peer) = (|id| format!("http://{}:2379", address(id)), |id| format!("http://{}:2380", address(id)));
    let cluster = IDS.map(|id| format!("{id}={}", peer(id))).join(",");
    let log = File::options().create(true).append(true).open(log_path(id)).unwrap();
    in_namespace(id, env!("CARGO_BIN_EXE_rk-etcd"))
        .args(["--name", &id.to_string(), "--initial-cluster", &cluster])
        .args(["--listen-client-urls", &client(id), "--advertise-client-urls", &client(id)])
        .args(["--listen-peer-urls", &peer(id), "--initial-advertise-peer-urls", &peer(id)])
        // So that members which were away are sent a state, and not only the log.
        .args(["--snapshot-count", "500", "--snapshot-catchup-entries", "100"])
        .arg("--data-dir")
        .arg(disk(id).join("data"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}
