//! The store over etcd, on the real etcd and on this crate's own server.

mod peer;

use std::sync::Arc;

use parking_lot::Mutex;
use rk_store::{
    MemoryStore, Store,
    etcd::{EtcdOptions, EtcdStore},
    testing,
};

fn client(url: &str) -> Arc<dyn Store> {
    Arc::new(EtcdStore::new(EtcdOptions::new([url])).unwrap())
}

#[tokio::test]
async fn etcd_keeps_the_contract() {
    if !peer::has("etcd") {
        return;
    }
    let running = Mutex::new(None);
    testing::conformance(async || {
        // Each check wants an empty store; the one before is not needed any more.
        drop(running.lock().take());
        let etcd = peer::Etcd::start(&[]).await;
        let store = client(&etcd.url);
        *running.lock() = Some(etcd);
        store
    })
    .await;
}

#[tokio::test]
async fn the_server_keeps_the_contract() {
    testing::conformance(async || client(&peer::serve(Arc::new(MemoryStore::new())).await)).await;
}
