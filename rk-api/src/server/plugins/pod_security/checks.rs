//! What the checks share: the pod they look at, and what they say of it.

use std::fmt;

use serde_json::Value;

use super::{
    super::{list, text},
    Version,
};

/// One thing that a pod does and may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The check, such as `privileged`.
    pub reason: String,
    /// Who and what, such as `container "web" must not set securityContext.privileged=true`.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.detail)
    }
}

pub(super) fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail })
}

/// Looks for one thing.
pub(super) type Check = fn(&Pod<'_>) -> Option<Violation>;

/// A pod or a pod's template.
pub(super) struct Pod<'a> {
    pub metadata: &'a Value,
    pub spec: &'a Value,
    /// Which version of the standards it is held against.
    pub version: Version,
}

impl<'a> Pod<'a> {
    /// Containers of all kinds, in the order in which Kubernetes visits them.
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |field| list(&spec[field]))
    }

    /// The names of the containers of which something holds.
    pub fn named(&self, holds: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| holds(container)).map(|container| text(&container["name"])).collect()
    }

    /// The names of the containers whose security context something holds of.
    pub fn secured(&self, holds: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.named(|container| holds(&container["securityContext"]))
    }

    /// The pod's own security context.
    pub fn context(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    /// Whether it is one of Windows, of which the standards ask less since 1.25.
    pub fn is_windows(&self) -> bool {
        self.version.since(25) && text(&self.spec["os"]["name"]) == "windows"
    }
}

/// `"a", "b"`.
pub(super) fn quoted<T: AsRef<str>>(items: &[T]) -> String {
    items.iter().map(|item| format!("{:?}", item.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"`, or `containers "a", "b"`.
pub(super) fn containers(names: &[&str]) -> String {
    format!("{} {}", if names.len() == 1 { "container" } else { "containers" }, quoted(names))
}

/// `pod`, `container "a"`, or `pod and container "a"`; `None` if it is neither.
pub(super) fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names.is_empty()) {
        (true, true) => Some("pod".to_owned()),
        (true, false) => Some(format!("pod and {}", containers(names))),
        (false, false) => Some(containers(names)),
        (false, true) => None,
    }
}

/// The items without repeats, sorted.
pub(super) fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    items.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}
