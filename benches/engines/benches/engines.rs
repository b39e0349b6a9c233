//! The engines beside one another. See the crate's description.

use std::{
    io::{BufRead, BufReader, IsTerminal},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rk_benches_engines::{
    Kind,
    measure::{self, Figures, What},
    table::Table,
};

/// What a child process prints before how far it is.
const PROGRESS: &str = "progress ";

#[derive(Debug, Parser)]
struct Options {
    /// Engines to measure, all if none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    engines: Vec<Kind>,
    /// Measurements to take, all if none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<What>,
    /// Rounds; the table holds medians.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Keys of 1 KiB in the filled store.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Keys that are put and overwritten.
    #[arg(long, default_value_t = 200_000)]
    overwritten: u64,
    /// Seconds of puts for each number of writers.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Where the stores are made: on the disk to be measured.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Set by this program for its children.
    #[arg(long, value_enum, hide = true)]
    child: Option<What>,
    #[arg(long, default_value_t = 1, hide = true)]
    writers: u64,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options::parse();
    if options.engines.is_empty() {
        options.engines = Kind::ALL.to_vec();
    }
    if options.only.is_empty() {
        options.only = vec![What::Puts, What::Fill, What::Overwrite];
    }
    match options.child {
        Some(what) => measure_here(what, &options),
        None => run_all(&options),
    }
}

fn measure_here(what: What, options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (kind, dir) = (options.engines[0], &*options.dir);
    let told = |done: u64| println!("{PROGRESS}{done}");
    let figures: Figures = runtime.block_on(async {
        match what {
            What::Puts => measure::puts(kind, dir, options.writers, Duration::from_secs_f64(options.seconds)).await,
            What::Fill => measure::filled(kind, dir, options.keys, told).await,
            What::Start => measure::start(kind, dir, options.keys).await,
            What::Overwrite => measure::overwritten(kind, dir, options.overwritten, told).await,
        }
    })?;
    for (name, value) in figures {
        println!("{name}={value}");
    }
    Ok(())
}

/// Takes one measurement in a child process.
fn child(
    what: What,
    kind: Kind,
    dir: &Path,
    writers: u64,
    options: &Options,
    bar: &ProgressBar,
) -> Result<Vec<(String, f64)>, Box<dyn std::error::Error>> {
    use clap::ValueEnum;
    let name =
        |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| value().map(|value| value.get_name().to_owned());
    let what = name(&|| what.to_possible_value()).unwrap_or_default();
    bar.set_message(format!("{what} {}", kind.name()));
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--child", &what, "--engines", kind.name(), "--dir"])
        .arg(dir)
        .args(["--writers", &writers.to_string(), "--seconds", &options.seconds.to_string()])
        .args(["--keys", &options.keys.to_string(), "--overwritten", &options.overwritten.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut figures = Vec::new();
    for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
        let line = line?;
        if let Some(done) = line.strip_prefix(PROGRESS) {
            bar.set_message(format!("{what} {} {done} keys", kind.name()));
        } else if let Some((name, value)) = line.split_once('=') {
            figures.push((name.to_owned(), value.parse()?));
        }
    }
    if child.wait()?.success() { Ok(figures) } else { Err(format!("{what} on {} failed", kind.name()).into()) }
}

fn run_all(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let steps = options.rounds as u64 * (options.engines.len() * options.only.len()) as u64;
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(steps), target);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}")?);
    let mut table = Table::default();
    std::fs::create_dir_all(&options.dir)?;
    // One engine after the other in each round, so that a machine that changes its speed does so for all of them.
    for round in 0..options.rounds {
        for what in &options.only {
            for kind in &options.engines {
                let fresh = || tempfile::tempdir_in(&options.dir);
                match what {
                    What::Puts => {
                        for writers in [1, 16, 64] {
                            for (name, value) in child(*what, *kind, fresh()?.path(), writers, options, &bar)? {
                                table.add(&format!("{name}, {writers} writers"), *kind, value);
                            }
                        }
                    }
                    What::Fill | What::Start => {
                        let dir = fresh()?;
                        let mut figures = child(What::Fill, *kind, dir.path(), 1, options, &bar)?;
                        figures.extend(child(What::Start, *kind, dir.path(), 1, options, &bar)?);
                        figures.into_iter().for_each(|(name, value)| table.add(&name, *kind, value));
                    }
                    What::Overwrite => {
                        for (name, value) in child(*what, *kind, fresh()?.path(), 1, options, &bar)? {
                            table.add(&name, *kind, value);
                        }
                    }
                }
                bar.inc(1);
            }
        }
        if round + 1 < options.rounds {
            bar.println(format!("after round {}:\n{}", round + 1, table.print(&options.engines)));
        }
    }
    bar.finish_and_clear();
    println!("{}", table.print(&options.engines));
    Ok(())
}
