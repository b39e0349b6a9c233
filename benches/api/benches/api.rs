//! `cargo bench -p rk-benches-api` measures a small server of rk's and prints a table; `-- --kubeconfig FILE` measures any
//! Kubernetes API, `-- --help` tells the options.

use std::path::Path;

use clap::Parser;
use rk_benches_api::{options::Options, plan};

/// That of `rk-apiserver`, for the server in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    // Where cargo keeps what benches leave: on the same disk as the builds.
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = scratch.parent().unwrap_or(scratch);
    match plan::run(&options, scratch, target) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}
