//! Asking a container how it is: the four kinds of probes, once.

mod grpc;
mod http;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe, TCPSocketAction};
use tokio::net::TcpStream;

use crate::{
    pod::spec,
    runtime::{RuntimeError, RuntimeService},
};

/// The container that is asked.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) runtime: Arc<dyn RuntimeService>,
    pub(crate) container_id: String,
    pub(crate) container: Container,
    /// The pod's main address; the node's with the host's network.
    pub(crate) pod_ip: String,
}

/// Asks once.
///
/// # Errors
/// What the event `Unhealthy` says of the failure, in the kubelet's words.
pub(crate) async fn ask(target: &Target, probe: &Probe) -> Result<(), String> {
    let seconds = probe.timeout_seconds.filter(|seconds| *seconds > 0).unwrap_or(1);
    let timeout = Duration::from_secs(seconds.unsigned_abs().into());
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match target.runtime.exec_sync(&target.container_id, &command, timeout).await {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => {
                Err(format!("{}{}", String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr)))
            }
            Err(RuntimeError::Timeout(after)) => {
                Err(format!("command timed out: {command:?} timed out after {after:?}"))
            }
            Err(error) => Err(error.to_string()),
        };
    }
    if let Some(get) = &probe.http_get {
        return http_get(target, get, timeout).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        return tcp(target, socket, timeout).await;
    }
    if let Some(call) = &probe.grpc {
        let port = u16::try_from(call.port).map_err(|_| format!("invalid port: {}", call.port))?;
        let service = call.service.as_deref().unwrap_or_default();
        let asked = grpc::check(&target.pod_ip, port, service);
        return tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| {
            Err(format!(
                "timeout: failed to connect service \"{}:{port}\" within {timeout:?}: context deadline exceeded",
                target.pod_ip
            ))
        });
    }
    Err("the probe names no way to ask".to_owned())
}

async fn tcp(target: &Target, of: &TCPSocketAction, timeout: Duration) -> Result<(), String> {
    let port = spec::port(&target.container, &of.port)?;
    let host = of.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&target.pod_ip);
    connect(host, port, timeout).await.map(drop)
}

async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(format!("dial tcp {host}:{port}: connect: connection refused"))
        }
        Ok(Err(error)) => Err(format!("dial tcp {host}:{port}: {error}")),
        Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}

/// An HTTP GET as probes and hooks do it: any status from 200 to 399 is a success.
pub(crate) async fn http_get(target: &Target, of: &HTTPGetAction, timeout: Duration) -> Result<(), String> {
    let port = spec::port(&target.container, &of.port)?;
    let host = of.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&target.pod_ip);
    let tls = of.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let path = of.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let url = format!("{}://{host}:{port}{path}", if tls { "https" } else { "http" });
    let headers = of.http_headers.as_deref().unwrap_or_default();
    match tokio::time::timeout(timeout, http::get(host, port, tls, &path, headers)).await {
        Ok(Ok(status)) if (200..400).contains(&status) => Ok(()),
        Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(error)) => Err(format!("Get \"{url}\": {error}")),
        Err(_) => {
            Err(format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
        }
    }
}
