//! An etcd server made of rk-store and rk-raft: it takes the place of `etcd`, with the same flags, for clients that
//! speak the etcd v3 API.

mod flags;
mod server;
mod url;

use std::io::IsTerminal;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let flags = flags::Flags::parse();
    tracing_subscriber::fmt()
        .with_max_level(flags.log_level.level())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return std::process::ExitCode::FAILURE;
        }
    };
    match runtime.block_on(server::run(flags)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}
