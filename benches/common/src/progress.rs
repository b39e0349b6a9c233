//! How far the run is: a bar on a terminal, lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// See the module's description.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    steps: u64,
    done: u64,
}

impl Progress {
    /// Of so many steps.
    pub fn new(steps: u64) -> Self {
        // Hidden by itself where stderr is no terminal.
        let bar = ProgressBar::new(steps);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}").expect("a valid template");
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, steps, done: 0 }
    }

    /// Begins a step.
    pub fn begin(&mut self, what: &str) {
        self.done += 1;
        if self.bar.is_hidden() {
            eprintln!("[{}/{}] {what}", self.done, self.steps);
        } else {
            self.bar.set_position(self.done - 1);
            self.bar.set_message(what.to_owned());
        }
    }

    /// Prints a line of the result.
    pub fn print(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
