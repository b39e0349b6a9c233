//! Groups over gRPC on loopback, with their logs on disk.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use rk_raft::{Initial, MemberConfig, MemberId, PeerListener, PeerTls, RaftOptions, RaftStore};
use rk_store::{Cluster, Error, KeyRange, RangeRequest, RangeResponse, Store, TlsRules};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// Where a member was, so that it can be started there again.
#[derive(Clone)]
struct Place {
    dir: PathBuf,
    name: String,
    port: u16,
}

struct Group {
    home: TempDir,
    places: BTreeMap<MemberId, Place>,
    running: BTreeMap<MemberId, Arc<RaftStore>>,
    first: Vec<(String, Vec<String>)>,
    tls: Option<PeerTls>,
}

fn options() -> RaftOptions {
    let mut options = RaftOptions::default();
    options.tick = Duration::from_millis(20);
    (options.snapshot_entries, options.catch_up_entries) = (200, 100);
    options
}

async fn listen(port: u16) -> PeerListener {
    // The one before it may not have given the port up yet.
    for _ in 0..200 {
        match PeerListener::bind(&[([127, 0, 0, 1], port).into()]).await {
            Ok(listener) => return listener,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("port {port} stays in use");
}

impl Group {
    async fn new(size: usize, tls: Option<PeerTls>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut listeners = Vec::new();
        for _ in 0..size {
            listeners.push(listen(0).await);
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = |listener: &PeerListener| format!("{scheme}://{}", listener.addresses()[0]);
        let first = (0..).zip(&listeners).map(|(i, listener)| (format!("m{i}"), vec![url(listener)])).collect();
        let (places, running) = Default::default();
        let mut group = Self { home, places, running, first, tls };
        for (i, listener) in listeners.into_iter().enumerate() {
            let place = Place {
                dir: group.home.path().join(format!("m{i}")),
                name: format!("m{i}"),
                port: listener.addresses()[0].port(),
            };
            let store = group.open(&place, listener, group.initial()).await.unwrap();
            group.places.insert(store.id(), place);
            group.running.insert(store.id(), store);
        }
        group
    }

    fn initial(&self) -> Initial {
        Initial::New { members: self.first.clone(), token: "test".into(), backup: None }
    }

    fn url(&self, port: u16) -> String {
        format!("{}://127.0.0.1:{port}", if self.tls.is_some() { "https" } else { "http" })
    }

    async fn open(&self, place: &Place, listener: PeerListener, initial: Initial) -> Result<Arc<RaftStore>, Error> {
        let urls = vec![self.url(place.port)];
        let mut config = MemberConfig::new(&place.dir, &place.name, urls, listener, initial);
        (config.options, config.tls) = (options(), self.tls.clone());
        config.client_urls = vec![format!("http://client-of-{}:2379", place.name)];
        Ok(Arc::new(RaftStore::open(config).await?))
    }

    fn stop(&mut self, id: MemberId) {
        self.running.remove(&id).unwrap().stop();
    }

    async fn restart(&mut self, id: MemberId) {
        let place = self.places[&id].clone();
        let store = loop {
            match self.open(&place, listen(place.port).await, self.initial()).await {
                // Its last write is still under way.
                Err(Error::InUse { .. }) => sleep(Duration::from_millis(10)).await,
                opened => break opened.unwrap(),
            }
        };
        self.running.insert(id, store);
    }

    /// Adds a member and starts it.
    async fn join(&mut self, name: &str, learner: bool) -> Arc<RaftStore> {
        let listener = listen(0).await;
        let place = Place { dir: self.home.path().join(name), name: name.into(), port: listener.addresses()[0].port() };
        let leader = self.leader().await;
        let url = self.url(place.port);
        let (member, _) = retry(async || leader.member_add(vec![url.clone()], learner).await).await;
        let peers = self.places.values().map(|place| self.url(place.port)).collect();
        let store = self.open(&place, listener, Initial::Join { peers }).await.unwrap();
        assert_eq!(store.id(), member.id);
        self.places.insert(member.id, place);
        self.running.insert(member.id, store.clone());
        store
    }

    async fn leader(&self) -> Arc<RaftStore> {
        for _ in 0..1000 {
            for store in self.running.values() {
                if let Some(leader) = store.leader().and_then(|id| self.running.get(&id))
                    && leader.leader() == Some(leader.id())
                {
                    return leader.clone();
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody leads");
    }
}

/// Repeats what the group may refuse for a while: it has not seen enough of its members yet.
async fn retry<T, E: std::fmt::Display>(mut what: impl AsyncFnMut() -> Result<T, E>) -> T {
    let mut last = String::new();
    for _ in 0..100 {
        match what().await {
            Ok(done) => return done,
            Err(error) => last = error.to_string(),
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{last}");
}

async fn fill(store: &Arc<RaftStore>, from: usize, to: usize) {
    for i in from..to {
        store.put(format!("key-{}", i % 37).into(), format!("{i} ").repeat(100).into()).await.unwrap();
    }
}

async fn all(store: &Arc<RaftStore>) -> RangeResponse {
    store.range(RangeRequest::new(KeyRange::all())).await.unwrap()
}

/// A certificate, its key and its authority, all new.
fn certificates() -> [Vec<u8>; 3] {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let own = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&own, &issuer).unwrap();
    [certificate.pem(), own.serialize_pem(), authority.pem()].map(String::into_bytes)
}

fn some_tls() -> PeerTls {
    let [certificate, key, authority] = certificates();
    PeerTls::new(certificate, key, authority).unwrap()
}

/// A member of a new group of three, through which a store's contract is checked; the group lives as long as the test's runtime.
async fn member(leads: bool) -> Arc<dyn Store> {
    let group = Group::new(3, None).await;
    let leader = group.leader().await;
    let member = group.running.values().find(|member| (member.id() == leader.id()) == leads).unwrap().clone();
    tokio::spawn(async move {
        let _group = group;
        std::future::pending::<()>().await;
    });
    member
}

mod contract {
    rk_store::store_conformance!(of_the_leader, crate::member(true).await);
    rk_store::store_conformance!(of_a_follower, crate::member(false).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_lost_and_all_are_lost_and_nothing_is_lost() {
    let mut group = Group::new(3, None).await;
    let ids: Vec<_> = group.running.keys().copied().collect();
    fill(&group.leader().await, 0, 100).await;
    for round in 1..4 {
        let leader = group.leader().await.id();
        group.stop(leader);
        let next = group.leader().await;
        fill(&next, round * 100, round * 100 + 50).await;
        group.restart(leader).await;
    }
    let before = all(&group.leader().await).await;
    ids.iter().for_each(|id| group.stop(*id));
    for id in &ids {
        group.restart(*id).await;
    }
    for id in &ids {
        assert_eq!(all(&group.running[id]).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_down_catches_up_by_the_log_and_by_a_state() {
    let mut group = Group::new(3, None).await;
    let down = group.leader().await.id();
    for entries in [20, 1000] {
        group.stop(down);
        let leader = group.leader().await;
        fill(&leader, 0, entries).await;
        group.restart(down).await;
        let back = group.running[&down].clone();
        assert_eq!(all(&back).await, all(&leader).await);
        group.stop(down);
        group.restart(down).await;
        assert_eq!(all(&group.running[&down]).await, all(&leader).await, "it starts from what it was sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_over_tls() {
    let mut group = Group::new(1, Some(some_tls())).await;
    fill(&group.leader().await, 0, 300).await;
    let learner = group.join("learner", true).await;
    assert_eq!(all(&learner).await, all(&group.leader().await).await);
    let leader = group.leader().await;
    retry(async || leader.member_promote(learner.id()).await).await;
    let third = group.join("third", false).await;
    let members = retry(async || {
        let members = third.members(true).await.map_err(|error| error.to_string())?;
        let known = members.iter().all(|member| !member.name.is_empty() && !member.client_urls.is_empty());
        if known { Ok(members) } else { Err(format!("{members:?}")) }
    })
    .await;
    assert_eq!(members.len(), 3);
    // The leader hands over before it goes.
    let first = group.leader().await;
    retry(async || first.move_leader(third.id()).await).await;
    assert_eq!(group.leader().await.id(), third.id());
    retry(async || third.member_remove(third.id()).await).await;
    let reason = timeout(Duration::from_secs(20), third.stopped()).await.unwrap().unwrap();
    assert!(reason.to_string().contains("removed"), "{reason}");
    group.stop(third.id());
    fill(&group.leader().await, 300, 320).await;
    // One that was removed is told so, and does not come back.
    drop(third);
    let removed = members.iter().find(|member| !group.running.contains_key(&member.id)).unwrap().id;
    group.restart(removed).await;
    let reason = timeout(Duration::from_secs(20), group.running[&removed].stopped()).await.unwrap().unwrap();
    assert!(reason.to_string().contains("removed"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_belong_is_refused() {
    let group = Group::new(3, None).await;
    let leader = group.leader().await;
    leader.put("a".into(), "1".into()).await.unwrap();
    retry(async || {
        let members = leader.members(true).await.map_err(|error| error.to_string())?;
        if members.iter().all(|member| !member.client_urls.is_empty()) { Ok(()) } else { Err("unnamed".to_owned()) }
    })
    .await;
    // A first member that has lost its data must not begin anew.
    let (id, place) = group.places.iter().next().unwrap();
    let empty = Place { dir: group.home.path().join("empty"), ..place.clone() };
    let refused = group.open(&empty, listen(0).await, group.initial()).await.unwrap_err();
    assert!(refused.to_string().contains("has been started before"), "{refused}");
    // One that nobody was told of.
    let stranger = Place { dir: group.home.path().join("stranger"), name: "stranger".into(), port: 1 };
    let peers = vec![group.url(place.port)];
    let refused = group.open(&stranger, listen(0).await, Initial::Join { peers }).await.unwrap_err();
    assert!(refused.to_string().contains("was not told of a member"), "{refused}");
    // A directory that is in use.
    let refused = group.open(place, listen(0).await, group.initial()).await.unwrap_err();
    assert!(matches!(refused, Error::InUse { .. }), "{id}: {refused}");
    // A member of another group at a member's address gets nobody's ear, and gets none of this group's data.
    let listener = listen(0).await;
    let url = format!("http://{}", listener.addresses()[0]);
    let mut members = group.first.clone();
    members[0] = ("m0".into(), vec![url.clone()]);
    let other = Initial::New { members, token: "other".into(), backup: None };
    let mut config = MemberConfig::new(group.home.path().join("other"), "m0", vec![url], listener, other);
    config.options = options();
    let other = RaftStore::open(config).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(other.leader(), None);
    assert_eq!(all(&group.leader().await).await.count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_while_members_run() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["certificate", "key", "authority"].map(|name| dir.path().join(name));
    let replace = || {
        for (path, pem) in paths.iter().zip(certificates()) {
            std::fs::write(path.with_extension("new"), pem).unwrap();
            std::fs::rename(path.with_extension("new"), path).unwrap();
        }
    };
    replace();
    let [certificate, key, authority] = paths.clone();
    let mut group =
        Group::new(3, Some(PeerTls::from_files(certificate, key, authority, TlsRules::default()).unwrap())).await;
    fill(&group.leader().await, 0, 10).await;
    // Of another authority, so whoever still shows or trusts what was there before reaches nobody.
    replace();
    let leader = group.leader().await.id();
    group.stop(leader);
    group.restart(leader).await;
    let restarted = group.running[&leader].clone();
    retry(async || restarted.put("through".into(), "it".into()).await).await;
    let others: Vec<_> = group.running.keys().copied().filter(|id| *id != leader).collect();
    group.stop(others[0]);
    retry(async || restarted.put("with".into(), "one other".into()).await).await;
    // What is of no use changes nothing.
    std::fs::write(&paths[0], "no certificate").unwrap();
    group.restart(others[0]).await;
    fill(&group.leader().await, 10, 20).await;
}
