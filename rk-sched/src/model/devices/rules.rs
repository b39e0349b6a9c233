//! Taints that rules put on devices (KEP-5055).

use k8s_openapi::api::resource::v1::DeviceTaint;
use k8s_openapi::api::resource::v1beta2::{DeviceTaintRule, DeviceTaintSelector};

use super::PoolId;

/// A DeviceTaintRule: a taint, and the devices that have it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaintRule {
    selector: DeviceTaintSelector,
    /// The taint.
    pub taint: DeviceTaint,
}

impl TaintRule {
    /// Reads a rule; `None` for one without a selector, which is for no device.
    pub fn new(rule: &DeviceTaintRule) -> Option<Self> {
        let taint = &rule.spec.taint;
        let taint = DeviceTaint {
            effect: taint.effect.clone(),
            key: taint.key.clone(),
            time_added: taint.time_added.clone(),
            value: taint.value.clone(),
        };
        Some(Self { selector: rule.spec.device_selector.clone()?, taint })
    }

    /// Whether a device of a pool has the taint: one that has all that the selector names.
    pub fn selects(&self, pool: &PoolId, device: &str) -> bool {
        let is = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        is(&self.selector.driver, &pool.driver)
            && is(&self.selector.pool, &pool.name)
            && is(&self.selector.device, device)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn all_that_a_selector_names_must_be_so() {
        let pool = PoolId::new("d.example.com", "p");
        let selects = |selector: Value| {
            let rule = json!({"spec": {"deviceSelector": selector, "taint": {"key": "k", "effect": "NoSchedule"}}});
            TaintRule::new(&serde_json::from_value(rule).unwrap()).is_some_and(|rule| rule.selects(&pool, "one"))
        };
        assert!(!selects(Value::Null));
        for selector in [json!({}), json!({"driver": "d.example.com"}), json!({"pool": "p", "device": "one"})] {
            assert!(selects(selector.clone()), "{selector}");
        }
        for selector in [json!({"driver": "other"}), json!({"pool": "q", "device": "one"}), json!({"device": "two"})] {
            assert!(!selects(selector.clone()), "{selector}");
        }
    }
}
