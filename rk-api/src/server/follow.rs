//! To know what changed among the objects of a resource since one last looked.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use super::{Changes, Reader};
use crate::Error;

/// The version of a resource's objects: what was made of them holds while it stays the same. It is kept up to date for whoever
/// holds it, so that asking again looks nothing up.
#[derive(Debug, Clone, Default)]
pub struct Version(Arc<AtomicU64>);

impl Version {
    /// A version that goes on with [`Version::set`].
    pub fn new(version: u64) -> Self {
        Self(Arc::new(version.into()))
    }

    /// The version now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Goes on to another version, for all who hold it.
    pub fn set(&self, version: u64) {
        self.0.store(version, Ordering::Release);
    }
}

/// How far somebody has followed the objects of a resource.
#[derive(Debug)]
pub(crate) struct Follower {
    group: &'static str,
    plural: &'static str,
    version: u64,
    newest: OnceLock<Version>,
}

impl Follower {
    /// Has seen nothing.
    pub(crate) const fn new(group: &'static str, plural: &'static str) -> Self {
        Self { group, plural, version: 0, newest: OnceLock::new() }
    }

    /// The version now.
    pub(crate) fn newest(&self, reader: &dyn Reader) -> Result<u64, Error> {
        if let Some(newest) = self.newest.get() {
            return Ok(newest.get());
        }
        let newest = reader.version(self.group, self.plural)?;
        Ok(self.newest.get_or_init(|| newest).get())
    }

    /// Whether nothing changed since it last looked.
    pub(crate) fn is_current(&self, reader: &dyn Reader) -> Result<bool, Error> {
        Ok(self.newest(reader)? == self.version)
    }

    /// What changed since it last looked.
    pub(crate) fn news(&mut self, reader: &dyn Reader) -> Result<Changes, Error> {
        if self.is_current(reader)? {
            return Ok(Changes { version: self.version, ..Changes::default() });
        }
        let changes = reader.changes(self.group, self.plural, self.version)?;
        self.version = changes.version;
        Ok(changes)
    }
}
