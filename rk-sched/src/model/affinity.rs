//! Node and pod affinity, read once per pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity as NodeAffinitySpec, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec,
    Taint, Toleration, TopologySelectorTerm, WeightedPodAffinityTerm,
};
use rk_api::{LabelSelector, Requirement};

/// One term of a node selector; its requirements all hold, or it does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    /// Names that the node must have (`true`) or must not have.
    names: Vec<(bool, Vec<String>)>,
}

impl NodeTerm {
    /// `None` for a term that matches no node: an empty one, or one that can't be read.
    fn new(term: &NodeSelectorTerm) -> Option<Self> {
        let labels = term.match_expressions.iter().flatten().map(requirement).collect::<Option<Vec<_>>>()?;
        let mut names = Vec::new();
        for field in term.match_fields.iter().flatten() {
            let values = field.values.clone().unwrap_or_default();
            match (field.key.as_str(), field.operator.as_str()) {
                ("metadata.name", "In") => names.push((true, values)),
                ("metadata.name", "NotIn") => names.push((false, values)),
                _ => return None,
            }
        }
        (!labels.is_empty() || !names.is_empty()).then_some(Self { labels, names })
    }

    /// The terms that can match a node at all.
    pub fn all(terms: &[NodeSelectorTerm]) -> Vec<Self> {
        terms.iter().filter_map(Self::new).collect()
    }

    /// The terms of a storage class's `allowedTopologies` that can match a node at all: an empty one does not.
    pub fn of_topologies(topologies: &[TopologySelectorTerm]) -> Vec<Self> {
        let term = |topology: &TopologySelectorTerm| {
            let labels = topology.match_label_expressions.iter().flatten();
            let labels: Vec<_> = labels.map(|label| Requirement::In(label.key.clone(), label.values.clone())).collect();
            (!labels.is_empty()).then(|| Self { labels, names: Vec::new() })
        };
        topologies.iter().filter_map(term).collect()
    }

    /// A label and values of which the term asks a node to have one, besides what else it asks for; the first such.
    pub(crate) fn label(&self) -> Option<(&str, &[String])> {
        self.labels.iter().find_map(|requirement| match requirement {
            Requirement::In(label, values) => Some((label.as_str(), values.as_slice())),
            _ => None,
        })
    }

    /// Names of which the term asks a node to have one.
    pub(crate) fn name(&self) -> Option<&[String]> {
        self.names.iter().find(|(wanted, _)| *wanted).map(|(_, names)| names.as_slice())
    }

    /// The label and its values, if all that the term asks for is that a node has one of them.
    pub(crate) fn one_label(&self) -> Option<(&str, &[String])> {
        self.label().filter(|_| self.labels.len() == 1 && self.names.is_empty())
    }

    /// Whether a node of this name and these labels matches.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|requirement| requirement.matches(labels))
            && self.names.iter().all(|(wanted, names)| names.iter().any(|n| n == name) == *wanted)
    }

    /// The only node names that can match, where the term names them.
    fn only_names(&self) -> Option<BTreeSet<&str>> {
        let mut sets = self.names.iter().filter(|(wanted, _)| *wanted).map(|(_, names)| names);
        let first: BTreeSet<&str> = sets.next()?.iter().map(String::as_str).collect();
        Some(sets.fold(first, |all, names| all.into_iter().filter(|n| names.iter().any(|m| m == n)).collect()))
    }
}

fn requirement(expression: &NodeSelectorRequirement) -> Option<Requirement> {
    let (key, values) = (expression.key.clone(), expression.values.clone().unwrap_or_default());
    let number = || values.first().and_then(|value| value.parse::<i64>().ok());
    Some(match expression.operator.as_str() {
        "In" => Requirement::In(key, values),
        "NotIn" => Requirement::NotIn(key, values),
        "Exists" => Requirement::Exists(key),
        "DoesNotExist" => Requirement::DoesNotExist(key),
        "Gt" => Requirement::GreaterThan(key, number()?),
        "Lt" => Requirement::LessThan(key, number()?),
        _ => return None,
    })
}

/// What a pod wants of its node's labels and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAffinity {
    /// `spec.nodeSelector`.
    pub selector: Vec<(String, String)>,
    /// Required terms, one of which must match; `None` where nothing is required.
    pub required: Option<Vec<NodeTerm>>,
    /// Preferred terms with their weights.
    pub preferred: Vec<(i64, NodeTerm)>,
}

impl NodeAffinity {
    pub(crate) fn new(spec: &PodSpec) -> Self {
        let selector = spec.node_selector.clone().unwrap_or_default().into_iter().collect();
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        Self { selector, ..affinity.map(Self::of).unwrap_or_default() }
    }

    /// What an affinity wants, without a selector.
    pub(crate) fn of(affinity: &NodeAffinitySpec) -> Self {
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref();
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_ref();
        Self {
            selector: Vec::new(),
            required: required.map(|terms| NodeTerm::all(&terms.node_selector_terms)),
            preferred: preferred
                .into_iter()
                .flatten()
                .filter_map(|term| Some((i64::from(term.weight), NodeTerm::new(&term.preference)?)))
                .collect(),
        }
    }

    /// Whether nothing is required.
    pub fn requires_nothing(&self) -> bool {
        self.selector.is_empty() && self.required.is_none()
    }

    /// Whether a node of this name and these labels meets the selector and one of the required terms.
    pub fn allows(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }

    /// The only node names that can be allowed, where every required term names some.
    pub fn only_names(&self) -> Option<BTreeSet<&str>> {
        let terms = self.required.as_ref()?;
        let mut all = BTreeSet::new();
        for term in terms {
            all.extend(term.only_names()?);
        }
        (!terms.is_empty()).then_some(all)
    }
}

/// A term of pod affinity or anti-affinity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodTerm {
    /// Labels of the pods meant; `None` means none.
    pub selector: Option<LabelSelector>,
    /// Namespaces of the pods meant, by name.
    pub namespaces: BTreeSet<String>,
    /// Namespaces of the pods meant, by label; an empty selector is all of them.
    pub namespace_selector: Option<LabelSelector>,
    /// The node label whose value makes two nodes one place.
    pub topology_key: Arc<str>,
}

/// Labels of the namespaces, which affinity terms may select.
pub type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

impl PodTerm {
    fn new(term: &PodAffinityTerm, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        // A selector that can't be read matches nothing; the API server lets none pass.
        let mut selector = term.label_selector.as_ref().and_then(|spec| LabelSelector::from_spec(spec).ok());
        if let Some(selector) = &mut selector {
            let own = |key: &String| labels.get(key).map(|value| (key.clone(), vec![value.clone()]));
            let also = term.match_label_keys.iter().flatten().filter_map(own).map(|(k, v)| Requirement::In(k, v));
            selector.requirements.extend(also);
            let not = term.mismatch_label_keys.iter().flatten().filter_map(own);
            selector.requirements.extend(not.map(|(k, v)| Requirement::NotIn(k, v)));
        }
        Self {
            selector,
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().and_then(|spec| LabelSelector::from_spec(spec).ok()),
            topology_key: Arc::from(term.topology_key.as_str()),
        }
    }

    /// Whether the term means a pod of this namespace and these labels.
    pub fn matches(&self, namespace: &str, labels: &BTreeMap<String, String>, namespaces: &NamespaceLabels) -> bool {
        let here = || {
            self.namespaces.contains(namespace)
                || self.namespace_selector.as_ref().is_some_and(|selector| {
                    selector.is_empty() || namespaces.get(namespace).is_some_and(|labels| selector.matches(labels))
                })
        };
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels)) && here()
    }
}

/// Terms of a pod's affinity to other pods.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PodAffinity {
    /// Pods that must be near.
    pub required: Vec<PodTerm>,
    /// Pods that must not be near.
    pub required_anti: Vec<PodTerm>,
    /// Pods that should be near, with weights.
    pub preferred: Vec<(i64, PodTerm)>,
    /// Pods that should not be near, with weights.
    pub preferred_anti: Vec<(i64, PodTerm)>,
}

impl PodAffinity {
    pub(crate) fn new(affinity: Option<&Affinity>, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let one = |term: &PodAffinityTerm| PodTerm::new(term, namespace, labels);
        let weighted = |t: &WeightedPodAffinityTerm| (i64::from(t.weight), one(&t.pod_affinity_term));
        let (near, far) = affinity.map_or((None, None), |a| (a.pod_affinity.as_ref(), a.pod_anti_affinity.as_ref()));
        let near_required = near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let near_preferred = near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let far_required = far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let far_preferred = far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        Self {
            required: near_required.into_iter().flatten().map(one).collect(),
            required_anti: far_required.into_iter().flatten().map(one).collect(),
            preferred: near_preferred.into_iter().flatten().map(weighted).collect(),
            preferred_anti: far_preferred.into_iter().flatten().map(weighted).collect(),
        }
    }

    /// Whether there are no terms.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty()
            && self.required_anti.is_empty()
            && self.preferred.is_empty()
            && self.preferred_anti.is_empty()
    }
}

/// Whether a toleration tolerates a taint (`Toleration.ToleratesTaint`).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let (have, value) = (taint.value.as_deref().unwrap_or_default(), toleration.value.as_deref().unwrap_or_default());
    let number = |text: &str| text.parse::<i64>().ok();
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => have == value,
        "Exists" => true,
        // KEP-5471: numbers compared; a value that is none tolerates nothing.
        "Gt" => number(have).zip(number(value)).is_some_and(|(have, value)| have > value),
        "Lt" => number(have).zip(number(value)).is_some_and(|(have, value)| have < value),
        _ => false,
    }
}

/// The first of the taints with one of these effects that no toleration tolerates.
pub fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}
