//! Adoption and release: an owner's objects are those it controls and selects (client-go's `ControllerRefManager`).

use std::sync::Arc;

use rk_api::{Api, Informer, LabelSelector, Patch, ResourceType};
use serde_json::json;

use super::meta;
use crate::{Context, Error};

/// The objects of kind `K` that belong to `owner`: those that it controls and `selector` matches. Orphans that match
/// are adopted, unless the owner is being deleted; controlled objects that no longer match are released.
pub(crate) async fn claim<O: ResourceType, K: ResourceType>(
    context: &Context,
    owner: &O,
    selector: &LabelSelector,
    informer: &Informer,
) -> Result<Vec<Arc<K>>, Error> {
    let owner_meta = owner.meta();
    let (namespace, uid) = (meta::namespace(owner_meta), meta::uid(owner_meta));
    let api = Api::<K>::namespaced(Arc::clone(context.client()), namespace);
    let mut claimed = Vec::new();
    for object in informer.controlled_by(uid) {
        let object = object.typed::<K>()?;
        if selector.matches(meta::labels(object.meta())) {
            claimed.push(object);
        } else if !meta::is_deleting(owner_meta) {
            release(&api, object.as_ref(), uid).await?;
        }
    }
    let mut confirmed = false;
    let orphans = if meta::is_deleting(owner_meta) { Vec::new() } else { informer.orphans(namespace) };
    for orphan in orphans {
        if orphan.meta().deletion_timestamp.is_some() || !selector.matches(&orphan.meta().labels) {
            continue;
        }
        if !confirmed {
            confirm(context, owner).await?;
            confirmed = true;
        }
        if let Some(adopted) = adopt(&api, orphan.typed::<K>()?.as_ref(), owner).await? {
            claimed.push(adopted);
        }
    }
    Ok(claimed)
}

/// Asks the server itself whether the owner is still there: an old copy must not adopt what another one left behind.
async fn confirm<O: ResourceType>(context: &Context, owner: &O) -> Result<(), Error> {
    let meta = owner.meta();
    let api = Api::<O>::namespaced(Arc::clone(context.client()), meta::namespace(meta));
    let fresh = api.get(meta::name(meta)).await?;
    if fresh.meta().uid != meta.uid {
        return Err(Error::invalid(format!("{} was replaced by another of its name", meta::name(meta))));
    }
    if meta::is_deleting(fresh.meta()) {
        return Err(Error::invalid(format!("{} has just been deleted", meta::name(meta))));
    }
    Ok(())
}

async fn adopt<O: ResourceType, K: ResourceType>(api: &Api<K>, orphan: &K, owner: &O) -> Result<Option<Arc<K>>, Error> {
    let mut references = orphan.meta().owner_references.clone().unwrap_or_default();
    references.push(meta::controller_reference(owner));
    // With the version, so that nobody else's adoption is overwritten.
    let patch = json!({"metadata": {
        "ownerReferences": references,
        "uid": orphan.meta().uid,
        "resourceVersion": orphan.meta().resource_version,
    }});
    match api.patch(meta::name(orphan.meta()), Patch::merge(patch)).await {
        Ok(adopted) => Ok(Some(adopted)),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn release<K: ResourceType>(api: &Api<K>, object: &K, owner_uid: &str) -> Result<(), Error> {
    let references: Vec<_> =
        object.meta().owner_references.iter().flatten().filter(|owner| owner.uid != owner_uid).collect();
    let references = (!references.is_empty()).then_some(references);
    let patch = json!({"metadata": {
        "ownerReferences": references,
        "uid": object.meta().uid,
        "resourceVersion": object.meta().resource_version,
    }});
    match api.patch(meta::name(object.meta()), Patch::merge(patch)).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() && !error.is_invalid() => Err(error.into()),
        _ => Ok(()),
    }
}
