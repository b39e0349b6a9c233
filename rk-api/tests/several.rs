//! Several servers on one store: what one of them wrote the others know of, and no two give the same to different objects.
#![cfg(feature = "server")]

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, future::join_all};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Endpoints, Namespace, Pod, ResourceQuota, Service},
    discovery::v1::EndpointSlice,
};
use rk_api::{
    Api, Client, DeleteOptions, Error, ListOptions, WriteOptions,
    server::{
        Server, UserInfo,
        bootstrap::{ApiServer, Config, ensure, keep_endpoints},
        kinds::service::{Ranges, strategy},
        plugins,
    },
};
use rk_store::{
    Alarm, HashKv, Lease, LeaseId, MemoryStore, RangeRequest, RangeResponse, Revision, SnapshotStream, Store,
    StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// A store whose watches come late, as those of a member do that is behind the others. Reads and writes are linearizable.
#[derive(Debug)]
struct Late(Arc<MemoryStore>);

const LATE: Duration = Duration::from_millis(5);

type Stored<T> = Result<T, rk_store::Error>;

#[async_trait]
impl Store for Late {
    async fn range(&self, request: RangeRequest) -> Stored<RangeResponse> {
        self.0.range(request).await
    }

    async fn txn(&self, txn: Txn) -> Stored<TxnResponse> {
        self.0.txn(txn).await
    }

    async fn watch(&self, request: WatchRequest) -> Stored<WatchStream> {
        let batches = self.0.watch(request).await?;
        let progress = batches.progress_request();
        let late = batches.ready_chunks(1000).then(|batches| async {
            tokio::time::sleep(LATE).await;
            futures::stream::iter(batches)
        });
        Ok(WatchStream::new(late.flatten(), progress))
    }

    async fn compact(&self, revision: Revision) -> Stored<()> {
        self.0.compact(revision).await
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Stored<Lease> {
        self.0.lease_grant(id, ttl).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Stored<()> {
        self.0.lease_revoke(id).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Stored<Lease> {
        self.0.lease_keep_alive(id).await
    }

    async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Stored<Lease> {
        self.0.lease_time_to_live(id, keys).await
    }

    async fn leases(&self) -> Stored<Vec<LeaseId>> {
        self.0.leases().await
    }

    async fn hash_kv(&self, revision: Revision) -> Stored<HashKv> {
        self.0.hash_kv(revision).await
    }

    async fn snapshot(&self) -> Stored<SnapshotStream> {
        self.0.snapshot().await
    }

    async fn alarms(&self) -> Stored<Vec<Alarm>> {
        self.0.alarms().await
    }

    async fn activate_alarm(&self, alarm: Alarm) -> Stored<()> {
        self.0.activate_alarm(alarm).await
    }

    async fn deactivate_alarm(&self, alarm: Alarm) -> Stored<()> {
        self.0.deactivate_alarm(alarm).await
    }

    async fn defragment(&self) -> Stored<()> {
        self.0.defragment().await
    }

    async fn status(&self) -> Stored<StoreStatus> {
        self.0.status().await
    }
}

/// Servers on one store; Services have these ranges.
async fn servers(count: u64, bits: u8, node_ports: std::ops::RangeInclusive<u16>) -> Vec<Server> {
    let store = Arc::new(MemoryStore::new());
    let mut servers = Vec::new();
    for seed in 0..count {
        let ranges =
            Ranges { cluster_ips: format!("10.0.0.0/{bits}").parse().unwrap(), node_ports: node_ports.clone(), seed };
        let builder = Server::builder(Arc::new(Late(Arc::clone(&store)))).strategy("", "Service", strategy(ranges));
        let builder = plugins::default_chain().into_iter().fold(builder, |builder, plugin| builder.admission(plugin));
        servers.push(builder.build().await.unwrap());
    }
    ensure(&*servers[0].client(UserInfo::loopback()), &Config::default()).await.unwrap();
    servers
}

fn client(server: &Server) -> Arc<dyn Client> {
    server.client(UserInfo::loopback())
}

fn config_map(value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"k": value}})).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_one_server_acknowledged_every_other_shows() {
    let servers = servers(2, 24, 30_000..=30_010).await;
    let [a, b] = [0, 1].map(|i| Api::<ConfigMap>::namespaced(client(&servers[i]), "default"));
    let made = a.create(&config_map("1")).await.unwrap();
    assert_eq!(b.get("a").await.unwrap().metadata, made.metadata);
    let listed = b.list(ListOptions::default()).await.unwrap();
    assert!(listed.items.iter().any(|item| item.metadata == made.metadata));

    // One server's view is that of a moment ago: it must not take it for what is stored.
    a.update(&config_map("2")).await.unwrap();
    b.update(&config_map("1")).await.unwrap();
    assert_eq!(a.get("a").await.unwrap().data.as_ref().unwrap()["k"], "1", "a change back is a change");
    a.delete("a", DeleteOptions::default()).await.unwrap();
    let again = b.create(&config_map("3")).await.unwrap();
    assert_ne!(again.metadata.uid, made.metadata.uid);
    assert!(a.create(&config_map("4")).await.unwrap_err().is_already_exists());
}

#[tokio::test(start_paused = true)]
async fn admission_finds_what_another_server_has_just_made() {
    let servers = servers(2, 24, 30_000..=30_010).await;
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "new"}})).unwrap();
    Api::<Namespace>::all(client(&servers[0])).create(&namespace).await.unwrap();
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    let accounts = Api::<k8s_openapi::api::core::v1::ServiceAccount>::namespaced(client(&servers[0]), "new");
    accounts.create(&account).await.unwrap();
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .unwrap();
    Api::<Pod>::namespaced(client(&servers[1]), "new").create(&pod).await.unwrap();
}

fn service(name: &str) -> Service {
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

fn held(service: &Service) -> (String, i32) {
    let spec = service.spec.as_ref().unwrap();
    (spec.cluster_ip.clone().unwrap(), spec.ports.as_ref().unwrap()[0].node_port.unwrap())
}

#[tokio::test(start_paused = true)]
async fn servers_never_give_the_same_address_or_port_to_two_services() {
    // 13 addresses may be given out and 13 ports, to 30 who ask for one at three servers at once.
    let servers = servers(3, 28, 30_000..=30_012).await;
    let all: Vec<_> = servers.iter().map(|server| Api::<Service>::namespaced(client(server), "default")).collect();
    let create = |i: usize| {
        let api = all[i % 3].clone();
        async move { api.create(&service(&format!("s{i}"))).await }
    };
    let made: Vec<_> = join_all((0..30).map(create)).await;
    let (made, refused): (Vec<_>, Vec<Result<_, Error>>) = made.into_iter().partition(Result::is_ok);
    let made: Vec<_> = made.into_iter().flatten().collect();
    assert_eq!(made.len(), 13, "{refused:?}");
    assert!(refused.iter().all(|error| error.as_ref().unwrap_err().to_string().contains("range is full")));
    let (ips, ports): (BTreeSet<_>, BTreeSet<_>) = made.iter().map(|service| held(service)).unzip();
    assert_eq!((ips.len(), ports.len()), (13, 13));

    // What is given back can be had again, at another server, and by name.
    let (ip, port) = held(&made[0]);
    all[1].delete(made[0].metadata.name.as_deref().unwrap(), DeleteOptions::default()).await.unwrap();
    let mut wanted = service("again");
    let spec = wanted.spec.as_mut().unwrap();
    spec.cluster_ip = Some(ip.clone());
    spec.ports.as_mut().unwrap()[0].node_port = Some(port);
    assert_eq!(held(&all[2].create(&wanted).await.unwrap()), (ip, port));
    wanted.metadata.name = Some("taken".to_owned());
    assert!(all[0].create(&wanted).await.unwrap_err().to_string().contains("already allocated"));

    // A change of type gives the port back; asking for one again takes one.
    let mut plain = (*all[0].get("again").await.unwrap()).clone();
    plain.spec.as_mut().unwrap().type_ = Some("ClusterIP".to_owned());
    plain.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].node_port = None;
    all[0].update(&plain).await.unwrap();
    let mut back = (*all[1].get("again").await.unwrap()).clone();
    back.spec.as_mut().unwrap().type_ = Some("NodePort".to_owned());
    assert_eq!(held(&all[1].update(&back).await.unwrap()).1, port, "the only one that is free");
}

#[tokio::test(start_paused = true)]
async fn the_endpoints_are_the_servers_that_live() {
    let servers = servers(3, 24, 30_000..=30_010).await;
    let address = |i: u8| IpAddr::from([127, 9, 0, i + 1]);
    let own = move |i: u8| ApiServer {
        addresses: vec![address(i)],
        port: 6443,
        service_port: 443,
        cluster_ip: [10, 0, 0, 1].into(),
    };
    let stop = CancellationToken::new();
    let kept: Vec<_> = (0..3)
        .map(|i| {
            let (server, stop) = (servers[usize::from(i)].clone(), stop.child_token());
            let task = tokio::spawn({
                let stop = stop.clone();
                async move { keep_endpoints(&server, &own(i), stop).await }
            });
            (task, stop)
        })
        .collect();
    let endpoints = Api::<Endpoints>::namespaced(client(&servers[0]), "default");
    let shown = async || {
        let Ok(found) = endpoints.get("kubernetes").await else { return Vec::new() };
        let addresses = found.subsets.iter().flatten().flat_map(|subset| subset.addresses.iter().flatten());
        addresses.map(|address| address.ip.parse::<IpAddr>().unwrap()).collect()
    };
    let within = async |seconds: u64, wanted: &[IpAddr]| {
        let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
        while shown().await != wanted {
            assert!(tokio::time::Instant::now() < end, "{:?} are no {wanted:?}", shown().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within(3, &[address(0), address(1), address(2)]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(shown().await.len(), 3, "who renews stays");
    let service = Api::<Service>::namespaced(client(&servers[0]), "default").get("kubernetes").await.unwrap();
    assert_eq!(service.spec.as_ref().unwrap().cluster_ip.as_deref(), Some("10.0.0.1"));

    // One dies, one ends.
    kept[1].0.abort();
    within(20, &[address(0), address(2)]).await;
    kept[2].1.cancel();
    within(2, &[address(0)]).await;
    let slices = Api::<EndpointSlice>::namespaced(client(&servers[0]), "default");
    assert_eq!(slices.get("kubernetes").await.unwrap().endpoints.as_ref().map(Vec::len), Some(1));
    stop.cancel();
}

fn used(quota: &ResourceQuota, name: &str) -> String {
    quota.status.as_ref().unwrap().used.as_ref().unwrap()[name].0.clone()
}

#[tokio::test(start_paused = true)]
async fn servers_never_let_more_through_than_a_quota_has_room_for() {
    for count in [1, 3] {
        let servers = servers(count, 24, 30_000..=30_100).await;
        let quotas = Api::<ResourceQuota>::namespaced(client(&servers[0]), "default");
        let hard = [
            ("maps", json!({"configmaps": "7"})),
            ("all", json!({"count/configmaps": "100", "services.nodeports": "3"})),
        ];
        for (name, hard) in hard {
            let quota = json!({"metadata": {"name": name}, "spec": {"hard": hard}});
            quotas.create(&serde_json::from_value(quota).unwrap()).await.unwrap();
        }
        let maps = |i: usize| Api::<ConfigMap>::namespaced(client(&servers[i % servers.len()]), "default");
        let named = |i: usize| {
            let mut map = config_map("1");
            map.metadata.name = Some(format!("m{i}"));
            map
        };
        let made = join_all((0..30).map(|i| async move { maps(i).create(&named(i)).await })).await;
        let (made, refused): (Vec<_>, Vec<Result<_, Error>>) = made.into_iter().partition(Result::is_ok);
        assert_eq!(made.len(), 7, "{count} servers: {refused:?}");
        let why = "exceeded quota: maps, requested: configmaps=1, used: configmaps=7, limited: configmaps=7";
        assert!(refused.iter().all(|error| error.as_ref().unwrap_err().to_string().ends_with(why)), "{refused:?}");
        assert_eq!(used(&quotas.get("maps").await.unwrap(), "configmaps"), "7");
        assert_eq!(used(&quotas.get("all").await.unwrap(), "count/configmaps"), "7");

        // What goes at one server makes room at every other one, at once; a dry run takes nothing.
        let gone = made[0].as_ref().unwrap().metadata.name.clone().unwrap();
        maps(0).delete(&gone, DeleteOptions::default()).await.unwrap();
        let trial = WriteOptions { dry_run: true, ..WriteOptions::default() };
        maps(1).with_options(trial).create(&named(40)).await.unwrap();
        maps(1).create(&named(41)).await.unwrap();
        assert!(maps(2).create(&named(42)).await.unwrap_err().is_forbidden());

        // Changes count what they add.
        let services = |i: usize| Api::<Service>::namespaced(client(&servers[i % servers.len()]), "default");
        for i in 0..6 {
            let mut plain = service(&format!("s{i}"));
            plain.spec.as_mut().unwrap().type_ = Some("ClusterIP".to_owned());
            services(i).create(&plain).await.unwrap();
        }
        let expose = rk_api::Patch::merge(json!({"spec": {"type": "NodePort"}}));
        let patched = join_all((0..6).map(|i| {
            let expose = expose.clone();
            async move { services(i).patch(&format!("s{i}"), expose).await }
        }));
        assert_eq!(patched.await.iter().filter(|patched| patched.is_ok()).count(), 3);
        assert_eq!(used(&quotas.get("all").await.unwrap(), "services.nodeports"), "3");
    }
}

#[tokio::test(start_paused = true)]
async fn creates_under_a_quota_do_not_wait_for_each_other() {
    for count in [1, 3] {
        let servers = servers(count, 24, 30_000..=30_100).await;
        let quotas = Api::<ResourceQuota>::namespaced(client(&servers[0]), "default");
        let quota = json!({"metadata": {"name": "maps"}, "spec": {"hard": {"configmaps": "300"}}});
        quotas.create(&serde_json::from_value(quota).unwrap()).await.unwrap();
        let begun = tokio::time::Instant::now();
        let made = join_all((0..400).map(|i| {
            let maps = Api::<ConfigMap>::namespaced(client(&servers[i % servers.len()]), "default");
            let mut map = config_map("1");
            // Some names are wanted by two.
            map.metadata.name = Some(format!("m{}", if i % 40 == 39 { i - 1 } else { i }));
            async move { maps.create(&map).await }
        }));
        let (made, refused): (Vec<_>, Vec<_>) = made.await.into_iter().partition(Result::is_ok);
        let took = begun.elapsed();
        let full = refused.iter().filter(|refused| refused.as_ref().unwrap_err().is_forbidden()).count();
        let taken = refused.iter().filter(|refused| refused.as_ref().unwrap_err().is_already_exists()).count();
        assert_eq!((made.len(), full + taken), (300, 100), "{count} servers: {refused:?}");
        let there = Api::<ConfigMap>::namespaced(client(&servers[0]), "default").list(ListOptions::default()).await;
        assert_eq!(there.unwrap().items.len(), 300);
        assert_eq!(used(&quotas.get("maps").await.unwrap(), "configmaps"), "300");
        // One after the other would take 300 times as long as a watch is late.
        assert!(took < 60 * LATE, "{count} servers: {took:?}");
    }
}
