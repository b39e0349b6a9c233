//! The order of admission plugins: a chain, and places in it that are named.

use std::sync::Arc;

use super::Admit;
use crate::Error;

/// Where a plugin stands.
enum Place {
    /// Behind all that were added before.
    End,
    /// Right before the plugin of this name.
    Before(String),
    /// Right behind the plugin of this name, and behind those that were put there before.
    After(String),
}

/// Plugins, in the order in which they were added.
#[derive(Default)]
pub(super) struct Chain(Vec<(Place, Arc<dyn Admit>)>);

impl Chain {
    pub(super) fn push(&mut self, plugin: Arc<dyn Admit>) {
        self.0.push((Place::End, plugin));
    }

    pub(super) fn push_before(&mut self, name: &str, plugin: Arc<dyn Admit>) {
        self.0.push((Place::Before(name.to_owned()), plugin));
    }

    pub(super) fn push_after(&mut self, name: &str, plugin: Arc<dyn Admit>) {
        self.0.push((Place::After(name.to_owned()), plugin));
    }

    /// The plugins in the order in which they see writes. Whoever is placed by the name of another may be named so too, by those
    /// that are added later.
    ///
    /// # Errors
    /// [`Error::Decode`] if a place is named that no plugin has.
    pub(super) fn ordered(self) -> Result<Vec<Arc<dyn Admit>>, Error> {
        // Each with the name that it was put behind.
        let mut ordered: Vec<(Option<String>, Arc<dyn Admit>)> = Vec::with_capacity(self.0.len());
        let (chain, placed): (Vec<_>, Vec<_>) = self.0.into_iter().partition(|(place, _)| matches!(place, Place::End));
        ordered.extend(chain.into_iter().map(|(_, plugin)| (None, plugin)));
        for (place, plugin) in placed {
            let (name, behind) = match place {
                Place::End => continue,
                Place::Before(name) => (name, false),
                Place::After(name) => (name, true),
            };
            let Some(at) = ordered.iter().position(|(_, other)| other.name() == name) else {
                let why = format!("{:?} is placed by {name:?}, which is no plugin of the chain", plugin.name());
                return Err(Error::decode("admission plugins", &why));
            };
            if behind {
                let same = ordered[at + 1..].iter().take_while(|(after, _)| after.as_deref() == Some(&*name)).count();
                ordered.insert(at + 1 + same, (Some(name), plugin));
            } else {
                ordered.insert(at, (None, plugin));
            }
        }
        Ok(ordered.into_iter().map(|(_, plugin)| plugin).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::plugins::from_fn;

    fn plugin(name: &str) -> Arc<dyn Admit> {
        from_fn(name, |_, _, _| true, |_| Ok(()))
    }

    #[test]
    fn plugins_stand_where_they_are_put() {
        let mut chain = Chain::default();
        chain.push_after("a", plugin("behind-a"));
        chain.push_before("a", plugin("before-a"));
        chain.push(plugin("a"));
        chain.push_after("a", plugin("second-behind-a"));
        chain.push_before("b", plugin("before-b"));
        chain.push(plugin("b"));
        chain.push_after("before-a", plugin("between"));
        let ordered = chain.ordered().unwrap();
        let names: Vec<_> = ordered.iter().map(|plugin| plugin.name()).collect();
        assert_eq!(names, ["before-a", "between", "a", "behind-a", "second-behind-a", "before-b", "b"]);

        let mut chain = Chain::default();
        chain.push_before("nobody", plugin("a"));
        let error = chain.ordered().err().unwrap().to_string();
        assert_eq!(
            error,
            r#"can't decode admission plugins: "a" is placed by "nobody", which is no plugin of the chain"#
        );
    }
}
