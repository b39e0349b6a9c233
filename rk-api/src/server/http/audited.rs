//! Requests that the audit policy wants to know of.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header, request::Parts};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::{
    answer,
    body::{self, Body},
    deadline::Deadline,
    negotiate::Format,
    path::ResourcePath,
    query::Query,
    resource,
};
use crate::{
    Error,
    server::{
        Attributes, UserInfo,
        audit::{Asked, Trail},
        pipeline::{Core, within_itself},
    },
};

/// Failures of more bytes are noted without their body.
const SHORT: u64 = 1 << 20;

/// A request in the authorizers' terms, before its caller acts as somebody else.
pub(super) fn attributes(
    user: &Arc<UserInfo>,
    parts: &Parts,
    path: Option<&ResourcePath>,
    query: &Query,
) -> Attributes {
    let (user, url) = (Arc::clone(user), parts.uri.path().to_owned());
    let other = || parts.method.as_str().to_lowercase();
    match path {
        None => Attributes { user, verb: other().into(), path: url, ..Attributes::default() },
        Some(path) => within_itself(Attributes {
            user,
            verb: resource::verb(&parts.method, path, query).map_or_else(|| other().into(), Cow::Borrowed),
            group: path.group.clone().into(),
            version: path.version.clone().into(),
            resource: path.plural.clone().into(),
            subresource: path.subresource.clone(),
            namespace: path.namespace.clone(),
            name: path.name.clone(),
            path: url,
            ..Attributes::default()
        }),
    }
}

/// The trail of a request, if it is audited.
pub(super) fn begin(
    core: &Core,
    user: &Arc<UserInfo>,
    parts: &Parts,
    path: Option<&ResourcePath>,
    query: &Query,
) -> Option<Trail> {
    let audit = core.audit.as_ref()?;
    let text = |name: &str| text(&parts.headers, name);
    let through = text("x-forwarded-for").split(',').map(str::trim).filter(|source| !source.is_empty());
    let peer = parts.extensions.get::<super::Peer>().map(|peer| peer.0.ip().to_string());
    let asked = Asked {
        attributes: attributes(user, parts, path, query),
        uri: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        agent: text("user-agent").to_owned(),
        sources: through.map(str::to_owned).chain(peer).collect(),
        id: text("audit-id").to_owned(),
    };
    Trail::begin(audit, asked)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Reads the body that the trail wants, for somebody who reads it again.
///
/// # Errors
/// It is too long, or breaks off.
pub(super) async fn request_body<B>(trail: &mut Trail, parts: &mut Parts, body: B, limit: usize) -> Result<Body, Error>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    if trail.wants_response() {
        // What is noted of the answer is its plain text.
        parts.headers.remove(header::ACCEPT_ENCODING);
    }
    let bytes = body::read(body, limit).await?;
    trail.set_request(&bytes);
    Ok(body::full(bytes))
}

/// Notes what came of a request: at once, or, of one that lasts, when its answer has ended.
pub(super) async fn response(
    trail: Trail,
    mut response: Response<Body>,
    deadline: Deadline,
    format: Format,
) -> Response<Body> {
    let long = !deadline.is_some();
    if let Ok(id) = HeaderValue::from_str(trail.id()) {
        response.headers_mut().insert("audit-id", id);
    }
    let code = response.status().as_u16();
    if long && code < 400 {
        trail.started(code);
        return response.map(|body| Followed { body, trail, code }.boxed_unsync());
    }
    // What a failure says is noted too. One that is passed on from somebody else, though, need not end.
    let short = http_body::Body::size_hint(response.body()).upper().is_some_and(|most| most <= SHORT);
    let noted = code >= 400 && short || trail.wants_response() && !long;
    if !noted {
        trail.complete(code, None);
        return response;
    }
    let (mut head, body) = response.into_parts();
    let collected = deadline.keep(async { Ok(body.collect().await) }).await;
    match collected {
        Ok(Ok(collected)) => {
            let bytes = collected.to_bytes();
            trail.complete(code, Some(&bytes));
            Response::from_parts(head, body::full(bytes))
        }
        // A backend's that does not end.
        Err(late) => {
            let response = answer::failure(&late, format);
            trail.complete(response.status().as_u16(), None);
            response
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "an answer broke off");
            trail.complete(code, None);
            head.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(head, body::empty())
        }
    }
}

/// A body that tells its trail when it has ended.
struct Followed {
    body: Body,
    trail: Trail,
    code: u16,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() {
            self.trail.complete(self.code, None);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.trail.complete(self.code, None);
    }
}
