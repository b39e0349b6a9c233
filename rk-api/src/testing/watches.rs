//! Watches: every change, in order, exactly once.

use std::collections::BTreeMap;

use futures::StreamExt;
use serde_json::json;

use super::{LABEL, Suite, config_maps, own};
use crate::{DeleteOptions, EventStream, Patch, Verb, WatchEvent, WatchOptions, WriteOptions};

pub(super) async fn all(suite: &Suite) {
    for check in 0..3 {
        suite.clear().await;
        match check {
            0 => a_watch_resumes_where_a_list_ended(suite).await,
            1 => selectors_are_crossed(suite).await,
            _ => writers_are_followed_without_a_gap(suite).await,
        }
    }
}

async fn watch(suite: &Suite, options: WatchOptions) -> EventStream {
    let watched = suite.client.watch(&config_maps(), &suite.namespace, options).await;
    watched.unwrap_or_else(|error| panic!("watch: {error}"))
}

/// The next event: its type, the object's name and its version.
async fn next(events: &mut EventStream) -> (&'static str, String, u64) {
    match events.next().await {
        Some(Ok(event)) => {
            let kind = match &event {
                WatchEvent::Added(_) => "ADDED",
                WatchEvent::Modified(_) => "MODIFIED",
                WatchEvent::Deleted(_) => "DELETED",
                WatchEvent::Bookmark { .. } => "BOOKMARK",
            };
            let object = event.object();
            if let Some(object) = object {
                assert_eq!(
                    (object.api_version(), object.kind()),
                    ("v1", "ConfigMap"),
                    "objects in events are complete"
                );
            }
            (kind, object.map(|o| o.meta().name.clone()).unwrap_or_default(), object.map_or(0, |o| o.revision()))
        }
        other => panic!("a watch goes on, yet it gave {other:?}"),
    }
}

async fn a_watch_resumes_where_a_list_ended(suite: &Suite) {
    suite.create("before", "1").await;
    let list = suite.client.list(&config_maps(), &suite.namespace, own()).await.expect("list");
    let made = suite.create("a", "1").await;
    let patch = Patch::merge(json!({"data": {"value": "2"}}));
    let changed = suite.request("a", Verb::Patch(patch, WriteOptions::default())).await.expect("patch");
    suite.request("a", Verb::Delete(DeleteOptions::default())).await.expect("delete");
    let from = |version: &str| WatchOptions {
        labels: LABEL.parse().expect("a selector"),
        resource_version: version.to_owned(),
        ..WatchOptions::default()
    };
    let mut events = watch(suite, from(&list.resource_version)).await;
    assert_eq!(next(&mut events).await, ("ADDED", "a".to_owned(), made.revision()));
    assert_eq!(next(&mut events).await, ("MODIFIED", "a".to_owned(), changed.revision()));
    let (kind, name, version) = next(&mut events).await;
    assert_eq!((kind, name.as_str()), ("DELETED", "a"));
    assert!(version > changed.revision(), "a deletion has a version of its own");
    let mut later = watch(suite, from(&changed.meta().resource_version)).await;
    assert_eq!(next(&mut later).await, ("DELETED", "a".to_owned(), version));

    let mut now = watch(suite, from("")).await;
    assert_eq!(next(&mut now).await.1, "before", "without a version the current state comes first");
}

async fn selectors_are_crossed(suite: &Suite) {
    suite.create("a", "1").await;
    let options = WatchOptions { labels: format!("{LABEL}=1").parse().expect("a selector"), ..WatchOptions::default() };
    let mut events = watch(suite, options).await;
    assert_eq!(next(&mut events).await.0, "ADDED");
    for (value, wanted) in [("2", "DELETED"), ("1", "ADDED")] {
        let patch = Patch::merge(json!({"metadata": {"labels": {LABEL: value}}}));
        let changed = suite.request("a", Verb::Patch(patch, WriteOptions::default())).await.expect("patch");
        assert_eq!(next(&mut events).await, (wanted, "a".to_owned(), changed.revision()));
    }
}

async fn writers_are_followed_without_a_gap(suite: &Suite) {
    const WRITERS: usize = 4;
    const WRITES: usize = 25;
    let list = suite.client.list(&config_maps(), &suite.namespace, own()).await.expect("list");
    let options = WatchOptions {
        labels: LABEL.parse().expect("a selector"),
        resource_version: list.resource_version,
        ..WatchOptions::default()
    };
    let mut events = watch(suite, options).await;
    let writers = (0..WRITERS).map(|writer| async move {
        let name = format!("w{writer}");
        let mut versions = vec![suite.create(&name, "0").await.revision()];
        for i in 1..WRITES {
            let patch = Patch::merge(json!({"data": {"value": i.to_string()}}));
            let changed = suite.request(&name, Verb::Patch(patch, WriteOptions::default())).await.expect("patch");
            versions.push(changed.revision());
        }
        (name, versions)
    });
    let watched = async {
        let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut last = 0;
        for _ in 0..WRITERS * WRITES {
            let (_, name, version) = next(&mut events).await;
            assert!(version > last, "events come in the order of their versions: {version} after {last}");
            last = version;
            seen.entry(name).or_default().push(version);
        }
        seen
    };
    let (written, seen) = futures::future::join(futures::future::join_all(writers), watched).await;
    assert_eq!(seen, written.into_iter().collect(), "every change comes exactly once");
}
