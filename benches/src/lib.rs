//! Benches of rk beside its peers; see `RESULTS.md`. Here: how results are printed.

use rk_benches_common::stats;

/// A heading.
pub fn title(text: &str) {
    println!("\n## {text}");
}

/// One figure.
pub fn row(what: &str, value: f64, unit: &str) {
    println!("{what:<44} {:>12} {unit}", stats::number(value));
}

/// The median of some figures.
pub fn median(what: &str, samples: &[f64], unit: &str) {
    row(what, stats::median(samples).unwrap_or_default(), unit);
}
