//! What is wrong with a configuration, and where; in the words of Kubernetes' `field.Error`.

use std::fmt;

use serde_json::Value;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field, such as `profiles[0].pluginConfig[1].args.scoringStrategy.type`.
    pub path: String,
    /// What is wrong, such as `Invalid value: 0: must be greater than 0`.
    pub reason: String,
}

impl FieldError {
    pub(crate) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl fmt::Display) -> Self {
        Self::new(path, format!("Invalid value: {}: {detail}", value.into()))
    }

    pub(crate) fn required(path: impl Into<String>, detail: &str) -> Self {
        let colon = if detail.is_empty() { "" } else { ": " };
        Self::new(path, format!("Required value{colon}{detail}"))
    }

    pub(crate) fn duplicate(path: impl Into<String>, value: &str) -> Self {
        Self::new(path, format!("Duplicate value: {value:?}"))
    }

    pub(crate) fn not_supported(path: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        Self::new(path, format!("Unsupported value: {value:?}: supported values: {}", supported.join(", ")))
    }

    pub(crate) fn forbidden(path: impl Into<String>, detail: &str) -> Self {
        Self::new(path, format!("Forbidden: {detail}"))
    }

    pub(crate) fn not_found(path: impl Into<String>, value: &str) -> Self {
        Self::new(path, format!("Not found: {value:?}"))
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.path, self.reason) }
    }
}

/// All that is wrong with a configuration; at least one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationError {
    /// Field by field.
    pub errors: Vec<FieldError>,
}

impl ConfigurationError {
    /// `Ok` if there are no errors.
    pub(crate) fn check(errors: Vec<FieldError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self { errors }) }
    }
}

impl fmt::Display for ConfigurationError {
    /// One error as it is, several in brackets (Kubernetes' `Aggregate`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = &self.errors[..] {
            return only.fmt(f);
        }
        let all: Vec<String> = self.errors.iter().map(FieldError::to_string).collect();
        write!(f, "[{}]", all.join(", "))
    }
}

impl std::error::Error for ConfigurationError {}
