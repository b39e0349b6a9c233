//! The table of results, printed row by row as Markdown.

use crate::stats::{median, number};

/// What a ratio, or the figure itself, must keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// rk-etcd over etcd at least this.
    AtLeast(f64),
    /// rk-etcd over etcd at most this.
    AtMost(f64),
    /// rk's own figure less than this: etcd has none.
    Below(f64),
}

impl Bar {
    /// Whether it is kept to, if what it is about was measured.
    fn holds(self, figure: Option<f64>, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::AtLeast(bar) => ratio.map(|ratio| ratio >= bar),
            Self::AtMost(bar) => ratio.map(|ratio| ratio <= bar),
            Self::Below(bar) => figure.map(|figure| figure < bar),
        }
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, "≥ {bar} ×"),
            Self::AtMost(bar) => write!(f, "≤ {bar} ×"),
            Self::Below(bar) => write!(f, "< {bar}"),
        }
    }
}

/// One measured number.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What was measured, with its unit.
    pub what: &'static str,
    /// The number.
    pub value: f64,
    /// What it must keep to.
    pub bar: Option<Bar>,
}

impl Figure {
    /// A number that is only told.
    pub fn new(what: &'static str, value: f64) -> Self {
        Self { what, value, bar: None }
    }

    /// A number whose ratio must be at least this.
    pub fn at_least(what: &'static str, value: f64, bar: f64) -> Self {
        Self { what, value, bar: Some(Bar::AtLeast(bar)) }
    }

    /// A number whose ratio must be at most this.
    pub fn at_most(what: &'static str, value: f64, bar: f64) -> Self {
        Self { what, value, bar: Some(Bar::AtMost(bar)) }
    }

    /// A number of rk's that must be less than this.
    pub fn below(what: &'static str, value: f64, bar: f64) -> Self {
        Self { what, value, bar: Some(Bar::Below(bar)) }
    }
}

/// Prints the head.
pub fn head() {
    println!("| row | what | etcd | rk-etcd | ratio | bar | holds |");
    println!("| --- | --- | ---: | ---: | ---: | --- | --- |");
}

/// The lines of one row: of the figures of each round, etcd's and rk-etcd's.
pub fn lines(row: &str, etcd: &[Vec<Figure>], rk: &[Vec<Figure>]) -> Vec<String> {
    let Some(first) = rk.first().or(etcd.first()) else { return Vec::new() };
    let column = |rounds: &[Vec<Figure>], at: usize| -> Vec<f64> {
        rounds.iter().filter_map(|figures| figures.get(at)).map(|figure| figure.value).collect()
    };
    let lines = first.iter().enumerate().map(|(at, figure)| {
        let (etcd, rk) = (column(etcd, at), column(rk, at));
        let ratios: Vec<f64> =
            etcd.iter().zip(&rk).filter(|(etcd, _)| **etcd > 0.0).map(|(etcd, rk)| rk / etcd).collect();
        let ratio = median(&ratios);
        let holds = figure.bar.and_then(|bar| bar.holds(median(&rk), ratio));
        let holds = holds.map(|holds| if holds { "yes" } else { "no" });
        format!(
            "| {row} | {} | {} | {} | {} | {} | {} |",
            figure.what,
            median(&etcd).map(number).unwrap_or_default(),
            median(&rk).map(number).unwrap_or_default(),
            ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            figure.bar.map(|bar| bar.to_string()).unwrap_or_default(),
            holds.unwrap_or_default(),
        )
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_own() {
        let rounds = |values: [f64; 3]| values.map(|value| vec![Figure::at_least("puts/s", value, 3.0)]).to_vec();
        let lines = lines("puts-1", &rounds([100.0, 10.0, 1000.0]), &rounds([300.0, 40.0, 2000.0]));
        assert_eq!(lines, ["| puts-1 | puts/s | 100 | 300 | 3.00 | ≥ 3 × | yes |"]);
    }

    #[test]
    fn a_missing_peer_leaves_its_column_empty() {
        let lines = lines("idle", &[], &[vec![Figure::at_most("MiB", 1234.5, 0.5)]]);
        assert_eq!(lines, ["| idle | MiB |  | 1,234 |  | ≤ 0.5 × |  |"]);
        let lines = super::lines("in-process", &[], &[vec![Figure::below("µs", 3.06, 2.0)]]);
        assert_eq!(lines, ["| in-process | µs |  | 3.06 |  | < 2 | no |"]);
    }
}
