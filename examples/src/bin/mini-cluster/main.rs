//! `mini-cluster`: rk assembled into a working cluster.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use rk_examples::{
    cluster::{Cluster, parse},
    demo,
    display::Display,
    options::Options,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// What a second signal comes to.
const CUT_SHORT: &str = "told again to end: containers that still run are ended by the next start on this folder";

fn main() -> ExitCode {
    let options = Options::parse();
    // Members that are not there yet, or not any more, are nothing to warn of: the nodes show it.
    let logs = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,rk_raft::grpc=error"));
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(logs).with_ansi(terminal).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let result = match options.hello {
        Some(port) => runtime.block_on(demo::serve(port)).map_err(AnyError::from),
        None => runtime.block_on(run(&options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("mini-cluster: {error}");
    ExitCode::FAILURE
}

/// Where state lives if nobody says so.
fn default_data_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home);
    data.unwrap_or_else(std::env::temp_dir).join("rk/mini-cluster")
}

async fn run(options: &Options) -> Result<(), AnyError> {
    // Whoever types them in can end it the usual way.
    let manifests = options.files.iter().map(|file| read_manifests(file)).collect::<Result<Vec<_>, _>>()?.concat();
    // Signals that come during the start end it as well.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let display = Display::new();
    let temporary;
    let data_dir = match &options.data_dir {
        Some(dir) => std::path::absolute(dir)?,
        None if options.demo => {
            temporary = tempfile::tempdir()?;
            temporary.path().to_owned()
        }
        None => default_data_dir(),
    };

    let cluster = tokio::select! {
        cluster = Cluster::start(options, &data_dir, &display) => cluster?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let ended = tokio::select! {
        ended = serve(options, &cluster, manifests, &display) => ended,
        error = cluster.failed() => Err(error.into()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    tokio::select! {
        () = cluster.stop() => ended,
        _ = terminate.recv() => Err(CUT_SHORT.into()),
        _ = interrupt.recv() => Err(CUT_SHORT.into()),
    }
}

fn read_manifests(file: &Path) -> Result<Vec<serde_json::Value>, AnyError> {
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|e| format!("{}: {e}", file.display()))?;
    parse(&text).map_err(|e| format!("{}: {e}", file.display()).into())
}

/// What the cluster does while it runs: the demo, or what its users ask of it.
async fn serve(
    options: &Options,
    cluster: &Cluster,
    manifests: Vec<serde_json::Value>,
    display: &Display,
) -> Result<(), AnyError> {
    cluster.apply(manifests, |what| display.line(format!("applied {what}"))).await?;
    if options.demo {
        return Ok(demo::run(cluster, display).await?);
    }
    display.line(format!(
        "API:        {}\nkubectl:    export KUBECONFIG={}\ningress:    http://127.0.0.1:{}",
        cluster.api_url,
        cluster.kubeconfig.display(),
        cluster.ingress_port
    ));
    if let Some(join) = &cluster.join {
        display.line(format!("more servers: {join} --data-dir DIR --api-port 0"));
    }
    // Whoever waited for it may have gone.
    let _ = writeln!(std::io::stdout(), "ready");
    display.follow(&cluster.informers, tokio_util::sync::CancellationToken::new()).await;
    Ok(())
}
