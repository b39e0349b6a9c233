//! New objects.

use serde_json::Value;

use super::{Call, Core, Outcome, admit, invalid, meta};
use crate::{
    Error, Status, WriteOptions,
    server::{
        Operation, WriteContext,
        storage::{Write, encode, store_error},
    },
    status,
};

/// Names tried where one is generated, as kube-apiserver does.
const GENERATED_NAMES: usize = 8;
/// Tries to find what no object of another server holds.
const TRIES: usize = 64;
/// Why they were given up.
const HELD: &str = "another object holds what was chosen for this one; please try again";
/// Seconds that Events live (`--event-ttl`).
const EVENT_TTL: i64 = 3600;
/// Events made within so many seconds of each other share a lease.
const LEASE_SHARE: std::time::Duration = std::time::Duration::from_secs(60);

impl Core {
    /// Makes an object.
    ///
    /// # Errors
    /// 400, 403, 409 (the name is taken), 422, and whatever admission and the store say.
    pub(crate) async fn create(&self, call: &Call, body: Value, options: &WriteOptions) -> Result<Outcome, Error> {
        if !call.served.row.stored {
            return self.ask(call, body, options).await;
        }
        let generated = meta::text(&body, "name").is_empty() && !meta::text(&body, "generateName").is_empty();
        if !generated {
            return self.create_named(call, body, options, true).await;
        }
        let base = meta::text(&body, "generateName").to_owned();
        for _ in 1..GENERATED_NAMES {
            let mut named = body.clone();
            meta::fields(&mut named)?.insert("name".to_owned(), meta::generate_name(&base).into());
            match self.create_named(call, named, options, true).await {
                Err(error) if error.is_already_exists() => {}
                other => return other,
            }
        }
        let mut named = body;
        meta::fields(&mut named)?.insert("name".to_owned(), meta::generate_name(&base).into());
        self.create_named(call, named, options, true).await
    }

    /// Makes an object whose name is known; `track` is false where its `managedFields` say already who owns what.
    pub(super) async fn create_named(
        &self,
        call: &Call,
        mut object: Value,
        options: &WriteOptions,
        track: bool,
    ) -> Result<Outcome, Error> {
        let row = &call.served.row;
        meta::check_kind(&mut object, &row.resource.api_version(), &row.resource.kind)?;
        meta::check_namespace(&mut object, call)?;
        if !matches!(meta::text(&object, "resourceVersion"), "" | "0") {
            return Err(status::failure(500, "", "resourceVersion should not be set on objects to be created").into());
        }
        if !call.name.is_empty() && meta::text(&object, "name") != call.name {
            return Err(status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                meta::text(&object, "name"),
                call.name
            ))
            .into());
        }
        meta::fill(&mut object, call)?;
        self.default(call, &mut object);
        let admission = admit::write_options("CreateOptions", options);
        let mut request = admit::request(call, "create", Operation::Create, Some(object), None, admission);
        request.attributes.name = request.object.as_ref().map(|o| meta::text(o, "name").to_owned()).unwrap_or_default();
        let changed = self.mutate(&mut request, call).await?;
        let mut object = request.object.take().ok_or_else(|| status::internal("admission removed the object"))?;
        if changed {
            self.default(call, &mut object);
        }

        let context = WriteContext { user: &call.user, subresource: "", dry_run: options.dry_run, reader: self };
        row.strategy.prepare_create(&mut object, &context);
        let errors = self.errors_of(call, &object, None);
        let name = meta::text(&object, "name").to_owned();
        if !errors.is_empty() {
            return Err(invalid(&row.resource, &name, errors));
        }
        call.warn(row.strategy.warnings(&object, None));
        if track {
            self.track(call, None, &mut object, options).await;
        }
        request.object = Some(object);
        self.admit(&request, call).await?;

        let item = super::key::item(&call.namespace, &name);
        let generated = request.object.as_ref().is_some_and(|object| !meta::text(object, "generateName").is_empty());
        let collection = &call.served.collection;
        if collection.get(&item).is_some() {
            // Another server on the same store may have deleted it just now.
            self.cache.sync().await?;
            if collection.get(&item).is_some() {
                return Err(taken(call, &name, generated));
            }
        }
        let allocates = row.strategy.allocates();
        for _ in 0..TRIES {
            let mut reserved = self.reserve(&request).await?;
            let object = if allocates { request.object.clone() } else { request.object.take() };
            let mut object = object.unwrap_or_default();
            let shown = collection.last();
            if let Err(refused) = row.strategy.allocate(&mut object, None, &context).await {
                // By what the cache showed: another server may have given something back since.
                self.cache.sync().await?;
                if allocates && collection.last() > shown {
                    continue;
                }
                return Err(refused.into());
            }
            if options.dry_run {
                return Ok(Outcome::created(crate::Object::from_value(&object)?.into()));
            }
            let json = encode(&*call.served.stored(&object).await?);
            let claims = self.claims(call, None, Some(&object)).await?;
            let claims = claims.with(reserved.changes()).until_sent(reserved.until_sent());
            // What nobody will ask for again goes now, while it is at hand, and not after the wait for the store.
            let kept = (allocates || claims.may_be_held()).then_some(object);
            let written = match self.lease_for(call).await {
                Ok(lease) => self.cache.put(collection, &item, json, 0, lease, claims).await,
                Err(error) => Err(error),
            };
            if let Ok(Write::Done(done)) = &written {
                return Ok(Outcome::created(call.served.read(done).await?));
            }
            if let Some(object) = kept {
                row.strategy.release(&object);
                request.object.get_or_insert(object);
            }
            match written? {
                // Another server gave the same to another object, or what was counted has changed; the cache shows it now.
                Write::Held => {}
                _ => return Err(taken(call, &name, generated)),
            }
        }
        Err(status::conflict(call.resource(), &name, HELD).into())
    }

    /// A question that is answered and not stored.
    async fn ask(&self, call: &Call, mut body: Value, options: &WriteOptions) -> Result<Outcome, Error> {
        let row = &call.served.row;
        meta::check_kind(&mut body, &row.resource.api_version(), &row.resource.kind)?;
        meta::check_namespace(&mut body, call)?;
        if row.resource.group.is_empty() && row.resource.kind == "Binding" {
            // The older way to give a pod to a node, which names the pod in the body only.
            let pods = self.catalog.load().get("", "v1", "pods").cloned().ok_or_else(status::no_such_path)?;
            let pod = Call { served: pods, ..call.about(&call.namespace, meta::text(&body, "name"), "binding") };
            return Box::pin(self.bind(&pod, body, options)).await;
        }
        let context = WriteContext { user: &call.user, subresource: "", dry_run: options.dry_run, reader: self };
        let answer = row.strategy.answer(body, &context).await?;
        Ok(Outcome::created(crate::Object::from_value(&answer)?.into()))
    }

    /// The lease that an object is bound to when it is written: Events go an hour after their last change.
    pub(super) async fn lease_for(&self, call: &Call) -> Result<rk_store::LeaseId, Error> {
        if call.served.collection.name != "events" {
            return Ok(0);
        }
        let now = tokio::time::Instant::now();
        let shared = self.event_lease.lock().filter(|(granted, _)| now.duration_since(*granted) < LEASE_SHARE);
        if let Some((_, lease)) = shared {
            return Ok(lease);
        }
        // The share is added, so that the last Event of the lease lives long enough too.
        let ttl = EVENT_TTL + LEASE_SHARE.as_secs() as i64;
        let granted = self.cache.store.lease_grant(0, ttl).await.map_err(store_error)?;
        *self.event_lease.lock() = Some((now, granted.id));
        Ok(granted.id)
    }
}

/// 409; where the name was generated the client may just try again.
fn taken(call: &Call, name: &str, generated: bool) -> Error {
    let mut status: Status = status::already_exists(call.resource(), name);
    if !generated {
        return status.into();
    }
    status.message = Some(format!(
        "{}, the server was not able to generate a unique name for the object",
        status.message.unwrap_or_default()
    ));
    status.into()
}
