//! Changed objects: update, patch and apply, on the object and on its subresources.
//!
//! The change is made on the version in the cache and written if that still is the current one; if somebody was
//! faster it is made anew on theirs, so a change that names no version never conflicts.

use std::sync::Arc;

use serde_json::Value;

use super::{Call, Core, Outcome, admit, invalid, keep::keep, meta, scale};
use crate::{
    Error, Object, Patch, PatchKind, WriteOptions,
    server::{
        AdmissionRequest, OldObject, Operation, Reservation, WriteContext,
        catalog::ScalePaths,
        patch,
        schema::Schema,
        storage::{Write, encode, is_same},
    },
    status,
};

/// Tries against other writers before a change that names no version is given up.
pub(super) const TRIES: usize = 64;

/// How an object shall change.
pub(crate) enum Change<'a> {
    /// It becomes this.
    Replace(Value),
    /// It is patched or applied.
    Patch(Patch),
    /// It becomes what the function makes of it.
    With(&'a (dyn Fn(&Value) -> Result<Value, Error> + Sync)),
}

/// What a try came to.
enum Try {
    Done(Outcome),
    Again,
}

impl Core {
    /// Changes an object.
    ///
    /// # Errors
    /// 400, 403, 404, 409 (another version than the one named), 422, and whatever admission and the store say.
    pub(crate) async fn update(
        &self,
        call: &Call,
        change: Change<'_>,
        options: &WriteOptions,
    ) -> Result<Outcome, Error> {
        for _ in 0..TRIES {
            let Some(current) = self.current(call).await? else {
                return self.create_by_update(call, change, options).await;
            };
            if let Try::Done(outcome) = self.try_update(call, &change, options, &current).await? {
                return Ok(outcome);
            }
        }
        Err(status::conflict(call.resource(), &call.name, status::MODIFIED).into())
    }

    /// Writes the server's own part of what a request that was admitted asks for, such as why a pod ends that is evicted.
    ///
    /// It is written as the function leaves it: as in Kubernetes, where such a part goes to the registry's store at once
    /// (`EvictionREST.Create`), nobody is asked again, and its fields have no manager.
    ///
    /// # Errors
    /// 404, 409 (others were faster too often), and whatever the function and the store say.
    pub(super) async fn set(
        &self,
        call: &Call,
        change: &(dyn Fn(&Value) -> Result<Value, Error> + Sync),
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Error> {
        for _ in 0..TRIES {
            let stored = self.current(call).await?.ok_or_else(|| call.not_found())?;
            let old = call.served.read(&stored).await?.value()?;
            let new = change(&old)?;
            let written =
                self.write(call, new, (Arc::new(old), Reservation::default()), &stored, options.dry_run).await?;
            if let Some(object) = written {
                return Ok(object);
            }
        }
        Err(status::conflict(call.resource(), &call.name, status::MODIFIED).into())
    }

    /// The object as it is stored.
    pub(super) async fn current(&self, call: &Call) -> Result<Option<Arc<Object>>, Error> {
        let shown = || call.served.collection.get(&call.item()).map(|item| item.object.clone());
        if let Some(shown) = shown() {
            return Ok(Some(shown));
        }
        // Another server on the same store may have made it just now.
        self.cache.sync().await?;
        Ok(shown())
    }

    /// An apply, and for some kinds an update, of what is not there makes it.
    async fn create_by_update(
        &self,
        call: &Call,
        change: Change<'_>,
        options: &WriteOptions,
    ) -> Result<Outcome, Error> {
        match change {
            Change::Patch(patch) if patch.kind == PatchKind::Apply && call.subresource.is_empty() => {
                self.authorize(call, "create").await?;
                let object = Box::pin(self.apply(call, None, &patch, options)).await?;
                self.create_named(call, object, options, false).await
            }
            Change::Replace(body) if call.subresource.is_empty() && created_by_update(call) => {
                self.authorize(call, "create").await?;
                self.create(call, body, options).await
            }
            _ => Err(call.not_found()),
        }
    }

    fn wrong_name(&self, call: &Call, body: &Value) -> Error {
        status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta::text(body, "name"),
            call.name
        ))
        .into()
    }

    async fn try_update(
        &self,
        call: &Call,
        change: &Change<'_>,
        options: &WriteOptions,
        stored: &Arc<Object>,
    ) -> Result<Try, Error> {
        let row = &call.served.row;
        let current = call.served.read(stored).await?;
        let old = Arc::new(current.value()?);
        let scaled = match (call.subresource.as_str(), &call.served.scale) {
            ("scale", Some(paths)) => Some(self.scaled(call, change, options, &old, paths).await?),
            _ => None,
        };
        let (mut new, asked) = match scaled {
            Some((new, asked)) => (new, Some(asked)),
            None => (self.changed(call, change, options, &old).await?, None),
        };
        if let Change::Patch(patch) = change {
            new = call.decode_patched(new, patch, &options.field_validation)?;
        }
        meta::check_kind(&mut new, &row.resource.api_version(), &row.resource.kind)?;
        meta::check_namespace(&mut new, call)?;
        match meta::text(&new, "name") {
            "" => {
                meta::fields(&mut new)?.insert("name".to_owned(), call.name.as_str().into());
            }
            name if name == call.name => {}
            _ => return Err(self.wrong_name(call, &new)),
        }
        if let Err(error) = check_identity(call, &new, &old) {
            // The cache may be behind the client: it may have seen a version that this server has not.
            let before = self.cache.reached();
            return if self.cache.sync().await? > before && self.moved_on(call, stored) {
                Ok(Try::Again)
            } else {
                Err(error)
            };
        }
        keep(&mut new, &old, call)?;
        self.default(call, &mut new);
        // A scale was admitted as the scale that it is.
        let admits = asked.is_none();
        let old_object = OldObject::with_tree(Arc::clone(&current), Arc::clone(&old));
        let mut request = asked.unwrap_or_else(|| asks(call, change, options, Value::Null, old_object));
        if admits {
            request.object = Some(new);
            let mutated = self.mutate(&mut request, call).await?;
            new = request.object.take().ok_or_else(|| status::internal("admission removed the object"))?;
            if mutated {
                self.default(call, &mut new);
            }
        }

        let context =
            WriteContext { user: &call.user, subresource: &call.subresource, dry_run: options.dry_run, reader: self };
        row.strategy.prepare_update(&mut new, &old, &context);
        if meta::counts_generation(call) && call.subresource != "status" && meta::spec_differs(&new, &old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            meta::fields(&mut new)?.insert("generation".to_owned(), generation.into());
        }
        let errors = self.errors_of(call, &new, Some(&old));
        if !errors.is_empty() {
            return Err(invalid(&row.resource, &call.name, errors));
        }
        if matches!(call.subresource.as_str(), "" | "scale") {
            call.warn(row.strategy.warnings(&new, Some(&old)));
        }
        if !is_apply(change) {
            self.track(call, Some(&old), &mut new, options).await;
        }
        let mut reserved = Reservation::default();
        if call.subresource == "scale" {
            self.admit(&request, call).await?;
        } else if admits {
            request.object = Some(new);
            self.admit(&request, call).await?;
            reserved = self.reserve(&request).await?;
            new = request.object.take().unwrap_or_default();
        }
        let shown = call.served.collection.last();
        if let Err(refused) = row.strategy.allocate(&mut new, Some(&old), &context).await {
            // By what the cache showed: another server may have given something back since.
            self.cache.sync().await?;
            return if call.served.collection.last() > shown { Ok(Try::Again) } else { Err(refused.into()) };
        }
        drop(request);
        let outcome = self.write(call, new, (old, reserved), stored, options.dry_run).await?;
        match outcome {
            Some(object) if call.subresource == "scale" => match &call.served.scale {
                Some(paths) => {
                    let scale = scale::scale_of(&object.value()?, paths);
                    Ok(Try::Done(Outcome::ok(Arc::new(Object::from_value(&scale)?))))
                }
                None => Ok(Try::Done(Outcome::ok(object))),
            },
            Some(object) => Ok(Try::Done(Outcome::ok(object))),
            None => Ok(Try::Again),
        }
    }

    /// The object with the Scale that a change makes of its own, and that change of the Scale as the mutating plugins left it.
    async fn scaled(
        &self,
        call: &Call,
        change: &Change<'_>,
        options: &WriteOptions,
        old: &Value,
        paths: &ScalePaths,
    ) -> Result<(Value, AdmissionRequest), Error> {
        let shown = if is_apply(change) { scale::owned_scale_of } else { scale::scale_of };
        let scale = self.changed(call, change, options, &shown(old, paths)).await?;
        let before = Arc::new(Object::from_value(&scale::scale_of(old, paths))?);
        let mut asked = asks(call, change, options, scale, before.into());
        self.mutate(&mut asked, call).await?;
        let scale = asked.object.as_ref().ok_or_else(|| status::internal("admission removed the object"))?;
        let mut new = scale::apply_scale(old, scale, paths)?;
        if is_apply(change) {
            scale::own(&mut new, scale, paths, &call.served.api_version)?;
        }
        Ok((new, asked))
    }

    /// Whether the cache holds another version by now.
    fn moved_on(&self, call: &Call, seen: &Arc<Object>) -> bool {
        call.served.collection.get(&call.item()).is_none_or(|item| item.object.revision() != seen.revision())
    }

    /// Stores the new version; `None` if somebody was faster. Beside the old one is what is to be written with the new. Nothing
    /// is written where nothing changed, and the object goes if this took the last finalizer from what is being deleted.
    async fn write(
        &self,
        call: &Call,
        new: Value,
        (old, mut reserved): (Arc<Value>, Reservation),
        stored: &Arc<Object>,
        dry_run: bool,
    ) -> Result<Option<Arc<Object>>, Error> {
        let strategy = &call.served.row.strategy;
        if dry_run {
            return Ok(Some(Arc::new(Object::from_value(&new)?)));
        }
        let json = encode(&*call.served.stored(&new).await?);
        let collection = &call.served.collection;
        let gone = super::delete::is_done(&new);
        if !gone && is_same(&json, stored) && !self.cache.is_stale(collection, &call.item()) {
            // Nothing changes, if this still is what is stored: another server may have changed it just now.
            self.cache.sync().await?;
            let same = !self.moved_on(call, stored);
            return if same { Ok(Some(call.served.read(stored).await?)) } else { Ok(None) };
        }
        let claims = self.claims(call, Some(&old), (!gone).then_some(&new)).await?;
        // What nobody will ask for again goes now, while it is at hand, and not after the wait for the store.
        drop(old);
        let kept = strategy.allocates().then_some(new);
        let written = if gone {
            self.cache.remove(collection, &call.item(), &json, stored.revision(), claims).await
        } else {
            let lease = self.lease_for(call).await?;
            let claims = claims.with(reserved.changes()).until_sent(reserved.until_sent());
            self.cache.put(collection, &call.item(), json, stored.revision(), lease, claims).await
        };
        if let Some(new) = kept.filter(|_| gone || !matches!(written, Ok(Write::Done(_)))) {
            strategy.release(&new);
        }
        match written? {
            Write::Done(object) => Ok(Some(call.served.read(&object).await?)),
            Write::Raced | Write::Held => Ok(None),
        }
    }

    /// The object after the change itself.
    async fn changed(
        &self,
        call: &Call,
        change: &Change<'_>,
        options: &WriteOptions,
        old: &Value,
    ) -> Result<Value, Error> {
        let scale = call.subresource == "scale";
        match change {
            Change::Replace(new) => Ok(new.clone()),
            Change::With(change) => change(old),
            Change::Patch(change) if change.kind == PatchKind::Apply => {
                Box::pin(self.apply(call, Some(old), change, options)).await
            }
            Change::Patch(change) => {
                let schema =
                    if scale { Schema::builtin("autoscaling", "v1", "Scale") } else { call.served.schema.clone() };
                Ok(patch::apply(change.kind, &change.body, old, schema.as_deref())?)
            }
        }
    }
}

/// A change as the admission plugins are asked about it.
fn asks(call: &Call, change: &Change<'_>, options: &WriteOptions, new: Value, old: OldObject) -> AdmissionRequest {
    let (verb, kind) = match change {
        Change::Patch(_) => ("patch", "PatchOptions"),
        _ => ("update", "UpdateOptions"),
    };
    let options = admit::write_options(kind, options);
    admit::request(call, verb, Operation::Update, Some(new), Some(old), options)
}

fn is_apply(change: &Change<'_>) -> bool {
    matches!(change, Change::Patch(Patch { kind: PatchKind::Apply, .. }))
}

/// Kinds that an update makes where they are absent.
fn created_by_update(call: &Call) -> bool {
    let resource = call.resource();
    matches!(
        (resource.group.as_ref(), resource.plural.as_ref()),
        ("coordination.k8s.io", "leases")
            | ("rbac.authorization.k8s.io", _)
            | ("", "events" | "endpoints" | "limitranges" | "services")
            | ("events.k8s.io", "events")
    )
}

/// Checks that the change is of the same object and, if it names one, of the current version.
fn check_identity(call: &Call, new: &Value, old: &Value) -> Result<(), Error> {
    let conflict = |why: &str| Error::from(status::conflict(call.resource(), &call.name, why));
    let (uid, current) = (meta::text(new, "uid"), meta::text(old, "uid"));
    if !uid.is_empty() && uid != current {
        return Err(conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {current}"
        )));
    }
    match meta::text(new, "resourceVersion") {
        "" | "0" => {
            let plural = call.resource().plural.as_ref();
            let strict =
                call.served.custom || matches!(plural, "leases" | "customresourcedefinitions" | "poddisruptionbudgets");
            if strict && matches!(call.subresource.as_str(), "" | "status") {
                let error = crate::server::FieldError {
                    reason: "FieldValueInvalid",
                    field: "metadata.resourceVersion".to_owned(),
                    message: "Invalid value: 0: must be specified for an update".to_owned(),
                };
                return Err(invalid(call.resource(), &call.name, vec![error]));
            }
            Ok(())
        }
        version if version == meta::text(old, "resourceVersion") => Ok(()),
        _ => Err(conflict(status::MODIFIED)),
    }
}
