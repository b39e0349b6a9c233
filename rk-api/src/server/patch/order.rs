//! The order of merged lists: items of the patch in the order of the patch, the others where they were.

use std::cmp::Ordering;

use serde_json::Value;

/// Whether two items are the same: by the merge key, or as scalars.
pub(super) fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

/// Orders `merged`: items that are in `wanted` follow its order, the rest keeps its order in `original`; the two
/// interleave as `original` has them, new items first (strategicpatch's `normalizeElementOrder`).
pub(super) fn arrange(merged: Vec<Value>, wanted: &[Value], original: &[Value], key: Option<&str>) -> Vec<Value> {
    let (mut patched, mut others): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|item| position(wanted, item, key).is_some());
    patched.sort_by_key(|item| position(wanted, item, key));
    others.sort_by(|a, b| match (position(original, a, key), position(original, b, key)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => Ordering::Equal,
    });
    let mut ordered = Vec::with_capacity(patched.len() + others.len());
    let (mut patched, mut others) = (patched.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(left), Some(right)) = (others.peek(), patched.peek()) {
        let places = (position(original, left, key), position(original, right, key));
        let other_first = matches!(places, (Some(left), Some(right)) if left < right);
        ordered.extend(if other_first { others.next() } else { patched.next() });
    }
    ordered.extend(patched);
    ordered.extend(others);
    ordered
}
