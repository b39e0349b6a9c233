//! Authorization: the authorizers are asked in order until one allows or denies.

use std::sync::Arc;

use super::{Call, Core};
use crate::{
    Error,
    server::{Attributes, Decision, authz::forbidden},
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
                Decision::Deny(reason) => return Err(forbidden(attributes, &reason).into()),
                Decision::NoOpinion(reason) if !reason.is_empty() => reasons.push(reason),
                Decision::NoOpinion(_) => {}
            }
        }
        if self.authorizers.is_empty() { Ok(()) } else { Err(forbidden(attributes, &reasons.join(", ")).into()) }
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
