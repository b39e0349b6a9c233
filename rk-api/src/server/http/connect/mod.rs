//! Connections through the server: a pod's logs, `exec`, `attach`, `portforward`, and `proxy` to pods, services and
//! nodes.
//!
//! ```text
//! request -> which node, which address -> the kubelet's (or the pod's) HTTP -> answer, or after an upgrade bytes both ways
//! ```
//! Upgrades (WebSocket, SPDY) pass through unchanged.

mod forward;
mod kubelet;
mod pod;
mod proxy;
mod reach;

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, request::Parts};
use http_body_util::BodyExt;

pub(super) use forward::forward;
pub use kubelet::KubeletClient;
pub(crate) use reach::Reach;

use super::{body::Body, path::ResourcePath, query::Query};
use crate::{
    Error,
    server::pipeline::{Call, Core},
    status,
};

/// Whether a subresource is a connection.
pub(super) fn is_connection(subresource: &str) -> bool {
    matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// Answers an authorized request for a connection.
///
/// # Errors
/// 400, 404, 503: there is nothing to connect to.
pub(super) async fn answer<B>(
    core: &Arc<Core>,
    call: &Call,
    parts: &mut Parts,
    path: &ResourcePath,
    query: &Query,
    body: B,
) -> Result<Response<Body>, Error>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    let body = body.map_err(|error| std::io::Error::other(error.to_string())).boxed_unsync();
    if call.subresource != "log" {
        let upgrade = parts.headers.contains_key(http::header::UPGRADE);
        if call.subresource != "proxy" {
            if !upgrade {
                return Err(status::bad_request("Upgrade request required").into());
            }
            // A WebSocket can only be opened by a GET; what it does is not reading, though.
            core.authorize(call, "create").await?;
        }
        core.admit_connection(call).await?;
    }
    match (call.subresource.as_str(), call.resource().plural.as_ref()) {
        ("log", _) => pod::log(core, call, query).await,
        ("proxy", "nodes") => proxy::node(core, call, parts, path, body).await,
        ("proxy", "services") => proxy::service(core, call, parts, path, body).await,
        ("proxy", _) => proxy::pod(core, call, parts, path, body).await,
        _ => pod::stream(core, call, parts, query, body).await,
    }
}
