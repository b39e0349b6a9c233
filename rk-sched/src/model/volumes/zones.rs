//! Zones and regions in labels.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of a zone, the newer first.
pub(crate) const ZONE_LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
/// The labels of a region, the newer first.
pub(crate) const REGION_LABELS: [&str; 2] =
    ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];

/// The zones or regions in a volume's label: one, or several with `__` between them. `None` if one of them is empty.
pub(crate) fn zones_of(value: &str) -> Option<BTreeSet<String>> {
    let zones: BTreeSet<String> = value.split("__").map(|zone| zone.trim().to_owned()).collect();
    (!zones.contains("")).then_some(zones)
}

/// Where a volume's labels say that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The label.
    key: &'static str,
    /// The label that a node may have in its place.
    newer: &'static str,
    /// The zones or regions in which the volume is.
    values: BTreeSet<String>,
}

impl Place {
    /// What a volume's labels say; labels that can't be read say nothing.
    pub(crate) fn all(labels: &BTreeMap<String, String>) -> Vec<Self> {
        let keys = [ZONE_LABELS, REGION_LABELS].into_iter().flat_map(|[newer, older]| [(older, newer), (newer, newer)]);
        keys.filter_map(|(key, newer)| Some(Self { key, newer, values: zones_of(labels.get(key)?)? })).collect()
    }

    /// Whether a node of these labels is there.
    pub(crate) fn has(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(self.key).or_else(|| labels.get(self.newer)).is_some_and(|value| self.values.contains(value))
    }

    /// Whether labels say at all where a node is.
    pub(crate) fn told(labels: &BTreeMap<String, String>) -> bool {
        ZONE_LABELS.iter().chain(&REGION_LABELS).any(|key| labels.contains_key(*key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn labels_of_several_zones_are_sets() {
        assert_eq!(zones_of("a"), Some(BTreeSet::from(["a".to_owned()])));
        assert_eq!(zones_of("b__a"), Some(BTreeSet::from(["a".to_owned(), "b".to_owned()])));
        assert_eq!(zones_of("a__"), None);
        assert_eq!(zones_of(""), None);
    }

    #[test]
    fn an_older_label_is_found_under_its_newer_name() {
        let old = Place::all(&labels(&[(ZONE_LABELS[1], "a__b")]));
        assert!(old[0].has(&labels(&[(ZONE_LABELS[0], "b")])));
        assert!(old[0].has(&labels(&[(ZONE_LABELS[1], "a")])));
        assert!(!old[0].has(&labels(&[(ZONE_LABELS[1], "c"), (ZONE_LABELS[0], "a")])));
        // Not the other way round.
        let new = Place::all(&labels(&[(ZONE_LABELS[0], "a")]));
        assert!(!new[0].has(&labels(&[(ZONE_LABELS[1], "a")])));
        assert!(!Place::told(&labels(&[("disk", "ssd")])));
        assert!(Place::told(&labels(&[(REGION_LABELS[1], "r")])));
    }
}
