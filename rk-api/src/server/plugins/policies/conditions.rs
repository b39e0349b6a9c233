//! Match conditions of webhooks.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use serde_json::Value;

use super::{
    super::text,
    compile::webhook_conditions,
    evaluate::{Evaluation, Seen, settled},
};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Reader, cel::Program},
};

/// The match conditions of webhooks, compiled, by their JSON.
static COMPILED: LazyLock<Mutex<HashMap<String, Arc<Compiled>>>> = LazyLock::new(Mutex::default);
/// So many are kept.
const KEPT: usize = 1000;

/// Conditions, or what is wrong with them.
type Compiled = Result<Vec<(String, Program)>, String>;

fn compiled(list: &Value) -> Arc<Compiled> {
    let text = list.to_string();
    if let Some(known) = COMPILED.lock().get(&text) {
        return Arc::clone(known);
    }
    let (programs, issues) = webhook_conditions(list, "matchConditions");
    let made = Arc::new(match issues.first() {
        Some(issue) => Err(format!("{}: {}", issue.field, issue.message)),
        None => Ok(programs),
    });
    let mut all = COMPILED.lock();
    if all.len() >= KEPT {
        all.clear();
    }
    all.insert(text, Arc::clone(&made));
    made
}

/// Whether the match conditions of a webhook hold.
///
/// # Errors
/// One failed, and the webhook's failure policy is to refuse the write then.
pub(in super::super) async fn conditions_hold(
    webhook: &Value,
    shown: &Resource,
    request: &AdmissionRequest,
    reader: &dyn Reader,
) -> Result<bool, Status> {
    let list = &webhook["matchConditions"];
    if list.as_array().is_none_or(Vec::is_empty) {
        return Ok(true);
    }
    let seen = Seen::of(request, shown, reader).await?;
    let programs = compiled(list);
    let hold = match &*programs {
        Ok(programs) => {
            let held = settled(request, reader, |answers| {
                Evaluation::new(&seen.inputs(&Value::Null), &[], answers)?.all(programs)
            });
            held.await.map_err(|failure| failure.to_string())
        }
        Err(why) => Err(why.clone()),
    };
    match hold {
        Ok(hold) => Ok(hold),
        Err(why) if text(&webhook["failurePolicy"]) == "Ignore" => {
            tracing::warn!(
                webhook = text(&webhook["name"]),
                error = why,
                "match conditions failed and the webhook is ignored"
            );
            Ok(false)
        }
        Err(why) => Err(super::super::forbid(request, &why)),
    }
}
