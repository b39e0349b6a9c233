//! What ReplicaSets and ReplicationControllers have in common.

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::{
            PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
        },
    },
};
use rk_api::{LabelSelector, ResourceType};

use super::status::Counts;
use crate::{Error, common::condition};

/// An object that wants so many pods of a template.
pub trait Replicated: ResourceType<Scope = NamespaceResourceScope> {
    /// How many pods.
    fn replicas(&self) -> i32;
    /// Which pods are its own.
    ///
    /// # Errors
    /// A selector that can't be read.
    fn selector(&self) -> Result<LabelSelector, Error>;
    /// What a pod is made from.
    fn template(&self) -> PodTemplateSpec;
    /// Seconds a pod has to be ready before it counts as available.
    fn min_ready_seconds(&self) -> i32;
    /// The object with its status changed to these counts; `None` if it says so already.
    fn with_counts(&self, counts: &Counts) -> Option<Self>;
}

macro_rules! with_counts {
    ($status:ident, $condition:ident $(, $terminating:ident)?) => {
        fn with_counts(&self, counts: &Counts) -> Option<Self> {
            let old = self.status.clone().unwrap_or_default();
            let some = |count: i32| (count != 0).then_some(count);
            let mut new = $status {
                replicas: counts.replicas,
                fully_labeled_replicas: some(counts.fully_labeled),
                ready_replicas: some(counts.ready),
                available_replicas: some(counts.available),
                observed_generation: self.metadata.generation,
                ..old.clone()
            };
            match &counts.failure {
                Some((reason, message)) => condition::set(
                    &mut new.conditions,
                    <$condition as condition::Condition>::new("ReplicaFailure", "True", reason, message.clone()),
                ),
                None => condition::remove(&mut new.conditions, "ReplicaFailure"),
            }
            $(new.$terminating = Some(counts.terminating);)?
            (new != old).then(|| Self { status: Some(new), ..self.clone() })
        }
    };
}

impl Replicated for ReplicaSet {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn selector(&self) -> Result<LabelSelector, Error> {
        let spec = self.spec.as_ref().ok_or_else(|| Error::invalid("a ReplicaSet without spec"))?;
        Ok(LabelSelector::from_spec(&spec.selector)?)
    }

    fn template(&self) -> PodTemplateSpec {
        self.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    with_counts!(ReplicaSetStatus, ReplicaSetCondition, terminating_replicas);
}

impl Replicated for ReplicationController {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn selector(&self) -> Result<LabelSelector, Error> {
        let labels = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let labels = labels.filter(|labels| !labels.is_empty());
        let labels = labels.ok_or_else(|| Error::invalid("a ReplicationController without selector"))?;
        Ok(LabelSelector::from_labels(labels))
    }

    fn template(&self) -> PodTemplateSpec {
        self.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    with_counts!(ReplicationControllerStatus, ReplicationControllerCondition);
}
