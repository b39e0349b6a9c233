//! Watches over HTTP: one JSON frame per event.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Style, respond, status_of},
    body::{self, Body},
    negotiate::Shape,
    table,
};
use crate::{Error, EventStream, Object, WatchEvent, server::catalog::Served};

/// A frame around bytes that are encoded already.
fn frame(out: &mut Vec<u8>, kind: &str, object: &[u8]) {
    out.reserve(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}

fn error_frame(out: &mut Vec<u8>, error: &Error) {
    let status = serde_json::to_vec(&status_of(error)).unwrap_or_default();
    frame(out, "ERROR", &status);
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
    fn object(&mut self, out: &mut Vec<u8>, kind: &str, object: &Object) -> Result<(), Error> {
        let value = match self.style.accepted.shape {
            Shape::Table => {
                let metadata = json!({"resourceVersion": object.meta().resource_version});
                let heading = !std::mem::replace(&mut self.headed, true);
                table::table(&self.served, [object], metadata, self.style.include, heading)?
            }
            Shape::Partial => table::partial(&object.value()?),
            _ => {
                frame(out, kind, object.json());
                return Ok(());
            }
        };
        frame(out, kind, value.to_string().as_bytes());
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
                        let object = table::partial(&mark);
                        json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": null,
                            "metadata": mark["metadata"], "rows": [{"cells": [], "object": object}]})
                    }
                    Shape::Partial => table::partial(&mark),
                    _ => mark,
                };
                frame(out, "BOOKMARK", value.to_string().as_bytes());
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
                error_frame(&mut piece, &error);
            }
        }
        Bytes::from(piece)
    });
    let until = async move { stopping.cancelled().await };
    respond(200, "application/json", body::streamed(pieces.take_until(Box::pin(until))))
}

/// A watch that fails before it begins answers as Kubernetes does: an expired version is an event, all else a failure.
pub(super) fn refused(error: &Error) -> Option<Response<Body>> {
    error.is_expired().then(|| {
        let mut piece = Vec::new();
        error_frame(&mut piece, error);
        respond(200, "application/json", body::full(piece))
    })
}
