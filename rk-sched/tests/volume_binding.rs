//! Claims that wait for a node are bound on the way to it, against the real API server, with a volume controller that does its part.

mod cluster;

use std::{sync::Arc, time::Duration};

use cluster::{Cluster, bound, object, unscheduled};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::{CSINode, StorageClass},
};
use rk_api::{Api, Client, DeleteOptions, ListOptions, Patch};
use rk_sched::{Profile, Registration, Scheduler, SchedulerConfig, plugins::VolumeBinding};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

fn config(profile: Profile) -> SchedulerConfig {
    SchedulerConfig { profiles: vec![profile], seed: Some(1), ..SchedulerConfig::default() }
}

/// The objects that have to do with volumes.
struct Volumes {
    volumes: Api<PersistentVolume>,
    claims: Api<PersistentVolumeClaim>,
    classes: Api<StorageClass>,
}

impl Volumes {
    /// With the class `local`, which waits for its consumer and provides nothing, and `made`, which provides.
    async fn new(client: &Arc<dyn Client>) -> Self {
        let all = Self {
            volumes: Api::all(client.clone()),
            claims: Api::namespaced(client.clone(), "default"),
            classes: Api::all(client.clone()),
        };
        for (name, provisioner) in [("local", "kubernetes.io/no-provisioner"), ("made", "example.com/makes")] {
            let class = json!({
                "metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer",
            });
            all.classes.create(&object(class)).await.unwrap();
        }
        all
    }

    /// An available volume that can be used on one node.
    async fn volume(&self, name: &str, node: &str) {
        let volume = json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                "local": {"path": "/disk"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
                ]}]}},
            },
        });
        self.volumes.create(&object(volume)).await.unwrap();
        let available = json!({"status": {"phase": "Available"}});
        self.volumes.patch_status(name, Patch::merge(available)).await.unwrap();
    }

    async fn claim(&self, name: &str, class: &str) {
        let claim = json!({
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        });
        self.claims.create(&object(claim)).await.unwrap();
    }

    /// The name of the claim that a volume is for.
    async fn holder(&self, volume: &str) -> Option<String> {
        self.volumes.get(volume).await.unwrap().spec.as_ref()?.claim_ref.as_ref()?.name.clone()
    }

    /// Binds claims to the volumes that the scheduler gave them, until dropped.
    fn controller(&self) -> DropGuard {
        let (volumes, claims) = (self.volumes.clone(), self.claims.clone());
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                for volume in volumes.list(ListOptions::default()).await.unwrap().items {
                    let name = volume.metadata.name.clone().unwrap();
                    let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
                    let Some(claim) = claim.and_then(|claim| claim.name.clone()) else { continue };
                    bind(&claims, &claim, &name).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }));
        stop.drop_guard()
    }
}

/// What the volume controller does with a claim that has its volume.
async fn bind(claims: &Api<PersistentVolumeClaim>, claim: &str, volume: &str) {
    let done = json!({
        "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume},
    });
    claims.patch(claim, Patch::merge(done)).await.unwrap();
    claims.patch_status(claim, Patch::merge(json!({"status": {"phase": "Bound"}}))).await.unwrap();
}

fn uses(claim: &str) -> Value {
    json!({"spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}})
}

const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";

#[tokio::test(start_paused = true)]
async fn a_waiting_claim_gets_a_volume_of_the_pods_node() {
    let cluster = Cluster::start(config(Profile::kubernetes("default-scheduler"))).await;
    let volumes = Volumes::new(&cluster.client).await;
    let _controller = volumes.controller();
    for node in ["n1", "n2", "n3"] {
        cluster.node(node, "4", json!({})).await;
    }
    volumes.claim("data", "local").await;
    cluster.pod("p", "1", uses("data")).await;
    let pod = cluster.pod_until("p", |pod| unscheduled(pod).is_some()).await;
    assert!(unscheduled(&pod).unwrap().1.contains(&format!("3 {NO_VOLUME}")), "{pod:?}");
    volumes.volume("disk", "n2").await;
    assert_eq!(cluster.node_of("p").await, "n2");
    let volume = volumes.volumes.get("disk").await.unwrap();
    let claim = volume.spec.as_ref().unwrap().claim_ref.as_ref().unwrap();
    let uid = volumes.claims.get("data").await.unwrap().metadata.uid.clone();
    assert_eq!((claim.kind.as_deref(), &claim.uid), (Some("PersistentVolumeClaim"), &uid));
    assert_eq!(volume.metadata.annotations.as_ref().unwrap()["pv.kubernetes.io/bound-by-controller"], "yes");
    // A second pod of the claim follows its volume.
    cluster.pod("q", "1", uses("data")).await;
    assert_eq!(cluster.node_of("q").await, "n2");
}

#[tokio::test(start_paused = true)]
async fn one_volume_goes_to_one_of_two_pods() {
    let cluster = Cluster::start(config(Profile::kubernetes("default-scheduler"))).await;
    let volumes = Volumes::new(&cluster.client).await;
    let _controller = volumes.controller();
    cluster.node("n", "4", json!({})).await;
    volumes.volume("disk", "n").await;
    volumes.claim("one", "local").await;
    volumes.claim("two", "local").await;
    cluster.pod("one", "1", uses("one")).await;
    cluster.pod("two", "1", uses("two")).await;
    let settled = |pod: &Pod| bound(pod).is_some() || unscheduled(pod).is_some();
    let pods = [cluster.pod_until("one", settled).await, cluster.pod_until("two", settled).await];
    let winners: Vec<bool> = pods.iter().map(|pod| bound(pod).is_some()).collect();
    assert_eq!(winners.iter().filter(|won| **won).count(), 1, "{pods:?}");
    let winner = if winners[0] { "one" } else { "two" };
    assert_eq!(volumes.holder("disk").await.as_deref(), Some(winner));
    // Another volume is for the other one.
    volumes.volume("more", "n").await;
    let loser = if winners[0] { "two" } else { "one" };
    assert_eq!(cluster.node_of(loser).await, "n");
    assert_eq!(volumes.holder("more").await.as_deref(), Some(loser));
    assert_eq!(volumes.holder("disk").await.as_deref(), Some(winner));
}

#[tokio::test(start_paused = true)]
async fn two_schedulers_do_not_give_one_volume_twice() {
    let cluster = Cluster::start(config(Profile::kubernetes("default-scheduler"))).await;
    let stop = CancellationToken::new();
    let other = Scheduler::new(cluster.client.clone(), config(Profile::kubernetes("other"))).unwrap();
    tokio::spawn(other.run(stop.clone()));
    let _stop = stop.drop_guard();
    let volumes = Volumes::new(&cluster.client).await;
    let _controller = volumes.controller();
    cluster.node("n", "64", json!({})).await;
    for round in 0..5 {
        volumes.volume(&format!("disk-{round}"), "n").await;
        let names = [format!("default-{round}"), format!("other-{round}")];
        for (name, scheduler) in names.iter().zip(["default-scheduler", "other"]) {
            volumes.claim(name, "local").await;
            let mut spec = uses(name);
            spec["spec"]["schedulerName"] = scheduler.into();
            cluster.pod(name, "1", spec).await;
        }
        let settled = |pod: &Pod| {
            bound(pod).is_some() || unscheduled(pod).is_some_and(|(_, message)| message.contains(NO_VOLUME))
        };
        let pods = [cluster.pod_until(&names[0], settled).await, cluster.pod_until(&names[1], settled).await];
        let winners: Vec<&String> =
            pods.iter().zip(&names).filter(|(pod, _)| bound(pod).is_some()).map(|(_, name)| name).collect();
        assert_eq!(winners.len(), 1, "{pods:?}");
        assert_eq!(volumes.holder(&format!("disk-{round}")).await.as_ref(), Some(winners[0]));
        // The other one may not have the next round's volume.
        let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        let loser = names.iter().find(|name| *name != winners[0]).unwrap();
        cluster.pods.delete(loser, now).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_bound_in_time_is_given_up_and_tried_again() {
    let binding = VolumeBinding { bind_timeout: Duration::from_secs(15) };
    let binding = Registration::new(binding).pre_filter().filter().reserve().pre_bind();
    let cluster = Cluster::start(config(Profile::kubernetes("default-scheduler").with(binding))).await;
    let volumes = Volumes::new(&cluster.client).await;
    cluster.node("n", "4", json!({})).await;
    volumes.volume("disk", "n").await;
    volumes.claim("data", "local").await;
    let began = tokio::time::Instant::now();
    cluster.pod("p", "1", uses("data")).await;
    let said = cluster.event("p", "FailedScheduling").await;
    assert!(said.ends_with("binding volumes: context deadline exceeded"), "{said}");
    assert!(began.elapsed() >= Duration::from_secs(15));
    // The volume is the claim's now, and the next try takes it.
    assert_eq!(volumes.holder("disk").await.as_deref(), Some("data"));
    let _controller = volumes.controller();
    assert_eq!(cluster.node_of("p").await, "n");
}

#[tokio::test(start_paused = true)]
async fn a_provisioner_that_can_not_provide_has_another_node_chosen() {
    let cluster = Cluster::start(config(Profile::kubernetes("default-scheduler"))).await;
    let volumes = Volumes::new(&cluster.client).await;
    cluster.node("n1", "4", json!({})).await;
    cluster.node("n2", "4", json!({})).await;
    volumes.claim("data", "made").await;
    cluster.pod("p", "1", uses("data")).await;
    let selected = async || loop {
        let claim = volumes.claims.get("data").await.unwrap();
        let annotations = claim.metadata.annotations.clone().unwrap_or_default();
        if let Some(node) = annotations.get("volume.kubernetes.io/selected-node") {
            break node.clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let first = selected().await;
    let full = json!({"spec": {"unschedulable": true}});
    cluster.nodes.patch(&first, Patch::merge(full)).await.unwrap();
    let none = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": null}}});
    volumes.claims.patch("data", Patch::merge(none)).await.unwrap();
    let said = cluster.event("p", "FailedScheduling").await;
    assert!(said.contains("PVC \"data\""), "{said}");
    let second = selected().await;
    assert_ne!(first, second);
    volumes.volume("made", &second).await;
    bind(&volumes.claims, "data", "made").await;
    assert_eq!(cluster.node_of("p").await, second);
}

#[tokio::test(start_paused = true)]
async fn a_full_node_takes_a_volume_once_another_pod_has_gone() {
    let cluster = Cluster::start(config(Profile::kubernetes("default-scheduler"))).await;
    let volumes = Volumes::new(&cluster.client).await;
    cluster.node("n", "4", json!({})).await;
    let csi = json!({
        "metadata": {"name": "n"},
        "spec": {"drivers": [{"name": "example.com", "nodeID": "n", "allocatable": {"count": 1}}]},
    });
    Api::<CSINode>::all(cluster.client.clone()).create(&object(csi)).await.unwrap();
    for name in ["one", "two"] {
        let volume = json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "made",
                "csi": {"driver": "example.com", "volumeHandle": name},
                "claimRef": {"namespace": "default", "name": name},
            },
        });
        volumes.volumes.create(&object(volume)).await.unwrap();
        volumes.claim(name, "made").await;
        bind(&volumes.claims, name, name).await;
    }
    cluster.pod("one", "1", uses("one")).await;
    assert_eq!(cluster.node_of("one").await, "n");
    cluster.pod("two", "1", uses("two")).await;
    let pod = cluster.pod_until("two", |pod| unscheduled(pod).is_some()).await;
    let message = unscheduled(&pod).unwrap().1;
    assert!(message.contains("1 node(s) exceed max volume count"), "{message}");
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    cluster.pods.delete("one", now).await.unwrap();
    assert_eq!(cluster.node_of("two").await, "n");
}
