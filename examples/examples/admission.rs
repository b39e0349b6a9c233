//! Admission plugins as closures: a product's own rules on what may be stored, in the pipeline with Kubernetes'. One sees the
//! request as it is, the other one objects as a Rust type.

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
    let stamp = plugins::mutating_typed("Stamp", |map: &mut ConfigMap, request| {
        let annotations = map.metadata.annotations.get_or_insert_default();
        annotations.insert("example.com/by".to_owned(), request.attributes.user.name.clone());
        Ok(())
    });
    let builder = Server::builder(Arc::new(MemoryStore::new())).admission(team_label);
    let server = builder.admission_before("TeamLabel", stamp).build().await?;
    let api: Api<ConfigMap> = Api::namespaced(server.client(UserInfo::loopback()), "default");

    let mut map = ConfigMap::default();
    map.metadata.name = Some("settings".into());
    println!("without the label: {}", api.create(&map).await.err().map(|e| e.to_string()).unwrap_or_default());
    map.metadata.labels = Some([("team".into(), "red".into())].into());
    let made = api.create(&map).await?;
    let annotations = made.metadata.annotations.clone().unwrap_or_default();
    println!("with it: created {}, {annotations:?}", made.metadata.name.as_deref().unwrap_or_default());
    Ok(())
}
