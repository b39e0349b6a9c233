//! The table: a row for each figure, a column for each engine.

use std::collections::BTreeMap;

use rk_benches_common::stats::{median, number};

use crate::Kind;

/// Figures of several rounds.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<String>,
    values: BTreeMap<(String, &'static str), Vec<f64>>,
}

impl Table {
    /// Adds a figure of one round.
    pub fn add(&mut self, row: &str, kind: Kind, value: f64) {
        if !self.rows.iter().any(|known| known == row) {
            self.rows.push(row.to_owned());
        }
        self.values.entry((row.to_owned(), kind.name())).or_default().push(value);
    }

    /// The medians, as Markdown.
    pub fn print(&self, kinds: &[Kind]) -> String {
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        let mut out = format!("| what | {} |\n| --- |{}\n", names.join(" | "), " --- |".repeat(names.len()));
        for row in &self.rows {
            let cell = |name: &&'static str| {
                self.values.get(&(row.clone(), *name)).and_then(|samples| median(samples)).map_or("-".into(), number)
            };
            let cells: Vec<String> = names.iter().map(cell).collect();
            out.push_str(&format!("| {row} | {} |\n", cells.join(" | ")));
        }
        out
    }
}
