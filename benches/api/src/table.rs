//! The table of results, printed row by row as Markdown.

use crate::stats::{median, number};

/// What a figure must keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Bar {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bar) => value >= bar,
            Self::AtMost(bar) => value <= bar,
        }
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, "≥ {}", number(*bar)),
            Self::AtMost(bar) => write!(f, "≤ {}", number(*bar)),
        }
    }
}

/// One measured number.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What was measured, with its unit.
    pub what: String,
    /// The number.
    pub value: f64,
    /// What it must keep to.
    pub bar: Option<Bar>,
    /// What kube-apiserver did elsewhere: see [`head`].
    pub orientation: &'static str,
}

impl Figure {
    /// A number that is only told.
    pub fn new(what: impl Into<String>, value: f64) -> Self {
        Self { what: what.into(), value, bar: None, orientation: "" }
    }

    /// It must be at least this.
    #[must_use]
    pub fn at_least(self, bar: f64) -> Self {
        Self { bar: Some(Bar::AtLeast(bar)), ..self }
    }

    /// It must be at most this.
    #[must_use]
    pub fn at_most(self, bar: f64) -> Self {
        Self { bar: Some(Bar::AtMost(bar)), ..self }
    }

    /// With what kube-apiserver did elsewhere.
    #[must_use]
    pub fn beside(self, orientation: &'static str) -> Self {
        Self { orientation, ..self }
    }
}

/// The head of the table, and what its last column is.
pub fn head() -> [&'static str; 4] {
    [
        "The last column is no measurement of this run: kube-apiserver 1.36.2 with etcd 3.6.8 on two cores, taken elsewhere.\n",
        "",
        "| row | what | measured | bar | holds | kube-apiserver, elsewhere, for orientation |",
        "| --- | --- | ---: | ---: | --- | ---: |",
    ]
}

/// The lines of one row, of the figures of its rounds.
pub fn lines(row: &str, rounds: &[Vec<Figure>]) -> Vec<String> {
    let Some(first) = rounds.first() else { return Vec::new() };
    let line = |(at, figure): (usize, &Figure)| {
        let values: Vec<f64> = rounds.iter().filter_map(|figures| figures.get(at)).map(|figure| figure.value).collect();
        let value = median(&values).unwrap_or_default();
        format!(
            "| {row} | {} | {} | {} | {} | {} |",
            figure.what,
            number(value),
            figure.bar.map(|bar| bar.to_string()).unwrap_or_default(),
            figure.bar.map_or("", |bar| if bar.holds(value) { "yes" } else { "no" }),
            figure.orientation,
        )
    };
    first.iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_the_median_and_whether_it_holds() {
        let rounds = [100.0, 10.0, 1000.0].map(|value| vec![Figure::new("gets/s", value).at_least(99.0).beside("7")]);
        assert_eq!(lines("get", &rounds), ["| get | gets/s | 100 | ≥ 99.0 | yes | 7 |"]);
    }
}
