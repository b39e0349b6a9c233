//! Sets of field paths, in the form of `FieldsV1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of paths as a trie. Each key is an element of `FieldsV1`: `f:NAME` a field, `k:{...}` the item of a list with
/// these keys, `v:VALUE` the item of a set, `i:INDEX` an item by place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// Whether the path that leads here is itself in the set.
    pub(super) member: bool,
    pub(super) children: Children,
}

/// The elements below a path, in order, and the set below each. Most have few, and get them in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Children(Vec<(Box<str>, FieldSet)>);

impl Children {
    fn place(&self, element: &str) -> Result<usize, usize> {
        match self.0.last() {
            Some((last, _)) if **last < *element => Err(self.0.len()),
            _ => self.0.binary_search_by(|(other, _)| (**other).cmp(element)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, element: &str) -> Option<&FieldSet> {
        self.place(element).ok().map(|at| &self.0[at].1)
    }

    pub(super) fn get_mut(&mut self, element: &str) -> Option<&mut FieldSet> {
        self.place(element).ok().map(|at| &mut self.0[at].1)
    }

    /// The set below an element, an empty one if there was none.
    pub(super) fn below(&mut self, element: impl AsRef<str> + Into<Box<str>>) -> &mut FieldSet {
        let at = self.place(element.as_ref()).unwrap_or_else(|at| {
            self.0.insert(at, (element.into(), FieldSet::default()));
            at
        });
        &mut self.0[at].1
    }

    pub(super) fn remove(&mut self, element: &str) {
        if let Ok(at) = self.place(element) {
            self.0.remove(at);
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&str, &mut FieldSet) -> bool) {
        self.0.retain_mut(|(element, inner)| keep(element, inner));
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &FieldSet)> {
        self.0.iter().map(|(element, inner)| (&**element, inner))
    }
}

impl FieldSet {
    /// Reads `FieldsV1`; what is not of its form is left out.
    pub(super) fn decode(fields: &Value) -> Self {
        let Some(map) = fields.as_object() else { return Self::default() };
        let elements = map.iter().filter(|(element, _)| *element != ".");
        let mut children: Vec<_> =
            elements.map(|(element, inner)| (element.as_str().into(), Self::decode(inner))).collect();
        // Nothing to do, unless a program chooses the feature `preserve_order` of serde_json.
        children.sort_unstable_by(|(a, _): &(Box<str>, Self), (b, _)| a.cmp(b));
        Self { member: map.is_empty() || map.contains_key("."), children: Children(children) }
    }

    /// The root's set: `{}` is the empty set there.
    pub(super) fn decode_root(fields: &Value) -> Self {
        Self { member: false, ..Self::decode(fields) }
    }

    /// Writes `FieldsV1`.
    pub(super) fn encode(self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        map.extend(self.children.0.into_iter().map(|(element, inner)| (element.into_string(), inner.encode())));
        Value::Object(map)
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    pub(super) fn insert(&mut self, path: &[Box<str>]) {
        self.at(path).member = true;
    }

    /// Adds all paths of another set below a path.
    pub(super) fn insert_below(&mut self, path: &[Box<str>], set: Self) {
        let node = self.at(path);
        if node.is_empty() { *node = set } else { node.union(&set) }
    }

    fn at(&mut self, path: &[Box<str>]) -> &mut Self {
        let mut node = self;
        for element in path {
            node = node.children.below(&**element);
        }
        node
    }

    /// Whether a path is in the set.
    pub(super) fn has(&self, path: &[Box<str>]) -> bool {
        let mut node = self;
        for element in path {
            let Some(inner) = node.children.get(element) else { return false };
            node = inner;
        }
        node.member
    }

    /// Adds all paths of another set.
    pub(super) fn union(&mut self, other: &Self) {
        self.member |= other.member;
        for (element, inner) in other.children.iter() {
            self.children.below(element).union(inner);
        }
    }

    /// Removes the paths of another set; what lies below them stays.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        if other.children.is_empty() {
            return;
        }
        self.children.retain(|element, inner| {
            if let Some(other) = other.children.get(element) {
                inner.subtract(other);
            }
            !inner.is_empty()
        });
    }

    /// Removes a path and all below it.
    pub(super) fn remove_below(&mut self, path: &[&str]) {
        match path {
            [] => *self = Self::default(),
            [element] => {
                self.children.remove(element);
            }
            [element, rest @ ..] => {
                if let Some(inner) = self.children.get_mut(element) {
                    inner.remove_below(rest);
                    if inner.is_empty() {
                        self.children.remove(element);
                    }
                }
            }
        }
    }

    /// The paths in both sets, as Kubernetes writes them: `.spec.containers[name="a"].image`.
    pub(super) fn common(&self, other: &Self) -> Vec<String> {
        fn walk(a: &FieldSet, b: &FieldSet, path: &str, found: &mut Vec<String>) {
            if a.member && b.member {
                found.push(path.to_owned());
            }
            for (element, inner) in a.children.iter() {
                if let Some(other) = b.children.get(element) {
                    walk(inner, other, &format!("{path}{}", element_text(element)), found);
                }
            }
        }
        let mut found = Vec::new();
        walk(self, other, "", &mut found);
        found
    }
}

/// An element as part of a printed path.
pub(super) fn element_text(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => match serde_json::from_str::<BTreeMap<String, Value>>(keys) {
            Ok(keys) => {
                let keys: Vec<_> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("[{}]", keys.join(","))
            }
            Err(_) => format!("[{keys}]"),
        },
        Some((_, index)) => format!("[{index}]"),
        None => element.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_v1_round_trips() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}, "f:replicas": {}},
        });
        assert_eq!(FieldSet::decode_root(&fields).encode(), fields);
        assert!(FieldSet::decode_root(&json!({})).is_empty());
    }

    #[test]
    fn subtracting_a_path_keeps_what_lies_below() {
        let mut set = FieldSet::decode_root(&json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        set.subtract(&FieldSet::decode_root(&json!({"f:a": {}, "f:c": {}})));
        assert_eq!(set.encode(), json!({"f:a": {"f:b": {}}}));
    }

    #[test]
    fn paths_are_written_as_kubernetes_does() {
        let fields = json!({"f:spec": {"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {"f:name": {}}}, "f:set": {"v:\"x\"": {}}}});
        let set = FieldSet::decode_root(&fields);
        assert_eq!(set.common(&set), [r#".spec.ports[containerPort=80,protocol="TCP"].name"#, r#".spec.set[="x"]"#]);
    }
}
