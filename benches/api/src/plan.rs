//! Which rows are measured, and in which order.

use std::{io, path::Path};

use tokio::{runtime::Builder, task::LocalSet};

use crate::{
    build,
    options::Options,
    progress::Progress,
    rows::{self, Row},
    table,
    target::{Servers, Target},
};

/// The row that needs no server.
const IN_PROCESS: &str = "in-process";

/// Measures all that is wanted, with folders below `scratch` and builds below `target`.
pub fn run(options: &Options, scratch: &Path, target: &Path) -> io::Result<()> {
    if options.list {
        Row::all().iter().for_each(|row| println!("{}", row.name()));
        println!("{IN_PROCESS}");
        return Ok(());
    }
    // One thread is enough for the load, and leaves the rest to the server.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let foreign = options.kubeconfig.is_some();
    let rows: Vec<_> = Row::all()
        .into_iter()
        .filter(|row| options.wants(&row.name()) && !(foreign && row.needs_own_server()))
        .collect();
    let servers = if foreign || rows.is_empty() {
        None
    } else {
        let program =
            options.apiserver.clone().map_or_else(|| build::release("rk-benches-api", "rk-apiserver", target), Ok)?;
        Some(Servers { program, dir: options.dir.clone().unwrap_or_else(|| scratch.to_owned()) })
    };
    let in_process = options.wants(IN_PROCESS) && !foreign;
    let mut progress = Progress::new(((rows.len() + usize::from(in_process)) * options.rounds) as u64);
    table::head().iter().for_each(|line| progress.print(line));
    for row in rows {
        let mut rounds = Vec::new();
        for round in 1..=options.rounds {
            progress.begin(&format!("{}, round {round} of {}", row.name(), options.rounds));
            let measured = measure(row, options, servers.as_ref());
            match runtime.block_on(LocalSet::new().run_until(measured)) {
                Ok(figures) => rounds.push(figures),
                // The other rows may still tell something.
                Err(error) => progress.print(&format!("{} failed: {error}", row.name())),
            }
        }
        table::lines(&row.name(), &rounds).iter().for_each(|line| progress.print(line));
    }
    if in_process {
        let mut rounds = Vec::new();
        for round in 1..=options.rounds {
            progress.begin(&format!("{IN_PROCESS}, round {round} of {}", options.rounds));
            rounds.push(runtime.block_on(rows::in_process(options.time())).map_err(io::Error::other)?);
        }
        table::lines(IN_PROCESS, &rounds).iter().for_each(|line| progress.print(line));
    }
    progress.end();
    Ok(())
}

async fn measure(row: Row, options: &Options, servers: Option<&Servers>) -> io::Result<Vec<table::Figure>> {
    let target = match (&options.kubeconfig, servers) {
        (Some(kubeconfig), _) => Target::existing(kubeconfig, &options.pid)?,
        (None, Some(servers)) => Target::start(servers, &[])?,
        (None, None) => return Err(io::Error::other("there is no server")),
    };
    row.measure(target, servers, options).await
}
