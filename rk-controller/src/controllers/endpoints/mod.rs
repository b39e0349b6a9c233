//! Which pods answer for a Service: as EndpointSlices (`slices`) and as the older Endpoints (`legacy`).
//!
//! `members` says which pods take part, at which addresses and ports; it is the same for both.

mod legacy;
mod members;
mod packing;
mod slices;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use rk_api::{Change, Informer, Key, LabelSelector, Object};

use crate::common::{meta, pod};

pub use legacy::{EndpointsController, run as run_endpoints};
pub use slices::{EndpointSliceController, run as run_slices};

/// The label that marks what belongs to a headless Service.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The pods' selector of a Service; `None` if its endpoints are somebody else's concern.
fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let labels = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
    Some(LabelSelector::from_labels(labels))
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The Services that a change of a pod concerns.
fn services_of_pod(change: &Change, services: &Informer) -> Vec<Key> {
    let pod = change.object();
    let old = match change {
        Change::Updated { old, .. } => Some(old),
        _ => None,
    };
    if old.is_some_and(|old| !matters(old, pod)) {
        return Vec::new();
    }
    let selects = |service: &Arc<Object>| {
        let service = service.typed::<Service>().ok()?;
        let selector = selector(&service)?;
        let concerned = selector.matches(&pod.meta().labels) || old.is_some_and(|o| selector.matches(&o.meta().labels));
        concerned.then(|| meta::key(&service.metadata))
    };
    services.list_namespace(&pod.meta().namespace).iter().filter_map(selects).collect()
}

/// Whether an update changes anything that an endpoint shows.
fn matters(old: &Object, new: &Object) -> bool {
    let (Ok(a), Ok(b)) = (old.typed::<Pod>(), new.typed::<Pod>()) else { return true };
    let shown = |pod: &Pod| {
        let ips = pod.status.as_ref().and_then(|status| status.pod_ips.clone());
        let name = pod.spec.as_ref().map(|spec| (spec.hostname.clone(), spec.subdomain.clone()));
        (ips, pod::is_ready(pod), pod::is_terminal(pod), meta::is_deleting(&pod.metadata), name)
    };
    meta::labels(&a.metadata) != meta::labels(&b.metadata)
        || pod::node_name(&a) != pod::node_name(&b)
        || shown(&a) != shown(&b)
}
