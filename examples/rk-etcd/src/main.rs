//! An etcd server made of rk-store and rk-raft: it takes the place of `etcd`, with the same flags, for clients that
//! speak the etcd v3 API.

mod auto_tls;
mod compat;
mod flags;
mod restore;
mod server;
mod tls;
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
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return std::process::ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match flags.command {
            Some(Command::Snapshot(Snapshots::Restore(restore))) => restore.run().await,
            None => server::run(flags).await,
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
