//! The columns of custom resources: `additionalPrinterColumns`.

use serde_json::{Value, json};

use super::jsonpath::JsonPath;
use crate::server::kinds;

/// A column as a definition says it.
#[derive(Debug, Clone)]
pub(crate) struct PrinterColumn {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    path: Option<JsonPath>,
}

/// The columns behind the name of a version of a definition: its own, or the age.
pub(super) fn of(version: &Value) -> Vec<PrinterColumn> {
    let text = |column: &Value, field: &str| column[field].as_str().unwrap_or_default().to_owned();
    let column = |column: &Value| PrinterColumn {
        name: text(column, "name"),
        kind: text(column, "type"),
        format: text(column, "format"),
        description: text(column, "description"),
        priority: column["priority"].as_i64().unwrap_or(0),
        path: JsonPath::parse(column["jsonPath"].as_str().unwrap_or_default()),
    };
    match version["additionalPrinterColumns"].as_array() {
        Some(columns) if !columns.is_empty() => columns.iter().map(column).collect(),
        _ => vec![column(&json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": "CreationTimestamp is a timestamp representing the server time when this object was created."}))],
    }
}

impl PrinterColumn {
    /// The heading, for a Table.
    pub(crate) fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format, "description": self.description,
            "priority": self.priority})
    }

    /// What an object shows in the column (apiextensions' `tableconvertor`).
    pub(crate) fn cell(&self, object: &Value) -> Value {
        let found = self.path.as_ref().map(|path| path.find(object)).unwrap_or_default();
        let Some(first) = found.first() else {
            return if self.kind == "date" { "<unknown>".into() } else { Value::Null };
        };
        match (self.kind.as_str(), *first) {
            (_, Value::Null) => Value::Null,
            ("date", Value::String(time)) => kinds::age(time).into(),
            ("integer", Value::Number(number)) => {
                number.as_i64().or_else(|| number.as_f64().map(|float| float as i64)).into()
            }
            ("number", number @ Value::Number(_)) => number.clone(),
            ("boolean", flag @ Value::Bool(_)) => flag.clone(),
            ("integer" | "number" | "boolean" | "date", _) => Value::Null,
            (_, Value::String(text)) if found.len() == 1 => text.as_str().into(),
            _ => found.iter().map(|value| plain(value)).collect::<Vec<_>>().join(",").into(),
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
