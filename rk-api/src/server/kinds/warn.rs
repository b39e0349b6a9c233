//! What clients are told of objects that are valid all the same (KEP-1693): what is obsolete, has no effect, or can hardly be meant.
//!
//! It goes out in `Warning` headers, in the words of Kubernetes' strategies.

use std::fmt::Display;

use serde_json::Value;

use super::{
    field::Path,
    names,
    value::{Peek, same},
};
use crate::Quantity;

/// Collects the warnings of one write.
#[derive(Debug, Default)]
pub struct Warnings(Vec<String>);

impl Warnings {
    /// The warnings in the order in which they were found.
    pub fn into_inner(self) -> Vec<String> {
        self.0
    }

    /// Says something of a field.
    pub fn at(&mut self, path: &Path<'_>, text: impl Display) {
        self.0.push(format!("{path}: {text}"));
    }

    /// Says something of the object.
    pub fn say(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }
}

/// Labels of nodes that have a successor, since when, and which.
const OLD_LABELS: [(&str, &str, &str); 5] = [
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

/// What is said of a node's label that has a successor.
pub fn old_label(label: &str) -> Option<String> {
    let (_, since, successor) = OLD_LABELS.iter().find(|(old, ..)| *old == label)?;
    Some(format!("deprecated since {since}; use {successor:?} instead"))
}

/// Of the labels in a `nodeSelector`.
pub fn node_labels(selector: &Value, path: &Path<'_>, warnings: &mut Warnings) {
    for label in selector.as_object().into_iter().flatten().map(|(label, _)| label) {
        if let Some(text) = old_label(label) {
            warnings.at(&path.key(label), text);
        }
    }
}

/// Of one of the terms by which nodes are selected.
pub fn node_term(term: &Value, path: &Path<'_>, warnings: &mut Warnings) {
    node_requirements(term, "matchExpressions", path, warnings);
}

/// Of requirements of labels of nodes in a field of a term.
pub fn node_requirements(term: &Value, field: &str, path: &Path<'_>, warnings: &mut Warnings) {
    let path = path.child(field);
    for (i, expression) in term.list(field).iter().enumerate() {
        let key = expression.text("key");
        if let Some(text) = old_label(key) {
            warnings.at(&path.index(i).child("key"), format!("{key} is {text}"));
        }
    }
}

/// Of amounts of resources that come in whole bytes only.
pub fn fractions(amounts: &Value, resources: &[&str], path: &Path<'_>, warnings: &mut Warnings) {
    for (name, amount) in amounts.as_object().into_iter().flatten() {
        let amount = amount.as_str().and_then(|text| text.parse::<Quantity>().ok());
        if let Some(amount) = amount.filter(|amount| resources.contains(&name.as_str()) && !amount.is_integer()) {
            let shown = amount.to_string();
            warnings.at(&path.key(name), format!("fractional byte value {shown:?} is invalid, must be an integer"));
        }
    }
}

/// Of the name of an object that others are named after, `whose` they then are.
pub fn host_name(object: &Value, whose: &str, warnings: &mut Warnings) {
    let wrong = names::dns_label(object.text("metadata.name"));
    if !wrong.is_empty() {
        let text = "which can result in surprising behavior; a DNS label is recommended";
        let wrong = wrong.join(" ");
        warnings.at(&Path::Root.child("metadata.name"), format!("this is used in {whose}, {text}: [{wrong}]"));
    }
}

/// Whether the wanted state is new: of what stays as it is nothing is said again.
pub fn is_news(object: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| !same(object.at("spec"), old.at("spec")))
}
