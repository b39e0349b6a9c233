//! What the expressions of policies and match conditions may name.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::server::cel::{
    Environment, Failure, Other, Type, Val,
    library::authorizer::{Authorizer, Check},
    types::{Field, ObjectType, Opaque},
};

/// The places of the variables; those of the policy itself come behind them.
pub(super) const VARIABLES: usize = 8;

fn object(name: &str, fields: &[(&str, Type)]) -> Type {
    let field = |(name, kind): &(&str, Type)| (Box::from(*name), Field { json: (*name).into(), kind: kind.clone() });
    Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields: fields.iter().map(field).collect() }))
}

/// `request`: the write (<https://kubernetes.io/docs/reference/config-api/apiserver-admission.v1/>).
static REQUEST: LazyLock<Type> = LazyLock::new(|| {
    let text = || Type::String;
    let named = |name: &str, last: &str| object(name, &[("group", text()), ("version", text()), (last, text())]);
    let user = object(
        "kubernetes.UserInfo",
        &[
            ("username", text()),
            ("uid", text()),
            ("groups", Type::list(text())),
            ("extra", Type::map(text(), Type::list(text()))),
        ],
    );
    let kind = named("kubernetes.GroupVersionKind", "kind");
    let resource = named("kubernetes.GroupVersionResource", "resource");
    object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
});

/// `namespaceObject`: the namespace of the write.
static NAMESPACE: LazyLock<Type> = LazyLock::new(|| {
    let texts = || Type::map(Type::String, Type::String);
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", texts()),
            ("annotations", texts()),
            ("UID", Type::String),
            ("creationTimestamp", Type::Timestamp),
            ("deletionTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", Type::list(Type::String)),
        ],
    );
    let spec = object("kubernetes.NamespaceSpec", &[("finalizers", Type::list(Type::String))]);
    let status = object("kubernetes.NamespaceStatus", &[("phase", Type::String)]);
    object("kubernetes.Namespace", &[("metadata", metadata), ("spec", spec), ("status", status)])
});

/// What expressions may name; a policy's own variables are declared behind it.
pub(super) fn environment(params: bool, authorizer: bool, objects: bool) -> Environment {
    typed(Type::Dyn, params.then_some(Type::Dyn), authorizer, objects)
}

/// The same where the types of the objects are known.
pub(super) fn typed(of_objects: Type, params: Option<Type>, authorizer: bool, objects: bool) -> Environment {
    let mut environment = Environment { objects, ..Environment::default() };
    // What may not be named keeps its place, under a name that no expression can spell.
    let mut declare = |name: &str, kind, allowed: bool| environment.declare(if allowed { name } else { "" }, kind);
    declare("object", of_objects.clone(), true);
    declare("oldObject", of_objects, true);
    declare("request", REQUEST.clone(), true);
    declare("namespaceObject", NAMESPACE.clone(), true);
    let has_params = params.is_some();
    declare("params", params.unwrap_or_default(), has_params);
    declare("authorizer", Type::Opaque(Opaque::Authorizer), authorizer);
    declare("authorizer.requestResource", Type::Opaque(Opaque::ResourceCheck), authorizer);
    // Those that there are have names of their own.
    declare("variables", object("kubernetes.variables", &[]), true);
    environment
}

/// What expressions read of one write.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) object: &'a Value,
    pub(super) old: &'a Value,
    pub(super) request: &'a Value,
    pub(super) namespace: &'a Value,
    pub(super) params: &'a Value,
    /// The resource of the request.
    pub(super) check: &'a Check,
}

impl<'a> Inputs<'a> {
    /// The values in their places.
    pub(super) fn values(&self) -> Result<[Val<'a>; VARIABLES], Failure> {
        Ok([
            Val::of(self.object, &Type::Dyn)?,
            Val::of(self.old, &Type::Dyn)?,
            Val::of(self.request, &REQUEST)?,
            Val::of(self.namespace, &NAMESPACE)?,
            Val::of(self.params, &Type::Dyn)?,
            Val::other(Other::Authorizer(Authorizer::default())),
            Val::other(Other::Check(self.check.clone())),
            Val::Null,
        ])
    }
}
