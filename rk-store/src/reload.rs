//! What is made of files, and made again when they have changed: certificates, above all.

use std::{os::unix::fs::MetadataExt, path::PathBuf, sync::Arc, time::SystemTime};

use parking_lot::Mutex;

use crate::Error;

/// What tells one content of a file from the next: a file that is written again, and another one put in its place.
type Stamp = Vec<Option<(SystemTime, u64, u64)>>;

/// A value made of files. It is looked at whether they have changed whenever the value is asked for.
pub struct Reloaded<T> {
    paths: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, Error> + Send + Sync>,
    newest: Mutex<(Stamp, Arc<T>)>,
}

impl<T> std::fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloaded").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl<T> Reloaded<T> {
    /// The value that `load` makes of these files.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn new(
        paths: impl IntoIterator<Item = PathBuf>,
        load: impl Fn() -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let paths: Vec<_> = paths.into_iter().collect();
        // Before they are read: what changes in between is read again.
        let stamp = stamp(&paths);
        let newest = Mutex::new((stamp, Arc::new(load()?)));
        Ok(Self { paths, load: Box::new(load), newest })
    }

    /// The value of now. While the files make none, as when only one of two has been replaced, it is the one before.
    pub fn get(&self) -> Arc<T> {
        let mut newest = self.newest.lock();
        let stamp = stamp(&self.paths);
        if stamp != newest.0 {
            newest.0 = stamp;
            match (self.load)() {
                Ok(value) => {
                    tracing::info!(paths = ?self.paths, "files were read again");
                    newest.1 = Arc::new(value);
                }
                Err(error) => tracing::warn!(%error, "files have changed and are of no use: those before stay in use"),
            }
        }
        newest.1.clone()
    }
}

fn stamp(paths: &[PathBuf]) -> Stamp {
    let of = |path: &PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.modified().ok()?, file.len(), file.ino()))
    };
    paths.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_again_when_they_change_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let file = path.clone();
        let load = move || {
            let text = std::fs::read_to_string(&file).map_err(|error| Error::io("the number", &error))?;
            text.parse::<u32>().map_err(|error| Error::Invalid(error.to_string()))
        };
        let number = Reloaded::new([path.clone()], load.clone()).unwrap();
        assert_eq!(*number.get(), 1);
        assert!(Arc::ptr_eq(&number.get(), &number.get()));
        let other = dir.path().join("other");
        std::fs::write(&other, "2").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(*number.get(), 2, "another file in its place");
        std::fs::write(&path, "three").unwrap();
        assert_eq!(*number.get(), 2, "of no use");
        std::fs::write(&path, "4").unwrap();
        assert_eq!(*number.get(), 4);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*number.get(), 4, "gone");
        assert!(Reloaded::new([path], load).is_err());
    }
}
