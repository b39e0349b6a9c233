//! Objects that go: at once, after a grace period, or when the last finalizer lets them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Call, Core, Outcome, admit, meta};
use crate::{
    DeleteOptions, Error, Object, Propagation,
    server::{
        Operation, custom,
        storage::{Claims, Write, encode},
    },
    status,
};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// What Kubernetes tells those who may not expect that a Job's pods stay.
const PODS_STAY: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
                         them or set propagationPolicy=Orphan to suppress this warning";
/// Tries against other writers.
const TRIES: usize = 64;

/// Whether nothing holds an object back any more that is to be deleted.
pub(super) fn is_done(object: &Value) -> bool {
    let metadata = &object["metadata"];
    !metadata["deletionTimestamp"].is_null()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
        // A namespace goes when its own finalizers are gone too.
        && (object["kind"] != "Namespace" || object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty))
}

impl Core {
    /// Deletes an object. Where it waits for something the answer is the object as it is now; else a `Status`, but for
    /// kinds that end gracefully: there it is the last version.
    ///
    /// # Errors
    /// 404, 409 (a precondition failed), and whatever admission and the store say.
    pub(crate) async fn delete(&self, call: &Call, options: &DeleteOptions) -> Result<Outcome, Error> {
        self.delete_if(call, options, true).await
    }

    /// The same without asking the admission plugins, for who has asked them about what is deleted for.
    ///
    /// # Errors
    /// As [`Core::delete`].
    pub(super) async fn delete_admitted(&self, call: &Call, options: &DeleteOptions) -> Result<Outcome, Error> {
        self.delete_if(call, options, false).await
    }

    async fn delete_if(&self, call: &Call, options: &DeleteOptions, ask: bool) -> Result<Outcome, Error> {
        if options.grace_period_seconds.is_some_and(|seconds| seconds < 0) {
            // As Kubernetes: negative means at once... for the smallest grace there is.
            let options = DeleteOptions { grace_period_seconds: Some(1), ..options.clone() };
            return Box::pin(self.delete_if(call, &options, ask)).await;
        }
        if options.propagation.is_none() && call.resource().kind == "Job" && call.served.row.strategy.orphans() {
            call.warn([PODS_STAY.to_owned()]);
        }
        let mut admitted = !ask;
        for _ in 0..TRIES {
            let Some(current) = call.served.collection.get(&call.item()) else {
                self.cache.sync().await?;
                if call.served.collection.get(&call.item()).is_some() {
                    continue;
                }
                return Err(call.not_found());
            };
            if !std::mem::replace(&mut admitted, true) {
                let old = call.served.read(&current.object).await?;
                let admission = admit::delete_options(options);
                let mut request = admit::request(call, "delete", Operation::Delete, None, Some(old.into()), admission);
                self.mutate(&mut request, call).await?;
                self.admit(&request, call).await?;
            }
            if let Some(outcome) = self.try_delete(call, options, &current.object).await? {
                return Ok(outcome);
            }
        }
        Err(status::conflict(call.resource(), &call.name, status::MODIFIED).into())
    }

    async fn try_delete(
        &self,
        call: &Call,
        options: &DeleteOptions,
        stored: &Arc<Object>,
    ) -> Result<Option<Outcome>, Error> {
        let strategy = &call.served.row.strategy;
        check_preconditions(call, options, stored)?;
        let mut object = stored.value()?;
        let grace = strategy.grace_period(&object, options.grace_period_seconds).max(0);
        set_finalizers(&mut object, options.propagation, strategy.orphans())?;
        if object["kind"] == "CustomResourceDefinition" && object["metadata"]["deletionTimestamp"].is_null() {
            hold(&mut object, custom::CLEANUP)?;
        }
        let waiting = !object["metadata"]["deletionTimestamp"].is_null();
        let left = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
        // A later delete may only shorten the wait.
        if !waiting || left.is_none_or(|left| grace < left) {
            let metadata = meta::fields(&mut object)?;
            let ends = crate::now() + std::time::Duration::from_secs(grace.unsigned_abs());
            let at = ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            metadata.insert("deletionTimestamp".to_owned(), at.into());
            metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
            if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|_| !waiting) {
                metadata.insert("generation".to_owned(), (generation + 1).into());
            }
            if object["kind"] == "Namespace" {
                object["status"]["phase"] = "Terminating".into();
            }
        }
        if options.dry_run {
            return Ok(Some(self.deleted(call, &Arc::new(Object::from_value(&object)?)).await?));
        }
        let collection = &call.served.collection;
        if is_done(&object) {
            let claims = self.claims(call, Some(&object), None).await?;
            let kept = strategy.allocates().then_some(object);
            return match self.cache.remove(collection, &call.item(), stored.json(), stored.revision(), claims).await? {
                Write::Done(last) => {
                    if let Some(object) = kept {
                        strategy.release(&object);
                    }
                    Ok(Some(self.deleted(call, &last).await?))
                }
                Write::Raced | Write::Held => Ok(None),
            };
        }
        let lease = self.lease_for(call).await?;
        let json = encode(&object);
        drop(object);
        match self.cache.put(collection, &call.item(), json, stored.revision(), lease, Claims::default()).await? {
            Write::Done(object) => Ok(Some(Outcome::ok(call.served.read(&object).await?))),
            Write::Raced | Write::Held => Ok(None),
        }
    }

    /// The answer to a delete that was done at once.
    async fn deleted(&self, call: &Call, last: &Arc<Object>) -> Result<Outcome, Error> {
        let resource = call.resource();
        if matches!(
            (resource.group.as_ref(), resource.plural.as_ref()),
            (
                "",
                "pods"
                    | "services"
                    | "persistentvolumeclaims"
                    | "persistentvolumes"
                    | "serviceaccounts"
                    | "resourcequotas"
                    | "podtemplates"
            )
        ) {
            return Ok(Outcome::ok(call.served.read(last).await?));
        }
        let mut details = json!({"name": call.name, "kind": resource.plural, "uid": last.meta().uid});
        if !resource.group.is_empty() {
            details["group"] = resource.group.as_ref().into();
        }
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        Ok(Outcome::ok(Arc::new(Object::from_value(&status)?)))
    }
}

pub(super) fn check_preconditions(call: &Call, options: &DeleteOptions, object: &Object) -> Result<(), Error> {
    let meta = object.meta();
    let pairs = [
        (&options.preconditions.uid, &meta.uid, "UID"),
        (&options.preconditions.resource_version, &meta.resource_version, "ResourceVersion"),
    ];
    for (wanted, found, what) in pairs {
        if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != found) {
            let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
            return Err(status::conflict(call.resource(), &call.name, &why).into());
        }
    }
    Ok(())
}

/// Adds a finalizer.
fn hold(object: &mut Value, finalizer: &str) -> Result<(), Error> {
    let finalizers = meta::fields(object)?.entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut()
        && !list.iter().any(|known| known == finalizer)
    {
        list.push(finalizer.into());
    }
    Ok(())
}

/// The finalizers that make the garbage collector do as the propagation policy says.
///
/// Without one the finalizers of a policy that the object has already stand for it, and then the kind's default does.
fn set_finalizers(object: &mut Value, propagation: Option<Propagation>, orphans: bool) -> Result<(), Error> {
    let metadata = meta::fields(object)?;
    let mut finalizers: Vec<Value> = metadata.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    let decided = finalizers.iter().any(|finalizer| finalizer == FOREGROUND || finalizer == ORPHAN);
    let by_default = (orphans && !decided).then_some(Propagation::Orphan);
    let Some(propagation) = propagation.or(by_default) else { return Ok(()) };
    finalizers.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
    match propagation {
        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
        Propagation::Orphan => finalizers.push(ORPHAN.into()),
        Propagation::Background => {}
    }
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), finalizers.into());
    }
    Ok(())
}
