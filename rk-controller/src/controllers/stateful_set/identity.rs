//! What makes a pod of a StatefulSet the one of its ordinal: its name, its host name and its claims.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
};

use crate::common::{history, meta, pod};

/// A pod's ordinal; `None` if its name is none of the set's.
pub(super) fn ordinal_of(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let rest = meta::name(&pod.metadata).strip_prefix(meta::name(&set.metadata))?.strip_prefix('-')?;
    let ordinal: i32 = rest.parse().ok()?;
    (ordinal >= 0 && ordinal.to_string() == rest).then_some(ordinal)
}

fn claim_name(template: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", meta::name(&template.metadata), meta::name(&set.metadata))
}

/// The claims of an ordinal.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let policy = spec.persistent_volume_claim_retention_policy.as_ref();
    let with_set = policy.and_then(|policy| policy.when_deleted.as_deref()) == Some("Delete");
    let of_template = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(template, set, ordinal));
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        if with_set {
            claim.metadata.owner_references = Some(vec![meta::controller_reference(set)]);
        }
        claim.status = None;
        claim
    };
    spec.volume_claim_templates.iter().flatten().map(of_template).collect()
}

/// The pod of an ordinal, from a revision's template.
pub(super) fn make(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let namespace = meta::namespace(&set.metadata);
    let mut pod = pod::from_template(template, namespace, meta::controller_reference(set));
    let name = format!("{}-{ordinal}", meta::name(&set.metadata));
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(history::HASH.to_owned(), revision.to_owned());
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
    let set_spec = set.spec.clone().unwrap_or_default();
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set_spec.service_name.filter(|service| !service.is_empty());
    let volumes = spec.volumes.get_or_insert_default();
    for claim in set_spec.volume_claim_templates.iter().flatten() {
        let volume = meta::name(&claim.metadata);
        volumes.retain(|known| known.name != volume);
        volumes.push(Volume {
            name: volume.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(claim, set, ordinal),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    if volumes.is_empty() {
        spec.volumes = None;
    }
    pod
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_ordinal_has_its_name_host_and_claims() {
        let set: StatefulSet = serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "n"}, "spec": {
            "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}}))
        .unwrap();
        let pod = make(&set, &set.spec.as_ref().unwrap().template, "db-x", 3);
        assert_eq!(ordinal_of(&set, &pod), Some(3));
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-3"), Some("db")));
        let volume = &spec.volumes.as_ref().unwrap()[0];
        assert_eq!(volume.persistent_volume_claim.as_ref().unwrap().claim_name, "data-db-3");
        assert_eq!(meta::name(&claims(&set, 3)[0].metadata), "data-db-3");
        for other in ["db", "db-", "db-03", "db-x", "other-3"] {
            let mut pod = pod.clone();
            pod.metadata.name = Some(other.to_owned());
            assert_eq!(ordinal_of(&set, &pod), None, "{other}");
        }
    }
}
