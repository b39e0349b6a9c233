//! Where objects lie in the store: `/registry/[GROUP/]PLURAL/[NAMESPACE/]NAME`, as Kubernetes lays them out.

use bytes::Bytes;

/// The part of the store that objects live in.
pub(crate) const ROOT: &str = "/registry/";

/// The part of the store that says what is held by which object, so that no other one holds it.
const CLAIMS: &str = "/claims/";

/// The store's key of what objects of a collection hold.
pub(crate) fn claim(collection: &str, what: &str) -> Bytes {
    format!("{CLAIMS}{collection}/{what}").into()
}

/// A collection's name below the root: `pods`, `apps/deployments`.
pub(crate) fn collection(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{group}/{plural}") }
}

/// Whether this is the name that [`collection`] makes.
pub(crate) fn is_collection(name: &str, group: &str, plural: &str) -> bool {
    match name.rsplit_once('/') {
        Some((of, name)) => (of, name) == (group, plural),
        None => group.is_empty() && name == plural,
    }
}

/// An object's name in its collection: `namespace/name`, or `name` for objects of the cluster.
pub(crate) fn item(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// The store's key of an object.
pub(crate) fn full(collection: &str, item: &str) -> Bytes {
    format!("{ROOT}{collection}/{item}").into()
}

/// Splits a store's key into collection and item; `None` if it is not an object's.
pub(crate) fn split(key: &[u8]) -> Option<(&str, &str)> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
    let (first, _) = rest.split_once('/')?;
    // A group has a dot, but for the old ones; no plural has.
    let grouped = first.contains('.') || matches!(first, "apps" | "autoscaling" | "batch" | "policy");
    let depth = if grouped { 2 } else { 1 };
    let (at, _) = rest.match_indices('/').nth(depth - 1)?;
    Some((&rest[..at], &rest[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_split_as_they_were_joined() {
        for (group, plural, namespace, name) in [
            ("", "pods", "default", "a"),
            ("", "nodes", "", "n"),
            ("apps", "deployments", "x", "y"),
            ("a.io", "bs", "", "c"),
        ] {
            let (collection, item) = (collection(group, plural), item(namespace, name));
            assert_eq!(split(&full(&collection, &item)), Some((collection.as_str(), item.as_str())));
        }
        assert_eq!(split(b"/other/pods/a"), None);
        assert_eq!(split(b"/registry/pods"), None);
    }
}
