//! The config maps and secrets that a pod uses.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Volume};

use super::{env::Sources, spec};
use crate::objects::Watched;

/// Reads the watched objects.
pub(super) async fn gather(pod: &Pod, watched: &[Arc<Watched>]) -> Result<Sources, String> {
    let (maps, secrets) = references(pod);
    let mut sources = Sources::default();
    // The watched ones are in the order of `references`.
    for (name, watched) in maps.iter().zip(watched) {
        if let Some(map) = watched.get::<ConfigMap>().await? {
            sources.config_maps.insert(name.clone(), map);
        }
    }
    for (name, watched) in secrets.iter().zip(watched.iter().skip(maps.len())) {
        if let Some(secret) = watched.get::<Secret>().await? {
            sources.secrets.insert(name.clone(), secret);
        }
    }
    Ok(sources)
}

/// Names of the config maps and secrets that a pod's volumes and variables use.
pub(super) fn references(pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    let spec = spec::spec(pod);
    let of_volume = |volume: &Volume, maps: &mut BTreeSet<String>, secrets: &mut BTreeSet<String>| {
        maps.extend(volume.config_map.iter().map(|of| of.name.clone()));
        secrets.extend(volume.secret.iter().filter_map(|of| of.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|of| of.sources.iter().flatten()) {
            maps.extend(source.config_map.iter().map(|of| of.name.clone()));
            secrets.extend(source.secret.iter().map(|of| of.name.clone()));
        }
    };
    for volume in spec.volumes.iter().flatten() {
        of_volume(volume, &mut maps, &mut secrets);
    }
    let mut of_container = |container: &Container| {
        for from in container.env_from.iter().flatten() {
            maps.extend(from.config_map_ref.iter().map(|of| of.name.clone()));
            secrets.extend(from.secret_ref.iter().map(|of| of.name.clone()));
        }
        for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
            maps.extend(from.config_map_key_ref.iter().map(|of| of.name.clone()));
            secrets.extend(from.secret_key_ref.iter().map(|of| of.name.clone()));
        }
    };
    for member in spec::members(pod) {
        of_container(&member.container);
    }
    (maps, secrets)
}
