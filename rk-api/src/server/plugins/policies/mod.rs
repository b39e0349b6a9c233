//! Admission policies: rules in CEL that refuse or change a write
//! (<https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>,
//! <https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/>).
//!
//! ```text
//! policies and bindings -> compile (once for each version of them) -> Set
//! write -> select by rules and labels -> params -> evaluate: conditions, then validations or mutations
//! ```
//!
//! `environment` is what expressions may name, `compile` what is wrong with a policy, `evaluate` the evaluation of one
//! policy for one write, `params` the objects that parametrize it, `conditions` the match conditions of webhooks, `type_check` what is told
//! in a policy's status.

mod compile;
#[cfg(feature = "serve")]
mod conditions;
mod environment;
mod evaluate;
mod mutating;
mod params;
#[cfg(test)]
mod tests;
mod type_check;
mod validating;

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use compile::{Policy, compile};
pub(crate) use compile::{condition_issues, issues};
#[cfg(feature = "serve")]
pub(super) use conditions::Conditions;
#[cfg(feature = "serve")]
pub(super) use evaluate::Shown;
pub use mutating::MutatingPolicies;
pub(crate) use type_check::type_check;
pub use validating::ValidatingPolicies;

use super::{select, text};
use crate::{
    LabelSelector, Resource, Status,
    server::{AdmissionRequest, Reader},
    status,
};

const GROUP: &str = "admissionregistration.k8s.io";

/// Policies never see the objects that configure admission, so that a broken one can be removed.
fn sees(resource: &Resource) -> bool {
    resource.group != GROUP
}

/// The compiled policies of a kind with their bindings.
#[derive(Debug, Default)]
struct Set(Vec<Arc<Policy>>);

/// A set that is made anew when a policy or a binding changes.
#[derive(Debug)]
struct Policies {
    /// The plural name of the policies; that of the bindings follows from it.
    plural: &'static str,
    bindings: &'static str,
    current: Mutex<Option<([u64; 2], Arc<Set>)>>,
}

impl Policies {
    const fn new(plural: &'static str, bindings: &'static str) -> Self {
        Self { plural, bindings, current: Mutex::new(None) }
    }

    /// The set as it is now.
    async fn current(&self, reader: &dyn Reader) -> Result<Arc<Set>, Status> {
        let version =
            |plural: &str| reader.version(GROUP, plural).map(|version| version.get()).map_err(status::internal);
        let versions = [version(self.plural)?, version(self.bindings)?];
        let known = self.current.lock().clone();
        if let Some((_, set)) = known.as_ref().filter(|(made_of, _)| *made_of == versions) {
            return Ok(Arc::clone(set));
        }
        let everything = LabelSelector::everything();
        let policies = reader.list(GROUP, self.plural, "", &everything).await.map_err(status::internal)?;
        let bindings = reader.list(GROUP, self.bindings, "", &everything).await.map_err(status::internal)?;
        let bindings: Vec<Value> =
            bindings.iter().map(|binding| binding.value()).collect::<Result<_, _>>().map_err(status::internal)?;
        let mut set = Vec::new();
        for object in policies {
            let bound: Vec<Value> = bindings
                .iter()
                .filter(|binding| text(&binding["spec"]["policyName"]) == object.meta().name)
                .cloned()
                .collect();
            // Compiled before, as this very version with these very bindings?
            let same = |policy: &&Arc<Policy>| policy.revision == object.revision() && policy.bindings == bound;
            let before = known.as_ref().and_then(|(_, set)| set.0.iter().find(same));
            set.push(match before {
                Some(policy) => Arc::clone(policy),
                None => {
                    let value = object.value().map_err(status::internal)?;
                    let (mut policy, _) = compile(&value);
                    policy.revision = object.revision();
                    policy.bindings = bound;
                    Arc::new(policy)
                }
            });
        }
        let set = Arc::new(Set(set));
        *self.current.lock() = Some((versions, Arc::clone(&set)));
        Ok(set)
    }
}

/// The resource as which a policy, or one of its bindings, wants to see a write, by rules and labels.
async fn matched(
    resources: &Value,
    request: &AdmissionRequest,
    reader: &dyn Reader,
) -> Result<Option<Resource>, Status> {
    let policy = &resources["matchPolicy"];
    // A binding that says nothing of resources leaves those of its policy.
    let shown = match resources["resourceRules"].as_array() {
        Some(rules) if !rules.is_empty() => select::matched(&resources["resourceRules"], policy, request, reader),
        _ => Some(request.resource.clone()),
    };
    let excluded = || select::matched(&resources["excludeResourceRules"], policy, request, reader).is_some();
    let Some(shown) = shown.filter(|_| !excluded()) else { return Ok(None) };
    Ok(select::labelled(resources, request, reader).await?.then_some(shown))
}
