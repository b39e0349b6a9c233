//! An admission plugin as a closure: a product's own rule on what may be stored, in the pipeline with Kubernetes'.

use std::{error::Error, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use rk_api::{
    Api,
    server::{Operation, Server, UserInfo, plugins},
};
use rk_store::MemoryStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let team_label = plugins::from_fn(
        "TeamLabel",
        |operation, resource, subresource| {
            operation == Operation::Create && resource.plural == "configmaps" && subresource.is_empty()
        },
        |request| match request.object.as_ref().and_then(|object| object["metadata"]["labels"]["team"].as_str()) {
            Some(_) => Ok(()),
            None => Err(plugins::forbid(request, "say whose it is: set the label team")),
        },
    );
    let server = Server::builder(Arc::new(MemoryStore::new())).admission(team_label).build().await?;
    let api: Api<ConfigMap> = Api::namespaced(server.client(UserInfo::loopback()), "default");

    let mut map = ConfigMap::default();
    map.metadata.name = Some("settings".into());
    println!("without the label: {}", api.create(&map).await.err().map(|e| e.to_string()).unwrap_or_default());
    map.metadata.labels = Some([("team".into(), "red".into())].into());
    println!("with it: created {}", api.create(&map).await?.metadata.name.as_deref().unwrap_or_default());
    Ok(())
}
