//! CronJobs, disruption budgets and aggregated roles against the real API server, on a paused clock.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, deployment, template};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::{CronJob, Job},
    policy::v1::PodDisruptionBudget,
    rbac::v1::ClusterRole,
};
use serde_json::{Value, json};

fn cron_job(policy: &str, state: &str) -> Value {
    let mut template = template(json!({"cron": "tick", "state": state}), "v1");
    template["spec"]["restartPolicy"] = json!("Never");
    json!({"metadata": {"name": "tick"}, "spec": {"schedule": "*/5 * * * *", "concurrencyPolicy": policy,
        "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1,
        "jobTemplate": {"spec": {"template": template}}}})
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_runs_on_time_and_keeps_a_short_history() {
    let cluster = Cluster::with(&["cronjob-controller", "job-controller", "garbage-collector-controller"]).await;
    cluster.create::<CronJob>(cron_job("Allow", "done")).await;
    tokio::time::sleep(Duration::from_secs(1501)).await;
    let jobs = cluster.list::<Job>().await;
    assert!((2..=3).contains(&jobs.len()), "five ran, two are kept: {}", jobs.len());
    let tick = cluster.until::<CronJob>("tick", |tick| {
        tick.status.as_ref().is_some_and(|status| status.last_successful_time.is_some())
    });
    let status = tick.await.status.clone().unwrap();
    assert_eq!(status.last_schedule_time.unwrap().0.as_second() % 300, 0);
    let annotations = jobs[0].metadata.annotations.as_ref().unwrap();
    assert!(annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"].ends_with(":00Z"));

    cluster.patch::<CronJob>("tick", json!({"spec": {"suspend": true}})).await;
    let before: Vec<_> = cluster.list::<Job>().await.iter().map(|job| job.metadata.name.clone()).collect();
    tokio::time::sleep(Duration::from_secs(1000)).await;
    let after: Vec<_> = cluster.list::<Job>().await.iter().map(|job| job.metadata.name.clone()).collect();
    assert!(after.iter().all(|name| before.contains(name)), "a suspended one makes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_forbids_or_replaces_what_still_runs() {
    for (policy, same) in [("Forbid", true), ("Replace", false)] {
        let cluster = Cluster::with(&["cronjob-controller", "job-controller", "garbage-collector-controller"]).await;
        cluster.create::<CronJob>(cron_job(policy, "runs")).await;
        let first = cluster.until_list::<Job>(|jobs| jobs.len() == 1).await[0].metadata.uid.clone();
        tokio::time::sleep(Duration::from_secs(610)).await;
        let now = cluster.until_list::<Job>(|jobs| jobs.len() == 1).await[0].metadata.uid.clone();
        assert_eq!(first == now, same, "{policy}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_made_by_hand_does_not_keep_the_next_from_its_time() {
    let cluster = Cluster::with(&["cronjob-controller", "job-controller", "garbage-collector-controller"]).await;
    let tick = cluster.create::<CronJob>(cron_job("Forbid", "runs")).await;
    // As `kubectl create job --from=cronjob/tick` makes it.
    let owner = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": tick.metadata.uid, "controller": true}]);
    let spec = cron_job("Forbid", "runs")["spec"]["jobTemplate"]["spec"].clone();
    cluster.create::<Job>(json!({"metadata": {"name": "by-hand", "ownerReferences": owner}, "spec": spec})).await;
    tokio::time::sleep(Duration::from_secs(310)).await;
    cluster.until_list::<Job>(|jobs| jobs.len() == 2).await;
    let names = |tick: &CronJob| {
        let active = tick.status.iter().flat_map(|status| status.active.iter().flatten());
        active.filter_map(|job| job.name.clone()).collect::<Vec<_>>()
    };
    cluster.until::<CronJob>("tick", |tick| names(tick).len() == 1 && names(tick)[0] != "by-hand").await;
}

#[tokio::test(start_paused = true)]
async fn a_budget_counts_what_may_be_missing() {
    let cluster = Cluster::with(&["deployment-controller", "replicaset-controller", "disruption-controller"]).await;
    cluster.create::<Deployment>(deployment("web", 4, "v1")).await;
    let budget = json!({"metadata": {"name": "web"}, "spec": {"maxUnavailable": "25%", "selector": {"matchLabels": {"app": "web"}}}});
    cluster.create::<PodDisruptionBudget>(budget).await;
    let counts = |budget: &PodDisruptionBudget| {
        let status = budget.status.clone().unwrap_or_default();
        (status.expected_pods, status.desired_healthy, status.current_healthy, status.disruptions_allowed)
    };
    cluster.until::<PodDisruptionBudget>("web", |budget| counts(budget) == (Some(4), Some(3), Some(4), Some(1))).await;
    cluster.patch::<PodDisruptionBudget>("web", json!({"spec": {"maxUnavailable": null, "minAvailable": 4}})).await;
    let full = cluster
        .until::<PodDisruptionBudget>("web", |budget| counts(budget) == (Some(4), Some(4), Some(4), Some(0)))
        .await;
    let condition = &full.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "InsufficientPods"));
}

#[tokio::test(start_paused = true)]
async fn an_aggregated_role_has_the_rules_of_those_it_selects() {
    let cluster = Cluster::bare().await;
    cluster.manage(&["clusterrole-aggregation-controller"]);
    let rule = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
    let sum = json!({"metadata": {"name": "sum"}, "rules": [],
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"add": "yes"}}]}});
    cluster.create::<ClusterRole>(sum).await;
    for name in ["pods", "nodes"] {
        let part = json!({"metadata": {"name": name, "labels": {"add": "yes"}}, "rules": [rule(name)]});
        cluster.create::<ClusterRole>(part).await;
    }
    let resources = |role: &ClusterRole| {
        let rules = role.rules.iter().flatten().filter_map(|rule| rule.resources.clone());
        rules.flatten().collect::<Vec<_>>()
    };
    cluster.until_all::<ClusterRole>("sum", |role| resources(role) == ["nodes", "pods"]).await;
}
