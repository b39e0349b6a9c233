//! The condition `Available` of an APIService.

use std::sync::Arc;

use serde_json::{Value, json};

use super::api_services;
use crate::{
    Error, WriteOptions,
    server::pipeline::{Change, Core},
};

/// Whether a server is available, and why (not).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    /// `True`, `False` or `Unknown`.
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Condition {
    pub(super) fn new(status: &'static str, reason: &'static str, message: &str) -> Self {
        Self { status, reason, message: message.to_owned() }
    }

    /// What servers of their own have.
    pub(super) fn local() -> Self {
        Self::new("True", "Local", "Local APIServices are always available")
    }

    /// The status of an APIService with this condition; `None` if it has it.
    pub(super) fn applied(&self, status: &Value) -> Option<Value> {
        let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let known = conditions.iter().position(|condition| condition["type"] == "Available");
        let at = known.unwrap_or(conditions.len());
        let before = conditions.get(at).cloned().unwrap_or_default();
        if before["status"] == self.status && before["reason"] == self.reason && before["message"] == self.message {
            return None;
        }
        let since = if before["status"] == self.status { before["lastTransitionTime"].clone() } else { Value::Null };
        let now = || crate::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
        let condition = json!({"type": "Available", "status": self.status, "reason": self.reason,
            "message": self.message, "lastTransitionTime": if since.is_null() { now() } else { since }});
        match conditions.get_mut(at) {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
        let mut status = status.clone();
        status["conditions"] = conditions.into();
        Some(status)
    }
}

/// Writes the condition into an APIService, if it is another.
pub(super) async fn write(core: &Arc<Core>, name: &str, condition: &Condition) -> Result<(), Error> {
    let call = core.own_call(&api_services(), "", name, "status")?;
    let Some(found) = call.served.collection.get(&call.item()) else { return Ok(()) };
    if condition.applied(&found.object.value()?["status"]).is_none() {
        return Ok(());
    }
    let change = |current: &Value| {
        let mut new = current.clone();
        if let Some(status) = condition.applied(&current["status"]) {
            new["status"] = status;
        }
        Ok(new)
    };
    match core.update(&call, Change::With(&change), &WriteOptions::default()).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
