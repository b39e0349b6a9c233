//! Pod security standards (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>).
//!
//! A namespace's labels choose a [`Level`] to enforce and one to warn of; `baseline` and `restricted` hold the checks.

mod baseline;
mod checks;
mod restricted;

use std::fmt;

use async_trait::async_trait;
use serde_json::Value;

use super::{forbid, is, list, text};
use crate::{
    LabelSelector, Resource, Status, StatusExt,
    server::{AdmissionRequest, Admit, Operation, Reader},
    status,
};

pub use checks::Violation;

/// How much pods may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Everything.
    #[default]
    Privileged,
    /// Nothing that is known to let them out of their container.
    Baseline,
    /// What is best practice for hardened pods.
    Restricted,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        [Self::Privileged, Self::Baseline, Self::Restricted].into_iter().find(|level| level.to_string() == text)
    }

    /// What a pod (its metadata and spec) does that the level does not allow.
    pub fn violations(self, metadata: &Value, spec: &Value) -> Vec<Violation> {
        let pod = checks::Pod { metadata, spec };
        match self {
            Self::Privileged => Vec::new(),
            Self::Baseline => baseline::violations(&pod, false),
            Self::Restricted => {
                let mut all = baseline::violations(&pod, true);
                all.extend(restricted::violations(&pod));
                all
            }
        }
    }
}

/// Refuses pods, and warns of pods and of workloads that make pods, by the labels `pod-security.kubernetes.io/enforce`
/// and `warn` of their namespace. Every version of the standards is taken for the latest.
#[derive(Debug, Clone, Copy, Default)]
pub struct PodSecurity {
    /// Enforced where a namespace has no label.
    pub enforce: Level,
    /// Warned of where a namespace has no label.
    pub warn: Level,
}

const PREFIX: &str = "pod-security.kubernetes.io/";

/// A level, with the version as the label names it.
#[derive(Debug, PartialEq)]
struct Policy {
    level: Level,
    version: String,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// The policy that labels set for a mode. A level that can't be read counts as restricted, as in Kubernetes.
fn policy(labels: &Value, mode: &str, default: Level) -> Policy {
    let label = |suffix: &str| labels.get(format!("{PREFIX}{mode}{suffix}")).and_then(Value::as_str);
    let level = label("").map_or(default, |text| Level::parse(text).unwrap_or(Level::Restricted));
    Policy { level, version: label("-version").unwrap_or("latest").to_owned() }
}

fn join(violations: &[Violation]) -> String {
    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join(", ")
}

/// Where a workload has its pods' template.
fn template<'a>(resource: &Resource, object: &'a Value) -> Option<&'a Value> {
    match (resource.group.as_ref(), resource.plural.as_ref()) {
        ("", "pods") => Some(object),
        ("", "podtemplates") => Some(&object["template"]),
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "daemonsets" | "statefulsets")
        | ("batch", "jobs") => Some(&object["spec"]["template"]),
        ("batch", "cronjobs") => Some(&object["spec"]["jobTemplate"]["spec"]["template"]),
        _ => None,
    }
}

/// Whether a change of a pod matters: only images and the containers themselves can change in a way that does.
fn is_significant(new: &Value, old: &Value) -> bool {
    ["initContainers", "containers", "ephemeralContainers"].iter().any(|field| {
        let images = |pod: &Value| -> Vec<(String, String)> {
            let containers = list(&pod["spec"][field]).iter();
            containers.map(|c| (text(&c["name"]).to_owned(), text(&c["image"]).to_owned())).collect()
        };
        images(new) != images(old)
    })
}

impl PodSecurity {
    async fn labels(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<Value, Status> {
        let namespace = reader.get("", "namespaces", "", &request.attributes.namespace).await;
        let Some(namespace) = namespace.map_err(status::internal)? else { return Ok(Value::Null) };
        serde_json::to_value(&namespace.meta().labels).map_err(status::internal)
    }

    /// Labels of a namespace that name no level.
    fn check_namespace(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let Some(namespace) = &request.object else { return Ok(()) };
        let labels = &namespace["metadata"]["labels"];
        let name = text(&namespace["metadata"]["name"]);
        let mut errors = Vec::new();
        for mode in ["enforce", "audit", "warn"] {
            let key = format!("{PREFIX}{mode}");
            match labels.get(&key).and_then(Value::as_str) {
                Some(value) if Level::parse(value).is_none() => {
                    let message = format!("Invalid value: {value:?}: must be one of privileged, baseline, restricted");
                    errors.push((format!("metadata.labels[{key}]"), message));
                }
                _ => {}
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        let lines: Vec<_> = errors.iter().map(|(field, message)| format!("{field}: {message}")).collect();
        let what = if let [one] = lines.as_slice() { one.clone() } else { format!("[{}]", lines.join(", ")) };
        let mut status = status::failure(422, "Invalid", format!("Namespace {name:?} is invalid: {what}")).about(
            "",
            "Namespace",
            name,
        );
        for (field, message) in &errors {
            status = status.cause("FieldValueInvalid", field, message);
        }
        Err(status)
    }

    /// Warnings of pods that break the level a namespace is about to enforce.
    async fn warn_of_existing(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(new) = &request.object else { return Ok(()) };
        let old = request.old_value()?;
        let before = old.map(|old| policy(&old["metadata"]["labels"], "enforce", self.enforce));
        let wanted = policy(&new["metadata"]["labels"], "enforce", self.enforce);
        if before.is_none_or(|before| before.level >= wanted.level) {
            return Ok(());
        }
        let name = text(&new["metadata"]["name"]).to_owned();
        let pods = reader.list("", "pods", &name, &LabelSelector::everything()).await.map_err(status::internal)?;
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for pod in &pods {
            let value = pod.value().map_err(status::internal)?;
            let violations = wanted.level.violations(&value["metadata"], &value["spec"]);
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
        if !groups.is_empty() {
            let head =
                format!("existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{wanted}\"");
            request.warnings.push(head);
        }
        for (reasons, names) in groups {
            let others = match names.len() {
                1 => String::new(),
                2 => " (and 1 other pod)".to_owned(),
                many => format!(" (and {} other pods)", many - 1),
            };
            request.warnings.push(format!("{}{others}: {reasons}", names[0]));
        }
        Ok(())
    }

    /// The pod to judge, if the write is one to judge.
    fn judged<'a>(&self, request: &'a AdmissionRequest) -> Result<Option<&'a Value>, Status> {
        let Some(object) = &request.object else { return Ok(None) };
        let Some(pod) = template(&request.resource, object) else { return Ok(None) };
        if request.resource.plural == "pods"
            && let Some(old) = request.old_value()?
            && !is_significant(object, &old)
        {
            return Ok(None);
        }
        Ok(Some(pod))
    }
}

#[async_trait]
impl Admit for PodSecurity {
    fn name(&self) -> &str {
        "PodSecurity"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && (is(resource, "", "namespaces") && subresource.is_empty()
                || is(resource, "", "pods") && matches!(subresource, "" | "ephemeralcontainers")
                || subresource.is_empty() && template(resource, &Value::Null).is_some())
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        if request.resource.plural == "namespaces" {
            return self.warn_of_existing(request, reader).await;
        }
        let Some(pod) = self.judged(request)? else { return Ok(()) };
        let labels = self.labels(request, reader).await?;
        let warn = policy(&labels, "warn", self.warn);
        let violations = warn.level.violations(&pod["metadata"], &pod["spec"]);
        // A pod that is refused needs no warning.
        let enforce = policy(&labels, "enforce", self.enforce);
        let refused =
            request.resource.plural == "pods" && !enforce.level.violations(&pod["metadata"], &pod["spec"]).is_empty();
        if !violations.is_empty() && !refused {
            request.warnings.push(format!("would violate PodSecurity \"{warn}\": {}", join(&violations)));
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        match request.resource.plural.as_ref() {
            "namespaces" => return self.check_namespace(request),
            "pods" => {}
            _ => return Ok(()),
        }
        let Some(pod) = self.judged(request)? else { return Ok(()) };
        let enforce = policy(&self.labels(request, reader).await?, "enforce", self.enforce);
        let violations = enforce.level.violations(&pod["metadata"], &pod["spec"]);
        if violations.is_empty() {
            return Ok(());
        }
        Err(forbid(request, &format!("violates PodSecurity \"{enforce}\": {}", join(&violations))))
    }
}
