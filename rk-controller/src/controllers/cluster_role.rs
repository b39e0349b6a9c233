//! Aggregated ClusterRoles: their rules are those of all ClusterRoles that they select.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use rk_api::{Informer, Informers, LabelSelector};
use tokio_util::sync::CancellationToken;

use crate::{Action, Context, Controller, Error, Reconcile, common::meta};

/// Collects rules.
pub struct ClusterRoleAggregationController {
    roles: Informer,
}

/// Runs the ClusterRole aggregation controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let roles = informers.of::<ClusterRole>();
    let all = roles.clone();
    Controller::new(
        "clusterrole-aggregation-controller",
        ClusterRoleAggregationController { roles: roles.clone() },
        informers,
    )
    // A change of any may concern all that collect.
    .watches_informer(roles, move |_| {
        let collects = |object: &Arc<rk_api::Object>| {
            let role = object.typed::<ClusterRole>().ok()?;
            role.aggregation_rule.as_ref().map(|_| meta::key(&role.metadata))
        };
        all.list().iter().filter_map(collects).collect()
    })
    .run(shutdown)
    .await;
}

#[async_trait]
impl Reconcile for ClusterRoleAggregationController {
    type Object = ClusterRole;

    async fn reconcile(&self, role: Arc<ClusterRole>, context: &Context) -> Result<Action, Error> {
        let Some(aggregation) = &role.aggregation_rule else { return Ok(Action::await_change()) };
        let mut rules: Vec<PolicyRule> = Vec::new();
        for selector in aggregation.cluster_role_selectors.iter().flatten() {
            let selector = LabelSelector::from_spec(selector)?;
            // By name, so that the order is always the same.
            for object in self.roles.list() {
                if object.meta().uid == meta::uid(&role.metadata) || !selector.matches(&object.meta().labels) {
                    continue;
                }
                for rule in object.typed::<ClusterRole>()?.rules.iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        if role.rules.as_deref().unwrap_or_default() == rules {
            return Ok(Action::await_change());
        }
        let changed = ClusterRole { rules: Some(rules), ..ClusterRole::clone(&role) };
        context.api_all::<ClusterRole>().update(&changed).await?;
        Ok(Action::await_change())
    }
}
