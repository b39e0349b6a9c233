//! Jobs against the real API server, on a paused clock.

mod cluster;

use std::collections::BTreeSet;

use cluster::{Cluster, template};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use rk_api::{DeleteOptions, Patch, Propagation};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const CONTROLLERS: &[&str] = &["job-controller", "garbage-collector-controller", "ttl-after-finished-controller"];

fn job(name: &str, state: &str, spec: Value) -> Value {
    let mut template = template(json!({"job": name, "state": state}), "v1");
    template["spec"]["restartPolicy"] = json!("Never");
    let mut job = json!({"metadata": {"name": name},
        "spec": {"template": template, "manualSelector": true, "selector": {"matchLabels": {"job": name}}}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        job["spec"][field] = value.clone();
    }
    job
}

fn condition<'a>(job: &'a Job, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&condition.status, condition.reason.as_deref().unwrap_or_default()))
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_so_many_pods_to_their_end_and_lets_them_go() {
    let cluster = Cluster::with(CONTROLLERS).await;
    cluster.create::<Job>(job("sum", "done", json!({"completions": 5, "parallelism": 2}))).await;
    let done = ("True", "CompletionsReached");
    let sum = cluster.until::<Job>("sum", |job| condition(job, "Complete") == Some(done)).await;
    let status = sum.status.clone().unwrap();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(5), None, None));
    assert!(status.completion_time.is_some() && status.uncounted_terminated_pods.is_none());
    let pods = cluster.list::<Pod>().await;
    assert_eq!(pods.len(), 5);
    assert!(pods.iter().all(|pod| pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)));

    let background = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    cluster.api::<Job>().delete("sum", background).await.unwrap();
    cluster.until_list::<Pod>(|pods| pods.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn any_number_of_pods_that_end_at_once_are_counted_once() {
    const COUNT: usize = 600;
    let mut cluster = Cluster::bare().await;
    cluster.shutdown = CancellationToken::new();
    cluster.manage(CONTROLLERS);
    cluster.create::<Job>(job("many", "", json!({"completions": COUNT, "parallelism": COUNT}))).await;
    let pods = cluster.until_list::<Pod>(|pods| pods.len() == COUNT).await;
    // Nobody looks while they end.
    cluster.shutdown.cancel();
    for pod in &pods {
        let ended = Patch::merge(json!({"status": {"phase": "Succeeded"}}));
        cluster.api::<Pod>().patch_status(pod.metadata.name.as_deref().unwrap(), ended).await.unwrap();
    }
    cluster.shutdown = CancellationToken::new();
    cluster.manage(CONTROLLERS);
    let many = cluster.until::<Job>("many", |job| condition(job, "Complete").is_some()).await;
    assert_eq!(many.status.as_ref().unwrap().succeeded, Some(600));
    assert_eq!(cluster.list::<Pod>().await.len(), COUNT, "none was made anew");
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_later_each_time_up_to_the_limit() {
    let cluster = Cluster::with(CONTROLLERS).await;
    let start = tokio::time::Instant::now();
    cluster.create::<Job>(job("bad", "fail", json!({"backoffLimit": 2, "completions": 1, "parallelism": 1}))).await;
    let failed = ("True", "BackoffLimitExceeded");
    let bad = cluster.until::<Job>("bad", |job| condition(job, "Failed") == Some(failed)).await;
    assert_eq!(bad.status.as_ref().unwrap().failed, Some(3));
    assert_eq!(condition(&bad, "FailureTarget"), Some(failed));
    let took = start.elapsed().as_secs();
    assert!((28..40).contains(&took), "10 s and 20 s between three tries: {took}");
}

#[tokio::test(start_paused = true)]
async fn an_indexed_job_completes_each_index() {
    let cluster = Cluster::with(CONTROLLERS).await;
    let indexed = json!({"completions": 4, "parallelism": 3, "completionMode": "Indexed"});
    cluster.create::<Job>(job("parts", "done", indexed)).await;
    let parts = cluster.until::<Job>("parts", |job| condition(job, "Complete").is_some()).await;
    assert_eq!(parts.status.as_ref().unwrap().completed_indexes.as_deref(), Some("0-3"));
    let pods = cluster.list::<Pod>().await;
    let hosts: BTreeSet<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.hostname.clone()).collect();
    assert_eq!(hosts.into_iter().collect::<Vec<_>>(), ["parts-0", "parts-1", "parts-2", "parts-3"]);
    let env = pods[0].spec.as_ref().unwrap().containers[0].env.as_ref().unwrap();
    assert_eq!(env[0].name, "JOB_COMPLETION_INDEX");
}

#[tokio::test(start_paused = true)]
async fn a_job_is_suspended_resumed_ended_by_its_deadline_and_deleted_by_its_ttl() {
    let cluster = Cluster::with(CONTROLLERS).await;
    let spec = json!({"suspend": true, "activeDeadlineSeconds": 100, "ttlSecondsAfterFinished": 50, "parallelism": 2, "completions": 2});
    cluster.create::<Job>(job("nap", "run", spec)).await;
    cluster.until::<Job>("nap", |job| condition(job, "Suspended") == Some(("True", "JobSuspended"))).await;
    assert!(cluster.list::<Pod>().await.is_empty());
    cluster.patch::<Job>("nap", json!({"spec": {"suspend": false}})).await;
    cluster.until::<Job>("nap", |job| job.status.as_ref().is_some_and(|status| status.ready == Some(2))).await;
    let failed = ("True", "DeadlineExceeded");
    let nap = cluster.until::<Job>("nap", |job| condition(job, "Failed") == Some(failed)).await;
    assert_eq!(nap.status.as_ref().unwrap().failed, Some(2), "pods that were stopped count as failed");
    cluster.until_list::<Job>(|jobs| jobs.is_empty()).await;
    cluster.until_list::<Pod>(|pods| pods.is_empty()).await;
}
