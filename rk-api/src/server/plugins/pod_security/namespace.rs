//! Labels of namespaces: which there are, and what pods are there that a new one would refuse.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{super::text, Level, PREFIX, PodSecurity, Policy, Version};
use crate::{
    LabelSelector, Status, StatusExt,
    server::{AdmissionRequest, Reader},
    status,
};

/// Most pods of a namespace that are looked at for warnings, and for how long: kube-apiserver's bounds.
const MOST_PODS: usize = 3000;
const PATIENCE: Duration = Duration::from_secs(1);
/// Pods that are looked at without a pause for others.
const BATCH: usize = 100;

/// Refuses labels of a namespace that name no level or no version, unless they did so before.
pub(super) fn check(request: &AdmissionRequest) -> Result<(), Status> {
    let Some(namespace) = &request.object else { return Ok(()) };
    let name = text(&namespace["metadata"]["name"]);
    let errors = wrong(&namespace["metadata"]["labels"]);
    if errors.is_empty() || request.old_value()?.is_some_and(|old| wrong(&old["metadata"]["labels"]) == errors) {
        return Ok(());
    }
    let lines: Vec<_> = errors.iter().map(|(field, message)| format!("{field}: {message}")).collect();
    let what = if let [one] = lines.as_slice() { one.clone() } else { format!("[{}]", lines.join(", ")) };
    let status = status::failure(422, "Invalid", format!("Namespace {name:?} is invalid: {what}"));
    let status = status.about("", "Namespace", name);
    Err(errors.iter().fold(status, |status, (field, message)| status.cause("FieldValueInvalid", field, message)))
}

/// The labels that name no level or no version, and what is said of them.
fn wrong(labels: &Value) -> Vec<(String, String)> {
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let mut check = |suffix: &str, is_valid: fn(&str) -> bool, allowed: &str| {
            let key = format!("{PREFIX}{mode}{suffix}");
            if let Some(value) = labels.get(&key).and_then(Value::as_str).filter(|value| !is_valid(value)) {
                let message = format!("Invalid value: {value:?}: must be {allowed}");
                errors.push((format!("metadata.labels[{key}]"), message));
            }
        };
        check("", |level| Level::parse(level).is_some(), "one of privileged, baseline, restricted");
        check("-version", |version| Version::parse(version).is_some(), "\"latest\" or \"v1.x\"");
    }
    errors
}

impl PodSecurity {
    /// Warns of pods that break the level that a namespace is about to enforce.
    pub(super) async fn warn_of_existing(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(new) = &request.object else { return Ok(()) };
        let Some(old) = request.old_value()? else { return Ok(()) };
        let before = Policy::of(&old["metadata"]["labels"], "enforce", self.enforce);
        let wanted = Policy::of(&new["metadata"]["labels"], "enforce", self.enforce);
        let relaxed = before.version == wanted.version && before.level >= wanted.level;
        if relaxed || wanted.level == Level::Privileged {
            return Ok(());
        }
        let name = text(&new["metadata"]["name"]).to_owned();
        if self.exempt.namespaces.contains(&name) {
            let ignored = format!(
                "namespace {name:?} is exempt from Pod Security, and the policy (enforce={wanted}) will be ignored"
            );
            request.notes.warn(ignored);
            return Ok(());
        }
        let pods = reader.list("", "pods", &name, &LabelSelector::everything()).await.map_err(status::internal)?;
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        let (begun, mut checked) = (Instant::now(), 0);
        for pod in pods.iter().take(MOST_PODS) {
            if begun.elapsed() > PATIENCE {
                break;
            }
            checked += 1;
            if checked % BATCH == 0 {
                tokio::task::yield_now().await;
            }
            let value = pod.value().map_err(status::internal)?;
            if self.exempt.runtime_classes.iter().any(|class| *class == text(&value["spec"]["runtimeClassName"])) {
                continue;
            }
            let violations = wanted.violations(&value);
            if violations.is_empty() {
                continue;
            }
            let reasons: Vec<_> = violations.iter().map(|violation| violation.reason.clone()).collect();
            let reasons = reasons.join(", ");
            match groups.iter_mut().find(|(known, _)| *known == reasons) {
                Some((_, names)) => names.push(pod.meta().name.clone()),
                None => groups.push((reasons, vec![pod.meta().name.clone()])),
            }
        }
        if checked < pods.len() {
            let most = pods.len();
            let why = format!(
                "new PodSecurity enforce level only checked against the first {checked} of {most} existing pods"
            );
            request.notes.warn(why);
        }
        if !groups.is_empty() {
            let head =
                format!("existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{wanted}\"");
            request.notes.warn(head);
        }
        for (reasons, names) in groups {
            let others = match names.len() {
                1 => String::new(),
                2 => " (and 1 other pod)".to_owned(),
                many => format!(" (and {} other pods)", many - 1),
            };
            request.notes.warn(format!("{}{others}: {reasons}", names[0]));
        }
        Ok(())
    }
}
