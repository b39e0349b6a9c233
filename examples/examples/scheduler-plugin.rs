//! A score plugin of one's own: nodes that run on green power are better. First it is tried in memory, then the same
//! plugin runs in a scheduler on an embedded control plane.

use std::{error::Error, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};
use rk_api::{
    Api,
    server::{Server, UserInfo},
};
use rk_sched::{Profile, Registration, Scheduler, SchedulerConfig, framework::*, model::*, simulate::Simulator};
use rk_store::MemoryStore;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Better a node whose label `power` says `green`.
struct GreenPower;

impl Plugin for GreenPower {
    fn name(&self) -> &'static str {
        "GreenPower"
    }
}

impl Score for GreenPower {
    fn score(&self, _: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        let green = node.labels().get("power").is_some_and(|power| power == "green");
        Ok(if green { MAX_SCORE } else { MIN_SCORE })
    }
}

fn profile() -> Profile {
    Profile::kubernetes("default-scheduler").with(Registration::new(GreenPower).score(10))
}

fn object<K: DeserializeOwned>(json: Value) -> Result<K, serde_json::Error> {
    serde_json::from_value(json)
}

fn node(name: &str, power: &str) -> Result<Node, serde_json::Error> {
    object(json!({
        "metadata": {"name": name, "labels": {"power": power}},
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pod: Pod = object(json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]},
    }))?;
    let nodes = [node("coal", "grey")?, node("wind", "green")?];

    let mut cluster = Simulator::new(profile(), 42);
    nodes.iter().cloned().for_each(|node| cluster.set_node(node));
    println!("in memory: {}", cluster.schedule(pod.clone())?);

    let server = Server::builder(Arc::new(MemoryStore::new())).build().await?;
    let client = server.client(UserInfo::loopback());
    let api: Api<Node> = Api::all(Arc::clone(&client));
    for node in &nodes {
        api.create(node).await?;
        api.update_status(node).await?;
    }
    let shutdown = CancellationToken::new();
    let config = SchedulerConfig { profiles: vec![profile()], ..SchedulerConfig::default() };
    let scheduler = tokio::spawn(Scheduler::new(Arc::clone(&client), config)?.run(shutdown.clone()));
    let pods: Api<Pod> = Api::namespaced(client, "default");
    pods.create(&pod).await?;
    let bound = loop {
        let pod = pods.get("p").await?;
        match pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
            Some(node) => break node,
            None => tokio::task::yield_now().await,
        }
    };
    println!("on a control plane: {bound}");
    shutdown.cancel();
    Ok(scheduler.await?)
}
