//! `/openapi/v3` and `/openapi/v2`.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};

use super::{
    answer,
    body::{self, Body},
    query::Query,
    resource::not_acceptable,
};
use crate::{
    Error,
    server::{openapi::Document, pipeline::Core},
};

/// A year: a document under its hash never changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, immutable, max-age=31536000");

/// Answers the paths of the OpenAPI documents; `None` for others, and for documents that are not there.
///
/// # Errors
/// 406 for the older document in another format than JSON.
pub(super) fn answer(core: &Core, parts: &Parts, query: &Query) -> Result<Option<Response<Body>>, Error> {
    let Some(path) = parts.uri.path().trim_end_matches('/').strip_prefix("/openapi/") else { return Ok(None) };
    if path == "v2" && !takes_json(&parts.headers) {
        return Err(not_acceptable());
    }
    Ok(document(core, path, parts, query))
}

fn document(core: &Core, path: &str, parts: &Parts, query: &Query) -> Option<Response<Body>> {
    let catalog = core.catalog.load();
    let documents = catalog.openapi();
    if path == "v3" {
        return Some(answer::respond(200, "application/json", body::full(documents.index())));
    }
    if path == "v2" {
        return Some(send(&documents.v2(), parts));
    }
    let path = path.strip_prefix("v3/")?;
    let document = documents.document(path)?;
    let asked = query.get("hash");
    if asked.is_empty() {
        return Some(send(&document, parts));
    }
    if asked != document.hash {
        let mut response = answer::respond(301, "text/plain; charset=utf-8", body::empty());
        let place = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={}", document.hash)).ok()?;
        response.headers_mut().insert(header::LOCATION, place);
        return Some(response);
    }
    let mut response = send(&document, parts);
    response.headers_mut().insert(header::CACHE_CONTROL, IMMUTABLE);
    Some(response)
}

/// Whether the client reads JSON: kubectl asks for the older document in protobuf only, and does without it.
fn takes_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
    accept.split(',').any(|kind| {
        matches!(kind.split(';').next().unwrap_or_default().trim(), "" | "*/*" | "application/*" | "application/json")
    })
}

fn send(document: &Document, parts: &Parts) -> Response<Body> {
    let tag = format!("\"{}\"", document.hash);
    let known = parts.headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if known {
        let mut response = answer::respond(200, "application/json", body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if answer::takes_gzip(&parts.headers) {
        let mut response = answer::respond(200, "application/json", body::full(document.gzipped.clone()));
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        answer::respond(200, "application/json", body::full(document.json()))
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}
