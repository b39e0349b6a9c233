//! Who owns which fields: `metadata.managedFields`.

use serde_json::{Value, json};

use super::{Manager, fieldset::FieldSet};

/// The most managers that update; of more, those who changed nothing for the longest become one.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// One entry: a manager, how it writes, and its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) subresource: String,
    pub(super) api_version: String,
    pub(super) applies: bool,
    pub(super) time: String,
    pub(super) fields: FieldSet,
}

impl Entry {
    pub(super) fn new(manager: &Manager<'_>, applies: bool, fields: FieldSet) -> Self {
        Self {
            name: manager.name.to_owned(),
            subresource: manager.subresource.to_owned(),
            api_version: manager.api_version.to_owned(),
            applies,
            time: manager.now.to_owned(),
            fields,
        }
    }

    /// Whether this is the entry of a manager: appliers have one for all versions.
    pub(super) fn is_of(&self, manager: &Manager<'_>, applies: bool) -> bool {
        self.applies == applies
            && self.name == manager.name
            && self.subresource == manager.subresource
            && (applies || self.api_version == manager.api_version)
    }

    /// What the order of entries goes by.
    fn place(&self) -> (bool, &str, &str, &str, &str) {
        (!self.applies, &self.time, &self.name, &self.api_version, &self.subresource)
    }

    /// As conflicts name it: `"kubectl" using apps/v1`.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applies {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// Reads `managedFields`; `None` if an entry is not of the form.
pub(super) fn decode(entries: &Value) -> Option<Vec<Entry>> {
    entries.as_array()?.iter().map(decode_entry).collect()
}

fn decode_entry(entry: &Value) -> Option<Entry> {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    if entry["fieldsType"] != "FieldsV1" {
        return None;
    }
    Some(Entry {
        name: text("manager"),
        subresource: text("subresource"),
        api_version: text("apiVersion"),
        applies: match entry["operation"].as_str()? {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        },
        time: text("time"),
        fields: FieldSet::decode_root(&entry["fieldsV1"]),
    })
}

/// Writes `managedFields`: appliers first, then by time and name. Empty ones are left out.
pub(super) fn encode(mut entries: Vec<Entry>) -> Option<Value> {
    entries.retain(|entry| !entry.fields.is_empty());
    cap_updaters(&mut entries);
    entries.sort_by(|a, b| a.place().cmp(&b.place()));
    let encoded: Vec<_> = entries.into_iter().map(encode_entry).collect();
    (!encoded.is_empty()).then_some(Value::Array(encoded))
}

fn encode_entry(entry: Entry) -> Value {
    let mut value = json!({
        "manager": entry.name,
        "operation": if entry.applies { "Apply" } else { "Update" },
        "apiVersion": entry.api_version,
        "fieldsType": "FieldsV1",
    });
    value["fieldsV1"] = entry.fields.encode();
    for (key, text) in [("time", entry.time), ("subresource", entry.subresource)] {
        if !text.is_empty() {
            value[key] = text.into();
        }
    }
    value
}

/// Joins the oldest updaters where there are too many.
fn cap_updaters(entries: &mut Vec<Entry>) {
    let is_updater = |entry: &Entry| !entry.applies && entry.subresource.is_empty();
    while entries.iter().filter(|entry| is_updater(entry)).count() > MAX_UPDATERS {
        let oldest = |entries: &[Entry]| {
            let updaters = entries.iter().enumerate().filter(|(_, entry)| is_updater(entry) && entry.name != ANCIENT);
            updaters.min_by(|(_, a), (_, b)| a.time.cmp(&b.time)).map(|(at, _)| at)
        };
        let Some(at) = oldest(entries) else { return };
        let mut joined = entries.remove(at);
        let ancient =
            |entry: &Entry| entry.name == ANCIENT && entry.api_version == joined.api_version && is_updater(entry);
        match entries.iter().position(ancient) {
            Some(at) => {
                entries[at].fields.union(&joined.fields);
                entries[at].time = joined.time;
            }
            None => {
                joined.name = ANCIENT.to_owned();
                entries.push(joined);
            }
        }
    }
}

/// Takes out what nobody owns: the fields that name the object, and those that are the server's.
pub(super) fn strip(set: &mut FieldSet) {
    for field in ["f:apiVersion", "f:kind"] {
        set.children.remove(field);
    }
    if let Some(metadata) = set.children.get_mut("f:metadata") {
        metadata.member = false;
        for field in [
            "f:name",
            "f:namespace",
            "f:creationTimestamp",
            "f:selfLink",
            "f:uid",
            "f:clusterName",
            "f:generation",
            "f:managedFields",
            "f:resourceVersion",
        ] {
            metadata.children.remove(field);
        }
        if metadata.children.is_empty() {
            set.children.remove("f:metadata");
        }
    }
}
