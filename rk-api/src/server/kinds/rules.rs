//! A kind's rules as plain functions in a table, and the [`Strategy`] that calls them.

use serde_json::{Map, Value};

use super::{field::Errors, pod_group, value, warn::Warnings};
use crate::server::{FieldErrors, Reader, Strategy, UserInfo, WriteContext};

/// The rules of a kind. What is not given does nothing.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Sets defaults that the schema does not hold.
    pub default: fn(&mut Value),
    /// Readies a new object that this user makes, after the status that came with it was dropped.
    pub create: fn(&mut Value, &UserInfo),
    /// Sets what the server itself says of an object, new or changed, in its status: the object, what it was, the server's objects.
    pub observe: fn(&mut Value, Option<&Value>, &dyn Reader),
    /// Readies a changed object: new, old, subresource.
    pub update: fn(&mut Value, &Value, &str),
    /// The rules that hold for new and changed objects alike.
    pub validate: fn(&Value, &mut Errors),
    /// The rules of a new object only.
    pub validate_new: fn(&Value, &mut Errors),
    /// The rules of a change: new, old, subresource.
    pub validate_change: fn(&Value, &Value, &str, &mut Errors),
    /// What the client is told of a new or changed object that is valid: new, old.
    pub warn: fn(&Value, Option<&Value>, &mut Warnings),
    /// The seconds a delete waits.
    pub grace_period: fn(&Value, Option<i64>) -> i64,
    /// Whether dependents stay if a delete does not say what becomes of them.
    pub orphans: bool,
    /// Where objects have a pod's spec; empty for nowhere.
    pub pod_spec: &'static str,
    /// Whether the kind has a status, which a create does not take from the client.
    pub has_status: bool,
}

impl Rules {
    /// No rules.
    pub const NONE: Self = Self {
        default: |_| {},
        create: |_, _| {},
        observe: |_, _, _| {},
        update: |_, _, _| {},
        validate: |_, _| {},
        validate_new: |_, _| {},
        validate_change: |_, _, _, _| {},
        warn: |_, _, _| {},
        grace_period: |_, _| 0,
        orphans: false,
        pod_spec: "",
        has_status: false,
    };
}

impl Strategy for Rules {
    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    fn allocates(&self) -> bool {
        false
    }

    fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        if self.has_status {
            value::set(object, "status", Map::new());
        }
        pod_group::drop_disabled(object, None, self.pod_spec, context.reader);
        (self.create)(object, context.user);
        (self.observe)(object, None, context.reader);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, context: &WriteContext<'_>) {
        pod_group::drop_disabled(new, Some(old), self.pod_spec, context.reader);
        (self.update)(new, old, context.subresource);
        if context.subresource.is_empty() {
            (self.observe)(new, Some(old), context.reader);
        }
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = Errors::default();
        (self.validate)(object, &mut errors);
        (self.validate_new)(object, &mut errors);
        errors.into_inner()
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> FieldErrors {
        let mut errors = Errors::default();
        // Other subresources write what `validate_change` knows of them; the rest was valid when it was written.
        if matches!(subresource, "" | "scale") {
            (self.validate)(new, &mut errors);
        }
        (self.validate_change)(new, old, subresource, &mut errors);
        errors.into_inner()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Warnings::default();
        (self.warn)(object, old, &mut warnings);
        warnings.into_inner()
    }

    fn grace_period(&self, object: &Value, asked: Option<i64>) -> i64 {
        (self.grace_period)(object, asked)
    }

    fn orphans(&self) -> bool {
        self.orphans
    }
}
