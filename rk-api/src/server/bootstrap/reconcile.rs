//! What has to change on a bootstrap object that is there.

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use crate::server::authz::covers;

/// The annotation of FlowSchemas and priority levels whose spec is kept as it is here.
const AUTO: &str = "apf.kubernetes.io/autoupdate-spec";

/// The change of one object.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    /// All is well.
    None,
    /// It is missing.
    Create,
    /// It shall be this.
    Update(Value),
    /// What is wrong can't be changed in place.
    Replace,
}

/// Compares an object with what it shall be.
pub(super) fn change(known: &Value, wanted: &Value) -> Change {
    match wanted["kind"].as_str().unwrap_or_default() {
        "ClusterRole" | "Role" if updates(known) => role(known, wanted),
        "ClusterRoleBinding" | "RoleBinding" if updates(known) => binding(known, wanted),
        "Service" => service(known, wanted),
        "Endpoints" => fields(known, wanted, &["subsets"]),
        "EndpointSlice" => fields(known, wanted, &["endpoints", "ports"]),
        "ConfigMap" => fields(known, wanted, &["data"]),
        "FlowSchema" | "PriorityLevelConfiguration" if known["metadata"]["annotations"][AUTO] == "true" => {
            fields(known, wanted, &["spec"])
        }
        _ => Change::None,
    }
}

fn updates(known: &Value) -> bool {
    known["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] != "false"
}

fn rules(role: &Value) -> Vec<PolicyRule> {
    serde_json::from_value(role["rules"].clone()).unwrap_or_default()
}

fn role(known: &Value, wanted: &Value) -> Change {
    let (held, asked) = (rules(known), rules(wanted));
    let missing: Vec<_> = asked
        .iter()
        .filter(|rule| !covers(&held, std::slice::from_ref(rule)).is_empty())
        .map(|rule| json!(rule))
        .collect();
    let mut updated = known.clone();
    if !missing.is_empty() {
        let mut all = known["rules"].as_array().cloned().unwrap_or_default();
        all.extend(missing);
        updated["rules"] = Value::Array(all);
    }
    if !wanted["aggregationRule"].is_null() {
        updated["aggregationRule"] = wanted["aggregationRule"].clone();
    }
    labels(&mut updated, wanted);
    if updated == *known { Change::None } else { Change::Update(updated) }
}

fn labels(updated: &mut Value, wanted: &Value) {
    for (key, value) in wanted["metadata"]["labels"].as_object().into_iter().flatten() {
        updated["metadata"]["labels"][key] = value.clone();
    }
}

fn binding(known: &Value, wanted: &Value) -> Change {
    let same = |a: &Value, b: &Value| ["kind", "name", "namespace"].iter().all(|field| a[field] == b[field]);
    if !same(&known["roleRef"], &wanted["roleRef"]) {
        return Change::Replace;
    }
    let held = known["subjects"].as_array().cloned().unwrap_or_default();
    let asked = wanted["subjects"].as_array().into_iter().flatten();
    let missing: Vec<_> = asked.filter(|subject| !held.iter().any(|known| same(known, subject))).cloned().collect();
    if missing.is_empty() {
        return Change::None;
    }
    let mut updated = known.clone();
    updated["subjects"] = Value::Array(held.into_iter().chain(missing).collect());
    Change::Update(updated)
}

fn service(known: &Value, wanted: &Value) -> Change {
    if known["spec"]["clusterIP"] != wanted["spec"]["clusterIP"] {
        return Change::Replace;
    }
    let port = |service: &Value, field: &str| service["spec"]["ports"][0][field].clone();
    if ["port", "targetPort"].iter().all(|field| port(known, field) == port(wanted, field)) {
        return Change::None;
    }
    let mut updated = known.clone();
    updated["spec"]["ports"] = wanted["spec"]["ports"].clone();
    Change::Update(updated)
}

fn fields(known: &Value, wanted: &Value, names: &[&str]) -> Change {
    let mut updated = known.clone();
    for name in names {
        updated[*name] = wanted[*name].clone();
    }
    if updated == *known { Change::None } else { Change::Update(updated) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_gain_what_is_missing_and_keep_what_was_added() {
        let rule = |resource: &str, verbs: &[&str]| json!({"apiGroups": [""], "resources": [resource], "verbs": verbs});
        let role =
            |rules: Vec<Value>| json!({"kind": "ClusterRole", "metadata": {"labels": {"a": "b"}}, "rules": rules});
        let wanted = role(vec![rule("pods", &["get", "list"])]);
        assert_eq!(change(&role(vec![rule("pods", &["get", "list", "watch"])]), &wanted), Change::None);
        let Change::Update(updated) = change(&role(vec![rule("secrets", &["get"])]), &wanted) else { panic!() };
        assert_eq!(updated["rules"].as_array().unwrap().len(), 2);
        let mut left_alone = role(vec![]);
        left_alone["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "false"});
        assert_eq!(change(&left_alone, &wanted), Change::None);
    }

    #[test]
    fn bindings_to_another_role_are_replaced() {
        let binding = |role: &str, users: &[&str]| {
            let subjects: Vec<_> = users.iter().map(|name| json!({"kind": "User", "name": name})).collect();
            json!({"kind": "ClusterRoleBinding", "metadata": {},
                "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects})
        };
        assert_eq!(change(&binding("other", &["a"]), &binding("role", &["a"])), Change::Replace);
        assert_eq!(change(&binding("role", &["a", "b"]), &binding("role", &["a"])), Change::None);
        let Change::Update(updated) = change(&binding("role", &["b"]), &binding("role", &["a"])) else { panic!() };
        assert_eq!(updated["subjects"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn the_service_follows_the_port_and_is_replaced_with_another_address() {
        let service = |ip: &str, port: u16| json!({"kind": "Service", "spec": {"clusterIP": ip, "ports": [{"port": 443, "targetPort": port}]}});
        assert_eq!(change(&service("10.0.0.1", 6443), &service("10.0.0.1", 6443)), Change::None);
        assert_eq!(change(&service("10.0.0.1", 6443), &service("10.1.0.1", 6443)), Change::Replace);
        assert!(matches!(change(&service("10.0.0.1", 1), &service("10.0.0.1", 2)), Change::Update(_)));
    }
}
