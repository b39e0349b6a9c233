//! One reconciler, run in this process or against a cluster, the same code.
//!
//!     cargo run --example operator                               # an embedded control plane, a sample object, done
//!     cargo run --example operator -- --kubeconfig FILE          # any Kubernetes, until Ctrl-C
//!
//! A `Greeting` is kept in a ConfigMap of its name: made, corrected when somebody meddles with it, and gone with the greeting.

use std::{error::Error, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use clap::Parser;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Config, CustomResource, CustomResourceExt, Resource as _, config::Kubeconfig};
use rk_api::{
    Api, Client, Informers, Patch, RemoteClient,
    server::{Server, UserInfo},
};
use rk_controller::{Action, Context, Controller, Reconcile};
use rk_store::MemoryStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// A greeting.
#[derive(CustomResource, Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[kube(group = "example.com", version = "v1", kind = "Greeting", namespaced)]
pub struct GreetingSpec {
    /// Its text.
    text: String,
}

struct Greeter;

#[async_trait]
impl Reconcile for Greeter {
    type Object = Greeting;

    async fn reconcile(&self, greeting: Arc<Greeting>, context: &Context) -> Result<Action, rk_controller::Error> {
        let name = greeting.metadata.name.as_deref().unwrap_or_default();
        let configmaps: Api<ConfigMap> = context.api(greeting.metadata.namespace.as_deref().unwrap_or_default());
        let wanted = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "ownerReferences": [greeting.controller_owner_ref(&())]},
            "data": {"text": greeting.spec.text},
        });
        configmaps.patch(name, Patch::apply(wanted).force()).await?;
        Ok(Action::await_change())
    }
}

#[derive(Parser)]
struct Options {
    /// Runs against the cluster of this kubeconfig, in which the CRD must be.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

fn controller(client: &Arc<dyn Client>) -> Controller<Greeter> {
    Controller::new("greeter", Greeter, &Informers::new(Arc::clone(client))).owns::<ConfigMap>()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let shutdown = CancellationToken::new();
    if let Some(kubeconfig) = Options::parse().kubeconfig {
        let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &Default::default()).await?;
        let client: Arc<dyn Client> = Arc::new(RemoteClient::new(kube::Client::try_from(config)?));
        let running = tokio::spawn(controller(&client).run(shutdown.clone()));
        println!("reconciling greetings; the CRD is\n{}", serde_json::to_string(&Greeting::crd())?);
        tokio::signal::ctrl_c().await?;
        shutdown.cancel();
        return Ok(running.await?);
    }
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await?;
    server.define(serde_json::to_value(Greeting::crd())?).await?;
    let client = server.client(UserInfo::loopback());
    let running = tokio::spawn(controller(&client).run(shutdown.clone()));

    let greetings: Api<Greeting> = Api::namespaced(Arc::clone(&client), "default");
    let configmaps: Api<ConfigMap> = Api::namespaced(client, "default");
    greetings.create(&Greeting::new("hello", GreetingSpec { text: "hello".into() })).await?;
    let kept = loop {
        match configmaps.get_opt("hello").await? {
            Some(kept) => break kept,
            None => tokio::task::yield_now().await,
        }
    };
    println!("kept in a ConfigMap: {:?}", kept.data);
    shutdown.cancel();
    Ok(running.await?)
}
