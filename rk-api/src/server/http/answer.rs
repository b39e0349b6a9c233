//! Answers: objects, lists and failures in the form that the client takes.

use std::{io::Write, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::{
    body::{self, Body, Gather},
    negotiate::{Accepted, Format, Shape},
    table::{self, Include},
};
use crate::{
    Error, Object, Status,
    server::{
        catalog::Served,
        schema::{PROTOBUF, protobuf},
        storage::For,
    },
    status,
};

/// Answers shorter than this are not compressed, as kube-apiserver has it.
const COMPRESS_FROM: usize = 128 * 1024;
pub(super) const JSON: &str = "application/json";
pub(super) const YAML: &str = "application/yaml";

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
        Format::Yaml => match serde_saphyr::to_string(value) {
            Ok(text) => return encoded(code, YAML, text.into(), style),
            Err(error) => return failure(&no_yaml(error), Format::Json),
        },
        Format::Protobuf => match protobuf::encode(value) {
            Some(form) => return encoded(code, PROTOBUF, form.envelope().clone(), style),
            None => serde_json::to_vec(value),
        },
        Format::Json => serde_json::to_vec(value),
    };
    encoded(code, JSON, Bytes::from(bytes.unwrap_or_default()), style)
}

/// 500: a tree can't be written as YAML.
pub(super) fn no_yaml(error: impl std::fmt::Display) -> Error {
    status::internal(format!("can't write YAML: {error}")).into()
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
    if style.accepted.shape == Shape::Table && (object.api_version(), object.kind()) == ("autoscaling/v1", "Scale") {
        return Ok(tree(code, &table::of_scale(object, style.include)?, style));
    }
    // A `Status` and other bodies of subresources have no columns.
    let shape = if object.kind() == served.resource().kind { style.accepted.shape } else { Shape::Object };
    Ok(match (style.accepted.format, shape) {
        (_, Shape::Table) => tree(code, &table::table(served, object, style.include, true)?, style),
        (Format::Protobuf, shape) => {
            let form = protobuf_form(object, served, shape, For::Reader)?;
            encoded(code, PROTOBUF, form.envelope().clone(), style)
        }
        (_, Shape::Partial) => tree(code, &table::partial(object)?, style),
        (Format::Json, _) if !style.pretty => encoded(code, JSON, object.json().clone(), style),
        _ => tree(code, &object.value()?, style),
    })
}

/// An object's protobuf form. All who want it of the object itself share one encoding.
///
/// # Errors
/// The object can't be read, or its kind has no such form.
pub(super) fn protobuf_form(
    object: &Object,
    served: &Served,
    shape: Shape,
    wanted: For,
) -> Result<Arc<protobuf::Encoded>, Error> {
    let encode = |value: Value| {
        let missing = || status::internal(format!("{} has no protobuf form", object.kind()));
        Ok(protobuf::encode(&value).ok_or_else(missing)?)
    };
    match shape {
        Shape::Partial => encode(table::partial(object)?).map(Arc::new),
        _ => served.collection.forms.of(object, wanted, || encode(object.value()?)),
    }
}

/// An answer that is put together as it is sent.
///
/// # Errors
/// Its beginning can't be made.
pub(super) fn pieces(content_type: &str, mut pieces: impl Gather, style: &Style) -> Result<Response<Body>, Error> {
    if style.gzip {
        // As much as makes compression worth while, if there is as much.
        let (mut start, mut more) = (BytesMut::new(), true);
        while more && start.len() < COMPRESS_FROM {
            more = pieces.gather(&mut start)?;
        }
        if start.len() >= COMPRESS_FROM {
            let rest = more.then_some(pieces);
            let mut response = respond(200, content_type, body::compressed(start.freeze(), rest));
            tell_gzip(&mut response);
            return Ok(response);
        }
        return Ok(respond(200, content_type, body::full(start.freeze())));
    }
    Ok(respond(200, content_type, body::gathered(pieces)))
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
