//! ConfigMaps, Secrets and ServiceAccounts.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::{
    cells::{between, column},
    field::{Errors, Path},
    names,
    rules::Rules,
    value::{Peek, each_mut, fill, object_mut, remove, same, set},
};
use crate::server::{Column, UserInfo};

/// The most that the data of one ConfigMap or Secret may hold, in bytes.
const DATA_LIMIT: usize = 1 << 20;

/// The rules of ConfigMaps.
pub const CONFIG_MAP: Rules =
    Rules { validate: validate_config_map, validate_change: validate_config_map_change, ..Rules::NONE };

/// The rules of Secrets.
pub const SECRET: Rules = Rules {
    default: default_secret,
    validate: validate_secret,
    validate_change: validate_secret_change,
    ..Rules::NONE
};

/// The rules of ServiceAccounts: of the Secrets they name, only the names are kept.
pub const SERVICE_ACCOUNT: Rules = Rules {
    create: |account, _: &UserInfo| only_names(account),
    update: |account, _, _| only_names(account),
    warn: |account, _, warnings| {
        let key = "kubernetes.io/enforce-mountable-secrets";
        if account.at("metadata.annotations").get(key).is_some() {
            let text = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
            warnings.at(&Path::Root.child("metadata.annotations").key(key), text);
        }
    },
    ..Rules::NONE
};

fn only_names(account: &mut Value) {
    each_mut(account, "secrets", |secret| {
        if let Some(fields) = secret.as_object_mut() {
            fields.retain(|field, _| field == "name");
        }
    });
}

/// The columns of ConfigMaps.
pub fn config_map_columns() -> Vec<Column> {
    between([column("Data", "string", |map| (count(map.at("data")) + count(map.at("binaryData"))).into())], [])
}

/// The columns of Secrets.
pub fn secret_columns() -> Vec<Column> {
    between(
        [
            column("Type", "string", |secret| secret.text("type").into()),
            column("Data", "string", |secret| count(secret.at("data")).into()),
        ],
        [],
    )
}

/// The columns of ServiceAccounts.
pub fn service_account_columns() -> Vec<Column> {
    between([column("Secrets", "string", |account| account.list("secrets").len().into())], [])
}

fn count(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

fn keys(map: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (key, _) in map.as_object().into_iter().flatten() {
        errors.invalid_all(&path.key(key), key, names::config_key(key));
    }
}

/// The bytes that base64 text stands for; its own length if it is no base64.
fn decoded_len(text: &str) -> usize {
    BASE64_STANDARD.decode(text).map_or(text.len(), |bytes| bytes.len())
}

fn base64(map: &Value, path: &Path<'_>, errors: &mut Errors) -> usize {
    let mut size = 0;
    for (key, value) in map.as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        if BASE64_STANDARD.decode(text).is_err() {
            errors.type_invalid(&path.key(key), text, "must be base64");
        }
        size += decoded_len(text);
    }
    size
}

fn validate_config_map(map: &Value, errors: &mut Errors) {
    let (data, binary) = (Path::Root.child("data"), Path::Root.child("binaryData"));
    keys(map.at("data"), &data, errors);
    for (key, _) in map.entries("binaryData") {
        if map.at("data").get(key).is_some() {
            errors.invalid(&data.key(key), key, "duplicate of key present in binaryData");
        }
    }
    keys(map.at("binaryData"), &binary, errors);
    let mut size = base64(map.at("binaryData"), &binary, errors);
    size += map.entries("data").map(|(_, value)| value.as_str().map_or(0, str::len)).sum::<usize>();
    if size > DATA_LIMIT {
        // Kubernetes names no field here, and its paths print a missing name so.
        errors.too_long(&Path::Root.child("[]"), DATA_LIMIT);
    }
}

/// An immutable object stays immutable, and so do its data.
fn immutable(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if !old.flag("immutable") {
        return;
    }
    if !new.flag("immutable") {
        errors.forbidden(&Path::Root.child("immutable"), "field is immutable when `immutable` is set");
    }
    for field in fields {
        if !same(new.at(field), old.at(field)) {
            errors.forbidden(&Path::Root.child(field), "field is immutable when `immutable` is set");
        }
    }
}

fn validate_config_map_change(new: &Value, old: &Value, _: &str, errors: &mut Errors) {
    immutable(new, old, &["data", "binaryData"], errors);
}

/// `stringData` is a way to write `data` without base64; it is never read back.
fn default_secret(secret: &mut Value) {
    fill(secret, "type", "Opaque");
    if let Some(Value::Object(plain)) = remove(secret, "stringData")
        && !plain.is_empty()
        && let Some(data) = object_mut(secret, "data")
    {
        for (key, value) in plain {
            set(data, &key, BASE64_STANDARD.encode(value.as_str().unwrap_or_default()));
        }
    }
}

fn validate_secret(secret: &Value, errors: &mut Errors) {
    let data = Path::Root.child("data");
    keys(secret.at("data"), &data, errors);
    if base64(secret.at("data"), &data, errors) > DATA_LIMIT {
        errors.too_long(&data, DATA_LIMIT);
    }
    let has = |key: &str| secret.at("data").get(key).is_some();
    match secret.text("type") {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            if secret.at("metadata.annotations").get(key).is_none_or(|name| name == "") {
                errors.required(&Path::Root.child("metadata.annotations").key(key), "");
            }
        }
        "kubernetes.io/dockercfg" => docker(secret, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => docker(secret, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.required(&data.key("username"), "");
            errors.required(&data.key("password"), "");
        }
        "kubernetes.io/ssh-auth" => {
            let key = secret.at("data").get("ssh-privatekey").and_then(Value::as_str);
            if key.is_none_or(str::is_empty) {
                errors.required(&data.key("ssh-privatekey"), "");
            }
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    errors.required(&data.key(key), "");
                }
            }
        }
        _ => {}
    }
}

fn docker(secret: &Value, key: &str, errors: &mut Errors) {
    let path = Path::Root.child("data");
    match secret.at("data").get(key).and_then(Value::as_str).map(|text| BASE64_STANDARD.decode(text)) {
        None => errors.required(&path.key(key), ""),
        Some(Ok(bytes)) if serde_json::from_slice::<Value>(&bytes).is_ok() => {}
        Some(_) => errors.invalid(&path.key(key), "<secret contents redacted>", "invalid character in JSON"),
    }
}

fn validate_secret_change(new: &Value, old: &Value, _: &str, errors: &mut Errors) {
    errors.immutable(&Path::Root.child("type"), new.at("type"), old.at("type"));
    immutable(new, old, &["data"], errors);
}
