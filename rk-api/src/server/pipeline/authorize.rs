//! Authorization: the authorizers are asked in order until one allows or denies.

use std::sync::Arc;

use super::{Call, Core};
use crate::{
    Error, StatusExt,
    server::{Attributes, Decision},
    status,
};

impl Core {
    /// Whether the caller may do this.
    ///
    /// # Errors
    /// 403 with what was asked and the authorizers' reasons.
    pub(crate) async fn authorize(&self, call: &Call, verb: &str) -> Result<(), Error> {
        self.authorize_attributes(&call.attributes(verb)).await
    }

    /// The same for any attributes, those of a path that is no resource too.
    ///
    /// # Errors
    /// 403.
    pub(crate) async fn authorize_attributes(&self, attributes: &Attributes) -> Result<(), Error> {
        let mut reasons = Vec::new();
        for authorizer in &self.authorizers {
            match authorizer.authorize(attributes).await {
                Decision::Allow(_) => return Ok(()),
                Decision::Deny(reason) => return Err(forbidden(attributes, &reason)),
                Decision::NoOpinion(reason) if !reason.is_empty() => reasons.push(reason),
                Decision::NoOpinion(_) => {}
            }
        }
        if self.authorizers.is_empty() { Ok(()) } else { Err(forbidden(attributes, &reasons.join(", "))) }
    }
}

impl Call {
    /// The call in the authorizers' terms.
    pub(crate) fn attributes(&self, verb: &str) -> Attributes {
        let resource = self.resource();
        Attributes {
            user: Arc::clone(&self.user),
            verb: verb.to_owned(),
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            resource: resource.plural.to_string(),
            subresource: self.subresource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            path: resource.path(&self.namespace, &self.name, &self.subresource),
        }
    }
}

/// 403 in Kubernetes' words (apiserver's `responsewriters.Forbidden`).
fn forbidden(attributes: &Attributes, reason: &str) -> Error {
    let Attributes { user, verb, group, resource, subresource, namespace, name, path, .. } = attributes;
    let full = if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
    let scope = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let mut message = if resource.is_empty() {
        format!("User {:?} cannot {verb} path {path:?}", user.name)
    } else {
        format!("User {:?} cannot {verb} resource {full:?} in API group {group:?} {scope}", user.name)
    };
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    let what = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
    let target = match (resource.is_empty(), name.is_empty()) {
        (true, _) => "forbidden".to_owned(),
        (_, true) => format!("{what} is forbidden"),
        (_, false) => format!("{what} {name:?} is forbidden"),
    };
    status::failure(403, "Forbidden", format!("{target}: {message}")).about(group, resource, name).into()
}
