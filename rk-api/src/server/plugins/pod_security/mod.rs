//! Pod security standards (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>).
//!
//! A namespace's labels choose a [`Level`] to enforce, one to note in the audit log and one to warn of, each in a [`Version`] of the
//! standards; `baseline` and `restricted` hold the checks, `namespace` what is done when the labels change.

mod baseline;
mod checks;
mod namespace;
mod restricted;
mod version;

use std::fmt;

use async_trait::async_trait;
use serde_json::Value;

use super::{forbid, is, list, text};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
    status,
};

pub use checks::Violation;
pub use version::Version;

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

    /// What a pod (its metadata and spec) does that the level, in this version, does not allow.
    pub fn violations(self, version: Version, metadata: &Value, spec: &Value) -> Vec<Violation> {
        let pod = checks::Pod { metadata, spec, version };
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

/// Refuses pods, and warns and tells the audit log of pods and of workloads that make pods, by the labels
/// `pod-security.kubernetes.io/enforce`, `audit` and `warn` of their namespace.
#[derive(Debug, Clone, Default)]
pub struct PodSecurity {
    /// Enforced where a namespace has no label.
    pub enforce: Policy,
    /// Told the audit log where a namespace has no label.
    pub audit: Policy,
    /// Warned of where a namespace has no label.
    pub warn: Policy,
    /// Whose pods are not judged at all.
    pub exempt: Exemptions,
}

/// Whose pods are not judged (`exemptions` of kube-apiserver's `PodSecurityConfiguration`).
#[derive(Debug, Clone, Default)]
pub struct Exemptions {
    /// Those that these users write.
    pub usernames: Vec<String>,
    /// Those of these RuntimeClasses.
    pub runtime_classes: Vec<String>,
    /// Those in these namespaces.
    pub namespaces: Vec<String>,
}

const PREFIX: &str = "pod-security.kubernetes.io/";

/// A level in a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// The level.
    pub level: Level,
    /// The version of it.
    pub version: Version,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

impl Policy {
    /// The policy that labels set for a mode. A level that can't be read counts as restricted and a version as the latest, as in
    /// Kubernetes.
    fn of(labels: &Value, mode: &str, default: Self) -> Self {
        let label = |suffix: &str| labels.get(format!("{PREFIX}{mode}{suffix}")).and_then(Value::as_str);
        Self {
            level: label("").map_or(default.level, |text| Level::parse(text).unwrap_or(Level::Restricted)),
            version: label("-version").map_or(default.version, |text| Version::parse(text).unwrap_or_default()),
        }
    }

    fn violations(self, pod: &Value) -> Vec<Violation> {
        self.level.violations(self.version, &pod["metadata"], &pod["spec"])
    }
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

/// What is to be said of a pod.
struct Verdict {
    enforce: Policy,
    /// Why it is refused, if it is.
    refused: Option<String>,
    audit: Option<String>,
    warning: Option<String>,
}

impl PodSecurity {
    async fn labels(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<Value, Status> {
        let namespace = reader.get("", "namespaces", "", &request.attributes.namespace).await;
        let Some(namespace) = namespace.map_err(status::internal)? else { return Ok(Value::Null) };
        serde_json::to_value(&namespace.meta().labels).map_err(status::internal)
    }

    /// Why a write is not judged, in the words of the audit log.
    fn exemption(&self, request: &AdmissionRequest, pod: &Value) -> Option<&'static str> {
        let holds = |list: &[String], name: &str| !name.is_empty() && list.iter().any(|one| one == name);
        if holds(&self.exempt.namespaces, &request.attributes.namespace) {
            return Some("namespace");
        }
        if holds(&self.exempt.usernames, &request.attributes.user.name) {
            return Some("user");
        }
        holds(&self.exempt.runtime_classes, text(&pod["spec"]["runtimeClassName"])).then_some("runtimeClass")
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

    fn judge(&self, pod: &Value, labels: &Value, is_pod: bool) -> Verdict {
        let [enforce, audit, warn] = [("enforce", self.enforce), ("audit", self.audit), ("warn", self.warn)]
            .map(|(mode, default)| Policy::of(labels, mode, default));
        let said = |policy: Policy| {
            let violations = policy.violations(pod);
            (!violations.is_empty()).then(|| format!("PodSecurity \"{policy}\": {}", join(&violations)))
        };
        let refused = if is_pod { said(enforce) } else { None };
        // A pod that is refused needs no warning.
        let warning = if refused.is_none() { said(warn) } else { None };
        let would = |said: String| format!("would violate {said}");
        Verdict {
            enforce,
            refused: refused.map(|said| format!("violates {said}")),
            audit: said(audit).map(would),
            warning: warning.map(would),
        }
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

    async fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        if request.resource.plural == "namespaces" {
            namespace::check(request)?;
            return self.warn_of_existing(request, reader).await;
        }
        let Some(pod) = self.judged(request)? else { return Ok(()) };
        let note = |key: &str, value: String| request.notes.annotate(format!("{PREFIX}{key}"), value);
        if let Some(why) = self.exemption(request, pod) {
            note("exempt", why.to_owned());
            return Ok(());
        }
        let is_pod = request.resource.plural == "pods";
        let verdict = self.judge(pod, &self.labels(request, reader).await?, is_pod);
        if is_pod {
            note("enforce-policy", verdict.enforce.to_string());
        }
        if let Some(audit) = verdict.audit {
            note("audit-violations", audit);
        }
        if let Some(warning) = verdict.warning {
            request.notes.warn(warning);
        }
        verdict.refused.map_or(Ok(()), |why| Err(forbid(request, &why)))
    }
}
