//! One request on its way through the server, as its audit events tell it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Audit, NOTES, Notes,
    policy::{Chosen, Level},
};
use crate::{
    Status,
    server::{Attributes, UserInfo, schema},
};

/// What bodies in protobuf begin with.
const PROTOBUF: &[u8] = b"k8s\0";

/// What a request says of itself.
pub(crate) struct Asked {
    pub(crate) attributes: Attributes,
    /// Path and query.
    pub(crate) uri: String,
    pub(crate) agent: String,
    /// Who it came through, the client first.
    pub(crate) sources: Vec<String>,
    /// The identity that the client gave the request; empty for a new one.
    pub(crate) id: String,
}

/// Follows a request that is audited.
pub(crate) struct Trail {
    audit: Audit,
    chosen: Chosen,
    asked: Asked,
    id: String,
    received: Timestamp,
    notes: Arc<Notes>,
    request: Option<Value>,
    done: AtomicBool,
}

/// A time as events have it: to the microsecond.
fn stamp(at: Timestamp) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into()
}

fn user(user: &UserInfo) -> Value {
    let mut value = json!({});
    if !user.name.is_empty() {
        value["username"] = user.name.as_str().into();
    }
    if !user.uid.is_empty() {
        value["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        value["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

impl Trail {
    /// Follows a request, if the policy says so, and notes that it came in.
    pub(crate) fn begin(audit: &Audit, asked: Asked) -> Option<Self> {
        let chosen = audit.policy.choose(&asked.attributes)?;
        let given = !asked.id.is_empty() && asked.id.len() <= 64;
        let id = if given { asked.id.clone() } else { uuid::Uuid::new_v4().to_string() };
        let trail = Self {
            audit: audit.clone(),
            chosen,
            asked,
            id,
            received: crate::now(),
            notes: Arc::default(),
            request: None,
            done: AtomicBool::new(false),
        };
        trail.tell("RequestReceived", None, None);
        Some(trail)
    }

    /// The identity of the request, for the answer's header.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether the request's body is noted.
    pub(crate) fn wants_request(&self) -> bool {
        self.chosen.level >= Level::Request
    }

    /// Whether the answer's body is noted.
    pub(crate) fn wants_response(&self) -> bool {
        self.chosen.level >= Level::RequestResponse
    }

    /// Notes the request's body, if it is JSON or YAML.
    pub(crate) fn set_request(&mut self, body: &[u8]) {
        self.request = self.object(body);
    }

    fn object(&self, body: &[u8]) -> Option<Value> {
        let mut value = parse(body)?;
        if self.chosen.omit_managed_fields {
            drop_managed_fields(&mut value);
        }
        Some(value)
    }

    /// Works on the request, so that what is noted meanwhile comes into its events.
    pub(crate) async fn follow<F: Future>(&self, work: F) -> F::Output {
        NOTES.scope(Arc::clone(&self.notes), work).await
    }

    /// Notes that the answer has begun, of a request that lasts.
    pub(crate) fn started(&self, code: u16) {
        self.tell("ResponseStarted", Some(json!({"metadata": {}, "code": code})), None);
    }

    /// Notes what came of the request; the first word counts.
    pub(crate) fn complete(&self, code: u16, body: Option<&Bytes>) {
        if self.done.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut status = json!({"metadata": {}, "code": code});
        let failure = body.filter(|_| code >= 400).and_then(|body| parse(body));
        if let Some(failure) = failure.and_then(|failure| serde_json::from_value::<Status>(failure).ok()) {
            status = serde_json::to_value(failure).unwrap_or(status);
            status["code"] = code.into();
        }
        let body = body.filter(|_| self.wants_response());
        self.tell("ResponseComplete", Some(status), body.and_then(|body| self.object(body)));
    }

    /// Notes that nothing came of the request, for the server panicked.
    pub(crate) fn panicked(&self, why: &str) {
        if self.done.swap(true, Ordering::Relaxed) {
            return;
        }
        let message = format!("APIServer panic'd: {why}");
        let status =
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500});
        self.tell("Panic", Some(status), None);
    }

    fn tell(&self, stage: &'static str, status: Option<Value>, response: Option<Value>) {
        if self.chosen.omit_stages.iter().any(|omitted| omitted == stage) {
            return;
        }
        let Asked { attributes, uri, agent, sources, .. } = &self.asked;
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": self.chosen.level.name(), "auditID": self.id,
            "stage": stage, "requestURI": uri, "verb": attributes.verb, "user": user(&attributes.user),
        });
        let mut set = |field: &str, value: Value| event[field] = value;
        if let Some((acting, constraint)) = self.notes.impersonated.lock().as_ref() {
            set("impersonatedUser", user(acting));
            if let Some(constraint) = constraint {
                set("authenticationMetadata", json!({"impersonationConstraint": constraint}));
            }
        }
        if !sources.is_empty() {
            set("sourceIPs", json!(sources));
        }
        if !agent.is_empty() {
            set("userAgent", agent.as_str().into());
        }
        if !attributes.resource.is_empty() {
            let mut reference = json!({"resource": attributes.resource});
            for (field, text) in [
                ("namespace", &*attributes.namespace),
                ("name", &*attributes.name),
                ("apiGroup", &*attributes.group),
                ("apiVersion", &*attributes.version),
                ("subresource", &*attributes.subresource),
            ] {
                if !text.is_empty() {
                    reference[field] = text.into();
                }
            }
            set("objectRef", reference);
        }
        if let Some(status) = status {
            set("responseStatus", status);
        }
        if stage != "RequestReceived"
            && let Some(request) = &self.request
        {
            set("requestObject", request.clone());
        }
        if let Some(response) = response {
            set("responseObject", response);
        }
        set("requestReceivedTimestamp", stamp(self.received));
        set("stageTimestamp", stamp(crate::now()));
        let annotations = self.notes.annotations.lock();
        if !annotations.is_empty() {
            set("annotations", json!(*annotations));
        }
        drop(annotations);
        self.audit.sink.take(event.to_string().into());
    }
}

impl Drop for Trail {
    /// A request whose client went away is complete, too.
    fn drop(&mut self) {
        self.complete(0, None);
    }
}

/// A body in whichever format it came: protobuf, JSON or YAML.
fn parse(body: &[u8]) -> Option<Value> {
    if body.starts_with(PROTOBUF) {
        return schema::parse_protobuf(body).ok();
    }
    let value = serde_json::from_slice(body).ok();
    value.or_else(|| serde_saphyr::from_slice(body).ok().filter(Value::is_object))
}

/// In an object, and in the items of a list.
fn drop_managed_fields(value: &mut Value) {
    if let Some(meta) = value["metadata"].as_object_mut() {
        meta.remove("managedFields");
    }
    for item in value["items"].as_array_mut().into_iter().flatten() {
        drop_managed_fields(item);
    }
}
