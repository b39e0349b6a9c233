//! Claims of devices against the real API server: allocated, reserved and given back.

mod cluster;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cluster::{Cluster, bound, object, unscheduled};
use k8s_openapi::api::{
    core::v1::Pod,
    resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
};
use rk_api::{Api, Patch};
use rk_sched::{
    Profile, Registration, SchedulerConfig,
    framework::{BindContext, Plugin, PreBind, Status},
};
use serde_json::{Value, json};

const DRIVER: &str = "gpu.example.com";

/// A cluster with devices.
struct Lab {
    cluster: Cluster,
    claims: Api<ResourceClaim>,
}

impl Lab {
    async fn start(profiles: Vec<Profile>) -> Self {
        let cluster = Cluster::start(SchedulerConfig { profiles, seed: Some(1), ..SchedulerConfig::default() }).await;
        let expression = format!("device.driver == '{DRIVER}'");
        let class = json!({
            "metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": expression}}]},
        });
        Api::<DeviceClass>::all(cluster.client.clone()).create(&object(class)).await.unwrap();
        Self { claims: Api::namespaced(cluster.client.clone(), "default"), cluster }
    }

    /// A node with so many devices.
    async fn node(&self, name: &str, devices: usize) {
        self.cluster.node(name, "64", json!({})).await;
        let devices: Vec<Value> = (0..devices).map(|at| json!({"name": format!("{name}-{at}")})).collect();
        let slice = json!({"metadata": {"name": name}, "spec": {
            "driver": DRIVER, "nodeName": name, "devices": devices,
            "pool": {"name": name, "generation": 1, "resourceSliceCount": 1},
        }});
        Api::<ResourceSlice>::all(self.cluster.client.clone()).create(&object(slice)).await.unwrap();
    }

    async fn claim(&self, name: &str, count: i64) {
        let request = json!({"name": "r", "exactly": {"deviceClassName": "gpu", "count": count}});
        let claim = json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [request]}}});
        self.claims.create(&object(claim)).await.unwrap();
    }

    async fn pod(&self, name: &str, claim: &str, change: Value) -> Arc<Pod> {
        let mut spec = json!({"resourceClaims": [{"name": "c", "resourceClaimName": claim}]});
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        self.cluster.pod(name, "1", json!({"spec": spec})).await
    }

    /// The claim's devices.
    async fn devices(&self, claim: &str) -> Vec<String> {
        let claim = self.claims.get(claim).await.unwrap();
        let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
        let results = allocation.and_then(|a| a.devices.as_ref()?.results.as_ref());
        results.into_iter().flatten().map(|result| result.device.clone()).collect()
    }

    async fn says(&self, pod: &str, text: &str) {
        self.cluster.pod_until(pod, |pod| unscheduled(pod).is_some_and(|(_, said)| said.contains(text))).await;
    }
}

fn default() -> Profile {
    Profile::kubernetes("default-scheduler")
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_allocated_and_reserved_before_its_pod_is_bound() {
    let lab = Lab::start(vec![default()]).await;
    lab.node("none", 0).await;
    lab.node("two", 2).await;
    let pod = lab.pod("p", "c", json!({})).await;
    // Neither the claim nor an event of it: the pod does not enter the queue.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bound(&lab.cluster.pods.get("p").await.unwrap()), None);
    lab.claim("c", 2).await;
    assert_eq!(lab.cluster.node_of("p").await, "two");
    assert_eq!(lab.cluster.event("p", "Scheduled").await, "Successfully assigned default/p to two");
    let claim = lab.claims.get("c").await.unwrap();
    let status = claim.status.as_ref().unwrap();
    let reserved = status.reserved_for.as_ref().unwrap();
    assert_eq!((reserved[0].resource.as_str(), &reserved[0].uid), ("pods", pod.metadata.uid.as_ref().unwrap()));
    assert_eq!(lab.devices("c").await, ["two-0", "two-1"]);
    let finalizers = claim.metadata.finalizers.as_deref().unwrap();
    assert_eq!(finalizers, ["resource.kubernetes.io/delete-protection"]);
}

#[tokio::test(start_paused = true)]
async fn pods_wait_for_devices_and_get_those_that_become_free() {
    let lab = Lab::start(vec![default()]).await;
    lab.node("one", 1).await;
    for name in ["a", "b"] {
        lab.claim(name, 1).await;
    }
    lab.pod("first", "a", json!({})).await;
    assert_eq!(lab.cluster.node_of("first").await, "one");
    lab.pod("second", "b", json!({})).await;
    lab.says("second", "0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, preemption: ")
        .await;
    // A second node comes with devices; its slice is what was waited for.
    lab.node("more", 1).await;
    assert_eq!(lab.cluster.node_of("second").await, "more");
    lab.claim("d", 1).await;
    lab.pod("third", "d", json!({})).await;
    lab.says("third", "0/2 nodes are available: 2 cannot allocate all claims.").await;
    // The first one's claim is deallocated.
    let free = json!({"status": {"allocation": null, "reservedFor": null}});
    lab.claims.patch_status("a", Patch::merge(free)).await.unwrap();
    assert_eq!(lab.cluster.node_of("third").await, "one");
}

#[tokio::test(start_paused = true)]
async fn pods_share_a_claim_where_its_devices_are() {
    let lab = Lab::start(vec![default()]).await;
    lab.node("a", 1).await;
    lab.node("b", 1).await;
    lab.claim("shared", 1).await;
    for name in ["p", "q", "r"] {
        lab.pod(name, "shared", json!({})).await;
    }
    let node = lab.cluster.node_of("p").await;
    assert_eq!((lab.cluster.node_of("q").await, lab.cluster.node_of("r").await), (node.clone(), node));
    let claim = lab.claims.get("shared").await.unwrap();
    assert_eq!(claim.status.as_ref().unwrap().reserved_for.as_ref().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_nobody_uses_is_deallocated_for_a_pod_that_can_t_go_there() {
    let lab = Lab::start(vec![default()]).await;
    lab.node("a", 1).await;
    lab.node("b", 1).await;
    lab.claim("c", 1).await;
    lab.pod("there", "c", json!({"nodeSelector": {"kubernetes.io/hostname": "a"}})).await;
    assert_eq!(lab.cluster.node_of("there").await, "a");
    lab.claims.patch_status("c", Patch::merge(json!({"status": {"reservedFor": null}}))).await.unwrap();
    lab.pod("here", "c", json!({"nodeSelector": {"kubernetes.io/hostname": "b"}})).await;
    assert_eq!(lab.cluster.node_of("here").await, "b");
    assert_eq!(lab.devices("c").await, ["b-0"]);
}

#[tokio::test(start_paused = true)]
async fn missing_classes_are_waited_for() {
    let lab = Lab::start(vec![default()]).await;
    lab.node("n", 1).await;
    let request = json!({"name": "r", "exactly": {"deviceClassName": "late"}});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request]}}});
    lab.claims.create(&object(claim)).await.unwrap();
    lab.pod("p", "c", json!({})).await;
    lab.says("p", "0/1 nodes are available: request r: device class late does not exist.").await;
    let classes = Api::<DeviceClass>::all(lab.cluster.client.clone());
    classes.create(&object(json!({"metadata": {"name": "late"}, "spec": {}}))).await.unwrap();
    assert_eq!(lab.cluster.node_of("p").await, "n");
}

/// Holds pods up before they are bound, and then fails.
struct Hurdle;

impl Plugin for Hurdle {
    fn name(&self) -> &'static str {
        "Hurdle"
    }
}

#[async_trait]
impl PreBind for Hurdle {
    async fn pre_bind(&self, context: &BindContext<'_>) -> Status {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if context.pod.name.as_ref() == "unlucky" { Status::error("no luck") } else { Status::success() }
    }
}

#[tokio::test(start_paused = true)]
async fn no_device_is_given_twice_while_allocations_are_in_flight_and_failed_ones_are_given_back() {
    // Two profiles see the same devices; the hurdle comes before the claims are written, so that all allocations are in flight together.
    let hurdle = |name: &str| {
        let dynamic = || {
            let plugin = Registration::new(rk_sched::plugins::DynamicResources::default());
            plugin.pre_enqueue().pre_filter().filter().post_filter().score(1).reserve().pre_bind()
        };
        let profile = Profile::kubernetes(name).without("DynamicResources");
        profile.with(Registration::new(Hurdle).pre_bind()).with(dynamic())
    };
    let lab = Lab::start(vec![hurdle("default-scheduler"), hurdle("other")]).await;
    lab.node("a", 3).await;
    lab.node("b", 3).await;
    for at in 0..8 {
        lab.claim(&format!("c{at}"), 1).await;
    }
    lab.claim("lost", 1).await;
    lab.pod("unlucky", "lost", json!({})).await;
    for at in 0..8 {
        let scheduler = if at % 2 == 0 { "default-scheduler" } else { "other" };
        lab.pod(&format!("p{at}"), &format!("c{at}"), json!({"schedulerName": scheduler})).await;
    }
    let mut given = Vec::new();
    let mut placed = 0;
    tokio::time::sleep(Duration::from_secs(4)).await;
    for at in 0..8 {
        assert!(lab.devices(&format!("c{at}")).await.is_empty(), "all are in flight");
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    for at in 0..8 {
        let pod = lab.cluster.pods.get(&format!("p{at}")).await.unwrap();
        placed += usize::from(bound(&pod).is_some());
        given.extend(lab.devices(&format!("c{at}")).await);
    }
    given.extend(lab.devices("lost").await);
    let count = given.len();
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), count, "{given:?}");
    // The unlucky pod holds a device each time it is tried, and gives it back: there is enough for five others at any time, and for
    // six in between.
    assert!((5..=6).contains(&placed), "{placed}");
    assert_eq!(bound(&lab.cluster.pods.get("unlucky").await.unwrap()), None);
}
