//! What runtimes leave behind of a pod's cgroups: the pod's own folder in every hierarchy.

use std::{fs, path::Path};

/// Removes a pod's cgroup (`/kubepods/burstable/podUID`) wherever it is; one still in use, or not ours, stays.
pub(crate) fn remove(parent: &str) {
    let relative = parent.trim_start_matches('/');
    let root = Path::new("/sys/fs/cgroup");
    remove_tree(&root.join(relative));
    for hierarchy in fs::read_dir(root).into_iter().flatten().flatten() {
        remove_tree(&hierarchy.path().join(relative));
    }
}

fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!(folder = %folder.display(), %error, "cgroup stays");
    }
}
