//! Match conditions of webhooks.

use serde_json::Value;

use super::{
    super::{forbid, text},
    compile::webhook_conditions,
    evaluate::{Evaluation, Shown, settled},
};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Reader, cel::Program},
};

/// The match conditions of a webhook, or what is wrong with them.
#[derive(Debug)]
pub(in super::super) struct Conditions(Result<Vec<(String, Program)>, String>);

impl Conditions {
    /// Compiles a list of `matchConditions`.
    pub(in super::super) fn compile(list: &Value) -> Self {
        let (programs, issues) = webhook_conditions(list, "matchConditions");
        Self(match issues.first() {
            Some(issue) => Err(format!("{}: {}", issue.field, issue.message)),
            None => Ok(programs),
        })
    }

    /// Whether they hold for a write that `webhook`, whose conditions they are, sees as `shown`.
    ///
    /// # Errors
    /// One failed, and the webhook's failure policy is to refuse the write then.
    pub(in super::super) async fn hold(
        &self,
        webhook: &Value,
        shown: &Resource,
        seen: &mut Shown,
        request: &AdmissionRequest,
        reader: &dyn Reader,
    ) -> Result<bool, Status> {
        let hold = match &self.0 {
            Ok(programs) if programs.is_empty() => return Ok(true),
            Ok(programs) => {
                let seen = seen.of(request, shown, reader).await?;
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
            Err(why) => Err(forbid(request, &why)),
        }
    }
}
