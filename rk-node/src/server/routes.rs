//! The paths of the kubelet API.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::{logs, portforward, remote, stats};
use crate::{
    node::Index,
    pod::spec,
    runtime::{
        RuntimeError,
        types::{Container, ContainerState, Filter, PodSandboxState, StreamRequest},
    },
    shared::Shared,
};

pub(super) type Body = BoxBody<Bytes, std::io::Error>;

/// What the kubelet API knows of.
pub(crate) struct Kubelet {
    pub(super) shared: Arc<Shared>,
    pub(super) index: Index,
}

/// A refusal: the status and its text.
pub(super) type Refusal = (StatusCode, String);

pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = text(StatusCode::OK, value.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// Parameters of a query, of which some may come several times.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn of(request: &Request<Incoming>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
    }

    fn is(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "true" | "t" | "T" | "TRUE" | "True"))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let wrong = |_| (StatusCode::BAD_REQUEST, format!("invalid value for {name}"));
        self.get(name).map(|value| value.parse().map_err(wrong)).transpose()
    }
}

impl Kubelet {
    pub(super) async fn answer(&self, request: Request<Incoming>, trusted: bool) -> Response<Body> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        if matches!(path.as_str(), "/healthz" | "/healthz/ping") {
            return text(StatusCode::OK, "ok");
        }
        if !trusted {
            return text(StatusCode::UNAUTHORIZED, "Unauthorized");
        }
        match self.route(&path, request).await {
            Ok(response) => response,
            Err((status, message)) => text(status, message + "\n"),
        }
    }

    async fn route(&self, path: &str, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let query = Query::of(&request);
        let get = request.method() == Method::GET;
        match (get, parts.as_slice()) {
            (true, ["pods"]) => Ok(json(&self.pods())),
            (true, ["runningpods"]) => self.running_pods().await,
            (true, ["stats", "summary"]) => Ok(json(&stats::summary(&self.shared).await.map_err(failed)?)),
            (true, ["metrics"]) => Ok(text(StatusCode::OK, stats::metrics(&self.shared, &self.index).await)),
            (true, ["metrics", "resource"]) => {
                Ok(text(StatusCode::OK, stats::resource_metrics(&self.shared).await.map_err(failed)?))
            }
            (true, ["configz"]) => Ok(json(&self.configz())),
            (true, ["containerLogs", namespace, pod, container]) => self.logs(namespace, pod, container, &query).await,
            (false, ["run", namespace, pod, container]) => self.run(namespace, pod, container, &query).await,
            (_, [verb @ ("exec" | "attach"), namespace, pod, rest @ ..]) if (1..=2).contains(&rest.len()) => {
                // An optional uid stands between the pod's and the container's name.
                let container = rest[rest.len() - 1];
                self.stream(request, verb == &"exec", namespace, pod, container, &query).await
            }
            (_, ["portForward", namespace, pod, ..]) => {
                let pod = self.pod(namespace, pod)?;
                let sandbox = self.sandbox(&pod).await?;
                portforward::answer(request, Arc::clone(&self.shared), pod, sandbox, &query)
            }
            _ => Err((StatusCode::NOT_FOUND, "404 page not found".to_owned())),
        }
    }

    fn pods(&self) -> serde_json::Value {
        let index = self.index.read();
        let pods: Vec<&Pod> = index.values().map(|pod| &**pod).collect();
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})
    }

    async fn running_pods(&self) -> Result<Response<Body>, Refusal> {
        let labels = [(spec::NODE.to_owned(), self.shared.config.name.clone())].into();
        let filter = Filter { labels, ..Filter::default() };
        let containers = self.shared.config.runtime.list_containers(&filter).await.map_err(failed)?;
        let mut pods: HashMap<String, serde_json::Value> = HashMap::new();
        for container in containers.iter().filter(|container| container.state == ContainerState::Running) {
            let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
            let uid = label(spec::POD_UID);
            let pod = pods.entry(uid.clone()).or_insert_with(|| {
                json!({
                    "metadata": {"name": label(spec::POD_NAME), "namespace": label(spec::POD_NAMESPACE), "uid": uid},
                    "spec": {"containers": []},
                    "status": {},
                })
            });
            if let Some(list) = pod["spec"]["containers"].as_array_mut() {
                list.push(json!({"name": container.metadata.name, "image": container.image, "resources": {}}));
            }
        }
        let pods: Vec<_> = pods.into_values().collect();
        Ok(json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})))
    }

    fn configz(&self) -> serde_json::Value {
        let config = &self.shared.config;
        json!({"kubeletconfig": {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": config.address.to_string(),
            "port": config.port,
            "clusterDomain": config.cluster_domain,
            "clusterDNS": config.cluster_dns,
            "maxPods": config.max_pods,
            "podCIDR": config.pod_cidr,
            "staticPodPath": config.static_pods,
            "nodeStatusUpdateFrequency": format!("{}s", config.lease_interval.as_secs()),
            "nodeStatusReportFrequency": format!("{}s", config.status_interval.as_secs()),
        }})
    }

    pub(super) fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
        let index = self.index.read();
        let found = index.values().find(|pod| spec::namespace(pod) == namespace && spec::name(pod) == name);
        found.cloned().ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod \"{name}\" not found")))
    }

    /// The instances of a container, newest first.
    async fn instances(&self, pod: &Pod, container: &str) -> Result<Vec<Container>, Refusal> {
        if !spec::members(pod).iter().any(|member| member.container.name == container) {
            let message = format!("container \"{container}\" not found in pod \"{}\"", spec::name(pod));
            return Err((StatusCode::NOT_FOUND, message));
        }
        let labels = [
            (spec::POD_UID.to_owned(), spec::uid(pod).to_owned()),
            (spec::CONTAINER_NAME.to_owned(), container.to_owned()),
        ];
        let filter = Filter { labels: labels.into(), ..Filter::default() };
        let mut found = self.shared.config.runtime.list_containers(&filter).await.map_err(failed)?;
        found.sort_by_key(|container| std::cmp::Reverse(container.metadata.attempt));
        Ok(found)
    }

    async fn running(&self, pod: &Pod, container: &str) -> Result<String, Refusal> {
        let found = self.instances(pod, container).await?;
        let running = found.into_iter().find(|container| container.state == ContainerState::Running);
        running.map(|container| container.id).ok_or_else(|| {
            let message = format!("container not found (\"{container}\")");
            (StatusCode::INTERNAL_SERVER_ERROR, message)
        })
    }

    async fn sandbox(&self, pod: &Pod) -> Result<String, Refusal> {
        let labels = [(spec::POD_UID.to_owned(), spec::uid(pod).to_owned())].into();
        let filter = Filter { labels, ..Filter::default() };
        let found = self.shared.config.runtime.list_pod_sandbox(&filter).await.map_err(failed)?;
        let ready = found.into_iter().find(|sandbox| sandbox.state == PodSandboxState::Ready);
        ready.map(|sandbox| sandbox.id).ok_or_else(|| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("unable to forward port because pod is not running. Current status={phase}"),
            )
        })
    }

    async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let pod = self.pod(namespace, pod)?;
        let since = match (query.number::<i64>("sinceSeconds")?, query.get("sinceTime")) {
            (Some(seconds), _) => rk_api::now().checked_sub(SignedDuration::from_secs(seconds)).ok(),
            (None, Some(time)) => {
                let wrong = |error| (StatusCode::BAD_REQUEST, format!("invalid value for sinceTime: {error}"));
                Some(time.parse::<Timestamp>().map_err(wrong)?)
            }
            (None, None) => None,
        };
        let options = logs::LogOptions {
            follow: query.is("follow"),
            timestamps: query.is("timestamps"),
            tail: query.number("tailLines")?,
            since,
            limit_bytes: query.number("limitBytes")?,
            stream: query.get("stream").map(str::to_owned),
        };
        let instances = self.instances(&pod, container).await?;
        let previous = query.is("previous");
        let instance = if previous {
            let last = instances.get(1);
            last.or(instances
                .first()
                .filter(|newest| newest.state == ContainerState::Exited && newest.metadata.attempt > 0))
        } else {
            instances.iter().find(|instance| instance.state != ContainerState::Created)
        };
        let Some(instance) = instance else {
            let (pod_name, what) =
                (spec::name(&pod), if previous { "previous terminated container" } else { "container" });
            let message = if previous {
                format!("{what} \"{container}\" in pod \"{pod_name}\" not found")
            } else {
                format!(
                    "container \"{container}\" in pod \"{pod_name}\" is waiting to start: {}",
                    waiting(&pod, container)
                )
            };
            return Err((StatusCode::BAD_REQUEST, message));
        };
        let runtime = Arc::clone(&self.shared.config.runtime);
        let status = runtime.container_status(&instance.id).await.map_err(failed)?;
        let over = Arc::new(std::sync::atomic::AtomicBool::new(status.container.state != ContainerState::Running));
        if options.follow && status.container.state == ContainerState::Running {
            tokio::spawn(until_over(runtime, instance.id.clone(), Arc::downgrade(&over)));
        }
        let pieces = logs::read(&status.log_path, &options, move || over.load(std::sync::atomic::Ordering::Acquire));
        let frames = futures::stream::unfold(pieces, |mut pieces| async move {
            let piece = pieces.recv().await?;
            Some((piece.map(Frame::data), pieces))
        });
        let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
        Ok(response)
    }

    /// Runs a command and answers its output: the kubelet's old `/run`.
    async fn run(&self, namespace: &str, pod: &str, container: &str, query: &Query) -> Result<Response<Body>, Refusal> {
        let pod = self.pod(namespace, pod)?;
        let id = self.running(&pod, container).await?;
        let command: Vec<String> = query.get("cmd").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        let answer = self.shared.config.runtime.exec_sync(&id, &command, std::time::Duration::ZERO).await;
        let answer = answer.map_err(failed)?;
        Ok(text(StatusCode::OK, [answer.stdout, answer.stderr].concat()))
    }

    async fn stream(
        &self,
        request: Request<Incoming>,
        exec: bool,
        namespace: &str,
        pod: &str,
        container: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let pod = self.pod(namespace, pod)?;
        let id = self.running(&pod, container).await?;
        // The kubelet's names, and those of the API's subresource.
        let wants = |own: &str, api: &str| query.is(own) || query.is(api);
        let tty = query.is("tty");
        let wanted = StreamRequest {
            container_id: id,
            cmd: query.all("command"),
            tty,
            stdin: wants("input", "stdin"),
            stdout: wants("output", "stdout"),
            stderr: wants("error", "stderr") && !tty,
        };
        if !(wanted.stdin || wanted.stdout || wanted.stderr) {
            let message = "you must specify at least 1 of stdin, stdout, stderr";
            return Err((StatusCode::BAD_REQUEST, message.to_owned()));
        }
        if exec && wanted.cmd.is_empty() {
            return Err((
                StatusCode::BAD_REQUEST,
                "you must specify at least one command for the container".to_owned(),
            ));
        }
        let runtime = Arc::clone(&self.shared.config.runtime);
        let asked = wanted.clone();
        let open = async move { if exec { runtime.exec(&asked).await } else { runtime.attach(&asked).await } };
        remote::answer(request, wanted, open)
    }
}

/// Why a container waits, for the message of a log request that comes too early.
fn waiting(pod: &Pod, container: &str) -> String {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|status| {
        let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten()
    });
    let found = all.into_iter().find(|status| status.name == container).and_then(|status| status.state.as_ref());
    let reason = found.and_then(|state| state.waiting.as_ref()).and_then(|waiting| waiting.reason.clone());
    reason.unwrap_or_else(|| "ContainerCreating".to_owned())
}

/// Sets the flag once a container has ended, unless nobody reads it any more.
async fn until_over(
    runtime: Arc<dyn crate::runtime::RuntimeService>,
    id: String,
    flag: std::sync::Weak<std::sync::atomic::AtomicBool>,
) {
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let Some(flag) = flag.upgrade() else { return };
        let running = match runtime.container_status(&id).await {
            Ok(status) => status.container.state == ContainerState::Running,
            Err(RuntimeError::Unavailable(_)) => true,
            Err(_) => false,
        };
        if !running {
            return flag.store(true, std::sync::atomic::Ordering::Release);
        }
    }
}
