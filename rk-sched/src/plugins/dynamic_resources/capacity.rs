//! How much of a device's capacities a request consumes (KEP-5075).

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{CapacityRequestPolicy, CapacityRequestPolicyRange};
use rk_api::{Quantity, QuantityFormat};

use crate::model::{Capacity, DeviceInfo};

/// Whether two names mean the same capacity or attribute of a driver's device: those without a domain are the driver's.
pub(super) fn same_name(driver: &str, one: &str, other: &str) -> bool {
    fn local<'n>(driver: &str, name: &'n str) -> &'n str {
        name.strip_prefix(driver).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name)
    }
    local(driver, one) == local(driver, other)
}

/// What a request with these wishes consumes of each capacity of the device. `None` if it can't have it, however much is left: it
/// wants a capacity that the device does not have, or an amount that the device's policy does not allow.
pub(super) fn consumed(
    wishes: &[(String, Quantity)],
    driver: &str,
    device: &DeviceInfo,
) -> Option<BTreeMap<String, Quantity>> {
    let has = |name: &str| device.capacity.iter().any(|capacity| same_name(driver, &capacity.name, name));
    if !wishes.iter().all(|(name, _)| has(name)) {
        return None;
    }
    let amount = |capacity: &Capacity| {
        let wish = wishes.iter().find(|(name, _)| same_name(driver, &capacity.name, name)).map(|(_, wish)| *wish);
        let amount = amount(wish, capacity).filter(|amount| amount.signum() >= 0)?;
        Some((capacity.name.clone(), amount))
    };
    device.capacity.iter().map(amount).collect()
}

fn amount(wish: Option<Quantity>, capacity: &Capacity) -> Option<Quantity> {
    let Some(policy) = &capacity.policy else { return Some(wish.unwrap_or(capacity.value)) };
    match wish {
        None => Some(policy.default.as_ref().and_then(|text| Quantity::try_from(text).ok()).unwrap_or(capacity.value)),
        Some(wish) => rounded(wish, policy),
    }
}

/// The least amount that the policy allows and that is enough; `None` if there is none.
fn rounded(wish: Quantity, policy: &CapacityRequestPolicy) -> Option<Quantity> {
    if let Some(range) = &policy.valid_range {
        return in_range(wish, range);
    }
    match &policy.valid_values {
        Some(values) => values.iter().filter_map(|text| Quantity::try_from(text).ok()).filter(|v| *v >= wish).min(),
        None => Some(wish),
    }
}

fn in_range(wish: Quantity, range: &CapacityRequestPolicyRange) -> Option<Quantity> {
    let read = |text| Quantity::try_from(text).ok();
    let least = read(&range.min)?;
    let amount = match range.step.as_ref().and_then(read).map(|step| step.value()) {
        _ if wish <= least => least,
        Some(step) if step > 0 => {
            let steps = (wish - least).value().div_euclid(step) + i64::from((wish - least).value() % step != 0);
            let amount = least.value().checked_add(steps.checked_mul(step)?)?;
            match wish.format() {
                QuantityFormat::BinarySi => Quantity::from_bytes(amount),
                _ => Quantity::from_value(amount),
            }
        }
        _ => wish,
    };
    (range.max.as_ref().and_then(read).is_none_or(|most| amount <= most)).then_some(amount)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::resource::v1::DeviceCapacity;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn requests_are_rounded_up_to_what_the_policy_allows() {
        let range = json!({"default": "1Gi", "validRange": {"min": "1Gi", "step": "2Gi", "max": "7Gi"}});
        let values = json!({"default": "2", "validValues": ["2", "4", "8"]});
        for (policy, wish, expected) in [
            (Value::Null, None, Some("8Gi")),
            (Value::Null, Some("3Gi"), Some("3Gi")),
            (range.clone(), None, Some("1Gi")),
            (range.clone(), Some("512Mi"), Some("1Gi")),
            (range.clone(), Some("2Gi"), Some("3Gi")),
            (range.clone(), Some("3Gi"), Some("3Gi")),
            (range.clone(), Some("6Gi"), Some("7Gi")),
            (range, Some("8Gi"), None),
            (values.clone(), None, Some("2")),
            (values.clone(), Some("3"), Some("4")),
            (values, Some("9"), None),
        ] {
            let capacity: DeviceCapacity =
                serde_json::from_value(json!({"value": "8Gi", "requestPolicy": policy})).unwrap();
            let value = "8Gi".parse().unwrap();
            let capacity = Capacity { name: "memory".to_owned(), value, policy: capacity.request_policy };
            let found = amount(wish.map(|wish| wish.parse().unwrap()), &capacity).map(|amount| amount.to_string());
            assert_eq!(found.as_deref(), expected, "{policy} {wish:?}");
        }
    }
}
