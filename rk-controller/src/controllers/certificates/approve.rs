//! Approving kubelets' requests for client certificates.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::CertificateSigningRequest,
};
use rk_api::Informers;
use tokio_util::sync::CancellationToken;

use super::{
    condition, is_issued,
    request::{Asked, KUBELET_CLIENT},
    with_condition,
};
use crate::{Action, Context, Controller, Error, Reconcile};

/// Approves requests for a kubelet's client certificate of those who may ask for one: for themselves
/// (`certificatesigningrequests/selfnodeclient`), or for any node (`certificatesigningrequests/nodeclient`).
pub struct ApprovingController;

/// Runs the approving controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    Controller::new("certificatesigningrequest-approving-controller", ApprovingController, informers)
        .run(shutdown)
        .await;
}

#[async_trait]
impl Reconcile for ApprovingController {
    type Object = CertificateSigningRequest;

    async fn reconcile(&self, csr: Arc<CertificateSigningRequest>, context: &Context) -> Result<Action, Error> {
        let decided = condition(&csr, "Approved").is_some() || condition(&csr, "Denied").is_some();
        if csr.spec.signer_name != KUBELET_CLIENT || decided || is_issued(&csr) {
            return Ok(Action::await_change());
        }
        // What can't be read, or is for others, is not for this controller.
        let Ok(asked) = Asked::parse(&csr.spec.request.0) else { return Ok(Action::await_change()) };
        let usages = csr.spec.usages.as_deref().unwrap_or_default();
        if asked.check(KUBELET_CLIENT, usages) != Ok(true) {
            return Ok(Action::await_change());
        }
        let of_itself = csr.spec.username.as_deref() == Some(asked.common_name.as_str());
        let ways = [
            (of_itself, "selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
            (true, "nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
        ];
        for (_, permission, message) in ways.into_iter().filter(|(applies, ..)| *applies) {
            if may(&csr, permission, context).await? {
                let approved = with_condition(&csr, "Approved", "AutoApproved", message.to_owned());
                let api = context.api_all::<CertificateSigningRequest>();
                api.update_subresource(&approved, "approval").await?;
                return Ok(Action::await_change());
            }
        }
        Ok(Action::await_change())
    }
}

/// Whether the one who asks may create such requests.
async fn may(csr: &CertificateSigningRequest, permission: &str, context: &Context) -> Result<bool, Error> {
    let text = |text: &str| Some(text.to_owned());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: csr.spec.username.clone(),
            uid: csr.spec.uid.clone(),
            groups: csr.spec.groups.clone(),
            extra: csr.spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: text("certificates.k8s.io"),
                version: text("*"),
                resource: text("certificatesigningrequests"),
                subresource: text(permission),
                verb: text("create"),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        },
        ..SubjectAccessReview::default()
    };
    let answer = context.api_all::<SubjectAccessReview>().create(&review).await?;
    Ok(answer.status.as_ref().is_some_and(|status| status.allowed))
}
