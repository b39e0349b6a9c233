//! Building what is measured, as its users build it.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds a program in release below `target`, and tells where it is.
///
/// # Errors
/// Cargo can't be run, or the program does not build.
pub fn release(package: &str, program: &str, target: &Path) -> io::Result<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "-p", package, "--bin", program, "--target-dir"]).arg(target);
    // What cargo tells a bench of its own package would make build scripts that look at it, and all above them, stale.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    if !cargo.status()?.success() {
        return Err(io::Error::other(format!("{program} does not build")));
    }
    Ok(target.join("release").join(program))
}
