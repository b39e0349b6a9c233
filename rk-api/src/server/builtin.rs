//! The built-in resources: rows made from the published discovery documents and the rules of each kind.

use std::sync::OnceLock;

use serde::Deserialize;

use super::{Row, Subresource, kinds};
use crate::Resource;

/// A line of `data/discovery.json` or `data/discovery-optional.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    group: String,
    version: String,
    kind: String,
    plural: String,
    singular: String,
    namespaced: bool,
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    subresources: Vec<SubresourceLine>,
}

#[derive(Deserialize)]
struct SubresourceLine {
    name: String,
    kind: String,
    group: String,
    version: String,
    verbs: Vec<String>,
}

fn lines() -> &'static [Line] {
    static LINES: OnceLock<Vec<Line>> = OnceLock::new();
    LINES.get_or_init(|| {
        serde_json::from_str(include_str!("../../data/discovery.json"))
            .expect("the built-in discovery data is well-formed")
    })
}

/// The rows of every built-in resource that is served by default, in discovery's order.
pub fn rows() -> Vec<Row> {
    lines().iter().map(row).collect()
}

/// The rows of those that are served if they are asked for.
pub fn optional_rows() -> Vec<Row> {
    let lines: Vec<Line> = serde_json::from_str(include_str!("../../data/discovery-optional.json"))
        .expect("the built-in discovery data is well-formed");
    lines.iter().map(row).collect()
}

fn row(line: &Line) -> Row {
    Row {
        resource: Resource::new(&line.group, &line.version, &line.kind, &line.plural, line.namespaced),
        singular: line.singular.clone(),
        short_names: line.short_names.clone(),
        categories: line.categories.clone(),
        verbs: line.verbs.clone(),
        subresources: line
            .subresources
            .iter()
            .map(|sub| Subresource {
                name: sub.name.clone(),
                kind: sub.kind.clone(),
                group: sub.group.clone(),
                version: sub.version.clone(),
                verbs: sub.verbs.clone(),
            })
            .collect(),
        stored: line.verbs.iter().any(|verb| verb == "get"),
        columns: kinds::columns(&line.group, &line.kind),
        selectable_fields: kinds::selectable_fields(&line.group, &line.kind).iter().map(|&f| f.to_owned()).collect(),
        strategy: kinds::strategy(&line.group, &line.kind),
    }
}
