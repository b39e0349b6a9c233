//! The ServiceCIDR `kubernetes`, kept as kube-apiserver keeps it (its `kubernetes-service-cidr-controller`): made of the server's own range, made
//! again when it is gone, and ready as long as it says what the server was told.

use std::{sync::Weak, time::Duration};

use k8s_openapi::{
    api::networking::v1::{ServiceCIDR, ServiceCIDRSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde_json::json;

use crate::{
    Api, Error, EventRecorder, Patch, WriteOptions, clock, object_reference,
    server::{
        Server,
        kinds::service::{
            ClusterIpRange,
            addresses::{DEFAULT_RANGE, service_cidrs},
        },
        pipeline::Core,
        weak_client::WeakClient,
    },
};

/// Who says so in Events, and whose the condition is.
const CONTROLLER: &str = "kubernetes-service-cidr-controller";
/// The reason of Events about what can't be written.
const FAILED: &str = "KubernetesDefaultServiceCIDRError";
/// Pause after a failure: kube-apiserver looks so often.
const RETRY: Duration = Duration::from_secs(10);

/// The ServiceCIDR of a server's range.
pub(super) fn default_range(range: &ClusterIpRange) -> ServiceCIDR {
    let cidrs = range.networks().map(|network| network.to_string()).collect();
    ServiceCIDR {
        metadata: ObjectMeta { name: Some(DEFAULT_RANGE.to_owned()), ..ObjectMeta::default() },
        spec: Some(ServiceCIDRSpec { cidrs: Some(cidrs) }),
        status: None,
    }
}

/// Keeps the ServiceCIDR `kubernetes` until the server ends, if ServiceCIDRs are served. One that says something else than `range` stays as it is, but
/// for one network to which the range adds that of the other family.
pub fn keep_service_cidr(server: &Server, range: ClusterIpRange) {
    let (core, resource) = (&server.core, service_cidrs());
    if core.catalog.load().get(&resource.group, &resource.version, &resource.plural).is_none() {
        return;
    }
    let (stop, keep) = (core.tasks.clone(), keep(std::sync::Arc::downgrade(core), range));
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = keep => {}
        }
    });
}

async fn keep(core: Weak<Core>, range: ClusterIpRange) {
    let (resource, client) = (service_cidrs(), WeakClient::of(&core));
    let Some(alive) = core.upgrade() else { return };
    let mut changes = alive.cache.collection_of(&resource.group, &resource.plural).waiter();
    let clock = alive.clock.clone();
    drop(alive);
    let recorder = EventRecorder::new(client.clone(), CONTROLLER, "");
    let api = Api::all(client).with_options(WriteOptions::manager(CONTROLLER));
    let mut keeper = Keeper { api, wanted: default_range(&range), recorder, told: [false; 2] };
    loop {
        changes.see_all();
        match clock::within(&clock, keeper.sync()).await {
            Ok(()) => changes.changed().await,
            Err(error) => {
                tracing::warn!(%error, "the default ServiceCIDR can't be kept");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

struct Keeper {
    api: Api<ServiceCIDR>,
    wanted: ServiceCIDR,
    recorder: EventRecorder,
    /// Whether it was told that the range is another one, and that it is not ready: once each.
    told: [bool; 2],
}

fn cidrs(range: &ServiceCIDR) -> &[String] {
    range.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default()
}

/// A list as Go prints it.
fn shown(cidrs: &[String]) -> String {
    format!("[{}]", cidrs.join(" "))
}

impl Keeper {
    /// Looks at the ServiceCIDR, and writes what it lacks. What is written brings it back here.
    async fn sync(&mut self) -> Result<(), Error> {
        let Some(found) = self.api.get_opt(DEFAULT_RANGE).await? else {
            return match self.api.create(&self.wanted).await {
                Err(error) if !error.is_already_exists() => {
                    self.warn(&self.wanted, FAILED, "The default ServiceCIDR can not be created".to_owned());
                    Err(error)
                }
                _ => Ok(()),
            };
        };
        let (wanted, held) = (cidrs(&self.wanted), cidrs(&found));
        if let ([first, _], [only]) = (wanted, held)
            && first == only
        {
            let updated = ServiceCIDR { spec: self.wanted.spec.clone(), ..(*found).clone() };
            return self.api.update(&updated).await.map(drop).inspect_err(|error| {
                let both = shown(wanted);
                let text =
                    format!("The default ServiceCIDR can not be upgraded from {first} to dual stack {both} : {error}");
                self.warn(&found, FAILED, text);
            });
        }
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        if wanted != held {
            let (held, wanted) = (shown(held), shown(wanted));
            let text =
                format!("The default ServiceCIDR {held} does not match the controller flag configurations {wanted}");
            self.warn_once(0, &found, "KubernetesDefaultServiceCIDRInconsistent", text);
            return Ok(());
        }
        let mut conditions = found.status.iter().flat_map(|status| status.conditions.iter().flatten());
        match conditions.find(|condition| condition.type_ == "Ready") {
            Some(ready) if ready.status == "True" => Ok(()),
            // Whoever says so has a reason.
            Some(ready) if ready.status == "False" => {
                self.warn_once(1, &found, &ready.reason, format!("Configuration matches, but {}", ready.message));
                Ok(())
            }
            _ => self.ready(&found).await,
        }
    }

    async fn ready(&self, found: &ServiceCIDR) -> Result<(), Error> {
        let condition = json!({"type": "Ready", "status": "True", "reason": "",
            "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": Time(crate::now())});
        let resource = service_cidrs();
        let status = json!({"apiVersion": resource.api_version(), "kind": resource.kind,
            "metadata": {"name": DEFAULT_RANGE}, "status": {"conditions": [condition]}});
        self.api.patch_status(DEFAULT_RANGE, Patch::apply(status).force()).await.map(drop).inspect_err(|_| {
            self.warn(found, FAILED, "The default ServiceCIDR Status can not be set to Ready=True".to_owned());
        })
    }

    fn warn_once(&mut self, what: usize, about: &ServiceCIDR, reason: &str, text: String) {
        if !std::mem::replace(&mut self.told[what], true) {
            self.warn(about, reason, text);
        }
    }

    fn warn(&self, about: &ServiceCIDR, reason: &str, text: String) {
        tracing::warn!(reason, text);
        self.recorder.warning(&object_reference(about), reason, text);
    }
}
