//! Cluster IPs and node ports, as Services come and go.

mod dual_stack;

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Ranges, strategy};
use crate::{
    Status,
    server::{FieldErrors, Strategy, UserInfo, WriteContext, fixture::Objects, kinds::field},
};

struct Cluster {
    objects: Arc<Objects>,
    services: Arc<dyn Strategy>,
}

impl Cluster {
    fn new(bits: u8, node_ports: std::ops::RangeInclusive<u16>) -> Self {
        Self::with(&format!("10.0.0.0/{bits}"), node_ports)
    }

    fn with(cluster_ips: &str, node_ports: std::ops::RangeInclusive<u16>) -> Self {
        let ranges = Ranges { cluster_ips: cluster_ips.parse().unwrap(), node_ports, seed: 7 };
        Self { objects: Objects::new([]), services: strategy(ranges) }
    }

    /// What an update does before the store.
    async fn change(&self, old: &Value, change: Value) -> Result<Value, Status> {
        let user = UserInfo::loopback();
        let context = WriteContext { user: &user, subresource: "", dry_run: false, reader: &*self.objects };
        let mut new = old.clone();
        json_patch::merge(&mut new, &json!({"spec": change}));
        self.services.default(&mut new);
        self.services.prepare_update(&mut new, old, &context);
        valid(self.services.validate_update(&new, old, ""))?;
        self.services.allocate(&mut new, Some(old), &context).await?;
        Ok(new)
    }

    /// What a create does before the store; the Service is not visible to readers yet.
    async fn allocate(&self, name: &str, spec: Value, dry_run: bool) -> Result<Value, Status> {
        let user = UserInfo::loopback();
        let context = WriteContext { user: &user, subresource: "", dry_run, reader: &*self.objects };
        let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        self.services.default(&mut service);
        self.services.prepare_create(&mut service, &context);
        valid(self.services.validate_create(&service))?;
        self.services.allocate(&mut service, None, &context).await?;
        Ok(service)
    }

    async fn create(&self, name: &str, spec: Value) -> Result<Value, Status> {
        let service = self.allocate(name, spec, false).await?;
        self.objects.put("services", service.clone());
        Ok(service)
    }

    fn delete(&self, service: &Value) {
        self.objects.remove("services", "default", service["metadata"]["name"].as_str().unwrap());
        self.services.release(service);
    }
}

fn valid(errors: FieldErrors) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(field::invalid("", "Service", "a", &errors)) }
}

fn plain() -> Value {
    json!({"ports": [{"port": 80}]})
}

fn cause(status: &Status) -> String {
    let cause = &status.details.as_ref().unwrap().causes.as_ref().unwrap()[0];
    format!("{}: {}", cause.field.as_deref().unwrap_or_default(), cause.message.as_deref().unwrap_or_default())
}

#[tokio::test]
async fn every_service_gets_its_own_address_until_the_range_is_full() {
    // Of 16 addresses, the network's, the first (of `kubernetes`) and the broadcast's are not given out.
    let cluster = Cluster::new(28, 30_000..=32_767);
    let mut seen = std::collections::BTreeSet::new();
    for i in 0..13 {
        let service = cluster.create(&format!("s{i}"), plain()).await.unwrap();
        let spec = &service["spec"];
        assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
        assert_eq!((&spec["ipFamilies"], &spec["ipFamilyPolicy"]), (&json!(["IPv4"]), &json!("SingleStack")));
        assert!(seen.insert(spec["clusterIP"].as_str().unwrap().to_owned()));
    }
    assert!(!seen.contains("10.0.0.0") && !seen.contains("10.0.0.1") && !seen.contains("10.0.0.15"));
    let full = cluster.create("more", plain()).await.unwrap_err();
    assert_eq!(full.code, Some(500));
    assert!(full.message.unwrap().contains("range is full"));
    let kubernetes = cluster.create("kubernetes", plain()).await.unwrap();
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.0.0.1");
    cluster.delete(&kubernetes);
}

#[tokio::test]
async fn what_a_pending_write_holds_is_not_given_to_another() {
    let cluster = Cluster::new(24, 30_000..=30_000);
    let pending = cluster.allocate("a", json!({"type": "NodePort", "ports": [{"port": 80}]}), false).await.unwrap();
    assert_eq!(pending["spec"]["ports"][0]["nodePort"], 30_000);
    let asked = json!({"clusterIP": pending["spec"]["clusterIP"], "ports": [{"port": 80}]});
    let taken = cluster.create("b", asked.clone()).await.unwrap_err();
    assert!(cause(&taken).ends_with("provided IP is already allocated"), "{taken:?}");
    let full = cluster.create("b", json!({"type": "NodePort", "ports": [{"port": 80}]})).await.unwrap_err();
    assert!(full.message.unwrap().contains("failed to allocate a nodePort"));
    cluster.services.release(&pending);
    cluster.create("b", asked).await.unwrap();
    cluster.create("c", json!({"type": "NodePort", "ports": [{"port": 80}]})).await.unwrap();
}

#[tokio::test]
async fn what_a_deleted_service_held_is_free() {
    let cluster = Cluster::new(24, 30_000..=30_000);
    let spec = json!({"type": "NodePort", "clusterIP": "10.0.0.9", "ports": [{"port": 80}]});
    for _ in 0..3 {
        let service = cluster.create("a", spec.clone()).await.unwrap();
        assert_eq!(service["spec"]["ports"][0]["nodePort"], 30_000);
        cluster.delete(&service);
    }
    // What nobody released, as the process that gave it out is gone, is seen in the objects.
    cluster.create("a", spec.clone()).await.unwrap();
    let other =
        Cluster { objects: Arc::clone(&cluster.objects), services: strategy(Ranges { seed: 1, ..Ranges::default() }) };
    let taken =
        other.create("b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30_000}]})).await.unwrap_err();
    assert_eq!(cause(&taken), "spec.ports[0].nodePort: Invalid value: 30000: provided port is already allocated");
}

#[tokio::test]
async fn addresses_and_ports_out_of_range_are_refused() {
    let cluster = Cluster::new(24, 30_000..=32_767);
    let error = cluster.create("a", json!({"clusterIP": "10.1.0.1", "ports": [{"port": 80}]})).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_deref()), (Some(422), Some("Invalid")));
    assert_eq!(
        cause(&error),
        "spec.clusterIPs: Invalid value: [\"10.1.0.1\"]: failed to allocate IP 10.1.0.1: the provided network does not match the \
         current range"
    );
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]});
    let error = cluster.create("a", spec).await.unwrap_err();
    assert_eq!(
        cause(&error),
        "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
    );
    assert!(error.message.unwrap().starts_with("Service \"a\" is invalid: spec.ports[0].nodePort: "));
}

#[tokio::test]
async fn headless_and_named_services_take_nothing() {
    let cluster = Cluster::new(24, 30_000..=32_767);
    let headless = cluster.create("a", json!({"clusterIP": "None", "ports": [{"port": 80}]})).await.unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let named = cluster.create("b", json!({"type": "ExternalName", "externalName": "a.b"})).await.unwrap();
    assert!(named["spec"].get("clusterIP").is_none() && named["spec"].get("ipFamilies").is_none());
    let dry = cluster.allocate("c", json!({"clusterIP": "10.0.0.7", "ports": [{"port": 80}]}), true).await.unwrap();
    assert_eq!(dry["spec"]["clusterIP"], "10.0.0.7");
    cluster.create("d", json!({"clusterIP": "10.0.0.7", "ports": [{"port": 80}]})).await.unwrap();
}

#[tokio::test]
async fn one_node_port_serves_all_protocols_of_a_port() {
    let cluster = Cluster::new(24, 30_000..=32_767);
    let ports =
        json!([{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}, {"name": "w", "port": 80}]);
    let service = cluster.create("dns", json!({"type": "NodePort", "ports": ports})).await.unwrap();
    let ports = &service["spec"]["ports"];
    assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"]);
    assert_ne!(ports[0]["nodePort"], ports[2]["nodePort"]);
}

#[tokio::test]
async fn a_change_takes_and_checks_only_what_is_new() {
    let cluster = Cluster::new(24, 30_000..=30_001);
    let port = |number: i64| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": number}]});
    let (first, other) =
        (cluster.create("a", port(30_000)).await.unwrap(), cluster.create("b", plain()).await.unwrap());
    let same = cluster.change(&first, json!({"sessionAffinity": "ClientIP"})).await.unwrap();
    assert_eq!(same["spec"]["ports"], first["spec"]["ports"]);
    let opened = cluster.change(&other, json!({"type": "NodePort"})).await.unwrap();
    assert_eq!(opened["spec"]["ports"][0]["nodePort"], 30_001);
    let taken = cluster.change(&first, port(30_001)).await.unwrap_err();
    assert!(cause(&taken).ends_with("provided port is already allocated"), "{taken:?}");
    // The write of the other came to nothing.
    cluster.services.release(&opened);
    assert_eq!(cluster.change(&first, port(30_001)).await.unwrap()["spec"]["clusterIP"], first["spec"]["clusterIP"]);
}

fn range(name: &str, cidrs: Value, conditions: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
        "spec": {"cidrs": cidrs}, "status": {"conditions": conditions}})
}

fn condition(status: &str) -> Value {
    json!([{"type": "Ready", "status": status, "reason": "", "message": ""}])
}

#[tokio::test]
async fn addresses_are_of_every_range_that_is_ready() {
    let cluster = Cluster::new(30, 30_000..=32_767);
    cluster.objects.put("servicecidrs", range("kubernetes", json!(["10.0.0.0/30"]), condition("True")));
    assert_eq!(cluster.create("a", plain()).await.unwrap()["spec"]["clusterIP"], "10.0.0.2");
    let full = cluster.create("b", plain()).await.unwrap_err();
    assert!(full.message.unwrap().contains("range is full"));
    // Nobody has to have said that a range is ready; of another family it is of no use.
    cluster.objects.put("servicecidrs", range("more", json!(["10.0.1.4/30"]), json!([])));
    cluster.objects.put("servicecidrs", range("six", json!(["fd00::/112"]), condition("True")));
    cluster.objects.put("servicecidrs", range("no", json!(["10.0.2.0/24"]), condition("False")));
    let mut ips = Vec::new();
    for name in ["b", "c"] {
        ips.push(cluster.create(name, plain()).await.unwrap()["spec"]["clusterIP"].clone());
    }
    ips.sort_by_key(Value::to_string);
    assert_eq!(ips, ["10.0.1.5", "10.0.1.6"]);
    assert!(cluster.create("d", plain()).await.unwrap_err().message.unwrap().contains("range is full"));
    for (ip, why) in [
        ("10.0.2.9", "the provided network does not match the current range"),
        ("10.0.1.4", "the provided network does not match the current range"),
        ("10.0.1.7", "the provided network does not match the current range"),
        ("fd00::9", "IPv6 is not configured on this cluster"),
    ] {
        let refused = cluster.create("d", json!({"clusterIP": ip, "ports": [{"port": 80}]})).await.unwrap_err();
        assert!(cause(&refused).ends_with(why), "{refused:?}");
    }
    // One that is being deleted gives nothing.
    let mut leaving = range("no", json!(["10.0.2.0/24"]), condition("True"));
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    cluster.objects.put("servicecidrs", leaving);
    assert!(cluster.create("d", plain()).await.is_err());
    cluster.objects.put("servicecidrs", range("no", json!(["10.0.2.0/24"]), condition("True")));
    cluster.create("d", json!({"clusterIP": "10.0.2.9", "ports": [{"port": 80}]})).await.unwrap();
}

#[tokio::test]
async fn addresses_that_others_have_reserved_are_not_given_out() {
    let cluster = Cluster::new(29, 30_000..=32_767);
    let gateway = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "10.0.0.2"},
        "spec": {"parentRef": {"group": "gateway.networking.k8s.io", "resource": "gateways", "name": "g"}}});
    cluster.objects.put("ipaddresses", gateway);
    let taken = cluster.create("a", json!({"clusterIP": "10.0.0.2", "ports": [{"port": 80}]})).await.unwrap_err();
    assert!(cause(&taken).ends_with("provided IP is already allocated"), "{taken:?}");
    for name in ["a", "b", "c", "d"] {
        assert_ne!(cluster.create(name, plain()).await.unwrap()["spec"]["clusterIP"], "10.0.0.2");
    }
    assert!(cluster.create("e", plain()).await.is_err());
}
