//! The checks that the level `restricted` adds.

use serde_json::Value;

use super::{
    super::{list, text},
    baseline,
    checks::{Check, Pod, Violation, containers, quoted, setters, sorted, violation},
};

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Since which release of Kubernetes the level has a check of its own for capabilities.
pub(super) const CAPABILITIES: u32 = 22;
/// The same for seccomp.
pub(super) const SECCOMP: u32 = 19;

pub(super) fn violations(pod: &Pod<'_>) -> Vec<Violation> {
    let checks: [(u32, Check); 6] = [
        (8, escalation),
        (CAPABILITIES, capabilities),
        (0, volumes),
        (0, run_as_non_root),
        (23, run_as_user),
        (SECCOMP, seccomp),
    ];
    let current = checks.into_iter().filter(|(since, _)| pod.version.since(*since));
    current.filter_map(|(_, check)| check(pod)).collect()
}

fn escalation(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let who = setters(false, &pod.secured(|context| context["allowPrivilegeEscalation"] != false))?;
    let detail = format!("{who} must set securityContext.allowPrivilegeEscalation=false");
    violation("allowPrivilegeEscalation != false", detail)
}

fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let added = |context: &Value| -> Vec<String> {
        let added = list(&context["capabilities"]["add"]).iter().map(text);
        added.filter(|capability| *capability != "NET_BIND_SERVICE").map(str::to_owned).collect()
    };
    let mut details = Vec::new();
    let keeps = |context: &Value| !list(&context["capabilities"]["drop"]).iter().any(|dropped| text(dropped) == "ALL");
    if let Some(who) = setters(false, &pod.secured(keeps)) {
        details.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if let Some(who) = setters(false, &pod.secured(|context| !added(context).is_empty())) {
        let all = sorted(pod.containers().flat_map(|container| added(&container["securityContext"])));
        details.push(format!("{who} must not include {} in securityContext.capabilities.add", quoted(&all)));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

fn volumes(pod: &Pod<'_>) -> Option<Violation> {
    let mut names = Vec::new();
    let mut kinds = Vec::new();
    for volume in list(&pod.spec["volumes"]) {
        // A volume without a source is an emptyDir by default.
        let sources = volume.as_object().into_iter().flatten();
        let source = sources.filter(|(key, value)| *key != "name" && !value.is_null()).map(|(key, _)| key.as_str());
        if let Some(kind) = source.into_iter().find(|kind| !VOLUMES.contains(kind)) {
            names.push(text(&volume["name"]));
            kinds.push(kind);
        }
    }
    if names.is_empty() {
        return None;
    }
    let kinds = sorted(kinds.into_iter());
    let (noun, verb) = if names.len() == 1 { ("volume", "uses") } else { ("volumes", "use") };
    let types = if kinds.len() == 1 { "type" } else { "types" };
    let detail = format!("{noun} {} {verb} restricted volume {types} {}", quoted(&names), quoted(&kinds));
    violation("restricted volume types", detail)
}

fn run_as_non_root(pod: &Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let own = pod.context()["runAsNonRoot"].as_bool();
    let explicit = pod.secured(|context| context["runAsNonRoot"] == false);
    if let Some(who) = setters(own == Some(false), &explicit) {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let implicit = pod.secured(|context| context["runAsNonRoot"].is_null());
    if own == Some(true) || implicit.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit)))
}

fn run_as_user(pod: &Pod<'_>) -> Option<Violation> {
    let root = |context: &Value| context["runAsUser"] == 0;
    let who = setters(root(pod.context()), &pod.secured(root))?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn seccomp(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    if let Some(bad) = baseline::unconfined(pod) {
        return Some(bad);
    }
    let unset = |context: &Value| text(&context["seccompProfile"]["type"]).is_empty();
    let implicit = pod.secured(unset);
    if !unset(pod.context()) || implicit.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers(&implicit)
    );
    violation("seccompProfile", detail)
}
