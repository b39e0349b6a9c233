//! Watches over HTTP: one frame per event, in JSON or protobuf.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Response;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Style, respond, status_of},
    body::{self, Body},
    negotiate::{Format, Shape},
    table,
};
use crate::{
    Error, EventStream, Object, WatchEvent,
    server::{catalog::Served, schema::protobuf},
};

/// A frame around JSON that is encoded already.
fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 32);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}

/// A frame around a tree.
fn tree(kind: &str, object: &Value, format: Format) -> Bytes {
    if format == Format::Protobuf
        && let Some(object) = protobuf::encode(object)
    {
        return protobuf::watch_frame(kind, &object).into();
    }
    frame(kind, object.to_string().as_bytes())
}

fn error_frame(error: &Error, format: Format) -> Bytes {
    tree("ERROR", &serde_json::to_value(status_of(error)).unwrap_or_default(), format)
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    }
}

/// What a bookmark looks like as an object of the watched kind.
fn bookmark(served: &Served, resource_version: &str, initial_end: bool) -> Value {
    let resource = served.resource();
    let mut metadata = json!({"resourceVersion": resource_version, "creationTimestamp": null});
    if initial_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata})
}

struct Frames {
    served: Arc<Served>,
    style: Style,
    /// Columns are described in the first table only.
    headed: bool,
}

/// An object's protobuf form, if it has one.
struct Form(Option<Vec<u8>>);

impl Frames {
    fn format(&self) -> Format {
        self.style.accepted.format
    }

    fn object(&mut self, kind: &str, object: &Object) -> Result<Bytes, Error> {
        let value = match self.style.accepted.shape {
            Shape::Table => {
                let metadata = json!({"resourceVersion": object.meta().resource_version});
                let heading = !std::mem::replace(&mut self.headed, true);
                table::table(&self.served, [object], metadata, self.style.include, heading)?
            }
            Shape::Partial => table::partial(&object.value()?),
            _ if self.format() == Format::Protobuf => {
                // All watchers that want it share one encoding.
                let form = object.cached(|| Ok(Form(protobuf::encode(&object.value()?))))?;
                match &form.0 {
                    Some(bytes) => return Ok(protobuf::watch_frame(kind, bytes).into()),
                    None => object.value()?,
                }
            }
            _ => return Ok(frame(kind, object.json())),
        };
        Ok(tree(kind, &value, self.format()))
    }

    fn event(&mut self, event: &WatchEvent) -> Result<Bytes, Error> {
        match event {
            WatchEvent::Added(object) => self.object("ADDED", object),
            WatchEvent::Modified(object) => self.object("MODIFIED", object),
            WatchEvent::Deleted(object) => self.object("DELETED", object),
            WatchEvent::Bookmark { resource_version, initial_end } => {
                let mark = bookmark(&self.served, resource_version, *initial_end);
                let value = match self.style.accepted.shape {
                    Shape::Table => {
                        let object = table::partial(&mark);
                        json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": null,
                            "metadata": mark["metadata"], "rows": [{"cells": [], "object": object}]})
                    }
                    Shape::Partial => table::partial(&mark),
                    _ => mark,
                };
                Ok(tree("BOOKMARK", &value, self.format()))
            }
        }
    }
}

/// The answer to a watch.
pub(super) fn answer(
    events: EventStream,
    served: Arc<Served>,
    style: Style,
    stopping: CancellationToken,
) -> Response<Body> {
    let format = style.accepted.format;
    let mut frames = Frames { served, style, headed: false };
    // After an error nothing follows.
    let stopped = events.scan(false, |failed, event| {
        let item = (!*failed).then_some(event);
        *failed |= matches!(item, Some(Err(_)));
        std::future::ready(item)
    });
    // Events that are ready together leave in one piece.
    let pieces = stopped.ready_chunks(64).map(move |events| {
        let mut piece = Vec::new();
        for event in events {
            let bytes = match event.and_then(|event| frames.event(&event)) {
                Ok(bytes) => bytes,
                Err(error) => error_frame(&error, format),
            };
            piece.extend_from_slice(&bytes);
        }
        Bytes::from(piece)
    });
    let until = async move { stopping.cancelled().await };
    respond(200, content_type(format), body::streamed(pieces.take_until(Box::pin(until))))
}

/// A watch that fails before it begins answers as Kubernetes does: an expired version is an event, all else a failure.
pub(super) fn refused(error: &Error, format: Format) -> Option<Response<Body>> {
    error.is_expired().then(|| {
        let frame = error_frame(error, format);
        respond(200, content_type(format), body::streamed(stream::once(std::future::ready(frame))))
    })
}
