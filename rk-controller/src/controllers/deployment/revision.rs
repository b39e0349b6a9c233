//! The ReplicaSet of each template: finding it, making it, numbering it, forgetting the oldest.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use rk_api::{DeleteOptions, Patch};
use serde_json::json;

use super::{Rollout, numbers::fenceposts, status::progressing, wanted};
use crate::{
    Error,
    common::{condition, meta},
    error::is_terminating,
};

/// The label that tells a template's pods from those of others.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";
/// Counts the templates of a Deployment.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Former revisions of a template that came back.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's replicas when it last scaled the ReplicaSet.
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with the surge: the base of proportional scaling.
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets don't get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// Bytes of revision history kept.
const HISTORY_LENGTH: usize = 2000;

fn revision(meta: &ObjectMeta) -> i64 {
    meta::annotation(meta, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// Whether a ReplicaSet is of this template; the hash label is the ReplicaSet's own.
pub(super) fn has_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let without_hash = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
            labels.remove(TEMPLATE_HASH);
        }
        // The server adds what says nothing; it makes no difference.
        let meta = template.metadata.get_or_insert_default();
        meta.creation_timestamp = None;
        meta.labels.get_or_insert_default();
        template
    };
    let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    own.is_some_and(|own| without_hash(own) == without_hash(template))
}

/// The hash of a template, in the characters that Kubernetes uses for it. `collisions` makes another one of it.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> Result<String, Error> {
    let json = serde_json::to_vec(template).map_err(Error::other)?;
    let mut bytes = json;
    bytes.extend(collisions.into_iter().flat_map(i32::to_le_bytes));
    // FNV-1a, 32 bits.
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    Ok(hash.to_string().bytes().map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()])).collect())
}

impl Rollout<'_> {
    /// Gives the new ReplicaSet, where it is there, the highest revision and the Deployment's annotations.
    pub(super) async fn sync_revision(&mut self) -> Result<(), Error> {
        let Some(new) = self.new_set() else { return Ok(()) };
        let newest = self.old_sets().iter().map(|&i| revision(&self.sets[i].metadata)).max().unwrap_or(0) + 1;
        let mut set = self.sets[new].clone();
        self.annotate(&mut set.metadata, newest, false);
        if let Some(spec) = &mut set.spec {
            spec.min_ready_seconds = self.spec.min_ready_seconds;
        }
        if set != self.sets[new] {
            self.sets[new] = self.update_set(&set).await?;
        }
        self.take_revision(new).await?;
        let conditions = self.deployment.status.as_ref().and_then(|status| status.conditions.clone());
        if self.has_deadline() && condition::get(&conditions, "Progressing").is_none() {
            let message = format!("Found new replica set {:?}", meta::name(&self.sets[new].metadata));
            self.write_condition(progressing("True", "FoundNewReplicaSet", message)).await?;
        }
        Ok(())
    }

    /// The index of the new ReplicaSet, which is made where it is missing.
    pub(super) async fn ensure_new_set(&mut self) -> Result<usize, Error> {
        if let Some(new) = self.new_set() {
            return Ok(new);
        }
        let newest = self.sets.iter().map(|set| revision(&set.metadata)).max().unwrap_or(0) + 1;
        let collisions = self.deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = template_hash(&self.spec.template, collisions)?;
        let set = self.make_set(&hash, newest);
        let api = self.context.api::<ReplicaSet>(self.namespace());
        let created = match api.create(&set).await {
            Ok(created) => created,
            Err(error) if error.is_already_exists() => {
                let there = api.get(meta::name(&set.metadata)).await?;
                let own = meta::is_controlled_by(&there.metadata, meta::uid(&self.deployment.metadata));
                if !own || !has_template(&there, &self.spec.template) {
                    self.count_collision().await?;
                    return Err(error.into());
                }
                there
            }
            Err(error) => {
                if self.has_deadline() && !is_terminating(&error) {
                    let message = format!("Failed to create new replica set {:?}: {error}", meta::name(&set.metadata));
                    self.context.events.warning(&self.about, "ReplicaSetCreateError", message.clone());
                    self.write_condition(progressing("False", "ReplicaSetCreateError", message)).await?;
                }
                return Err(error.into());
            }
        };
        let (name, replicas) = (meta::name(&created.metadata).to_owned(), wanted(&created));
        self.sets.push(ReplicaSet::clone(&created));
        if replicas > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {replicas}");
            self.context.events.normal(&self.about, "ScalingReplicaSet", message);
        }
        let new = self.sets.len() - 1;
        self.take_revision(new).await?;
        if self.has_deadline() {
            let message = format!("Created new replica set {name:?}");
            self.write_condition(progressing("True", "NewReplicaSetCreated", message)).await?;
        }
        Ok(new)
    }

    fn make_set(&self, hash: &str, revision: i64) -> ReplicaSet {
        let with_hash = |labels: &mut Option<BTreeMap<String, String>>| {
            labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.to_owned());
        };
        let mut template = self.spec.template.clone();
        with_hash(&mut template.metadata.get_or_insert_default().labels);
        let mut selector: LabelSelector = self.spec.selector.clone();
        with_hash(&mut selector.match_labels);
        let mut metadata = ObjectMeta {
            name: Some(format!("{}-{hash}", self.name())),
            namespace: Some(self.namespace().to_owned()),
            labels: template.metadata.as_ref().and_then(|meta| meta.labels.clone()),
            owner_references: Some(vec![meta::controller_reference(&self.deployment)]),
            ..ObjectMeta::default()
        };
        self.annotate(&mut metadata, revision, true);
        let replicas = self.new_set_replicas(0);
        let spec = ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: self.spec.min_ready_seconds,
            selector,
            template: Some(template),
        };
        ReplicaSet { metadata, spec: Some(spec), status: None }
    }

    /// The Deployment's annotations, the revision, and for a new one the base of its scaling.
    fn annotate(&self, meta: &mut ObjectMeta, newest: i64, fresh: bool) {
        let before = revision(meta);
        let known = meta::annotation(meta, REVISION).map(str::to_owned);
        let annotations = meta.annotations.get_or_insert_default();
        for (name, value) in self.deployment.metadata.annotations.iter().flatten() {
            if !NOT_COPIED.contains(&name.as_str()) {
                annotations.insert(name.clone(), value.clone());
            }
        }
        if before < newest {
            annotations.insert(REVISION.to_owned(), newest.to_string());
            if let Some(known) = known.filter(|known| !known.is_empty()) {
                let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
                if !history.is_empty() {
                    history.push(',');
                }
                history.push_str(&known);
                while history.len() > HISTORY_LENGTH {
                    let Some((_, later)) = history.split_once(',') else { break };
                    *history = later.to_owned();
                }
            }
        }
        if fresh {
            self.annotate_size(annotations);
        }
    }

    /// Notes the size that the Deployment has now.
    pub(super) fn annotate_size(&self, annotations: &mut BTreeMap<String, String>) {
        let most = self.replicas() + fenceposts(&self.spec).max_surge;
        annotations.insert(DESIRED_REPLICAS.to_owned(), self.replicas().to_string());
        annotations.insert(MAX_REPLICAS.to_owned(), most.to_string());
    }

    /// Gives the Deployment the revision of its new ReplicaSet.
    async fn take_revision(&mut self, new: usize) -> Result<(), Error> {
        let Some(revision) = meta::annotation(&self.sets[new].metadata, REVISION) else { return Ok(()) };
        if meta::annotation(&self.deployment.metadata, REVISION) == Some(revision) {
            return Ok(());
        }
        let patch = json!({"metadata": {"annotations": {REVISION: revision}}});
        let api = self.context.api::<Deployment>(self.namespace());
        let patched = api.patch(self.name(), Patch::merge(patch)).await?;
        self.deployment.metadata = patched.metadata.clone();
        Ok(())
    }

    async fn count_collision(&mut self) -> Result<(), Error> {
        let mut deployment = self.deployment.clone();
        let status = deployment.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.write_status(deployment).await
    }

    pub(super) async fn update_set(&self, set: &ReplicaSet) -> Result<ReplicaSet, Error> {
        let updated = self.context.api::<ReplicaSet>(self.namespace()).update(set).await?;
        Ok(ReplicaSet::clone(&updated))
    }

    /// Deletes the oldest empty ReplicaSets beyond the history limit.
    pub(super) async fn clean_up(&mut self) -> Result<(), Error> {
        let Some(limit) = self.spec.revision_history_limit else { return Ok(()) };
        let mut old = self.old_sets();
        old.retain(|&i| !meta::is_deleting(&self.sets[i].metadata));
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|&i| revision(&self.sets[i].metadata));
        let api = self.context.api::<ReplicaSet>(self.namespace());
        for set in old.into_iter().take(surplus).map(|i| &self.sets[i]) {
            let status = set.status.clone().unwrap_or_default();
            let seen = status.observed_generation >= set.metadata.generation;
            if status.replicas != 0 || wanted(set) != 0 || !seen {
                continue;
            }
            match api.delete(meta::name(&set.metadata), DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_is_known_again_and_its_hash_changes_with_it() {
        let template: PodTemplateSpec =
            serde_json::from_value(json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}))
                .unwrap();
        let mut set = ReplicaSet { spec: Some(ReplicaSetSpec::default()), ..ReplicaSet::default() };
        let mut own = template.clone();
        own.metadata.as_mut().unwrap().labels.as_mut().unwrap().insert(TEMPLATE_HASH.into(), "x".into());
        set.spec.as_mut().unwrap().template = Some(own);
        assert!(has_template(&set, &template));

        let mut other = template.clone();
        other.metadata.as_mut().unwrap().labels.as_mut().unwrap().insert("app".into(), "shop".into());
        assert!(!has_template(&set, &other));
        let hash = template_hash(&template, None).unwrap();
        assert_ne!(hash, template_hash(&other, None).unwrap());
        assert_ne!(hash, template_hash(&template, Some(1)).unwrap());
        assert!(hash.len() <= 10 && hash.bytes().all(|c| b"bcdfghjklmnpqrstvwxz2456789".contains(&c)), "{hash}");
    }
}
