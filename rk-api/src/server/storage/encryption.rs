//! Encryption of chosen resources in the store
//! (<https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/>), in Kubernetes' form: what one server wrote, a
//! kube-apiserver with the same keys reads, and the other way round.

use std::{borrow::Cow, collections::HashSet, fmt};

use aes_gcm::{
    Aes128Gcm, Aes256Gcm, AesGcm, KeyInit, Nonce,
    aead::{Aead, Payload, consts::U12},
    aes::Aes192,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::Error;

/// What encrypted values begin with.
const MARK: &[u8] = b"k8s:enc:";
/// What values under AES-GCM begin with; the key's name and a colon follow.
const AESGCM: &str = "k8s:enc:aesgcm:v1:";
/// Bytes of a nonce.
const NONCE: usize = 12;

/// A configuration that can't be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("encryption configuration: {0}")]
pub struct EncryptionError(String);

/// Which resources are encrypted in the store, and with which keys; by default none.
///
/// Of the keys of a resource the first one writes and all read. To replace a key: put the new one behind the old one on
/// every server, then in front, then write every object anew (a replace that changes nothing is enough), then drop the old one.
#[derive(Default)]
pub struct Encryption {
    rules: Vec<Rule>,
    /// Keys of values that another key than the first has written.
    stale: Mutex<HashSet<Bytes>>,
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rules.iter().map(|rule| &rule.resources)).finish()
    }
}

/// Some resources and who reads and writes their values.
struct Rule {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

enum Provider {
    /// Values as they are.
    Identity,
    AesGcm {
        /// With the key's name.
        prefix: Vec<u8>,
        cipher: Box<Cipher>,
    },
}

enum Cipher {
    Aes128(Aes128Gcm),
    Aes192(AesGcm<Aes192, U12>),
    Aes256(Aes256Gcm),
}

impl Cipher {
    fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => Aes128Gcm::new_from_slice(key).ok().map(Self::Aes128),
            24 => AesGcm::new_from_slice(key).ok().map(Self::Aes192),
            32 => Aes256Gcm::new_from_slice(key).ok().map(Self::Aes256),
            _ => None,
        }
    }

    fn seal(&self, nonce: &[u8; NONCE], payload: Payload<'_, '_>) -> Result<Vec<u8>, aes_gcm::Error> {
        let nonce = &Nonce::from(*nonce);
        match self {
            Self::Aes128(cipher) => cipher.encrypt(nonce, payload),
            Self::Aes192(cipher) => cipher.encrypt(nonce, payload),
            Self::Aes256(cipher) => cipher.encrypt(nonce, payload),
        }
    }

    fn open(&self, nonce: &[u8; NONCE], payload: Payload<'_, '_>) -> Result<Vec<u8>, aes_gcm::Error> {
        let nonce = &Nonce::from(*nonce);
        match self {
            Self::Aes128(cipher) => cipher.decrypt(nonce, payload),
            Self::Aes192(cipher) => cipher.decrypt(nonce, payload),
            Self::Aes256(cipher) => cipher.decrypt(nonce, payload),
        }
    }
}

/// The file's form.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<FileRule>,
}

#[derive(Deserialize)]
struct FileRule {
    resources: Vec<String>,
    providers: Vec<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    name: String,
    secret: String,
}

impl Encryption {
    /// Reads an `EncryptionConfiguration` of `apiserver.config.k8s.io/v1` with the providers `aesgcm` and `identity`, in YAML or
    /// JSON.
    ///
    /// # Errors
    /// It is no such configuration, names another provider, has a key of a length that AES does not know, or two of one name in a
    /// rule.
    pub fn parse(text: &str) -> Result<Self, EncryptionError> {
        let fail = |why: String| EncryptionError(why);
        let file: File = serde_saphyr::from_str(text).map_err(|error| fail(error.to_string()))?;
        if file.api_version != "apiserver.config.k8s.io/v1" || file.kind != "EncryptionConfiguration" {
            return Err(fail(format!("{}, Kind={} is no EncryptionConfiguration", file.api_version, file.kind)));
        }
        let mut rules = Vec::new();
        for rule in file.resources {
            let (mut providers, mut names) = (Vec::new(), HashSet::new());
            for (name, options) in rule.providers.into_iter().flatten() {
                match name.as_str() {
                    "identity" => providers.push(Provider::Identity),
                    "aesgcm" => {
                        let keys: Keys = serde_json::from_value(options).map_err(|error| fail(error.to_string()))?;
                        for key in keys.keys {
                            providers.push(provider(&key).map_err(fail)?);
                            // A value names its key, which must be one.
                            if let Some(twice) = names.replace(key.name) {
                                return Err(fail(format!("two keys of a rule have the name {twice:?}")));
                            }
                        }
                    }
                    other => {
                        return Err(fail(format!("there is no provider {other:?} here, only aesgcm and identity")));
                    }
                }
            }
            if providers.is_empty() || rule.resources.is_empty() {
                return Err(fail("a rule needs resources and providers".to_owned()));
            }
            rules.push(Rule { resources: rule.resources, providers });
        }
        Ok(Self { rules, stale: Mutex::default() })
    }

    /// Who reads and writes the values of a collection (`secrets`, `apps/deployments`); `None` if they are as they are.
    fn providers(&self, collection: &str) -> Option<&[Provider]> {
        if self.rules.is_empty() {
            return None;
        }
        let (group, plural) = collection.split_once('/').unwrap_or(("", collection));
        let applies = |resource: &String| match resource.split_once('.') {
            None => group.is_empty() && resource == plural,
            Some(("*", "*")) => true,
            Some(("*", wanted)) => wanted == group,
            Some((name, wanted)) => name == plural && wanted == group,
        };
        let rule = self.rules.iter().find(|rule| rule.resources.iter().any(applies))?;
        Some(&rule.providers)
    }

    /// A value as it is stored under a key.
    pub(super) fn seal(&self, collection: &str, key: &Bytes, value: Bytes) -> Result<Bytes, Error> {
        let Some(providers) = self.providers(collection) else { return Ok(value) };
        Ok(match providers.first() {
            Some(Provider::AesGcm { prefix, cipher }) => {
                let nonce: [u8; NONCE] = rand::random();
                let sealed = cipher.seal(&nonce, Payload { msg: &value, aad: key });
                let sealed = sealed.map_err(|error| unreadable(key, &error))?;
                [prefix.as_slice(), &nonce, &sealed].concat().into()
            }
            _ => value,
        })
    }

    /// Notes that the value of a key is gone: what [`Encryption::seal`] gave has taken its place, or nothing.
    pub(super) fn replaced(&self, key: &Bytes) {
        if self.is_in_use() {
            self.stale.lock().remove(key);
        }
    }

    /// What a stored value holds.
    pub(super) fn open<'a>(&self, collection: &str, key: &Bytes, value: &'a [u8]) -> Result<Cow<'a, [u8]>, Error> {
        let Some(providers) = self.providers(collection) else {
            if value.starts_with(MARK) {
                return Err(unreadable(key, &"it is encrypted, and its resource is not configured to be"));
            }
            return Ok(Cow::Borrowed(value));
        };
        for (at, provider) in providers.iter().enumerate() {
            let opened = match provider {
                Provider::Identity if !value.starts_with(MARK) => Cow::Borrowed(value),
                Provider::AesGcm { prefix, cipher } if value.starts_with(prefix) => {
                    let short = || unreadable(key, &"the stored data was shorter than the required size");
                    let (nonce, sealed) = value[prefix.len()..].split_first_chunk().ok_or_else(short)?;
                    let opened = cipher.open(nonce, Payload { msg: sealed, aad: key });
                    Cow::Owned(opened.map_err(|_| unreadable(key, &"its key does not fit, or it was changed"))?)
                }
                _ => continue,
            };
            if at > 0 {
                self.stale.lock().insert(key.clone());
            }
            return Ok(opened);
        }
        Err(unreadable(key, &"no matching prefix found"))
    }

    /// Whether anything is encrypted.
    pub(super) fn is_in_use(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Whether another key than the first has written the value of a key.
    pub(super) fn is_stale(&self, key: &[u8]) -> bool {
        self.stale.lock().contains(key)
    }
}

fn provider(key: &Key) -> Result<Provider, String> {
    if key.name.is_empty() || key.name.contains(':') {
        return Err(format!("{:?} is no name for a key", key.name));
    }
    let secret = STANDARD.decode(&key.secret).map_err(|error| format!("key {:?}: {error}", key.name))?;
    let cipher = Cipher::new(&secret);
    let cipher = cipher.ok_or_else(|| format!("key {:?} has {} bytes, not 16, 24 or 32", key.name, secret.len()))?;
    Ok(Provider::AesGcm { prefix: format!("{AESGCM}{}:", key.name).into_bytes(), cipher: Box::new(cipher) })
}

fn unreadable(key: &[u8], why: &dyn fmt::Display) -> Error {
    Error::decode(&format!("stored object {}", String::from_utf8_lossy(key)), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(providers: &str) -> String {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - resources: [secrets, \"*.apps\"]\n  providers: {providers}\n"
        )
    }

    fn keys(names: &[&str]) -> String {
        let key = |name: &&str| {
            let secret = STANDARD.encode(format!("{name:x<32}"));
            format!("{{aesgcm: {{keys: [{{name: {name}, secret: {secret}}}]}}}}")
        };
        format!("[{}]", names.iter().map(key).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn the_first_key_writes_and_all_read() {
        let key = Bytes::from_static(b"/registry/secrets/a/b");
        let value = Bytes::from_static(b"{\"metadata\":{}}");
        let old = Encryption::parse(&config(&keys(&["old"]))).unwrap();
        let sealed = old.seal("secrets", &key, value.clone()).unwrap();
        assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:old:"));
        assert!(!sealed.windows(8).any(|window| window == b"metadata"));
        assert_ne!(sealed, old.seal("secrets", &key, value.clone()).unwrap(), "another nonce each time");
        assert_eq!(&*old.open("secrets", &key, &sealed).unwrap(), &value[..]);
        assert!(!old.is_stale(&key));

        let both = Encryption::parse(&config(&keys(&["new", "old"]))).unwrap();
        assert_eq!(&*both.open("secrets", &key, &sealed).unwrap(), &value[..]);
        assert!(both.is_stale(&key), "to be written with the new key");
        let again = both.seal("secrets", &key, value.clone()).unwrap();
        assert!(again.starts_with(b"k8s:enc:aesgcm:v1:new:"));
        assert!(both.is_stale(&key), "it is not stored yet");
        both.replaced(&key);
        assert!(!both.is_stale(&key));

        let new = Encryption::parse(&config(&keys(&["new"]))).unwrap();
        assert!(new.open("secrets", &key, &sealed).is_err());
        assert!(new.open("secrets", &Bytes::from_static(b"/registry/secrets/a/c"), &again).is_err(), "moved elsewhere");
        let mut changed = again.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        assert!(new.open("secrets", &key, &changed).is_err());
        assert!(new.open("secrets", &key, b"k8s:enc:aesgcm:v1:new:short").is_err());
        assert!(new.open("secrets", &key, &value).is_err(), "plain values need `identity`");
        assert!(Encryption::default().open("secrets", &key, &again).is_err());
    }

    #[test]
    fn resources_are_chosen_by_name_and_group() {
        let some = Encryption::parse(&config("[{identity: {}}]")).unwrap();
        for (collection, chosen) in
            [("secrets", true), ("apps/deployments", true), ("configmaps", false), ("batch/secrets", false)]
        {
            assert_eq!(some.providers(collection).is_some(), chosen, "{collection}");
        }
        let value = Bytes::from_static(b"{}");
        assert_eq!(some.seal("secrets", &Bytes::new(), value.clone()).unwrap(), value);
    }

    #[test]
    fn wrong_configurations_are_refused() {
        for (text, word) in [
            ("{}".to_owned(), ""),
            (config("[{aescbc: {keys: []}}]"), "there is no provider \"aescbc\" here"),
            (config("[{aesgcm: {keys: [{name: a, secret: AAAA}]}}]"), "has 3 bytes"),
            (config("[]"), "needs resources and providers"),
            (config(&keys(&["a", "b", "a"])), "two keys of a rule have the name \"a\""),
            (config("[{identity: {}}]").replace("v1", "v2"), "is no EncryptionConfiguration"),
        ] {
            let error = Encryption::parse(&text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
