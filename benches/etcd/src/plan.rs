//! Which rows are measured on which peers, and in which order.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    build,
    cluster::Peer,
    options::Options,
    progress::Progress,
    rows::{self, Row},
    table,
};

/// The row that needs no server.
const IN_PROCESS: &str = "in-process";

fn peers(options: &Options, target: &Path) -> io::Result<Vec<Peer>> {
    let wanted = |name| options.peer.as_deref().is_none_or(|only| only == name);
    let mut peers = Vec::new();
    if wanted("etcd") {
        match Command::new(&options.etcd).arg("--version").stdin(Stdio::null()).output() {
            Ok(output) => {
                println!("{}", String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("etcd"));
                peers.push(Peer { name: "etcd", program: options.etcd.clone() });
            }
            Err(error) => eprintln!("{} can't be run ({error}): its column stays empty", options.etcd.display()),
        }
    }
    if wanted("rk-etcd") {
        let program = options.rk_etcd.clone().map_or_else(|| build::release("rk-etcd", "rk-etcd", target), Ok)?;
        peers.push(Peer { name: "rk-etcd", program });
    }
    Ok(peers)
}

/// Measures all that is wanted, with directories below `scratch` and builds below `target`.
pub fn run(options: &Options, scratch: &Path, target: &Path) -> io::Result<()> {
    use tokio::runtime::Builder;
    let dir = options.dir.as_deref().unwrap_or(scratch);
    // One thread is enough for the load, and leaves the rest to the servers.
    Builder::new_current_thread().enable_all().build()?.block_on(beside(options, dir, target))?;
    if options.list || !options.wants(IN_PROCESS) || options.peer.as_deref() == Some("etcd") {
        return Ok(());
    }
    Builder::new_multi_thread().enable_all().build()?.block_on(in_process(options, dir))
}

async fn in_process(options: &Options, dir: &Path) -> io::Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        rounds.push(rows::in_process(options.time(), dir).await?);
    }
    table::lines(IN_PROCESS, &[], &rounds).iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Measures the peers side by side.
async fn beside(options: &Options, dir: &Path, target: &Path) -> io::Result<()> {
    let rows: Vec<_> = Row::all().into_iter().filter(|row| options.wants(&row.name())).collect();
    if options.list {
        Row::all().iter().for_each(|row| println!("{}", row.name()));
        println!("{IN_PROCESS}");
        return Ok(());
    }
    let peers = if rows.is_empty() { Vec::new() } else { peers(options, target)? };
    let steps = rows.len() * peers.len() * options.rounds;
    let mut progress = Progress::new(steps as u64);
    table::head();
    for row in rows {
        let (mut etcd, mut rk) = (Vec::new(), Vec::new());
        for round in 1..=options.rounds {
            for peer in &peers {
                progress.begin(&format!("{}: {}, round {round} of {}", row.name(), peer.name, options.rounds));
                let figures = row.measure(peer, options, dir).await;
                match figures {
                    Ok(figures) if peer.name == "etcd" => etcd.push(figures),
                    Ok(figures) => rk.push(figures),
                    // The other rows may still tell something.
                    Err(error) => progress.print(&format!("{}: {} failed: {error}", row.name(), peer.name)),
                }
            }
        }
        let name = match options.shrink {
            shrink if shrink > 1 && row.has_many_keys() => format!("{} (1/{shrink} of the keys)", row.name()),
            _ => row.name(),
        };
        table::lines(&name, &etcd, &rk).iter().for_each(|line| progress.print(line));
    }
    progress.end();
    Ok(())
}
