//! ImageLocality.

use crate::{
    framework::{CycleState, MAX_SCORE, Plugin, PreScore, Score, Status},
    model::{NodeIndex, NodeInfo, PodInfo, Snapshot},
};

/// Better a node that has the pod's images: the larger they are, and the more nodes have them (so that a pod's nodes
/// don't heat up for one image).
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageLocality;

const MEGABYTE: i64 = 1024 * 1024;
/// Images smaller than this together score nothing.
const LEAST: i64 = 23 * MEGABYTE;
/// An average of this per container scores highest.
const MOST_PER_CONTAINER: i64 = 1000 * MEGABYTE;

/// The pod's images, each with the part of the nodes that have it.
#[derive(Clone)]
struct Images {
    spread: Vec<(String, f64)>,
    containers: i64,
}

/// The image's name with its tag.
fn normalized(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || name.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }
}

impl PreScore for ImageLocality {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, _nodes: &[NodeIndex]) -> Status {
        if snapshot.no_images() {
            return Status::skip();
        }
        let spec = pod.spec();
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let of_volumes = spec.volumes.iter().flatten().filter_map(|volume| volume.image.as_ref()?.reference.as_deref());
        let images: Vec<String> = containers
            .map(|container| container.image.as_deref().unwrap_or_default())
            .chain(of_volumes)
            .map(normalized)
            .collect();
        let part = |image: &String| snapshot.nodes_with_image(image) as f64 / snapshot.len() as f64;
        let containers = i64::try_from(images.len()).unwrap_or(i64::MAX);
        let spread: Vec<_> =
            images.iter().map(|image| (image.clone(), part(image))).filter(|(_, p)| *p > 0.0).collect();
        if spread.is_empty() {
            return Status::skip();
        }
        state.insert(Images { spread, containers });
        Status::success()
    }
}

impl Score for ImageLocality {
    fn score(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        let Some(images) = state.get::<Images>() else { return Ok(0) };
        let here = images.spread.iter().filter_map(|(name, part)| Some(*node.images.get(name)? as f64 * part));
        let sum = here.map(|size| size as i64).sum::<i64>();
        let most = MOST_PER_CONTAINER * images.containers;
        Ok(MAX_SCORE * (sum.clamp(LEAST, most) - LEAST) / (most - LEAST))
    }
}
