//! What the devices of a claim have to have in common, or not.

use k8s_openapi::api::resource::v1::{DeviceAttribute, DeviceConstraint};

use super::capacity::same_name;
use crate::model::DeviceInfo;

/// A constraint of a claim.
#[derive(Debug, Clone)]
pub(super) struct Constraint {
    /// The requests, or subrequests, that it is for; none for all.
    requests: Vec<String>,
    attribute: String,
    /// Whether the values have to differ, rather than to be the same.
    distinct: bool,
}

impl Constraint {
    /// Reads a constraint; `None` for one of a type that is not known.
    pub(super) fn new(constraint: &DeviceConstraint) -> Option<Self> {
        let requests = constraint.requests.clone().unwrap_or_default();
        match (&constraint.match_attribute, &constraint.distinct_attribute) {
            (Some(attribute), None) => Some(Self { requests, attribute: attribute.clone(), distinct: false }),
            (None, Some(attribute)) => Some(Self { requests, attribute: attribute.clone(), distinct: true }),
            _ => None,
        }
    }

    /// Whether it is for a request; `name` has the subrequest behind a slash where one was chosen.
    pub(super) fn concerns(&self, name: &str) -> bool {
        let main = name.split_once('/').map_or(name, |(main, _)| main);
        self.requests.is_empty() || self.requests.iter().any(|wanted| wanted == name || wanted == main)
    }

    /// Whether a device of a driver may join others for which the constraint holds.
    pub(super) fn allows<'d>(
        &self,
        (driver, device): (&str, &DeviceInfo),
        mut others: impl Iterator<Item = (&'d str, &'d DeviceInfo)>,
    ) -> bool {
        let Some(value) = self.value(driver, device) else { return false };
        let same = |(driver, other)| self.value(driver, other).is_some_and(|other| equal(value, other));
        // All others are the same as each other, so that the first of them speaks for all.
        if self.distinct { !others.any(same) } else { others.next().is_none_or(same) }
    }

    fn value<'d>(&self, driver: &str, device: &'d DeviceInfo) -> Option<&'d DeviceAttribute> {
        let attributes = device.published.attributes.as_ref()?;
        // The full name goes first, should there be both.
        let by_full_name = attributes.get(&self.attribute);
        by_full_name
            .or_else(|| attributes.iter().find(|(name, _)| same_name(driver, name, &self.attribute)).map(|(_, v)| v))
    }
}

/// Whether both are the same value of the same type.
fn equal(a: &DeviceAttribute, b: &DeviceAttribute) -> bool {
    let parts = |of: &DeviceAttribute| (of.bool, of.int, of.string.clone(), of.version.clone());
    parts(a) == parts(b) && parts(a) != (None, None, None, None)
}
