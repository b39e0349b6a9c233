//! Documents that a client has already are not sent again.

use serde_json::json;

use crate::api::{Api, JSON};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

#[tokio::test]
async fn documents_are_sent_when_they_changed() {
    let api = Api::start().await;
    let index = api.get("/openapi/v3", &[]).await.is(200);
    let core = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let hash = core.rsplit_once("hash=").unwrap().1.to_owned();
    // What changes when a resource comes, and what does not.
    let documents =
        [("/apis", AGGREGATED, true), ("/openapi/v2", JSON, true), ("/api", AGGREGATED, false), (&core, JSON, false)];
    let mut tags = Vec::new();
    for (path, accept, _) in documents {
        let first = api.get(path, &[("accept", accept)]).await;
        let tag = first.header("etag").to_owned();
        assert!(first.code == 200 && tag.len() > 20 && tag.starts_with('"'), "{path}: {tag}");
        let known = api.get(path, &[("accept", accept), ("if-none-match", &tag)]).await;
        assert_eq!((known.code, known.body.len(), known.header("etag")), (304, 0, tag.as_str()), "{path}");
        let other = api.get(path, &[("accept", accept), ("if-none-match", "\"other\"")]).await;
        assert_eq!((other.code, &other.body), (200, &first.body), "{path}");
        tags.push(tag);
    }
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let definition = json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    api.0.define(definition).await.unwrap();
    for ((path, accept, changes), tag) in documents.into_iter().zip(&tags) {
        let answer = api.get(path, &[("accept", accept), ("if-none-match", tag)]).await;
        let wanted = if changes { (200, false) } else { (304, true) };
        assert_eq!((answer.code, answer.header("etag") == tag.as_str()), wanted, "{path}");
    }
    // A document of the hash that it is asked for stays good for ever; of another one it is elsewhere.
    let fixed = api.get(&core, &[]).await;
    assert!(fixed.header("cache-control").contains("immutable"), "{}", fixed.header("cache-control"));
    let old = api.get("/openapi/v3/api/v1?hash=0123", &[]).await;
    assert_eq!((old.code, old.header("location")), (301, format!("/openapi/v3/api/v1?hash={hash}").as_str()));
}
