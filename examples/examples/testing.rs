//! How to test an operator without a cluster: an unmodified kube-rs `Controller` against a `TestControlPlane`, which is the whole API
//! server inside the test's process. The program runs the first test below; `cargo test --example testing` runs all of them.
//!
//! The operator keeps a Deployment for each `Website`, by server-side apply, and tells in the status how many replicas it asked for.
//! See `docs/testing-operators.md`.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, CustomResource, CustomResourceExt, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{Controller, controller::Action, wait::await_condition, watcher},
};
use rk_api::testing::TestControlPlane;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A website to be kept up.
#[derive(CustomResource, Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[kube(group = "example.com", version = "v1", kind = "Website", namespaced, status = "WebsiteStatus")]
pub struct WebsiteSpec {
    /// What it runs.
    image: String,
    /// How many.
    #[schemars(range(min = 1, max = 10))]
    replicas: i32,
}

/// What the operator has done.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct WebsiteStatus {
    /// Replicas asked for.
    replicas: i32,
}

async fn reconcile(site: Arc<Website>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let (name, namespace) = (site.name_any(), site.namespace().unwrap_or_default());
    let labels = BTreeMap::from([("website", name.as_str())]);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "ownerReferences": [site.controller_owner_ref(&())]},
        "spec": {
            "replicas": site.spec.replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": site.spec.image}]},
            },
        },
    });
    let deployments: Api<Deployment> = Api::namespaced((*client).clone(), &namespace);
    deployments.patch(&name, &PatchParams::apply("websites").force(), &Patch::Apply(deployment)).await?;
    let sites: Api<Website> = Api::namespaced((*client).clone(), &namespace);
    let status = json!({"status": {"replicas": site.spec.replicas}});
    sites.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(Action::await_change())
}

/// Runs the operator, as its `main` would.
async fn run(client: Client) {
    let sites = Controller::new(Api::<Website>::all(client.clone()), watcher::Config::default());
    let sites = sites.owns(Api::<Deployment>::all(client.clone()), watcher::Config::default());
    let reconciled = sites.run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(client));
    reconciled.for_each(|result| async move { drop(result.inspect_err(|error| eprintln!("{error}"))) }).await;
}

/// A control plane of its own that knows websites, with the operator running against it.
async fn start() -> Result<(TestControlPlane, Client), Box<dyn Error>> {
    let control_plane = TestControlPlane::start().await?;
    control_plane.server().define(serde_json::to_value(Website::crd())?).await?;
    let client = Client::new(control_plane.service(), "default");
    tokio::spawn(run(client.clone()));
    Ok((control_plane, client))
}

async fn a_website_gets_a_deployment() -> Result<(), Box<dyn Error>> {
    let (_control_plane, client) = start().await?;
    let (sites, deployments) = (Api::default_namespaced(client.clone()), Api::<Deployment>::default_namespaced(client));
    let site = Website::new("blog", WebsiteSpec { image: "nginx".into(), replicas: 2 });
    sites.create(&PostParams::default(), &site).await?;
    let told = |site: Option<&Website>| site.and_then(|site| site.status.as_ref()).is_some_and(|s| s.replicas == 2);
    await_condition(sites.clone(), "blog", told).await?;
    let made = deployments.get("blog").await?;
    assert_eq!(made.spec.and_then(|spec| spec.replicas), Some(2));
    println!("the website blog has its deployment");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    a_website_gets_a_deployment().await
}

#[cfg(test)]
mod tests {
    use kube::api::DeleteParams;

    use super::*;

    #[tokio::test]
    async fn it_gets_a_deployment() {
        a_website_gets_a_deployment().await.unwrap();
    }

    #[tokio::test]
    async fn what_others_change_is_put_right() {
        let (_control_plane, client) = start().await.unwrap();
        let (sites, deployments) =
            (Api::default_namespaced(client.clone()), Api::<Deployment>::default_namespaced(client));
        let site = Website::new("blog", WebsiteSpec { image: "nginx".into(), replicas: 2 });
        sites.create(&PostParams::default(), &site).await.unwrap();
        let replicas = |wanted| {
            move |deployment: Option<&Deployment>| {
                deployment.and_then(|d| d.spec.as_ref()).is_some_and(|spec| spec.replicas == Some(wanted))
            }
        };
        await_condition(deployments.clone(), "blog", replicas(2)).await.unwrap();
        let meddle = Patch::Merge(json!({"spec": {"replicas": 9}}));
        deployments.patch("blog", &PatchParams::default(), &meddle).await.unwrap();
        await_condition(deployments.clone(), "blog", replicas(2)).await.unwrap();
        deployments.delete("blog", &DeleteParams::default()).await.unwrap();
        await_condition(deployments, "blog", replicas(2)).await.unwrap();
    }

    #[tokio::test]
    async fn what_the_type_does_not_allow_is_refused() {
        let (_control_plane, client) = start().await.unwrap();
        let sites = Api::default_namespaced(client);
        let site = Website::new("blog", WebsiteSpec { image: "nginx".into(), replicas: 0 });
        let refused = sites.create(&PostParams::default(), &site).await.unwrap_err();
        assert!(matches!(&refused, kube::Error::Api(status) if status.code == 422), "{refused}");
    }
}
