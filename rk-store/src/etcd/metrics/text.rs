//! Prometheus' text format.

use std::{
    fmt::{Display, Write},
    time::Duration,
};

use crate::DurationCounts;

/// Series as text.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn finish(self) -> String {
        self.0
    }

    fn head(&mut self, kind: &str, name: &str, help: &str) {
        // Writing to a string does not fail, here and below.
        let _ok = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, kind: &str, name: &str, help: &str, value: impl Display) {
        self.head(kind, name, help);
        let _ok = writeln!(self.0, "{name} {value}");
    }

    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.one("counter", name, help, value);
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.one("gauge", name, help, value);
    }

    /// A number of seconds; `kind` is counter or gauge.
    pub(crate) fn seconds(&mut self, kind: &str, name: &str, help: &str, value: f64) {
        self.one(kind, name, help, value);
    }

    /// One series for each of these labels.
    pub(crate) fn labelled(
        &mut self,
        kind: &str,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (String, u64)>,
    ) {
        self.head(kind, name, help);
        for (labels, value) in series {
            let _ok = writeln!(self.0, "{name}{{{labels}}} {value}");
        }
    }

    pub(crate) fn durations(&mut self, name: &str, help: &str, counts: &DurationCounts) {
        self.labelled_durations(name, help, [(String::new(), counts)]);
    }

    /// One histogram for each of these labels, which may be none.
    pub(crate) fn labelled_durations<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (String, &'a DurationCounts)>,
    ) {
        self.head("histogram", name, help);
        for (labels, counts) in series {
            let (inside, alone) = match labels.as_str() {
                "" => (String::new(), String::new()),
                labels => (format!("{labels},"), format!("{{{labels}}}")),
            };
            // Divided once, so that a bound is told as it is written.
            let seconds = |bound: Duration| (bound.as_micros() as f64 / 1e6).to_string();
            let bounds = counts.at_most().map(|(bound, count)| (seconds(bound), count));
            for (bound, count) in bounds.chain([("+Inf".to_owned(), counts.count)]) {
                let _ok = writeln!(self.0, "{name}_bucket{{{inside}le=\"{bound}\"}} {count}");
            }
            let (count, sum) = (counts.count, counts.sum.as_secs_f64());
            let _ok = writeln!(self.0, "{name}_sum{alone} {sum}\n{name}_count{alone} {count}");
        }
    }
}
