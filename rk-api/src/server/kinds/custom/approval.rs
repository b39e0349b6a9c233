//! Which APIs may be in the groups that are Kubernetes' own (KEP-1111).

use http::Uri;
use serde_json::Value;

use super::super::{
    field::{Errors, Path},
    value::Peek,
};

/// Says where the API was approved, by an URL, or that and why it was not, in a text that begins with `unapproved`.
const ANNOTATION: &str = "api-approved.kubernetes.io";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Invalid,
    Approved,
    Bypassed,
}

impl State {
    fn of(annotation: &str) -> Self {
        let is_url = || annotation.parse::<Uri>().is_ok_and(|url| url.scheme().is_some() && url.host().is_some());
        match annotation {
            "" => Self::Missing,
            text if text.starts_with("unapproved") => Self::Bypassed,
            _ if is_url() => Self::Approved,
            _ => Self::Invalid,
        }
    }
}

/// What a definition in a protected group says of its approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Approval<'a> {
    annotation: &'a str,
    state: State,
}

/// Whether a group is `k8s.io`, `kubernetes.io` or below one of them.
fn is_protected(group: &str) -> bool {
    let mut own = ["k8s.io", "kubernetes.io"].into_iter().filter_map(|own| group.strip_suffix(own));
    own.any(|below| below.is_empty() || below.ends_with('.'))
}

fn annotation(definition: &Value) -> &str {
    let annotations = definition.at("metadata.annotations");
    annotations.get(ANNOTATION).and_then(Value::as_str).unwrap_or_default()
}

impl<'a> Approval<'a> {
    /// What a definition says; `None` if its group is nobody's but its maker's.
    pub(crate) fn of(definition: &'a Value) -> Option<Self> {
        let annotation = annotation(definition);
        is_protected(definition.text("spec.group")).then(|| Self { annotation, state: State::of(annotation) })
    }

    fn message(self) -> String {
        const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
        match self.state {
            State::Missing => format!("protected groups must have approval annotation {ANNOTATION:?}, {SEE}"),
            State::Invalid => format!(
                "protected groups must have approval annotation {ANNOTATION:?} with either a URL or a reason starting with \
                 \"unapproved\", {SEE}"
            ),
            State::Approved => format!("approved in {}", self.annotation),
            State::Bypassed => format!("not approved: {:?}", self.annotation),
        }
    }

    /// The condition `KubernetesAPIApprovalPolicyConformant`: whether it is true, reason and message.
    pub(crate) fn condition(self) -> (bool, &'static str, String) {
        let reason = match self.state {
            State::Missing => "MissingAnnotation",
            State::Invalid => "InvalidAnnotation",
            State::Approved => "ApprovedAnnotation",
            State::Bypassed => "UnapprovedAnnotation",
        };
        (self.state == State::Approved, reason, self.message())
    }
}

/// A definition in a protected group says something of its approval that can be taken for an answer. One that was stored otherwise
/// may stay so when it is changed.
pub(super) fn validate(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    let Some(approval) = Approval::of(new) else { return };
    if old.is_some_and(|old| State::of(annotation(old)) == approval.state) {
        return;
    }
    let annotations = Path::Root.child("metadata.annotations");
    let path = annotations.key(ANNOTATION);
    match approval.state {
        State::Missing => errors.required(&path, &approval.message()),
        State::Invalid => errors.invalid(&path, approval.annotation, &approval.message()),
        State::Approved | State::Bypassed => {}
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use serde_json::json;

    use super::*;

    const URL: &str = "https://github.com/kubernetes/kubernetes/pull/79724";

    fn definition(group: &str, annotation: &str) -> Value {
        json!({"metadata": {"annotations": {ANNOTATION: annotation}}, "spec": {"group": group}})
    }

    #[test]
    fn only_groups_of_kubernetes_own_are_protected() {
        for group in ["k8s.io", "sigs.k8s.io", "a.b.k8s.io", "kubernetes.io", "storage.kubernetes.io"] {
            assert!(is_protected(group), "{group}");
        }
        for group in ["", "other.io", "notk8s.io", "k8s.io.example.com", "mykubernetes.io", "io"] {
            assert!(!is_protected(group), "{group}");
            assert_eq!(Approval::of(&definition(group, URL)), None);
        }
    }

    #[test]
    fn the_condition_says_what_the_annotation_does() {
        for (annotation, conformant, reason, message) in [
            (URL, true, "ApprovedAnnotation", "approved in https://github.com/kubernetes/kubernetes/pull/79724"),
            ("unapproved, a trial", false, "UnapprovedAnnotation", "not approved: \"unapproved, a trial\""),
            (
                "",
                false,
                "MissingAnnotation",
                "protected groups must have approval annotation \"api-approved.kubernetes.io\", see \
                 https://github.com/kubernetes/enhancements/pull/1111",
            ),
            (
                "bad value",
                false,
                "InvalidAnnotation",
                "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason \
                 starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111",
            ),
        ] {
            let definition = definition("sigs.k8s.io", annotation);
            let condition = Approval::of(&definition).unwrap().condition();
            assert_eq!(condition, (conformant, reason, message.to_owned()));
        }
        for invalid in ["/kubernetes/pull/1", "github.com/kubernetes", "https:///pull", "approved"] {
            assert_eq!(State::of(invalid), State::Invalid, "{invalid}");
        }
    }

    #[test]
    fn a_change_is_judged_where_it_changes_the_answer() {
        let wrong = |new: &str, old: Option<&str>| {
            let old = old.map(|old| definition("sigs.k8s.io", old));
            let mut errors = Errors::default();
            validate(&definition("sigs.k8s.io", new), old.as_ref(), &mut errors);
            errors.into_inner().into_iter().map(|error| (error.reason, error.field)).collect::<Vec<_>>()
        };
        let field = "metadata.annotations[api-approved.kubernetes.io]".to_owned();
        let (missing, invalid) = (("FieldValueRequired", field.clone()), ("FieldValueInvalid", field));
        for good in [URL, "unapproved"] {
            assert_eq!(wrong(good, None), []);
            assert_eq!(wrong(good, Some("")), []);
            assert_eq!(wrong("", Some(good)), from_ref(&missing));
            assert_eq!(wrong("bad", Some(good)), from_ref(&invalid));
        }
        assert_eq!(wrong("", None), from_ref(&missing));
        assert_eq!(wrong("bad", None), from_ref(&invalid));
        assert_eq!(wrong("", Some("bad")), [missing]);
        assert_eq!(wrong("bad", Some("")), [invalid]);
        assert_eq!(wrong("", Some("")), []);
        assert_eq!(wrong("bad", Some("as bad")), []);
    }
}
