//! Who may make one object hold another back.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;

use super::{forbid, list, text};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Admit, Attributes, Authorizer, Decision, Operation, Reader},
};

/// Lets only those change owner references who may delete the object, so that nobody has the garbage collector delete
/// what they may not; and set `blockOwnerDeletion` who may update the owner's finalizers. Owners may be of any kind that this
/// server serves itself, custom resources among them; of another kind nobody knows whom to ask about, so blocking is refused. Not
/// part of the default chain.
pub struct OwnerReferencesPermissionEnforcement {
    authorizer: Arc<dyn Authorizer>,
}

impl OwnerReferencesPermissionEnforcement {
    /// Asks `authorizer`.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer }
    }

    async fn may(&self, attributes: &Attributes) -> Result<(), String> {
        match self.authorizer.authorize(attributes).await {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) | Decision::Failed(reason) => Err(reason),
        }
    }
}

fn references(object: &Value) -> &[Value] {
    list(&object["metadata"]["ownerReferences"])
}

/// The references as they count here: blocking is judged apart.
fn plain(references: &[Value]) -> BTreeSet<(String, String)> {
    references.iter().map(|owner| (text(&owner["uid"]).to_owned(), owner["controller"].to_string())).collect()
}

#[async_trait]
impl Admit for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, operation: Operation, _resource: &Resource, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && subresource.is_empty()
    }

    async fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(new) = &request.object else { return Ok(()) };
        let old = request.old_value()?;
        let before = old.as_deref().map(references).unwrap_or_default();
        // A new object may name owners: its maker could as well not have made it.
        if request.operation == Operation::Update && plain(before) != plain(references(new)) {
            let attributes = Attributes { verb: "delete".into(), ..request.attributes.clone() };
            if let Err(reason) = self.may(&attributes).await {
                let why = format!("cannot set an ownerRef on a resource you can't delete: {reason}, <nil>");
                return Err(forbid(request, &why));
            }
        }
        for owner in references(new).iter().filter(|owner| owner["blockOwnerDeletion"] == true) {
            if before.iter().any(|known| known["uid"] == owner["uid"] && known["blockOwnerDeletion"] == true) {
                continue;
            }
            let (version, kind) = (text(&owner["apiVersion"]), text(&owner["kind"]));
            let Some(resource) = reader.resource_of(version, kind) else {
                let why = format!(
                    "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {version} \
                     Kind {kind}: no matches for kind {kind:?} in version {version:?}"
                );
                return Err(forbid(request, &why));
            };
            let attributes = Attributes {
                user: Arc::clone(&request.attributes.user),
                verb: "update".into(),
                group: resource.group,
                version: resource.version,
                resource: resource.plural,
                subresource: "finalizers".into(),
                namespace: if resource.namespaced { request.attributes.namespace.clone() } else { String::new() },
                name: text(&owner["name"]).into(),
                ..Attributes::default()
            };
            if let Err(reason) = self.may(&attributes).await {
                let why = format!(
                    "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers \
                     on: {reason}, <nil>"
                );
                return Err(forbid(request, &why));
            }
        }
        Ok(())
    }
}
