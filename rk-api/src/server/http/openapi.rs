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

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// A year: a document under its hash never changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, immutable, max-age=31536000");

/// Answers the paths of the OpenAPI documents; `None` for others, and for documents that are not there.
///
/// # Errors
/// 406 for the older document in a format that is neither JSON nor protobuf.
pub(super) fn answer(core: &Core, parts: &Parts, query: &Query) -> Result<Option<Response<Body>>, Error> {
    let Some(path) = parts.uri.path().trim_end_matches('/').strip_prefix("/openapi/") else { return Ok(None) };
    if path == "v2" {
        let kind = legacy_kind(&parts.headers).ok_or_else(not_acceptable)?;
        let document = core.catalog.load().openapi().v2(kind == PROTOBUF);
        return Ok(Some(send(&document, kind, parts)));
    }
    Ok(document(core, path, parts, query))
}

fn document(core: &Core, path: &str, parts: &Parts, query: &Query) -> Option<Response<Body>> {
    let catalog = core.catalog.load();
    let documents = catalog.openapi();
    if path == "v3" {
        return Some(answer::respond(200, "application/json", body::full(documents.index())));
    }
    let path = path.strip_prefix("v3/")?;
    let document = documents.document(path)?;
    let asked = query.get("hash");
    if asked.is_empty() {
        return Some(send(&document, JSON, parts));
    }
    if asked != document.hash {
        let mut response = answer::respond(301, "text/plain; charset=utf-8", body::empty());
        let place = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={}", document.hash)).ok()?;
        response.headers_mut().insert(header::LOCATION, place);
        return Some(response);
    }
    let mut response = send(&document, JSON, parts);
    response.headers_mut().insert(header::CACHE_CONTROL, IMMUTABLE);
    Some(response)
}

/// The first kind of the older document that the client takes. What kubectl asks for has an `@`, which no media type may
/// have; the answer names it without.
fn legacy_kind(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
    accept.split(',').find_map(|kind| match kind.split(';').next().unwrap_or_default().trim() {
        "" | "*/*" | "application/*" | JSON => Some(JSON),
        PROTOBUF | "application/com.github.proto-openapi.spec.v2@v1.0+protobuf" => Some(PROTOBUF),
        _ => None,
    })
}

fn send(document: &Document, kind: &str, parts: &Parts) -> Response<Body> {
    let tag = format!("\"{}\"", document.hash);
    let known = parts.headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if known {
        let mut response = answer::respond(200, kind, body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if answer::takes_gzip(&parts.headers) {
        let mut response = answer::respond(200, kind, body::full(document.gzipped.clone()));
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        answer::respond(200, kind, body::full(document.content()))
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}
