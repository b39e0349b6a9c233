//! Requests for servers behind this one.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, request::Parts};
use http_body_util::BodyExt;

use super::{audited, body::Body, connect::forward, path::ResourcePath, query::Query, resource};
use crate::{
    Error,
    server::{
        Attributes, UserInfo,
        aggregation::{Backend, identify},
        pipeline::Core,
    },
    status,
};

/// Who serves a path, if that is another server: `/apis/GROUP/VERSION` and what is below, and its OpenAPI document.
pub(super) fn backend(core: &Core, path: &str) -> Option<Arc<Backend>> {
    let aggregator = core.aggregator.as_ref()?;
    let path = path.strip_prefix("/openapi/v3").unwrap_or(path);
    let mut parts = path.strip_prefix("/apis/")?.splitn(3, '/');
    aggregator.backend(parts.next()?, parts.next()?)
}

/// Sends a request on, if its caller may make it here; the other server decides once more.
///
/// # Errors
/// 403, or 503 if the other server is not available.
pub(super) async fn answer<B>(
    core: &Arc<Core>,
    backend: &Backend,
    user: &Arc<UserInfo>,
    parts: &mut Parts,
    (path, query): (Option<&ResourcePath>, &Query),
    body: B,
) -> Result<Response<Body>, Error>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    let segments = parts.uri.path().strip_prefix("/apis/").map(|path| path.trim_end_matches('/').split('/').count());
    if path.is_none() && segments.is_some_and(|segments| segments > 2) {
        // It would be judged as a path, which many may read, and might name a resource there.
        return Err(status::no_such_path().into());
    }
    if path.is_some_and(|path| resource::verb(&parts.method, path, query).is_none()) {
        return Err(status::method_not_allowed().into());
    }
    let attributes = Attributes {
        labels: query.get("labelSelector").parse().unwrap_or_default(),
        fields: query.get("fieldSelector").parse().unwrap_or_default(),
        ..audited::attributes(user, parts, path, query)
    };
    core.authorize_attributes(&attributes).await?;
    if !backend.is_available() {
        return Err(status::unavailable("service unavailable").into());
    }
    let stream = backend.connect(&**core).await.map_err(|why| {
        if let Some(aggregator) = &core.aggregator {
            aggregator.missed();
        }
        status::unavailable(format!("error trying to reach service: {why}"))
    })?;
    identify(&mut parts.headers, user);
    let uri = parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let body = body.map_err(|error| std::io::Error::other(error.to_string())).boxed_unsync();
    forward(stream, &backend.host(), &uri, parts, body).await
}
