//! The rules that a kind's schema and strategy add to a write: defaults, broken rules, tracked fields.

use serde_json::Value;

use super::{
    Call, Core,
    meta::{check_namespace, fields, now},
};
use crate::{
    Error, Patch, WriteOptions,
    server::{FieldErrors, apply, kinds, schema::Schema},
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
    pub(super) fn track(&self, call: &Call, old: Option<&Value>, object: &mut Value, options: &WriteOptions) {
        let now = now();
        apply::track_update(old, object, &manager(call, options, &now, false), call.served.schema.as_deref());
    }

    /// The object, or its Scale, after a server-side apply.
    ///
    /// # Errors
    /// 400, 409: see [`apply::server_side_apply`].
    pub(super) fn apply(
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
        Ok(apply::server_side_apply(old, &applied, &manager, schema.as_deref())?)
    }
}

/// Who writes; a client that gives no name is known by its user's.
fn manager<'a>(call: &'a Call, options: &'a WriteOptions, now: &'a str, force: bool) -> apply::Manager<'a> {
    let name = if options.field_manager.is_empty() { &call.user.name } else { &options.field_manager };
    apply::Manager { name, subresource: &call.subresource, api_version: &call.served.api_version, now, force }
}
