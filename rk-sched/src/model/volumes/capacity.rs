//! How much room CSI drivers say there is (KEP-1472).

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::{api::storage::v1::CSIStorageCapacity, apimachinery::pkg::api::resource::Quantity as RawQuantity};
use rk_api::{LabelSelector, Quantity, Requirement};

/// A CSIStorageCapacity: how large a volume of a class can be that is made for some nodes.
#[derive(Debug, Clone)]
pub(crate) struct Capacity {
    limit: Option<i64>,
    /// The labels of these nodes; `None` for no node.
    nodes: Option<LabelSelector>,
}

impl Capacity {
    /// The size of the largest volume that can be made.
    pub(crate) fn limit(&self) -> Option<i64> {
        self.limit
    }

    /// Reads a CSIStorageCapacity. The size of the largest volume, where the driver knows it, tells more than that of all the room.
    pub(crate) fn new(capacity: &CSIStorageCapacity) -> Self {
        let bytes = |quantity: &RawQuantity| Some(quantity.0.parse::<Quantity>().ok()?.value());
        Self {
            limit: capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref()).and_then(bytes),
            nodes: capacity.node_topology.as_ref().and_then(|spec| LabelSelector::from_spec(spec).ok()),
        }
    }

    /// A label and the values of it, one of which the nodes have for sure; `None` where it takes a look at the selector to tell.
    fn label(&self) -> Option<(&str, &[String])> {
        self.nodes.as_ref()?.requirements.iter().find_map(|requirement| match requirement {
            Requirement::In(label, values) => Some((label.as_str(), values.as_slice())),
            _ => None,
        })
    }
}

/// Namespace and name.
type Name = (String, String);

/// Those of one size, by their limits, for those of at least a size to be found.
type Limits = BTreeMap<(i64, Name), LabelSelector>;

/// The capacities of a class. One whose nodes have certain values of a label is found by these, so that what there is room for on a node does
/// not take a look at those of all other nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Capacities {
    all: HashMap<Name, Capacity>,
    /// By label, by value.
    by_label: BTreeMap<String, HashMap<String, Limits>>,
    /// Of nodes that other conditions hold for.
    elsewhere: Limits,
}

impl Capacities {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn insert(&mut self, name: Name, capacity: Capacity) {
        if let (Some(limit), Some(nodes)) = (capacity.limit, &capacity.nodes) {
            let key = || (limit, name.clone());
            match capacity.label() {
                Some((label, values)) => {
                    let by_value = self.by_label.entry(label.to_owned()).or_default();
                    for value in values {
                        by_value.entry(value.clone()).or_default().insert(key(), nodes.clone());
                    }
                }
                None => drop(self.elsewhere.insert(key(), nodes.clone())),
            }
        }
        self.all.insert(name, capacity);
    }

    pub(super) fn remove(&mut self, name: &Name) {
        let Some(capacity) = self.all.remove(name) else { return };
        let Some(limit) = capacity.limit else { return };
        let key = (limit, name.clone());
        let Some((label, values)) = capacity.label() else {
            self.elsewhere.remove(&key);
            return;
        };
        let Some(by_value) = self.by_label.get_mut(label) else { return };
        for value in values {
            if let Some(limits) = by_value.get_mut(value) {
                limits.remove(&key);
                if limits.is_empty() {
                    by_value.remove(value);
                }
            }
        }
        if by_value.is_empty() {
            self.by_label.remove(label);
        }
    }

    /// Whether a volume of this size can be made for a node of these labels.
    pub(crate) fn hold(&self, size: i64, labels: &BTreeMap<String, String>) -> bool {
        let here = self.by_label.iter().filter_map(|(label, by_value)| by_value.get(labels.get(label)?));
        let mut limits = here.chain([&self.elsewhere]);
        limits.any(|limits| {
            let enough = limits.range((size, Name::default())..).rev();
            enough.map(|(_, nodes)| nodes).any(|nodes| nodes.matches(labels))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn capacity(size: i64, topology: u8) -> Capacity {
        let zone = |zone: &str| json!({"matchLabels": {"zone": zone}});
        let topology = match topology % 7 {
            0 => zone("a"),
            1 => zone("b"),
            2 => json!({"matchLabels": {"zone": "a", "rack": "r1"}}),
            3 => json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}),
            4 => json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}),
            5 => json!({}),
            _ => serde_json::Value::Null,
        };
        let object = json!({
            "storageClassName": "s", "nodeTopology": topology, "capacity": format!("{size}"),
        });
        Capacity::new(&serde_json::from_value(object).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_look_at_all_finds(
            changes in proptest::collection::vec((0_usize..6, 0_i64..5, 0_u8..7, proptest::bool::weighted(0.7)), 1..40)
        ) {
            let mut found = Capacities::default();
            let mut all: BTreeMap<usize, Capacity> = BTreeMap::new();
            for (name, size, topology, there) in changes {
                let key = (String::new(), name.to_string());
                found.remove(&key);
                all.remove(&name);
                if there {
                    found.insert(key, capacity(size, topology));
                    all.insert(name, capacity(size, topology));
                }
                for labels in [&[("zone", "a")][..], &[("zone", "b")], &[("zone", "a"), ("rack", "r1")], &[]] {
                    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
                    for size in 0..6 {
                        let holds = |capacity: &Capacity| {
                            capacity.limit.is_some_and(|limit| limit >= size)
                                && capacity.nodes.as_ref().is_some_and(|nodes| nodes.matches(&labels))
                        };
                        prop_assert_eq!(found.hold(size, &labels), all.values().any(holds));
                    }
                }
                prop_assert_eq!(found.is_empty(), all.is_empty());
            }
            for name in 0..6 {
                found.remove(&(String::new(), name.to_string()));
            }
            prop_assert!(found.by_label.is_empty() && found.elsewhere.is_empty());
        }
    }
}
