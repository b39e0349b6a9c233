//! What clients send an API server: bodies in each encoding, patches of each kind, selectors, continue tokens and field sets, all
//! through the server itself.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use rk_api::server::{HttpService, Server, UserInfo};
use rk_store::MemoryStore;

use crate::mutate::{Random, mutate};

/// Requests to one server, which takes longer to start than to answer.
const REQUESTS: usize = 50;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Method, path, media type and body of requests that are right.
const WHOLE: [(&str, &str, &str, &[u8]); 15] = [
    ("POST", "/api/v1/namespaces/default/pods", JSON, br#"{"kind":"Pod","metadata":{"name":"p","labels":{"a":"b"},"managedFields":[{"manager":"m","operation":"Apply","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{}}},"f:list":{"v:\"x\"":{},"i:0":{}}}}}]},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1500m","memory":"1.5Gi"}},"ports":[{"containerPort":80}]}],"tolerations":[{"operator":"Exists"}]}}"#),
    ("POST", "/apis/apps/v1/namespaces/default/deployments", YAML, b"metadata:\n  name: d\nspec:\n  replicas: 3\n  selector: {matchExpressions: [{key: a, operator: In, values: [b, c]}]}\n  template:\n    metadata: &m {labels: {a: b}}\n    spec:\n      containers:\n      - name: c\n        image: \"i\"\n        command: [sh, -c, |-\n          echo 1\n          ]\n"),
    ("POST", "/api/v1/namespaces/default/configmaps", PROTOBUF, b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x1b\x0a\x11\x0a\x01c\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00\x12\x06\x0a\x01a\x12\x01b\x1a\x00\x22\x00"),
    ("POST", "/api/v1/namespaces/default/configmaps", JSON, br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"g-","annotations":{"a":"\u00e9\\n"}},"data":{"k":"v"},"binaryData":{"b":"AAEC"}}"#),
    ("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", JSON, br#"{"metadata":{"name":"things.example.com"},"spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"things","kind":"Thing"},"versions":[{"name":"v1","served":true,"storage":true,"additionalPrinterColumns":[{"name":"A","type":"string","jsonPath":".spec.list[?(@.a==\"b\")].c"}],"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","required":["a"],"properties":{"a":{"type":"integer","minimum":1,"default":2},"s":{"type":"string","pattern":"^a+$","format":"date-time"},"l":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":{"type":"object","required":["k"],"properties":{"k":{"type":"string"}}}}},"x-kubernetes-validations":[{"rule":"self.a > 0 || has(self.s)","message":"no"}]}}}}}]}}"#),
    ("PUT", "/api/v1/namespaces/default/configmaps/whole", JSON, br#"{"metadata":{"name":"whole","resourceVersion":"7","uid":"u"},"data":{"k":"w"}}"#),
    ("PATCH", "/api/v1/namespaces/default/configmaps/whole", "application/json-patch+json", br#"[{"op":"test","path":"/data/k","value":"v"},{"op":"add","path":"/data/a~1b","value":"x"},{"op":"move","from":"/data/k","path":"/data/l"},{"op":"copy","from":"/data/l","path":"/data/m"},{"op":"remove","path":"/data/l"}]"#),
    ("PATCH", "/api/v1/namespaces/default/configmaps/whole", "application/merge-patch+json", br#"{"data":{"k":null,"l":"x"},"metadata":{"labels":{"a":"b"}}}"#),
    ("PATCH", "/api/v1/namespaces/default/pods/whole", "application/strategic-merge-patch+json", br#"{"spec":{"$setElementOrder/tolerations":[{"key":"a"}],"tolerations":[{"key":"a","operator":"Exists"},{"$patch":"delete","key":"b"}],"activeDeadlineSeconds":5},"metadata":{"$retainKeys":["labels"],"labels":{"$patch":"replace","x":"y"},"$deleteFromPrimitiveList/finalizers":["f"]}}"#),
    ("PATCH", "/api/v1/namespaces/default/configmaps/whole?fieldManager=f&force=true", "application/apply-patch+yaml", b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: whole}\ndata: {k: applied}\n"),
    ("GET", "/api/v1/pods?labelSelector=a+in+(b,c),!d,e!=f,g%3Dh&fieldSelector=spec.nodeName%3Dn,status.phase!%3DRunning", JSON, b""),
    ("GET", "/api/v1/pods?limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NSwic3RhcnQiOiJkZWZhdWx0L3AifQ", JSON, b""),
    ("GET", "/api/v1/configmaps?resourceVersion=5&resourceVersionMatch=NotOlderThan&timeoutSeconds=1", JSON, b""),
    ("DELETE", "/api/v1/namespaces/default/configmaps?labelSelector=x%3Dy", JSON, br#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"propagationPolicy":"Background","preconditions":{"uid":"u"}}"#),
    ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", JSON, br#"{"spec":{"user":"u","groups":["g"],"resourceAttributes":{"verb":"get","resource":"pods","labelSelector":{"requirements":[{"key":"a","operator":"In","values":["b"]}]}}}}"#),
];

async fn start() -> HttpService {
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await.expect("an empty store is read");
    let service = server.service_as(UserInfo::loopback());
    let whole = br#"{"metadata":{"name":"whole"},"data":{"k":"v"}}"#;
    let pod = br#"{"metadata":{"name":"whole"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
    for (path, body) in [
        ("/api/v1/namespaces", &br#"{"metadata":{"name":"default"}}"#[..]),
        ("/api/v1/namespaces/default/configmaps", whole),
        ("/api/v1/namespaces/default/pods", pod),
    ] {
        let code = send(&service, "POST", path, JSON, "", body).await;
        assert_eq!(code, Some(StatusCode::CREATED), "{path}");
    }
    service
}

/// The code of the answer; `None` if HTTP itself does not take the request.
async fn send(
    service: &HttpService,
    method: &str,
    uri: &str,
    kind: &str,
    accept: &str,
    body: &[u8],
) -> Option<StatusCode> {
    let request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, kind);
    let request = request.header(header::ACCEPT, accept).body(Full::new(Bytes::copy_from_slice(body))).ok()?;
    let answer = service.clone().handle(request).await;
    let code = answer.status();
    if !uri.contains("watch") {
        let told = answer.into_body().collect().await.expect("an answer is whole").to_bytes();
        // Whatever a client sends, the fault is not the server's.
        let told = String::from_utf8_lossy(&told);
        let sent = String::from_utf8_lossy(body);
        // Kubernetes answers some patches with a 500 that gives no reason; one that does is a fault.
        assert!(!told.contains("InternalError"), "{method} {uri} {kind}: {told} to {sent}");
    }
    Some(code)
}

/// Requests of which most are damaged; whether any was done.
pub async fn api(random: &mut Random) -> bool {
    let service = start().await;
    let mut done = false;
    for _ in 0..REQUESTS {
        let (method, path, kind, body) = WHOLE[random.below(WHOLE.len())];
        let (mut uri, mut body) = (path.as_bytes().to_vec(), body.to_vec());
        let query = path.find('?').map_or(path.len(), |at| at + 1);
        if body.is_empty() || query < path.len() && random.below(3) == 0 {
            mutate(&mut uri, query, random);
        } else {
            mutate(&mut body, 0, random);
        }
        // Bytes that no URI has are escaped, as clients do.
        let uri: String = uri
            .iter()
            .map(|&byte| match byte {
                b'!'..=b'~'
                    if !matches!(byte, b'#' | b'<' | b'>' | b'"' | b'{' | b'}' | b'|' | b'\\' | b'^' | b'`') =>
                {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            })
            .collect();
        let kind = if random.below(20) == 0 { [JSON, YAML, PROTOBUF][random.below(3)] } else { kind };
        let accept = [JSON, YAML, PROTOBUF, "application/json;as=Table;v=v1;g=meta.k8s.io"][random.below(4)];
        done |= send(&service, method, &uri, kind, accept, &body).await.is_some_and(|code| code.is_success());
    }
    let code = send(&service, "GET", "/api/v1/namespaces/default/pods/whole", JSON, JSON, b"").await;
    assert!(matches!(code, Some(StatusCode::OK | StatusCode::NOT_FOUND)), "the server still answers");
    done
}
