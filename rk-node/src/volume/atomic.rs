//! Folders whose files change all at once: the kubelet's atomic writer.
//!
//! The files are in a folder named by time, `..data` is a symlink to it, and each visible name a symlink through
//! `..data`. A new content is a new folder and one rename of `..data`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use crate::fsutil;

/// One file: its content and its permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileContent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

/// Files by path relative to the volume.
pub(crate) type Payload = BTreeMap<String, FileContent>;

const DATA: &str = "..data";

/// Makes the volume show exactly `payload`; answers whether anything changed.
pub(crate) fn write(volume: &Path, payload: &Payload, owner: (Option<u32>, Option<u32>)) -> io::Result<bool> {
    fs::create_dir_all(volume)?;
    let data = volume.join(DATA);
    let old = fs::read_link(&data).ok();
    if let Some(old) = &old
        && current(&volume.join(old))? == *payload
    {
        return Ok(false);
    }
    let stamp = rk_api::now().strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let name = format!("{stamp}.{:010}", rand::random::<u32>());
    let folder = volume.join(&name);
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    for (path, content) in payload {
        let file = folder.join(path);
        if let Some(above) = file.parent() {
            fs::create_dir_all(above)?;
        }
        fs::write(&file, &content.bytes)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(content.mode))?;
        if owner != (None, None) {
            std::os::unix::fs::chown(&file, owner.0, owner.1)?;
        }
    }
    let next = volume.join("..data_tmp");
    fsutil::remove_all(&next)?;
    symlink(&name, &next)?;
    fs::rename(&next, &data)?;
    let visible: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &visible {
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let stale = entry.file_name().to_str().is_some_and(|name| !name.starts_with("..") && !visible.contains(name));
        if stale {
            fsutil::remove_all(&entry.path())?;
        }
    }
    if let Some(old) = old {
        fsutil::remove_all(&volume.join(old))?;
    }
    Ok(true)
}

fn current(folder: &Path) -> io::Result<Payload> {
    let mut payload = Payload::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = match fs::read_dir(&next) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            let meta = fs::metadata(&path)?;
            if meta.is_dir() {
                folders.push(path);
            } else if let Some(name) = path.strip_prefix(folder).ok().and_then(|path| path.to_str()) {
                let content = FileContent { bytes: fs::read(&path)?, mode: meta.permissions().mode() & 0o7777 };
                payload.insert(name.to_owned(), content);
            }
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let content = |text: &str| FileContent { bytes: text.into(), mode: 0o640 };
        files.iter().map(|(path, text)| ((*path).to_owned(), content(text))).collect()
    }

    #[test]
    fn a_volume_changes_at_once_and_only_when_it_must() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        assert!(write(&volume, &payload(&[("a", "1"), ("d/b", "2")]), (None, None)).unwrap());
        let first = fs::read_link(volume.join(DATA)).unwrap();
        assert!(!write(&volume, &payload(&[("a", "1"), ("d/b", "2")]), (None, None)).unwrap());
        assert_eq!(fs::read_link(volume.join(DATA)).unwrap(), first);
        assert_eq!(fs::read_to_string(volume.join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(write(&volume, &payload(&[("a", "3")]), (None, None)).unwrap());
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
        assert!(fs::symlink_metadata(volume.join("d")).is_err());
        assert!(!volume.join(first).exists());
    }
}
