//! ControllerRevisions: the templates that a StatefulSet or DaemonSet has had.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use rk_api::{DeleteOptions, Informer, LabelSelector, ResourceType};
use serde_json::{Value, json};

use super::{claim, meta};
use crate::{Context, Error, controllers::template_hash};

/// The label, on pods and revisions, with a revision's hash.
pub(crate) const HASH: &str = "controller-revision-hash";

/// The revisions of an owner.
pub(crate) struct History {
    /// The one of the current template.
    pub(crate) update: Arc<ControllerRevision>,
    /// All, oldest first.
    pub(crate) all: Vec<Arc<ControllerRevision>>,
}

/// What a revision holds: the part of the owner that a rollback would put back.
fn data(template: &PodTemplateSpec) -> Result<Value, Error> {
    let mut template = serde_json::to_value(template).map_err(Error::other)?;
    template["$patch"] = "replace".into();
    Ok(json!({"spec": {"template": template}}))
}

/// The template that a revision holds.
pub(crate) fn template(revision: &ControllerRevision) -> Result<PodTemplateSpec, Error> {
    let template = revision.data.as_ref().map(|RawExtension(data)| data["spec"]["template"].clone());
    serde_json::from_value(template.unwrap_or_default()).map_err(Error::other)
}

/// Finds or makes the revision of `current`, and gives it the highest number.
pub(crate) async fn sync<K: ResourceType<Scope = NamespaceResourceScope>>(
    context: &Context,
    owner: &K,
    selector: &LabelSelector,
    current: &PodTemplateSpec,
    collisions: Option<i32>,
    revisions: &Informer,
) -> Result<History, Error> {
    let mut all: Vec<Arc<ControllerRevision>> = claim::claim(context, owner, selector, revisions).await?;
    all.sort_by_key(|revision| (revision.revision, meta::name(&revision.metadata).to_owned()));
    let api = context.api::<ControllerRevision>(meta::namespace(owner.meta()));
    let newest = all.last().map_or(0, |revision| revision.revision) + 1;
    let mut equal = None;
    for (index, revision) in all.iter().enumerate() {
        if template(revision)? == *current {
            equal = Some(index);
        }
    }
    let update = match equal {
        Some(index) if index + 1 == all.len() => Arc::clone(&all[index]),
        Some(index) => {
            let old = all.remove(index);
            let renumbered = ControllerRevision { revision: newest, ..ControllerRevision::clone(&old) };
            let updated = api.update(&renumbered).await?;
            all.push(Arc::clone(&updated));
            updated
        }
        None => {
            let hash = template_hash(current, collisions)?;
            let name = format!("{}-{hash}", meta::name(owner.meta()));
            let mut labels = current.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
            labels.insert(HASH.to_owned(), hash);
            let revision = ControllerRevision {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some(labels),
                    owner_references: Some(vec![meta::controller_reference(owner)]),
                    ..ObjectMeta::default()
                },
                data: Some(RawExtension(data(current)?)),
                revision: newest,
            };
            let created = match api.create(&revision).await {
                // Made before, and not in the copy yet.
                Err(error) if error.is_already_exists() => {
                    let there = api.get(&name).await?;
                    let own = meta::is_controlled_by(&there.metadata, meta::uid(owner.meta()));
                    if !own || template(&there)? != *current {
                        return Err(error.into());
                    }
                    there
                }
                other => other?,
            };
            all.push(Arc::clone(&created));
            created
        }
    };
    Ok(History { update, all })
}

impl History {
    /// Deletes the oldest revisions beyond `limit` that no pod and no status names.
    pub(crate) async fn truncate(
        &self,
        context: &Context,
        limit: i32,
        in_use: &BTreeSet<String>,
        by_name: impl Fn(&ControllerRevision) -> bool,
    ) -> Result<(), Error> {
        let used = |revision: &ControllerRevision| {
            let hash = meta::labels(&revision.metadata).get(HASH);
            hash.is_some_and(|hash| in_use.contains(hash)) || by_name(revision)
        };
        let update = meta::name(&self.update.metadata);
        let old: Vec<_> =
            self.all.iter().filter(|revision| meta::name(&revision.metadata) != update && !used(revision)).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for revision in old.into_iter().take(surplus) {
            let api = context.api::<ControllerRevision>(meta::namespace(&revision.metadata));
            match api.delete(meta::name(&revision.metadata), DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The hash in a revision's label.
pub(crate) fn hash(revision: &ControllerRevision) -> &str {
    meta::labels(&revision.metadata).get(HASH).map_or("", String::as_str)
}
