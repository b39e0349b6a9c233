//! The API in the process of its user: no sockets, no disk, the whole pipeline with RBAC and admission.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rk_api::{
    Error, ListOptions, Request, Resource, Verb, WriteOptions,
    k8s_openapi::api::core::v1::ConfigMap,
    server::{ControlPlane, Security, UserInfo, bootstrap},
};
use serde_json::{Value, json};

use crate::{process, table::Figure};

/// Calls between two looks at the clock.
const BATCH: usize = 100;

fn request(name: &str, verb: Verb) -> Request {
    Request {
        resource: Resource::of::<ConfigMap>(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        subresource: String::new(),
        verb,
    }
}

fn object(number: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("load-{number:09}")},
        "data": {"filling": "x".repeat(900)}})
}

/// CPU microseconds of one call, all that this process does for it.
async fn each<F: Future<Output = Result<(), Error>>>(
    time: Duration,
    mut call: impl FnMut() -> F,
) -> Result<f64, Error> {
    let cpu = || process::usage(std::process::id()).map_err(|error| Error::Transport(error.to_string()));
    let (begun, before, mut calls) = (Instant::now(), cpu()?.cpu, 0);
    while begun.elapsed() < time {
        for _ in 0..BATCH {
            call().await?;
        }
        calls += BATCH;
    }
    Ok((cpu()?.cpu - before) * 1e6 / calls as f64)
}

/// Measures once.
pub async fn measure(time: Duration) -> Result<Vec<Figure>, Error> {
    let server =
        ControlPlane::builder().security(Security::default()).bootstrap(bootstrap::Config::default()).build().await?;
    // A user whom a binding allows, so that each call is a question to RBAC.
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bench"}]});
    let bindings = server.resource_of("rbac.authorization.k8s.io/v1", "ClusterRoleBinding").expect("it is built in");
    let create = Verb::Create(binding, WriteOptions::default());
    let binding = Request { resource: bindings, namespace: String::new(), ..request("", create) };
    server.client(UserInfo::loopback()).request(binding).await?;
    let client = server.client(UserInfo::new("bench", ["system:authenticated"]));

    let create = |number: u64| {
        let client = Arc::clone(&client);
        async move { client.request(request("", Verb::Create(object(number), WriteOptions::default()))).await.map(drop) }
    };
    for number in 0..1000 {
        create(number).await?;
    }
    let get = each(time, || async { client.request(request("load-000000500", Verb::Get)).await.map(drop) }).await?;
    let resource = Resource::of::<ConfigMap>();
    let list = each(time, || async {
        let list = client.list(&resource, "default", ListOptions::default()).await?;
        assert!(list.items.len() >= 1000);
        Ok(())
    })
    .await?;
    let mut next = 1000;
    let created = each(time, || {
        next += 1;
        create(next)
    })
    .await?;
    Ok(vec![
        Figure::new("get: CPU µs", get).at_most(1.0),
        Figure::new("list of 1,000: CPU µs", list).at_most(50.0),
        Figure::new("create: CPU µs", created).at_most(60.0),
    ])
}
