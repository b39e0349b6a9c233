//! Who may have certificates signed, and which.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use x509_parser::{certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer};

use super::{forbid, is, text};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Admit, Attributes, Authorizer, Decision, Operation, Reader, authz::SUPERUSERS},
};

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Refuses certificate requests for clients in the group `system:masters`.
#[derive(Debug, Clone, Copy, Default)]
pub struct CertificateSubjectRestriction;

/// The organizations that a request in PEM asks for.
fn organizations(pem: &[u8]) -> Result<Vec<String>, String> {
    // Readers differ in which of several blocks they take, where the end of one has another name than its beginning.
    if String::from_utf8_lossy(pem).matches("-----BEGIN ").count() > 1 {
        return Err("there is more than one PEM block".to_owned());
    }
    let (_, pem) = parse_x509_pem(pem).map_err(|error| error.to_string())?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
    let organizations = request.certification_request_info.subject.iter_organization();
    let texts = organizations.map(|organization| organization.as_str().map(str::to_owned));
    texts.collect::<Result<_, _>>().map_err(|error| format!("an organization can't be read: {error}"))
}

#[async_trait]
impl Admit for CertificateSubjectRestriction {
    fn name(&self) -> &str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create && is(resource, GROUP, REQUESTS) && subresource.is_empty()
    }

    async fn validate(&self, request: &AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        let Some(csr) = request.object.as_ref().filter(|csr| text(&csr["spec"]["signerName"]) == CLIENT_SIGNER) else {
            return Ok(());
        };
        let decoded = STANDARD.decode(text(&csr["spec"]["request"])).map_err(|error| error.to_string());
        // What can't be read can't be judged, and might be signed all the same.
        let why = match decoded.and_then(|pem| organizations(&pem)) {
            Err(error) => format!("failed to parse CSR: {error}"),
            Ok(organizations) if organizations.iter().any(|name| name == SUPERUSERS) => {
                format!("use of {CLIENT_SIGNER} signer with {SUPERUSERS} group is not allowed")
            }
            Ok(_) => return Ok(()),
        };
        Err(forbid(request, &why))
    }
}

/// Whether the caller has a verb on a signer, by its name or for its whole domain (`example.com/*`).
async fn may(authorizer: &dyn Authorizer, request: &AdmissionRequest, verb: &'static str, signer: &str) -> bool {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let attributes = Attributes {
            user: Arc::clone(&request.attributes.user),
            verb: verb.into(),
            group: GROUP.into(),
            version: "*".into(),
            resource: "signers".into(),
            name,
            ..Attributes::default()
        };
        if matches!(authorizer.authorize(&attributes).await, Decision::Allow(_)) {
            return true;
        }
    }
    false
}

fn signer(request: &AdmissionRequest) -> Result<String, Status> {
    let old = request.old_value()?;
    let object = old.as_deref().or(request.object.as_ref());
    Ok(object.map(|object| text(&object["spec"]["signerName"]).to_owned()).unwrap_or_default())
}

/// Lets only those approve or deny certificate requests who may `approve` their signer.
pub struct CertificateApproval(Arc<dyn Authorizer>);

impl CertificateApproval {
    /// Asks `authorizer` for the verb `approve` on `signers`.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self(authorizer)
    }
}

#[async_trait]
impl Admit for CertificateApproval {
    fn name(&self) -> &str {
        "CertificateApproval"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Update && is(resource, GROUP, REQUESTS) && subresource == "approval"
    }

    async fn validate(&self, request: &AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        let signer = signer(request)?;
        if may(&*self.0, request, "approve", &signer).await {
            return Ok(());
        }
        let why = format!("user not permitted to approve requests with signerName {signer:?}");
        Err(forbid(request, &why))
    }
}

/// Lets only those write certificates into requests who may `sign` for their signer.
pub struct CertificateSigning(Arc<dyn Authorizer>);

impl CertificateSigning {
    /// Asks `authorizer` for the verb `sign` on `signers`.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self(authorizer)
    }
}

#[async_trait]
impl Admit for CertificateSigning {
    fn name(&self) -> &str {
        "CertificateSigning"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Update && is(resource, GROUP, REQUESTS) && subresource == "status"
    }

    async fn validate(&self, request: &AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        let old = request.old_value()?;
        let (Some(old), Some(new)) = (old, &request.object) else { return Ok(()) };
        let same = |field: &str| old["status"][field] == new["status"][field];
        if same("certificate") && same("conditions") {
            return Ok(());
        }
        let signer = signer(request)?;
        if may(&*self.0, request, "sign", &signer).await {
            return Ok(());
        }
        let why = format!("user not permitted to sign requests with signerName {signer:?}");
        Err(forbid(request, &why))
    }
}
