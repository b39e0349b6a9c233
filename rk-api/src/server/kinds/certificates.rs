//! CertificateSigningRequests.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    cells::{AGE, NAME, column, duration, or_none},
    field::{Errors, Path},
    rules::Rules,
    value::{Peek, object_mut, remove, same, set},
};
use crate::server::{Column, UserInfo};

/// The rules of CertificateSigningRequests.
pub const SIGNING_REQUEST: Rules =
    Rules { create, update, validate, validate_new, validate_change, has_status: true, ..Rules::NONE };

/// The fields of CertificateSigningRequests that a field selector may name.
pub const SELECTABLE: &[&str] = &["spec.signerName"];

/// The columns of CertificateSigningRequests.
pub fn columns() -> Vec<Column> {
    vec![
        NAME,
        AGE,
        column("SignerName", "string", |csr| or_none(csr.text("spec.signerName"))),
        column("Requestor", "string", |csr| csr.text("spec.username").into()),
        column("RequestedDuration", "string", |csr| match csr.int("spec.expirationSeconds") {
            Some(seconds) => duration(seconds).into(),
            None => or_none(""),
        }),
        column("Condition", "string", |csr| condition(csr).into()),
    ]
}

fn has(csr: &Value, kind: &str) -> bool {
    csr.list("status.conditions").iter().any(|condition| condition.text("type") == kind)
}

fn condition(csr: &Value) -> String {
    let mut text = if has(csr, "Denied") {
        "Denied"
    } else if has(csr, "Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has(csr, "Failed") {
        text.push_str(",Failed");
    }
    if !csr.text("status.certificate").is_empty() {
        text.push_str(",Issued");
    }
    text
}

/// Who asks is what the server knows, whatever the request says.
fn create(csr: &mut Value, user: &UserInfo) {
    set(csr, "status", json!({}));
    let Some(spec) = object_mut(csr, "spec") else { return };
    set(spec, "username", user.name.as_str());
    let identity = [
        ("uid", Value::from(user.uid.as_str())),
        ("groups", Value::from(user.groups.clone())),
        ("extra", serde_json::to_value(&user.extra).unwrap_or_default()),
    ];
    for (field, value) in identity {
        if super::value::is_empty(&value) {
            remove(spec, field);
        } else {
            set(spec, field, value);
        }
    }
}

/// A request stays as it was made.
fn update(new: &mut Value, old: &Value, _: &str) {
    set(new, "spec", old.at("spec").clone());
}

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn validate(csr: &Value, errors: &mut Errors) {
    let (spec, path) = (csr.at("spec"), Path::Root.child("spec"));
    let request = spec.text("request");
    let pem = BASE64_STANDARD.decode(request).unwrap_or_default();
    if !pem.trim_ascii_start().starts_with(b"-----BEGIN CERTIFICATE REQUEST-----")
        && !pem.trim_ascii_start().starts_with(b"-----BEGIN NEW CERTIFICATE REQUEST-----")
    {
        errors.invalid(&path.child("request"), request, "PEM block type must be CERTIFICATE REQUEST");
    }
    let (usages, list) = (spec.list("usages"), path.child("usages"));
    if usages.is_empty() {
        errors.required(&list, "");
    }
    for (i, usage) in usages.iter().filter_map(Value::as_str).enumerate() {
        if !USAGES.contains(&usage) {
            errors.not_supported(&list.index(i), usage, USAGES);
        }
        if usages[..i].iter().any(|other| other == usage) {
            errors.duplicate(&list.index(i), usage);
        }
    }
    signer(spec.text("signerName"), &path.child("signerName"), errors);
    if let Some(seconds) = spec.int("expirationSeconds").filter(|seconds| *seconds < 600) {
        errors.invalid(
            &path.child("expirationSeconds"),
            &seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
}

/// A signer that promises nothing is for requests of the beta only.
fn validate_new(csr: &Value, errors: &mut Errors) {
    let (signer, path) = (csr.text("spec.signerName"), Path::Root.child("spec.signerName"));
    if signer == "kubernetes.io/legacy-unknown" {
        errors.invalid(&path, signer, "the legacy signerName is not allowed via this API version");
    }
}

fn signer(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    match name.split_once('/') {
        Some((domain, rest)) if !rest.is_empty() && !rest.contains('/') => {
            errors.invalid_all(path, domain, super::names::dns_subdomain(domain));
            if !domain.contains('.') {
                errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
            }
        }
        _ => errors.invalid(
            path,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
    }
}

/// Approved and denied exclude each other, and stay.
fn validate_change(new: &Value, old: &Value, subresource: &str, errors: &mut Errors) {
    let path = Path::Root.child("status.conditions");
    if has(new, "Approved") && has(new, "Denied") {
        errors.invalid(&path, "Denied", "Approved and Denied conditions are mutually exclusive");
    }
    if subresource == "approval" || subresource == "status" {
        for kind in ["Approved", "Denied", "Failed"] {
            if has(old, kind) && !has(new, kind) {
                errors.forbidden(&path, &format!("updates may not remove a condition of type {kind:?}"));
            }
        }
    }
    let certificate = old.at("status.certificate");
    if subresource == "status"
        && !super::value::is_empty(certificate)
        && !same(certificate, new.at("status.certificate"))
    {
        errors.forbidden(
            &Path::Root.child("status.certificate"),
            "updates may not set or modify existing certificate content",
        );
    }
}
