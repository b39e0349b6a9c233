//! Static pods: manifests in a folder become pods of this node, each shown in the API by a mirror pod.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod, Toleration};
use rk_api::{Api, DeleteOptions, Error};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{pod::spec, shared::Shared};

/// Annotation of a mirror pod: the hash of the static pod, which is the static pod's uid.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const HASH: &str = "kubernetes.io/config.hash";
const SOURCE: &str = "kubernetes.io/config.source";
const SEEN: &str = "kubernetes.io/config.seen";

/// How often the folder is looked at, and mirrors are put right: the kubelet's `fileCheckFrequency` is 20 s.
const PERIOD: Duration = Duration::from_secs(5);
/// How soon after a mirror could not be written.
const AGAIN: Duration = Duration::from_millis(500);

/// What became of a static pod.
pub(super) enum StaticChange {
    /// It is there.
    Put(Arc<Pod>),
    /// It went, by uid.
    Gone(String),
}

/// Reads the pods of a folder, by uid; a folder that is not there has none. A file that is no pod's does not keep the
/// others from being read: it goes to `refused` with what is wrong with it.
fn read(
    shared: &Shared,
    folder: &Path,
    refused: &mut BTreeMap<PathBuf, String>,
) -> std::io::Result<BTreeMap<String, Arc<Pod>>> {
    let mut pods = BTreeMap::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(pods),
        entries => entries?,
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || !path.is_file() {
            continue;
        }
        match parse(&path) {
            Ok((pod, text)) => {
                let pod = complete(shared, pod, &text);
                pods.insert(spec::uid(&pod).to_owned(), Arc::new(pod));
            }
            Err(error) => drop(refused.insert(path, error)),
        }
    }
    Ok(pods)
}

/// The pod of a manifest, and the manifest's text.
fn parse(path: &Path) -> Result<(Pod, String), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let value: serde_json::Value = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    let pod = serde_json::from_value(value).map_err(|error| error.to_string())?;
    Ok((pod, text))
}

/// What the kubelet sets in a static pod.
fn complete(shared: &Shared, mut pod: Pod, text: &str) -> Pod {
    let node = &shared.config.name;
    let hash: String =
        Sha256::digest(format!("{node}\0{text}")).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let meta = &mut pod.metadata;
    meta.name = Some(format!("{}-{node}", meta.name.clone().unwrap_or_default()));
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    meta.uid = Some(hash.clone());
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(HASH.to_owned(), hash);
    annotations.insert(SOURCE.to_owned(), "file".to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.clone());
    let tolerates =
        Toleration { operator: Some("Exists".into()), effect: Some("NoExecute".into()), ..Default::default() };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&tolerates) {
        tolerations.push(tolerates);
    }
    pod
}

/// Uids of the static pods that there are now.
pub(super) fn uids(shared: &Shared) -> Vec<String> {
    let folder = shared.config.static_pods.as_ref();
    folder.and_then(|folder| read(shared, folder, &mut BTreeMap::new()).ok()).unwrap_or_default().into_keys().collect()
}

/// Follows the folder of static pods, if there is one, until the handle is dropped.
pub(super) fn watch(shared: &Arc<Shared>) -> (mpsc::UnboundedReceiver<StaticChange>, AbortOnDropHandle<()>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::clone(shared);
    let task = tokio::spawn(async move {
        let Some(folder) = shared.config.static_pods.clone() else {
            // Without a folder there is nothing to tell, for ever.
            return std::future::pending().await;
        };
        let mut known: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        let mut refused = BTreeMap::new();
        let mut seen: HashMap<String, String> = HashMap::new();
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            let mut refused_now = BTreeMap::new();
            match read(&shared, &folder, &mut refused_now) {
                Ok(now) => {
                    for (path, error) in &refused_now {
                        // Told once, not at every look.
                        if refused.get(path) != Some(error) {
                            tracing::warn!(path = %path.display(), %error, "static pod not understood");
                        }
                    }
                    refused = refused_now;
                    for (uid, pod) in &now {
                        if !known.contains_key(uid) && sender.send(StaticChange::Put(Arc::clone(pod))).is_err() {
                            return;
                        }
                    }
                    for (uid, pod) in known.iter().filter(|(uid, _)| !now.contains_key(*uid)) {
                        if sender.send(StaticChange::Gone(uid.clone())).is_err() {
                            return;
                        }
                        if let Err(error) = delete_mirror(&shared, pod).await {
                            tracing::warn!(pod = spec::name(pod), %error, "mirror pod not deleted");
                        }
                    }
                    known = now;
                }
                Err(error) => tracing::warn!(folder = %folder.display(), %error, "static pods not read"),
            }
            for (uid, pod) in &known {
                let at = seen.entry(uid.clone()).or_insert_with(|| rk_api::now().to_string());
                if let Err(error) = mirror(&shared, pod, at).await {
                    tracing::warn!(pod = spec::name(pod), %error, "mirror pod not written");
                    ticks.reset_after(AGAIN);
                }
            }
        }
    });
    (receiver, AbortOnDropHandle::new(task))
}

async fn delete_mirror(shared: &Shared, pod: &Pod) -> Result<(), Error> {
    let api = Api::<Pod>::namespaced(Arc::clone(&shared.client), spec::namespace(pod));
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    match api.delete(spec::name(pod), options).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Makes the mirror of a static pod, replacing one of an older manifest. It belongs to the Node, so there is none before the node is
/// registered, as with the kubelet.
async fn mirror(shared: &Shared, pod: &Pod, seen: &str) -> Result<(), Error> {
    let api = Api::<Pod>::namespaced(Arc::clone(&shared.client), spec::namespace(pod));
    let existing = match api.get_opt(spec::name(pod)).await {
        // To a node, a pod that is not there is a pod that is not its own (Kubernetes' Node authorizer).
        Err(error) if error.is_forbidden() => None,
        other => other?,
    };
    if let Some(existing) = existing {
        let of = existing.metadata.annotations.as_ref().and_then(|annotations| annotations.get(MIRROR));
        if of == pod.metadata.uid.as_ref() && existing.metadata.deletion_timestamp.is_none() {
            return Ok(());
        }
        // A pod of the user's own that has this name stays: then making the mirror fails.
        if of.is_some() {
            delete_mirror(shared, pod).await?;
        }
    }
    let mut mirror = pod.clone();
    let uid = mirror.metadata.uid.take().unwrap_or_default();
    let annotations = mirror.metadata.annotations.get_or_insert_default();
    annotations.insert(MIRROR.to_owned(), uid);
    annotations.insert(SEEN.to_owned(), seen.to_owned());
    let node = Api::<Node>::all(Arc::clone(&shared.client)).get(&shared.config.name).await?;
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": shared.config.name,
        "uid": node.metadata.uid, "controller": true}]);
    mirror.metadata.owner_references = serde_json::from_value(owner).ok();
    api.create(&mirror).await.map(drop)
}
