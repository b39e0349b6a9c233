//! OpenID Connect: ID tokens of an issuer that is not this cluster
//! (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#openid-connect-tokens>).

use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use jsonwebtoken::{
    Algorithm, DecodingKey, Header, Validation,
    jwk::{Jwk, JwkSet},
};
use parking_lot::RwLock;
use serde_json::{Map, Value};
use tokio::{sync::Mutex, time::Instant};

use super::service_account::claimed_issuer;
use crate::server::{AuthenticationError, Authenticator, Credentials, Remote, RemoteError, UserInfo};

/// An issuer of ID tokens, and what to make of their claims: kube-apiserver's `--oidc-*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcIssuer {
    /// The issuer's URL, exactly as it is in the tokens; `https` only.
    pub url: String,
    /// The authorities of its certificate, in PEM; the system's if empty.
    pub ca: String,
    /// The audience that tokens must be for.
    pub client_id: String,
    /// The claim with the user's name: `sub`, unless given.
    pub username_claim: String,
    /// What the name gets in front; `None` for the issuer's URL and `#`, unless the claim is `email`.
    pub username_prefix: Option<String>,
    /// The claim with the groups; empty for none.
    pub groups_claim: String,
    /// What each group gets in front.
    pub groups_prefix: String,
    /// Claims that must be there with these values.
    pub required_claims: Vec<(String, String)>,
    /// How tokens may be signed.
    pub algorithms: Vec<Algorithm>,
}

impl OidcIssuer {
    /// An issuer with kube-apiserver's defaults: the user is `URL#SUB`, and has no groups.
    pub fn new(url: &str, ca: &str, client_id: &str) -> Self {
        Self {
            url: url.to_owned(),
            ca: ca.to_owned(),
            client_id: client_id.to_owned(),
            username_claim: "sub".to_owned(),
            username_prefix: None,
            groups_claim: String::new(),
            groups_prefix: String::new(),
            required_claims: Vec::new(),
            algorithms: vec![Algorithm::RS256],
        }
    }
}

/// How long the issuer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The issuer is asked for its keys at most this often.
const PAUSE: Duration = Duration::from_secs(10);
/// How far clocks may differ for a token that counts from a time on, in seconds, as go-oidc has it.
const LEEWAY: i64 = 300;

/// Knows the holders of an issuer's ID tokens. The issuer's keys are fetched when they are first needed, and again when a
/// token comes that none of them has signed, though not all the time.
pub struct Oidc {
    issuer: OidcIssuer,
    remote: Remote,
    keys: RwLock<Option<JwkSet>>,
    /// When the keys were last asked for; locked while they are.
    asked: Mutex<Option<Instant>>,
}

fn refuse<T>(why: impl std::fmt::Display) -> Result<T, AuthenticationError> {
    Err(AuthenticationError(format!("oidc: {why}")))
}

impl Oidc {
    /// Believes tokens of this issuer.
    ///
    /// # Errors
    /// Its URL is not one of `https`, or its authorities are none.
    pub fn new(issuer: OidcIssuer) -> Result<Self, RemoteError> {
        let url = format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/'));
        let remote = Remote::new(&url, &issuer.ca)?;
        if !remote.is_https() {
            return Err(RemoteError { what: url, reason: "an issuer has to be https".to_owned() });
        }
        Ok(Self { issuer, remote, keys: RwLock::default(), asked: Mutex::default() })
    }

    async fn fetch(&self) -> Result<JwkSet, String> {
        let configuration = self.remote.json(Method::GET, None).await?;
        if configuration["issuer"] != self.issuer.url.as_str() {
            return Err(format!("the issuer calls itself {}, not {:?}", configuration["issuer"], self.issuer.url));
        }
        let place = configuration["jwks_uri"].as_str().ok_or("the issuer does not say where its keys are")?;
        let keys = self.remote.at(place).map_err(|error| error.to_string())?.json(Method::GET, None).await?;
        serde_json::from_value(keys).map_err(|error| format!("the issuer's keys can't be read: {error}"))
    }

    /// Those of the keys known that may have signed a token.
    fn known(&self, id: Option<&str>) -> Vec<DecodingKey> {
        let named = |key: &&Jwk| id.is_none() || key.common.key_id.as_deref() == id;
        let keys = self.keys.read();
        let keys = keys.iter().flat_map(|set| &set.keys);
        keys.filter(named).filter_map(|key| DecodingKey::from_jwk(key).ok()).collect()
    }

    /// The claims of a token that a known key has signed.
    fn signed(&self, token: &str, header: &Header) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(header.alg);
        // Times and audiences are checked by `user`, by go-oidc's rules.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let decode = |key| jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation);
        self.known(header.kid.as_deref()).into_iter().find_map(|key| decode(key).ok()).map(|data| data.claims)
    }

    /// Asks the issuer for its keys, unless that was done just now.
    async fn refresh(&self) -> Result<(), String> {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < PAUSE) {
            return Ok(());
        }
        *asked = Some(Instant::now());
        let fetched = tokio::time::timeout(PATIENCE, self.fetch()).await;
        // Those who waited here meanwhile do not wait for it once more.
        *asked = Some(Instant::now());
        let set = fetched.map_err(|_| "the issuer does not answer".to_owned())??;
        *self.keys.write() = Some(set);
        Ok(())
    }

    /// The claims of a token whose signature holds. One that a known key has signed does not wait for the issuer; where none has,
    /// there may be other keys by now, be it under an old name.
    async fn verify(&self, token: &str) -> Result<Map<String, Value>, AuthenticationError> {
        let header = jsonwebtoken::decode_header(token).or_else(refuse)?;
        if !self.issuer.algorithms.contains(&header.alg) {
            return refuse(format!("tokens signed with {:?} are not taken", header.alg));
        }
        if let Some(claims) = self.signed(token, &header) {
            return Ok(claims);
        }
        self.refresh().await.or_else(refuse)?;
        match self.signed(token, &header) {
            Some(claims) => Ok(claims),
            None => refuse("failed to verify signature: no key of the issuer's fits"),
        }
    }

    /// The user of a token's claims.
    fn user(&self, claims: &Map<String, Value>, now: i64) -> Result<UserInfo, AuthenticationError> {
        let issuer = &self.issuer;
        let number = |name: &str| claims.get(name).and_then(Value::as_f64).map(|seconds| seconds as i64);
        let audiences = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one.as_str()],
            _ => Vec::new(),
        };
        if !audiences.contains(&issuer.client_id.as_str()) {
            return refuse(format!("expected audience {:?} got {audiences:?}", issuer.client_id));
        }
        match number("exp") {
            None => return refuse("token has no expiry"),
            Some(ends) if ends <= now => return refuse(format!("token is expired (Token Expiry: {ends})")),
            Some(_) => {}
        }
        if number("nbf").is_some_and(|from| now + LEEWAY < from) {
            return refuse("current time is before the token's nbf");
        }
        for (name, value) in &issuer.required_claims {
            if claims.get(name).and_then(Value::as_str) != Some(value) {
                return refuse(format!("required claim {name} is not {value:?}"));
            }
        }
        let Some(name) = claims.get(&issuer.username_claim).and_then(Value::as_str).filter(|name| !name.is_empty())
        else {
            return refuse(format!("parse username claims {:?}: claim not present", issuer.username_claim));
        };
        let email = issuer.username_claim == "email";
        if email && claims.get("email_verified").is_some_and(|verified| *verified != true) {
            return refuse("email not verified");
        }
        let prefix = match &issuer.username_prefix {
            Some(prefix) => prefix.clone(),
            None if email => String::new(),
            None => format!("{}#", issuer.url),
        };
        let groups = match claims.get(&issuer.groups_claim) {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one.clone()],
            Some(all) => match serde_json::from_value::<Vec<String>>(all.clone()) {
                Ok(groups) => groups,
                Err(_) => return refuse(format!("groups claim {:?} is no list of strings", issuer.groups_claim)),
            },
        };
        let groups = groups.iter().map(|group| format!("{}{group}", issuer.groups_prefix)).collect();
        let mut user = UserInfo { name: format!("{prefix}{name}"), groups, ..UserInfo::default() };
        if let Some(id) = claims.get("jti").and_then(Value::as_str) {
            let key = "authentication.kubernetes.io/credential-id".to_owned();
            user.extra.insert(key, vec![format!("JTI={id}")]);
        }
        Ok(user)
    }
}

#[async_trait]
impl Authenticator for Oidc {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<UserInfo>, AuthenticationError> {
        let Some(token) = &credentials.token else { return Ok(None) };
        if claimed_issuer(token).as_deref() != Some(self.issuer.url.as_str()) {
            return Ok(None);
        }
        let claims = self.verify(token).await?;
        self.user(&claims, crate::now().as_second()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_does_not_answer_is_waited_for_once() {
        // It takes connections and says nothing.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ca = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem();
        let oidc = Oidc::new(OidcIssuer::new(&format!("https://{}", silent.local_addr().unwrap()), &ca, "rk")).unwrap();
        let started = Instant::now();
        let refreshed = futures::future::join_all((0..3).map(|_| oidc.refresh())).await;
        assert_eq!(refreshed, [Err("the issuer does not answer".to_owned()), Ok(()), Ok(())]);
        assert!(started.elapsed() < 2 * PATIENCE, "{:?}", started.elapsed());
    }

    #[test]
    fn claims_make_a_user() {
        let ca = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem();
        let issuer = |change: fn(&mut OidcIssuer)| {
            let mut issuer = OidcIssuer::new("https://id.example.com", &ca, "rk");
            change(&mut issuer);
            Oidc::new(issuer).unwrap()
        };
        let claims = |more: Value| {
            let mut all =
                json!({"sub": "jane", "aud": "rk", "exp": 100, "email": "j@example.com", "groups": ["a", "b"]});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all.as_object().unwrap().clone()
        };
        let user = |oidc: &Oidc, more: Value| oidc.user(&claims(more), 50).map_err(|error| error.0);
        let plain = issuer(|_| {});
        assert_eq!(user(&plain, json!({})).unwrap(), UserInfo::new("https://id.example.com#jane", []));
        let mapped = issuer(|issuer| {
            issuer.username_claim = "email".into();
            issuer.groups_claim = "groups".into();
            issuer.groups_prefix = "id:".into();
            issuer.required_claims = vec![("hd".into(), "example.com".into())];
        });
        let known = json!({"hd": "example.com", "aud": ["x", "rk"]});
        assert_eq!(user(&mapped, known).unwrap(), UserInfo::new("j@example.com", ["id:a", "id:b"]));
        for (oidc, more, word) in [
            (&plain, json!({"aud": "other"}), "expected audience"),
            (&plain, json!({"exp": 50}), "expired"),
            (&plain, json!({"nbf": 1000}), "before"),
            (&plain, json!({"sub": ""}), "not present"),
            (&mapped, json!({}), "required claim"),
            (&mapped, json!({"hd": "example.com", "email_verified": false}), "not verified"),
            (&mapped, json!({"hd": "example.com", "groups": [1]}), "no list of strings"),
        ] {
            assert!(user(oidc, more).unwrap_err().contains(word), "{word}");
        }
        assert!(Oidc::new(OidcIssuer::new("http://id.example.com", &ca, "rk")).is_err());
    }
}
