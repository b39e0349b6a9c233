//! Telling what came of an experiment: as a table, CSV, JSON, and a page with plots.

mod html;
mod plot;

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    experiment::{Comparison, Outcome},
    record::Summary,
    simulation::Run,
    statistics::Estimate,
};

pub use self::{html::html, plot::PlotError};

/// Something that is measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Metric {
    /// Its name, such as `wait_p99` or `utilization.cpu`.
    pub name: String,
    /// Its unit: `s`, `pods/s`, `%`, or nothing for a count.
    pub unit: &'static str,
}

/// All that is measured of a run.
fn values(summary: &Summary) -> Vec<(Metric, f64)> {
    let metric = |name: &str, unit, value| (Metric { name: name.to_owned(), unit }, value);
    let mut values = vec![
        metric("makespan", "s", summary.makespan),
        metric("throughput", "pods/s", summary.throughput),
        metric("wait_mean", "s", summary.wait.mean),
        metric("wait_p50", "s", summary.wait.p50),
        metric("wait_p90", "s", summary.wait.p90),
        metric("wait_p99", "s", summary.wait.p99),
        metric("wait_max", "s", summary.wait.max),
    ];
    let parts =
        [("utilization", &summary.utilization), ("fragmentation", &summary.fragmentation), ("share", &summary.shares)];
    for (of, parts) in parts {
        values.extend(parts.iter().map(|(name, part)| metric(&format!("{of}.{name}"), "%", part * 100.0)));
    }
    values.push(metric("spread", "%", summary.spread * 100.0));
    let counts = [
        ("pods", summary.pods),
        ("scheduled", summary.scheduled),
        ("unscheduled", summary.unscheduled),
        ("finished", summary.finished),
        ("attempts", summary.attempts),
        ("preemptions", summary.preemptions),
        ("failures", summary.failures),
        ("lost", summary.lost),
        ("failed_bindings", summary.failed_bindings),
    ];
    values.extend(counts.map(|(name, count)| metric(name, "", count as f64)));
    values
}

impl Outcome {
    /// The values of a metric, by run. A run that does not tell it, such as the share of nodes that it has not seen, has none of it.
    fn of(&self, metric: &Metric) -> Vec<f64> {
        let of = |run: &Run| values(&run.summary).into_iter().find(|(known, _)| known == metric);
        self.runs.iter().map(|run| of(run).map_or(0.0, |(_, value)| value)).collect()
    }
}

impl Comparison {
    /// What is measured in any of the runs.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut runs = self.outcomes.iter().flat_map(|outcome| &outcome.runs);
        let Some(first) = runs.next() else { return Vec::new() };
        let mut all = first.summary.clone();
        for run in runs {
            let more = &run.summary;
            let parts = [
                (&mut all.utilization, &more.utilization),
                (&mut all.fragmentation, &more.fragmentation),
                (&mut all.shares, &more.shares),
            ];
            for (known, new) in parts {
                known.extend(new.iter().map(|(name, part)| (name.clone(), *part)));
            }
        }
        values(&all).into_iter().map(|(metric, _)| metric).collect()
    }

    /// By metric and scheduler: the estimate, and that of the difference from the first scheduler.
    pub fn estimates(&self) -> Vec<(Metric, Vec<(Estimate, Estimate)>)> {
        let all = self.metrics().into_iter().map(|metric| {
            let first = self.outcomes.first().map(|outcome| outcome.of(&metric)).unwrap_or_default();
            let estimates = self.outcomes.iter().filter_map(|outcome| {
                let values = outcome.of(&metric);
                Some((Estimate::of(&values)?, Estimate::of_differences(&values, &first)?))
            });
            let estimates = estimates.collect();
            (metric, estimates)
        });
        all.collect()
    }

    /// What workloads waited for in vain, with the scheduler and the seed.
    pub fn stalls(&self) -> Vec<String> {
        let runs = self.outcomes.iter().flat_map(|outcome| outcome.runs.iter().map(move |run| (&outcome.name, run)));
        let stalls = runs.filter_map(|(name, run)| {
            let stalled = run.summary.stalled.as_ref()?;
            Some(format!("{name}, seed {}: {stalled}", run.summary.seed))
        });
        stalls.collect()
    }
}

/// A number as people read it: three digits that say something, and not more than six behind the point.
fn number(value: f64) -> String {
    let text = match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.3}"),
        size if size >= 0.01 => format!("{value:.4}"),
        size if size >= 0.001 => format!("{value:.5}"),
        _ => format!("{value:.6}"),
    };
    let trimmed = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if trimmed == "-0" { "0".to_owned() } else { trimmed.to_owned() }
}

/// An estimate as people read it, with its difference from the first scheduler's where that is not nothing but chance.
fn cell(estimate: &Estimate, difference: &Estimate) -> String {
    let mut text = number(estimate.mean);
    if number(estimate.margin) != "0" {
        let _ = write!(text, " ± {}", number(estimate.margin));
    }
    if difference.is_significant() && number(difference.mean) != "0" {
        let sign = if difference.mean > 0.0 { "+" } else { "" };
        let _ = write!(text, " ({sign}{})", number(difference.mean));
    }
    text
}

/// A table for a terminal: means with their 95 % confidence intervals; in brackets differences from the first
/// scheduler whose 95 % confidence interval (of pairs of runs of one seed) does not hold 0.
pub fn table(comparison: &Comparison) -> String {
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(comparison.outcomes.iter().map(|outcome| outcome.name.clone()));
    for (metric, estimates) in comparison.estimates() {
        let name = if metric.unit.is_empty() { metric.name } else { format!("{} [{}]", metric.name, metric.unit) };
        let cells = estimates.iter().map(|(estimate, difference)| cell(estimate, difference));
        rows.push(std::iter::once(name).chain(cells).collect());
    }
    let columns = comparison.outcomes.len() + 1;
    let widest = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|text: &String| text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if at == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A line for each metric of each run: `workload,scheduler,seed,metric,unit,value`.
///
/// # Errors
/// None that can be thought of: it is written to memory.
pub fn csv(comparison: &Comparison) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["workload", "scheduler", "seed", "metric", "unit", "value"])?;
    for outcome in &comparison.outcomes {
        for run in &outcome.runs {
            let seed = run.summary.seed.to_string();
            for (metric, value) in values(&run.summary) {
                let value = value.to_string();
                writer.write_record([&comparison.workload, &outcome.name, &seed, &metric.name, metric.unit, &value])?;
            }
        }
    }
    writer.flush()?;
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Everything: estimates, and each run's figures and course.
pub fn json(comparison: &Comparison) -> Value {
    let estimates = comparison.estimates();
    let schedulers: Vec<Value> = comparison
        .outcomes
        .iter()
        .enumerate()
        .map(|(index, outcome)| {
            let metrics: serde_json::Map<String, Value> = estimates
                .iter()
                .filter_map(|(metric, all)| {
                    let (estimate, difference) = all.get(index)?;
                    let value = json!({"unit": metric.unit, "estimate": estimate, "difference": difference});
                    Some((metric.name.clone(), value))
                })
                .collect();
            let runs: Vec<Value> = outcome
                .runs
                .iter()
                .map(|run| {
                    let resources: Vec<&str> = run.resources.iter().map(AsRef::as_ref).collect();
                    json!({
                        "summary": run.summary, "resources": resources, "samples": run.samples,
                        "history": run.history, "explanations": run.explanations,
                    })
                })
                .collect();
            json!({"name": outcome.name, "metrics": metrics, "runs": runs})
        })
        .collect();
    json!({"workload": comparison.workload, "schedulers": schedulers})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison() -> Comparison {
        let run = |seed, makespan| Run {
            summary: Summary { seed, makespan, pods: 10, ..Summary::default() },
            samples: Vec::new(),
            resources: Vec::new(),
            waits: vec![1.0],
            history: Vec::new(),
            explanations: Vec::new(),
        };
        let outcome = |name: &str, by| Outcome {
            name: name.to_owned(),
            runs: vec![run(1, 100.0 + by), run(2, 110.0 + by), run(3, 120.0 + by)],
        };
        Comparison { workload: "w".to_owned(), outcomes: vec![outcome("a", 0.0), outcome("b", -20.0)] }
    }

    #[test]
    fn tables_tell_means_intervals_and_differences_that_are_no_chance() {
        let text = table(&comparison());
        let makespan = text.lines().find(|line| line.starts_with("makespan")).unwrap();
        // 4.303 * 10 / sqrt(3) is the margin.
        assert_eq!(
            makespan.split_whitespace().collect::<Vec<_>>().join(" "),
            "makespan [s] 110 ± 24.8 90 ± 24.8 (-20)"
        );
        assert!(text.lines().any(|line| line.split_whitespace().eq(["pods", "10", "10"])), "{text}");
    }

    #[test]
    fn csv_has_a_line_for_each_value() {
        let text = csv(&comparison()).unwrap();
        assert!(text.starts_with("workload,scheduler,seed,metric,unit,value\nw,a,1,makespan,s,100\n"), "{text}");
        assert_eq!(text.lines().count(), 1 + 6 * comparison().metrics().len());
    }

    #[test]
    fn json_has_estimates_and_runs() {
        let value = json(&comparison());
        assert_eq!(value["schedulers"][1]["metrics"]["makespan"]["difference"]["mean"], -20.0);
        assert_eq!(value["schedulers"][1]["runs"][2]["summary"]["makespan"], 100.0);
    }

    #[test]
    fn numbers_are_short() {
        let shown: Vec<String> = [0.0, -1e-7, 1.5, 12.345, 123_456.7].map(number).into();
        assert_eq!(shown, ["0", "0", "1.5", "12.3", "123457"]);
        let small: Vec<String> = [0.123_456, 0.012_345_6, 0.001_234_56, -0.000_123_456].map(number).into();
        assert_eq!(small, ["0.123", "0.0123", "0.00123", "-0.000123"]);
    }

    #[test]
    fn what_a_run_has_not_seen_leaves_the_others_in_their_places() {
        let mut compared = comparison();
        // A run that came to its end before there was a green node.
        for (outcome, shares) in [(0, [("grey", 1.0)].as_slice()), (1, [("green", 0.25), ("grey", 0.75)].as_slice())] {
            for run in &mut compared.outcomes[outcome].runs {
                run.summary.shares = shares.iter().map(|(value, part)| ((*value).to_owned(), *part)).collect();
            }
        }
        let estimates = compared.estimates();
        let means = |name: &str| {
            let (_, found) = estimates.iter().find(|(metric, _)| metric.name == name).unwrap();
            found.iter().map(|(estimate, _)| estimate.mean).collect::<Vec<_>>()
        };
        assert_eq!(means("share.green"), [0.0, 25.0]);
        assert_eq!(means("share.grey"), [100.0, 75.0]);
        assert_eq!(means("pods"), [10.0, 10.0]);
    }
}
