//! Tables: what kubectl prints, made of a row's columns.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Error, Object,
    server::{Column, catalog::Served, custom::columns::PrinterColumn, kinds},
};

/// What the column of names says of itself.
const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources \
     may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for \
     creation idempotence and configuration definition. Cannot be updated. More info: \
     https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// The group and version of what is made of objects of any kind.
pub(super) const META: &str = "meta.k8s.io/v1";

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

/// What is said of columns, of which the first is the name.
fn described(columns: &[Column]) -> impl Iterator<Item = Value> {
    columns.iter().enumerate().map(|(i, column)| {
        json!({
            "name": column.name, "type": column.kind, "format": if i == 0 { "name" } else { "" },
            "description": column.description, "priority": column.priority,
        })
    })
}

fn definitions(served: &Served) -> Value {
    let columns = described(&served.row.columns);
    let named = json!({"name": "Name", "type": "string", "format": "name", "description": NAME, "priority": 0});
    let custom = served.custom.then_some(named).into_iter();
    columns.chain(custom).chain(served.printer.iter().map(PrinterColumn::definition)).collect()
}

/// Metadata as a `PartialObjectMetadata`.
pub(super) fn partial_of(metadata: Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata})
}

/// The metadata of an object, of which nothing else is read.
///
/// # Errors
/// It can't be read.
pub(super) fn partial(object: &Object) -> Result<Value, Error> {
    #[derive(Deserialize)]
    struct Part {
        metadata: Value,
    }
    let part: Part = serde_json::from_slice(object.json()).map_err(|error| Error::decode(object.kind(), &error))?;
    Ok(partial_of(part.metadata))
}

/// The row of an object.
///
/// # Errors
/// It can't be read.
pub(super) fn row(served: &Served, object: &Object, include: Include) -> Result<Value, Error> {
    let value = object.value()?;
    let cells = served.row.columns.iter().map(|column| (column.cell)(&value));
    let name = served.custom.then(|| value["metadata"]["name"].clone());
    let cells = cells.chain(name).chain(served.printer.iter().map(|column| column.cell(&value))).collect();
    Ok(row_of(cells, value, include))
}

fn row_of(cells: Vec<Value>, mut value: Value, include: Include) -> Value {
    let mut row = json!({"cells": cells});
    match include {
        Include::None => {}
        Include::Metadata => row["object"] = partial_of(value["metadata"].take()),
        Include::Object => row["object"] = value,
    }
    row
}

/// The Table of a Scale: what it shows is not what its object shows.
///
/// # Errors
/// It can't be read.
pub(super) fn of_scale(scale: &Object, include: Include) -> Result<Value, Error> {
    let columns = kinds::columns("autoscaling", "Scale");
    let value = scale.value()?;
    let cells = columns.iter().map(|column| (column.cell)(&value)).collect();
    Ok(json!({
        "kind": "Table", "apiVersion": META, "metadata": {"resourceVersion": scale.meta().resource_version},
        "columnDefinitions": described(&columns).collect::<Value>(), "rows": [row_of(cells, value, include)],
    }))
}

/// A Table without its rows; `heading` tells whether the columns are described.
pub(super) fn head(served: &Served, metadata: Value, heading: bool) -> Value {
    let columns = if heading { definitions(served) } else { Value::Null };
    json!({"kind": "Table", "apiVersion": META, "metadata": metadata, "columnDefinitions": columns})
}

/// The Table of one object.
///
/// # Errors
/// The object can't be read.
pub(super) fn table(served: &Served, object: &Object, include: Include, heading: bool) -> Result<Value, Error> {
    let mut table = head(served, json!({"resourceVersion": object.meta().resource_version}), heading);
    table["rows"] = json!([row(served, object, include)?]);
    Ok(table)
}
