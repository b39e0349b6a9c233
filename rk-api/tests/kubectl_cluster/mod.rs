//! A server on a free port, and the real kubectl to call it.

use std::{process::Stdio, sync::Arc};

use rk_api::{
    Client, Request, Resource, Verb, WriteOptions,
    server::{Server, UserInfo, plugins, serve},
};
use rk_store::MemoryStore;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpListener, process::Command};
use tokio_util::sync::CancellationToken;

/// A server on a free port, and kubectl to call it.
pub struct Cluster {
    url: String,
    home: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

impl Cluster {
    /// `None`, with a line that says so, where there is no kubectl.
    pub async fn start() -> Option<Self> {
        let found = Command::new("kubectl").args(["version", "--client"]).output().await.is_ok();
        if !found {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI needs kubectl");
            eprintln!("skipped: kubectl is not installed");
            return None;
        }
        let server = Server::builder(Arc::new(MemoryStore::new()))
            .admission(Arc::new(plugins::ValidatingPolicies::default()))
            .build()
            .await
            .unwrap();
        let client = server.client(UserInfo::loopback());
        for name in ["default", "kube-system"] {
            let body = json!({"metadata": {"name": name}});
            make(&client, Resource::of::<k8s_openapi::api::core::v1::Namespace>(), "", body).await;
            let body = json!({"metadata": {"name": "default"}});
            make(&client, Resource::of::<k8s_openapi::api::core::v1::ServiceAccount>(), name, body).await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, server.service_as(UserInfo::loopback()), None, stop.clone()));
        Some(Self { url, home: tempfile::tempdir().unwrap(), _stop: stop.drop_guard() })
    }

    /// Runs kubectl; whether it succeeded, and what it wrote.
    pub async fn run(&self, args: &str, input: &str) -> (bool, String) {
        let mut child = Command::new("kubectl")
            .arg(format!("--server={}", self.url))
            .args(args.split_whitespace())
            .env("HOME", self.home.path())
            .env("KUBECONFIG", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs kubectl, which must succeed.
    pub async fn ok(&self, args: &str, input: &str) -> String {
        let (success, text) = self.run(args, input).await;
        assert!(success, "kubectl {args}: {text}");
        text
    }
}

async fn make(client: &Arc<dyn Client>, resource: Resource, namespace: &str, body: serde_json::Value) {
    let request = Request {
        resource,
        namespace: namespace.to_owned(),
        name: String::new(),
        subresource: String::new(),
        verb: Verb::Create(body, WriteOptions::default()),
    };
    client.request(request).await.unwrap();
}
