//! FlowSchemas and PriorityLevelConfigurations (apiserver's `flowcontrol/validation`).

use serde_json::Value;

use super::{
    field::{Errors, Path},
    names,
    rules::Rules,
    value::{Peek, at_mut, fill, fill_zero, remove, same},
};
use crate::server::{
    bootstrap,
    flow::{EXEMPT, is_mandatory},
};

/// The last precedence there is.
const LAST: i64 = 10_000;
/// As many queues as a level may have.
const MOST_QUEUES: i64 = 10_000_000;
/// The bits of the hash by which a flow gets its hand of queues.
const HASH_BITS: i64 = 60;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
/// The kinds of subjects, and the field of each.
const SUBJECTS: [(&str, &str); 3] = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];

/// The rules of FlowSchemas.
pub const FLOW_SCHEMA: Rules = Rules {
    default: |schema| {
        if let Some(spec) = at_mut(schema, "spec") {
            fill_zero(spec, "matchingPrecedence", 1000);
        }
    },
    validate: validate_schema,
    validate_change,
    has_status: true,
    ..Rules::NONE
};

/// The rules of PriorityLevelConfigurations.
pub const PRIORITY_LEVEL: Rules =
    Rules { default: default_level, validate: validate_level, validate_change, has_status: true, ..Rules::NONE };

fn default_level(level: &mut Value) {
    for (part, shares) in [("spec.exempt", 0), ("spec.limited", 30)] {
        if let Some(part) = at_mut(level, part) {
            fill(part, "nominalConcurrencyShares", shares);
            fill(part, "lendablePercent", 0);
        }
    }
    if let Some(queuing) = at_mut(level, "spec.limited.limitResponse.queuing") {
        fill_zero(queuing, "handSize", 8);
        fill_zero(queuing, "queues", 64);
        fill_zero(queuing, "queueLengthLimit", 50);
    }
}

/// What the objects that must be as they are have for their specs.
fn mandatory(kind: &str, object: &Value) -> Option<Value> {
    let name = object.text("metadata.name");
    if !is_mandatory(name) {
        return None;
    }
    let all = if kind == "FlowSchema" { bootstrap::flow_schemas() } else { bootstrap::priority_levels() };
    let mut made = all.into_iter().find(|made| made.text("metadata.name") == name)?;
    made.get_mut("spec").map(Value::take)
}

fn validate_schema(schema: &Value, errors: &mut Errors) {
    let (spec, path, name) = (schema.at("spec"), Path::Root.child("spec"), schema.text("metadata.name"));
    let (precedence, field) = (spec.int("matchingPrecedence").unwrap_or(0), path.child("matchingPrecedence"));
    if precedence <= 0 {
        errors.invalid(&field, &precedence, "must be a positive value");
    }
    if precedence > LAST {
        errors.invalid(&field, &precedence, &format!("must not be greater than {LAST}"));
    }
    if (precedence == 1) != (name == EXEMPT) {
        errors.invalid(&field, &precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if spec.has("distinguisherMethod") {
        let (kind, supported) = (spec.text("distinguisherMethod.type"), ["ByNamespace", "ByUser"]);
        if !supported.contains(&kind) {
            errors.not_supported(&path.child("distinguisherMethod.type"), kind, &supported);
        }
    }
    let (level, field) = (spec.text("priorityLevelConfiguration.name"), path.child("priorityLevelConfiguration.name"));
    if level.is_empty() {
        errors.required(&field, "must reference a priority level");
    } else {
        errors.invalid_all(&field, level, names::dns_subdomain(level));
    }
    let list = path.child("rules");
    for (i, rule) in spec.list("rules").iter().enumerate() {
        validate_rule(rule, &list.index(i), errors);
    }
    if mandatory("FlowSchema", schema).is_some_and(|fixed| !same(&fixed, spec)) {
        errors.invalid(&path, spec, &format!("spec of '{name}' must equal the fixed value"));
    }
}

fn validate_rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (subjects, list) = (rule.list("subjects"), path.child("subjects"));
    if subjects.is_empty() {
        errors.required(&list, "subjects must contain at least one value");
    }
    for (i, subject) in subjects.iter().enumerate() {
        validate_subject(subject, &list.index(i), errors);
    }
    let (resources, urls) = (rule.list("resourceRules"), rule.list("nonResourceRules"));
    if resources.is_empty() && urls.is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    let list = path.child("resourceRules");
    for (i, rule) in resources.iter().enumerate() {
        validate_resources(rule, &list.index(i), errors);
    }
    let list = path.child("nonResourceRules");
    for (i, rule) in urls.iter().enumerate() {
        validate_urls(rule, &list.index(i), errors);
    }
}

fn validate_subject(subject: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = subject.text("kind");
    if !SUBJECTS.iter().any(|(known, _)| *known == kind) {
        errors.not_supported(&path.child("kind"), kind, &SUBJECTS.map(|(known, _)| known));
        return;
    }
    for (own, field) in SUBJECTS {
        let (value, path) = (subject.at(field), path.child(field));
        match (own == kind, value.is_null()) {
            (true, true) => errors.required(&path, &format!("{field} is required when subject kind is '{own}'")),
            (true, false) => validate_named(value, own, &path, errors),
            (false, false) => {
                errors.forbidden(&path, &format!("{field} is forbidden when subject kind is not '{own}'"));
            }
            (false, true) => {}
        }
    }
}

/// Who a subject is.
fn validate_named(value: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let (name, field) = (value.text("name"), path.child("name"));
    if name.is_empty() {
        errors.required(&field, "");
    }
    if kind != "ServiceAccount" {
        return;
    }
    if !name.is_empty() && name != "*" {
        errors.invalid_all(&field, name, names::dns_subdomain(name));
    }
    let (namespace, field) = (value.text("namespace"), path.child("namespace"));
    if namespace.is_empty() {
        errors.required(&field, "must specify namespace for service account");
    } else {
        errors.invalid_all(&field, namespace, names::dns_label(namespace));
    }
}

fn texts<'a>(rule: &'a Value, field: &str) -> Vec<&'a str> {
    rule.list(field).iter().filter_map(Value::as_str).collect()
}

/// A list that is not empty, in which `*` stands alone. Answers what is in it if that is to be looked at one by one.
fn wildcard<'a>(
    rule: &'a Value,
    field: &str,
    (empty, others): (&str, &str),
    path: &Path<'_>,
    errors: &mut Errors,
) -> Vec<&'a str> {
    let (values, path) = (texts(rule, field), path.child(field));
    if values.is_empty() {
        errors.required(&path, empty);
    } else if values.contains(&"*") {
        if values.len() > 1 {
            errors.invalid(&path, rule.at(field), &format!("if '*' is present, must not specify other {others}"));
        }
        return Vec::new();
    }
    values
}

fn validate_verbs(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let verbs = wildcard(rule, "verbs", ("verbs must contain at least one value", "verbs"), path, errors);
    if !verbs.iter().all(|verb| VERBS.contains(verb)) {
        errors.not_supported(&path.child("verbs"), rule.at("verbs"), &VERBS);
    }
}

fn validate_resources(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    validate_verbs(rule, path, errors);
    let words = ("resource rules must supply at least one api group", "api groups");
    wildcard(rule, "apiGroups", words, path, errors);
    let words = ("resource rules must supply at least one resource", "resources");
    wildcard(rule, "resources", words, path, errors);
    if texts(rule, "namespaces").is_empty() && rule.flag("clusterScope") {
        return;
    }
    let empty = "resource rules that are not cluster scoped must supply at least one namespace";
    let list = path.child("namespaces");
    for (i, name) in wildcard(rule, "namespaces", (empty, "namespaces"), path, errors).into_iter().enumerate() {
        let intro = |detail| format!("each member of this list must be '*' or a DNS-1123 label; {detail}");
        errors.invalid_all(&list.index(i), name, names::dns_label(name).into_iter().map(intro));
    }
}

fn validate_urls(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    validate_verbs(rule, path, errors);
    let words = ("nonResourceURLs must contain at least one value", "non-resource URLs");
    let list = path.child("nonResourceURLs");
    for (i, url) in wildcard(rule, "nonResourceURLs", words, path, errors).into_iter().enumerate() {
        if let Some(detail) = url_problem(url) {
            errors.invalid(&list.index(i), url, detail);
        }
    }
}

/// What is wrong with a path that a schema is about.
fn url_problem(url: &str) -> Option<&'static str> {
    match url.matches('*').count() {
        _ if url.is_empty() => Some("must not be empty"),
        _ if url == "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        0 => None,
        1 if url.ends_with("/*") => None,
        _ => Some("wildcard can only do suffix matching"),
    }
}

fn validate_level(level: &Value, errors: &mut Errors) {
    let (spec, path, name) = (level.at("spec"), Path::Root.child("spec"), level.text("metadata.name"));
    let (kind, field) = (spec.text("type"), path.child("type"));
    if (name == EXEMPT) != (kind == "Exempt") {
        errors.invalid(&field, kind, "type must be 'Exempt' if and only if name is 'exempt'");
    }
    let (exempt, limited) = (path.child("exempt"), path.child("limited"));
    match kind {
        "Exempt" => {
            if spec.has("limited") {
                errors.forbidden(&limited, "must be nil if the type is not Limited");
            }
            validate_shares(spec.at("exempt"), &exempt, errors);
        }
        "Limited" => {
            if spec.has("exempt") {
                errors.forbidden(&exempt, "must be nil if the type is Limited");
            }
            if spec.has("limited") {
                validate_limited(spec.at("limited"), &limited, errors);
            } else {
                errors.required(&limited, "must not be empty when type is Limited");
            }
        }
        _ => errors.not_supported(&field, kind, &["Exempt", "Limited"]),
    }
    let Some(mut fixed) = mandatory("PriorityLevelConfiguration", level) else { return };
    let mut given = spec.clone();
    // The shares of the exempt level are the administrator's.
    let adjustable = if name == EXEMPT {
        remove(&mut fixed, "exempt");
        remove(&mut given, "exempt");
        " except the 'spec.exempt' field"
    } else {
        ""
    };
    if !same(&fixed, &given) {
        errors.invalid(&path, spec, &format!("spec of '{name}'{adjustable} must equal the fixed value"));
    }
}

fn validate_shares(part: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(shares) = part.int("nominalConcurrencyShares").filter(|shares| *shares < 0) {
        errors.invalid(&path.child("nominalConcurrencyShares"), &shares, "must be a non-negative integer");
    }
    if let Some(percent) = part.int("lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
        errors.invalid(&path.child("lendablePercent"), &percent, "must be between 0 and 100, inclusive");
    }
}

fn validate_limited(limited: &Value, path: &Path<'_>, errors: &mut Errors) {
    validate_shares(limited, path, errors);
    if let Some(percent) = limited.int("borrowingLimitPercent").filter(|percent| *percent < 0) {
        let field = path.child("borrowingLimitPercent");
        errors.invalid(&field, &percent, "if specified, must be a non-negative integer");
    }
    let (response, path) = (limited.at("limitResponse"), path.child("limitResponse"));
    let (kind, queuing) = (response.text("type"), path.child("queuing"));
    match (kind, response.has("queuing")) {
        ("Reject", true) => errors.forbidden(&queuing, "must be nil if limited.limitResponse.type is not Limited"),
        ("Reject", false) => {}
        ("Queue", true) => validate_queuing(response.at("queuing"), &queuing, errors),
        ("Queue", false) => {
            errors.required(&queuing, "must not be empty if limited.limitResponse.type is Limited");
        }
        _ => errors.not_supported(&path.child("type"), kind, &["Queue", "Reject"]),
    }
}

fn validate_queuing(queuing: &Value, path: &Path<'_>, errors: &mut Errors) {
    let number = |field: &str| queuing.int(field).unwrap_or(0);
    let (queues, hand) = (number("queues"), number("handSize"));
    for field in ["queueLengthLimit", "queues", "handSize"] {
        if number(field) <= 0 {
            errors.invalid(&path.child(field), &number(field), "must be positive");
        }
    }
    if queues > MOST_QUEUES {
        errors.invalid(&path.child("queues"), &queues, &format!("must not be greater than {MOST_QUEUES}"));
    }
    if hand <= 0 {
        return;
    }
    let field = path.child("handSize");
    // A hand is dealt from the bits of one hash.
    let bits = ((queues.max(1) as f64).log2() * hand as f64).ceil() as i64;
    if hand > queues {
        errors.invalid(&field, &hand, &format!("should not be greater than queues ({queues})"));
    } else if bits > HASH_BITS {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        errors.invalid(&field, &hand, &detail);
    }
}

/// Conditions are the status, and told apart by their types.
fn validate_change(new: &Value, _old: &Value, subresource: &str, errors: &mut Errors) {
    if subresource != "status" {
        return;
    }
    let (conditions, list) = (new.list("status.conditions"), Path::Root.child("status.conditions"));
    for (i, condition) in conditions.iter().enumerate() {
        let (kind, path) = (condition.text("type"), list.index(i));
        if conditions[..i].iter().any(|earlier| earlier.text("type") == kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        if kind.is_empty() {
            errors.required(&path.child("type"), "must not be empty");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::Strategy;

    fn problems(rules: Rules, mut object: Value) -> Vec<String> {
        rules.default(&mut object);
        rules.validate_create(&object).iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    fn schema(name: &str, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut spec = json!({"priorityLevelConfiguration": {"name": "l"}, "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "*"}},
                {"kind": "ServiceAccount", "serviceAccount": {"namespace": "a", "name": "*"}}],
            "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/", "/healthz", "/apis/*"]}]}]});
        change(&mut spec);
        problems(FLOW_SCHEMA, json!({"metadata": {"name": name}, "spec": spec}))
    }

    fn level(name: &str, spec: Value) -> Vec<String> {
        problems(PRIORITY_LEVEL, json!({"metadata": {"name": name}, "spec": spec}))
    }

    #[test]
    fn the_objects_of_every_cluster_are_valid() {
        for (rules, objects) in
            [(FLOW_SCHEMA, bootstrap::flow_schemas()), (PRIORITY_LEVEL, bootstrap::priority_levels())]
        {
            assert!(objects.len() > 7);
            for object in objects {
                assert_eq!(problems(rules, object.clone()), [""; 0], "{object}");
            }
        }
        assert_eq!(schema("s", |_| {}), [""; 0]);
    }

    #[test]
    fn mandatory_objects_are_as_they_are() {
        let wrong = schema("catch-all", |_| {});
        assert!(wrong[0].ends_with("spec of 'catch-all' must equal the fixed value"), "{wrong:?}");
        let limited = json!({"nominalConcurrencyShares": 6, "limitResponse": {"type": "Reject"}});
        let wrong = level("catch-all", json!({"type": "Limited", "limited": limited}));
        assert!(wrong[0].ends_with("spec of 'catch-all' must equal the fixed value"), "{wrong:?}");
        let shares = |shares: i64| json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": shares}});
        assert_eq!(level("exempt", shares(10)), [""; 0], "the shares are the administrator's");
        assert_eq!(level("exempt", shares(-1)).len(), 1);
        assert_eq!(level("other", shares(0)).len(), 1);
    }

    #[test]
    fn schemas_say_whom_and_what_they_are_about() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 17] = [
            (|s| s["matchingPrecedence"] = json!(-1), "matchingPrecedence: Invalid value: -1: must be a positive"),
            (|s| s["matchingPrecedence"] = json!(10_001), "must not be greater than 10000"),
            (|s| s["matchingPrecedence"] = json!(1), "only the schema named 'exempt' may have matchingPrecedence 1"),
            (
                |s| s["distinguisherMethod"] = json!({"type": "ByMood"}),
                "spec.distinguisherMethod.type: Unsupported value: \"ByMood\": supported values: \"ByNamespace\", \"ByUser\"",
            ),
            (|s| s["priorityLevelConfiguration"] = json!({}), "must reference a priority level"),
            (|s| s["priorityLevelConfiguration"]["name"] = json!("A"), "spec.priorityLevelConfiguration.name: Invalid"),
            (
                |s| s["rules"][0]["subjects"] = json!([]),
                "spec.rules[0].subjects: Required value: subjects must contain",
            ),
            (
                |s| s["rules"][0]["subjects"][0]["group"] = json!({"name": "g"}),
                "subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
            ),
            (
                |s| s["rules"][0]["subjects"][0]["user"] = Value::Null,
                "subjects[0].user: Required value: user is required when subject kind is 'User'",
            ),
            (|s| s["rules"][0]["subjects"][0]["kind"] = json!("Robot"), "subjects[0].kind: Unsupported value"),
            (
                |s| s["rules"][0]["subjects"][1]["serviceAccount"]["namespace"] = json!(""),
                "subjects[1].serviceAccount.namespace: Required value: must specify namespace for service account",
            ),
            (
                |s| s["rules"][0]["resourceRules"][0]["verbs"] = json!(["get", "*"]),
                "resourceRules[0].verbs: Invalid value: [\"get\",\"*\"]: if '*' is present, must not specify other verbs",
            ),
            (
                |s| s["rules"][0]["resourceRules"][0]["verbs"] = json!(["steal"]),
                "verbs: Unsupported value: [\"steal\"]",
            ),
            (
                |s| s["rules"][0]["resourceRules"][0]["namespaces"] = json!([]),
                "namespaces: Required value: resource rules that are not cluster scoped",
            ),
            (
                |s| s["rules"][0]["resourceRules"][0]["namespaces"] = json!(["A"]),
                "namespaces[0]: Invalid value: \"A\": each member of this list must be '*' or a DNS-1123 label; ",
            ),
            (
                |s| s["rules"][0]["nonResourceRules"][0]["nonResourceURLs"] = json!(["/a*"]),
                "nonResourceURLs[0]: Invalid value: \"/a*\": wildcard can only do suffix matching",
            ),
            (
                |s| s["rules"][0] = json!({"subjects": [{"kind": "Group", "group": {"name": "g"}}]}),
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules",
            ),
        ];
        for (change, wanted) in cases {
            let found = schema("s", change);
            assert!(found.len() == 1 && found[0].contains(wanted), "{wanted}: {found:?}");
        }
    }

    #[test]
    fn levels_say_what_they_need_and_no_more() {
        let limited = |limited: Value| level("l", json!({"type": "Limited", "limited": limited}));
        let queue = |queuing: Value| limited(json!({"limitResponse": {"type": "Queue", "queuing": queuing}}));
        assert_eq!(queue(json!({})), [""; 0], "all have defaults");
        assert_eq!(limited(json!({"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}})), [""; 0]);
        for (found, wanted) in [
            (level("l", json!({"type": "Limited"})), "spec.limited: Required value: must not be empty when type is"),
            (
                level("l", json!({"type": "Limited", "exempt": {}, "limited": {"limitResponse": {"type": "Reject"}}})),
                "spec.exempt: Forbidden: must be nil if the type is Limited",
            ),
            (level("l", json!({"type": "Other"})), "spec.type: Unsupported value: \"Other\""),
            (limited(json!({"limitResponse": {"type": "Drop"}})), "limitResponse.type: Unsupported value: \"Drop\""),
            (limited(json!({"limitResponse": {"type": "Queue"}})), "limitResponse.queuing: Required value"),
            (limited(json!({"limitResponse": {"type": "Reject", "queuing": {}}})), "queuing: Forbidden"),
            (
                limited(json!({"lendablePercent": 101, "limitResponse": {"type": "Reject"}})),
                "lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
            ),
            (
                limited(json!({"borrowingLimitPercent": -1, "limitResponse": {"type": "Reject"}})),
                "borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
            ),
            (queue(json!({"queues": -1, "handSize": -1})), "queues: Invalid value: -1: must be positive"),
            (queue(json!({"queues": 10_000_001, "handSize": 1})), "must not be greater than 10000000"),
            (queue(json!({"queues": 4})), "handSize: Invalid value: 8: should not be greater than queues (4)"),
            (
                queue(json!({"queues": 64, "handSize": 11})),
                "required entropy bits of deckSize 64 and handSize 11 should not be greater than 60",
            ),
        ] {
            assert!(found.iter().any(|problem| problem.contains(wanted)), "{wanted}: {found:?}");
        }
        assert_eq!(queue(json!({"queues": 64, "handSize": 10})), [""; 0]);
    }
}
