//! Limit ranges and quotas.

use std::time::Duration;

use super::*;
use crate::server::Reserve;

#[tokio::test]
async fn limit_ranges_set_defaults_and_bounds() {
    let range = json!({"metadata": {"name": "r", "namespace": "dev"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"},
         "min": {"cpu": "100m"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "4"}},
        {"type": "Pod", "max": {"cpu": "3"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
    ]}});
    let all = cluster([("limitranges", range)]);
    let (done, _) = Case::pods(&all).run(&LimitRanger, pod("p", json!({}))).await.unwrap();
    let expected = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}});
    assert_eq!(done["spec"]["containers"][0]["resources"], expected);
    assert_eq!(
        done["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let sized = |request: &str, limit: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": request}, "limits": {"cpu": limit}}}]});
    for (spec, why) in [
        (sized("50m", "150m"), "minimum cpu usage per Container is 100m, but request is 50m"),
        (sized("1", "2500m"), "maximum cpu usage per Container is 2, but limit is 2500m"),
        (sized("200m", "1"), "cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000"),
        (
            json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}},
                {"name": "b", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}}]}),
            "maximum cpu usage per Pod is 3, but limit is 4",
        ),
    ] {
        let error = Case::pods(&all).run(&LimitRanger, pod("p", spec)).await.unwrap_err();
        assert_eq!(error, (403, format!("pods \"p\" is forbidden: {why}")));
    }
    let claim = json!({"metadata": {"name": "c"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let error = Case::create(&all, "", "persistentvolumeclaims", true).run(&LimitRanger, claim).await.unwrap_err().1;
    assert!(error.ends_with("maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"), "{error}");
}

fn quota(spec: Value) -> (&'static str, Value) {
    ("resourcequotas", json!({"metadata": {"name": "q", "namespace": "dev"}, "spec": spec}))
}

#[tokio::test]
async fn quotas_count_objects_and_compute() {
    let all = cluster([quota(json!({"hard": {"pods": "2", "requests.cpu": "1", "count/deployments.apps": "1"}}))]);
    let plugin = ResourceQuota::default();
    let sized = |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
    let error = Case::pods(&all).run(&plugin, pod("p", json!({}))).await.unwrap_err().1;
    assert_eq!(error, "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    Case::pods(&all).run(&plugin, pod("p1", sized("600m"))).await.unwrap();
    all.put("pods", pod("p1", sized("600m")));
    let error = Case::pods(&all).run(&plugin, pod("p2", sized("500m"))).await.unwrap_err().1;
    let why = "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1";
    assert_eq!(error, format!("pods \"p2\" is forbidden: {why}"));
    Case::pods(&all).run(&plugin, pod("p2", sized("400m"))).await.unwrap();
    all.put("pods", pod("p2", sized("400m")));
    let error = Case::pods(&all).run(&plugin, pod("p3", sized("1m"))).await.unwrap_err().1;
    assert!(error.contains("requested: pods=1,requests.cpu=1m, used: pods=2,requests.cpu=1"), "{error}");
    all.remove("pods", "dev", "p1");
    all.remove("pods", "dev", "p2");
    Case::pods(&all).run(&plugin, pod("p3", sized("1"))).await.unwrap();

    let deployment = |name: &str| json!({"metadata": {"name": name, "namespace": "dev"}});
    let case = || Case::create(&all, "apps", "deployments", true);
    case().run(&plugin, deployment("a")).await.unwrap();
    all.put("deployments", deployment("a"));
    assert!(case().run(&plugin, deployment("b")).await.is_err());
}

#[tokio::test]
async fn scoped_quotas_look_at_their_pods_only() {
    let all = cluster([quota(json!({"hard": {"pods": "0"}, "scopes": ["BestEffort"]}))]);
    let plugin = ResourceQuota::default();
    assert!(Case::pods(&all).run(&plugin, pod("p", json!({}))).await.is_err());
    let sized = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]});
    Case::pods(&all).run(&plugin, pod("p", sized)).await.unwrap();
    let class = json!({"hard": {"pods": "0"}, "scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}});
    let all = cluster([quota(class)]);
    assert!(Case::pods(&all).run(&plugin, pod("p", json!({"priorityClassName": "high"}))).await.is_err());
    Case::pods(&all).run(&plugin, pod("p", json!({"priorityClassName": "low"}))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_takes_no_more_of_a_quota_waits_for_nobody() {
    let all = cluster([quota(json!({"hard": {"pods": "5", "requests.cpu": "5"}}))]);
    let plugin = ResourceQuota::default();
    let sized = |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
    let (request, _) = Case::pods(&all).seen(&plugin, pod("a", sized("1"))).await;
    let held = Reserve::reserve(&plugin, &request, &*all).await.unwrap();
    let change = async |cpu: &str| {
        let changed = Case::pods(&all).update(pod("b", sized("1"))).run(&plugin, pod("b", sized(cpu)));
        tokio::time::timeout(Duration::from_secs(1), changed).await.map(Result::unwrap)
    };
    change("1").await.unwrap();
    change("500m").await.unwrap();
    change("2").await.unwrap_err();
    drop(held);
    change("2").await.unwrap();
}
