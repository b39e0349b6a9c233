//! Mutating plugins that are asked a second time about a write
//! (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#reinvocation-policy>).

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

/// Which round of mutating plugins a write is in. If a webhook or a policy changed the object, all plugins see it once more; of
/// webhooks and policies those that ask for it, if the object has changed since.
#[derive(Debug, Default)]
pub struct Reinvocation {
    again: bool,
    wanted: bool,
    rounds: HashMap<&'static str, Round>,
}

/// What a plugin that calls others has to know of the first round.
#[derive(Debug, Default)]
struct Round {
    /// The object as the plugin left it.
    left: Option<Value>,
    /// Who was asked, and wants to be asked again if the object changes.
    asked: BTreeSet<String>,
    /// Whose object has changed since.
    due: BTreeSet<String>,
}

impl Round {
    fn changed(&mut self) {
        self.due.append(&mut self.asked);
    }
}

impl Reinvocation {
    /// Begins the second round, if there is to be one.
    pub(crate) fn begin(&mut self) -> bool {
        self.again = std::mem::take(&mut self.wanted) && !self.again;
        self.again
    }

    /// A plugin begins to ask others about the object.
    pub(crate) fn enter(&mut self, plugin: &'static str, object: Option<&Value>) {
        let Some(round) = self.rounds.get_mut(plugin).filter(|_| self.again) else { return };
        if !round.asked.is_empty() && round.left.as_ref() != object {
            round.changed();
        }
    }

    /// Whether somebody is to be asked in this round.
    pub(crate) fn is_due(&self, plugin: &'static str, who: &str) -> bool {
        !self.again || self.rounds.get(plugin).is_some_and(|round| round.due.contains(who))
    }

    /// Somebody was asked: whether that changed the object, and whether they want to be asked again if others do.
    pub(crate) fn asked(&mut self, plugin: &'static str, who: &str, changed: bool, again: bool) {
        let round = self.rounds.entry(plugin).or_default();
        if changed {
            round.changed();
            self.wanted = true;
        }
        if again {
            round.asked.insert(who.to_owned());
        }
    }

    /// A plugin has asked all others.
    pub(crate) fn leave(&mut self, plugin: &'static str, object: Option<&Value>) {
        if let Some(round) = self.rounds.get_mut(plugin).filter(|round| !round.asked.is_empty()) {
            round.left = object.cloned();
        }
    }
}
