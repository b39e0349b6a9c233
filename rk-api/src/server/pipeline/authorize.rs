//! Authorization: the authorizers are asked in order until one allows or denies.

use std::sync::Arc;

use super::{Call, Core};
use crate::{
    Error, FieldSelector, LabelSelector,
    server::{
        Attributes, Decision, audit,
        authz::{decide, forbidden},
    },
    status,
};

/// What the audit log says of a decision.
const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";

fn refuse(attributes: &Attributes, reason: String) -> Error {
    let refused = forbidden(attributes, &reason).into();
    audit::decide(DECISION, || "forbid".to_owned());
    audit::decide(REASON, || reason);
    refused
}

impl Core {
    /// Whether the caller may do this.
    ///
    /// # Errors
    /// 403 with what was asked and the authorizers' reasons; 500 if they can't tell.
    pub(crate) async fn authorize(&self, call: &Call, verb: &'static str) -> Result<(), Error> {
        self.authorize_attributes(&within_itself(call.attributes(verb))).await
    }

    /// The same for a collection, of which the selectors may say that less than all is meant. One that asks for a single
    /// name counts as that object's (apiserver's `RequestInfoFactory`).
    ///
    /// # Errors
    /// 403.
    pub(super) async fn authorize_selected(
        &self,
        call: &Call,
        verb: &'static str,
        labels: &LabelSelector,
        fields: &FieldSelector,
    ) -> Result<(), Error> {
        let mut attributes = within_itself(call.attributes(verb));
        if attributes.name.is_empty() && matches!(verb, "list" | "watch") {
            attributes.name = fields.required("metadata.name").unwrap_or_default().to_owned();
        }
        attributes.labels.clone_from(labels);
        attributes.fields.clone_from(fields);
        self.authorize_attributes(&attributes).await
    }

    /// The same for any attributes, those of a path that is no resource too.
    ///
    /// # Errors
    /// 403.
    pub(crate) async fn authorize_attributes(&self, attributes: &Attributes) -> Result<(), Error> {
        if self.authorizers.is_empty() {
            return Ok(());
        }
        match decide(&self.authorizers, attributes).await {
            Decision::Allow(reason) => {
                audit::decide(DECISION, || "allow".to_owned());
                audit::decide(REASON, || reason);
                Ok(())
            }
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(refuse(attributes, reason)),
            Decision::Failed(why) => {
                // Who may act as somebody else was allowed that, and no more.
                audit::undecide(DECISION);
                audit::decide(REASON, || "internal error".to_owned());
                Err(status::internal(why).into())
            }
        }
    }
}

/// A namespace lies in itself for the authorizers, so that rights in it allow to read it (apiserver's `RequestInfoFactory`).
pub(crate) fn within_itself(mut attributes: Attributes) -> Attributes {
    if attributes.resource == "namespaces" && attributes.group.is_empty() {
        attributes.namespace.clone_from(&attributes.name);
    }
    attributes
}

impl Call {
    /// The call in the authorizers' terms.
    pub(crate) fn attributes(&self, verb: &'static str) -> Attributes {
        let resource = self.resource();
        Attributes {
            user: Arc::clone(&self.user),
            verb: verb.into(),
            group: resource.group.clone(),
            version: resource.version.clone(),
            resource: resource.plural.clone(),
            subresource: self.subresource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            ..Attributes::default()
        }
    }
}
