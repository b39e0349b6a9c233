//! Bootstrap tokens: Secrets in `kube-system` with which a new node asks for its certificate
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>).

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::server::{AuthenticationError, Authenticator, Credentials, Reader, UserInfo};

const GROUP: &str = "system:bootstrappers";

/// Knows the holders of bootstrap tokens: `system:bootstrap:ID` in `system:bootstrappers` and the groups that the Secret names.
pub struct BootstrapTokens {
    reader: Arc<dyn Reader>,
}

/// The two halves of a token `[a-z0-9]{6}.[a-z0-9]{16}`.
fn halves(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// Whether a Secret may name this group: `system:bootstrappers:` and up to 256 of `[a-z0-9:-]`, the last no sign.
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    rest.len() <= 256
        && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-')
        && rest.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn field(secret: &Value, name: &str) -> String {
    let bytes = STANDARD.decode(secret["data"][name].as_str().unwrap_or_default()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

impl BootstrapTokens {
    /// Looks for the tokens' Secrets through `reader`.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }

    async fn holder(&self, id: &str, secret: &str) -> Result<UserInfo, String> {
        let name = format!("bootstrap-token-{id}");
        let found = self.reader.get("", "secrets", "kube-system", &name).await.map_err(|error| error.to_string())?;
        let Some(found) = found.filter(|object| object.meta().deletion_timestamp.is_none()) else {
            return Err(format!("no bootstrap token {id:?}"));
        };
        let stored = found.value().map_err(|error| error.to_string())?;
        // Compared as hashes, which takes no longer for a secret that is nearly right.
        let same = Sha256::digest(field(&stored, "token-secret")) == Sha256::digest(secret);
        if stored["type"] != "bootstrap.kubernetes.io/token" || field(&stored, "token-id") != id || !same {
            return Err(format!("the bootstrap token {id:?} is another"));
        }
        let expiration = field(&stored, "expiration");
        if !expiration.is_empty() && expiration.parse::<Timestamp>().map_or(true, |ends| ends <= crate::now()) {
            return Err(format!("the bootstrap token {id:?} has expired"));
        }
        if field(&stored, "usage-bootstrap-authentication") != "true" {
            return Err(format!("the bootstrap token {id:?} is not for authentication"));
        }
        let mut groups = vec![GROUP.to_owned()];
        let extra = field(&stored, "auth-extra-groups");
        for group in extra.split(',').filter(|group| !group.is_empty()) {
            if !is_group(group) {
                return Err(format!("the bootstrap token {id:?} names the group {group:?}, which it may not"));
            }
            groups.push(group.to_owned());
        }
        groups.sort();
        groups.dedup();
        Ok(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
    }
}

#[async_trait]
impl Authenticator for BootstrapTokens {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<UserInfo>, AuthenticationError> {
        let Some((id, secret)) = credentials.token.as_deref().and_then(halves) else { return Ok(None) };
        match self.holder(id, secret).await {
            Ok(user) => Ok(Some(user)),
            // As in Kubernetes such a token may be for somebody else to know.
            Err(why) => {
                tracing::debug!(why, "a bootstrap token is not taken");
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::fixture::Objects;

    fn secret(id: &str, fields: &[(&str, &str)]) -> (&'static str, Value) {
        let mut data = json!({"token-id": STANDARD.encode(id), "token-secret": STANDARD.encode("0123456789abcdef"),
            "usage-bootstrap-authentication": STANDARD.encode("true")});
        for (name, value) in fields {
            data[*name] = STANDARD.encode(value).into();
        }
        let metadata = json!({"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"});
        ("secrets", json!({"metadata": metadata, "type": "bootstrap.kubernetes.io/token", "data": data}))
    }

    #[tokio::test]
    async fn a_secret_knows_its_token() {
        let all = Objects::new([
            secret("plain0", &[]),
            secret("groups", &[("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token")]),
            secret("future", &[("expiration", "2999-01-01T00:00:00Z")]),
            secret("passed", &[("expiration", "2020-01-01T00:00:00Z")]),
            secret("badtim", &[("expiration", "soon")]),
            secret("unused", &[("usage-bootstrap-authentication", "false")]),
            secret("master", &[("auth-extra-groups", "system:masters")]),
            secret("mixed0", &[("token-id", "other0")]),
        ]);
        let tokens = BootstrapTokens::new(all);
        let ask = async |token: &str| {
            let credentials = Credentials { token: Some(token.to_owned()), ..Credentials::default() };
            tokens.authenticate(&credentials).await.unwrap()
        };
        let user = ask("plain0.0123456789abcdef").await.unwrap();
        assert_eq!(user, UserInfo::new("system:bootstrap:plain0", ["system:bootstrappers"]));
        let groups = ask("groups.0123456789abcdef").await.unwrap().groups;
        assert_eq!(groups, ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token"]);
        assert!(ask("future.0123456789abcdef").await.is_some());
        for id in ["passed", "badtim", "unused", "master", "mixed0", "absent"] {
            assert_eq!(ask(&format!("{id}.0123456789abcdef")).await, None, "{id}");
        }
        for token in ["plain0.0123456789abcdee", "plain0", "PLAIN0.0123456789abcdef", "plain0.0123456789abcdef0"] {
            assert_eq!(ask(token).await, None, "{token}");
        }
    }
}
