//! What a server carries that a request does not need: it must cost next to nothing.

use std::{cell::Cell, io, rc::Rc, time::Duration};

use serde_json::json;

use super::{
    bodies::{self, Numbers},
    run,
};
use crate::{
    http2::{Method, Request},
    load::{self, Load},
    options::Options,
    stats::median,
    table::Figure,
    target::{Servers, Target},
};

const NAMESPACE: &str = "bench-costs";
const CLIENTS: usize = 64;
const BINDINGS: u64 = 10_000;
const DEFINITIONS: u64 = 200;
/// How often the laden server and the other one take turns.
const TURNS: usize = 5;

pub(super) async fn measure(plain: &Target, servers: &Servers, options: &Options) -> io::Result<Vec<Figure>> {
    plain.namespace(NAMESPACE).await?;
    let mut figures = Vec::new();
    for load in ["20 admission plugins", "10,000 bindings", "200 definitions"] {
        let laden = match load {
            "20 admission plugins" => Target::start(servers, &["--no-op-plugins", "20"])?,
            _ => Target::start(servers, &[])?,
        };
        laden.namespace(NAMESPACE).await?;
        match load {
            "10,000 bindings" => bindings(&laden, options.objects(BINDINGS)).await?,
            "200 definitions" => definitions(&laden, options.objects(DEFINITIONS)).await?,
            _ => {}
        }
        let (mut creates, mut gets) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let (create, get) = each(plain, options).await?;
            let (laden_create, laden_get) = each(&laden, options).await?;
            creates.push((laden_create / create - 1.0) * 100.0);
            gets.push((laden_get / get - 1.0) * 100.0);
        }
        for (what, more) in [("create", creates), ("get", gets)] {
            let more = median(&more).unwrap_or_default();
            figures.push(Figure::new(format!("{load}: CPU of a {what}, % more"), more).at_most(5.0));
        }
    }
    Ok(figures)
}

/// CPU of a create and of a get.
async fn each(target: &Target, options: &Options) -> io::Result<(f64, f64)> {
    let load = Load { clients: CLIENTS, warm_up: options.warm_up() / 2, time: Some(options.time() / 2) };
    let made = Rc::new(Cell::new(0));
    let number = made.clone();
    let create = move || {
        number.set(number.get() + 1);
        Some(bodies::create(NAMESPACE, number.get() - 1))
    };
    let create = run(target, load, create).await?;
    let (count, mut numbers) = (made.get(), Numbers::new());
    let get = run(target, load, move || Some(bodies::one(NAMESPACE, numbers.below(count), Method::Get, 0))).await?;
    target.empty(NAMESPACE).await?;
    Ok((create.cpu_each(), get.cpu_each()))
}

/// Makes objects of a collection.
async fn make(target: &Target, path: &'static str, count: u64, body: fn(u64) -> serde_json::Value) -> io::Result<()> {
    let mut next = 0;
    let work = move || {
        next += 1;
        let request = || Request { method: Method::Post, path: path.to_owned(), body: body(next).to_string().into() };
        (next <= count).then(request)
    };
    load::run(&target.endpoint, Load::all(16), work, || Ok(())).await.map(drop)
}

/// A binding of a user of its own.
fn binding(kind: &str, number: u64) -> serde_json::Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": format!("b{number}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("user{number}")}]})
}

/// As many bindings of the cluster as of the namespace.
async fn bindings(target: &Target, count: u64) -> io::Result<()> {
    let cluster = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    make(target, cluster, count / 2, |number| binding("ClusterRoleBinding", number)).await?;
    let own = "/apis/rbac.authorization.k8s.io/v1/namespaces/bench-costs/rolebindings";
    make(target, own, count / 2, |number| binding("RoleBinding", number)).await
}

async fn definitions(target: &Target, count: u64) -> io::Result<()> {
    let body = |number: u64| {
        let (group, plural) = (format!("g{}.example.com", number % 20), format!("things{number}"));
        let spec = json!({"type": "object", "properties": {"size": {"type": "integer"}, "name": {"type": "string"}}});
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "scope": "Namespaced",
                "names": {"plural": plural, "singular": format!("thing{number}"), "kind": format!("Thing{number}")},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}})
    };
    make(target, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", count, body).await?;
    let last = format!("/apis/g{}.example.com/v1/namespaces/{NAMESPACE}/things{count}", count % 20);
    for _ in 0..600 {
        if target.connect().await?.ask(Request::get(last.as_str())).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(io::Error::other("the definitions are not served"))
}
