//! The members of a simulated group, which come and go, stop and start, and what is known of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_store::{Clock, Disk, Error, SegmentEngine, SegmentOptions};

use super::{
    clocks::{self, Skew},
    disk::SimDisk,
    network::Network,
    scene::Scene,
    trace::Trace,
};
use crate::{
    Identity, MemberDir, MemberDirOptions, MemberId, Membership, RaftOptions, RaftStore, Start,
    cluster::keep_published, node::is_removed,
};

pub(crate) struct Group {
    pub trace: Trace,
    pub network: Network,
    pub scene: Arc<Scene>,
    options: RaftOptions,
    /// The first members.
    membership: Membership,
    /// Whether records are in files of an engine, or else all in memory.
    engine_on_disk: bool,
    skew: Skew,
    /// How long things go wrong.
    time: Duration,
    hosts: Mutex<BTreeMap<MemberId, Host>>,
    random: Mutex<StdRng>,
}

/// What a member runs on.
struct Host {
    disk: SimDisk,
    clock: Clock,
    /// Whether it came to the group at run time.
    joined: bool,
    /// Whether its removal was asked for.
    unwanted: bool,
    state: State,
}

#[derive(Clone)]
enum State {
    Stopped,
    /// It is about to run.
    Starting,
    Runs(Arc<RaftStore>),
    /// It has ended, as it was removed.
    Left,
    /// It never starts again.
    Lost,
}

impl Group {
    /// A group of `size` members, none of which runs. Things go wrong for `time`.
    pub(crate) fn new(size: u64, seed: u64, time: Duration, random: &mut StdRng, trace: Trace) -> Arc<Self> {
        let ids: Vec<_> = (1..=size).collect();
        let lease_reads = random.random_bool(0.4);
        let options = RaftOptions {
            seed,
            request_timeout: Duration::from_millis(2500),
            snapshot_entries: random.random_range(20..400),
            lease_reads,
            ..RaftOptions::default()
        };
        let group = Self {
            network: Network::new(random.random(), trace.clone()),
            scene: Scene::with_trace(trace.clone()),
            options,
            membership: Membership::numbered(&ids),
            engine_on_disk: random.random_bool(0.5),
            skew: if lease_reads || random.random_bool(0.5) { clocks::SLIGHT } else { clocks::WILD },
            time,
            hosts: Mutex::default(),
            random: Mutex::new(StdRng::seed_from_u64(random.random())),
            trace,
        };
        ids.into_iter().for_each(|id| group.add(id, false));
        Arc::new(group)
    }

    /// Prepares a host for a member that has just become one.
    pub(crate) fn add(&self, id: MemberId, joined: bool) {
        let mut random = self.random.lock();
        let clock = clocks::clock(self.skew, self.trace.begin(), self.time, &mut random);
        self.scene.add_clock(clock.clone());
        let disk = SimDisk::new(random.random());
        let host = Host { disk, clock, joined, unwanted: false, state: State::Stopped };
        if self.hosts.lock().insert(id, host).is_some() {
            self.trace.violation(format!("a new member has the id {id} of an earlier one"));
        }
    }

    /// The hosts in use.
    pub(crate) fn ids(&self) -> Vec<MemberId> {
        let hosts = self.hosts.lock();
        let used = hosts.iter().filter(|(_, host)| !matches!(host.state, State::Left | State::Lost));
        used.map(|(id, _)| *id).collect()
    }

    /// Whether a member runs.
    pub(crate) fn runs(&self, id: MemberId) -> bool {
        self.member(id).is_some()
    }

    /// A member that runs.
    pub(crate) fn member(&self, id: MemberId) -> Option<Arc<RaftStore>> {
        match &self.hosts.lock().get(&id)?.state {
            State::Runs(store) => Some(store.clone()),
            _ => None,
        }
    }

    /// Any member that runs.
    pub(crate) fn any(&self, random: &mut StdRng) -> Option<Arc<RaftStore>> {
        let hosts = self.hosts.lock();
        let running = hosts.values().filter_map(|host| match &host.state {
            State::Runs(store) => Some(store),
            _ => None,
        });
        let running: Vec<_> = running.collect();
        running.get(random.random_range(0..running.len().max(1))).map(|store| Arc::clone(store))
    }

    fn set(&self, id: MemberId, state: State) {
        match &state {
            State::Runs(store) => self.scene.enter(id, store.clone()),
            _ => self.scene.leave(id),
        }
        if let Some(host) = self.hosts.lock().get_mut(&id) {
            host.state = state;
        }
    }

    /// Starts a member on what its disk holds, unless it runs or is about to.
    pub(crate) async fn start(self: &Arc<Self>, id: MemberId) {
        match self.hosts.lock().get_mut(&id) {
            Some(host) if matches!(host.state, State::Stopped | State::Left) => host.state = State::Starting,
            _ => return,
        }
        loop {
            let disk = self.disk(id);
            match self.try_start(id, disk.clone()).await {
                Ok(store) => {
                    if self.is_lost(id) {
                        return store.stop();
                    }
                    tokio::spawn(self.scene.clone().follow(id, store.clone()));
                    self.set(id, State::Runs(store.clone()));
                    self.trace.tell(|| format!("member {id} starts"));
                    tokio::spawn(self.clone().see_off(store));
                    return;
                }
                Err(error) if disk.is_impaired() => {
                    self.trace.tell(|| format!("member {id} can't start on its disk: {error}"));
                    self.replace_disk(id);
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                Err(error) => {
                    self.set(id, State::Stopped);
                    return self.trace.violation(format!("member {id} does not start: {error}"));
                }
            }
        }
    }

    async fn try_start(&self, id: MemberId, disk: SimDisk) -> Result<Arc<RaftStore>, Error> {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        // Small segments, so that a run has several of them.
        let mut options =
            MemberDirOptions { disk: disk.clone(), segment_bytes: 16 << 10, ..MemberDirOptions::default() };
        if self.engine_on_disk {
            options.engine = Arc::new(move |dir, _| {
                Ok(Arc::new(SegmentEngine::open(dir, disk.clone(), SegmentOptions::default())?))
            });
        }
        let (clock, joined) = {
            let hosts = self.hosts.lock();
            (hosts[&id].clock.clone(), hosts[&id].joined)
        };
        let dir = MemberDir::open("member", options).await?;
        match dir.identity() {
            Some(_) => {}
            None if joined => dir.join(Identity { cluster_id: self.membership.cluster_id, member_id: id }).await?,
            None => dir.bootstrap(id, self.membership.clone(), None).await?,
        }
        let packets = self.network.connect(id);
        let transport = Arc::new(self.network.clone());
        let start = Start { id, log: Box::new(dir.clone()), states: Arc::new(dir), transport, packets };
        let store = RaftStore::start(start, RaftOptions { clock, ..self.options.clone() }).await?;
        if joined {
            tokio::spawn(keep_published(&store, id.to_string(), vec![format!("http://{id}")]));
        }
        Ok(Arc::new(store))
    }

    /// Waits until a member ends by itself because it was removed.
    async fn see_off(self: Arc<Self>, store: Arc<RaftStore>) {
        let Some(reason) = store.stopped().await.filter(is_removed) else { return };
        let id = store.id();
        if let Some(host) = self.hosts.lock().get_mut(&id)
            && matches!(&host.state, State::Runs(current) if Arc::ptr_eq(current, &store))
        {
            if !host.unwanted {
                self.trace.violation(format!("member {id} ends though nobody has removed it: {reason}"));
            }
            host.state = State::Left;
            self.scene.leave(id);
            self.network.disconnect(id);
        }
        self.trace.tell(|| format!("member {id} has left"));
    }

    /// A member's disk.
    pub(crate) fn disk(&self, id: MemberId) -> SimDisk {
        self.hosts.lock()[&id].disk.clone()
    }

    /// Leaves a member what of its disk survives a power cut.
    fn replace_disk(&self, id: MemberId) {
        if let Some(host) = self.hosts.lock().get_mut(&id) {
            host.disk = host.disk.cut_power();
        }
    }

    /// Stops a member as a power cut would.
    pub(crate) fn crash(&self, id: MemberId) {
        if let Some(member) = self.member(id) {
            self.network.disconnect(id);
            self.replace_disk(id);
            self.set(id, State::Stopped);
            member.stop();
            self.trace.tell(|| format!("member {id} crashes"));
        }
    }

    /// Stops a member for good.
    pub(crate) fn lose(&self, id: MemberId) {
        self.crash(id);
        self.set(id, State::Lost);
        self.trace.tell(|| format!("member {id} is lost"));
    }

    fn is_lost(&self, id: MemberId) -> bool {
        self.hosts.lock().get(&id).is_none_or(|host| matches!(host.state, State::Lost))
    }

    /// Notes that a member's removal is asked for.
    pub(crate) fn note_removal(&self, id: MemberId) {
        if let Some(host) = self.hosts.lock().get_mut(&id) {
            host.unwanted = true;
        }
    }

    /// Whether a member has ended, as it was removed.
    pub(crate) fn has_left(&self, id: MemberId) -> bool {
        self.hosts.lock().get(&id).is_some_and(|host| matches!(host.state, State::Left))
    }

    /// Members that are no part of the group any more, and not lost.
    pub(crate) fn former(&self, members: &BTreeMap<MemberId, bool>) -> Vec<MemberId> {
        let hosts = self.hosts.lock();
        let former = hosts.iter().filter(|(id, host)| !members.contains_key(id) && !matches!(host.state, State::Lost));
        former.map(|(id, _)| *id).collect()
    }
}
