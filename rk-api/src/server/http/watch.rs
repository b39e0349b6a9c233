//! Watches over HTTP: one frame per event, in JSON or protobuf.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Style, protobuf_form, respond, status_of},
    body::{self, Body},
    negotiate::{Format, Shape},
    table,
};
use crate::{
    Error, EventStream, Object, WatchEvent,
    server::{catalog::Served, schema::protobuf},
};

/// A frame around JSON that is encoded already.
fn frame(out: &mut Vec<u8>, kind: &str, object: &[u8]) {
    out.reserve(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}

/// A frame around a tree.
fn tree(out: &mut Vec<u8>, kind: &str, object: &Value, format: Format) {
    if format == Format::Protobuf
        && let Some(object) = protobuf::encode(object)
    {
        return out.extend_from_slice(&protobuf::watch_frame(kind, object.envelope()));
    }
    frame(out, kind, object.to_string().as_bytes());
}

fn error_frame(out: &mut Vec<u8>, error: &Error, format: Format) {
    tree(out, "ERROR", &serde_json::to_value(status_of(error)).unwrap_or_default(), format);
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

impl Frames {
    fn format(&self) -> Format {
        self.style.accepted.format
    }

    fn object(&mut self, out: &mut Vec<u8>, kind: &str, object: &Object) -> Result<(), Error> {
        let shape = self.style.accepted.shape;
        let value = match shape {
            Shape::Table => {
                let heading = !std::mem::replace(&mut self.headed, true);
                table::table(&self.served, object, self.style.include, heading)?
            }
            _ if self.format() == Format::Protobuf => {
                let form = protobuf_form(object, shape)?;
                out.extend_from_slice(&protobuf::watch_frame(kind, form.envelope()));
                return Ok(());
            }
            Shape::Partial => table::partial(object)?,
            _ => {
                frame(out, kind, object.json());
                return Ok(());
            }
        };
        tree(out, kind, &value, self.format());
        Ok(())
    }

    fn event(&mut self, out: &mut Vec<u8>, event: &WatchEvent) -> Result<(), Error> {
        match event {
            WatchEvent::Added(object) => self.object(out, "ADDED", object),
            WatchEvent::Modified(object) => self.object(out, "MODIFIED", object),
            WatchEvent::Deleted(object) => self.object(out, "DELETED", object),
            WatchEvent::Bookmark { resource_version, initial_end } => {
                let mark = bookmark(&self.served, resource_version, *initial_end);
                let value = match self.style.accepted.shape {
                    Shape::Table => {
                        let mut table = table::head(&self.served, mark["metadata"].clone(), false);
                        table["rows"] = json!([{"cells": [], "object": table::partial_of(mark["metadata"].clone())}]);
                        table
                    }
                    Shape::Partial => table::partial_of(mark["metadata"].clone()),
                    _ => mark,
                };
                tree(out, "BOOKMARK", &value, self.format());
                Ok(())
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
            if let Err(error) = event.and_then(|event| frames.event(&mut piece, &event)) {
                error_frame(&mut piece, &error, format);
            }
        }
        Bytes::from(piece)
    });
    let until = async move { stopping.cancelled().await };
    respond(200, content_type(format), body::streamed(pieces.take_until(Box::pin(until))))
}

/// A watch that fails before it begins answers as Kubernetes does: an expired version is an event, all else a failure.
pub(super) fn refused(error: &Error, format: Format) -> Option<Response<Body>> {
    error.is_expired().then(|| {
        let mut piece = Vec::new();
        error_frame(&mut piece, error, format);
        respond(200, content_type(format), body::full(piece))
    })
}
