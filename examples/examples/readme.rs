//! The README's program: a control plane of one's own, in this process.

use std::{error::Error, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use rk_api::{
    Api, TypedEvent, WatchOptions,
    server::{Server, UserInfo},
};
use rk_store::MemoryStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The store: this one in memory; DurableStore::open keeps it in a folder.
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await?;
    // A client in this process passes the same pipeline as one over HTTP.
    let client = server.client(UserInfo::loopback());
    let api: Api<ConfigMap> = Api::namespaced(client, "default");

    let mut changes = api.watch(WatchOptions::default()).await?;
    let mut settings = ConfigMap::default();
    settings.metadata.name = Some("settings".into());
    settings.data = Some([("color".into(), "blue".into())].into());
    let created = api.create(&settings).await?;
    println!("created at version {}", created.metadata.resource_version.as_deref().unwrap_or_default());

    if let Some(TypedEvent::Added(seen)) = changes.next().await.transpose()? {
        println!("the watch saw {:?}", seen.data);
    }
    Ok(())
}
