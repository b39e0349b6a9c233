//! The devices of a class on a node: how many there are, and how many of them are taken.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::resource::v1::DeviceClass;
use rk_api::cel::device::Selector;

use super::{Pools, Slice, Taken, slice::Answers};

/// The selectors of a class, compiled.
#[derive(Debug)]
pub(super) struct ClassSelectors(Result<Vec<(Arc<str>, Selector)>, String>);

impl ClassSelectors {
    pub(super) fn new(class: &DeviceClass) -> Self {
        let selectors = class.spec.selectors.iter().flatten().filter_map(|selector| selector.cel.as_ref());
        let compiled = selectors.map(|cel| {
            let selector = Selector::compile(&cel.expression)?;
            Ok::<_, String>((Arc::from(cel.expression.as_str()), selector))
        });
        Self(compiled.collect())
    }
}

/// All devices of a class, wherever they are.
///
/// As kube-scheduler's scoring of extended resources counts them (`calculateDRAResourceTotals`): every device that the class selects and
/// that a node has access to, be it tainted or of a pool that can't be allocated from; and as taken whatever a claim has for itself or a
/// share of.
#[derive(Debug, Clone)]
pub struct Stock {
    selectors: Arc<ClassSelectors>,
    pools: Arc<Pools>,
    taken: Arc<Taken>,
}

impl Stock {
    pub(super) fn new(selectors: Arc<ClassSelectors>, pools: Arc<Pools>, taken: Arc<Taken>) -> Self {
        Self { selectors, pools, taken }
    }

    /// How many devices a node of that name and labels has access to, and how many of them are taken.
    ///
    /// # Errors
    /// A selector of the class can't be compiled, or can't be evaluated for one of the devices.
    pub fn on_node(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(i64, i64), String> {
        let selectors = self.selectors.0.as_ref().map_err(Clone::clone)?;
        let (mut all, mut used) = (0, 0);
        for (pool, devices) in self.pools.on_node(name, labels) {
            let taken = self.taken.of_pool(&pool.id);
            // The devices of a slice follow each other.
            let mut answers: Option<(&Arc<Slice>, Vec<Answers>)> = None;
            for (slice, at) in devices {
                if answers.as_ref().is_none_or(|(known, _)| !Arc::ptr_eq(known, slice)) {
                    answers = Some((slice, selectors.iter().map(|(text, of)| slice.selected(text, of)).collect()));
                }
                let answers = answers.iter().flat_map(|(_, answers)| answers);
                if all_true(answers.map(|answers| &answers[at]))? {
                    all += 1;
                    used += i64::from(taken.is_some_and(|taken| taken.contains_key(&slice.devices[at].name)));
                }
            }
        }
        Ok((all, used))
    }
}

/// Whether all answers are yes, up to the first that is not.
fn all_true<'a>(answers: impl Iterator<Item = &'a Result<bool, String>>) -> Result<bool, String> {
    for answer in answers {
        if !answer.clone()? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::resource::v1::ResourceClaim;
    use serde_json::{Value, json};

    use super::{super::Devices, *};

    const LABELS: BTreeMap<String, String> = BTreeMap::new();

    /// The devices that the class of these selectors has on node `n`, where `one` and `two` are taken, the second in parts.
    fn counted(selectors: &[&str]) -> Result<(i64, i64), String> {
        let mut devices = Devices::default();
        let selectors: Vec<Value> = selectors.iter().map(|text| json!({"cel": {"expression": text}})).collect();
        let class = json!({
            "metadata": {"name": "c"}, "spec": {"selectors": selectors, "extendedResourceName": "example.com/d"},
        });
        devices.set_class("c", Some(Arc::new(serde_json::from_value(class).unwrap())));
        for (name, node) in [("n", "n"), ("m", "m")] {
            let slice = json!({
                "metadata": {"name": name},
                "spec": {
                    "driver": "d.example.com", "nodeName": node, "pool": {"name": name, "generation": 1, "resourceSliceCount": 1},
                    "devices": [
                        {"name": "one", "attributes": {"large": {"bool": true}}}, {"name": "two", "allowMultipleAllocations": true},
                        {"name": "three", "taints": [{"key": "k", "effect": "NoSchedule"}]},
                    ],
                },
            });
            devices.set_slice(name, Some(Arc::new(serde_json::from_value(slice).unwrap())));
        }
        let result = |device: &str, share: Value| json!({"request": "r", "driver": "d.example.com", "pool": "n", "device": device, "shareID": share});
        for (claim, result) in [("a", result("one", Value::Null)), ("b", result("two", json!("share")))] {
            let claim = json!({
                "metadata": {"name": claim, "namespace": "default", "uid": claim}, "spec": {},
                "status": {"allocation": {"devices": {"results": [result]}}},
            });
            let claim: Arc<ResourceClaim> = Arc::new(serde_json::from_value(claim).unwrap());
            devices.set_claim("default", claim.metadata.name.as_deref().unwrap(), Some(Arc::clone(&claim)));
        }
        let resource = Arc::from("example.com/d");
        let stocks = devices.stocks([&resource, &Arc::from("example.com/other")].into_iter());
        let [(name, stock)] = &stocks[..] else { panic!("{stocks:?}") };
        assert_eq!(*name, resource);
        stock.on_node("n", &LABELS)
    }

    #[test]
    fn devices_that_a_class_selects_are_counted_as_taken_if_any_claim_has_a_part_of_them() {
        assert_eq!(counted(&[]), Ok((3, 2)));
        assert_eq!(counted(&["device.driver == 'd.example.com'"]), Ok((3, 2)));
        let large = "has(device.attributes['d.example.com'].large)";
        assert_eq!(counted(&["device.driver == 'd.example.com'", large]), Ok((1, 1)));
        assert_eq!(counted(&["device.driver == 'other'"]), Ok((0, 0)));
    }

    #[test]
    fn what_can_not_be_evaluated_is_told() {
        assert!(counted(&["device.attributes['d.example.com'].large"]).is_err());
        assert!(counted(&["no expression"]).is_err());
    }
}
