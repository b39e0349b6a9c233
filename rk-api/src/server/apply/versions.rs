//! Objects in the versions in which their managers name their fields.
//!
//! A manager's paths are those of the version it wrote in. What a write changes is therefore found in each of these versions by
//! itself, with the object before and after the write converted to it, and so is what goes when a field is applied no more
//! (structured-merge-diff's `merge.Updater`).

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;

use super::{
    Manager, difference,
    fieldset::FieldSet,
    managers::Entry,
    merge,
    typed::{Comparison, to_set},
    zero,
};
use crate::{Error, server::schema::Schema};

/// The versions of a kind.
#[async_trait]
pub trait Versions: Send + Sync {
    /// Whether objects of the kind can be had in this version (`apps/v1`).
    fn has(&self, api_version: &str) -> bool;

    /// What objects of this version look like; `None` for anything.
    fn schema(&self, api_version: &str) -> Option<Arc<Schema>>;

    /// An object in another version that there is.
    ///
    /// # Errors
    /// The object can't be converted.
    async fn convert(&self, object: Value, to: &str) -> Result<Value, Error>;
}

/// Managers of versions that there are no more own nothing.
pub(super) fn forget(entries: &mut Vec<Entry>, manager: &Manager<'_>, versions: &dyn Versions) {
    entries.retain(|entry| entry.api_version == manager.api_version || versions.has(&entry.api_version));
}

/// What a write changes, in the version that is written and in those of the managers.
pub(super) struct Changes(Vec<(String, Comparison)>);

impl Changes {
    /// Adds to what is changed in the written version what that is in the versions of these entries; `old` is `None` where the object
    /// is new.
    ///
    /// # Errors
    /// An object can't be converted.
    pub(super) async fn of(
        written: Comparison,
        (old, new): (Option<&Value>, &Value),
        entries: &[Entry],
        manager: &Manager<'_>,
        versions: &dyn Versions,
    ) -> Result<Self, Error> {
        let mut changes = vec![(manager.api_version.to_owned(), written)];
        for version in others(entries, manager.api_version) {
            let schema = versions.schema(version);
            let before = match old {
                Some(old) => versions.convert(old.clone(), version).await?,
                None => zero(schema.as_deref()),
            };
            let after = versions.convert(new.clone(), version).await?;
            changes.push((version.to_owned(), difference(schema.as_deref(), &before, &after, manager)));
        }
        Ok(Self(changes))
    }

    /// What is changed in the version in which the entry's fields are named.
    pub(super) fn to(&self, entry: &Entry) -> Option<&Comparison> {
        self.0.iter().find(|(version, _)| entry.api_version == *version).map(|(_, comparison)| comparison)
    }

    /// What is changed in the version that is written.
    pub(super) fn into_written(self) -> Comparison {
        self.0.into_iter().next().map(|(_, comparison)| comparison).unwrap_or_default()
    }
}

/// The versions of the entries but one.
fn others<'a>(entries: &'a [Entry], but: &str) -> BTreeSet<&'a str> {
    entries.iter().map(|entry| entry.api_version.as_str()).filter(|version| *version != but).collect()
}

/// Removes from what an apply merged what the manager applied `last` and is in nobody's set now, under whichever path. `set` is what the
/// manager applies now, in the version of `merged`.
///
/// # Errors
/// The object can't be converted.
pub(super) async fn prune(
    mut merged: Value,
    last: &Entry,
    (set, entries): (&FieldSet, &[Entry]),
    (manager, schema): (&Manager<'_>, Option<&Schema>),
    versions: &dyn Versions,
) -> Result<Value, Error> {
    let written = manager.api_version;
    let owned = |version: &str| {
        let mut owned = if version == written { set.clone() } else { FieldSet::default() };
        let same = entries.iter().filter(|entry| entry.api_version == version);
        same.for_each(|entry| owned.union(&entry.fields));
        owned
    };
    if last.api_version == written && others(entries, written).is_empty() {
        merge::prune(schema, &mut merged, &last.fields, &owned(written));
        return Ok(merged);
    }
    let then = last.api_version.as_str();
    let (whole, then_schema) = (convert(&merged, then, versions).await?, versions.schema(then));
    let mut pruned = whole.clone();
    merge::prune(then_schema.as_deref(), &mut pruned, &last.fields, &owned(then));
    if pruned == whole {
        return Ok(merged);
    }
    // What somebody owns in another version comes back.
    let mut others = others(entries, then);
    if then != written {
        others.insert(written);
    }
    for version in others {
        let (mut here, schema) = (convert(&merged, version, versions).await?, versions.schema(version));
        let mut kept = to_set(schema.as_deref(), &convert(&pruned, version, versions).await?);
        kept.union(&owned(version));
        let all = to_set(schema.as_deref(), &here);
        merge::prune(schema.as_deref(), &mut here, &all, &kept);
        pruned = here;
    }
    // Nothing else goes than what the manager applied, whatever the conversions did besides.
    let left = to_set(then_schema.as_deref(), &convert(&pruned, then, versions).await?);
    let mut object = whole;
    merge::prune(then_schema.as_deref(), &mut object, &last.fields, &left);
    convert(&object, written, versions).await
}

/// An object in this version.
async fn convert(object: &Value, to: &str, versions: &dyn Versions) -> Result<Value, Error> {
    let object = object.clone();
    if object["apiVersion"] == to { Ok(object) } else { versions.convert(object, to).await }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::apply::{server_side_apply, tests::done, track_update};

    /// In v1 a size, in v2 a width and a height as one text.
    struct Sizes;

    #[async_trait]
    impl Versions for Sizes {
        fn has(&self, api_version: &str) -> bool {
            matches!(api_version, "e.com/v1" | "e.com/v2")
        }

        fn schema(&self, _: &str) -> Option<Arc<Schema>> {
            None
        }

        async fn convert(&self, mut object: Value, to: &str) -> Result<Value, Error> {
            object["apiVersion"] = to.into();
            let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(object) };
            if to == "e.com/v2" {
                if let (Some(width), Some(height)) = (spec.remove("width"), spec.remove("height")) {
                    spec.insert("size".to_owned(), format!("{width}x{height}").into());
                }
            } else if let Some(size) = spec.remove("size") {
                let size = size.as_str().unwrap_or_default();
                if size == "broken" {
                    return Err(Error::Transport("can't convert".to_owned()));
                }
                let (width, height) = size.split_once('x').unwrap_or_default();
                spec.insert("width".to_owned(), width.parse().unwrap_or(0).into());
                spec.insert("height".to_owned(), height.parse().unwrap_or(0).into());
            }
            Ok(object)
        }
    }

    fn manager<'a>(name: &'a str, api_version: &'a str) -> Manager<'a> {
        Manager { name, subresource: "", api_version, now: "2024-01-01T00:00:00Z", force: false }
    }

    fn object(version: &str, spec: Value) -> Value {
        json!({"apiVersion": version, "kind": "E", "metadata": {"name": "a"}, "spec": spec})
    }

    fn apply(live: Option<&Value>, spec: Value, manager: Manager<'_>) -> Result<Value, Error> {
        let live = live.map(|live| done(to(live, manager.api_version)));
        done(server_side_apply(live.as_ref(), &object(manager.api_version, spec), &manager, None, &Sizes))
    }

    fn update(live: &Value, mut new: Value, manager: Manager<'_>) -> Value {
        let live = done(to(live, manager.api_version));
        new["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
        done(track_update(Some(&live), &mut new, &manager, None, &Sizes));
        new
    }

    async fn to(object: &Value, version: &str) -> Value {
        match object["apiVersion"] == version {
            true => object.clone(),
            false => Sizes.convert(object.clone(), version).await.unwrap(),
        }
    }

    fn owned(object: &Value) -> Vec<(String, String)> {
        let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
        let mut owned: Vec<_> = entries
            .map(|entry| (entry["manager"].as_str().unwrap().to_owned(), entry["fieldsV1"]["f:spec"].to_string()))
            .collect();
        owned.sort();
        owned
    }

    fn of(name: &str, fields: Value) -> (String, String) {
        (name.to_owned(), fields.to_string())
    }

    #[test]
    fn who_owns_a_field_under_another_path_is_in_the_way() {
        let one = apply(None, json!({"width": 1, "height": 2}), manager("one", "e.com/v1")).unwrap();
        let refused = apply(Some(&one), json!({"size": "1x3"}), manager("two", "e.com/v2")).unwrap_err();
        assert_eq!(refused.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.height");
        // Who wants what is there shares it.
        let both = apply(Some(&one), json!({"size": "1x2"}), manager("two", "e.com/v2")).unwrap();
        let (first, second) =
            (of("one", json!({".": {}, "f:height": {}, "f:width": {}})), of("two", json!({".": {}, "f:size": {}})));
        assert_eq!(owned(&both), [first, second.clone()]);
        // Of the others each loses what it has of what was changed.
        let forced = Manager { force: true, ..manager("two", "e.com/v2") };
        let forced = apply(Some(&one), json!({"size": "1x3"}), forced).unwrap();
        assert_eq!(forced["spec"], json!({"size": "1x3"}));
        assert_eq!(owned(&forced), [of("one", json!({".": {}, "f:width": {}})), second]);
    }

    #[test]
    fn an_update_takes_fields_under_all_their_paths() {
        let one = apply(None, json!({"width": 1, "height": 2}), manager("one", "e.com/v1")).unwrap();
        let edited = update(&one, object("e.com/v2", json!({"size": "4x2"})), manager("edit", "e.com/v2"));
        assert_eq!(owned(&edited), [of("edit", json!({"f:size": {}})), of("one", json!({".": {}, "f:height": {}}))]);
        let same = update(&one, object("e.com/v2", json!({"size": "1x2"})), manager("edit", "e.com/v2"));
        assert_eq!(owned(&same), owned(&one));
        // Nobody can say who owns what.
        let broken = update(&one, object("e.com/v2", json!({"size": "broken"})), manager("edit", "e.com/v2"));
        assert!(owned(&broken).is_empty());
    }

    #[test]
    fn what_is_applied_no_more_goes_unless_it_is_owned_under_another_path() {
        let spec = json!({"width": 1, "height": 2, "color": "red"});
        let one = apply(None, spec, manager("one", "e.com/v1")).unwrap();
        let both = apply(Some(&one), json!({"size": "1x2"}), manager("two", "e.com/v2")).unwrap();
        // In whichever version it is left out.
        for version in ["e.com/v1", "e.com/v2"] {
            let left = apply(Some(&both), json!({}), manager("one", version)).unwrap();
            assert_eq!(done(to(&left, "e.com/v2"))["spec"], json!({"size": "1x2"}), "{version}");
            let gone = apply(Some(&left), json!({}), manager("two", version)).unwrap();
            assert_eq!(gone["spec"], json!({}), "{version}");
        }
    }

    #[test]
    fn managers_of_versions_that_are_gone_own_nothing() {
        let mut old = apply(None, json!({"color": "red"}), manager("one", "e.com/v1")).unwrap();
        old["metadata"]["managedFields"][0]["apiVersion"] = "e.com/v0".into();
        let new = apply(Some(&old), json!({"color": "blue"}), manager("two", "e.com/v1")).unwrap();
        assert_eq!(owned(&new), [of("two", json!({".": {}, "f:color": {}}))]);
        let edited = update(&old, object("e.com/v1", json!({"color": "blue"})), manager("edit", "e.com/v1"));
        assert_eq!(owned(&edited), [of("edit", json!({"f:color": {}}))]);
    }
}
