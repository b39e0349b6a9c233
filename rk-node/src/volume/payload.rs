//! The files of configMap, secret and downwardAPI volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use super::atomic::{FileContent, Payload};
use crate::pod::fields::{self, Place};

/// The bytes of each key.
pub(crate) type Keys = BTreeMap<String, Vec<u8>>;

pub(crate) fn config_map_keys(map: &ConfigMap) -> Keys {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    text.chain(binary).collect()
}

pub(crate) fn secret_keys(secret: &Secret) -> Keys {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

fn mode(mode: Option<i32>, default: u32) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default)
}

/// The files that `items` (all keys, if there are none) make of an object's keys.
pub(crate) fn select(
    what: &str,
    keys: &Keys,
    items: Option<&Vec<KeyToPath>>,
    default_mode: u32,
    optional: bool,
) -> Result<Payload, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let all =
            keys.iter().map(|(key, bytes)| (key.clone(), FileContent { bytes: bytes.clone(), mode: default_mode }));
        return Ok(all.collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match keys.get(&item.key) {
            Some(bytes) => {
                checked(&item.path)?;
                let content = FileContent { bytes: bytes.clone(), mode: mode(item.mode, default_mode) };
                payload.insert(item.path.clone(), content);
            }
            None if optional => {}
            None => return Err(format!("references non-existent {what} key: {}", item.key)),
        }
    }
    Ok(payload)
}

/// The files of a downward API volume.
pub(crate) fn downward(
    pod: &Pod,
    place: &Place,
    items: Option<&Vec<DownwardAPIVolumeFile>>,
    default_mode: u32,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in items.into_iter().flatten() {
        checked(&item.path)?;
        let text = if let Some(of) = &item.field_ref {
            fields::field(pod, place, &of.field_path)
                .ok_or_else(|| format!("unsupported fieldPath: {}", of.field_path))?
        } else if let Some(of) = &item.resource_field_ref {
            fields::resource(pod, None, place, of)
                .ok_or_else(|| format!("unsupported container resource : {}", of.resource))?
        } else {
            String::new()
        };
        payload
            .insert(item.path.clone(), FileContent { bytes: text.into_bytes(), mode: mode(item.mode, default_mode) });
    }
    Ok(payload)
}

/// Refuses a path that would leave the volume; the API's validation does too, but static pods do not pass it.
pub(crate) fn checked(path: &str) -> Result<(), String> {
    let inside = !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| part != "..");
    if inside && !path.starts_with("..") { Ok(()) } else { Err(format!("invalid path: {path:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_choose_and_missing_keys_are_errors() {
        let keys: Keys = [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())].into();
        assert_eq!(select("config", &keys, None, 0o644, false).unwrap().len(), 2);
        let items = vec![
            KeyToPath { key: "a".into(), path: "d/x".into(), mode: Some(0o400) },
            KeyToPath { key: "z".into(), path: "z".into(), mode: None },
        ];
        assert!(select("config", &keys, Some(&items), 0o644, false).is_err());
        let payload = select("config", &keys, Some(&items), 0o644, true).unwrap();
        assert_eq!(payload["d/x"], FileContent { bytes: b"1".to_vec(), mode: 0o400 });
        assert_eq!(payload.len(), 1);
        for path in ["/a", "..", "a/../../b", "", "..data"] {
            assert!(checked(path).is_err(), "{path}");
        }
    }
}
