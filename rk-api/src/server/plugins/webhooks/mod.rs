//! Admission webhooks: the write is shown to HTTPS servers that change or refuse it
//! (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>).
//!
//! `select` and the match conditions pick the webhooks that want to see a write, `review` is the question and its answer,
//! `call` asks it. `configurations` are the webhooks that there are. One without a `caBundle` is believed if the system trusts the
//! authority of its certificate.

mod call;
mod configurations;
mod review;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::Value;

pub(crate) use call::call;
use configurations::{Webhook, Webhooks};

use super::{
    describe::{convert, objects},
    policies::Shown,
    select, text,
};
use crate::{
    PatchKind, Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader, patch, schema::Schema},
    status,
};

const GROUP: &str = "admissionregistration.k8s.io";

/// Calls the webhooks of all MutatingWebhookConfigurations, one after the other, each seeing what those before it changed.
/// A webhook with `reinvocationPolicy: IfNeeded` is called once more if others changed the object after it and it still wants it.
#[derive(Debug)]
pub struct MutatingWebhooks(Webhooks);

impl Default for MutatingWebhooks {
    fn default() -> Self {
        Self(Webhooks::new("mutatingwebhookconfigurations"))
    }
}

/// Calls the webhooks of all ValidatingWebhookConfigurations, all at the same time.
#[derive(Debug)]
pub struct ValidatingWebhooks(Webhooks);

impl Default for ValidatingWebhooks {
    fn default() -> Self {
        Self(Webhooks::new("validatingwebhookconfigurations"))
    }
}

/// Webhooks never see the objects that configure admission, so that a broken one can be removed.
fn sees(resource: &Resource) -> bool {
    resource.group != GROUP
}

/// The resource as which a webhook wants to see this write; `None` if it does not.
async fn wanted(
    webhook: &Webhook,
    seen: &mut Shown,
    request: &AdmissionRequest,
    reader: &dyn Reader,
) -> Result<Option<Resource>, Status> {
    let value = &webhook.value;
    let Some(shown) = select::matched(&value["rules"], &value["matchPolicy"], request, reader) else {
        return Ok(None);
    };
    let wants = select::labelled(value, request, reader).await?
        && webhook.conditions.hold(value, &shown, seen, request, reader).await?;
    Ok(wants.then_some(shown))
}

/// Asks one webhook; `None` if it failed and its failure policy is to go on without it.
async fn ask(
    (webhook, shown): &(Arc<Webhook>, Resource),
    request: &AdmissionRequest,
    reader: &dyn Reader,
) -> Result<Option<review::Answer>, Status> {
    let webhook = &webhook.value;
    let name = text(&webhook["name"]);
    if request.dry_run && !matches!(text(&webhook["sideEffects"]), "None" | "NoneOnDryRun") {
        return Err(status::bad_request(format!("admission webhook {name:?} does not support dry run")));
    }
    let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(10);
    let uid = uuid::Uuid::new_v4().to_string();
    let objects = objects(request, reader, shown).await?;
    let question = review::question(request, shown, objects, &uid);
    let answered = async {
        let answer = call(&webhook["clientConfig"], &question, reader).await?;
        review::Answer::read(&answer, &uid)
    };
    let answer = match tokio::time::timeout(Duration::from_secs(seconds), answered).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("failed to call webhook: no answer within {seconds} s")),
    };
    match answer {
        Ok(answer) => {
            answer.annotate(name, &request.notes);
            answer.allowed(name).map(Some)
        }
        Err(why) if text(&webhook["failurePolicy"]) == "Ignore" => {
            tracing::warn!(webhook = name, error = why, "webhook failed and is ignored");
            Ok(None)
        }
        Err(why) => Err(status::internal(format!("failed calling webhook {name:?}: {why}"))),
    }
}

impl MutatingWebhooks {
    /// Asks a webhook and does what it answers; whether that changed the object.
    async fn apply(
        asked: &(Arc<Webhook>, Resource),
        request: &mut AdmissionRequest,
        reader: &dyn Reader,
    ) -> Result<bool, Status> {
        let Some(answer) = ask(asked, request, reader).await? else { return Ok(false) };
        request.warnings.extend(answer.warnings);
        let (webhook, shown) = asked;
        let (Some(patch), Some(object)) = (answer.patch, request.object.clone()) else { return Ok(false) };
        let mut object = convert(object, &request.resource, shown, reader).await?;
        patch::operate(&mut object, &patch)
            .map_err(|error| error.to_string())
            .and_then(|()| well_formed(&object, shown))
            .map_err(|error| status::internal(format!("webhook {:?}: {error}", text(&webhook.value["name"]))))?;
        let patched = Some(convert(object, shown, &request.resource, reader).await?);
        let changed = request.object != patched;
        request.object = patched;
        Ok(changed)
    }
}

/// Whether a patched object still is of its kind, with fields of the right types. Those of custom resources are checked with
/// their other rules.
fn well_formed(object: &Value, resource: &Resource) -> Result<(), String> {
    if !object.is_object() || !object["metadata"].is_object() {
        return Err("its patch leaves no object".to_owned());
    }
    // The bodies of subresources are of other kinds.
    match Schema::builtin(&resource.group, &resource.version, &resource.kind) {
        Some(schema) if object["kind"] == *resource.kind => {
            let checked = patch::check(PatchKind::Json, &Value::Null, object.clone(), Some(&schema), "Ignore");
            checked.map(drop).map_err(|status| status.message.unwrap_or_default())
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Admit for MutatingWebhooks {
    fn name(&self) -> &str {
        "MutatingAdmissionWebhook"
    }

    fn handles(&self, _operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        sees(resource)
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let mut seen = Shown::default();
        for webhook in self.0.current(reader).await?.iter() {
            if !request.reinvocation.calls(&webhook.name, request.object.as_ref()) {
                continue;
            }
            // By the object as those before it left it.
            // Boxed, so that a write that no webhook is about moves little.
            let Some(shown) = Box::pin(wanted(webhook, &mut seen, request, reader)).await? else { continue };
            let changed = Box::pin(Self::apply(&(Arc::clone(webhook), shown), request, reader)).await?;
            if changed {
                seen = Shown::default();
            }
            let again = text(&webhook.value["reinvocationPolicy"]) == "IfNeeded";
            request.reinvocation.called(&webhook.name, again, changed, request.object.as_ref());
        }
        Ok(())
    }
}

#[async_trait]
impl Admit for ValidatingWebhooks {
    fn name(&self) -> &str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, _operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        sees(resource)
    }

    async fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let (mut seen, mut wanting) = (Shown::default(), Vec::new());
        for webhook in self.0.current(reader).await?.iter() {
            if let Some(shown) = Box::pin(wanted(webhook, &mut seen, request, reader)).await? {
                wanting.push((Arc::clone(webhook), shown));
            }
        }
        let asked = wanting.iter().map(|webhook| ask(webhook, request, reader));
        for answer in futures::future::join_all(asked).await {
            for warning in answer?.into_iter().flat_map(|answer| answer.warnings) {
                request.notes.warn(warning);
            }
        }
        Ok(())
    }
}
