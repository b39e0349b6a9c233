//! Objects besides nodes and pods that scheduling looks at: what selects a pod, and what protects it.

use std::collections::HashMap;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use rk_api::{LabelSelector, Requirement};

use super::PodInfo;

/// A PodDisruptionBudget: how many of its pods may be evicted.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Its namespace.
    pub namespace: String,
    /// Its pods; `None` for none.
    pub selector: Option<LabelSelector>,
    /// How many more may go now.
    pub allowed: i32,
    /// Pods, by name, whose eviction was counted already.
    pub disrupted: Vec<String>,
}

impl Budget {
    /// Reads a budget.
    pub fn new(budget: &PodDisruptionBudget) -> Self {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let status = budget.status.as_ref();
        let disrupted = status.and_then(|status| status.disrupted_pods.as_ref());
        Self {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            selector: selector.and_then(|selector| LabelSelector::from_spec(selector).ok()),
            allowed: status.and_then(|status| status.disruptions_allowed).unwrap_or(0),
            disrupted: disrupted.into_iter().flat_map(|pods| pods.keys().cloned()).collect(),
        }
    }

    /// Whether the eviction of a pod would be one of the budget's.
    pub fn covers(&self, pod: &PodInfo) -> bool {
        self.namespace == pod.namespace.as_ref()
            && !pod.labels().is_empty()
            && self.selector.as_ref().is_some_and(|selector| !selector.is_empty() && selector.matches(pod.labels()))
            && !self.disrupted.iter().any(|name| name == pod.name.as_ref())
    }
}

/// What selects pods: services, and the controllers that own them; and the budgets that protect them.
#[derive(Debug, Default)]
pub struct Workloads {
    services: HashMap<String, HashMap<String, Vec<Requirement>>>,
    /// By kind, namespace and name.
    controllers: HashMap<(String, String, String), LabelSelector>,
    budgets: HashMap<(String, String), Budget>,
}

impl Workloads {
    /// Sets the labels that a service selects; `None` when it is gone or selects nothing.
    pub fn set_service(&mut self, namespace: &str, name: &str, selector: Option<LabelSelector>) {
        let services = self.services.entry(namespace.to_owned()).or_default();
        match selector.filter(|selector| !selector.is_empty()) {
            Some(selector) => services.insert(name.to_owned(), selector.requirements),
            None => services.remove(name),
        };
    }

    /// Sets what a ReplicaSet, StatefulSet or ReplicationController selects; `None` when it is gone.
    pub fn set_controller(&mut self, kind: &str, namespace: &str, name: &str, selector: Option<LabelSelector>) {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        match selector {
            Some(selector) => self.controllers.insert(key, selector),
            None => self.controllers.remove(&key),
        };
    }

    /// Sets a budget; `None` when it is gone.
    pub fn set_budget(&mut self, namespace: &str, name: &str, budget: Option<Budget>) {
        let key = (namespace.to_owned(), name.to_owned());
        match budget {
            Some(budget) => self.budgets.insert(key, budget),
            None => self.budgets.remove(&key),
        };
    }

    /// Every budget.
    pub fn budgets(&self) -> impl Iterator<Item = &Budget> {
        self.budgets.values()
    }

    /// What a pod has in common with its siblings: the selectors of the services that select it and of the
    /// controller that owns it, all together (`helper.DefaultSelector`). `None` if there are none.
    pub fn siblings_of(&self, pod: &PodInfo) -> Option<LabelSelector> {
        let mut requirements = Vec::new();
        for service in self.services.get(pod.namespace.as_ref()).into_iter().flat_map(HashMap::values) {
            if service.iter().all(|requirement| requirement.matches(pod.labels())) {
                requirements.extend(service.iter().cloned());
            }
        }
        let owners = pod.pod.metadata.owner_references.iter().flatten();
        if let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) {
            let key = (owner.kind.clone(), pod.namespace.to_string(), owner.name.clone());
            requirements.extend(self.controllers.get(&key).into_iter().flat_map(|s| s.requirements.iter().cloned()));
        }
        (!requirements.is_empty()).then_some(LabelSelector { requirements })
    }
}
