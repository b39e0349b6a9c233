//! Webhooks over real HTTPS.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{super::*, *};
use crate::server::{
    Attributes, Notes, Reinvocation, UserInfo,
    fixture::Objects,
    pki::{Pki, Wanted},
    tls_config,
};

/// Serves a webhook that answers as `answer` says; its port, and its authority in PEM.
async fn serve(answer: fn(&Value) -> Value) -> (u16, String) {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::open(directory.path()).unwrap();
    let names = ["127.0.0.1".to_owned(), "hook.dev.svc".to_owned()];
    let identity = pki.identity("hook", &Wanted::server("hook", names)).unwrap();
    let tls = tls_config(&identity.certificate, &identity.key, None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(tls.config());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    let body = request.into_body().collect().await?.to_bytes();
                    let review: Value = serde_json::from_slice(&body).unwrap();
                    let mut response = answer(&review["request"]);
                    response["uid"] = review["request"]["uid"].clone();
                    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                        "response": response});
                    Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(review.to_string()))))
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (port, pki.ca().to_owned())
}

fn configuration(webhook: Value) -> Value {
    let mut full = json!({
        "name": "hook.example.com", "sideEffects": "None", "failurePolicy": "Fail", "timeoutSeconds": 5,
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    });
    for (key, value) in webhook.as_object().unwrap() {
        full[key] = value.clone();
    }
    json!({"metadata": {"name": "c"}, "webhooks": [full]})
}

fn client(port: u16, ca: &str) -> Value {
    json!({"url": format!("https://127.0.0.1:{port}/admit"), "caBundle": STANDARD.encode(ca)})
}

async fn write(kind: &'static str, plugin: &dyn Admit, webhook: Value) -> Result<AdmissionRequest, (i32, String)> {
    let reader = Objects::new([
        ("namespaces", json!({"metadata": {"name": "dev", "labels": {"team": "a"}}})),
        (kind, configuration(webhook)),
    ]);
    write_with(&reader, plugin, false).await
}

async fn write_with(reader: &Objects, plugin: &dyn Admit, dry_run: bool) -> Result<AdmissionRequest, (i32, String)> {
    let mut request = AdmissionRequest {
        attributes: Attributes {
            user: Arc::new(UserInfo::new("jane", [])),
            namespace: "dev".into(),
            name: "m".into(),
            ..Attributes::default()
        },
        resource: Resource::new("", "v1", "ConfigMap", "configmaps", true),
        operation: Operation::Create,
        object: Some(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {}})),
        old_object: None,
        options: Value::Null,
        dry_run,
        warnings: Vec::new(),
        notes: Notes::default(),
        reinvocation: Reinvocation::default(),
    };
    let refused = |status: Status| (status.code.unwrap(), status.message.unwrap());
    plugin.mutate(&mut request, reader).await.map_err(refused)?;
    plugin.validate(&request, reader).await.map_err(refused)?;
    Ok(request)
}

/// The answer of a webhook that patches.
fn patched(patch: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

#[tokio::test]
async fn a_mutating_webhook_patches_and_warns() {
    let (port, ca) = serve(|request| {
        let mut answer = patched(&json!([{"op": "add", "path": "/data/by", "value": request["userInfo"]["username"]}]));
        answer["warnings"] = json!(["careful"]);
        answer
    })
    .await;
    let done = write(MUTATING, &MutatingWebhooks::default(), json!({"clientConfig": client(port, &ca)})).await.unwrap();
    assert_eq!(done.object.unwrap()["data"]["by"], "jane");
    assert_eq!(done.warnings, ["careful"]);
    let other = json!({"clientConfig": client(port, &ca), "namespaceSelector": {"matchLabels": {"team": "b"}}});
    assert_eq!(write(MUTATING, &MutatingWebhooks::default(), other).await.unwrap().object.unwrap()["data"], json!({}));
}

#[tokio::test]
async fn a_patch_that_leaves_no_such_object_is_a_failure() {
    let answers: [fn(&Value) -> Value; 2] = [
        |_| patched(&json!([{"op": "replace", "path": "/data", "value": 5}])),
        |_| patched(&json!([{"op": "remove", "path": "/metadata"}])),
    ];
    for answer in answers {
        let (port, ca) = serve(answer).await;
        let webhook = json!({"clientConfig": client(port, &ca)});
        let (code, message) = write(MUTATING, &MutatingWebhooks::default(), webhook).await.unwrap_err();
        assert_eq!(code, 500, "{message}");
    }
}

#[tokio::test]
async fn a_validating_webhook_refuses() {
    let (port, ca) = serve(|request| {
        assert_eq!((text(&request["operation"]), text(&request["kind"]["kind"])), ("CREATE", "ConfigMap"));
        json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "not today"}})
    })
    .await;
    let error = write(VALIDATING, &ValidatingWebhooks::default(), json!({"clientConfig": client(port, &ca)}))
        .await
        .unwrap_err();
    assert_eq!(error, (403, "admission webhook \"hook.example.com\" denied the request: not today".into()));
}

#[tokio::test]
async fn a_service_is_found_by_its_cluster_ip_and_its_certificate_by_its_name() {
    let (port, ca) = serve(|_| json!({"allowed": false})).await;
    let config =
        json!({"service": {"namespace": "dev", "name": "hook", "port": port}, "caBundle": STANDARD.encode(ca)});
    let reader = Objects::new([
        (VALIDATING, configuration(json!({"clientConfig": config}))),
        ("services", json!({"metadata": {"name": "hook", "namespace": "dev"}, "spec": {"clusterIP": "127.0.0.1"}})),
    ]);
    let error = write_with(&reader, &ValidatingWebhooks::default(), false).await.unwrap_err();
    assert_eq!(error, (400, "admission webhook \"hook.example.com\" denied the request without explanation".into()));
}

#[tokio::test]
async fn failures_follow_the_failure_policy() {
    let (port, _) = serve(|_| json!({"allowed": true})).await;
    let (_, stranger) = serve(|_| json!({"allowed": true})).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for config in [
        client(free, &stranger),
        client(port, &stranger),
        json!({"url": format!("https://127.0.0.1:{port}/")}),
        json!({"service": {"namespace": "dev", "name": "gone"}}),
    ] {
        let fail = json!({"clientConfig": config});
        let (code, message) = write(VALIDATING, &ValidatingWebhooks::default(), fail).await.unwrap_err();
        assert_eq!(code, 500);
        let start = "Internal error occurred: failed calling webhook \"hook.example.com\": failed to call webhook: ";
        assert!(message.starts_with(start), "{message}");
        let ignore = json!({"clientConfig": config, "failurePolicy": "Ignore"});
        write(VALIDATING, &ValidatingWebhooks::default(), ignore).await.unwrap();
    }
}

#[tokio::test]
async fn a_webhook_with_side_effects_takes_no_dry_runs() {
    let (port, ca) = serve(|_| json!({"allowed": true})).await;
    let webhook = json!({"clientConfig": client(port, &ca), "sideEffects": "Some"});
    let reader = Objects::new([(VALIDATING, configuration(webhook))]);
    let error = write_with(&reader, &ValidatingWebhooks::default(), true).await.unwrap_err();
    assert_eq!(error, (400, "admission webhook \"hook.example.com\" does not support dry run".into()));
}

#[tokio::test]
async fn only_what_changed_of_the_webhooks_is_decoded_and_compiled() {
    let conditions = json!([{"name": "named", "expression": "object.metadata.name == 'm'"}]);
    let of = |name: &str, url: &str, conditions: &Value| {
        let mut configuration =
            configuration(json!({"clientConfig": {"url": url}, "matchConditions": conditions, "name": name}));
        configuration["metadata"]["name"] = name.into();
        configuration
    };
    let reader = Objects::new([
        (VALIDATING, of("a.example.com", "https://a", &conditions)),
        (VALIDATING, of("b.example.com", "https://b", &conditions)),
    ]);
    let webhooks = Webhooks::new(VALIDATING);
    let first = webhooks.current(&*reader).await.unwrap();
    assert!(Arc::ptr_eq(&first, &webhooks.current(&*reader).await.unwrap()), "nothing changed");
    reader.put(VALIDATING, of("b.example.com", "https://elsewhere", &conditions));
    let second = webhooks.current(&*reader).await.unwrap();
    assert!(Arc::ptr_eq(&first[0], &second[0]) && !Arc::ptr_eq(&first[1], &second[1]));
    assert_eq!(second[1].value["clientConfig"]["url"], "https://elsewhere");
    assert!(Arc::ptr_eq(&first[1].conditions, &second[1].conditions));
    reader.put(VALIDATING, of("b.example.com", "https://elsewhere", &json!([])));
    let third = webhooks.current(&*reader).await.unwrap();
    assert!(!Arc::ptr_eq(&second[1].conditions, &third[1].conditions));
}

#[tokio::test]
async fn what_a_webhook_tells_the_audit_log_bears_its_name_also_of_a_refusal() {
    let (port, ca) = serve(|_| json!({"allowed": true, "auditAnnotations": {"why": "because"}})).await;
    for (kind, plugin) in [
        (MUTATING, &MutatingWebhooks::default() as &dyn Admit),
        (VALIDATING, &ValidatingWebhooks::default() as &dyn Admit),
    ] {
        let done = write(kind, plugin, json!({"clientConfig": client(port, &ca)})).await.unwrap();
        assert_eq!(done.notes.annotations(), [("hook.example.com/why".to_owned(), "because".to_owned())]);
    }
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {"uid": "u", "allowed": false, "auditAnnotations": {"why": "not"}}});
    let (answer, notes) = (review::Answer::read(&review, "u").unwrap(), Notes::default());
    answer.annotate("hook", &notes);
    assert!(answer.allowed("hook").is_err());
    assert_eq!(notes.annotations(), [("hook/why".to_owned(), "not".to_owned())]);
}
