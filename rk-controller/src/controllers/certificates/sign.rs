//! Signing what was approved.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequest};
use rk_api::Informers;
use tokio_util::sync::CancellationToken;

use super::{Authority, condition, is_issued, request::Asked, with_condition};
use crate::{Action, Context, Controller, Error, Reconcile};

/// The longest that a certificate counts, and how long one counts that does not say (`--cluster-signing-duration`).
const LONGEST: SignedDuration = SignedDuration::from_hours(365 * 24);
/// The shortest that may be asked for.
const SHORTEST: SignedDuration = SignedDuration::from_mins(10);

/// Signs approved requests of the signers `kube-apiserver-client`, `kube-apiserver-client-kubelet`, `kubelet-serving` and
/// `legacy-unknown`. Of the last nothing is approved by itself; what somebody approves is signed for any usages.
pub struct SigningController {
    authority: Authority,
}

/// Runs the signing controller until `shutdown`.
pub async fn run(informers: &Informers, authority: Authority, shutdown: CancellationToken) {
    Controller::new("certificatesigningrequest-signing-controller", SigningController { authority }, informers)
        .run(shutdown)
        .await;
}

#[async_trait]
impl Reconcile for SigningController {
    type Object = CertificateSigningRequest;

    async fn reconcile(&self, csr: Arc<CertificateSigningRequest>, context: &Context) -> Result<Action, Error> {
        let refused = condition(&csr, "Denied").is_some() || condition(&csr, "Failed").is_some();
        if condition(&csr, "Approved").is_none() || refused || is_issued(&csr) {
            return Ok(Action::await_change());
        }
        let usages = csr.spec.usages.as_deref().unwrap_or_default();
        let checked = Asked::parse(&csr.spec.request.0);
        let checked = checked.and_then(|asked| Ok(asked.check(&csr.spec.signer_name, usages)?.then_some(asked)));
        let api = context.api_all::<CertificateSigningRequest>();
        match checked {
            // Somebody else's to sign.
            Ok(None) => {}
            Err(_) if !csr.spec.signer_name.starts_with("kubernetes.io/") => {}
            Err(why) => {
                api.update_status(&with_condition(&csr, "Failed", "SignerValidationFailure", why)).await?;
            }
            Ok(Some(asked)) => {
                let wanted = csr.spec.expiration_seconds.map_or(LONGEST, |s| SignedDuration::from_secs(s.into()));
                let signed = self.authority.sign(&asked, usages, wanted.clamp(SHORTEST, LONGEST));
                let signed = signed.map_err(|error| Error::Invalid(error.to_string()))?;
                let mut issued = CertificateSigningRequest::clone(&csr);
                issued.status.get_or_insert_default().certificate = Some(ByteString(signed.into_bytes()));
                api.update_status(&issued).await?;
            }
        }
        Ok(Action::await_change())
    }
}
