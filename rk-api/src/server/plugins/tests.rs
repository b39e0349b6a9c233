//! Each plugin against a few objects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::server::{Attributes, UserInfo, fixture::Objects};

/// A write through one plugin: `mutate`, then `validate`, as in the server.
struct Case {
    reader: Arc<Objects>,
    user: UserInfo,
    operation: Operation,
    resource: Resource,
    subresource: &'static str,
    namespace: &'static str,
    old: Option<Value>,
}

impl Case {
    fn create(reader: &Arc<Objects>, group: &str, plural: &str, namespaced: bool) -> Self {
        Self {
            reader: Arc::clone(reader),
            user: UserInfo::new("jane", ["system:authenticated"]),
            operation: Operation::Create,
            resource: Resource::new(group, "v1", "Kind", plural, namespaced),
            subresource: "",
            namespace: if namespaced { "dev" } else { "" },
            old: None,
        }
    }

    fn pods(reader: &Arc<Objects>) -> Self {
        Self::create(reader, "", "pods", true)
    }

    fn by(self, user: UserInfo) -> Self {
        Self { user, ..self }
    }

    fn update(self, old: Value) -> Self {
        Self { operation: Operation::Update, old: Some(old), ..self }
    }

    fn delete(self, old: Value) -> Self {
        Self { operation: Operation::Delete, old: Some(old), ..self }
    }

    fn sub(self, subresource: &'static str) -> Self {
        Self { subresource, ..self }
    }

    /// The object as it leaves the plugin, with warnings; or code and message of the refusal.
    async fn run(self, plugin: &dyn Admit, object: Value) -> Result<(Value, Vec<String>), (i32, String)> {
        let named = self.old.as_ref().unwrap_or(&object);
        let attributes = Attributes {
            user: Arc::new(self.user),
            group: self.resource.group.to_string(),
            resource: self.resource.plural.to_string(),
            subresource: self.subresource.to_owned(),
            namespace: self.namespace.to_owned(),
            name: text(&named["metadata"]["name"]).to_owned(),
            ..Attributes::default()
        };
        if !plugin.handles(self.operation, &self.resource, self.subresource) {
            return Ok((object, Vec::new()));
        }
        let mut request = AdmissionRequest {
            attributes,
            resource: self.resource,
            operation: self.operation,
            object: (self.operation != Operation::Delete).then_some(object),
            old_object: self.old.map(|old| Arc::new(crate::Object::from_value(&old).unwrap())),
            options: Value::Null,
            dry_run: false,
            warnings: Vec::new(),
        };
        let refused = |status: Status| (status.code.unwrap(), status.message.unwrap());
        plugin.mutate(&mut request, &*self.reader).await.map_err(refused)?;
        plugin.validate(&request, &*self.reader).await.map_err(refused)?;
        Ok((request.object.unwrap_or_default(), request.warnings))
    }
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name, "namespace": "dev"}, "spec": {"containers": [{"name": "c"}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}, "status": {"phase": "Active"}})
}

fn cluster(objects: impl IntoIterator<Item = (&'static str, Value)>) -> Arc<Objects> {
    let base = [
        ("namespaces", namespace("dev", json!({}))),
        ("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "dev", "uid": "u1"}})),
    ];
    Objects::new(base.into_iter().chain(objects))
}

#[tokio::test]
async fn namespace_lifecycle_guards_missing_ending_and_system_namespaces() {
    let plugin = NamespaceLifecycle;
    let all = cluster([("namespaces", json!({"metadata": {"name": "old"}, "status": {"phase": "Terminating"}}))]);
    Case::pods(&all).run(&plugin, pod("p", json!({}))).await.unwrap();
    let lost = Case { namespace: "lost", ..Case::pods(&all) };
    assert_eq!(lost.run(&plugin, pod("p", json!({}))).await, Err((404, r#"namespaces "lost" not found"#.into())));
    let ending = || Case { namespace: "old", ..Case::pods(&all) };
    let why = r#"pods "p" is forbidden: unable to create new content in namespace old because it is being terminated"#;
    assert_eq!(ending().run(&plugin, pod("p", json!({}))).await, Err((403, why.into())));
    ending().update(pod("p", json!({}))).run(&plugin, pod("p", json!({}))).await.unwrap();
    let delete = |name: &str| Case::create(&all, "", "namespaces", false).delete(namespace(name, json!({})));
    let why = r#"namespaces "default" is forbidden: this namespace may not be deleted"#;
    assert_eq!(delete("default").run(&plugin, Value::Null).await, Err((403, why.into())));
    delete("dev").run(&plugin, Value::Null).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn service_account_mounts_the_token_everywhere() {
    let plugin = ServiceAccount::default();
    let all = cluster([(
        "serviceaccounts",
        json!({"metadata": {"name": "bot", "namespace": "dev"}, "imagePullSecrets": [{"name": "pull"}],
            "automountServiceAccountToken": false}),
    )]);
    let spec = json!({"initContainers": [{"name": "i"}],
        "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [
            {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]});
    let (done, _) = Case::pods(&all).run(&plugin, pod("p", spec)).await.unwrap();
    let spec = &done["spec"];
    assert_eq!((text(&spec["serviceAccountName"]), text(&spec["serviceAccount"])), ("default", "default"));
    let volume = text(&spec["volumes"][0]["name"]);
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    let sources = list(&spec["volumes"][0]["projected"]["sources"]);
    assert_eq!(sources[0]["serviceAccountToken"]["expirationSeconds"], 3607);
    assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
    for container in [&spec["initContainers"][0], &spec["containers"][0]] {
        assert_eq!(container["volumeMounts"][0]["name"], volume);
        assert_eq!(container["volumeMounts"][0]["readOnly"], true);
    }
    assert_eq!(list(&spec["containers"][1]["volumeMounts"]).len(), 1);

    let (done, _) = Case::pods(&all).run(&plugin, pod("p", json!({"serviceAccountName": "bot"}))).await.unwrap();
    assert_eq!(done["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    assert!(done["spec"]["volumes"].is_null());
    let wanted = json!({"serviceAccountName": "bot", "automountServiceAccountToken": true});
    let (done, _) = Case::pods(&all).run(&plugin, pod("p", wanted)).await.unwrap();
    assert_eq!(list(&done["spec"]["volumes"]).len(), 1);

    let lost = json!({"serviceAccountName": "lost"});
    let why = "pods \"p\" is forbidden: error looking up service account dev/lost: serviceaccount \"lost\" not found";
    assert_eq!(Case::pods(&all).run(&plugin, pod("p", lost)).await, Err((403, why.into())));
    let mut mirror = pod("p", json!({"serviceAccountName": "bot"}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    assert!(Case::pods(&all).run(&plugin, mirror).await.unwrap_err().1.contains("a mirror pod may not reference"));
}

#[tokio::test(start_paused = true)]
async fn service_account_waits_for_the_default_account_of_a_new_namespace() {
    let all = Objects::new([]);
    let late = Arc::clone(&all);
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(350)).await;
        late.put("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "dev"}}));
    });
    Case::pods(&all).run(&ServiceAccount::default(), pod("p", json!({}))).await.unwrap();
}

#[tokio::test]
async fn priority_is_resolved_from_the_class() {
    let class = |name: &str, value: i64, default: bool| {
        (
            "priorityclasses",
            json!({"metadata": {"name": name}, "value": value, "globalDefault": default,
            "preemptionPolicy": if value > 50 { "Never" } else { "PreemptLowerPriority" }}),
        )
    };
    let none = cluster([class("high", 100, false)]);
    let (done, _) = Case::pods(&none).run(&Priority, pod("p", json!({}))).await.unwrap();
    assert_eq!((&done["spec"]["priority"], done["spec"].get("priorityClassName")), (&json!(0), None));
    let (done, _) = Case::pods(&none).run(&Priority, pod("p", json!({"priorityClassName": "high"}))).await.unwrap();
    assert_eq!((&done["spec"]["priority"], &done["spec"]["preemptionPolicy"]), (&json!(100), &json!("Never")));
    let why = "pods \"p\" is forbidden: no PriorityClass with name low was found";
    let low = json!({"priorityClassName": "low"});
    assert_eq!(Case::pods(&none).run(&Priority, pod("p", low)).await, Err((403, why.into())));
    let given = json!({"priorityClassName": "high", "priority": 7});
    let error = Case::pods(&none).run(&Priority, pod("p", given)).await.unwrap_err().1;
    assert!(error.contains("the integer value of priority (7) must not be provided"), "{error}");

    let old = pod("p", json!({"priority": 100, "preemptionPolicy": "Never"}));
    let (kept, _) = Case::pods(&none).update(old.clone()).run(&Priority, pod("p", json!({}))).await.unwrap();
    assert_eq!(kept, old);

    let some = cluster([class("usual", 10, true)]);
    let (done, _) = Case::pods(&some).run(&Priority, pod("p", json!({}))).await.unwrap();
    assert_eq!((&done["spec"]["priority"], &done["spec"]["priorityClassName"]), (&json!(10), &json!("usual")));
    let second = json!({"metadata": {"name": "other"}, "value": 1, "globalDefault": true});
    let case = Case::create(&some, "scheduling.k8s.io", "priorityclasses", false);
    assert!(case.run(&Priority, second).await.unwrap_err().1.contains("usual is already marked as default"));
}

#[tokio::test]
async fn pods_tolerate_broken_nodes_for_five_minutes() {
    let plugin = DefaultTolerationSeconds::default();
    let all = cluster([]);
    let (done, _) = Case::pods(&all).run(&plugin, pod("p", json!({}))).await.unwrap();
    let seconds: Vec<_> = list(&done["spec"]["tolerations"]).iter().map(|t| t["tolerationSeconds"].as_i64()).collect();
    assert_eq!(seconds, [Some(300), Some(300)]);
    let own = json!({"tolerations": [{"operator": "Exists"}]});
    let (done, _) = Case::pods(&all).run(&plugin, pod("p", own)).await.unwrap();
    assert_eq!(list(&done["spec"]["tolerations"]).len(), 1);
    let gpu = json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1", "cpu": "1"}}}]});
    let (done, _) = Case::pods(&all).run(&ExtendedResourceToleration, pod("p", gpu)).await.unwrap();
    assert_eq!(done["spec"]["tolerations"], json!([{"key": "example.com/gpu", "operator": "Exists"}]));
}

#[tokio::test]
async fn new_nodes_are_tainted_once() {
    let all = cluster([]);
    let case = || Case::create(&all, "", "nodes", false);
    let (done, _) = case().run(&TaintNodesByCondition, json!({"metadata": {"name": "n"}})).await.unwrap();
    assert_eq!(done["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
    let (again, _) = case().run(&TaintNodesByCondition, done.clone()).await.unwrap();
    assert_eq!(again, done);
}

#[tokio::test]
async fn the_newest_default_class_is_given() {
    let class = |plural: &'static str, name: &str, key: &str, at: &str| {
        (plural, json!({"metadata": {"name": name, "creationTimestamp": at, "annotations": {key: "true"}}}))
    };
    let (storage, ingress) =
        ("storageclass.kubernetes.io/is-default-class", "ingressclass.kubernetes.io/is-default-class");
    let all = cluster([
        class("storageclasses", "old", storage, "2026-01-01T00:00:00Z"),
        class("storageclasses", "b", storage, "2026-02-01T00:00:00Z"),
        class("storageclasses", "a", storage, "2026-02-01T00:00:00Z"),
        class("ingressclasses", "nginx", ingress, "2026-01-01T00:00:00Z"),
    ]);
    let claims = || Case::create(&all, "", "persistentvolumeclaims", true);
    let (done, _) = claims().run(&DefaultStorageClass, json!({"metadata": {"name": "c"}, "spec": {}})).await.unwrap();
    assert_eq!(done["spec"]["storageClassName"], "a");
    let none = json!({"metadata": {"name": "c"}, "spec": {"storageClassName": ""}});
    assert_eq!(claims().run(&DefaultStorageClass, none.clone()).await.unwrap().0, none);
    let ingresses = || Case::create(&all, "networking.k8s.io", "ingresses", true);
    let (done, _) =
        ingresses().run(&DefaultIngressClass, json!({"metadata": {"name": "i"}, "spec": {}})).await.unwrap();
    assert_eq!(done["spec"]["ingressClassName"], "nginx");
}

#[tokio::test]
async fn a_runtime_class_adds_overhead_and_nodes() {
    let all = cluster([(
        "runtimeclasses",
        json!({"metadata": {"name": "vm"}, "handler": "vm",
        "overhead": {"podFixed": {"memory": "64Mi"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm"}]}}),
    )]);
    let (done, _) = Case::pods(&all).run(&RuntimeClass, pod("p", json!({"runtimeClassName": "vm"}))).await.unwrap();
    let spec = &done["spec"];
    assert_eq!((&spec["overhead"], &spec["nodeSelector"]), (&json!({"memory": "64Mi"}), &json!({"vm": "yes"})));
    assert_eq!(list(&spec["tolerations"]).len(), 1);
    for (spec, word) in [
        (json!({"runtimeClassName": "lost"}), "RuntimeClass \"lost\" not found"),
        (json!({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}), "conflict: runtimeClass"),
        (json!({"overhead": {"cpu": "1"}}), "without corresponding RuntimeClass"),
    ] {
        let error = Case::pods(&all).run(&RuntimeClass, pod("p", spec)).await.unwrap_err().1;
        assert!(error.contains(word), "{error}");
    }
}

#[tokio::test]
async fn limit_ranges_set_defaults_and_bounds() {
    let range = json!({"metadata": {"name": "r", "namespace": "dev"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"},
         "min": {"cpu": "100m"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "4"}},
        {"type": "Pod", "max": {"cpu": "3"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
    ]}});
    let all = cluster([("limitranges", range)]);
    let (done, _) = Case::pods(&all).run(&LimitRanger, pod("p", json!({}))).await.unwrap();
    let expected = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}});
    assert_eq!(done["spec"]["containers"][0]["resources"], expected);
    assert_eq!(
        done["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let sized = |request: &str, limit: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": request}, "limits": {"cpu": limit}}}]});
    for (spec, why) in [
        (sized("50m", "150m"), "minimum cpu usage per Container is 100m, but request is 50m"),
        (sized("1", "2500m"), "maximum cpu usage per Container is 2, but limit is 2500m"),
        (sized("200m", "1"), "cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000"),
        (
            json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}},
                {"name": "b", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}}]}),
            "maximum cpu usage per Pod is 3, but limit is 4",
        ),
    ] {
        let error = Case::pods(&all).run(&LimitRanger, pod("p", spec)).await.unwrap_err();
        assert_eq!(error, (403, format!("pods \"p\" is forbidden: {why}")));
    }
    let claim = json!({"metadata": {"name": "c"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let error = Case::create(&all, "", "persistentvolumeclaims", true).run(&LimitRanger, claim).await.unwrap_err().1;
    assert!(error.ends_with("maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"), "{error}");
}

fn quota(spec: Value) -> (&'static str, Value) {
    ("resourcequotas", json!({"metadata": {"name": "q", "namespace": "dev"}, "spec": spec}))
}

#[tokio::test]
async fn quotas_count_objects_and_compute() {
    let all = cluster([quota(json!({"hard": {"pods": "2", "requests.cpu": "1", "count/deployments.apps": "1"}}))]);
    let plugin = ResourceQuota::default();
    let sized = |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
    let error = Case::pods(&all).run(&plugin, pod("p", json!({}))).await.unwrap_err().1;
    assert_eq!(error, "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    Case::pods(&all).run(&plugin, pod("p1", sized("600m"))).await.unwrap();
    let error = Case::pods(&all).run(&plugin, pod("p2", sized("500m"))).await.unwrap_err().1;
    let why = "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1";
    assert_eq!(error, format!("pods \"p2\" is forbidden: {why}"));
    // Stored, it still counts once; gone, no longer.
    all.put("pods", pod("p1", sized("600m")));
    Case::pods(&all).run(&plugin, pod("p2", sized("400m"))).await.unwrap();
    let error = Case::pods(&all).run(&plugin, pod("p3", sized("1m"))).await.unwrap_err().1;
    assert!(error.contains("requested: pods=1,requests.cpu=1m, used: pods=2,requests.cpu=1"), "{error}");
    all.remove("pods", "dev", "p1");
    Case::pods(&all).delete(pod("p2", sized("400m"))).run(&plugin, Value::Null).await.unwrap();
    Case::pods(&all).run(&plugin, pod("p3", sized("1"))).await.unwrap();

    let deployment = |name: &str| json!({"metadata": {"name": name, "namespace": "dev"}});
    let case = || Case::create(&all, "apps", "deployments", true);
    case().run(&plugin, deployment("a")).await.unwrap();
    assert!(case().run(&plugin, deployment("b")).await.is_err());
}

#[tokio::test]
async fn quotas_hold_for_many_at_once() {
    let all = cluster([quota(json!({"hard": {"pods": "7"}}))]);
    let plugin = Arc::new(ResourceQuota::default());
    let tries = (0..50).map(|i| {
        let (all, plugin) = (Arc::clone(&all), Arc::clone(&plugin));
        tokio::spawn(async move {
            let name = format!("p{i}");
            let admitted = Case::pods(&all).run(&*plugin, pod(&name, json!({}))).await.is_ok();
            if admitted {
                tokio::task::yield_now().await;
                all.put("pods", pod(&name, json!({})));
            }
            admitted
        })
    });
    let admitted = futures::future::join_all(tries).await.into_iter().filter(|r| *r.as_ref().unwrap()).count();
    assert_eq!(admitted, 7);
}

#[tokio::test]
async fn scoped_quotas_look_at_their_pods_only() {
    let all = cluster([quota(json!({"hard": {"pods": "0"}, "scopes": ["BestEffort"]}))]);
    let plugin = ResourceQuota::default();
    assert!(Case::pods(&all).run(&plugin, pod("p", json!({}))).await.is_err());
    let sized = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]});
    Case::pods(&all).run(&plugin, pod("p", sized)).await.unwrap();
    let class = json!({"hard": {"pods": "0"}, "scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}});
    let all = cluster([quota(class)]);
    assert!(Case::pods(&all).run(&plugin, pod("p", json!({"priorityClassName": "high"}))).await.is_err());
    Case::pods(&all).run(&plugin, pod("p", json!({"priorityClassName": "low"}))).await.unwrap();
}

#[tokio::test]
async fn nodes_write_only_what_is_theirs() {
    let mirror = |node: &str| {
        let mut pod = pod("p", json!({"nodeName": node}));
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        pod
    };
    let on = |node: &str| {
        let mut pod = pod("p", json!({"nodeName": node}));
        pod["metadata"]["uid"] = "u".into();
        pod
    };
    let all = cluster([("pods", on("n1"))]);
    let node = || UserInfo::new("system:node:n1", ["system:nodes"]);
    let pods = || Case::pods(&all).by(node());
    let nodes = || Case::create(&all, "", "nodes", false).by(node());
    let leases = |ns| Case { namespace: ns, ..Case::create(&all, "coordination.k8s.io", "leases", true).by(node()) };
    let named = |name: &str| json!({"metadata": {"name": name}});
    let labelled = |key: &str| json!({"metadata": {"name": "n1", "labels": {key: "x"}}});
    let tainted = json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let token =
        |uid: &str| json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}});
    let tokens = || Case::create(&all, "", "serviceaccounts", true).by(node()).sub("token");
    for (case, object, word) in [
        (pods(), mirror("n1"), ""),
        (pods(), mirror("n2"), "can only create pods with spec.nodeName set to itself"),
        (pods(), on("n1"), "can only create mirror pods"),
        (pods().delete(on("n1")), Value::Null, ""),
        (pods().delete(on("n2")), Value::Null, "can only delete pods"),
        (pods().update(on("n1")).sub("status"), on("n1"), ""),
        (pods().update(on("n2")).sub("status"), on("n2"), "can only update pod status"),
        (nodes(), named("n1"), ""),
        (nodes(), named("n2"), "is not allowed to modify node \"n2\""),
        (nodes(), labelled("node-restriction.kubernetes.io/x"), "not allowed to set the following labels"),
        (nodes(), labelled("kubernetes.io/hostname"), ""),
        (nodes(), labelled("example.com/x"), ""),
        (nodes().update(named("n1")), labelled("foo.kubernetes.io/x"), "is not allowed to modify labels"),
        (nodes().update(named("n1")), tainted.clone(), "is not allowed to modify taints"),
        (leases("kube-node-lease"), named("n1"), ""),
        (leases("kube-node-lease"), named("n2"), "same name as the requesting node"),
        (leases("dev"), named("n1"), "can only access leases"),
        (tokens(), token("u"), ""),
        (tokens(), token("v"), "does not match the UID in record"),
        (tokens(), token(""), "without a uid"),
        (tokens(), json!({"spec": {}}), "not bound to a pod"),
        (Case::create(&all, "", "nodes", false), tainted, ""),
        (nodes().by(UserInfo::new("x", ["system:nodes"])), named("n1"), "could not determine node"),
    ] {
        let result = case.run(&NodeRestriction, object).await;
        match (word, &result) {
            ("", Ok(_)) => {}
            (word, Err((403, message))) if !word.is_empty() && message.contains(word) => {}
            _ => panic!("expected {word:?}, got {result:?}"),
        }
    }
}

#[tokio::test]
async fn certificates_for_masters_are_refused() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let request = |organization: &[u8]| {
        let mut der = vec![0x30, 0x20, 0x06, 0x03, 0x55, 0x04, 0x0a, 0x0c, organization.len() as u8];
        der.extend_from_slice(organization);
        let pem = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(der)
        );
        json!({"metadata": {"name": "r"},
            "spec": {"signerName": "kubernetes.io/kube-apiserver-client", "request": STANDARD.encode(pem)}})
    };
    let all = cluster([]);
    let case = || Case::create(&all, "certificates.k8s.io", "certificatesigningrequests", false);
    let error = case().run(&CertificateSubjectRestriction, request(b"system:masters")).await.unwrap_err().1;
    assert!(error.contains("with system:masters group is not allowed"), "{error}");
    case().run(&CertificateSubjectRestriction, request(b"developers")).await.unwrap();
}

#[tokio::test]
async fn signers_and_owners_are_asked_for() {
    use crate::server::{Decision, authz::AlwaysAllow};
    struct Never;
    #[async_trait]
    impl Authorizer for Never {
        async fn authorize(&self, _: &Attributes) -> Decision {
            Decision::NoOpinion(String::new())
        }
    }
    let all = cluster([]);
    let csr = |certificate: &str| json!({"metadata": {"name": "r"}, "spec": {"signerName": "example.com/s"}, "status": {"certificate": certificate}});
    let case =
        |sub| Case::create(&all, "certificates.k8s.io", "certificatesigningrequests", false).update(csr("")).sub(sub);
    let never: Arc<dyn Authorizer> = Arc::new(Never);
    let always: Arc<dyn Authorizer> = Arc::new(AlwaysAllow);
    for (authorizer, allowed) in [(&never, false), (&always, true)] {
        let approval = CertificateApproval::new(Arc::clone(authorizer));
        assert_eq!(case("approval").run(&approval, csr("")).await.is_ok(), allowed);
        let signing = CertificateSigning::new(Arc::clone(authorizer));
        assert_eq!(case("status").run(&signing, csr("x")).await.is_ok(), allowed);
        assert!(case("status").run(&signing, csr("")).await.is_ok());
        let known = vec![Resource::new("apps", "v1", "Deployment", "deployments", true)];
        let owners = OwnerReferencesPermissionEnforcement::new(Arc::clone(authorizer), known);
        let owned = |block: bool| {
            let mut pod = pod("p", json!({}));
            pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d",
                "uid": "u", "blockOwnerDeletion": block}]);
            pod
        };
        assert!(Case::pods(&all).run(&owners, owned(false)).await.is_ok());
        assert_eq!(Case::pods(&all).run(&owners, owned(true)).await.is_ok(), allowed);
        let update = Case::pods(&all).update(pod("p", json!({})));
        assert_eq!(update.run(&owners, owned(false)).await.is_ok(), allowed);
    }
}

mod pod_security {
    use super::*;

    async fn create(labels: Value, spec: Value) -> Result<Vec<String>, String> {
        let all = cluster([("namespaces", namespace("dev", labels))]);
        let result = Case::pods(&all).run(&PodSecurity::default(), pod("p", spec)).await;
        result.map(|(_, warnings)| warnings).map_err(|(_, message)| message)
    }

    fn hardened() -> Value {
        json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext":
                {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        })
    }

    #[tokio::test]
    async fn levels_are_enforced_and_warned_of() {
        let enforce = |level: &str| json!({"pod-security.kubernetes.io/enforce": level});
        let privileged = json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]});
        assert!(create(json!({}), privileged.clone()).await.unwrap().is_empty());
        assert_eq!(
            create(enforce("baseline"), privileged.clone()).await.unwrap_err(),
            "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set \
             securityContext.privileged=true)"
        );
        assert_eq!(
            create(enforce("restricted"), json!({})).await.unwrap_err(),
            "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false \
             (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities \
             (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or \
             container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
             securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        create(enforce("restricted"), hardened()).await.unwrap();
        let warn =
            json!({"pod-security.kubernetes.io/warn": "baseline", "pod-security.kubernetes.io/warn-version": "v1.30"});
        let warnings = create(warn, privileged).await.unwrap();
        assert!(warnings[0].starts_with("would violate PodSecurity \"baseline:v1.30\": privileged"), "{warnings:?}");
    }

    #[test]
    fn every_check_has_its_words() {
        let container = |context: Value| json!({"containers": [{"name": "c", "securityContext": context}]});
        let violations = |level: Level, spec: Value| {
            let found = level.violations(&Value::Null, &spec);
            found.iter().map(Violation::to_string).collect::<Vec<_>>()
        };
        for (spec, expected) in [
            (json!({"hostNetwork": true, "hostPID": true}), "host namespaces (hostNetwork=true, hostPID=true)"),
            (
                container(json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}})),
                "non-default capabilities (container \"c\" must not include \"NET_ADMIN\" in \
                 securityContext.capabilities.add)",
            ),
            (
                json!({"volumes": [{"name": "a", "hostPath": {}}, {"name": "b", "hostPath": {}}]}),
                "hostPath volumes (volumes \"a\", \"b\")",
            ),
            (
                json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}, {"hostPort": 443}]}]}),
                "hostPort (container \"c\" uses hostPorts 80, 443)",
            ),
            (
                json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]}),
                "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")",
            ),
            (
                container(json!({"procMount": "Unmasked"})),
                "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
            ),
            (
                json!({"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u"}}}),
                "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
            ),
            (
                container(json!({"seccompProfile": {"type": "Unconfined"}})),
                "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_syncookies"}]}}),
                "forbidden sysctls (kernel.msgmax)",
            ),
            (
                json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
                "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
            ),
            (
                json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
                "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
            ),
        ] {
            assert_eq!(violations(Level::Baseline, spec), [expected]);
        }
        let with = |path: &str, value: Value| {
            let mut spec = hardened();
            *spec.pointer_mut(path).unwrap() = value;
            violations(Level::Restricted, spec)
        };
        assert!(violations(Level::Restricted, hardened()).is_empty());
        let volume = json!([{"name": "v", "nfs": {"server": "s", "path": "/"}}]);
        let expected = "restricted volume types (volume \"v\" uses restricted volume type \"nfs\")";
        assert_eq!(with("/volumes", volume), [expected]);
        let root = json!({"runAsNonRoot": true, "runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(with("/securityContext", root), ["runAsUser=0 (pod must not set runAsUser=0)"]);
        let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["SYS_TIME"]},
            "runAsNonRoot": false});
        assert_eq!(
            with("/containers/0/securityContext", context),
            [
                "unrestricted capabilities (container \"c\" must not include \"SYS_TIME\" in \
                 securityContext.capabilities.add)",
                "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
            ]
        );
    }

    #[tokio::test]
    async fn namespaces_name_real_levels_and_learn_of_pods_that_break_them() {
        let all = cluster([("pods", pod("a", json!({"hostPID": true}))), ("pods", pod("b", json!({"hostPID": true})))]);
        let case = || Case::create(&all, "", "namespaces", false).update(namespace("dev", json!({})));
        let labels = |level: &str| namespace("dev", json!({"pod-security.kubernetes.io/enforce": level}));
        let plugin = PodSecurity::default();
        let (code, message) = case().run(&plugin, labels("strict")).await.unwrap_err();
        assert_eq!(code, 422);
        assert!(message.contains("must be one of privileged, baseline, restricted"), "{message}");
        let (_, warnings) = case().run(&plugin, labels("baseline")).await.unwrap();
        assert_eq!(warnings[1], "a (and 1 other pod): host namespaces");
    }
}

#[tokio::test]
async fn a_closure_is_a_plugin() {
    let all = cluster([]);
    let plugin = mutating_fn(
        "Labels",
        |operation, resource, _| operation == Operation::Create && resource.plural == "pods",
        |request| {
            let Some(pod) = &mut request.object else { return Ok(()) };
            pod["metadata"]["labels"] = json!({"seen": "yes"});
            Ok(())
        },
    );
    let (done, _) = Case::pods(&all).run(&*plugin, pod("p", json!({}))).await.unwrap();
    assert_eq!(done["metadata"]["labels"]["seen"], "yes");
}
