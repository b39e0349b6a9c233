//! Merging what is applied into what is there, and removing what is applied no more.

use serde_json::{Map, Value};

use super::{
    fieldset::FieldSet,
    typed::{Parts, field_element, item_element, parts},
};
use crate::server::schema::{ListType, Schema};

/// The live object with the applied fields.
pub(super) fn merge(schema: Option<&Schema>, live: &Value, applied: &Value) -> Value {
    match (parts(schema, applied), live, applied) {
        (Parts::Map, Value::Object(live), Value::Object(applied)) => {
            let mut merged = live.clone();
            for (name, value) in applied {
                let field = schema.and_then(|schema| schema.field(name));
                let value = match live.get(name) {
                    Some(live) => merge(field, live, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Parts::Items(kind), Value::Array(live), Value::Array(applied)) => {
            Value::Array(merge_items(kind, schema.and_then(Schema::items), live, applied))
        }
        _ => applied.clone(),
    }
}

/// Applied items in their order; the others where they were between them.
fn merge_items(kind: &ListType, items: Option<&Schema>, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let elements = |list: &[Value]| list.iter().map(|item| item_element(kind, items, item)).collect::<Vec<_>>();
    let (live_elements, applied_elements) = (elements(live), elements(applied));
    // The items of both, in the applied order: where the two lists meet.
    let mut shared = applied_elements.iter().filter(|element| live_elements.contains(element)).peekable();
    let mut merged = Vec::with_capacity(live.len() + applied.len());
    let (mut at_live, mut at_applied) = (0, 0);
    while at_live < live.len() || at_applied < applied.len() {
        if let Some(element) = live_elements.get(at_live) {
            if !applied_elements.contains(element) {
                merged.push(live[at_live].clone());
                at_live += 1;
                continue;
            }
            // It was merged at its applied place, or will be.
            if shared.peek() != Some(&element) {
                at_live += 1;
                continue;
            }
        }
        let Some(element) = applied_elements.get(at_applied) else { break };
        let item = &applied[at_applied];
        merged.push(match live_elements.iter().position(|other| other == element) {
            Some(at) => merge(items, &live[at], item),
            None => item.clone(),
        });
        shared.next_if(|next| *next == element);
        at_applied += 1;
    }
    merged
}

/// Removes from the object what was applied last and is in nobody's set now.
///
/// A field that is gone goes with all below it, owned or not, as does an item that was owned itself.
pub(super) fn prune(schema: Option<&Schema>, object: &mut Value, last: &FieldSet, kept: &FieldSet) {
    match (parts(schema, object), object) {
        (Parts::Map, Value::Object(map)) => {
            let mut pruned = Map::with_capacity(map.len().min(16));
            for (name, mut value) in std::mem::take(map) {
                let element = field_element(&name);
                let named = schema.is_some_and(|schema| schema.is_named_field(&name));
                let field = schema.and_then(|schema| schema.field(&name));
                if keep(field, &mut value, &element, named, last, kept) {
                    pruned.insert(name, value);
                }
            }
            *map = pruned;
        }
        (Parts::Items(kind), Value::Array(list)) => {
            let items = schema.and_then(Schema::items);
            list.retain_mut(|item| {
                let element = item_element(kind, items, item);
                keep(items, item, &element, false, last, kept)
            });
        }
        _ => {}
    }
}

fn keep(
    schema: Option<&Schema>,
    value: &mut Value,
    element: &str,
    named: bool,
    last: &FieldSet,
    kept: &FieldSet,
) -> bool {
    let Some(last) = last.children.get(element) else { return true };
    let none = FieldSet::default();
    let kept = kept.children.get(element).unwrap_or(&none);
    let is_kept = kept.member || (named && !kept.is_empty());
    if !is_kept && (last.member || named) {
        return false;
    }
    prune(schema, value, last, kept);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_keep_the_applied_order_and_others_their_place() {
        let pod = Schema::builtin("", "v1", "Pod").unwrap();
        let list = pod.field("spec").and_then(|spec| spec.field("containers"));
        let names = |names: &str| Value::Array(names.chars().map(|name| json!({"name": name.to_string()})).collect());
        for (live, applied, merged) in [
            ("abc", "", "abc"),
            ("", "ab", "ab"),
            ("axb", "ab", "axb"),
            ("xab", "ab", "xab"),
            ("abx", "ab", "abx"),
            ("ab", "ba", "ba"),
            ("ab", "acb", "acb"),
            ("axb", "ba", "xba"),
        ] {
            let result = merge(list, &names(live), &names(applied));
            let found: String = result.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
            let mut sorted: Vec<_> = found.chars().collect();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), found.len(), "{live} {applied}: {found}");
            assert_eq!(found, merged, "{live} {applied}");
        }
    }
}
