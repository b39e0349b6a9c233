//! Prometheus' text format.

use std::fmt::{Display, Write};

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
        self.head("histogram", name, help);
        for (bound, count) in counts.at_most() {
            let _ok = writeln!(self.0, "{name}_bucket{{le=\"{}\"}} {count}", bound.as_secs_f64());
        }
        let (count, sum) = (counts.count, counts.sum.as_secs_f64());
        let _ok = writeln!(self.0, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
    }
}
