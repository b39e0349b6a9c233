//! What is told of a PodGroup: its condition `PodGroupScheduled`.

use std::sync::Arc;

use k8s_openapi::{
    api::scheduling::v1alpha2::PodGroup,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};

use super::{Engine, Gang};

/// How the pod group cycle of a PodGroup ended, as its condition `PodGroupScheduled` says it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupOutcome {
    /// The group as it was heard of last.
    pub group: Arc<PodGroup>,
    /// Whether it is placed: of a gang `minCount` pods are on nodes, of another group one is.
    pub scheduled: bool,
    /// Whether a plugin failed, so that it could not be placed.
    pub failed: bool,
    /// Why it is not placed.
    pub message: String,
}

/// The condition's type.
const SCHEDULED: &str = "PodGroupScheduled";

/// A condition of a group that is said of it already.
fn known<'g>(group: &'g PodGroup, type_: &str) -> Option<&'g Condition> {
    let conditions = group.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == type_)
}

/// What a group's condition says, in short.
pub(super) fn shown(group: &PodGroup) -> Option<String> {
    let condition = known(group, SCHEDULED)?;
    let separator = if condition.message.is_empty() { "" } else { ": " };
    Some(format!("{}{separator}{}", condition.reason, condition.message))
}

/// All conditions of a group, with this one in place of an earlier one of the type. Its time is that of the last change of `status`.
pub(crate) fn with_condition(group: &PodGroup, mut condition: Condition) -> Vec<Condition> {
    if let Some(known) = known(group, &condition.type_).filter(|known| known.status == condition.status) {
        condition.last_transition_time = known.last_transition_time.clone();
    }
    let conditions = group.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let others = conditions.into_iter().filter(|known| known.type_ != condition.type_);
    let mut all: Vec<Condition> = others.collect();
    all.push(condition);
    all
}

impl GroupOutcome {
    /// The condition's reason: `Scheduled`, `Unschedulable`, or `SchedulerError` for what is not the group's fault.
    pub fn reason(&self) -> &'static str {
        match (self.scheduled, self.failed) {
            (true, _) => "Scheduled",
            (false, true) => "SchedulerError",
            (false, false) => "Unschedulable",
        }
    }

    /// The group's conditions with this one.
    pub fn conditions(&self) -> Vec<Condition> {
        let condition = Condition {
            type_: SCHEDULED.to_owned(),
            status: if self.scheduled { "True" } else { "False" }.to_owned(),
            reason: self.reason().to_owned(),
            message: self.message.clone(),
            observed_generation: self.group.metadata.generation,
            last_transition_time: Time(rk_api::now()),
        };
        with_condition(&self.group, condition)
    }
}

impl Engine {
    /// What there is to tell of a group, unless it is said of it already. Of one that was placed once nothing more is told, whatever becomes
    /// of its pods.
    pub(super) fn outcome(gang: &Gang, scheduled: bool, failed: bool, message: String) -> Option<GroupOutcome> {
        let message = if scheduled { String::new() } else { message };
        let outcome = GroupOutcome { group: Arc::clone(&gang.group), scheduled, failed, message };
        let said = known(&gang.group, SCHEDULED).is_some_and(|known| {
            let same = known.reason == outcome.reason() && known.message == outcome.message;
            known.status == "True" || (!scheduled && known.status == "False" && same)
        });
        (!said).then_some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_takes_the_place_of_the_one_before_and_keeps_its_time_while_its_status_stays() {
        let group = json!({
            "metadata": {"name": "g"}, "spec": {"schedulingPolicy": {"basic": {}}},
            "status": {"conditions": [
                {"type": SCHEDULED, "status": "False", "reason": "Unschedulable", "message": "no", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "Other", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ]},
        });
        let group: Arc<PodGroup> = Arc::new(serde_json::from_value(group).unwrap());
        let outcome =
            |scheduled, failed| GroupOutcome { group: Arc::clone(&group), scheduled, failed, message: "m".to_owned() };
        let shown = |outcome: GroupOutcome| {
            let all = outcome.conditions();
            assert_eq!((all.len(), all[0].type_.as_str()), (2, "Other"));
            (all[1].status.clone(), all[1].reason.clone(), all[1].last_transition_time.0.to_string())
        };
        let old = "2026-01-01T00:00:00Z";
        assert_eq!(shown(outcome(false, true)), ("False".to_owned(), "SchedulerError".to_owned(), old.to_owned()));
        let (status, reason, time) = shown(outcome(true, false));
        assert_eq!((status.as_str(), reason.as_str()), ("True", "Scheduled"));
        assert_ne!(time, old);
    }
}
