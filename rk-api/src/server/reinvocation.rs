//! The passes of a write through the mutating plugins (apiserver's `admission/reinvocation.go`).
//!
//! Webhooks and policies come last and change what the plugins before them have seen. So if any of them did, the whole chain
//! runs once more: all plugins, but of the webhooks and policies only those with `reinvocationPolicy: IfNeeded` that were called
//! before, still want the write, and find another object than they left. (kube-apiserver calls a policy again for what it changed
//! itself, too, which its API does not say: it makes a difference only to policies whose second evaluation adds to the first.)

use std::{collections::HashMap, sync::Arc};

use serde_json::Value;

use super::{AdmissionRequest, Admit, Reader};
use crate::Status;

/// How far a write is in its passes through the mutating plugins.
#[derive(Debug, Default)]
pub struct Reinvocation {
    second: bool,
    /// Whether a webhook or a policy changed the object.
    changed: bool,
    /// The object as those left it that may be called again, by their names.
    left: HashMap<String, Option<Value>>,
}

impl Reinvocation {
    /// Whether the plugins have seen the write before.
    pub fn is_second(&self) -> bool {
        self.second
    }

    /// Whether a webhook or a policy is to be called in this pass, if it wants the write.
    pub(crate) fn calls(&self, name: &str, object: Option<&Value>) -> bool {
        !self.second || self.left.get(name).is_some_and(|left| left.as_ref() != object)
    }

    /// Notes how a webhook or a policy left the object, and whether it changed it; `again` if it may be called again.
    pub(crate) fn called(&mut self, name: &str, again: bool, changed: bool, object: Option<&Value>) {
        self.changed |= changed;
        if again && !self.second {
            self.left.insert(name.to_owned(), object.cloned());
        }
    }
}

/// Lets the plugins of a chain change a write's object; whether any had a look.
///
/// # Errors
/// A plugin refuses the write.
pub(crate) async fn mutate(
    chain: &[Arc<dyn Admit>],
    request: &mut AdmissionRequest,
    reader: &dyn Reader,
) -> Result<bool, Status> {
    let mut seen = false;
    loop {
        for plugin in chain {
            if plugin.handles(request.operation, &request.resource, &request.attributes.subresource) {
                plugin.mutate(request, reader).await?;
                seen = true;
            }
        }
        if request.reinvocation.second || !request.reinvocation.changed {
            return Ok(seen);
        }
        request.reinvocation.second = true;
    }
}
