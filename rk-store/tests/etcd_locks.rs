//! The Lock and Election services, beside those of the real etcd: the same requests have the same answers.

mod peer;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use rk_store::{
    MemoryStore,
    etcd::proto::{
        etcdserverpb::{self as pb, kv_client::KvClient, lease_client::LeaseClient},
        v3electionpb::{self as epb, LeaderKey, election_client::ElectionClient},
        v3lockpb::{LockRequest, UnlockRequest, lock_client::LockClient},
    },
};
use tokio::task::JoinHandle;
use tonic::{Status, transport::Channel};

/// A server, and what it has answered so far.
struct Session {
    channel: Channel,
    told: Vec<String>,
}

const PATIENCE: Duration = Duration::from_secs(20);

fn text<T>(answer: Result<T, Status>, tell: impl FnOnce(T) -> String) -> String {
    match answer {
        Ok(answer) => tell(answer),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

fn show(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn revision(header: Option<pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

fn told_of(leader: epb::LeaderResponse) -> String {
    let kv = leader.kv.unwrap_or_default();
    let (key, value, lease) = (show(&kv.key), show(&kv.value), kv.lease);
    format!("{key}={value}, lease {lease:x}, mod {}, at {}", kv.mod_revision, revision(leader.header))
}

impl Session {
    /// Notes an answer.
    async fn tell(&mut self, what: &str, answer: impl Future<Output = String>) {
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| "no answer".into());
        self.told.push(format!("{what}: {answer}"));
    }

    async fn ended(&mut self, what: &str, answer: JoinHandle<String>) {
        self.tell(what, async { answer.await.expect("it does not panic") }).await;
    }

    async fn grant(&self, id: i64) {
        let request = pb::LeaseGrantRequest { id, ttl: 600 };
        LeaseClient::new(self.channel.clone()).lease_grant(request).await.expect("a lease");
    }

    async fn revoke(&self, id: i64) {
        LeaseClient::new(self.channel.clone()).lease_revoke(pb::LeaseRevokeRequest { id }).await.expect("a lease");
    }

    /// Waits until a key is there, or is not.
    async fn wait_for(&self, key: &'static str, there: bool) {
        let mut kv = KvClient::new(self.channel.clone());
        let found = async {
            let request = pb::RangeRequest { key: key.into(), ..Default::default() };
            while (kv.range(request.clone()).await.expect("an answer").into_inner().count > 0) != there {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{key} is there: {}", !there));
    }

    fn lock(&self, name: &'static str, lease: i64) -> impl Future<Output = String> + Send + 'static {
        let mut client = LockClient::new(self.channel.clone());
        async move {
            let answer = client.lock(LockRequest { name: name.into(), lease }).await;
            // A lock with a lease of its own has a key that nobody can foresee.
            let key = |key| if lease == 0 { format!("{} bytes", show(&key).len().min(3)) } else { show(&key) };
            text(answer.map(tonic::Response::into_inner), |answer| {
                format!("{} at {}", key(answer.key), revision(answer.header))
            })
        }
    }

    fn unlock(&self, key: &'static str) -> impl Future<Output = String> + use<> {
        let mut client = LockClient::new(self.channel.clone());
        async move {
            let answer = client.unlock(UnlockRequest { key: key.into() }).await;
            text(answer, |answer| format!("at {}", revision(answer.into_inner().header)))
        }
    }

    fn campaign(
        &self,
        name: &'static str,
        lease: i64,
        value: &'static str,
    ) -> impl Future<Output = String> + Send + 'static {
        let mut client = ElectionClient::new(self.channel.clone());
        async move {
            let answer = client.campaign(epb::CampaignRequest { name: name.into(), lease, value: value.into() }).await;
            text(answer.map(tonic::Response::into_inner), |answer| {
                let leader = answer.leader.unwrap_or_default();
                let (name, key, lease) = (show(&leader.name), show(&leader.key), leader.lease);
                format!("{name}, {key}, rev {}, lease {lease:x}, at {}", leader.rev, revision(answer.header))
            })
        }
    }

    fn proclaim(&self, leader: Option<LeaderKey>, value: &'static str) -> impl Future<Output = String> + use<> {
        let mut client = ElectionClient::new(self.channel.clone());
        async move {
            let answer = client.proclaim(epb::ProclaimRequest { leader, value: value.into() }).await;
            text(answer, |answer| format!("at {}", revision(answer.into_inner().header)))
        }
    }

    fn resign(&self, leader: Option<LeaderKey>) -> impl Future<Output = String> + use<> {
        let mut client = ElectionClient::new(self.channel.clone());
        async move {
            let answer = client.resign(epb::ResignRequest { leader }).await;
            text(answer, |answer| format!("at {}", revision(answer.into_inner().header)))
        }
    }

    fn leader(&self, name: &'static str) -> impl Future<Output = String> + use<> {
        let mut client = ElectionClient::new(self.channel.clone());
        async move {
            text(client.leader(epb::LeaderRequest { name: name.into() }).await, |answer| told_of(answer.into_inner()))
        }
    }
}

fn leader_key(key: &'static str, rev: i64, lease: i64) -> Option<LeaderKey> {
    Some(LeaderKey { name: "e".into(), key: key.into(), rev, lease })
}

async fn locks(session: &mut Session) {
    for id in [0x11, 0x12, 0x13] {
        session.grant(id).await;
    }
    session.tell("lock", session.lock("l", 0x11)).await;
    session.tell("lock once more", session.lock("l", 0x11)).await;
    let second = tokio::spawn(session.lock("l", 0x12));
    session.wait_for("l/12", true).await;
    let third = tokio::spawn(session.lock("l", 0x13));
    session.wait_for("l/13", true).await;
    session.tell("unlock", session.unlock("l/11")).await;
    session.ended("the second", second).await;
    session.tell("unlock once more", session.unlock("l/11")).await;
    session.revoke(0x12).await;
    session.ended("the third, once the second's lease is gone", third).await;
    session.tell("unlock the third", session.unlock("l/13")).await;
    session.tell("an unknown lease", session.lock("l", 0x99)).await;
    session.tell("no name", session.lock("", 0x13)).await;
    session.tell("unlock no key", session.unlock("")).await;
    session.tell("unlock what is no lock", session.unlock("nothing")).await;
    session.tell("a lease of its own", session.lock("own", 0)).await;
}

/// Whoever waits loses its lease, and then those before it leave.
async fn lease_ends_while_waiting(session: &mut Session) {
    for id in [0x11, 0x12, 0x13, 0x14] {
        session.grant(id).await;
    }
    session.tell("lock", session.lock("l", 0x11)).await;
    let waiting = tokio::spawn(session.lock("l", 0x12));
    session.wait_for("l/12", true).await;
    session.revoke(0x12).await;
    session.wait_for("l/12", false).await;
    session.tell("unlock", session.unlock("l/11")).await;
    session.ended("the one without a lease", waiting).await;
    session.tell("campaign", session.campaign("e", 0x13, "one")).await;
    let waiting = tokio::spawn(session.campaign("e", 0x14, "two"));
    session.wait_for("e/14", true).await;
    session.revoke(0x14).await;
    session.wait_for("e/14", false).await;
    session.revoke(0x13).await;
    session.tell("no leader", session.leader("e")).await;
    drop(waiting);
}

async fn elections(session: &mut Session) {
    for id in [0x21, 0x22] {
        session.grant(id).await;
    }
    session.tell("no leader", session.leader("e")).await;
    let mut observer = ElectionClient::new(session.channel.clone());
    // The stream may open with the first announcement.
    let opened = tokio::spawn(async move { observer.observe(epb::LeaderRequest { name: "e".into() }).await });
    session.tell("campaign", session.campaign("e", 0x21, "one")).await;
    session.tell("leader", session.leader("e")).await;
    let mut announced = opened.await.expect("no panic").expect("a stream").into_inner();
    let mut next = async |session: &mut Session, what| {
        let message = async { text(announced.message().await, |leader| told_of(leader.unwrap_or_default())) };
        session.tell(what, message).await;
    };
    next(session, "observed first").await;
    session.tell("campaign as the leader", session.campaign("e", 0x21, "one")).await;
    session.tell("campaign with another value", session.campaign("e", 0x21, "one again")).await;
    next(session, "observed then").await;
    session.tell("proclaim", session.proclaim(leader_key("e/21", 2, 0x21), "still one")).await;
    next(session, "observed a proclamation").await;
    session.tell("proclaim at another revision", session.proclaim(leader_key("e/21", 3, 0x21), "no")).await;
    session.tell("proclaim elsewhere", session.proclaim(leader_key("e/99", 2, 0x21), "no")).await;
    session.tell("proclaim for nobody", session.proclaim(None, "no")).await;
    let second = tokio::spawn(session.campaign("e", 0x22, "two"));
    session.wait_for("e/22", true).await;
    session.tell("resign at another revision", session.resign(leader_key("e/21", 3, 0x21))).await;
    session.tell("resign", session.resign(leader_key("e/21", 2, 0x21))).await;
    session.ended("the second", second).await;
    next(session, "observed the second").await;
    session.tell("resign once more", session.resign(leader_key("e/21", 2, 0x21))).await;
    session.tell("resign for nobody", session.resign(None)).await;
    session.tell("proclaim after resigning", session.proclaim(leader_key("e/21", 2, 0x21), "no")).await;
    session.tell("leader", session.leader("e")).await;
    session.revoke(0x22).await;
    session.tell("no leader any more", session.leader("e")).await;
    session.tell("an unknown lease", session.campaign("e", 0x99, "x")).await;
    session.tell("campaign once more", session.campaign("e", 0x21, "back")).await;
    next(session, "observed once more").await;
    session.tell("no name", session.campaign("", 0x21, "x")).await;
}

/// Runs the same on both and compares.
async fn compare(run: impl AsyncFn(&mut Session)) {
    if !peer::has("etcd") {
        return;
    }
    let etcd = peer::Etcd::start(&[]).await;
    let own = peer::serve(Arc::new(MemoryStore::new())).await;
    let mut told = Vec::new();
    for url in [etcd.url.clone(), own] {
        let channel = Channel::from_shared(url).expect("a URL").connect().await.expect("a peer");
        let mut session = Session { channel, told: Vec::new() };
        run(&mut session).await;
        told.push(session.told);
    }
    // Before it knew better, etcd gave the lock to whoever had lost its lease while waiting for it.
    let better = |ours: &str| ours.ends_with(": Unknown: mutex: session is expired");
    let differ = told[0].iter().zip(&told[1]).filter(|(theirs, ours)| theirs != ours && !better(ours));
    let differ: Vec<_> = differ.collect();
    let differ: Vec<_> = differ.iter().map(|(theirs, ours)| format!("etcd  {theirs}\nhere  {ours}")).collect();
    assert!(differ.is_empty(), "\n{}", differ.join("\n"));
    assert_eq!(told[0].len(), told[1].len());
}

#[tokio::test]
async fn locks_are_as_etcds() {
    compare(locks).await;
}

#[tokio::test]
async fn a_lease_that_ends_while_waiting_is_told_as_by_etcd() {
    compare(lease_ends_while_waiting).await;
}

#[tokio::test]
async fn elections_are_as_etcds() {
    compare(elections).await;
}
