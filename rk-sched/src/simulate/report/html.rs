//! One page that needs nothing else: no scripts, no fonts, no pictures from elsewhere.

use std::fmt::Write;

use super::{
    super::{experiment::Comparison, record::Sample},
    cell,
    plot::{self, Labels, Lines, PlotError, color},
};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1180px;padding:0 1rem;color:#1c1c1c;\
background:#fff}h1{font-size:1.6rem}h2{font-size:1.15rem;margin:2rem 0 .4rem}table{border-collapse:collapse}\
th,td{padding:.25rem .8rem;border-bottom:1px solid #ddd;text-align:right}th:first-child,td:first-child{text-align:left}\
.key span{display:inline-block;margin-right:1.4rem}.key i{display:inline-block;width:.9rem;height:.9rem;margin-right:.4rem;\
vertical-align:-.1rem}.plots{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}figcaption{font-weight:600}svg{max-width:100%;\
height:auto}.note{color:#555}";

/// How many points a line over time has.
const POINTS: usize = 240;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Seconds in a unit that gives small numbers.
fn unit(seconds: f64) -> (f64, &'static str) {
    match seconds {
        long if long > 3.0 * 86_400.0 => (86_400.0, "days"),
        long if long > 3.0 * 3600.0 => (3600.0, "hours"),
        long if long > 180.0 => (60.0, "minutes"),
        _ => (1.0, "seconds"),
    }
}

/// A course at some times: at each the last sample before, the first or last one beyond the ends.
fn at<'a>(samples: &'a [Sample], times: &'a [f64]) -> impl Iterator<Item = &'a Sample> {
    times.iter().filter_map(|time| {
        let behind = samples.partition_point(|sample| sample.seconds <= *time);
        samples.get(behind.saturating_sub(1))
    })
}

/// By scheduler: the mean over its runs of something that samples tell.
fn courses(comparison: &Comparison, end: f64, per: f64, of: impl Fn(&Sample) -> f64) -> Lines {
    let times: Vec<f64> = (0..=POINTS).map(|point| end * point as f64 / POINTS as f64).collect();
    let course = |outcome: &super::Outcome| {
        let mut sums = vec![0.0; times.len()];
        for run in &outcome.runs {
            for (sum, sample) in sums.iter_mut().zip(at(&run.samples, &times)) {
                *sum += of(sample);
            }
        }
        let runs = outcome.runs.len().max(1) as f64;
        times.iter().zip(sums).map(|(time, sum)| (time / per, sum / runs)).collect()
    };
    comparison.outcomes.iter().map(course).collect()
}

fn figure(page: &mut String, title: &str, svg: &str) {
    let _ = writeln!(page, "<figure><figcaption>{}</figcaption>{svg}</figure>", escape(title));
}

/// The page.
///
/// # Errors
/// A plot could not be drawn.
pub fn html(comparison: &Comparison) -> Result<String, PlotError> {
    let title = format!("{}: {}", comparison.workload, names(comparison).join(" / "));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n",
        escape(&title)
    );
    let seeds = comparison.outcomes.first().map_or(0, |outcome| outcome.runs.len());
    let told = match seeds {
        0 | 1 => "Of one run of each scheduler: what chance has to do with it is not known.".to_owned(),
        _ => format!(
            "Means of {seeds} runs with 95 % confidence intervals (Student's t). In brackets: differences from the first \
             scheduler, over pairs of runs of one seed, whose interval does not hold 0."
        ),
    };
    let _ = writeln!(page, "<p class=\"note\">{told}</p>");
    for stall in comparison.stalls() {
        let _ = writeln!(page, "<p><strong>Not finished:</strong> {}</p>", escape(&stall));
    }
    key(&mut page, comparison);
    overview(&mut page, comparison);
    bar_charts(&mut page, comparison)?;
    time_charts(&mut page, comparison)?;
    page.push_str("</body></html>\n");
    Ok(page)
}

fn names(comparison: &Comparison) -> Vec<&str> {
    comparison.outcomes.iter().map(|outcome| outcome.name.as_str()).collect()
}

fn key(page: &mut String, comparison: &Comparison) {
    page.push_str("<p class=\"key\">");
    for (index, name) in names(comparison).into_iter().enumerate() {
        let plotters::style::RGBColor(r, g, b) = color(index);
        let _ = write!(page, "<span><i style=\"background:rgb({r},{g},{b})\"></i>{}</span>", escape(name));
    }
    page.push_str("</p>\n");
}

fn overview(page: &mut String, comparison: &Comparison) {
    page.push_str("<h2>Figures</h2>\n<table><tr><th></th>");
    for name in names(comparison) {
        let _ = write!(page, "<th>{}</th>", escape(name));
    }
    page.push_str("</tr>\n");
    for (metric, estimates) in comparison.estimates() {
        let unit = if metric.unit.is_empty() { String::new() } else { format!(" [{}]", metric.unit) };
        let _ = write!(page, "<tr><td>{}{unit}</td>", escape(&metric.name));
        for (estimate, difference) in &estimates {
            let _ = write!(page, "<td>{}</td>", cell(estimate, difference));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

fn bar_charts(page: &mut String, comparison: &Comparison) -> Result<(), PlotError> {
    page.push_str("<h2>Side by side</h2>\n<div class=\"plots\">\n");
    let shown = |name: &str| {
        ["makespan", "wait_p50", "wait_p99", "spread", "preemptions", "unscheduled"].contains(&name)
            || name.starts_with("utilization.")
            || name.starts_with("fragmentation.")
            || name.starts_with("share.")
    };
    for (metric, estimates) in comparison.estimates() {
        if shown(&metric.name) && estimates.iter().any(|(estimate, _)| estimate.mean > 0.0) {
            let values: Vec<_> = estimates.iter().map(|(estimate, _)| (estimate.mean, estimate.margin)).collect();
            let labels = Labels { title: &metric.name, x: "", y: metric.unit };
            figure(page, &metric.name, &plot::bars(&labels, &values)?);
        }
    }
    page.push_str("</div>\n");
    Ok(())
}

fn time_charts(page: &mut String, comparison: &Comparison) -> Result<(), PlotError> {
    page.push_str("<h2>Waiting</h2>\n");
    let waits: Vec<Vec<f64>> = comparison
        .outcomes
        .iter()
        .map(|outcome| {
            let mut waits: Vec<f64> = outcome.runs.iter().flat_map(|run| run.waits.iter().copied()).collect();
            waits.sort_by(f64::total_cmp);
            waits
        })
        .collect();
    if waits.iter().any(|waits| !waits.is_empty()) {
        let title = "Pods that waited at most so long for their node";
        let labels = Labels { title, x: "seconds from creation to binding", y: "% of the pods" };
        figure(page, title, &plot::distributions(&labels, &waits)?);
    }
    let runs = || comparison.outcomes.iter().flat_map(|outcome| &outcome.runs);
    let end = runs().filter_map(|run| run.samples.last()).map(|sample| sample.seconds).fold(0.0, f64::max);
    let (per, x) = unit(end);
    page.push_str("<h2>Over time</h2>\n");
    let mut chart = |title: &str, y: &str, of: &dyn Fn(&Sample) -> f64| {
        let svg = plot::over_time(&Labels { title, x, y }, &courses(comparison, end, per, of))?;
        figure(page, title, &svg);
        Ok::<_, PlotError>(())
    };
    chart("Pods without a node", "pods", &|sample| sample.pending as f64)?;
    chart("Pods on nodes", "pods", &|sample| sample.running as f64)?;
    let resources = runs().next().map(|run| run.resources.clone()).unwrap_or_default();
    for (index, name) in resources.iter().enumerate() {
        let of = |list: &Vec<f64>| list.get(index).copied().unwrap_or(0.0) * 100.0;
        chart(&format!("Utilization of {name}"), "%", &|sample| of(&sample.utilization))?;
        chart(&format!("Fragmentation of {name}"), "% of what is free", &|sample| of(&sample.fragmentation))?;
    }
    chart("Spread of the nodes' use", "standard deviation, %", &|sample| sample.spread * 100.0)
}
