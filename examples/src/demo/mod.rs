//! `--demo`: a sample application is deployed, answers, is scaled, breaks, heals and goes, with no kubectl.

mod hello;

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod, Service},
};
use rk_api::{Api, DeleteOptions, Error, Informer, LabelSelector, ListOptions, Patch};
use serde_json::{Value, json};
use tokio::time::Instant;

pub use hello::serve;

use crate::{
    cluster::{Cluster, ManifestError, parse},
    display::Display,
};

/// A demo that did not go as it should.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The API refused something.
    #[error(transparent)]
    Api(#[from] Error),
    /// The sample's manifests were refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What was waited for did not come.
    #[error("not within {0:?}: {1}")]
    Late(Duration, String),
    /// An answer over HTTP that is not what it should be.
    #[error("HTTP: {0}")]
    Http(String),
    /// An error of the operating system.
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
}

/// How long the demo waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "default";

/// The sample application's manifests; this program itself is what its containers run.
///
/// # Errors
/// The program's own path is unknown.
pub fn manifests() -> Result<Vec<Value>, DemoError> {
    let program = std::env::current_exe().map_err(|e| DemoError::Io("can't find this program", e))?;
    let text = include_str!("web.yaml").replace("MINI_CLUSTER", &program.display().to_string());
    let mut objects = parse(&text)?;
    // The demo kills a node: its pods shall not wait five minutes before they are replaced.
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1});
        if let Some(spec) = objects[0].pointer_mut("/spec/template/spec").and_then(Value::as_object_mut) {
            let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
            if let Some(list) = tolerations.as_array_mut() {
                list.push(toleration);
            }
        }
    }
    Ok(objects)
}

/// Runs the demo on a cluster that is ready; the last lines it shows are what was done and how long it took.
///
/// # Errors
/// The first step that failed.
pub async fn run(cluster: &Cluster, display: &Display) -> Result<(), DemoError> {
    let demo = Demo {
        cluster,
        pods: cluster.informers.of::<Pod>(),
        deployments: Api::namespaced(Arc::clone(&cluster.client), NAMESPACE),
        services: Api::namespaced(Arc::clone(&cluster.client), NAMESPACE),
    };
    let mut told = Vec::new();
    let begun = Instant::now();
    macro_rules! step {
        ($what:expr, $doing:expr) => {{
            let (step, from) = (display.step($what), Instant::now());
            let result: String = $doing.await?;
            step.done(&result);
            told.push(($what, from.elapsed()));
        }};
    }
    step!("deploy a web application", demo.deploy());
    step!("ask it through its service", demo.ask_service());
    step!("ask it through the ingress", demo.ask_ingress());
    step!("scale it to 5", demo.scale(5));
    step!("kill a container", demo.kill_container());
    step!("kill a node", demo.kill_node());
    step!("remove it all", demo.remove());
    display.line(format!("\ndemo done in {:.2} s:", begun.elapsed().as_secs_f64()));
    for (what, took) in told {
        display.line(format!("  {:>8.3} s  {what}", took.as_secs_f64()));
    }
    Ok(())
}

struct Demo<'a> {
    cluster: &'a Cluster,
    pods: Informer,
    deployments: Api<Deployment>,
    services: Api<Service>,
}

impl Demo<'_> {
    async fn deploy(&self) -> Result<String, DemoError> {
        self.cluster.apply(manifests()?, |_| {}).await?;
        self.pods.synced().await;
        self.ready(2).await?;
        Ok(format!("2 pods ready: {}", self.where_pods_run()))
    }

    async fn ask_service(&self) -> Result<String, DemoError> {
        let service = self.services.get("web-service").await?;
        let spec = service.spec.clone().unwrap_or_default();
        let address = spec.cluster_ip.unwrap_or_default();
        let port = spec.ports.unwrap_or_default().first().map_or(0, |port| port.port);
        let url = format!("{address}:{port}");
        let answers = self.hear_all(&url, "web-service", 2).await?;
        Ok(format!("http://{url}/ answered from {}", answers.join(", ")))
    }

    async fn ask_ingress(&self) -> Result<String, DemoError> {
        let url = format!("{}:{}", Ipv4Addr::LOCALHOST, self.cluster.ingress_port);
        let answers = self.hear_all(&url, "web.local", 2).await?;
        Ok(format!("http://{url}/ (Host: web.local) answered from {}", answers.join(", ")))
    }

    async fn scale(&self, replicas: i32) -> Result<String, DemoError> {
        self.deployments.patch("web", Patch::merge(json!({"spec": {"replicas": replicas}}))).await?;
        self.ready(replicas as usize).await?;
        Ok(format!("{replicas} pods ready: {}", self.where_pods_run()))
    }

    async fn kill_container(&self) -> Result<String, DemoError> {
        let victim = self.web_pods().into_iter().next().ok_or_else(|| late("a pod of the application"))?;
        let name = victim.metadata.name.clone().unwrap_or_default();
        let pid = process_of(&name).ok_or_else(|| late(&format!("the process of {name}")))?;
        nix_kill(pid).map_err(|e| DemoError::Io("can't kill the container's process", e))?;
        eventually(|| {
            let pod = self.pods.get_as::<Pod>(NAMESPACE, &name).ok().flatten()?;
            let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
            (status.restart_count > 0 && status.ready).then_some(())
        })
        .await
        .ok_or_else(|| late(&format!("the restart of {name}")))?;
        Ok(format!("process {pid} of {name} was killed and its container restarted"))
    }

    async fn kill_node(&self) -> Result<String, DemoError> {
        let node =
            self.cluster.kill_last_node().await.ok_or_else(|| late("a worker node (start with --agents 1 or more)"))?;
        let nodes = self.cluster.informers.of::<Node>();
        nodes.synced().await;
        let noticed = Instant::now();
        eventually(|| {
            let node = nodes.get_as::<Node>("", &node).ok().flatten()?;
            let conditions = node.status.as_ref()?.conditions.as_ref()?;
            conditions.iter().any(|c| c.type_ == "Ready" && c.status != "True").then_some(())
        })
        .await
        .ok_or_else(|| late(&format!("{node} to be found dead")))?;
        let noticed = noticed.elapsed();
        eventually(|| {
            let pods = self.web_pods();
            let alive = pods.iter().filter(|pod| node_of(pod) != node && is_ready(pod)).count();
            (alive >= 5).then_some(())
        })
        .await
        .ok_or_else(|| late(&format!("5 pods away from {node}")))?;
        Ok(format!(
            "{node} was found dead after {:.1} s, its pods were replaced: {}",
            noticed.as_secs_f64(),
            self.where_pods_run()
        ))
    }

    async fn remove(&self) -> Result<String, DemoError> {
        for object in manifests()? {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let resource = self.cluster.resource_of(text("/apiVersion"), text("/kind"));
            let resource = resource.ok_or_else(|| late("the resource of a manifest"))?;
            let request = rk_api::Request {
                resource,
                namespace: NAMESPACE.to_owned(),
                name: text("/metadata/name").to_owned(),
                subresource: String::new(),
                verb: rk_api::Verb::Delete(DeleteOptions::default()),
            };
            self.cluster.client.request(request).await?;
        }
        // Pods of the dead node have nobody to end them; a force delete is what an administrator would do.
        let pods: Api<Pod> = Api::namespaced(Arc::clone(&self.cluster.client), NAMESPACE);
        let selector = LabelSelector::from_labels([(&"app".to_owned(), &"web".to_owned())]);
        let left = pods.list(ListOptions::labels(selector)).await?.items;
        let forced = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        for pod in left.iter().filter(|pod| !self.cluster.has_node(&node_of(pod))) {
            match pods.delete(pod.metadata.name.as_deref().unwrap_or_default(), forced.clone()).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        eventually(|| self.web_pods().is_empty().then_some(())).await.ok_or_else(|| late("the pods' end"))?;
        Ok("no pods left".to_owned())
    }

    fn web_pods(&self) -> Vec<Arc<Pod>> {
        let pods = self.pods.list_namespace(NAMESPACE);
        let web = |object: &&Arc<rk_api::Object>| object.meta().labels.get("app").is_some_and(|app| app == "web");
        pods.iter().filter(web).filter_map(|object| object.typed().ok()).collect()
    }

    async fn ready(&self, count: usize) -> Result<(), DemoError> {
        eventually(|| (self.web_pods().iter().filter(|pod| is_ready(pod)).count() == count).then_some(()))
            .await
            .ok_or_else(|| late(&format!("{count} ready pods")))
    }

    fn where_pods_run(&self) -> String {
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for pod in self.web_pods().iter().filter(|pod| is_ready(pod)) {
            *counts.entry(node_of(pod)).or_default() += 1;
        }
        counts.iter().map(|(node, count)| format!("{count} on {node}")).collect::<Vec<_>>().join(", ")
    }

    /// Asks until so many different pods have answered.
    async fn hear_all(&self, url: &str, host: &str, pods: usize) -> Result<Vec<String>, DemoError> {
        let (mut heard, end) = (BTreeSet::new(), Instant::now() + PATIENCE);
        let mut last = String::new();
        while heard.len() < pods {
            if Instant::now() > end {
                return Err(DemoError::Http(format!("{url}: heard of {heard:?} only; last: {last}")));
            }
            match get(url, host).await {
                Ok(body) => match body.trim().strip_prefix("hello from ") {
                    Some(name) => drop(heard.insert(name.to_owned())),
                    None => last = body,
                },
                Err(error) => {
                    last = error.to_string();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        Ok(heard.into_iter().collect())
    }
}

fn late(what: &str) -> DemoError {
    DemoError::Late(PATIENCE, what.to_owned())
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

async fn eventually<T>(mut seen: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match seen() {
            Some(value) => return Some(value),
            None if Instant::now() > end => return None,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn get(url: &str, host: &str) -> Result<String, DemoError> {
    let http = |e: &dyn std::fmt::Display| DemoError::Http(format!("{url}: {e}"));
    let stream = tokio::net::TcpStream::connect(url).await.map_err(|e| http(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| http(&e))?;
    tokio::spawn(connection);
    let request =
        http::Request::get("/").header("host", host).body(Empty::<hyper::body::Bytes>::new()).map_err(|e| http(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| http(&e))?;
    let code = answer.status();
    let body = answer.into_body().collect().await.map_err(|e| http(&e))?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    if code.is_success() { Ok(body) } else { Err(http(&format!("{code}: {body}"))) }
}

/// The process whose environment says that it is this pod's.
fn process_of(pod: &str) -> Option<i32> {
    let wanted = format!("POD_NAME={pod}");
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let arguments = command.split(|&byte| byte == 0).any(|argument| argument == b"--hello");
        (arguments && environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())).then_some(pid)
    })
}

fn nix_kill(pid: i32) -> std::io::Result<()> {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .map_err(std::io::Error::from)
}
