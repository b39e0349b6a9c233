//! Watches over HTTP: one frame per event, in JSON or protobuf.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    answer::{Style, protobuf_form, respond, status_of},
    body::{self, Body},
    negotiate::{Format, Shape},
    table,
};
use crate::{
    Error, EventStream, Object, WatchEvent,
    server::{catalog::Served, schema::protobuf, storage::For},
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

/// The frame of an object as it is. Many watch the same, and are told in a row: so the last one of a thread is kept for the next.
fn shared_frame(kind: &'static str, object: &Arc<Object>) -> Bytes {
    thread_local! {
        static LAST: RefCell<(Weak<Object>, &'static str, Bytes)> = const { RefCell::new((Weak::new(), "", Bytes::new())) };
    }
    LAST.with_borrow_mut(|(of, as_kind, bytes)| {
        // While it is known weakly no other object comes to lie where it is.
        if !std::ptr::eq(of.as_ptr(), Arc::as_ptr(object)) || *as_kind != kind {
            let mut out = Vec::new();
            frame(&mut out, kind, object.json());
            (*of, *as_kind, *bytes) = (Arc::downgrade(object), kind, out.into());
        }
        bytes.clone()
    })
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

    /// An event in one piece, where others may be told the same.
    fn shared(&self, event: &WatchEvent) -> Option<Bytes> {
        let accepted = self.style.accepted;
        if accepted.format == Format::Protobuf || accepted.shape != Shape::Object {
            return None;
        }
        match event {
            WatchEvent::Added(object) => Some(shared_frame("ADDED", object)),
            WatchEvent::Modified(object) => Some(shared_frame("MODIFIED", object)),
            WatchEvent::Deleted(object) => Some(shared_frame("DELETED", object)),
            WatchEvent::Bookmark { .. } => None,
        }
    }

    fn object(&mut self, out: &mut Vec<u8>, kind: &str, object: &Object) -> Result<(), Error> {
        let shape = self.style.accepted.shape;
        let value = match shape {
            Shape::Table => {
                let heading = !std::mem::replace(&mut self.headed, true);
                table::table(&self.served, object, self.style.include, heading)?
            }
            _ if self.format() == Format::Protobuf => {
                let form = protobuf_form(object, &self.served, shape, For::Watchers)?;
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

/// Events that leave in one piece, at most.
const TOGETHER: usize = 64;

/// A watch as it is told.
struct Told {
    events: EventStream,
    frames: Frames,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

impl Told {
    /// The events that are ready, in one piece; empty if there are none.
    fn piece(&mut self, cx: &mut Context<'_>) -> Bytes {
        let (mut alone, mut piece) = (None, Vec::new());
        for _ in 0..TOGETHER {
            let event = match self.events.poll_next_unpin(cx) {
                Poll::Ready(Some(event)) => event,
                Poll::Ready(None) => {
                    self.ended = true;
                    break;
                }
                Poll::Pending => break,
            };
            if piece.is_empty()
                && alone.is_none()
                && let Ok(event) = &event
            {
                alone = self.frames.shared(event);
                if alone.is_some() {
                    continue;
                }
            }
            if let Some(first) = alone.take() {
                piece.extend_from_slice(&first);
            }
            // After an error nothing follows.
            self.ended = event.is_err();
            if let Err(error) = event.and_then(|event| self.frames.event(&mut piece, &event)) {
                error_frame(&mut piece, &error, self.frames.format());
            }
            if self.ended {
                break;
            }
        }
        alone.unwrap_or_else(|| piece.into())
    }
}

/// By hand, for it is what each event costs each who watches.
impl http_body::Body for Told {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = self.piece(cx);
        if !piece.is_empty() {
            return Poll::Ready(Some(Ok(http_body::Frame::data(piece))));
        }
        self.ended |= self.stopping.as_mut().poll(cx).is_ready();
        if self.ended { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// The answer to a watch.
pub(super) fn answer(
    events: EventStream,
    served: Arc<Served>,
    style: Style,
    stopping: CancellationToken,
) -> Response<Body> {
    let kind = content_type(style.accepted.format);
    let frames = Frames { served, style, headed: false };
    let told = Told { events, frames, stopping: Box::pin(stopping.cancelled_owned()), ended: false };
    respond(200, kind, told.boxed_unsync())
}

/// A watch that fails before it begins answers as Kubernetes does: an expired version is an event, all else a failure.
pub(super) fn refused(error: &Error, format: Format) -> Option<Response<Body>> {
    error.is_expired().then(|| {
        let mut piece = Vec::new();
        error_frame(&mut piece, error, format);
        respond(200, content_type(format), body::full(piece))
    })
}
