//! Tables: what kubectl prints, made of a row's columns.

use serde_json::{Value, json};

use crate::{
    Error, Object,
    server::{catalog::Served, custom::columns::PrinterColumn},
};

/// What the column of names says of itself.
const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources \
     may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for \
     creation idempotence and configuration definition. Cannot be updated. More info: \
     https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// How much of each object goes with its cells (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// The value of the query parameter; metadata by default.
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "None" => Self::None,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

fn definitions(served: &Served) -> Value {
    let columns = served.row.columns.iter().enumerate().map(|(i, column)| {
        json!({
            "name": column.name, "type": column.kind, "format": if i == 0 { "name" } else { "" },
            "description": column.description, "priority": column.priority,
        })
    });
    let named = json!({"name": "Name", "type": "string", "format": "name", "description": NAME, "priority": 0});
    let custom = served.custom.then_some(named).into_iter();
    columns.chain(custom).chain(served.printer.iter().map(PrinterColumn::definition)).collect()
}

/// The metadata of an object as `PartialObjectMetadata`.
pub(super) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn row(served: &Served, object: &Object, include: Include) -> Result<Value, Error> {
    let value = object.value()?;
    let cells = served.row.columns.iter().map(|column| (column.cell)(&value));
    let name = served.custom.then(|| value["metadata"]["name"].clone());
    let cells: Vec<Value> = cells.chain(name).chain(served.printer.iter().map(|column| column.cell(&value))).collect();
    let mut row = json!({"cells": cells});
    match include {
        Include::None => {}
        Include::Metadata => row["object"] = partial(&value),
        Include::Object => row["object"] = value,
    }
    Ok(row)
}

/// The Table of some objects; `heading` tells whether the columns are described.
///
/// # Errors
/// An object can't be read.
pub(super) fn table<'a>(
    served: &Served,
    objects: impl IntoIterator<Item = &'a Object>,
    metadata: Value,
    include: Include,
    heading: bool,
) -> Result<Value, Error> {
    let rows = objects.into_iter().map(|object| row(served, object, include)).collect::<Result<Vec<_>, _>>()?;
    let columns = if heading { definitions(served) } else { Value::Null };
    Ok(json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows,
    }))
}
