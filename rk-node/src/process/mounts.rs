//! What a container sees of its volumes.
//!
//! With the right to mount, the container gets a mount namespace of its own, in which each mount is bound to its
//! path. A path that the host does not have gets a place in a copy of its nearest existing parent folder, made of
//! bind mounts of that folder's entries: the host itself is not changed. Everything happens on the thread that
//! then starts the process, so that no other part of the agent is affected.
//!
//! Without that right, each mount is a symlink under the container's own folder ([`link`]); programs find it
//! through the environment variable `RK_CONTAINER_ROOT`.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd,
};

use crate::{fsutil, runtime::types::Mount};

/// Whether this process may make mount namespaces.
pub(super) fn permitted() -> bool {
    std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNS).is_ok()).join().unwrap_or(false)
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|error| io::Error::other(format!("bind {} on {}: {error}", from.display(), to.display())))
}

/// A mount namespace under construction, on the calling thread.
pub(super) struct Namespace {
    /// Where copies of folders are made; the container's own.
    scratch: PathBuf,
    copies: usize,
}

impl Namespace {
    /// Gives the calling thread, and the processes it starts, a mount namespace and a host name of their own.
    pub(super) fn enter(scratch: &Path, hostname: Option<&str>) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        // Mounts of the host still appear here, none of ours appear there.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
        if let Some(hostname) = hostname {
            unshare(CloneFlags::CLONE_NEWUTS)?;
            unistd::sethostname(hostname)?;
        }
        fs::create_dir_all(scratch)?;
        Ok(Self { scratch: scratch.to_owned(), copies: 0 })
    }

    /// Binds a mount to its path.
    pub(super) fn add(&mut self, wanted: &Mount) -> io::Result<()> {
        let source = fs::metadata(&wanted.host_path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", wanted.host_path.display())))?;
        // Held open, as a path may be covered by the copies made for this very mount.
        let held = fs::File::open(&wanted.host_path)?;
        let target = self.place(&clean(&wanted.container_path), source.is_dir())?;
        let through = PathBuf::from(format!("/proc/self/task/{}/fd/{}", unistd::gettid(), {
            use std::os::fd::AsRawFd;
            held.as_raw_fd()
        }));
        bind(&through, &target).or_else(|_| bind(&wanted.host_path, &target))?;
        if wanted.readonly {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, &target, None::<&str>, flags, None::<&str>)?;
        }
        Ok(())
    }

    /// An existing path to mount on, made if needed.
    fn place(&mut self, path: &Path, folder: bool) -> io::Result<PathBuf> {
        if path.exists() {
            return path.canonicalize();
        }
        let parent = path.ancestors().find(|parent| parent.is_dir()).unwrap_or(Path::new("/"));
        let rest = path.strip_prefix(parent).unwrap_or(path).to_owned();
        let parent = parent.canonicalize()?;
        if !parent.starts_with(&self.scratch) {
            self.cover(&parent)?;
        }
        let place = parent.join(&rest);
        if folder {
            fs::create_dir_all(&place)?;
        } else {
            if let Some(above) = place.parent() {
                fs::create_dir_all(above)?;
            }
            fs::File::create(&place)?;
        }
        place.canonicalize()
    }

    /// Lays a copy of a folder over it, in which entries can be made.
    fn cover(&mut self, folder: &Path) -> io::Result<()> {
        let copy = self.scratch.join(self.copies.to_string());
        self.copies += 1;
        fs::create_dir_all(&copy)?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (from, to) = (entry.path(), copy.join(entry.file_name()));
            let kind = entry.file_type()?;
            // An entry may go while we look, and some (a mount of another user's FUSE) can't be bound.
            let copied = if kind.is_symlink() {
                fs::read_link(&from).and_then(|target| symlink(target, &to))
            } else if kind.is_dir() {
                fs::create_dir(&to).and_then(|()| bind(&from, &to))
            } else {
                fs::File::create(&to).and_then(|_| bind(&from, &to))
            };
            if let Err(error) = copied {
                tracing::debug!(path = %from.display(), %error, "entry not visible in the container");
            }
        }
        fs::set_permissions(&copy, fs::metadata(folder)?.permissions())?;
        if folder == Path::new("/") {
            unistd::chroot(&copy)?;
            unistd::chdir("/")?;
            self.scratch = PathBuf::from("/").join(self.scratch.strip_prefix("/").unwrap_or(&self.scratch));
            Ok(())
        } else {
            bind(&copy, folder)
        }
    }
}

/// Puts the calling thread where a running container is.
pub(super) fn join(pid: i32) -> io::Result<()> {
    let root = fs::File::open(format!("/proc/{pid}/root"))?;
    let uts = fs::File::open(format!("/proc/{pid}/ns/uts"))?;
    let mounts = fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
    // A thread can only change its mount namespace when it shares root and working folder with no other.
    unshare(CloneFlags::CLONE_FS)?;
    setns(uts, CloneFlags::CLONE_NEWUTS)?;
    setns(mounts, CloneFlags::CLONE_NEWNS)?;
    unistd::fchdir(root)?;
    unistd::chroot(".")?;
    Ok(())
}

/// The way without privileges: a symlink under `root` for each mount.
pub(super) fn link(root: &Path, mounts: &[Mount]) -> io::Result<()> {
    for wanted in mounts {
        let clean = clean(&wanted.container_path);
        let place = root.join(clean.strip_prefix("/").unwrap_or(&clean));
        if let Some(above) = place.parent() {
            fs::create_dir_all(above)?;
        }
        fsutil::remove_all(&place)?;
        symlink(&wanted.host_path, &place)?;
    }
    Ok(())
}
/// The path without `..`, `.` and doubled slashes, as if it started at the root.
fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(part) => clean.push(part),
            _ => {}
        }
    }
    clean
}
