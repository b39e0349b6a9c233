//! Who callers are: every authenticator, through the server.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rk_api::server::{
    Remote, Security,
    authn::{Anonymous, IdentityHeaders, Oidc, OidcIssuer, RequestHeader, TokenKey, TokenSigner, TokenWebhook},
    pki::{Pki, Wanted},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::common::{Api, Caller, ISSUER, OLD_KEY, bearer, https, issuer};

fn now() -> i64 {
    i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

#[tokio::test]
async fn anonymous_callers_are_let_in_where_it_is_said() {
    let nobody = Caller::default();
    for (anonymous, live, version) in [
        (Anonymous::Refused, 401, 401),
        (Anonymous::Allowed, 200, 200),
        (Anonymous::At(vec!["/livez".into()]), 200, 401),
    ] {
        let api = Api::start(|_, security| Security { anonymous, ..security }).await;
        assert_eq!(api.get(&nobody, "/livez").await.code, live);
        assert_eq!(api.get(&nobody, "/version").await.code, version);
        assert_eq!(api.get(&bearer("wrong"), "/livez").await.code, 401);
        assert_eq!(api.get(&bearer("jane"), "/version").await.code, 200);
    }
}

#[tokio::test]
async fn bootstrap_tokens_are_secrets() {
    let api = Api::start(|_, security| Security { bootstrap_tokens: true, ..security }).await;
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:workers"},
    });
    let token = bearer("abcdef.0123456789abcdef");
    assert_eq!(api.whoami(&token).await, Err(401));
    api.create("/api/v1/namespaces/kube-system/secrets", secret).await;
    let groups = json!(["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"]);
    assert_eq!(api.whoami(&token).await, Ok(json!({"username": "system:bootstrap:abcdef", "groups": groups})));
    let path = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef";
    let expired = json!({"stringData": {"expiration": "2020-01-01T00:00:00Z"}});
    let merge = Caller { headers: &[("content-type", "application/merge-patch+json")], ..bearer("admin") };
    assert_eq!(api.call(&merge, "PATCH", path, expired).await.code, 200);
    assert_eq!(api.whoami(&token).await, Err(401));
}

#[tokio::test]
async fn service_account_keys_are_rotated() {
    let api = Api::start(|_, mut security| {
        let mut issuer = issuer();
        issuer.other_keys.push(OLD_KEY.into());
        issuer.other_urls.push("https://old.example.com".into());
        security.service_accounts = Some(issuer);
        security
    })
    .await;
    let account = api.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "bot"}})).await;
    let path = "/api/v1/namespaces/default/serviceaccounts/bot/token";
    let new = api.create(path, json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"})).await;
    let new = new["status"]["token"].as_str().unwrap().to_owned();
    let uid = account["metadata"]["uid"].as_str().unwrap();
    // What a server with the old key and the old URL signed.
    let old = |url: &str, key: &str| {
        let now = now();
        let claims = json!({"iss": url, "sub": "system:serviceaccount:default:bot", "aud": [ISSUER], "exp": now + 600,
            "iat": now, "nbf": now, "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "bot", "uid": uid}}});
        TokenSigner::from_pem(url, key).unwrap().sign(&serde_json::from_value(claims).unwrap()).unwrap()
    };
    let user = "system:serviceaccount:default:bot";
    for token in [&new, &old(ISSUER, OLD_KEY), &old("https://old.example.com", OLD_KEY)] {
        assert_eq!(api.whoami(&bearer(token)).await.unwrap()["username"], user);
    }
    let foreign = include_str!("../../src/server/authn/service_account/keys/other.pem");
    for token in [old(ISSUER, foreign), old("https://evil.example.com", OLD_KEY)] {
        assert_eq!(api.whoami(&bearer(&token)).await, Err(401));
    }
    let discovery = api.get(&bearer("admin"), "/.well-known/openid-configuration").await.body;
    assert_eq!(discovery["issuer"], ISSUER);
    assert_eq!(discovery["id_token_signing_alg_values_supported"], json!(["ES256", "RS256"]));
    let keys = api.get(&bearer("admin"), "/openid/v1/jwks").await.body;
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    assert!(keys["keys"].as_array().unwrap().iter().all(|key| key["use"] == "sig" && key["kid"].is_string()));
    // A key is the same key by its public half.
    let public = std::fs::read_to_string(api.folder.path().join("sa.pub")).unwrap();
    let private = std::fs::read_to_string(api.folder.path().join("sa.key")).unwrap();
    let id = |pem: &str| format!("{:?}", TokenKey::from_pem(pem).unwrap());
    assert_eq!(id(&public), id(&private));
}

#[tokio::test]
async fn an_issuer_of_id_tokens_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path()).unwrap();
    let key = EncodingKey::from_rsa_pem(OLD_KEY.as_bytes()).unwrap();
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap();
    jwk.common.key_id = Some("k1".into());
    let (keys, asked) = (Arc::new(Mutex::new(json!({"keys": [jwk]}))), Arc::new(AtomicUsize::new(0)));
    let url = Arc::new(std::sync::OnceLock::new());
    let served = https(&pki, {
        let (keys, asked, url) = (Arc::clone(&keys), Arc::clone(&asked), Arc::clone(&url));
        move |path, _| match path {
            "/.well-known/openid-configuration" => {
                let url: &String = url.get().unwrap();
                json!({"issuer": url, "jwks_uri": format!("{url}/keys")})
            }
            "/keys" => {
                asked.fetch_add(1, Ordering::SeqCst);
                keys.lock().unwrap().clone()
            }
            _ => Value::Null,
        }
    })
    .await;
    url.set(served.clone()).unwrap();
    let issuer = OidcIssuer {
        username_prefix: Some("id:".into()),
        groups_claim: "groups".into(),
        groups_prefix: "id:".into(),
        algorithms: vec![Algorithm::RS256, Algorithm::ES256],
        ..OidcIssuer::new(&served, pki.ca(), "rk")
    };
    let api = Api::start(|_, mut security| {
        security.authenticators.push(Arc::new(Oidc::new(issuer).unwrap()));
        security
    })
    .await;
    let sign = |id: &str, change: Value| {
        let now = now();
        let mut claims = json!({"iss": served, "sub": "jane", "aud": "rk", "exp": now + 60, "groups": ["dev"]});
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let header = Header { kid: Some(id.into()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    };
    let good = sign("k1", json!({}));
    let known = json!({"username": "id:jane", "groups": ["id:dev", "system:authenticated"]});
    assert_eq!(api.whoami(&bearer(&good)).await, Ok(known));
    assert!(api.whoami(&bearer(&good)).await.is_ok());
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the keys are remembered");
    for token in [
        sign("k1", json!({"aud": "other"})),
        sign("k1", json!({"exp": 1})),
        sign("k2", json!({})),
        sign("k1", json!({"iss": "https://evil.example.com"})),
        format!("{}x", good),
    ] {
        assert_eq!(api.whoami(&bearer(&token)).await, Err(401));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "an unknown key does not make the server ask all the time");

    // Another key under the old name; then tokens that name none.
    let next = include_bytes!("../../src/server/authn/service_account/keys/p256.pem");
    let next = EncodingKey::from_ec_pem(next).unwrap();
    let mut jwk = Jwk::from_encoding_key(&next, Algorithm::ES256).unwrap();
    jwk.common.key_id = Some("k1".into());
    *keys.lock().unwrap() = json!({"keys": [jwk]});
    let claims = json!({"iss": served, "sub": "jane", "aud": "rk", "exp": now() + 60});
    let sign = |id: Option<&str>| {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &next).unwrap()
    };
    for (token, fetched) in [(sign(Some("k1")), 2), (sign(None), 2)] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::time::resume();
        assert!(api.whoami(&bearer(&token)).await.is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), fetched);
    }
    assert_eq!(api.whoami(&bearer(&good)).await, Err(401), "the old key is believed no more");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    *keys.lock().unwrap() = json!({"keys": []});
    assert!(api.whoami(&bearer(&sign(None))).await.is_ok(), "a known key asks nobody");
}

#[tokio::test]
async fn a_webhook_knows_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path()).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let url = https(&pki, {
        let asked = Arc::clone(&asked);
        move |path, question| {
            assert_eq!((path, &question["kind"]), ("/review", &json!("TokenReview")));
            asked.fetch_add(1, Ordering::SeqCst);
            let status = match question["spec"]["token"].as_str().unwrap() {
                "good" => json!({"authenticated": true, "user": {"username": "joe", "uid": "7", "groups": ["ops"],
                    "extra": {"team": ["a"]}}}),
                "bad" => json!({"authenticated": false, "error": "revoked"}),
                _ => json!({}),
            };
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status})
        }
    })
    .await;
    let config = json!({
        "clusters": [{"name": "w", "cluster": {"server": format!("{url}/review"),
            "certificate-authority-data": STANDARD.encode(pki.ca())}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "w", "user": "u"}}], "current-context": "c",
    });
    let remote = Remote::from_kubeconfig(&config.to_string()).unwrap();
    let api = Api::start(|_, mut security| {
        let webhook = TokenWebhook::new(remote, Vec::new(), Duration::from_secs(120));
        security.authenticators.push(Arc::new(webhook));
        security
    })
    .await;
    let joe =
        json!({"username": "joe", "uid": "7", "groups": ["ops", "system:authenticated"], "extra": {"team": ["a"]}});
    assert_eq!(api.whoami(&bearer("good")).await, Ok(joe.clone()));
    assert_eq!(api.whoami(&bearer("good")).await, Ok(joe));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(api.whoami(&bearer("bad")).await, Err(401));
    assert_eq!(api.whoami(&bearer("other")).await, Err(401));
    assert!(api.whoami(&bearer("jane")).await.is_ok(), "others are asked first");
}

#[tokio::test]
async fn a_front_proxy_says_who_calls() {
    let folder = tempfile::tempdir().unwrap();
    let proxies = Pki::open(folder.path()).unwrap();
    let trusted = RequestHeader::new(proxies.ca(), vec!["front-proxy".into()], &IdentityHeaders::default()).unwrap();
    let api = Api::start(|_, security| Security { request_header: Some(Arc::new(trusted)), ..security }).await;
    let identity = |name: &str| proxies.identity(name, &Wanted::client(name, "")).unwrap();
    let (front, stranger) = (identity("front-proxy"), identity("stranger"));
    let headers = [
        ("X-Remote-User", "jane"),
        ("X-Remote-Group", "dev"),
        ("X-Remote-Group", "ops"),
        ("X-Remote-Uid", "7"),
        ("X-Remote-Extra-Acme.com%2Fproject", "x"),
    ];
    let caller = Caller { identity: Some(&front), headers: &headers, ..Caller::default() };
    let jane = json!({"username": "jane", "uid": "7", "groups": ["dev", "ops", "system:authenticated"],
        "extra": {"acme.com/project": ["x"]}});
    assert_eq!(api.whoami(&caller).await, Ok(jane));
    // Headers of others say nothing.
    assert_eq!(api.whoami(&Caller { identity: Some(&stranger), ..caller }).await, Err(401));
    assert_eq!(api.whoami(&Caller { headers: &headers, ..Caller::default() }).await, Err(401));
    let client = api.pki.identity("client", &Wanted::client("joe", "")).unwrap();
    let joe = Caller { identity: Some(&client), headers: &headers, ..Caller::default() };
    assert_eq!(api.whoami(&joe).await.unwrap()["username"], "joe");
}

#[tokio::test]
async fn what_a_front_proxy_says_is_told_to_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let proxies = Pki::open(folder.path()).unwrap();
    let named = IdentityHeaders {
        username: vec!["X-Forwarded-User".into()],
        extra_prefix: vec!["X-Forwarded-Extra-".into()],
        ..IdentityHeaders::default()
    };
    let trusted = RequestHeader::new(proxies.ca(), Vec::new(), &named).unwrap();
    let api = Api::build(
        |_, security| Security { request_header: Some(Arc::new(trusted)), ..security },
        |_, builder| builder.proxy_to([("127.0.0.1".parse().unwrap(), 32)]),
    )
    .await;
    // A pod that says which headers came.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                let names: Vec<_> = request.headers().keys().map(|name| name.as_str().to_owned()).collect();
                Ok::<_, Infallible>(Response::new(names.join(" ")))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    api.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    api.create(pods, pod).await;
    let merge = Caller { headers: &[("content-type", "application/merge-patch+json")], ..bearer("admin") };
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    let answer = api.call(&merge, "PATCH", &format!("{pods}/p/status"), status).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    let front = proxies.identity("front-proxy", &Wanted::client("front-proxy", "")).unwrap();
    let headers = [
        ("X-Forwarded-User", "jane"),
        ("X-Forwarded-User-Agent", "browser"),
        ("X-Forwarded-Extra-Team", "a"),
        ("X-Remote-Group", "system:masters"),
    ];
    let jane = Caller { identity: Some(&front), headers: &headers, ..Caller::default() };
    assert_eq!(api.whoami(&jane).await.unwrap()["username"], "jane");
    let answer = api.get(&jane, &format!("{pods}/p:{port}/proxy/")).await;
    let came: Vec<&str> = answer.body.as_str().unwrap().split(' ').filter(|name| name.starts_with("x-")).collect();
    assert_eq!((answer.code, came), (200, vec!["x-forwarded-user-agent"]));
}

#[tokio::test]
async fn certificates_are_renewed_without_a_restart() {
    let api = Api::start(|_, security| security).await;
    let admin = api.pki.identity("admin", &Wanted::admin()).unwrap();
    let (by, path) = (Caller { identity: Some(&admin), ..Caller::default() }, "/api/v1/namespaces");
    assert_eq!(api.get(&by, path).await.code, 200);
    let folder = tempfile::tempdir().unwrap();
    let next = Pki::open(folder.path()).unwrap();
    let serving = next.identity("apiserver", &Wanted::api_server([])).unwrap();
    api.tls.reload(&serving.certificate, &serving.key, Some(next.ca())).unwrap();
    let call = |by| super::common::call(&api.address, next.ca(), by, "GET", path, Value::Null);
    assert_eq!(call(&by).await.code, 401, "the old authority is not believed any more");
    let renewed = next.identity("admin", &Wanted::admin()).unwrap();
    assert_eq!(call(&Caller { identity: Some(&renewed), ..Caller::default() }).await.code, 200);
    assert!(api.tls.reload("junk", &serving.key, None).is_err());
}
