//! Admission: the chain of plugins around a write.

use serde_json::{Value, json};

use super::{Call, Core};
use crate::{
    DeleteOptions, Error, WriteOptions,
    server::{AdmissionRequest, Notes, OldObject, Operation, Reinvocation, Reservation, audit, reinvocation},
};

impl Core {
    /// Lets the mutating plugins change a write's object; whether any had a look.
    ///
    /// # Errors
    /// A plugin refuses the write.
    pub(super) async fn mutate(&self, request: &mut AdmissionRequest, call: &Call) -> Result<bool, Error> {
        let seen = reinvocation::mutate(&self.admission, request, self).await;
        call.warn(std::mem::take(&mut request.warnings));
        tell(request, call);
        Ok(seen?)
    }

    /// Shows a connection to the plugins.
    ///
    /// # Errors
    /// A plugin refuses it.
    #[cfg(feature = "serve")]
    pub(crate) async fn admit_connection(&self, call: &Call) -> Result<(), Error> {
        let mut request = request(call, "connect", Operation::Connect, None, None, (Value::Null, false));
        self.mutate(&mut request, call).await?;
        self.admit(&request, call).await
    }

    /// Asks the plugins that count what is to be written with a write's object.
    ///
    /// # Errors
    /// A plugin refuses the write.
    pub(super) async fn reserve(&self, request: &AdmissionRequest) -> Result<Reservation, Error> {
        let mut all = Reservation::default();
        for plugin in &self.admission {
            let Some(counts) = plugin.reserve() else { continue };
            if !plugin.handles(request.operation, &request.resource, &request.attributes.subresource) {
                continue;
            }
            let shown = self.cache.reached();
            let reserved = match counts.reserve(request, self).await {
                // By what the cache showed: another server may have deleted something since.
                Err(_) if self.cache.sync().await? > shown => counts.reserve(request, self).await,
                reserved => reserved,
            };
            all.extend(reserved?);
        }
        Ok(all)
    }

    /// Shows the final object to the validating plugins.
    ///
    /// # Errors
    /// A plugin refuses the write.
    pub(super) async fn admit(&self, request: &AdmissionRequest, call: &Call) -> Result<(), Error> {
        let mut admitted = Ok(());
        for plugin in &self.admission {
            if plugin.handles(request.operation, &request.resource, &request.attributes.subresource) {
                admitted = plugin.validate(request, self).await;
                if admitted.is_err() {
                    break;
                }
            }
        }
        tell(request, call);
        Ok(admitted?)
    }
}

/// Tells client and audit log what the plugins noted, whatever they decided.
fn tell(request: &AdmissionRequest, call: &Call) {
    call.warn(request.notes.take_warnings());
    for (key, value) in request.notes.take_annotations() {
        audit::annotate(&key, || value);
    }
}

/// A write as the plugins see it.
pub(super) fn request(
    call: &Call,
    verb: &'static str,
    operation: Operation,
    object: Option<Value>,
    old_object: Option<OldObject>,
    options: (Value, bool),
) -> AdmissionRequest {
    AdmissionRequest {
        attributes: call.attributes(verb),
        resource: call.resource().clone(),
        operation,
        object,
        old_object,
        options: options.0,
        dry_run: options.1,
        warnings: Vec::new(),
        notes: Notes::default(),
        reinvocation: Reinvocation::default(),
    }
}

/// `CreateOptions`, `UpdateOptions` or `PatchOptions`, and whether it is a dry run.
pub(super) fn write_options(kind: &str, options: &WriteOptions) -> (Value, bool) {
    let mut value = json!({"apiVersion": "meta.k8s.io/v1", "kind": kind});
    if options.dry_run {
        value["dryRun"] = json!(["All"]);
    }
    for (field, text) in [("fieldManager", &options.field_manager), ("fieldValidation", &options.field_validation)] {
        if !text.is_empty() {
            value[field] = text.as_str().into();
        }
    }
    (value, options.dry_run)
}

/// `DeleteOptions`, and whether it is a dry run.
pub(super) fn delete_options(options: &DeleteOptions) -> (Value, bool) {
    let mut value = json!({"apiVersion": "meta.k8s.io/v1", "kind": "DeleteOptions"});
    if options.dry_run {
        value["dryRun"] = json!(["All"]);
    }
    if let Some(seconds) = options.grace_period_seconds {
        value["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(propagation) = options.propagation {
        value["propagationPolicy"] = propagation.as_str().into();
    }
    (value, options.dry_run)
}
