//! The columns of pods, the status in the words kubectl's users know.

use serde_json::Value;

use crate::server::{
    Column,
    kinds::{
        cells::{AGE, NAME, age, column, number, or_none, wide},
        value::Peek,
    },
};

/// The columns of pods.
pub fn columns() -> Vec<Column> {
    vec![
        NAME,
        column("Ready", "string", |pod| ready(pod).into()),
        column("Status", "string", |pod| status(pod).into()),
        column("Restarts", "string", |pod| restarts(pod).into()),
        AGE,
        wide("IP", "string", |pod| or_none(pod.text("status.podIP"))),
        wide("Node", "string", |pod| or_none(pod.text("spec.nodeName"))),
        wide("Nominated Node", "string", |pod| or_none(pod.text("status.nominatedNodeName"))),
        wide("Readiness Gates", "string", readiness_gates),
    ]
}

/// Whether an init container runs on beside the others.
fn is_sidecar(pod: &Value, name: &str) -> bool {
    pod.list("spec.initContainers").iter().any(|c| c.text("name") == name && c.text("restartPolicy") == "Always")
}

fn ready(pod: &Value) -> String {
    let sidecars = pod.list("spec.initContainers").iter().filter(|c| c.text("restartPolicy") == "Always").count();
    let total = pod.list("spec.containers").len() + sidecars;
    let inits = pod.list("status.initContainerStatuses").iter();
    let ready_sidecars = inits.filter(|status| status.flag("ready") && is_sidecar(pod, status.text("name"))).count();
    let regular = pod.list("status.containerStatuses").iter();
    let ready = regular.filter(|status| status.flag("ready") && status.has("state.running")).count();
    format!("{}/{total}", ready + ready_sidecars)
}

/// The reason of a container that ended: its own, or its signal or exit code.
fn ended(terminated: &Value, prefix: &str) -> String {
    match (terminated.text("reason"), number(terminated, "signal")) {
        ("", 0) => format!("{prefix}ExitCode:{}", number(terminated, "exitCode")),
        ("", signal) => format!("{prefix}Signal:{signal}"),
        (reason, _) => format!("{prefix}{reason}"),
    }
}

fn status(pod: &Value) -> String {
    let mut reason = pod.text("status.phase").to_owned();
    if !pod.text("status.reason").is_empty() {
        reason = pod.text("status.reason").to_owned();
    }
    let gated =
        |condition: &&Value| condition.text("type") == "PodScheduled" && condition.text("reason") == "SchedulingGated";
    if pod.list("status.conditions").iter().any(|condition| gated(&condition)) {
        reason = "SchedulingGated".to_owned();
    }
    match initializing(pod) {
        Some(init) => reason = init,
        None => regular(pod, &mut reason),
    }
    if pod.has("metadata.deletionTimestamp") {
        if pod.text("status.reason") == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if !matches!(pod.text("status.phase"), "Failed" | "Succeeded") {
            reason = "Terminating".to_owned();
        }
    }
    reason
}

/// What the first init container that is not done is at.
fn initializing(pod: &Value) -> Option<String> {
    let total = pod.list("spec.initContainers").len();
    for (i, status) in pod.list("status.initContainerStatuses").iter().enumerate() {
        let (terminated, waiting) = (status.at("state.terminated"), status.at("state.waiting"));
        if !terminated.is_null() {
            if number(terminated, "exitCode") == 0 {
                continue;
            }
            return Some(ended(terminated, "Init:"));
        }
        if is_sidecar(pod, status.text("name")) && status.flag("started") {
            continue;
        }
        let why = waiting.text("reason");
        if !why.is_empty() && why != "PodInitializing" {
            return Some(format!("Init:{why}"));
        }
        return Some(format!("Init:{i}/{total}"));
    }
    None
}

fn regular(pod: &Value, reason: &mut String) {
    let mut running = false;
    for status in pod.list("status.containerStatuses").iter().rev() {
        let (waiting, terminated) = (status.at("state.waiting"), status.at("state.terminated"));
        if !waiting.text("reason").is_empty() {
            *reason = waiting.text("reason").to_owned();
        } else if !terminated.is_null() {
            *reason = ended(terminated, "");
        } else if status.flag("ready") && status.has("state.running") {
            running = true;
        }
    }
    // One container is done while others run.
    if reason == "Completed" && running {
        let ready = crate::server::kinds::cells::condition(pod, "Ready");
        let ready = ready.is_some_and(|condition| condition.text("status") == "True");
        *reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

/// The restarts of what runs now (init containers while they run, then the others), and when the last was.
fn restarts(pod: &Value) -> String {
    let inits = pod.list("status.initContainerStatuses");
    let statuses: Vec<&Value> = if initializing(pod).is_some() {
        inits.iter().collect()
    } else {
        let sidecars = inits.iter().filter(|status| is_sidecar(pod, status.text("name")));
        sidecars.chain(pod.list("status.containerStatuses")).collect()
    };
    let count: i64 = statuses.iter().map(|status| number(status, "restartCount")).sum();
    let times = statuses.iter().map(|status| status.text("lastState.terminated.finishedAt"));
    match times.filter_map(|time| time.parse::<jiff::Timestamp>().ok()).max() {
        Some(last) if count > 0 => format!("{count} ({} ago)", age(&last.to_string())),
        _ => count.to_string(),
    }
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = pod.list("spec.readinessGates");
    if gates.is_empty() {
        return or_none("");
    }
    let met = |gate: &&Value| {
        let kind = gate.text("conditionType");
        let conditions = pod.list("status.conditions").iter();
        conditions.into_iter().any(|condition| condition.text("type") == kind && condition.text("status") == "True")
    };
    format!("{}/{}", gates.iter().filter(met).count(), gates.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_status_is_what_kubectl_prints() {
        let state = |state: Value| json!([{"name": "c", "state": state}]);
        for (pod, expected) in [
            (json!({"status": {"phase": "Pending"}}), "Pending"),
            (json!({"status": {"phase": "Failed", "reason": "Evicted"}}), "Evicted"),
            (
                json!({"status": {"phase": "Pending", "containerStatuses": state(json!({"waiting": {"reason": "ContainerCreating"}}))}}),
                "ContainerCreating",
            ),
            (
                json!({"status": {"phase": "Running", "containerStatuses": state(json!({"waiting": {"reason": "CrashLoopBackOff"}}))}}),
                "CrashLoopBackOff",
            ),
            (
                json!({"status": {"phase": "Succeeded", "containerStatuses": state(json!({"terminated": {"reason": "Completed", "exitCode": 0}}))}}),
                "Completed",
            ),
            (
                json!({"status": {"phase": "Failed", "containerStatuses": state(json!({"terminated": {"signal": 9}}))}}),
                "Signal:9",
            ),
            (
                json!({"status": {"phase": "Failed", "containerStatuses": state(json!({"terminated": {"exitCode": 3}}))}}),
                "ExitCode:3",
            ),
            (
                json!({"spec": {"initContainers": [{"name": "a"}, {"name": "c"}]},
                    "status": {"phase": "Pending", "initContainerStatuses": [
                        {"name": "a", "state": {"terminated": {"exitCode": 0}}},
                        {"name": "c", "state": {"running": {}}}]}}),
                "Init:1/2",
            ),
            (
                json!({"spec": {"initContainers": [{"name": "c"}]}, "status": {"phase": "Pending",
                    "initContainerStatuses": state(json!({"waiting": {"reason": "CrashLoopBackOff"}}))}}),
                "Init:CrashLoopBackOff",
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}}),
                "Terminating",
            ),
            (
                json!({"status": {"phase": "Running", "containerStatuses": [
                    {"name": "a", "state": {"terminated": {"reason": "Completed"}}},
                    {"name": "b", "ready": true, "state": {"running": {}}}]}}),
                "NotReady",
            ),
        ] {
            assert_eq!(status(&pod), expected, "{pod}");
        }
    }

    #[test]
    fn restarts_tell_when_the_last_was() {
        let last = (crate::now() - jiff::SignedDuration::from_secs(5)).to_string();
        let pod = json!({"spec": {"containers": [{"name": "c"}]}, "status": {"containerStatuses": [
            {"name": "c", "restartCount": 3, "ready": true, "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": last}}}]}});
        let text = restarts(&pod);
        assert!(["3 (5s ago)", "3 (6s ago)"].contains(&text.as_str()), "{text}");
        assert_eq!(ready(&pod), "1/1");
    }
}
