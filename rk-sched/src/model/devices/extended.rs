//! Extended resources that devices back (KEP-5004): which class stands for which resource, and the claims that the scheduler makes for
//! pods that ask for one.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};

/// What the name of a class has before it where it is an extended resource without the class saying so.
pub const CLASS_PREFIX: &str = "deviceclass.resource.kubernetes.io/";
/// The annotation of a claim that was made for a pod's extended resources.
pub const CLAIM_ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";

/// The uid of the pod that a claim was made for, if it is one for extended resources.
pub fn pod_of_extended(claim: &ResourceClaim) -> Option<&str> {
    let annotation = claim.metadata.annotations.as_ref()?.get(CLAIM_ANNOTATION)?;
    let mut owners = claim.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.kind == "Pod" && owner.controller == Some(true));
    owner.filter(|_| annotation == "true").map(|owner| owner.uid.as_str())
}

/// Classes by the extended resources that they name.
#[derive(Debug, Default)]
pub(super) struct ExtendedNames(HashMap<String, BTreeSet<(Reverse<Timestamp>, String)>>);

impl ExtendedNames {
    /// A class has come or gone.
    pub(super) fn note(&mut self, name: &str, class: &DeviceClass, there: bool) {
        let Some(resource) = &class.spec.extended_resource_name else { return };
        let created = class.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let entry = (Reverse(created), name.to_owned());
        if there {
            self.0.entry(resource.clone()).or_default().insert(entry);
        } else if let Some(classes) = self.0.get_mut(resource) {
            classes.remove(&entry);
            if classes.is_empty() {
                self.0.remove(resource);
            }
        }
    }

    /// The class for a resource: of several the newest one, of those the first by name.
    pub(super) fn class<'c>(
        &self,
        resource: &str,
        classes: &'c HashMap<String, Arc<DeviceClass>>,
    ) -> Option<&'c Arc<DeviceClass>> {
        if let Some(name) = resource.strip_prefix(CLASS_PREFIX) {
            return classes.get(name);
        }
        classes.get(&self.0.get(resource)?.first()?.1)
    }
}
