//! Leader election against the real API server, on a paused clock.

mod cluster;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cluster::Cluster;
use k8s_openapi::api::coordination::v1::Lease;
use rk_api::{Client, Patch};
use rk_controller::leader::{Ended, LeaderElectionConfig, LeaderElector};
use serde_json::json;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// A competitor that counts itself while it leads.
fn compete(
    client: &Arc<dyn Client>,
    who: &str,
    leaders: &Arc<AtomicUsize>,
    stop: &CancellationToken,
) -> JoinHandle<Ended> {
    let elector = LeaderElector::new(client.clone(), LeaderElectionConfig::new("default", "work", who)).unwrap();
    let (leaders, stop) = (leaders.clone(), stop.clone());
    tokio::spawn(elector.run(stop, move |token| async move {
        assert_eq!(leaders.fetch_add(1, Ordering::SeqCst), 0, "two leaders");
        token.cancelled().await;
        leaders.fetch_sub(1, Ordering::SeqCst);
    }))
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().unwrap().holder_identity.as_deref().unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_hands_over_at_once_when_it_leaves() {
    let cluster = Cluster::bare().await;
    let leaders = Arc::new(AtomicUsize::new(0));
    let stops = [CancellationToken::new(), CancellationToken::new()];
    let first = compete(&cluster.client, "a", &leaders, &stops[0]);
    cluster.until::<Lease>("work", |lease| holder(lease) == "a").await;
    let second = compete(&cluster.client, "b", &leaders, &stops[1]);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(leaders.load(Ordering::SeqCst), 1);
    let lease = cluster.until::<Lease>("work", |lease| holder(lease) == "a").await;
    assert_eq!(lease.spec.as_ref().unwrap().lease_transitions, Some(0));

    let left = Instant::now();
    stops[0].cancel();
    assert_eq!(first.await.unwrap(), Ended::Shutdown);
    let lease = cluster.until::<Lease>("work", |lease| holder(lease) == "b").await;
    assert!(left.elapsed() < Duration::from_secs(5), "the lease was given back");
    assert_eq!(lease.spec.as_ref().unwrap().lease_transitions, Some(1));
    stops[1].cancel();
    assert_eq!(second.await.unwrap(), Ended::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn one_that_vanishes_is_followed_after_the_lease_and_one_that_lost_stops() {
    let cluster = Cluster::bare().await;
    let leaders = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let first = compete(&cluster.client, "a", &leaders, &stop);
    cluster.until::<Lease>("work", |lease| holder(lease) == "a").await;
    let second = compete(&cluster.client, "b", &leaders, &stop);
    tokio::time::sleep(Duration::from_secs(30)).await;
    first.abort();
    let _ = first.await;
    leaders.store(0, Ordering::SeqCst);
    let vanished = Instant::now();
    cluster.until::<Lease>("work", |lease| holder(lease) == "b").await;
    let took = vanished.elapsed().as_secs();
    assert!((12..=19).contains(&took), "{took}");

    // Somebody takes the lease by force: the holder notices, stops, and says so.
    cluster.patch::<Lease>("work", json!({"spec": {"holderIdentity": "c", "leaseDurationSeconds": 3600}})).await;
    assert_eq!(second.await.unwrap(), Ended::Lost);
    assert_eq!(leaders.load(Ordering::SeqCst), 0);
    let taken = cluster.api::<Lease>().patch("work", Patch::merge(json!({}))).await.unwrap();
    assert_eq!(holder(&taken), "c");
}

#[tokio::test(start_paused = true)]
async fn times_with_which_two_could_lead_are_refused() {
    let cluster = Cluster::bare().await;
    let config = LeaderElectionConfig::new("default", "work", "a");
    let bad = LeaderElectionConfig { renew_deadline: config.lease_duration, ..config };
    assert!(LeaderElector::new(cluster.client.clone(), bad).is_err());
}
