//! What a service-account token says (KEP-1205, KEP-4193).

use serde::{Deserialize, Deserializer, Serialize};

/// The claims of a service-account token. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The cluster that issued it.
    pub iss: String,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
    /// For whom it is.
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// When it ends.
    pub exp: i64,
    /// When it was made.
    #[serde(default)]
    pub iat: i64,
    /// From when it counts.
    #[serde(default)]
    pub nbf: i64,
    /// Its own identity.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// The objects it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
}

/// The objects a token is bound to: it ends with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubernetesClaims {
    /// Namespace of the service account, and of the pod or secret.
    pub namespace: String,
    /// The service account.
    pub serviceaccount: ObjectRef,
    /// The pod that uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectRef>,
    /// The secret that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectRef>,
    /// The node of the pod, or the node it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<ObjectRef>,
    /// When its user should have fetched a new one, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// One object by name and identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectRef {
    /// Name.
    pub name: String,
    /// Uid; may be missing for a node that was not known yet.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// RFC 7519 lets a lone audience be a plain string.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}
