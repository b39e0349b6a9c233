//! Claims of devices against the real API server: allocated, reserved and given back.

mod cluster;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cluster::{Cluster, bound, object, unscheduled};
use k8s_openapi::api::{
    core::v1::Pod,
    resource::{
        v1::{DeviceClass, ResourceClaim, ResourceSlice},
        v1beta2::DeviceTaintRule,
    },
};
use rk_api::{
    Api, Patch, Resource,
    server::{Row, Strategy},
};
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
        Self::serving(Vec::new(), profiles).await
    }

    /// With a server of more kinds.
    async fn serving(rows: Vec<Row>, profiles: Vec<Profile>) -> Self {
        let config = SchedulerConfig { profiles, seed: Some(1), ..SchedulerConfig::default() };
        let cluster = Cluster::serving(rows, config, |client| client).await;
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

/// A device that has to be made ready, on its node, and a pod that wants it.
async fn attached_late() -> Lab {
    let lab = Lab::start(vec![default()]).await;
    lab.cluster.node("n", "64", json!({})).await;
    let device = json!({"name": "far", "bindingConditions": ["Attached"], "bindingFailureConditions": ["Broken"]});
    let slice = json!({"metadata": {"name": "n"}, "spec": {
        "driver": DRIVER, "nodeName": "n", "devices": [device],
        "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1},
    }});
    Api::<ResourceSlice>::all(lab.cluster.client.clone()).create(&object(slice)).await.unwrap();
    lab.claim("c", 1).await;
    lab.pod("p", "c", json!({})).await;
    let waiting = "waiting for binding conditions for device on node n";
    assert_eq!(lab.cluster.event("p", "BindingConditionsPending").await, waiting);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bound(&lab.cluster.pods.get("p").await.unwrap()), None, "it waits");
    lab
}

impl Lab {
    /// The driver says something of the device `far`.
    async fn tell(&self, condition: &str) {
        let time = "2026-01-01T00:00:00Z";
        let condition = json!({"type": condition, "status": "True", "reason": "Fabric", "message": "m", "lastTransitionTime": time});
        let device = json!({"driver": DRIVER, "pool": "n", "device": "far", "conditions": [condition]});
        self.claims.patch_status("c", Patch::merge(json!({"status": {"devices": [device]}}))).await.unwrap();
    }
}

/// KEP-5007.
#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_once_its_devices_are_ready() {
    let lab = attached_late().await;
    let claim = lab.claims.get("c").await.unwrap();
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref()).unwrap();
    assert!(allocation.allocation_timestamp.is_some());
    lab.tell("Attached").await;
    assert_eq!(lab.cluster.node_of("p").await, "n");
}

/// KEP-5007.
#[tokio::test(start_paused = true)]
async fn devices_that_can_not_be_made_ready_are_given_back() {
    let lab = attached_late().await;
    lab.tell("Broken").await;
    lab.cluster
        .pod_until("p", |pod| {
            unscheduled(pod)
                .is_some_and(|(_, said)| said.contains("claim c binding failed: reason=Fabric, message=\"m\""))
        })
        .await;
    // The claim is deallocated and allocated again.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let claim = lab.claims.get("c").await.unwrap();
    let told = claim.status.as_ref().and_then(|status| status.devices.as_ref());
    assert!(told.is_none_or(Vec::is_empty), "what was said of it before does not count any more: {told:?}");
    lab.tell("Attached").await;
    assert_eq!(lab.cluster.node_of("p").await, "n");
}

/// KEP-5007.
#[tokio::test(start_paused = true)]
async fn devices_are_waited_for_as_long_as_configured() {
    let lab = attached_late().await;
    tokio::time::sleep(Duration::from_secs(540)).await;
    lab.says("p", "running PreBind plugin \"DynamicResources\": device binding timeout").await;
}

/// KEP-5004.
#[tokio::test(start_paused = true)]
async fn devices_stand_for_an_extended_resource() {
    let lab = Lab::start(vec![default()]).await;
    let classes = Api::<DeviceClass>::all(lab.cluster.client.clone());
    let named = json!({"spec": {"extendedResourceName": "example.com/gpu"}});
    classes.patch("gpu", Patch::merge(named)).await.unwrap();
    lab.node("two", 2).await;
    let wants = |count: &str| {
        json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {
            "requests": {"example.com/gpu": count}, "limits": {"example.com/gpu": count},
        }}]}})
    };
    let pod = lab.cluster.pod("p", "1", wants("2")).await;
    assert_eq!(lab.cluster.node_of("p").await, "two");
    let bound = lab.cluster.pods.get("p").await.unwrap();
    let status = bound.status.as_ref().and_then(|status| status.extended_resource_claim_status.as_ref()).unwrap();
    let mapping = &status.request_mappings[0];
    let shown = (mapping.container_name.as_str(), mapping.resource_name.as_str(), mapping.request_name.as_str());
    assert_eq!(shown, ("c", "example.com/gpu", "container-0-request-0"));
    let name = status.resource_claim_name.clone();
    assert!(name.starts_with("p-extended-resources-"), "{name}");
    let claim = lab.claims.get(&name).await.unwrap();
    assert_eq!(claim.metadata.annotations.as_ref().unwrap()["resource.kubernetes.io/extended-resource-claim"], "true");
    let owner = &claim.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((&owner.uid, owner.controller), (pod.metadata.uid.as_ref().unwrap(), Some(true)));
    assert_eq!(claim.status.as_ref().unwrap().reserved_for.as_ref().unwrap()[0].uid, owner.uid);
    assert_eq!(lab.devices(&name).await, ["two-0", "two-1"]);
    // They are taken, for claims and for other pods.
    lab.claim("c", 1).await;
    lab.pod("q", "c", json!({})).await;
    lab.cluster.pod("r", "1", wants("1")).await;
    for name in ["q", "r"] {
        lab.says(name, "0/1 nodes are available: 1 cannot allocate all claims.").await;
    }
    // A device plugin gives the resource on this node.
    let gives = json!({"status": {"allocatable": {"example.com/gpu": "1"}, "capacity": {"example.com/gpu": "1"}}});
    lab.cluster.node("plugin", "64", gives).await;
    assert_eq!(lab.cluster.node_of("r").await, "plugin");
    let pod = lab.cluster.pods.get("r").await.unwrap();
    assert!(pod.status.as_ref().is_none_or(|status| status.extended_resource_claim_status.is_none()));
}

/// KEP-5004: a pod that does not get to its node leaves no claim behind.
#[tokio::test(start_paused = true)]
async fn claims_for_extended_resources_go_where_the_binding_fails() {
    let profile = default().with(Registration::new(Hurdle).pre_bind());
    let lab = Lab::start(vec![profile]).await;
    let classes = Api::<DeviceClass>::all(lab.cluster.client.clone());
    let named = json!({"spec": {"extendedResourceName": "example.com/gpu"}});
    classes.patch("gpu", Patch::merge(named)).await.unwrap();
    lab.node("one", 1).await;
    let wants = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {
        "requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"},
    }}]}});
    lab.cluster.pod("unlucky", "1", wants.clone()).await;
    lab.says("unlucky", "no luck").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let claims = lab.claims.list(rk_api::ListOptions::default()).await.unwrap();
    assert!(claims.items.len() <= 1, "one for the attempt that is under way at most");
    lab.cluster
        .pods
        .delete("unlucky", rk_api::DeleteOptions { grace_period_seconds: Some(0), ..rk_api::DeleteOptions::default() })
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    lab.cluster.pod("p", "1", wants).await;
    assert_eq!(lab.cluster.node_of("p").await, "one");
}

/// The rules of a kind that has none of its own.
struct Plain;

impl Strategy for Plain {}

/// KEP-5055, on a server that has the API of rules, which is off by default.
#[tokio::test(start_paused = true)]
async fn devices_that_a_rule_taints_are_left_out() {
    let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"].map(str::to_owned);
    let row = Row {
        resource: Resource::of::<DeviceTaintRule>(),
        singular: "devicetaintrule".to_owned(),
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: verbs.into(),
        subresources: Vec::new(),
        stored: true,
        columns: Vec::new().into(),
        selectable_fields: Vec::new(),
        strategy: Arc::new(Plain),
    };
    let lab = Lab::serving(vec![row], vec![default()]).await;
    let rules = Api::<DeviceTaintRule>::all(lab.cluster.client.clone());
    let rule = json!({"metadata": {"name": "broken"}, "spec": {
        "deviceSelector": {"driver": DRIVER}, "taint": {"key": "example.com/broken", "effect": "NoSchedule"},
    }});
    rules.create(&object(rule)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    lab.node("n", 1).await;
    lab.claim("c", 1).await;
    lab.pod("p", "c", json!({})).await;
    lab.says("p", "0/1 nodes are available: 1 cannot allocate all claims.").await;
    rules.delete("broken", rk_api::DeleteOptions::default()).await.unwrap();
    assert_eq!(lab.cluster.node_of("p").await, "n");
}
