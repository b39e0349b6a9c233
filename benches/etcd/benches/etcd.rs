//! `cargo bench -p rk-benches-etcd` measures rk-etcd beside etcd and prints a table; `-- --help` tells the options.

use std::path::Path;

use clap::Parser;
use rk_benches_etcd::{options::Options, plan};

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    // Where cargo keeps what benches leave: on the same disk as the builds.
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = scratch.parent().unwrap_or(scratch);
    // One thread is enough for the load, and leaves the rest to the servers.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let result = runtime.and_then(|runtime| runtime.block_on(plan::run(&options, scratch, target)));
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}
