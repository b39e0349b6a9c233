//! Pods, and the pod templates of workloads.
//!
//! A Pod's rules are those of its spec ([`spec`]), which templates share ([`template`]), and what may change later ([`update`]).

mod affinity;
mod columns;
mod containers;
mod defaults;
mod env;
mod overlaps;
mod probes;
mod qos;
mod resources;
mod spec;
pub mod template;
mod update;
mod volumes;
pub mod warnings;

use serde_json::{Value, json};

use super::{
    field::{Errors, Path},
    rules::Rules,
    value::{Peek, set},
};

use crate::server::UserInfo;

pub use affinity::{node_selector, taints};
pub use columns::columns;
pub use resources::quantity;

/// The rules of Pods.
pub const RULES: Rules = Rules {
    default: defaults::pod,
    create,
    validate,
    validate_new,
    validate_change: update::validate,
    grace_period,
    warn: warnings::pod,
    has_status: true,
    pod_spec: "spec",
    ..Rules::NONE
};

/// Fields of Pods that a field selector may name.
pub const SELECTABLE: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

fn create(pod: &mut Value, _: &UserInfo) {
    let mut status = json!({"phase": "Pending", "qosClass": qos::class(pod)});
    if !pod.list("spec.schedulingGates").is_empty() {
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null,
            "lastTransitionTime": crate::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        set(&mut status, "conditions", vec![condition]);
    }
    set(pod, "status", status);
}

fn validate(pod: &Value, errors: &mut Errors) {
    let path = Path::Root.child("spec");
    spec::validate(pod.at("spec"), &path, errors);
}

fn validate_new(pod: &Value, errors: &mut Errors) {
    let path = Path::Root.child("spec");
    if !pod.list("spec.ephemeralContainers").is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !pod.text("spec.nodeName").is_empty() && !pod.list("spec.schedulingGates").is_empty() {
        errors.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
}

/// The seconds a delete waits for the node to end the pod: what was asked for, or the pod's own period. A pod that no node has, or
/// that has ended, goes at once.
fn grace_period(pod: &Value, asked: Option<i64>) -> i64 {
    if pod.text("spec.nodeName").is_empty() || matches!(pod.text("status.phase"), "Failed" | "Succeeded") {
        return 0;
    }
    let period = asked.or(pod.int("spec.terminationGracePeriodSeconds")).unwrap_or(30);
    // A negative period means the shortest there is.
    if period < 0 { 1 } else { period }
}
