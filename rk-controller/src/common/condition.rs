//! Conditions of statuses: one of each type, whose transition time changes with its status alone.

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSetCondition, DeploymentCondition, ReplicaSetCondition, StatefulSetCondition},
        batch::v1::JobCondition,
        core::v1::{NamespaceCondition, NodeCondition, PodCondition, ReplicationControllerCondition},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

/// A condition of any kind.
pub(crate) trait Condition: Clone {
    /// A condition that begins now.
    fn new(kind: &str, status: &str, reason: &str, message: String) -> Self;
    fn kind(&self) -> &str;
    fn status(&self) -> &str;
    fn reason(&self) -> &str;
    fn transition(&mut self) -> &mut Option<Time>;
}

macro_rules! conditions {
    ($($kind:ident),* $(,)?) => {$(
        impl Condition for $kind {
            // Some kinds have more fields than these.
            #[allow(clippy::needless_update)]
            fn new(kind: &str, status: &str, reason: &str, message: String) -> Self {
                Self {
                    type_: kind.to_owned(),
                    status: status.to_owned(),
                    reason: Some(reason.to_owned()),
                    message: Some(message),
                    last_transition_time: Some(super::meta::now()),
                    ..Self::default()
                }
            }
            fn kind(&self) -> &str {
                &self.type_
            }
            fn status(&self) -> &str {
                &self.status
            }
            fn reason(&self) -> &str {
                self.reason.as_deref().unwrap_or_default()
            }
            fn transition(&mut self) -> &mut Option<Time> {
                &mut self.last_transition_time
            }
        }
    )*};
}

conditions!(
    DaemonSetCondition,
    DeploymentCondition,
    JobCondition,
    NamespaceCondition,
    NodeCondition,
    PodCondition,
    ReplicaSetCondition,
    ReplicationControllerCondition,
    StatefulSetCondition,
);

/// The condition of a type.
pub(crate) fn get<'a, C: Condition>(conditions: &'a Option<Vec<C>>, kind: &str) -> Option<&'a C> {
    conditions.iter().flatten().find(|condition| condition.kind() == kind)
}

/// Sets a condition, in place of one of its type. One that says the same (status and reason) stays as it is; one of
/// the same status keeps its transition time.
pub(crate) fn set<C: Condition>(conditions: &mut Option<Vec<C>>, mut new: C) {
    let conditions = conditions.get_or_insert_default();
    match conditions.iter_mut().find(|condition| condition.kind() == new.kind()) {
        Some(old) if old.status() == new.status() && old.reason() == new.reason() => {}
        Some(old) => {
            if old.status() == new.status() {
                *new.transition() = old.transition().clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// Removes the condition of a type.
pub(crate) fn remove<C: Condition>(conditions: &mut Option<Vec<C>>, kind: &str) {
    if let Some(conditions) = conditions {
        conditions.retain(|condition| condition.kind() != kind);
    }
}
