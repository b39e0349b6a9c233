//! Answers: objects, lists and failures in the form that the client takes.

use std::{io::Write, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{
    body::{self, Body, Gather},
    negotiate::{Accepted, Format, Shape},
    table::{self, Include},
};
use crate::{
    Error, List, Object, Status,
    server::{
        catalog::Served,
        schema::{PROTOBUF, protobuf},
        storage::Listed,
    },
    status,
};

/// Answers shorter than this are not compressed, as kube-apiserver has it.
const COMPRESS_FROM: usize = 128 * 1024;
const JSON: &str = "application/json";

/// How the client wants its answer.
pub(super) struct Style {
    pub(super) accepted: Accepted,
    pub(super) pretty: bool,
    pub(super) gzip: bool,
    pub(super) include: Include,
}

impl Style {
    /// For failures of requests that can't be understood.
    pub(super) const PLAIN: Self =
        Self { accepted: Accepted::JSON, pretty: false, gzip: false, include: Include::Metadata };
}

/// Whether the client takes gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"))
}

/// An answer with a body of this type.
pub(super) fn respond(code: u16, content_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub(super) fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    let mut response = respond(code, "text/plain; charset=utf-8", body::full(text.into()));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// A tree, in the client's format.
pub(super) fn tree(code: u16, value: &Value, style: &Style) -> Response<Body> {
    let bytes = match style.accepted.format {
        Format::Json if style.pretty => serde_json::to_vec_pretty(value),
        Format::Yaml => return yaml(code, value),
        Format::Protobuf => match protobuf::encode(value) {
            Some(bytes) => return encoded(code, PROTOBUF, bytes.into(), style),
            None => serde_json::to_vec(value),
        },
        Format::Json => serde_json::to_vec(value),
    };
    encoded(code, JSON, Bytes::from(bytes.unwrap_or_default()), style)
}

fn yaml(code: u16, value: &Value) -> Response<Body> {
    match serde_saphyr::to_string(value) {
        Ok(text) => respond(code, "application/yaml", body::full(text)),
        Err(error) => failure(&status::internal(format!("can't write YAML: {error}")).into(), Format::Json),
    }
}

/// Bytes that are encoded already.
fn encoded(code: u16, content_type: &str, bytes: Bytes, style: &Style) -> Response<Body> {
    if style.gzip && bytes.len() >= COMPRESS_FROM {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        if let Ok(compressed) = encoder.write_all(&bytes).and_then(|()| encoder.finish()) {
            let mut response = respond(code, content_type, body::full(compressed));
            tell_gzip(&mut response);
            return response;
        }
    }
    respond(code, content_type, body::full(bytes))
}

fn tell_gzip(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// One object.
///
/// # Errors
/// It can't be read for a table.
pub(super) fn object(code: u16, object: &Arc<Object>, served: &Served, style: &Style) -> Result<Response<Body>, Error> {
    // A `Status` and bodies of subresources have no columns.
    let own = object.kind() == served.resource().kind;
    match style.accepted.shape {
        Shape::Table if own => {
            let metadata = json!({"resourceVersion": object.meta().resource_version});
            let table = table::table(served, [object.as_ref()], metadata, style.include, true)?;
            Ok(tree(code, &table, style))
        }
        Shape::Partial if own => Ok(tree(code, &table::partial(&object.value()?), style)),
        _ if style.accepted.format != Format::Json || style.pretty => Ok(tree(code, &object.value()?, style)),
        _ => Ok(encoded(code, JSON, object.json().clone(), style)),
    }
}

/// A page of a collection whose objects are taken as they are sent.
pub(super) struct Page {
    metadata: Value,
    items: Box<dyn Iterator<Item = Arc<Object>> + Send>,
}

impl Page {
    fn new(
        version: &str,
        continue_token: &str,
        remaining: Option<u64>,
        items: impl Iterator<Item = Arc<Object>> + Send + 'static,
    ) -> Self {
        let mut metadata = json!({"resourceVersion": version});
        if !continue_token.is_empty() {
            metadata["continue"] = continue_token.into();
        }
        if let Some(remaining) = remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        Self { metadata, items: Box::new(items) }
    }
}

impl From<List> for Page {
    fn from(list: List) -> Self {
        Self::new(&list.resource_version, &list.continue_token, list.remaining, list.items.into_iter())
    }
}

impl From<Listed> for Page {
    fn from(listed: Listed) -> Self {
        Self::new(&listed.revision.to_string(), &listed.continue_token.clone(), listed.remaining, listed)
    }
}

/// A page of a collection. As JSON its objects are sent as they are, one after the other.
///
/// # Errors
/// An object can't be read for a table.
pub(super) fn list(page: Page, served: &Served, style: &Style) -> Result<Response<Body>, Error> {
    let Page { metadata, mut items } = page;
    let resource = served.resource();
    match style.accepted.shape {
        Shape::Table => {
            let items: Vec<_> = items.collect();
            let objects = items.iter().map(AsRef::as_ref);
            return Ok(tree(200, &table::table(served, objects, metadata, style.include, true)?, style));
        }
        Shape::Partial => {
            let items = items.map(|object| Ok::<_, Error>(table::partial(&object.value()?)));
            if style.accepted.format == Format::Protobuf {
                let kind = "PartialObjectMetadataList";
                let pieces = protobuf::encode_list("meta.k8s.io/v1", kind, &metadata, items)?;
                return Ok(pieces_of(PROTOBUF, pieces.unwrap_or_default().into_iter(), style));
            }
            let items = items.collect::<Result<Vec<_>, Error>>()?;
            let value = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": items});
            return Ok(tree(200, &value, style));
        }
        _ => {}
    }
    let kind = format!("{}List", resource.kind);
    if style.accepted.format == Format::Protobuf {
        let values = items.by_ref().map(|object| object.value());
        if let Some(pieces) = protobuf::encode_list(&resource.api_version(), &kind, &metadata, values)? {
            return Ok(pieces_of(PROTOBUF, pieces.into_iter(), style));
        }
    }
    let head = json!({"kind": kind, "apiVersion": resource.api_version(), "metadata": metadata});
    if style.accepted.format == Format::Yaml || style.pretty {
        let mut value = head;
        value["items"] = items.map(|object| object.value()).collect::<Result<Vec<_>, _>>()?.into();
        return Ok(tree(200, &value, style));
    }
    let mut head = head.to_string();
    head.pop();
    head.push_str(",\"items\":[");
    Ok(pieces_of(JSON, Pieces { head: Some(head), items, first: true }, style))
}

/// An answer that is put together as it is sent.
fn pieces_of(content_type: &str, mut pieces: impl Gather, style: &Style) -> Response<Body> {
    if style.gzip {
        // As much as makes compression worth while, if there is as much.
        let (mut start, mut more) = (BytesMut::new(), true);
        while more && start.len() < COMPRESS_FROM {
            more = pieces.gather(&mut start);
        }
        if start.len() >= COMPRESS_FROM {
            let rest = more.then_some(pieces);
            let mut response = respond(200, content_type, body::compressed(start.freeze(), rest));
            tell_gzip(&mut response);
            return response;
        }
        return respond(200, content_type, body::full(start.freeze()));
    }
    respond(200, content_type, body::gathered(pieces))
}

/// A list in JSON, object by object.
struct Pieces {
    head: Option<String>,
    items: Box<dyn Iterator<Item = Arc<Object>> + Send>,
    first: bool,
}

impl Gather for Pieces {
    fn gather(&mut self, into: &mut BytesMut) -> bool {
        if let Some(head) = self.head.take() {
            into.extend_from_slice(head.as_bytes());
        }
        match self.items.next() {
            Some(object) => {
                if !std::mem::take(&mut self.first) {
                    into.put_u8(b',');
                }
                into.extend_from_slice(object.json());
                true
            }
            None => {
                into.extend_from_slice(b"]}");
                false
            }
        }
    }
}

/// A failure's `Status`; what is none becomes one.
pub(super) fn status_of(error: &Error) -> Status {
    match error {
        Error::Api(status) => status.as_ref().clone(),
        Error::Transport(message) => status::unavailable(message.clone()),
        other => status::internal(other),
    }
}

/// A failure, in the format that the client takes.
pub(super) fn failure(error: &Error, format: Format) -> Response<Body> {
    let status = status_of(error);
    let code = status.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
    let value = serde_json::to_value(&status).unwrap_or_default();
    let style = Style { accepted: Accepted { format, shape: Shape::Object }, ..Style::PLAIN };
    let mut response = tree(code, &value, &style);
    if let Some(seconds) = status.details.as_ref().and_then(|details| details.retry_after_seconds) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Adds `Warning` headers.
pub(super) fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    let mut seen = Vec::new();
    for warning in warnings {
        if seen.contains(&warning) {
            continue;
        }
        seen.push(warning);
        let text: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
