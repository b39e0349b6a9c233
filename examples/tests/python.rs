//! The Python client from PyPI against a running `mini-cluster`.
#![allow(missing_docs)]

mod common;

use common::{MiniCluster, have, text};
use std::process::Command;

/// The interpreter that has the client: `RK_PYTHON`, or python3.
#[test]
fn the_python_client_works() {
    let python = std::env::var("RK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if !have(&python) {
        return;
    }
    let import = Command::new(&python).args(["-c", "import kubernetes"]).output().unwrap();
    if !import.status.success() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "the package `kubernetes` is required in CI: {}",
            text(&import)
        );
        println!("skipped: {python} has no package `kubernetes`");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = MiniCluster::start(&dir.path().join("data"), &["--agents", "1"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python_client.py");
    let output = Command::new(&python).arg(script).arg(&cluster.kubeconfig).output().unwrap();
    assert!(output.status.success() && output.stdout.ends_with(b"ok\n"), "{}\n{}", text(&output), cluster.log());
}
