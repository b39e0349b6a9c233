//! From the extenders of a configuration to those that are asked.

use std::sync::Arc;

use super::{ExtenderSettings, FieldError};
use crate::framework::Extender;

/// The extenders in their order.
#[cfg(feature = "extender")]
pub(super) fn build(all: &[ExtenderSettings], errors: &mut Vec<FieldError>) -> Vec<Arc<dyn Extender>> {
    let mut built: Vec<Arc<dyn Extender>> = Vec::new();
    for (index, settings) in all.iter().enumerate() {
        match crate::extender::HttpExtender::new(settings) {
            Ok(extender) => built.push(Arc::new(extender)),
            Err(error) => {
                errors.push(FieldError::new(format!("extenders[{index}].{}", error.field), error.reason));
            }
        }
    }
    built
}

/// Without the feature `extender` there are none.
#[cfg(not(feature = "extender"))]
pub(super) fn build(all: &[ExtenderSettings], errors: &mut Vec<FieldError>) -> Vec<Arc<dyn Extender>> {
    if !all.is_empty() {
        errors.push(FieldError::forbidden("extenders", "this program is built without the feature `extender`"));
    }
    Vec::new()
}
