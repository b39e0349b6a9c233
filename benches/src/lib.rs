//! Benches of rk beside its peers; see `RESULTS.md`. Here: how results are printed.

/// A heading.
pub fn title(text: &str) {
    println!("\n## {text}");
}

/// One figure.
pub fn row(what: &str, value: f64, unit: &str) {
    println!("{what:<44} {value:>12.1} {unit}");
}

/// The median of some samples; 0 of none.
pub fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(super::median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(super::median(&mut []), 0.0);
    }
}
