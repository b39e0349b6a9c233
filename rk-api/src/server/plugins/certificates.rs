//! Who may have certificates signed, and which.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{forbid, is, text};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Admit, Attributes, Authorizer, Decision, Operation, Reader},
};

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Refuses certificate requests for clients in the group `system:masters`.
#[derive(Debug, Clone, Copy, Default)]
pub struct CertificateSubjectRestriction;

/// Whether a request in PEM asks for this organization. An organization is an attribute 2.5.4.10 with a string for its
/// value; looking for its encoding needs no parser of requests.
fn names_organization(pem: &str, organization: &str) -> bool {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let Ok(der) = STANDARD.decode(body) else { return false };
    let length = u8::try_from(organization.len()).unwrap_or(u8::MAX);
    // PrintableString, UTF8String, TeletexString and IA5String.
    [0x13, 0x0c, 0x14, 0x16].into_iter().any(|tag| {
        let mut wanted = vec![0x06, 0x03, 0x55, 0x04, 0x0a, tag, length];
        wanted.extend_from_slice(organization.as_bytes());
        der.windows(wanted.len()).any(|window| window == wanted)
    })
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
        let Ok(pem) = STANDARD.decode(text(&csr["spec"]["request"])) else { return Ok(()) };
        if names_organization(&String::from_utf8_lossy(&pem), "system:masters") {
            let why = format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
            return Err(forbid(request, &why));
        }
        Ok(())
    }
}

/// Whether the caller has a verb on a signer, by its name or for its whole domain (`example.com/*`).
async fn may(authorizer: &dyn Authorizer, request: &AdmissionRequest, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let attributes = Attributes {
            user: Arc::clone(&request.attributes.user),
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
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
