//! An etcd server made of rk-store and rk-raft: it takes the place of `etcd`, with the same flags, for clients that
//! speak the etcd v3 API.

mod auto_tls;
mod compat;
mod flags;
mod restore;
mod server;
mod url;

use std::{io::IsTerminal, num::NonZero};

use clap::Parser;

use self::flags::{Command, Flags, Snapshots};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A worker for each core but one, which is left to the threads that wait for the disk. With a worker more, each would wake the
/// others for every request.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let workers = (cores - 1).max(1);
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()
}

/// The runtime of every second connection, in a thread of its own: with many clients the core that is left has time for them.
fn second_runtime() -> std::io::Result<tokio::runtime::Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("connections".to_owned()).spawn(run)?;
    Ok(handle)
}

fn main() -> std::process::ExitCode {
    let (arguments, without_effect) = compat::arguments(std::env::args_os());
    let flags = Flags::parse_from(arguments);
    tracing_subscriber::fmt()
        .with_max_level(flags.log_level.level())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    for (flag, why) in without_effect {
        tracing::warn!("--{flag} has no effect: {why}");
    }
    let (runtime, second) = match runtime().and_then(|runtime| Ok((runtime, second_runtime()?))) {
        Ok(runtimes) => runtimes,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return std::process::ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match flags.command {
            Some(Command::Snapshot(Snapshots::Restore(restore))) => restore.run().await,
            None => server::run(flags, second).await,
        }
    });
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}
