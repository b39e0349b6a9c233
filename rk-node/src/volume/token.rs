//! Service account tokens of projected volumes: asked for with TokenRequest, renewed before they end.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection},
};
use rk_api::{Api, Client};
use serde_json::json;

struct Token {
    text: String,
    renew_at: Timestamp,
}

/// The tokens of one pod.
#[derive(Default)]
pub(crate) struct Tokens {
    by_audience: HashMap<(String, i64), Token>,
}

/// Tokens are renewed when 80 % of their time has passed, or when they are a day old.
fn renewal(now: Timestamp, expires: Timestamp) -> Timestamp {
    let left = Duration::try_from(expires.duration_since(now)).unwrap_or_default();
    let wait = left.mul_f64(0.8).min(Duration::from_secs(24 * 3600));
    now.checked_add(wait).unwrap_or(expires)
}

impl Tokens {
    /// The token for a projection.
    pub(crate) async fn get(
        &mut self,
        client: &Arc<dyn Client>,
        pod: &Pod,
        of: &ServiceAccountTokenProjection,
    ) -> Result<String, String> {
        let audience = of.audience.clone().unwrap_or_default();
        let seconds = of.expiration_seconds.unwrap_or(3600);
        let now = rk_api::now();
        let key = (audience, seconds);
        if let Some(token) = self.by_audience.get(&key)
            && token.renew_at > now
        {
            return Ok(token.text.clone());
        }
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let audiences: Vec<&str> = Some(key.0.as_str()).filter(|audience| !audience.is_empty()).into_iter().collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {},
            "spec": {
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": {
                    "apiVersion": "v1", "kind": "Pod",
                    "name": pod.metadata.name, "uid": pod.metadata.uid,
                },
            },
        });
        let accounts = Api::<ServiceAccount>::namespaced(Arc::clone(client), namespace);
        let answer = accounts.create_subresource(account, "token", body).await;
        let answer = answer.and_then(|object| object.typed::<TokenRequest>());
        let answer = answer.map_err(|error| format!("failed to fetch token: {error}"))?;
        let status = answer.status.as_ref().ok_or("failed to fetch token: the answer has no status")?;
        let (Some(text), Some(expires)) = (&status.token, &status.expiration_timestamp) else {
            return Err("failed to fetch token: the answer has no token".to_owned());
        };
        let renew_at = renewal(now, expires.0);
        self.by_audience.insert(key, Token { text: text.clone(), renew_at });
        Ok(text.clone())
    }

    /// When the next token has to be renewed.
    pub(crate) fn next_renewal(&self) -> Option<Timestamp> {
        self.by_audience.values().map(|token| token.renew_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_at_four_fifths_or_after_a_day() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        assert_eq!(renewal(now, Timestamp::from_second(1_001_000).unwrap()).as_second(), 1_000_800);
        assert_eq!(renewal(now, Timestamp::from_second(9_000_000).unwrap()).as_second(), 1_000_000 + 86_400);
    }
}
