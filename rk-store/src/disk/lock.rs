//! The lock that keeps a second process out of a store's directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::Error;

/// Held while a store is open; the system gives it up with the process, however that ends.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(crate) fn take(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("lock");
        let io = |error: std::io::Error| Error::io(format!("locking {}", path.display()), &error);
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if known { format!("pid {}", holder.trim()) } else { "pid unknown".into() };
                return Err(Error::InUse { dir: dir.display().to_string(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        // Only a hint for the message above: a full disk must not keep a store from opening.
        let note = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
        if let Err(error) = note.and_then(|_| writeln!(file, "{}", std::process::id())) {
            tracing::warn!(path = %path.display(), %error, "the lock file does not name its holder");
        }
        Ok(Self { _file: file })
    }
}
