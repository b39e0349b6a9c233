//! The real etcd and a server of this crate, for tests.

// No test uses all of it.
#![allow(dead_code)]

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rk_store::{
    Member, Store,
    etcd::{EtcdOptions, EtcdServer, EtcdStore, ServerOptions, Standalone},
    testing::free_port,
};
use tempfile::TempDir;

/// A running etcd, killed when dropped.
pub struct Etcd {
    child: Child,
    /// Where clients reach it.
    pub url: String,
    _dir: TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().expect("etcd is killed");
        self.child.wait().expect("etcd has ended");
    }
}

/// Whether a program is there. Where it must be, in CI, it is a failure if it is not.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").env("ETCDCTL_API", "3").output().is_ok()
        || Command::new(program).arg("version").env("ETCDCTL_API", "3").output().is_ok();
    assert!(found || std::env::var("CI").is_err(), "{program} is required in CI");
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

impl Etcd {
    /// Starts an etcd of one member on an empty directory.
    pub async fn start(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (url, peer) = (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
        let child = Command::new("etcd")
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap"])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        let etcd = Self { child, url, _dir: dir };
        etcd.ready().await;
        etcd
    }

    async fn ready(&self) {
        let store = EtcdStore::new(EtcdOptions::new([&self.url])).expect("a store");
        let begin = Instant::now();
        while store.get("ready".into()).await.is_err() {
            assert!(begin.elapsed() < Duration::from_secs(30), "etcd does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Serves a store in this process; the URL.
pub async fn serve(store: Arc<dyn Store>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let member = Member { id: 1, name: "default".into(), client_urls: vec![url.clone()], ..Member::default() };
    let cluster = Arc::new(Standalone::new(1, member, store.clone()));
    let server = EtcdServer::new(store, cluster, ServerOptions::default());
    tokio::spawn(async move { server.serve(listener, None).await });
    url
}
