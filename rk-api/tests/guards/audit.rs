//! The audit log, as requests over HTTP write it.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use rk_api::{
    Resource, Status,
    server::{
        AdmissionRequest, Admit, Attributes, AuditLog, AuditLogOptions, AuditPolicy, AuthenticationError,
        Authenticator, Authorizer, Credentials, Decision, Limits, Operation, Reader, Security, ServerBuilder, UserInfo,
    },
};
use serde_json::{Value, json};

use super::common::{Api, Caller, bearer, with};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: RequestResponse, verbs: [create], resources: [{resources: [configmaps]}]}
- {level: Request, verbs: [create], resources: [{resources: [secrets]}]}
- {level: None, resources: [{resources: [namespaces]}]}
- {level: Metadata}
"#;

async fn start(folder: &Path) -> (Api, Arc<AuditLog>) {
    let log = AuditLog::open(&folder.join("audit.log"), AuditLogOptions::default()).unwrap();
    let (policy, sink) = (AuditPolicy::parse(POLICY).unwrap(), Arc::clone(&log));
    (Api::build(|_, security| security, |_, builder| builder.audit(policy, sink)).await, log)
}

async fn events(folder: &Path, log: &AuditLog) -> Vec<Value> {
    log.flush().await;
    let text = std::fs::read_to_string(folder.join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn every_request_leaves_what_the_policy_says() {
    let folder = tempfile::tempdir().unwrap();
    let (api, log) = start(folder.path()).await;
    let map = json!({"metadata": {"name": "m"}, "data": {"k": "v"}});
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    let headers = [("User-Agent", "test/1"), ("Audit-ID", "mine"), ("X-Forwarded-For", "192.0.2.1")];
    let by = Caller { headers: &headers, ..bearer("admin") };
    let answer = api.call(&by, "POST", maps, map).await;
    assert_eq!((answer.code, answer.headers["audit-id"].to_str().unwrap()), (201, "mine"));
    api.create("/api/v1/namespaces/default/secrets", secret).await;
    assert_eq!(api.get(&bearer("admin"), "/api/v1/namespaces").await.code, 200);
    assert_eq!(api.get(&bearer("jane"), &format!("{maps}/m")).await.code, 403);
    assert_eq!(api.get(&bearer("wrong"), "/version").await.code, 401);
    let acting = Caller { headers: &[("Impersonate-User", "joe")], ..bearer("admin") };
    assert_eq!(api.get(&acting, maps).await.code, 403);
    assert_eq!(api.get(&bearer("admin"), &format!("{maps}?watch=true&timeoutSeconds=1")).await.code, 200);

    let all = events(folder.path(), &log).await;
    let [created, secret, refused, unknown, impersonated, started, ended] = all.as_slice() else {
        panic!("{} events: {all:?}", all.len())
    };
    assert_eq!((&created["level"], &created["stage"]), (&json!("RequestResponse"), &json!("ResponseComplete")));
    assert_eq!(
        (&created["verb"], &created["auditID"], &created["userAgent"]),
        (&json!("create"), &json!("mine"), &json!("test/1"))
    );
    assert_eq!(created["user"], json!({"username": "admin", "groups": ["system:masters", "system:authenticated"]}));
    assert_eq!(created["sourceIPs"], json!(["192.0.2.1", "127.0.0.1"]));
    assert_eq!(created["objectRef"], json!({"resource": "configmaps", "namespace": "default", "apiVersion": "v1"}));
    assert_eq!((&created["requestURI"], &created["responseStatus"]["code"]), (&json!(maps), &json!(201)));
    assert_eq!(created["requestObject"]["data"]["k"], "v");
    assert!(created["responseObject"]["metadata"]["uid"].is_string());
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    assert!(created["requestReceivedTimestamp"].as_str().unwrap().ends_with('Z'));
    assert!(secret["requestObject"].is_object() && secret["responseObject"].is_null());
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        (&refused["responseStatus"]["code"], &refused["responseStatus"]["reason"]),
        (&json!(403), &json!("Forbidden"))
    );
    assert_eq!((&unknown["responseStatus"]["code"], &unknown["user"]), (&json!(401), &json!({})));
    assert_eq!(impersonated["impersonatedUser"]["username"], "joe");
    assert_eq!(impersonated["user"]["username"], "admin");
    assert_eq!(impersonated["annotations"]["authorization.k8s.io/decision"], "forbid", "admin may be joe, who may not");
    assert_eq!((&started["stage"], &ended["stage"]), (&json!("ResponseStarted"), &json!("ResponseComplete")));
    assert_eq!((&started["verb"], &started["auditID"]), (&json!("watch"), &ended["auditID"]));
    assert_eq!(log.dropped(), 0);
}

#[tokio::test]
async fn what_admission_policies_note_is_in_the_event() {
    let folder = tempfile::tempdir().unwrap();
    let (api, log) = start(folder.path()).await;
    let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]});
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.metadata.name != 'bad'", "message": "a bad name"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "object.metadata.name"}]}});
    api.create(policies, policy).await;
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Audit"]}});
    api.create("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", binding).await;
    api.create("/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "bad"}})).await;
    let all = events(folder.path(), &log).await;
    let annotations = &all.last().unwrap()["annotations"];
    assert_eq!(annotations["p/name"], "bad");
    let failure = annotations["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap();
    let failure: Value = serde_json::from_str(failure).unwrap();
    assert_eq!((&failure[0]["message"], &failure[0]["policy"]), (&json!("a bad name"), &json!("p")));
}

/// Never comes to a decision on Secrets.
struct Endless;

#[async_trait]
impl Admit for Endless {
    fn name(&self) -> &str {
        "Endless"
    }

    fn handles(&self, _: Operation, resource: &Resource, _: &str) -> bool {
        resource.plural == "secrets"
    }

    async fn validate(&self, _: &AdmissionRequest, _: &dyn Reader) -> Result<(), Status> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_audited_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(&folder.path().join("audit.log"), AuditLogOptions::default()).unwrap();
    let (policy, sink) = (AuditPolicy::parse(POLICY).unwrap(), Arc::clone(&log));
    let limits = Limits { request_timeout: Duration::from_millis(200), ..Limits::default() };
    let more = |builder: ServerBuilder| builder.audit(policy, sink).limits(limits).admission(Arc::new(Endless));
    let api = Api::build(|_, security| security, |_, builder| more(builder)).await;
    let path = "/api/v1/namespaces/default/secrets";
    let late = api.call(&bearer("admin"), "POST", path, json!({"metadata": {"name": "s"}})).await;
    assert_eq!((late.code, &late.body["reason"]), (504, &json!("Timeout")));
    let all = events(folder.path(), &log).await;
    let status = &all.last().unwrap()["responseStatus"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(504), &json!("Timeout")));
    assert_eq!(all.last().unwrap()["auditID"], late.headers["audit-id"].to_str().unwrap());
}

/// Panics over Secrets and over Namespaces.
struct Panics;

#[async_trait]
impl Admit for Panics {
    fn name(&self) -> &str {
        "Panics"
    }

    fn handles(&self, _: Operation, resource: &Resource, _: &str) -> bool {
        matches!(resource.plural.as_ref(), "secrets" | "namespaces")
    }

    async fn validate(&self, request: &AdmissionRequest, _: &dyn Reader) -> Result<(), Status> {
        match request.attributes.name.as_str() {
            "bad" => panic!("can't bear {}", request.attributes.resource),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_request_that_panics_is_answered_and_audited() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(&folder.path().join("audit.log"), AuditLogOptions::default()).unwrap();
    let (policy, sink) = (AuditPolicy::parse(POLICY).unwrap(), Arc::clone(&log));
    let more = |builder: ServerBuilder| builder.audit(policy, sink).admission(Arc::new(Panics));
    let api = Api::build(|_, security| security, |_, builder| more(builder)).await;
    let service = api.server.service_as(UserInfo::new("admin", ["system:masters"]));
    let create = async |path: &str, name: &str| {
        let body = json!({"metadata": {"name": name}}).to_string();
        let request = http::Request::post(path).header("content-type", "application/json");
        let answer = service.clone().handle(request.body(Full::new(Bytes::from(body))).unwrap()).await;
        let (head, body) = answer.into_parts();
        (head, body.collect().await.unwrap().to_bytes())
    };
    let secrets = "/api/v1/namespaces/default/secrets";
    let (head, body) = create(secrets, "bad").await;
    assert_eq!(
        (head.status.as_u16(), &head.headers["content-type"]),
        (500, &"text/plain; charset=utf-8".parse().unwrap())
    );
    assert_eq!(&body[..], b"This request caused apiserver to panic. Look in the logs for details.\n");
    let all = events(folder.path(), &log).await;
    let [event] = all.as_slice() else { panic!("{} events: {all:?}", all.len()) };
    assert_eq!((&event["stage"], &event["verb"]), (&json!("Panic"), &json!("create")));
    assert_eq!(event["auditID"], head.headers["audit-id"].to_str().unwrap());
    let message = "APIServer panic'd: can't bear secrets";
    let status =
        json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500});
    assert_eq!(event["responseStatus"], status);
    // So is one that nobody audits, and others are none the worse for it.
    assert_eq!(create("/api/v1/namespaces", "bad").await.0.status, 500);
    assert_eq!(create(secrets, "good").await.0.status, 201);
    assert_eq!(events(folder.path(), &log).await.len(), 2);
}

/// Never knows who has the token `slow`.
struct Slow;

#[async_trait]
impl Authenticator for Slow {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<UserInfo>, AuthenticationError> {
        if credentials.token.as_deref() == Some("slow") {
            std::future::pending::<()>().await;
        }
        Ok(None)
    }
}

#[tokio::test]
async fn a_caller_who_takes_too_long_to_be_known_is_audited_with_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(&folder.path().join("audit.log"), AuditLogOptions::default()).unwrap();
    let (policy, sink) = (AuditPolicy::parse(POLICY).unwrap(), Arc::clone(&log));
    let limits = Limits { request_timeout: Duration::from_millis(200), ..Limits::default() };
    let more = |builder: ServerBuilder| builder.audit(policy, sink).limits(limits).authenticator(Arc::new(Slow));
    let api = Api::build(|_, security| security, |_, builder| more(builder)).await;
    let protobuf = "application/vnd.kubernetes.protobuf";
    let headers =
        [("User-Agent", "test/1"), ("Audit-ID", "mine"), ("X-Forwarded-For", "192.0.2.1"), ("Accept", protobuf)];
    let late = api.get(&with("slow", &headers), "/api/v1/nodes").await;
    assert_eq!(
        (late.code, &late.headers["audit-id"], &late.headers["content-type"]),
        (504, &"mine".parse().unwrap(), &protobuf.parse().unwrap())
    );
    let all = events(folder.path(), &log).await;
    let event = all.last().unwrap();
    assert_eq!((&event["auditID"], &event["responseStatus"]["code"]), (&json!("mine"), &json!(504)));
    assert_eq!((&event["userAgent"], &event["sourceIPs"][0]), (&json!("test/1"), &json!("192.0.2.1")));
}

/// Can't tell what joe may do.
struct Unsure;

#[async_trait]
impl Authorizer for Unsure {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        match attributes.user.name.as_str() {
            "joe" => Decision::Failed("nobody answers".to_owned()),
            _ => Decision::NoOpinion(String::new()),
        }
    }
}

#[tokio::test]
async fn a_request_that_nobody_could_judge_is_noted_as_undecided() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(&folder.path().join("audit.log"), AuditLogOptions::default()).unwrap();
    let (policy, sink) = (AuditPolicy::parse(POLICY).unwrap(), Arc::clone(&log));
    let unsure =
        |security: Security| Security { authorizers: vec![Arc::new(Unsure) as Arc<dyn Authorizer>], ..security };
    let api = Api::build(|_, security| unsure(security), |_, builder| builder.audit(policy, sink)).await;
    let acting = with("admin", &[("Impersonate-User", "joe")]);
    assert_eq!(api.get(&acting, "/api/v1/nodes").await.code, 500);
    let all = events(folder.path(), &log).await;
    let annotations = &all.last().unwrap()["annotations"];
    assert_eq!(*annotations, json!({"authorization.k8s.io/reason": "internal error"}));
}
