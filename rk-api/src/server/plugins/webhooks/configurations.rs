//! The webhooks that there are, decoded once for each version of their configurations.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::{
    super::{list, policies::Conditions},
    GROUP,
};
use crate::{LabelSelector, Status, server::Reader, status};

/// A webhook of a configuration.
#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) value: Value,
    pub(super) conditions: Arc<Conditions>,
}

/// The webhooks of a kind of configuration, by the names of their configurations.
#[derive(Debug)]
pub(super) struct Webhooks {
    /// The plural name of the configurations.
    plural: &'static str,
    current: Mutex<(u64, Arc<[Arc<Webhook>]>)>,
}

impl Webhooks {
    pub(super) fn new(plural: &'static str) -> Self {
        Self { plural, current: Mutex::new((0, Arc::default())) }
    }

    /// The webhooks as they are now. What did not change is kept with its compiled conditions.
    pub(super) async fn current(&self, reader: &dyn Reader) -> Result<Arc<[Arc<Webhook>]>, Status> {
        // Read before the configurations: what changes meanwhile is read again.
        let version = reader.version(GROUP, self.plural).map_err(status::internal)?;
        let (made_of, known) = self.current.lock().clone();
        if made_of == version {
            return Ok(known);
        }
        let everything = LabelSelector::everything();
        let configurations = reader.list(GROUP, self.plural, "", &everything).await.map_err(status::internal)?;
        let mut all = Vec::new();
        for configuration in configurations {
            let configuration = configuration.value().map_err(status::internal)?;
            for webhook in list(&configuration["webhooks"]) {
                all.push(kept(webhook, &known, &all));
            }
        }
        let all: Arc<[_]> = all.into();
        *self.current.lock() = (version, Arc::clone(&all));
        Ok(all)
    }
}

/// A webhook: the very one that is known, or one with the conditions of another that has the same.
fn kept(webhook: &Value, known: &[Arc<Webhook>], fresh: &[Arc<Webhook>]) -> Arc<Webhook> {
    if let Some(same) = known.iter().find(|known| known.value == *webhook) {
        return Arc::clone(same);
    }
    let conditions = &webhook["matchConditions"];
    let before = known.iter().chain(fresh).find(|known| known.value["matchConditions"] == *conditions);
    let compile = || Arc::new(Conditions::compile(conditions));
    let conditions = before.map_or_else(compile, |before| Arc::clone(&before.conditions));
    Arc::new(Webhook { value: webhook.clone(), conditions })
}
