//! Certificate signing requests: who of the built-in signers' askers is approved by itself, and what the built-in signers sign
//! (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>).
//!
//! [`approve`] approves kubelets' requests for client certificates, if they may ask for themselves or for any node.
//! [`sign`] writes certificates into requests that are approved. [`clean`] deletes requests that nobody needs any more.

pub mod approve;
mod authority;
pub mod clean;
mod der;
mod request;
pub mod sign;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

pub use authority::{Authority, AuthorityError};

/// A request's condition of this type.
fn condition<'a>(csr: &'a CertificateSigningRequest, kind: &str) -> Option<&'a CertificateSigningRequestCondition> {
    let conditions = csr.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether a certificate was written into the request.
fn is_issued(csr: &CertificateSigningRequest) -> bool {
    let certificate = csr.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate.is_some_and(|certificate| !certificate.0.is_empty())
}

/// Adds a condition to a copy of a request.
fn with_condition(
    csr: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: String,
) -> CertificateSigningRequest {
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(rk_api::now());
    let mut changed = csr.clone();
    let conditions = changed.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    });
    changed
}
