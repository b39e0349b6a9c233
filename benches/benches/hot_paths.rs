//! The hot paths of a request, one by one. `cargo bench -p rk-benches --bench hot_paths`.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use rk_api::{
    Api, FieldSelector, LabelSelector, ListOptions, Object, Patch,
    server::{Server, UserInfo},
};
use rk_store::{KeyRange, MemoryStore, RangeRequest, Store};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

/// All on the calling thread: what a path costs, without waking others.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn pod_json() -> String {
    let container = r#"{"name":"c","image":"i","env":[{"name":"A","value":"x"}],"resources":{"requests":{"cpu":"100m","memory":"64Mi"}}}"#;
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p","namespace":"default","resourceVersion":"7","labels":{{"app":"web","tier":"front"}}}},"spec":{{"containers":[{container},{container}]}},"status":{{"phase":"Running","podIP":"127.64.1.2"}}}}"#
    )
}

fn objects(c: &mut Criterion) {
    let json = pod_json();
    c.bench_function("object/parse metadata", |b| b.iter(|| Object::from_json(black_box(json.clone()))));
    c.bench_function("object/decode a typed Pod", |b| {
        b.iter(|| Object::from_json(json.clone()).and_then(|object| object.typed::<Pod>()))
    });
    let object = Object::from_json(json).expect("an object");
    c.bench_function("object/typed Pod, decoded before", |b| b.iter(|| object.typed::<Pod>()));
    let selector: LabelSelector = "app=web,tier in (front,back),!gone".parse().expect("a selector");
    c.bench_function("selector/match", |b| b.iter(|| selector.matches(black_box(&object.meta().labels))));
}

fn store(c: &mut Criterion) {
    let runtime = runtime();
    let store = MemoryStore::new();
    let mut i = 0_u64;
    c.bench_function("store in memory/put 1 KiB", |b| {
        b.iter(|| {
            i += 1;
            runtime.block_on(store.put(format!("/bench/{}", i % 10_000).into(), vec![b'x'; 1024].into()))
        });
    });
    c.bench_function("store in memory/range of 1,000", |b| {
        let request = RangeRequest { limit: 1000, ..RangeRequest::new(KeyRange::prefix("/bench/")) };
        b.iter(|| runtime.block_on(store.range(request.clone())));
    });
}

fn api(c: &mut Criterion) {
    let runtime = runtime();
    let server = runtime.block_on(Server::builder(Arc::new(MemoryStore::new())).build()).expect("a server");
    let api: Api<ConfigMap> = Api::namespaced(server.client(UserInfo::loopback()), "default");
    let mut i = 0_u64;
    let mut create = || {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(format!("c{i}"));
        map.data = Some([("value".to_owned(), "x".repeat(1024))].into());
        i += 1;
        runtime.block_on(api.create(&map)).expect("created")
    };
    (0..1000).for_each(|_| drop(create()));
    c.bench_function("api in-process/create a ConfigMap of 1 KiB", |b| b.iter(&mut create));
    c.bench_function("api in-process/get", |b| b.iter(|| runtime.block_on(api.get("c7"))));
    c.bench_function("api in-process/list 500", |b| {
        let options = ListOptions { limit: 500, ..ListOptions::default() };
        b.iter(|| runtime.block_on(api.list(options.clone())));
    });
}

/// 30,000 pods on 100 nodes: those of a node by a field that has an index once somebody asked for it, and by a set of labels, for
/// which every pod is looked at; and what a write costs before and after.
fn indexes(c: &mut Criterion) {
    let runtime = runtime();
    let server = runtime.block_on(Server::builder(Arc::new(MemoryStore::new())).build()).expect("a server");
    let api: Api<Pod> = Api::namespaced(server.client(UserInfo::loopback()), "default");
    for i in 0..30_000 {
        let mut pod: Pod = serde_json::from_str(&pod_json()).expect("a pod");
        pod.metadata.name = Some(format!("p{i}"));
        pod.metadata.resource_version = None;
        pod.metadata.labels = Some([("node".to_owned(), format!("n{}", i % 100))].into());
        pod.spec.get_or_insert_default().node_name = Some(format!("n{}", i % 100));
        runtime.block_on(api.create(&pod)).expect("created");
    }
    let mut i = 0_u64;
    let mut change = || {
        i += 1;
        let patch = Patch::merge(json!({"metadata": {"annotations": {"i": i.to_string()}}}));
        runtime.block_on(api.patch("p7", patch)).expect("patched")
    };
    c.bench_function("30,000 pods/patch one, no index", |b| b.iter(&mut change));
    let by_labels = ListOptions { labels: "node in (n7,none)".parse().expect("a selector"), ..ListOptions::default() };
    let by_node = ListOptions { fields: FieldSelector::field("spec.nodeName", "n7"), ..ListOptions::default() };
    for (name, options) in [("by labels, no index", by_labels), ("by node, with its index", by_node)] {
        let list = || runtime.block_on(api.list(options.clone())).expect("listed");
        assert_eq!(list().items.len(), 300);
        c.bench_function(&format!("30,000 pods/list 300 {name}"), |b| b.iter(list));
    }
    c.bench_function("30,000 pods/patch one, with an index", |b| b.iter(&mut change));
}

criterion_group!(benches, objects, store, api, indexes);
criterion_main!(benches);
