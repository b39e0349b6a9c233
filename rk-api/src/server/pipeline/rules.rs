//! The rules that a kind's schema and strategy add to a write: defaults, broken rules, tracked fields.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{
    Call, Core,
    meta::{check_namespace, fields, now},
};
use crate::{
    Error, Patch, WriteOptions,
    server::{FieldErrors, apply, catalog::Served, kinds, schema::Schema},
    status,
};

impl Core {
    /// Sets the defaults: the schema's, then the kind's own.
    pub(super) fn default(&self, call: &Call, object: &mut Value) {
        if let Some(schema) = &call.served.schema {
            schema.apply_defaults(object);
        }
        call.served.row.strategy.default(object);
    }

    /// The rules that an object breaks; `old` is what it replaces, through the call's subresource.
    pub(super) fn errors_of(&self, call: &Call, object: &Value, old: Option<&Value>) -> FieldErrors {
        let strategy = &call.served.row.strategy;
        let mut errors = kinds::validate_meta(object, call.resource());
        errors.extend(old.map(|old| kinds::validate_meta_update(object, old)).unwrap_or_default());
        if let Some(schema) = call.served.schema.as_ref().filter(|_| call.served.custom) {
            errors.extend(schema.validate(object, old));
        }
        errors.extend(match old {
            None => strategy.validate_create(object),
            Some(old) => strategy.validate_update(object, old, &call.subresource),
        });
        errors
    }

    /// Notes whose fields changed in `managedFields`.
    pub(super) async fn track(&self, call: &Call, old: Option<&Value>, object: &mut Value, options: &WriteOptions) {
        let now = now();
        let manager = manager(call, options, &now, false);
        let versions = Versions { core: self, served: &call.served };
        apply::track_update(old, object, &manager, call.served.schema.as_deref(), &versions).await;
    }

    /// The object, or its Scale, after a server-side apply.
    ///
    /// # Errors
    /// 400, 409, 500: see [`apply::server_side_apply`].
    pub(super) async fn apply(
        &self,
        call: &Call,
        old: Option<&Value>,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Value, Error> {
        let mut applied = patch.body.clone();
        let (api_version, kind, schema) = if call.subresource == "scale" {
            (apply::scale::VERSION, "Scale", Schema::builtin("autoscaling", "v1", "Scale"))
        } else {
            (call.served.api_version.as_str(), call.resource().kind.as_ref(), call.served.schema.clone())
        };
        if applied["apiVersion"] != api_version || applied["kind"] != kind {
            let found = |field: &str| applied[field].as_str().unwrap_or_default().to_owned();
            return Err(status::bad_request(format!(
                "invalid object type: {}, Kind={} does not match {api_version}, Kind={kind}",
                found("apiVersion"),
                found("kind")
            ))
            .into());
        }
        check_namespace(&mut applied, call)?;
        if call.subresource.is_empty()
            && call.served.has("status")
            && let Some(map) = applied.as_object_mut()
        {
            map.remove("status");
        }
        let name = fields(&mut applied)?.entry("name").or_insert_with(|| call.name.as_str().into());
        if name != call.name.as_str() {
            let name = name.as_str().unwrap_or_default();
            return Err(status::bad_request(format!(
                "name in URL does not match name in the applied object: {:?} and {name:?}",
                call.name
            ))
            .into());
        }
        let now = now();
        let manager = apply::Manager { api_version, ..manager(call, options, &now, patch.force) };
        let versions = Versions { core: self, served: &call.served };
        apply::server_side_apply(old, &applied, &manager, schema.as_deref(), &versions).await
    }
}

/// The versions in which the objects of a resource are served.
struct Versions<'a> {
    core: &'a Core,
    served: &'a Served,
}

impl Versions<'_> {
    fn find(&self, api_version: &str) -> Option<Arc<Served>> {
        self.core.catalog.load().sibling(self.served, api_version).cloned()
    }
}

#[async_trait]
impl apply::Versions for Versions<'_> {
    fn has(&self, api_version: &str) -> bool {
        self.find(api_version).is_some()
    }

    fn schema(&self, api_version: &str) -> Option<Arc<Schema>> {
        self.find(api_version)?.schema.clone()
    }

    async fn convert(&self, object: Value, to: &str) -> Result<Value, Error> {
        let from = self.find(object["apiVersion"].as_str().unwrap_or_default());
        let (Some(from), Some(to)) = (from, self.find(to)) else {
            return Err(status::internal(format!("there is no version {to} any more")).into());
        };
        to.read_value(from.stored(&object).await?.into_owned()).await
    }
}

/// Who writes; a client that gives no name is known by its user's.
fn manager<'a>(call: &'a Call, options: &'a WriteOptions, now: &'a str, force: bool) -> apply::Manager<'a> {
    let name = if options.field_manager.is_empty() { &call.user.name } else { &options.field_manager };
    apply::Manager { name, subresource: &call.subresource, api_version: &call.served.api_version, now, force }
}
