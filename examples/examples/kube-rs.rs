//! An unmodified kube-rs `Controller` on an embedded server: `kube::Client` takes the server for its transport.

use std::{error::Error, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{Controller, controller::Action, watcher},
};
use rk_api::server::{Server, UserInfo};
use rk_store::MemoryStore;

/// Counts the keys of every ConfigMap into an annotation.
async fn reconcile(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let keys = map.data.as_ref().map_or(0, |data| data.len()).to_string();
    if map.annotations().get("keys") != Some(&keys) {
        let api: Api<ConfigMap> = Api::namespaced((*client).clone(), &map.namespace().unwrap_or_default());
        let patch = serde_json::json!({"metadata": {"annotations": {"keys": keys}}});
        api.patch(&map.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(Action::await_change())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await?;
    let client = Client::new(server.service_as(UserInfo::loopback()), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());

    let mut map = ConfigMap::default();
    map.metadata.name = Some("counted".into());
    map.data = Some([("a".into(), "1".into()), ("b".into(), "2".into())].into());
    maps.create(&PostParams::default(), &map).await?;

    let mut reconciled = Controller::new(maps.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(client))
        .boxed();
    while let Some(result) = reconciled.next().await {
        println!("reconciled {}", result?.0.name);
        if let Some(keys) = maps.get("counted").await?.annotations().get("keys") {
            println!("counted has {keys} keys");
            break;
        }
    }
    Ok(())
}
