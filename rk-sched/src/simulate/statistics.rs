//! Percentiles, means and confidence intervals.

use serde::Serialize;

/// A mean of several runs, with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the width of the interval, by Student's t distribution; 0 for a single run, which tells nothing of it.
    pub margin: f64,
    /// The lowest value.
    pub min: f64,
    /// The highest value.
    pub max: f64,
    /// How many values.
    pub count: usize,
}

/// The 0.975 quantiles of Student's t distribution for 1 to 30 degrees of freedom.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The 0.975 quantile of Student's t distribution. Above 30 degrees of freedom: the first terms of its expansion around the normal
/// distribution's (Abramowitz and Stegun 26.7.5), which are exact to three digits there.
fn t(freedom: usize) -> f64 {
    if let Some(quantile) = freedom.checked_sub(1).and_then(|index| T.get(index)) {
        return *quantile;
    }
    let (z, v) = (1.959_964_f64, freedom.max(1) as f64);
    z + (z.powi(3) + z) / (4.0 * v) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v)
}

impl Estimate {
    /// The estimate from values; `None` from none.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let margin = if count > 1 {
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1) as f64;
            t(count - 1) * (variance / count as f64).sqrt()
        } else {
            0.0
        };
        let fold = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).unwrap_or(mean);
        Some(Self { mean, margin, min: fold(f64::min), max: fold(f64::max), count })
    }

    /// The estimate of how much larger each value is than the other one beside it: for runs of the same seeds, what
    /// changes from seed to seed falls out.
    pub fn of_differences(values: &[f64], others: &[f64]) -> Option<Self> {
        let differences: Vec<f64> = values.iter().zip(others).map(|(value, other)| value - other).collect();
        Self::of(&differences)
    }

    /// Whether the interval lies on one side of zero.
    pub fn is_significant(&self) -> bool {
        self.count > 1 && self.mean.abs() > self.margin
    }
}

/// The value below or at which `part` (0 to 1) of the sorted values lie (nearest rank); 0 of none.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank.min(sorted.len()).wrapping_sub(1)).copied().unwrap_or(0.0)
}

/// Mean and percentiles of a distribution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// 90 % are not above it.
    pub p90: f64,
    /// 99 % are not above it.
    pub p99: f64,
    /// The highest.
    pub max: f64,
}

impl Distribution {
    /// Of values sorted by size.
    pub fn of(sorted: &[f64]) -> Self {
        Self {
            mean: if sorted.is_empty() { 0.0 } else { sorted.iter().sum::<f64>() / sorted.len() as f64 },
            p50: percentile(sorted, 0.5),
            p90: percentile(sorted, 0.9),
            p99: percentile(sorted, 0.99),
            max: sorted.last().copied().unwrap_or(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn intervals_are_those_of_the_textbook() {
        // Mean 5, standard deviation 2, 4 values: 3.182 * 2 / sqrt(4).
        let values = [5.0 - 3.0_f64.sqrt(), 5.0 - 3.0_f64.sqrt(), 5.0 + 3.0_f64.sqrt(), 5.0 + 3.0_f64.sqrt()];
        let estimate = Estimate::of(&values).unwrap();
        assert!((estimate.mean - 5.0).abs() < 1e-9 && (estimate.margin - 3.182).abs() < 1e-9, "{estimate:?}");
        assert_eq!(Estimate::of(&[3.0]).unwrap().margin, 0.0);
        assert_eq!(Estimate::of(&[]), None);
        let differences = Estimate::of_differences(&[2.0, 12.0, 102.0], &[1.0, 11.0, 101.0]).unwrap();
        assert_eq!((differences.mean, differences.margin, differences.is_significant()), (1.0, 0.0, true));
    }

    #[test]
    fn quantiles_fall_towards_those_of_the_normal_distribution() {
        // From published tables.
        for (freedom, expected) in
            [(1, 12.706), (30, 2.042), (31, 2.040), (40, 2.021), (60, 2.000), (120, 1.980), (100_000, 1.960)]
        {
            assert!((t(freedom) - expected).abs() < 0.002, "{freedom}: {}", t(freedom));
        }
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_counting(mut values in prop::collection::vec(-1e6..1e6_f64, 1..200), part in 0.01..1.0_f64) {
            values.sort_by(f64::total_cmp);
            let found = percentile(&values, part);
            let at_most = values.iter().filter(|value| **value <= found).count() as f64;
            let below = values.iter().filter(|value| **value < found).count() as f64;
            let wanted = part * values.len() as f64;
            prop_assert!(values.contains(&found));
            prop_assert!(at_most >= wanted && below < wanted, "{found}: {below} below, {at_most} at most, {wanted} wanted");
        }

        #[test]
        fn estimates_are_those_of_the_naive_formulas(values in prop::collection::vec(-1e3..1e3_f64, 2..60)) {
            let n = values.len() as f64;
            let sum: f64 = values.iter().sum();
            let squares: f64 = values.iter().map(|value| value * value).sum();
            let variance = (squares - sum * sum / n) / (n - 1.0);
            let estimate = Estimate::of(&values).unwrap();
            prop_assert!((estimate.mean - sum / n).abs() < 1e-6);
            let margin = t(values.len() - 1) * (variance.max(0.0) / n).sqrt();
            prop_assert!((estimate.margin - margin).abs() < 1e-3, "{} {margin}", estimate.margin);
            prop_assert!(estimate.min <= estimate.mean + 1e-9 && estimate.mean <= estimate.max + 1e-9);
        }
    }
}
