//! A Job's `podFailurePolicy`: what the failure of a pod means.

use k8s_openapi::api::{
    batch::v1::{PodFailurePolicy, PodFailurePolicyRule},
    core::v1::Pod,
};

use crate::common::{condition, meta};

/// What a failed pod means for its Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// One more failure, against the back-off limit.
    Count,
    /// None of the Job's doing.
    Ignore,
    /// Its index has failed for good.
    FailIndex,
    /// The Job has failed, with this message.
    FailJob(String),
}

/// The verdict of the first rule that matches.
pub(super) fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    for (index, rule) in policy.iter().flat_map(|policy| &policy.rules).enumerate() {
        let Some(why) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "FailJob" => Verdict::FailJob(format!("{why} matching FailJob rule at index {index}")),
            "FailIndex" => Verdict::FailIndex,
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = format!("{}/{}", meta::namespace(&pod.metadata), meta::name(&pod.metadata));
    if let Some(wanted) = &rule.on_exit_codes {
        let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        for container in containers {
            if wanted.container_name.as_ref().is_some_and(|wanted| *wanted != container.name) {
                continue;
            }
            let state = container.state.as_ref().and_then(|state| state.terminated.as_ref());
            let Some(code) = state.map(|state| state.exit_code).filter(|code| *code != 0) else { continue };
            if wanted.values.contains(&code) == (wanted.operator == "In") {
                return Some(format!("Container {} for pod {name} failed with exit code {code}", container.name));
            }
        }
        return None;
    }
    let pattern = rule.on_pod_conditions.iter().flatten().find(|pattern| {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        condition::get(&status.conditions, &pattern.type_).is_some_and(|condition| condition.status == wanted)
    });
    pattern.map(|pattern| format!("Pod {name} has condition {}", pattern.type_))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_matching_rule_decides() {
        let policy: PodFailurePolicy = serde_json::from_value(json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [42]}},
        ]}))
        .unwrap();
        let pod = |code: i32, disrupted: bool| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "status": {
                "conditions": [{"type": "DisruptionTarget", "status": if disrupted { "True" } else { "False" }}],
                "containerStatuses": [{"name": "main", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                    "state": {"terminated": {"exitCode": code}}}],
            }}))
            .unwrap()
        };
        let message = "Container main for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(judge(Some(&policy), &pod(42, false)), Verdict::FailJob(message.to_owned()));
        assert_eq!(judge(Some(&policy), &pod(42, true)), Verdict::Ignore);
        assert_eq!(judge(Some(&policy), &pod(1, false)), Verdict::Count);
        assert_eq!(judge(None, &pod(42, true)), Verdict::Count);
    }
}
