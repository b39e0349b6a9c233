use super::*;
use crate::server::{
    authn::{KubernetesClaims, TokenSigner, discovery, jwks},
    fixture::Objects,
};
use serde_json::json;

/// Keys made for these tests only.
const P256: &str = include_str!("keys/p256.pem");
const OTHER: &str = include_str!("keys/other.pem");
const RSA: &str = include_str!("keys/rsa.pem");
const ISSUER: &str = "https://kubernetes.default.svc";

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn cluster() -> Arc<Objects> {
    let object = |name: &str, uid: &str| json!({"metadata": {"name": name, "namespace": "dev", "uid": uid}});
    Objects::new([
        ("serviceaccounts", object("bot", "u1")),
        ("pods", object("pod", "p1")),
        ("secrets", object("secret", "s1")),
        ("nodes", json!({"metadata": {"name": "node", "uid": "n1"}})),
    ])
}

fn claims() -> Claims {
    let at = now().as_second();
    Claims {
        iss: ISSUER.into(),
        sub: "system:serviceaccount:dev:bot".into(),
        aud: vec![ISSUER.into(), "other".into()],
        exp: at + 3600,
        iat: at,
        nbf: at,
        jti: "id".into(),
        kubernetes: KubernetesClaims {
            namespace: "dev".into(),
            serviceaccount: ObjectRef { name: "bot".into(), uid: "u1".into() },
            ..KubernetesClaims::default()
        },
    }
}

fn tokens(objects: Arc<Objects>) -> ServiceAccountTokens {
    let keys = [P256, RSA].map(|pem| TokenSigner::from_pem(ISSUER, pem).unwrap().public_key().clone()).into();
    ServiceAccountTokens::new(vec![ISSUER.into()], vec![ISSUER.into()], keys, objects)
}

async fn check(objects: Arc<Objects>, token: &str) -> Result<Option<UserInfo>, String> {
    let found = tokens(objects).check(token, &[], now()).await;
    found.map(|found| found.map(|(user, _)| user)).map_err(|error| error.0)
}

fn sign(change: impl FnOnce(&mut Claims)) -> String {
    let mut claims = claims();
    change(&mut claims);
    TokenSigner::from_pem(ISSUER, P256).unwrap().sign(&claims).unwrap()
}

fn reference(name: &str, uid: &str) -> Option<ObjectRef> {
    Some(ObjectRef { name: name.into(), uid: uid.into() })
}

#[tokio::test]
async fn a_good_token_names_its_service_account() {
    for pem in [P256, RSA] {
        let token = TokenSigner::from_pem(ISSUER, pem).unwrap().sign(&claims()).unwrap();
        let user = check(cluster(), &token).await.unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:dev:bot", "u1"));
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:dev"]);
        assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=id"]);
    }
    let bound = sign(|claims| {
        claims.kubernetes.pod = reference("pod", "p1");
        claims.kubernetes.node = reference("gone-but-only-told", "n9");
    });
    let user = check(cluster(), &bound).await.unwrap().unwrap();
    let extra = |key: &str| user.extra[&format!("authentication.kubernetes.io/{key}")][0].clone();
    assert_eq!(["pod-name", "pod-uid", "node-name", "node-uid"].map(extra), ["pod", "p1", "gone-but-only-told", "n9"]);
}

#[tokio::test]
async fn wrong_tokens_are_refused() {
    let at = now().as_second();
    let good = sign(|_| ());
    let (rest, signature) = good.rsplit_once('.').unwrap();
    let payload = rest.split_once('.').unwrap().1;
    let none = format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
    // Signed with HMAC, the public key as its secret: the classic confusion of algorithms.
    let hmac = format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#));
    let mut forged = claims();
    forged.kubernetes.serviceaccount.name = "admin".into();
    let forged = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&forged).unwrap());
    let tampered = format!("{}.{forged}.{signature}", rest.split_once('.').unwrap().0);
    for (token, word) in [
        (sign(|c| c.exp = at - 61), "service account token has expired"),
        (sign(|c| c.nbf = at + 61), "service account token is not valid yet"),
        (sign(|c| c.aud = vec!["other".into()]), "is invalid for the target audiences"),
        (sign(|c| c.sub = "system:serviceaccount:dev:admin".into()), "claims could not be validated"),
        (sign(|c| c.kubernetes.serviceaccount.uid = "u2".into()), "service account UID (u1) does not match claim (u2)"),
        (sign(|c| c.kubernetes.pod = reference("pod", "p2")), "pod UID (p1) does not match"),
        (sign(|c| c.kubernetes.pod = reference("gone", "p1")), "has been invalidated"),
        (sign(|c| c.kubernetes.secret = reference("gone", "s1")), "has been invalidated"),
        (sign(|c| c.kubernetes.node = reference("gone", "n1")), "has been invalidated"),
        (sign(|c| c.kubernetes.node = reference("node", "n2")), "node UID (n1) does not match"),
        (none, "invalid bearer token"),
        (hmac, "invalid bearer token"),
        (tampered, "invalid bearer token"),
        (TokenSigner::from_pem(ISSUER, OTHER).unwrap().sign(&claims()).unwrap(), "no key of this cluster"),
    ] {
        let error = check(cluster(), &token).await.unwrap_err();
        assert!(error.contains(word), "{error:?} lacks {word:?}");
    }
    // Within the minute that clocks may differ.
    check(cluster(), &sign(|c| c.exp = at - 30)).await.unwrap();
}

#[tokio::test]
async fn a_token_ends_with_its_service_account() {
    let objects = cluster();
    objects.remove("serviceaccounts", "dev", "bot");
    assert!(check(objects.clone(), &sign(|_| ())).await.unwrap_err().contains("not found"));
    let deleted =
        |at: &str| json!({"metadata": {"name": "bot", "namespace": "dev", "uid": "u1", "deletionTimestamp": at}});
    objects.put("serviceaccounts", deleted("2026-06-01T11:58:59Z"));
    assert!(check(objects.clone(), &sign(|_| ())).await.unwrap_err().contains("has been deleted"));
    objects.put("serviceaccounts", deleted("2026-06-01T11:59:30Z"));
    assert!(check(objects, &sign(|_| ())).await.is_ok());
}

#[tokio::test]
async fn others_tokens_are_not_ours_to_judge() {
    let foreign = TokenSigner::from_pem("https://elsewhere", P256).unwrap().sign(&claims()).unwrap();
    for token in [foreign.as_str(), "opaque", "a.b", "a.b.c", "a.b.c.d", ""] {
        assert_eq!(check(cluster(), token).await, Ok(None), "{token}");
    }
}

#[tokio::test]
async fn wanted_audiences_are_answered_with_those_that_fit() {
    let tokens = tokens(cluster());
    let wanted = ["other".to_owned(), "third".to_owned()];
    let (_, fitting) = tokens.check(&sign(|_| ()), &wanted, now()).await.unwrap().unwrap();
    assert_eq!(fitting, ["other"]);
}

#[test]
fn the_discovery_documents_name_the_keys() {
    let keys: Vec<_> = [P256, RSA].map(|pem| TokenSigner::from_pem(ISSUER, pem).unwrap().public_key().clone()).into();
    let set = jwks(&keys);
    assert_eq!((set["keys"][0]["kty"].as_str(), set["keys"][0]["alg"].as_str()), (Some("EC"), Some("ES256")));
    assert_eq!((set["keys"][1]["kty"].as_str(), set["keys"][1]["use"].as_str()), (Some("RSA"), Some("sig")));
    assert_ne!(set["keys"][0]["kid"], set["keys"][1]["kid"]);
    let document = discovery(ISSUER, "https://10.0.0.1:6443/openid/v1/jwks", &keys);
    assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256", "RS256"]));
    assert_eq!(document["issuer"], ISSUER);
}

#[test]
fn what_is_no_private_key_is_an_error() {
    assert!(TokenSigner::from_pem(ISSUER, "junk").is_err());
}
