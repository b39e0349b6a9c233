//! Secrets in the store: what lies there, and how keys are replaced.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use rk_api::{
    Api, Error, Patch, WatchOptions,
    server::{Encryption, Server, UserInfo},
};
use rk_store::{KeyRange, MemoryStore, RangeRequest, Store};
use serde_json::{Value, json};

/// A configuration with these providers for Secrets, the first of which writes.
fn providers(names: &[&str]) -> Encryption {
    let provider = |name: &&str| match *name {
        "identity" => json!({"identity": {}}),
        name => {
            let secret = STANDARD.encode(format!("{name:k<32}"));
            json!({"aesgcm": {"keys": [{"name": name, "secret": secret}]}})
        }
    };
    let providers: Vec<Value> = names.iter().map(provider).collect();
    let text = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}]});
    Encryption::parse(&text.to_string()).unwrap()
}

async fn start(store: &Arc<MemoryStore>, names: &[&str]) -> Result<Api<Secret>, Error> {
    let builder = Server::builder(store.clone()).encryption(providers(names));
    Ok(Api::namespaced(builder.build().await?.client(UserInfo::loopback()), "default"))
}

async fn stored(store: &MemoryStore, kind: &str, name: &str) -> Vec<u8> {
    let key = KeyRange::key(format!("/registry/{kind}/default/{name}"));
    store.range(RangeRequest::new(key)).await.unwrap().kvs[0].value.to_vec()
}

fn secret(name: &str) -> Secret {
    serde_json::from_value(json!({"metadata": {"name": name}, "stringData": {"k": "hidden"}})).unwrap()
}

#[tokio::test]
async fn keys_are_replaced_one_step_after_the_other() {
    let store = Arc::new(MemoryStore::new());
    // Plain at first.
    let api = start(&store, &["identity"]).await.unwrap();
    let first = api.create(&secret("a")).await.unwrap();
    assert!(stored(&store, "secrets", "a").await.starts_with(b"{"));
    drop(api);

    let api = start(&store, &["one", "identity"]).await.unwrap();
    assert_eq!(api.get("a").await.unwrap().data, first.data);
    api.create(&secret("b")).await.unwrap();
    let sealed = stored(&store, "secrets", "b").await;
    assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    let text = STANDARD.encode("hidden");
    assert!(!sealed.windows(text.len()).any(|window| window == text.as_bytes()));
    // A replace that changes nothing writes with the key that is first now; the next one writes nothing.
    let same = api.update(&*api.get("a").await.unwrap()).await.unwrap();
    assert!(stored(&store, "secrets", "a").await.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    let again = api.update(&same).await.unwrap();
    assert_eq!(again.metadata.resource_version, same.metadata.resource_version);
    // Watches and patches see what is meant, not what is stored.
    let from =
        WatchOptions { resource_version: first.metadata.resource_version.clone().unwrap(), ..WatchOptions::default() };
    let mut events = api.watch(from).await.unwrap();
    let seen = futures::StreamExt::next(&mut events).await.unwrap().unwrap();
    assert!(matches!(seen, rk_api::TypedEvent::Added(object) if object.metadata.name.as_deref() == Some("b")));
    api.patch("b", Patch::merge(json!({"metadata": {"labels": {"x": "y"}}}))).await.unwrap();
    let maps = Api::<ConfigMap>::namespaced(Arc::clone(api.client()), "default");
    maps.create(&serde_json::from_value(json!({"metadata": {"name": "m"}})).unwrap()).await.unwrap();
    assert!(stored(&store, "configmaps", "m").await.starts_with(b"{"), "not chosen");
    drop((events, api, maps));

    let api = start(&store, &["two", "one"]).await.unwrap();
    for name in ["a", "b"] {
        api.update(&*api.get(name).await.unwrap()).await.unwrap();
        assert!(stored(&store, "secrets", name).await.starts_with(b"k8s:enc:aesgcm:v1:two:"));
    }
    drop(api);
    let api = start(&store, &["two"]).await.unwrap();
    assert_eq!(api.get("a").await.unwrap().data, first.data);
    drop(api);
    let error = start(&store, &["one"]).await.err().unwrap().to_string();
    assert!(error.contains("/registry/secrets/default/a") && error.contains("no matching prefix"), "{error}");
}
