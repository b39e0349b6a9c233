use super::*;
use crate::server::{
    authz::{EscalationCheck, rule_allows},
    fixture::Objects,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn role(kind: &str, namespace: &str, name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "rules": rules})
}

fn binding(kind: &str, namespace: &str, name: &str, role: (&str, &str), subjects: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": GROUP, "kind": role.0, "name": role.1}, "subjects": subjects})
}

fn cluster() -> Arc<Objects> {
    let user = |name: &str| json!([{"kind": "User", "name": name}]);
    Objects::new([
        (
            "clusterroles",
            role(
                "ClusterRole",
                "",
                "reader",
                json!([rule(&["", "apps"], &["pods", "pods/log", "deployments"], &["get", "list"])]),
            ),
        ),
        ("clusterroles", {
            let mut part = role("ClusterRole", "", "part", json!([rule(&["example.com"], &["widgets"], &["*"])]));
            part["metadata"]["labels"] = json!({"to": "whole"});
            part
        }),
        ("clusterroles", {
            let mut whole = role("ClusterRole", "", "whole", Value::Null);
            whole["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"to": "whole"}}]});
            whole
        }),
        (
            "clusterroles",
            role("ClusterRole", "", "paths", json!([{"nonResourceURLs": ["/metrics", "/logs/*"], "verbs": ["get"]}])),
        ),
        (
            "roles",
            role(
                "Role",
                "dev",
                "secret",
                json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]}]),
            ),
        ),
        (
            "clusterrolebindings",
            binding(
                "ClusterRoleBinding",
                "",
                "readers",
                ("ClusterRole", "reader"),
                json!([{"kind": "Group", "name": "staff"}]),
            ),
        ),
        ("clusterrolebindings", binding("ClusterRoleBinding", "", "whole", ("ClusterRole", "whole"), user("wendy"))),
        ("clusterrolebindings", binding("ClusterRoleBinding", "", "paths", ("ClusterRole", "paths"), user("pat"))),
        ("clusterrolebindings", binding("ClusterRoleBinding", "", "lost", ("ClusterRole", "absent"), user("luke"))),
        ("rolebindings", binding("RoleBinding", "dev", "reads", ("ClusterRole", "reader"), user("rob"))),
        (
            "rolebindings",
            binding(
                "RoleBinding",
                "dev",
                "secrets",
                ("Role", "secret"),
                json!([{"kind": "ServiceAccount", "name": "bot"}]),
            ),
        ),
    ])
}

fn ask(user: &str, groups: &[&str], verb: &str, what: &str, namespace: &str, name: &str) -> Attributes {
    let user = Arc::new(UserInfo::new(user, groups.iter().copied()));
    if what.starts_with('/') {
        return Attributes { user, verb: verb.into(), path: what.into(), ..Attributes::default() };
    }
    let (what, group) = what.split_once('.').unwrap_or((what, ""));
    let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
    Attributes {
        user,
        verb: verb.into(),
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..Attributes::default()
    }
}

#[tokio::test]
async fn decisions_and_reasons_are_those_of_kubernetes() {
    let rbac = Rbac::new(cluster());
    let readers = r#"RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to Group "staff""#;
    let reads = r#"RBAC: allowed by RoleBinding "reads/dev" of ClusterRole "reader" to User "rob""#;
    let bot = "system:serviceaccount:dev:bot";
    let secrets = r#"RBAC: allowed by RoleBinding "secrets/dev" of Role "secret" to ServiceAccount "bot/dev""#;
    let whole = r#"RBAC: allowed by ClusterRoleBinding "whole" of ClusterRole "whole" to User "wendy""#;
    let paths = r#"RBAC: allowed by ClusterRoleBinding "paths" of ClusterRole "paths" to User "pat""#;
    let staff: &[&str] = &["staff"];
    for (attributes, reason) in [
        (ask("ann", staff, "get", "pods", "any", "p"), Some(readers)),
        (ask("ann", staff, "list", "pods", "", ""), Some(readers)),
        (ask("ann", staff, "get", "pods/log", "any", "p"), Some(readers)),
        (ask("ann", staff, "get", "deployments.apps", "any", "d"), Some(readers)),
        (ask("ann", staff, "delete", "pods", "any", "p"), None),
        (ask("ann", staff, "get", "pods/exec", "any", "p"), None),
        (ask("ann", &[], "get", "pods", "any", "p"), None),
        (ask("rob", &[], "get", "pods", "dev", "p"), Some(reads)),
        (ask("rob", &[], "get", "pods", "prod", "p"), None),
        (ask("rob", &[], "list", "pods", "", ""), None),
        (ask(bot, &[], "get", "secrets", "dev", "a"), Some(secrets)),
        (ask(bot, &[], "get", "secrets", "dev", "b"), None),
        (ask(bot, &[], "list", "secrets", "dev", ""), None),
        (ask("system:serviceaccount:prod:bot", &[], "get", "secrets", "dev", "a"), None),
        (ask("wendy", &[], "create", "widgets.example.com", "x", ""), Some(whole)),
        (ask("pat", &[], "get", "/metrics", "", ""), Some(paths)),
        (ask("pat", &[], "get", "/logs/a", "", ""), Some(paths)),
        (ask("pat", &[], "get", "/version", "", ""), None),
        (ask("pat", &[], "post", "/metrics", "", ""), None),
    ] {
        let expected = match reason {
            Some(reason) => Decision::Allow(reason.to_owned()),
            None => Decision::NoOpinion(String::new()),
        };
        assert_eq!(rbac.authorize(&attributes).await, expected, "{attributes:?}");
    }
    let lost = r#"RBAC: clusterrole.rbac.authorization.k8s.io "absent" not found"#;
    let luke = ask("luke", &[], "get", "pods", "dev", "p");
    assert_eq!(rbac.authorize(&luke).await, Decision::NoOpinion(lost.to_owned()));
}

#[tokio::test]
async fn a_changed_role_or_binding_counts_at_once() {
    let objects = cluster();
    let rbac = Rbac::new(objects.clone());
    let rob = ask("rob", &[], "delete", "pods", "dev", "p");
    let allowed = async || matches!(rbac.authorize(&rob).await, Decision::Allow(_));
    assert!(!allowed().await);
    objects.put("clusterroles", role("ClusterRole", "", "reader", json!([rule(&[""], &["pods"], &["delete"])])));
    assert!(allowed().await);
    objects.remove("rolebindings", "dev", "reads");
    assert!(!allowed().await);
    objects.put(
        "rolebindings",
        binding("RoleBinding", "dev", "again", ("ClusterRole", "reader"), json!([{"kind": "User", "name": "rob"}])),
    );
    assert!(allowed().await);
}

mod escalation {
    use super::*;
    use crate::{
        Resource,
        server::{AdmissionRequest, Admit, Operation},
    };

    async fn write(user: UserInfo, plural: &str, namespace: &str, object: Value) -> Result<(), (u16, String)> {
        let objects = cluster();
        objects.put(
            "rolebindings",
            binding("RoleBinding", "dev", "binder", ("Role", "binder"), json!([{"kind": "User", "name": "bea"}])),
        );
        objects.put(
            "roles",
            role("Role", "dev", "binder", json!([
                {"apiGroups": [GROUP], "resources": ["roles"], "verbs": ["bind", "escalate"], "resourceNames": ["secret"]}
            ])),
        );
        let rbac = Arc::new(Rbac::new(objects.clone()));
        let check = EscalationCheck::new(rbac.clone(), rbac);
        let kind = object["kind"].as_str().unwrap().to_owned();
        let resource = Resource::new(GROUP, "v1", &kind, plural, !namespace.is_empty());
        assert!(check.handles(Operation::Create, &resource, ""));
        let attributes = Attributes {
            user: Arc::new(user),
            verb: "create".into(),
            group: GROUP.into(),
            resource: plural.into(),
            namespace: namespace.into(),
            ..Attributes::default()
        };
        let request = AdmissionRequest {
            attributes,
            resource,
            operation: Operation::Create,
            object: Some(object),
            old_object: None,
            options: Value::Null,
            dry_run: false,
            warnings: Vec::new(),
            notes: Default::default(),
        };
        let result = check.validate(&request, &*objects).await;
        result.map_err(|status| (status.code.unwrap() as u16, status.message.unwrap()))
    }

    #[tokio::test]
    async fn nobody_grants_what_they_do_not_hold() {
        let rob = || UserInfo::new("rob", ["system:authenticated"]);
        let pods = json!([rule(&[""], &["pods"], &["get", "delete"])]);
        let (code, message) = write(rob(), "roles", "dev", role("Role", "dev", "new", pods.clone())).await.unwrap_err();
        assert_eq!(code, 403);
        assert_eq!(
            message,
            "roles.rbac.authorization.k8s.io \"new\" is forbidden: user \"rob\" (groups=[\"system:authenticated\"]) is \
             attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], \
             Verbs:[\"delete\"]}"
        );
        let held = json!([rule(&[""], &["pods"], &["get"])]);
        write(rob(), "roles", "dev", role("Role", "dev", "new", held)).await.unwrap();
        write(UserInfo::loopback(), "roles", "dev", role("Role", "dev", "new", pods)).await.unwrap();
        // What one holds in a namespace does not count for the cluster.
        let held = json!([rule(&[""], &["pods"], &["get"])]);
        assert!(write(rob(), "clusterroles", "", role("ClusterRole", "", "new", held)).await.is_err());
    }

    #[tokio::test]
    async fn binding_and_escalating_can_be_allowed_by_name() {
        let bea = || UserInfo::new("bea", []);
        let subjects = json!([{"kind": "User", "name": "x"}]);
        let bind = |role: &str| binding("RoleBinding", "dev", "b", ("Role", role), subjects.clone());
        write(bea(), "rolebindings", "dev", bind("secret")).await.unwrap();
        assert_eq!(write(bea(), "rolebindings", "dev", bind("binder")).await.map_err(|e| e.0), Ok(()));
        assert_eq!(write(UserInfo::new("eve", []), "rolebindings", "dev", bind("secret")).await.unwrap_err().0, 403);
        assert_eq!(write(bea(), "rolebindings", "dev", bind("absent")).await.unwrap_err().0, 404);
        let everything = json!([rule(&["*"], &["*"], &["*"])]);
        write(bea(), "roles", "dev", role("Role", "dev", "secret", everything.clone())).await.unwrap();
        assert!(write(bea(), "roles", "dev", role("Role", "dev", "other", everything)).await.is_err());
    }

    #[tokio::test]
    async fn aggregation_needs_everything() {
        let mut whole = role("ClusterRole", "", "mine", Value::Null);
        whole["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
        let (code, message) = write(UserInfo::new("eve", []), "clusterroles", "", whole).await.unwrap_err();
        assert_eq!(code, 403);
        assert!(message.ends_with("must have cluster-admin privileges to use an aggregationRule"), "{message}");
    }
}

/// Kubernetes' rule in its plainest form: some binding that names the user, in the request's namespace or the cluster,
/// refers to a role with a rule that allows the request.
fn naive(objects: &[(String, Value)], attributes: &Attributes) -> bool {
    let find = |plural: &str, namespace: &str, name: &str| {
        objects
            .iter()
            .find(|(p, o)| p == plural && o["metadata"]["name"] == name && o["metadata"]["namespace"] == namespace)
    };
    objects.iter().any(|(plural, object)| {
        let namespace = object["metadata"]["namespace"].as_str().unwrap();
        let applies = match plural.as_str() {
            "clusterrolebindings" => true,
            "rolebindings" => !attributes.namespace.is_empty() && namespace == attributes.namespace,
            _ => false,
        };
        let names = |subject: &Value| match subject["kind"].as_str().unwrap() {
            "User" => subject["name"] == attributes.user.name,
            "Group" => attributes.user.groups.iter().any(|group| subject["name"] == *group),
            _ => {
                let own = subject["namespace"].as_str().unwrap_or(namespace);
                let name = subject["name"].as_str().unwrap();
                !own.is_empty() && attributes.user.name == format!("system:serviceaccount:{own}:{name}")
            }
        };
        if !applies || !object["subjects"].as_array().unwrap().iter().any(names) {
            return false;
        }
        let role = object["roleRef"]["name"].as_str().unwrap();
        let role = match object["roleRef"]["kind"].as_str().unwrap() {
            "ClusterRole" => find("clusterroles", "", role),
            _ => find("roles", namespace, role),
        };
        let rules: Vec<PolicyRule> =
            role.map_or(Vec::new(), |(_, r)| serde_json::from_value(r["rules"].clone()).unwrap());
        rules.iter().any(|rule| rule_allows(rule, attributes))
    })
}

fn any_of(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(words)
}

fn some_of(words: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(any_of(words), 1..3)
}

fn rules() -> impl Strategy<Value = Value> {
    let one = (
        some_of(&["", "apps", "*"]),
        some_of(&["pods", "pods/log", "*/scale", "*", "deployments"]),
        prop::option::of(some_of(&["a", "b"])),
        some_of(&["get", "list", "*"]),
    )
        .prop_map(|(groups, resources, names, verbs)| {
            let mut rule = rule(&groups, &resources, &verbs);
            if let Some(names) = names {
                rule["resourceNames"] = json!(names);
            }
            rule
        });
    prop::collection::vec(one, 0..8).prop_map(Value::Array)
}

fn subjects() -> impl Strategy<Value = Value> {
    let one = prop_oneof![
        any_of(&["u1", "u2"]).prop_map(|name| json!({"kind": "User", "name": name})),
        any_of(&["g1", "g2"]).prop_map(|name| json!({"kind": "Group", "name": name})),
        any_of(&["s1"]).prop_map(|name| json!({"kind": "ServiceAccount", "name": name})),
        any_of(&["s1"]).prop_map(|name| json!({"kind": "ServiceAccount", "name": name, "namespace": "n1"})),
    ];
    prop::collection::vec(one, 0..3).prop_map(Value::Array)
}

fn objects() -> impl Strategy<Value = Vec<(String, Value)>> {
    let names = || any_of(&["r1", "r2"]);
    let spaces = || any_of(&["n1", "n2"]);
    let one = prop_oneof![
        (names(), rules()).prop_map(|(n, r)| ("clusterroles", role("ClusterRole", "", n, r))),
        (spaces(), names(), rules()).prop_map(|(ns, n, r)| ("roles", role("Role", ns, n, r))),
        (names(), names(), subjects())
            .prop_map(|(n, r, s)| ("clusterrolebindings", binding("ClusterRoleBinding", "", n, ("ClusterRole", r), s))),
        (spaces(), names(), any_of(&["Role", "ClusterRole"]), names(), subjects())
            .prop_map(|(ns, n, kind, r, s)| ("rolebindings", binding("RoleBinding", ns, n, (kind, r), s))),
    ];
    prop::collection::vec(one.prop_map(|(plural, object)| (plural.to_owned(), object)), 0..10).prop_map(|list| {
        // Of two with one name, the last is the one that is there.
        let mut by_key = std::collections::BTreeMap::new();
        for (plural, object) in list {
            let key = (plural, object["metadata"]["namespace"].to_string(), object["metadata"]["name"].to_string());
            by_key.insert(key, object);
        }
        by_key.into_iter().map(|((plural, ..), object)| (plural, object)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// The compiled index decides as the plain rule does, also after changes.
    #[test]
    fn compiled_and_naive_agree(
        states in prop::collection::vec(objects(), 1..3),
        user in any_of(&["u1", "u2", "system:serviceaccount:n1:s1"]),
        group in any_of(&["g1", "g3"]),
        what in any_of(&["pods", "pods/log", "deployments.apps", "deployments/scale.apps"]),
        verb in any_of(&["get", "list", "delete"]),
        namespace in any_of(&["", "n1", "n2"]),
        name in any_of(&["", "a", "c"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let shown = Arc::new(Objects::default());
        let rbac = Rbac::new(shown.clone());
        let (path, api_group) = what.split_once('.').unwrap_or((what, ""));
        let attributes = Attributes { group: api_group.into(), ..ask(user, &[group], verb, path, namespace, name) };
        let mut before: Vec<(String, Value)> = Vec::new();
        for state in states {
            for (plural, object) in &before {
                let meta = &object["metadata"];
                shown.remove(plural, meta["namespace"].as_str().unwrap(), meta["name"].as_str().unwrap());
            }
            for (plural, object) in &state {
                shown.put(plural, object.clone());
            }
            let allowed = matches!(runtime.block_on(rbac.authorize(&attributes)), Decision::Allow(_));
            prop_assert_eq!(allowed, naive(&state, &attributes));
            before = state;
        }
    }
}
