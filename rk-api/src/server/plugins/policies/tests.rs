//! Policies against a few objects.

use serde_json::{Value, json};

use super::{super::*, *};
use crate::server::{Attributes, Notes, Operation, UserInfo, fixture::Objects};

const VALIDATING: &str = "validatingadmissionpolicies";
const MUTATING: &str = "mutatingadmissionpolicies";

fn policy(kind: &str, spec: Value) -> Value {
    let mut full = json!({"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [{
        "operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]}});
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    json!({"kind": kind, "metadata": {"name": "p"}, "spec": full})
}

fn binding(spec: Value) -> Value {
    let mut full = json!({"policyName": "p", "validationActions": ["Deny"]});
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    json!({"metadata": {"name": "b"}, "spec": full})
}

fn write(object: Value) -> AdmissionRequest {
    AdmissionRequest {
        attributes: Attributes {
            user: Arc::new(UserInfo::new("jane", ["dev"])),
            verb: "create".into(),
            group: "apps".into(),
            resource: "deployments".into(),
            namespace: "team".into(),
            name: "web".into(),
            ..Attributes::default()
        },
        resource: Resource::new("apps", "v1", "Deployment", "deployments", true),
        operation: Operation::Create,
        object: Some(object),
        old_object: None,
        options: Value::Null,
        dry_run: false,
        warnings: Vec::new(),
        notes: Notes::default(),
    }
}

fn deployment(replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "team"},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}}})
}

fn reader(objects: impl IntoIterator<Item = (&'static str, Value)>) -> Arc<Objects> {
    let namespace = json!({"metadata": {"name": "team", "labels": {"env": "prod"}}});
    Objects::new([("namespaces", namespace)].into_iter().chain(objects))
}

async fn validate(spec: Value, bound: Value) -> (Option<(i32, String)>, Notes) {
    let reader = reader([
        (VALIDATING, policy("ValidatingAdmissionPolicy", spec)),
        ("validatingadmissionpolicybindings", binding(bound)),
        ("configmaps", json!({"metadata": {"name": "limits", "namespace": "team"}, "data": {"most": "5"}})),
    ]);
    let request = write(deployment(9));
    let refused = ValidatingPolicies::default().validate(&request, &*reader).await.err();
    (refused.map(|status| (status.code.unwrap(), status.message.unwrap())), request.notes)
}

#[tokio::test]
async fn a_validation_denies_warns_or_notes() {
    let spec = json!({
        "variables": [{"name": "most", "expression": "5"}, {"name": "twice", "expression": "variables.most * 2"}],
        "validations": [{"expression": "object.spec.replicas <= variables.most",
            "messageExpression": "'at most ' + string(variables.twice / 2) + ' in ' + namespaceObject.metadata.labels['env']"}],
        "auditAnnotations": [{"key": "who", "valueExpression": "request.userInfo.username + ' ' + request.operation"}],
    });
    let (refused, notes) = validate(spec.clone(), json!({})).await;
    let why = "deployments.apps \"web\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: at most 5 in prod";
    assert_eq!(refused, Some((422, why.to_owned())));
    assert_eq!(notes.annotations(), [("p/who".to_owned(), "jane CREATE".to_owned())]);
    let (refused, notes) = validate(spec, json!({"validationActions": ["Warn", "Audit"]})).await;
    assert_eq!(refused, None);
    let warning = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': at most 5 in prod";
    assert_eq!(notes.take_warnings(), [warning]);
    let failure = notes.annotations().into_iter().find(|(key, _)| key.ends_with("validation_failure")).unwrap();
    let value = r#"[{"message":"at most 5 in prod","policy":"p","binding":"b","expressionIndex":0,"validationActions":["Warn","Audit"]}]"#;
    assert_eq!(failure, ("validation.policy.admission.k8s.io/validation_failure".to_owned(), value.to_owned()));
    let second = json!({"validations": [{"expression": "true"}, {"expression": "false"}]});
    let (_, notes) = validate(second, json!({"validationActions": ["Audit"]})).await;
    assert!(notes.annotations()[0].1.contains(r#""expressionIndex":1"#), "{:?}", notes.annotations());
}

#[tokio::test]
async fn audit_annotations_have_every_value_once() {
    let reader = reader([
        (
            VALIDATING,
            policy(
                "ValidatingAdmissionPolicy",
                json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "auditAnnotations": [
                    {"key": "most", "valueExpression": "'  ' + params.data.most + ' '"},
                    {"key": "none", "valueExpression": "' '"}, {"key": "null", "valueExpression": "null"}]}),
            ),
        ),
        ("validatingadmissionpolicybindings", {
            binding(json!({"paramRef": {"selector": {}, "parameterNotFoundAction": "Deny"}}))
        }),
    ]);
    for (name, most) in [("a", "1"), ("b", "2"), ("c", "1")] {
        let map = json!({"metadata": {"name": name, "namespace": "team"}, "data": {"most": most}});
        reader.put("configmaps", map);
    }
    let request = write(deployment(1));
    ValidatingPolicies::default().validate(&request, &*reader).await.unwrap();
    assert_eq!(request.notes.annotations(), [("p/most".to_owned(), "1, 2".to_owned())]);

    let failing = json!({"auditAnnotations": [{"key": "k", "valueExpression": "object.nothing"}]});
    let (refused, _) = validate(failing, json!({"validationActions": ["Audit"]})).await;
    let why = "expression 'object.nothing' resulted in error: no such key: nothing";
    assert!(refused.clone().is_some_and(|(_, message)| message.ends_with(why)), "{refused:?}");
}

#[test]
fn keys_of_audit_annotations_are_those_of_the_audit_log() {
    let annotation = |key: &str| json!({"key": key, "valueExpression": "'v'"});
    let wrong = |annotations: Value| {
        let issues = issues(&policy("ValidatingAdmissionPolicy", json!({"auditAnnotations": annotations})));
        issues.into_iter().map(|issue| format!("{}: {}", issue.field, issue.message)).collect::<Vec<_>>()
    };
    assert_eq!(wrong(json!([annotation("a"), annotation("b")])), [""; 0]);
    assert_eq!(
        wrong(json!([annotation("a"), annotation("a")])),
        ["spec.auditAnnotations[1].key: Duplicate value: \"a\""]
    );
    let slash = wrong(json!([annotation("a/b")]));
    assert!(
        slash[0].starts_with("spec.auditAnnotations[0].key: Invalid value: \"a/b\": a qualified name must"),
        "{slash:?}"
    );
}

#[tokio::test]
async fn failures_follow_the_failure_policy() {
    let spec = |fail: &str| json!({"failurePolicy": fail, "validations": [{"expression": "object.spec.nothing > 1"}]});
    let (refused, _) = validate(spec("Fail"), json!({})).await;
    let why = "expression 'object.spec.nothing > 1' resulted in error: no such key: nothing";
    assert!(refused.clone().is_some_and(|(code, message)| code == 422 && message.ends_with(why)), "{refused:?}");
    assert_eq!(validate(spec("Ignore"), json!({})).await.0, None);
    let reason = json!({"validations": [{"expression": "false", "message": "no", "reason": "Forbidden"}]});
    assert_eq!(validate(reason, json!({})).await.0.unwrap().0, 403);
}

#[tokio::test]
async fn variables_nest_as_deep_as_the_stack_allows() {
    let spec = |count: usize| {
        let variable = |i: usize| match i {
            0 => json!({"name": "v0", "expression": "1"}),
            i => json!({"name": format!("v{i}"), "expression": format!("variables.v{} + 1", i - 1)}),
        };
        let variables: Vec<Value> = (0..count).map(variable).collect();
        json!({"variables": variables, "validations": [{"expression": format!("variables.v{} == {count}", count - 1)}]})
    };
    assert_eq!(validate(spec(50), json!({})).await.0, None);
    let (refused, _) = validate(spec(1000), json!({})).await;
    assert!(refused.clone().unwrap().1.contains("variables are nested deeper"), "{refused:?}");
}

#[tokio::test]
async fn conditions_rules_and_labels_choose_the_writes() {
    let no = || json!([{"expression": "false"}]);
    let spec =
        |condition: &str| json!({"validations": no(), "matchConditions": [{"name": "c", "expression": condition}]});
    assert!(validate(spec("request.userInfo.groups.exists(g, g == 'dev')"), json!({})).await.0.is_some());
    assert!(validate(spec("request.userInfo.username != 'jane'"), json!({})).await.0.is_none());
    let failing = validate(spec("object.nothing == 1"), json!({})).await.0.unwrap();
    assert!(failing.1.contains("match condition 'c' failed: no such key: nothing"), "{failing:?}");
    let other = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"env": "test"}}}});
    assert!(validate(json!({"validations": no()}), other).await.0.is_none());
    let excluded = json!({"matchResources": {"excludeResourceRules": [{
        "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "resourceNames": ["web"]}]}});
    assert!(validate(json!({"validations": no()}), excluded).await.0.is_none());
}

#[tokio::test]
async fn params_parametrize() {
    let spec = || {
        json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "validations": [{"expression": "object.spec.replicas <= int(params.data.most)", "message": "too many"}]})
    };
    let reference = |name: &str, missing: &str| json!({"paramRef": {"name": name, "parameterNotFoundAction": missing}});
    assert!(validate(spec(), reference("limits", "Deny")).await.0.unwrap().1.ends_with("too many"));
    let missing = validate(spec(), reference("none", "Deny")).await.0.unwrap().1;
    assert!(missing.ends_with("no params found for policy binding with `Deny` parameterNotFoundAction"), "{missing}");
    assert!(validate(spec(), reference("none", "Allow")).await.0.is_none());
    let mut audited = reference("none", "Deny");
    audited["validationActions"] = json!(["Audit"]);
    assert!(validate(spec(), audited).await.0.is_some(), "a binding that can't be used refuses");
    let all = json!({"paramRef": {"selector": {}, "parameterNotFoundAction": "Deny"}});
    assert!(validate(spec(), all).await.0.unwrap().1.ends_with("too many"));
}

#[tokio::test]
async fn the_authorizer_is_asked() {
    let spec = |verb: &str| {
        let check =
            format!("authorizer.group('apps').resource('deployments').namespace('team').check('{verb}').allowed()");
        json!({"validations": [{"expression": format!("{check} || authorizer.path('/healthz').check('get').allowed() || \
            authorizer.requestResource.name('x').check('{verb}').reason() == ''")}]})
    };
    // Three checks cost more than one expression may.
    let (refused, _) = validate(spec("create"), json!({})).await;
    assert!(refused.unwrap().1.ends_with("operation cancelled: actual cost limit exceeded"));
    let one = json!({"validations": [{"expression": "authorizer.requestResource.check('create').allowed()"}]});
    assert!(validate(one, json!({})).await.0.unwrap().1.contains("failed expression"), "the fixture allows nothing");
}

async fn mutate(specs: impl IntoIterator<Item = Value>) -> Result<Value, String> {
    let reader = reader([]);
    for (i, spec) in specs.into_iter().enumerate() {
        let mut policy = policy("MutatingAdmissionPolicy", spec);
        policy["metadata"]["name"] = format!("p{i}").into();
        reader.put(MUTATING, policy);
        let mut bound = binding(json!({"policyName": format!("p{i}")}));
        bound["metadata"]["name"] = format!("b{i}").into();
        reader.put("mutatingadmissionpolicybindings", bound);
    }
    let mut request = write(deployment(1));
    let done = MutatingPolicies::default().mutate(&mut request, &*reader).await;
    done.map(|()| request.object.unwrap()).map_err(|status| status.message.unwrap())
}

fn apply(expression: &str) -> Value {
    json!({"reinvocationPolicy": "Never", "mutations": [{"patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": expression}}]})
}

#[tokio::test]
async fn mutations_apply_and_patch() {
    let applied = apply(
        "Object{metadata: Object.metadata{labels: {'by': request.userInfo.username}}, spec: Object.spec{template: \
         Object.spec.template{spec: Object.spec.template.spec{containers: object.spec.template.spec.containers.map(c, \
         Object.spec.template.spec.containers{name: c.name, imagePullPolicy: 'Always'})}}}}",
    );
    let object = mutate([applied]).await.unwrap();
    assert_eq!(object["metadata"]["labels"], json!({"by": "jane"}));
    let container = &object["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(*container, json!({"name": "a", "image": "x", "imagePullPolicy": "Always"}), "merged by name");

    let patch = json!({"reinvocationPolicy": "Never", "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
        "[JSONPatch{op: 'test', path: '/spec/replicas', value: 1}, JSONPatch{op: 'replace', path: '/spec/replicas', value: \
         object.spec.replicas + 1}, JSONPatch{op: 'add', path: '/metadata/annotations', value: {}}, JSONPatch{op: 'add', \
         path: '/metadata/annotations/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"}}]});
    let object = mutate([patch]).await.unwrap();
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["annotations"]["a/b"]), (&json!(2), &json!("c")));
    for (bad, why) in [
        (apply("Object{metadata: Object.metadata{name: 'other'}}"), "applyConfiguration may not set metadata.name"),
        (apply("Object{spec: Object.spec{replicas: 'many'}}"), "cannot unmarshal string"),
    ] {
        let error = mutate([bad]).await.unwrap_err();
        assert!(
            error.contains("MutatingAdmissionPolicy 'p0' with binding 'b0' denied request") && error.contains(why),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_policy_sees_what_others_changed_after_it() {
    let mut first = apply("Object{metadata: Object.metadata{labels: {'replicas': string(object.spec.replicas)}}}");
    let second = apply("Object{spec: Object.spec{replicas: 7}}");
    assert_eq!(mutate([first.clone(), second.clone()]).await.unwrap()["metadata"]["labels"]["replicas"], "1");
    first["reinvocationPolicy"] = "IfNeeded".into();
    assert_eq!(mutate([first, second]).await.unwrap()["metadata"]["labels"]["replicas"], "7");
}

#[test]
fn what_is_wrong_with_a_policy_is_told() {
    for (spec, why) in [
        (
            json!({"validations": [{"expression": "object.x >"}]}),
            "spec.validations[0].expression: Invalid value: \"object.x >\": compilation failed: ERROR: <input>:1:11: Syntax error",
        ),
        (
            json!({"validations": [{"expression": "1"}]}),
            "spec.validations[0].expression: Invalid value: \"1\": must evaluate to bool",
        ),
        (json!({"validations": [{"expression": "request.namex == ''"}]}), "undefined field 'namex'"),
        (json!({"validations": [{"expression": "params.x"}]}), "undeclared reference to 'params'"),
        (
            json!({"validations": [{"expression": "true", "messageExpression": "authorizer.path('/').check('get').reason()"}]}),
            "undeclared reference to 'authorizer'",
        ),
        (
            json!({"validations": [{"expression": "variables.b"}], "variables": [{"name": "a", "expression": "1"}]}),
            "undefined field 'b'",
        ),
        (
            json!({"variables": [{"name": "a-b", "expression": "1"}]}),
            "spec.variables[0].name: Invalid value: \"a-b\": name is not a valid CEL identifier",
        ),
        (
            json!({"matchConditions": [{"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}]}),
            "spec.matchConditions[1].name: Duplicate value: \"a\"",
        ),
        (
            json!({"auditAnnotations": [{"key": "a", "valueExpression": "1"}]}),
            "must evaluate to one of [string null_type]",
        ),
        (
            json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.status{}}"}}]}),
            "undeclared reference to 'Object'",
        ),
    ] {
        let issues = issues(&policy("ValidatingAdmissionPolicy", spec.clone()));
        let texts: Vec<_> = issues.iter().map(|issue| format!("{}: {}", issue.field, issue.message)).collect();
        assert!(texts.iter().any(|text| text.contains(why)), "{spec}: {texts:?}");
    }
    let spec = json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.status{}}"}}]});
    let issues = issues(&policy("MutatingAdmissionPolicy", spec));
    assert!(
        issues[0]
            .message
            .contains("expected type of field 'spec' is 'Object.spec' but provided type is 'Object.status'"),
        "{issues:?}"
    );
}
