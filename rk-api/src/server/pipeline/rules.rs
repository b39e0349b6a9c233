//! The rules that a kind's schema and strategy add to a write: defaults, broken rules, tracked fields.

use serde_json::Value;

use super::{Call, Core};
use crate::{
    WriteOptions,
    server::{FieldErrors, kinds},
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
        if let Some(schema) = call.served.schema.as_ref().filter(|_| call.served.custom) {
            errors.extend(schema.validate(object));
        }
        errors.extend(match old {
            None => strategy.validate_create(object),
            Some(old) => strategy.validate_update(object, old, &call.subresource),
        });
        errors
    }

    /// Notes whose fields changed in `managedFields`.
    pub(super) fn track(
        &self,
        _call: &Call,
        _old: Option<&Value>,
        _object: &mut Value,
        _options: &WriteOptions,
        _subresource: &str,
    ) {
    }
}
