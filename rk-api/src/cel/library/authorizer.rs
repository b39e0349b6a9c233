//! Kubernetes' authorizer library (<https://pkg.go.dev/k8s.io/apiserver/pkg/cel/library#Authz>).
//!
//! Authorizers answer in their own time, an evaluation does not wait. So a check whose answer is not known ends the
//! evaluation with [`Failure::Ask`]; whoever evaluates asks, notes the answer in [`Answers`] and evaluates again, which
//! comes to the same check. A check costs so much that an expression can't make more than two.

#[cfg(feature = "server")]
use std::sync::Arc;

use super::{
    super::{
        types::Opaque,
        value::{Evaluated, Failure, Other, Val},
    },
    Row, strings,
};
#[cfg(feature = "server")]
use crate::server::{Attributes, Decision, UserInfo};

/// What a check costs (apiserver's `library.cost`).
const CHECK: u64 = 350_000;

/// The authorizer, for the caller or for a service account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Authorizer {
    account: Option<(String, String)>,
}

/// A check that is put together, or put.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Check {
    who: Authorizer,
    /// Of a check of a path; empty for resources.
    path: String,
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    /// Selectors as they were given.
    fields: String,
    labels: String,
    verb: String,
}

/// What the authorizer said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    allowed: bool,
    reason: String,
    /// Why it could not tell; empty if it could.
    error: String,
}

/// What is known of what authorizers say.
#[derive(Debug, Default)]
pub(crate) struct Answers(Vec<(Check, Verdict)>);

#[cfg(feature = "server")]
impl Answers {
    /// Notes what the authorizer said.
    pub(crate) fn note(&mut self, check: Check, decision: Decision) {
        let verdict = match decision {
            Decision::Allow(reason) => Verdict { allowed: true, reason, ..Verdict::default() },
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Verdict { reason, ..Verdict::default() },
            Decision::Failed(error) => Verdict { error, ..Verdict::default() },
        };
        self.0.push((check, verdict));
    }
}

impl Check {
    /// The type of the check as far as it is put together.
    pub(in super::super) fn opaque(&self) -> Opaque {
        match (self.path.is_empty(), self.resource.is_empty()) {
            (false, _) => Opaque::PathCheck,
            (true, true) => Opaque::GroupCheck,
            (true, false) => Opaque::ResourceCheck,
        }
    }
}

#[cfg(feature = "server")]
impl Check {
    /// What a request is about, for further narrowing.
    pub(crate) fn of_request(attributes: &Attributes) -> Self {
        Self {
            group: attributes.group.to_string(),
            resource: attributes.resource.to_string(),
            subresource: attributes.subresource.clone(),
            namespace: attributes.namespace.clone(),
            name: attributes.name.clone(),
            ..Self::default()
        }
    }

    /// The check as authorizers see it; `user` is who makes the request.
    pub(crate) fn attributes(&self, user: &Arc<UserInfo>) -> Attributes {
        let user = match &self.who.account {
            None => Arc::clone(user),
            Some((namespace, name)) => Arc::new(UserInfo::new(
                &format!("system:serviceaccount:{namespace}:{name}"),
                ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
            )),
        };
        Attributes {
            user,
            verb: self.verb.clone().into(),
            group: self.group.clone().into(),
            version: if self.path.is_empty() { "*" } else { "" }.into(),
            resource: self.resource.clone().into(),
            subresource: self.subresource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            path: self.path.clone(),
            // One that can't be read chooses nothing among the objects, as for Kubernetes' authorizers.
            labels: self.labels.parse().unwrap_or_default(),
            fields: self.fields.parse().unwrap_or_default(),
        }
    }
}

pub(super) const ROWS: &[Row] = &[
    (&[".path(authorizer, string) pathcheck"], |_, a| {
        let path = strings::text(&a[1])?;
        if path.is_empty() {
            return Err(Failure::new("path must not be empty"));
        }
        made(Check { who: who(&a[0])?, path: path.to_owned(), ..Check::default() })
    }),
    (&[".group(authorizer, string) groupcheck"], |_, a| {
        made(Check { who: who(&a[0])?, group: strings::text(&a[1])?.to_owned(), ..Check::default() })
    }),
    (&[".serviceAccount(authorizer, string, string) authorizer"], |_, a| {
        who(&a[0])?;
        let account = Some((strings::text(&a[1])?.to_owned(), strings::text(&a[2])?.to_owned()));
        Ok(Val::other(Other::Authorizer(Authorizer { account })))
    }),
    (&[".resource(groupcheck, string) resourcecheck"], |_, a| {
        let resource = strings::text(&a[1])?;
        if resource.is_empty() {
            return Err(Failure::new("resource must not be empty"));
        }
        narrowed(a, |check, resource| check.resource = resource)
    }),
    (&[".subresource(resourcecheck, string) resourcecheck"], |_, a| {
        narrowed(a, |check, text| check.subresource = text)
    }),
    (&[".namespace(resourcecheck, string) resourcecheck"], |_, a| narrowed(a, |check, text| check.namespace = text)),
    (&[".name(resourcecheck, string) resourcecheck"], |_, a| narrowed(a, |check, text| check.name = text)),
    (&[".fieldSelector(resourcecheck, string) resourcecheck"], |_, a| narrowed(a, |check, text| check.fields = text)),
    (&[".labelSelector(resourcecheck, string) resourcecheck"], |_, a| narrowed(a, |check, text| check.labels = text)),
    (&[".check(pathcheck, string) decision", ".check(resourcecheck, string) decision"], |meter, a| {
        meter.charge(CHECK)?;
        let mut check = check(&a[0])?.clone();
        check.verb = strings::text(&a[1])?.to_owned();
        match meter.answers.0.iter().find(|(known, _)| *known == check) {
            Some((_, verdict)) => Ok(Val::other(Other::Verdict(verdict.clone()))),
            None => Err(Failure::Ask(Box::new(check))),
        }
    }),
    (&[".allowed(decision) bool"], |_, a| Ok(Val::Bool(verdict(&a[0])?.allowed))),
    (&[".reason(decision) string"], |_, a| Ok(Val::text(verdict(&a[0])?.reason.as_str()))),
    (&[".errored(decision) bool"], |_, a| Ok(Val::Bool(!verdict(&a[0])?.error.is_empty()))),
    (&[".error(decision) string"], |_, a| Ok(Val::text(verdict(&a[0])?.error.as_str()))),
];

fn made<'a>(check: Check) -> Evaluated<'a> {
    Ok(Val::other(Other::Check(check)))
}

fn narrowed<'a>(a: &[Val<'a>], set: fn(&mut Check, String)) -> Evaluated<'a> {
    let mut narrowed = check(&a[0])?.clone();
    set(&mut narrowed, strings::text(&a[1])?.to_owned());
    made(narrowed)
}

fn who(value: &Val<'_>) -> Result<Authorizer, Failure> {
    match value.as_other()? {
        Other::Authorizer(authorizer) => Ok(authorizer.clone()),
        _ => Err(Failure::overload()),
    }
}

fn check<'v>(value: &'v Val<'_>) -> Result<&'v Check, Failure> {
    match value.as_other()? {
        Other::Check(check) => Ok(check),
        _ => Err(Failure::overload()),
    }
}

fn verdict<'v>(value: &'v Val<'_>) -> Result<&'v Verdict, Failure> {
    match value.as_other()? {
        Other::Verdict(verdict) => Ok(verdict),
        _ => Err(Failure::overload()),
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;
    use crate::cel::{CALL_LIMIT, Environment, Meter, Program, Type, Val};

    /// What the authorizer is asked by an expression.
    fn asked(text: &str) -> Attributes {
        let mut environment = Environment::default();
        environment.declare("authorizer", Type::Opaque(Opaque::Authorizer));
        let program = Program::checked(text, &environment).unwrap();
        let (answers, user) = (Answers::default(), Arc::new(UserInfo::new("jane", [])));
        let values = [Val::other(Other::Authorizer(Authorizer::default()))];
        match program.evaluate(values.as_slice(), &mut Meter::new(CALL_LIMIT, &answers)) {
            Err(Failure::Ask(check)) => check.attributes(&user),
            other => panic!("asks nothing: {other:?}"),
        }
    }

    #[test]
    fn selectors_are_asked_about() {
        let pods = "authorizer.group('').resource('pods')";
        let check = format!(
            "{pods}.fieldSelector('spec.nodeName=n1').labelSelector('app in (a, b),!old').check('list').allowed()"
        );
        let attributes = asked(&check);
        assert_eq!((&*attributes.verb, &*attributes.resource), ("list", "pods"));
        assert_eq!(attributes.fields, "spec.nodeName=n1".parse().unwrap());
        assert_eq!(attributes.labels, "app in (a,b),!old".parse().unwrap());
        for unreadable in ["fieldSelector('x')", "labelSelector('a in (')"] {
            let attributes = asked(&format!("{pods}.{unreadable}.check('list').allowed()"));
            assert!(attributes.fields.is_empty() && attributes.labels.is_empty(), "{unreadable}");
        }
    }
}
