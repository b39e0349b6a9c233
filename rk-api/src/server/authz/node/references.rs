//! What a pod refers to, and what a volume does: Kubernetes' `VisitPodSecretNames`, `VisitPodConfigmapNames` and
//! `VisitPersistentVolumeSecretNames`.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, PersistentVolume, Pod, PodSpec, Volume};

/// What kind of object is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Secret,
    ConfigMap,
    /// A PersistentVolumeClaim.
    Claim,
    ServiceAccount,
    ResourceClaim,
}

/// An object that is referred to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Thing {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Thing {
    pub(super) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// The annotation of a pod that stands for a manifest on its node.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Everything that a pod refers to, each once. A mirror pod, which a node makes itself, gives it nothing.
pub(super) fn of_pod(pod: &Pod) -> Vec<Thing> {
    if pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR)) {
        return Vec::new();
    }
    all_of_pod(pod)
}

/// Whether a pod takes anything from secrets or from config maps: `secrets`, or `configmaps`.
pub(crate) fn taken_from(pod: &Pod) -> Option<&'static str> {
    let all = all_of_pod(pod);
    let of = |kind: Kind| all.iter().any(|thing| thing.kind == kind);
    match (of(Kind::Secret), of(Kind::ConfigMap)) {
        (true, _) => Some("secrets"),
        (false, true) => Some("configmaps"),
        (false, false) => None,
    }
}

fn all_of_pod(pod: &Pod) -> Vec<Thing> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut found = Found { namespace: pod.metadata.namespace.as_deref().unwrap_or_default(), things: Vec::new() };
    let account = spec.service_account_name.as_deref();
    found.add(Kind::ServiceAccount, account);
    for reference in spec.image_pull_secrets.iter().flatten() {
        found.add(Kind::Secret, Some(&reference.name));
    }
    found.variables(spec);
    for volume in spec.volumes.iter().flatten() {
        found.volume(volume, pod.metadata.name.as_deref().unwrap_or_default());
    }
    for claim in spec.resource_claims.iter().flatten() {
        found.add(Kind::ResourceClaim, claim.resource_claim_name.as_deref());
    }
    for claim in pod.status.iter().filter_map(|status| status.resource_claim_statuses.as_ref()).flatten() {
        found.add(Kind::ResourceClaim, claim.resource_claim_name.as_deref());
    }
    found.things
}

struct Found<'a> {
    namespace: &'a str,
    things: Vec<Thing>,
}

impl Found<'_> {
    fn add(&mut self, kind: Kind, name: Option<&str>) {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            let thing = Thing::new(kind, self.namespace, name);
            if !self.things.contains(&thing) {
                self.things.push(thing);
            }
        }
    }

    fn variables(&mut self, spec: &PodSpec) {
        let plain = spec.init_containers.iter().flatten().chain(&spec.containers);
        for container in plain {
            self.sources(container.env.as_deref(), container.env_from.as_deref());
        }
        for container in spec.ephemeral_containers.iter().flatten() {
            self.sources(container.env.as_deref(), container.env_from.as_deref());
        }
    }

    fn sources(&mut self, env: Option<&[EnvVar]>, env_from: Option<&[EnvFromSource]>) {
        for source in env.into_iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            self.add(Kind::Secret, source.secret_key_ref.as_ref().map(|of| of.name.as_str()));
            self.add(Kind::ConfigMap, source.config_map_key_ref.as_ref().map(|of| of.name.as_str()));
        }
        for source in env_from.into_iter().flatten() {
            self.add(Kind::Secret, source.secret_ref.as_ref().map(|of| of.name.as_str()));
            self.add(Kind::ConfigMap, source.config_map_ref.as_ref().map(|of| of.name.as_str()));
        }
    }

    fn volume(&mut self, volume: &Volume, pod: &str) {
        let local = |reference: &Option<k8s_openapi::api::core::v1::LocalObjectReference>| {
            reference.as_ref().map(|reference| reference.name.clone())
        };
        let secrets = [
            volume.secret.as_ref().and_then(|of| of.secret_name.clone()),
            volume.azure_file.as_ref().map(|of| of.secret_name.clone()),
            volume.cephfs.as_ref().and_then(|of| local(&of.secret_ref)),
            volume.cinder.as_ref().and_then(|of| local(&of.secret_ref)),
            volume.flex_volume.as_ref().and_then(|of| local(&of.secret_ref)),
            volume.rbd.as_ref().and_then(|of| local(&of.secret_ref)),
            volume.scale_io.as_ref().map(|of| of.secret_ref.name.clone()),
            volume.iscsi.as_ref().and_then(|of| local(&of.secret_ref)),
            volume.storageos.as_ref().and_then(|of| local(&of.secret_ref)),
            volume.csi.as_ref().and_then(|of| local(&of.node_publish_secret_ref)),
        ];
        for secret in secrets.iter().flatten() {
            self.add(Kind::Secret, Some(secret));
        }
        self.add(Kind::ConfigMap, volume.config_map.as_ref().map(|of| of.name.as_str()));
        for source in volume.projected.iter().filter_map(|of| of.sources.as_ref()).flatten() {
            self.add(Kind::Secret, source.secret.as_ref().map(|of| of.name.as_str()));
            self.add(Kind::ConfigMap, source.config_map.as_ref().map(|of| of.name.as_str()));
        }
        self.add(Kind::Claim, volume.persistent_volume_claim.as_ref().map(|of| of.claim_name.as_str()));
        if volume.ephemeral.is_some() {
            self.add(Kind::Claim, Some(&format!("{pod}-{}", volume.name)));
        }
    }
}

/// The claim that a volume is bound to.
pub(super) fn claim_of_volume(volume: &PersistentVolume) -> Option<Thing> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Thing::new(Kind::Claim, claim.namespace.as_deref()?, claim.name.as_deref()?))
}

/// The secrets that a volume's driver needs on a node; those with no namespace of their own are in the claim's.
pub(super) fn secrets_of_volume(volume: &PersistentVolume, namespace: &str) -> Vec<Thing> {
    let Some(spec) = &volume.spec else { return Vec::new() };
    let reference = |reference: &k8s_openapi::api::core::v1::SecretReference| {
        let own = reference.namespace.as_deref().filter(|own| !own.is_empty()).unwrap_or(namespace);
        Some(Thing::new(Kind::Secret, own, reference.name.as_deref()?))
    };
    let csi = spec.csi.as_ref();
    let references = [
        spec.cephfs.as_ref().and_then(|of| of.secret_ref.as_ref()),
        spec.cinder.as_ref().and_then(|of| of.secret_ref.as_ref()),
        spec.flex_volume.as_ref().and_then(|of| of.secret_ref.as_ref()),
        spec.rbd.as_ref().and_then(|of| of.secret_ref.as_ref()),
        spec.scale_io.as_ref().map(|of| &of.secret_ref),
        spec.iscsi.as_ref().and_then(|of| of.secret_ref.as_ref()),
        csi.and_then(|of| of.node_publish_secret_ref.as_ref()),
        csi.and_then(|of| of.node_stage_secret_ref.as_ref()),
        csi.and_then(|of| of.node_expand_secret_ref.as_ref()),
    ];
    let azure = spec.azure_file.as_ref().map(|of| {
        let own = of.secret_namespace.as_deref().filter(|own| !own.is_empty()).unwrap_or(namespace);
        Thing::new(Kind::Secret, own, &of.secret_name)
    });
    let storageos = spec.storageos.as_ref().and_then(|of| of.secret_ref.as_ref()).and_then(|of| {
        let own = of.namespace.as_deref().filter(|own| !own.is_empty()).unwrap_or(namespace);
        Some(Thing::new(Kind::Secret, own, of.name.as_deref()?))
    });
    references.into_iter().flatten().filter_map(reference).chain(azure).chain(storageos).collect()
}
