//! Devices that have to be made ready before their pod is bound (KEP-5007): whether those of a claim are.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::resource::v1::{DeviceRequestAllocationResult, ResourceClaim},
    apimachinery::pkg::apis::meta::v1::Condition,
};

use crate::model::allocation_of;

/// How far a claim's devices are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Their drivers have said of all of them what the devices' binding conditions ask for, or there are none.
    Ready,
    /// That is still to come.
    Pending,
    /// A driver has said that it won't.
    Failed(String),
}

/// The devices of a claim that have binding conditions.
fn conditional(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let devices = allocation_of(claim).and_then(|allocation| allocation.devices.as_ref());
    let results = devices.into_iter().flat_map(|devices| devices.results.iter().flatten());
    results.filter(|result| result.binding_conditions.as_ref().is_some_and(|conditions| !conditions.is_empty()))
}

/// Whether some device of the claim has binding conditions.
pub(super) fn is_conditional(claim: &ResourceClaim) -> bool {
    conditional(claim).next().is_some()
}

/// What drivers have said so far (`isClaimReadyForBinding`).
pub(super) fn readiness(claim: &ResourceClaim) -> Readiness {
    let told = claim.status.iter().flat_map(|status| status.devices.iter().flatten());
    for result in conditional(claim) {
        let key = (&result.driver, &result.pool, &result.device);
        let device = told.clone().find(|device| (&device.driver, &device.pool, &device.device) == key);
        let Some(device) = device else { return Readiness::Pending };
        let is_true = |type_: &String| -> Option<&Condition> {
            let mut conditions = device.conditions.iter().flatten();
            conditions.find(|condition| condition.type_ == *type_ && condition.status == "True")
        };
        if let Some(failure) = result.binding_failure_conditions.iter().flatten().find_map(is_true) {
            return Readiness::Failed(format!(
                "claim {} binding failed: reason={}, message={:?}",
                claim.metadata.name.as_deref().unwrap_or_default(),
                failure.reason,
                failure.message
            ));
        }
        if !result.binding_conditions.iter().flatten().all(|type_| is_true(type_).is_some()) {
            return Readiness::Pending;
        }
    }
    Readiness::Ready
}

/// Whether devices of the claim that have binding conditions were allocated longer ago than that (`isClaimTimeout`).
pub(super) fn is_overdue(claim: &ResourceClaim, patience: Duration, now: Timestamp) -> bool {
    let since = allocation_of(claim).and_then(|allocation| allocation.allocation_timestamp.as_ref());
    is_conditional(claim)
        && since.is_some_and(|since| {
            let waited = now.duration_since(since.0);
            jiff::SignedDuration::try_from(patience).is_ok_and(|patience| waited > patience)
        })
}

/// Why the claim's devices are of no use to a pod, if they aren't: they failed, or they are not ready after all that time.
pub(super) fn trouble(claim: &ResourceClaim, patience: Duration, now: Timestamp) -> Option<String> {
    match readiness(claim) {
        Readiness::Ready => None,
        Readiness::Failed(why) => Some(why),
        Readiness::Pending => is_overdue(claim, patience, now)
            .then(|| format!("claim {} binding timeout", claim.metadata.name.as_deref().unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(conditions: Value, told: Value) -> ResourceClaim {
        let result = json!({
            "request": "r", "driver": "d", "pool": "p", "device": "one",
            "bindingConditions": conditions, "bindingFailureConditions": ["Broken"],
        });
        let allocation = json!({"devices": {"results": [result]}, "allocationTimestamp": "2026-01-01T00:00:00Z"});
        let status = json!({"allocation": allocation, "devices": told});
        serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {}, "status": status})).unwrap()
    }

    fn condition(type_: &str, status: &str) -> Value {
        let time = "2026-01-01T00:00:05Z";
        json!({"type": type_, "status": status, "reason": "Why", "message": "so", "lastTransitionTime": time})
    }

    #[test]
    fn all_binding_conditions_have_to_be_true_and_no_failure() {
        let told = |conditions: Value| json!([{"driver": "d", "pool": "p", "device": "one", "conditions": conditions}]);
        let both = json!(["Attached", "Ready"]);
        let of = |told: Value| readiness(&claim(both.clone(), told));
        let other =
            json!([{"driver": "d", "pool": "q", "device": "one", "conditions": [condition("Attached", "True")]}]);
        for pending in [
            Value::Null,
            other,
            told(json!([condition("Attached", "True")])),
            told(json!([condition("Attached", "True"), condition("Ready", "False")])),
            told(json!([condition("Broken", "False")])),
        ] {
            assert_eq!(of(pending.clone()), Readiness::Pending, "{pending}");
        }
        let ready = json!([condition("Ready", "True"), condition("Attached", "True")]);
        assert_eq!(of(told(ready)), Readiness::Ready);
        let broken = json!([condition("Ready", "True"), condition("Attached", "True"), condition("Broken", "True")]);
        let failed = Readiness::Failed("claim c binding failed: reason=Why, message=\"so\"".to_owned());
        assert_eq!(of(told(broken)), failed);
        assert_eq!(readiness(&claim(json!([]), Value::Null)), Readiness::Ready, "there is nothing to wait for");
    }

    #[test]
    fn only_devices_with_conditions_are_overdue() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let waits = claim(json!(["Attached"]), Value::Null);
        assert!(is_overdue(&waits, Duration::from_secs(599), now));
        assert!(!is_overdue(&waits, Duration::from_secs(600), now));
        assert!(!is_overdue(&claim(Value::Null, Value::Null), Duration::from_secs(1), now));
        assert!(!is_overdue(&waits, Duration::MAX, now));
        assert_eq!(trouble(&waits, Duration::from_secs(1), now).as_deref(), Some("claim c binding timeout"));
        assert_eq!(trouble(&waits, Duration::from_secs(3600), now), None);
    }
}
