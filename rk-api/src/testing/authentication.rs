//! The conformance suite of `Authenticator`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;

use crate::server::{Authenticator, Credentials, UserInfo};

/// Checks what is promised of every [`Authenticator`], with credentials of its kind: `known` belong to these users, `wrong` to nobody.
///
/// 1. Whoever brings nothing is nobody's: the answer is `None`, for others to know the caller.
/// 2. Whom it knows has a name, and it tells the same of the same credentials each time, to many at once too.
/// 3. What is wrong, cut short or prolonged is nobody's. So is what is of another kind or of none (headers, tokens and
///    certificates of any bytes), which is no reason to panic.
/// 4. Errors do not tell the token: they are written to logs.
///
/// # Panics
/// A promise is broken.
pub async fn authenticator_conformance(
    authenticator: &dyn Authenticator,
    known: &[(Credentials, UserInfo)],
    wrong: &[Credentials],
) {
    let nothing = authenticator.authenticate(&Credentials::default()).await;
    assert!(matches!(nothing, Ok(None)), "no credentials: {nothing:?}");
    for (credentials, user) in known {
        assert!(!user.name.is_empty(), "a user without a name is nobody");
        let asked = (0..16).map(|_| authenticator.authenticate(credentials));
        for answer in futures::future::join_all(asked).await {
            assert_eq!(answer.as_ref().ok(), Some(&Some(user.clone())), "{credentials:?}: {answer:?}");
        }
        for (change, token) in credentials.token.iter().flat_map(|token| damaged(token)) {
            refuse(authenticator, &Credentials { token: Some(token), ..credentials.clone() }, change).await;
        }
    }
    for credentials in wrong {
        refuse(authenticator, credentials, "wrong").await;
    }
    for credentials in foreign() {
        refuse(authenticator, &credentials, "foreign").await;
    }
    for (credentials, user) in known {
        let answer = authenticator.authenticate(credentials).await;
        assert_eq!(answer.ok(), Some(Some(user.clone())), "after wrong ones");
    }
}

async fn refuse(authenticator: &dyn Authenticator, credentials: &Credentials, what: &str) {
    match authenticator.authenticate(credentials).await {
        Ok(None) => {}
        Ok(Some(user)) => panic!("{what} credentials are taken for {}'s: {credentials:?}", user.name),
        Err(error) => {
            let token = credentials.token.as_deref().filter(|token| token.len() >= 16);
            assert!(!token.is_some_and(|token| error.0.contains(token)), "the error tells the token: {error}");
        }
    }
}

/// Tokens that are nearly this one.
fn damaged(token: &str) -> Vec<(&'static str, String)> {
    let cut = token.char_indices().nth_back(token.chars().count() / 3).map_or(0, |(at, _)| at);
    let mut all = vec![
        ("cut", token[..cut].to_owned()),
        ("longer", format!("{token}x")),
        ("longer at the beginning", format!("x{token}")),
        ("empty", String::new()),
        ("followed by another one's", format!("{token}.{token}")),
    ];
    // A signed token: of other content, and one that says that it needs no signature.
    if let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] {
        let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        all.push(("unsigned", format!("{unsigned}.{claims}.")));
        all.push(("wrongly signed", format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([7; 64]))));
        let others = URL_SAFE_NO_PAD.encode(r#"{"sub":"system:admin","exp":99999999999}"#);
        all.push(("changed", format!("{header}.{others}.{signature}")));
    }
    all.retain(|(_, damaged)| damaged != token);
    all
}

/// Credentials of no kind.
fn foreign() -> Vec<Credentials> {
    let long = "x".repeat(100_000);
    let tokens = ["", ".", "..", "a.b.c", "abcdef.0123456789abcdef", "\u{0}", "\u{1F512}", "Bearer x", &long];
    let mut all: Vec<Credentials> = tokens
        .into_iter()
        .map(|token| Credentials { token: Some(token.to_owned()), ..Credentials::default() })
        .collect();
    for bytes in [&b""[..], &[0x30], &[0x30, 0x82, 0xff, 0xff], &[0xff; 4096]] {
        let leaf = Bytes::copy_from_slice(bytes);
        all.push(Credentials { certificate: Some(Ok(leaf.clone())), chain: [leaf].into(), ..Credentials::default() });
    }
    all.push(Credentials { certificate: Some(Err("not trusted".to_owned())), ..Credentials::default() });
    let names = ["x-remote-user", "x-remote-group", "impersonate-user", "authorization", "cookie"];
    for value in [&b"admin"[..], b"", &[0xff, 0xfe]] {
        let mut headers = http::HeaderMap::new();
        for name in names {
            headers
                .extend(http::HeaderValue::from_bytes(value).map(|value| (http::HeaderName::from_static(name), value)));
        }
        all.push(Credentials { headers, ..Credentials::default() });
    }
    all
}
