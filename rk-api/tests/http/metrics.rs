//! What `/metrics` tells.

use serde_json::json;

use crate::api::{Api, CONFIG_MAPS};

/// The value of a metric with these labels, in any order.
fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    text.lines().find_map(|line| {
        let (head, value) = line.rsplit_once(' ')?;
        let own = head.strip_prefix(name)?;
        let own =
            own.strip_prefix('{').and_then(|own| own.strip_suffix('}')).or_else(|| own.is_empty().then_some(""))?;
        let has = |(key, value): &(&str, &str)| own.split(',').any(|label| label == format!("{key}=\"{value}\""));
        if labels.iter().all(has) { value.parse().ok() } else { None }
    })
}

#[tokio::test]
async fn metrics_count_requests_and_what_is_held() {
    let api = Api::start().await;
    api.config_maps(3, 1000).await;
    let lists = [api.get(CONFIG_MAPS, &[]).await, api.get(CONFIG_MAPS, &[]).await];
    api.get(&format!("{CONFIG_MAPS}/missing"), &[]).await.is(404);
    let answer = api.get("/metrics", &[]).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let requests = |verb: &str, code: &str| {
        value(&text, "apiserver_request_total", &[("verb", verb), ("resource", "configmaps"), ("code", code)])
    };
    assert_eq!(
        [requests("POST", "201"), requests("LIST", "200"), requests("GET", "404")],
        [Some(3.0), Some(2.0), Some(1.0)],
        "{text}"
    );
    let took =
        value(&text, "apiserver_request_duration_seconds_count", &[("verb", "LIST"), ("resource", "configmaps")]);
    assert_eq!(took, Some(2.0), "{text}");
    assert_eq!(
        value(&text, "apiserver_current_inflight_requests", &[("request_kind", "mutating")]),
        Some(0.0),
        "{text}"
    );
    assert_eq!(value(&text, "apiserver_storage_objects", &[("resource", "configmaps")]), Some(3.0), "{text}");

    // The watch cache holds the objects as they are listed; replaced versions are held for watches.
    let items = lists[0].json()["items"].as_array().unwrap().clone();
    let bytes: usize = items.iter().map(|item| item.to_string().len()).sum();
    let held = |text: &str, part: &str| {
        value(text, "apiserver_watch_cache_bytes", &[("resource", "configmaps"), ("part", part)])
    };
    assert_eq!(
        [held(&text, "objects"), held(&text, "changes"), held(&text, "forms"), held(&text, "indexes")],
        [Some(bytes as f64), Some(0.0), Some(0.0), Some(0.0)]
    );
    let first = items[0].to_string().len();
    api.merge(&format!("{CONFIG_MAPS}/c0000"), &json!({"data": {"filling": null}})).await.is(200);
    let text = String::from_utf8(api.get("/metrics", &[]).await.body.to_vec()).unwrap();
    assert_eq!(held(&text, "changes"), Some(first as f64));
    assert!(held(&text, "objects") < Some(bytes as f64));
    // What a list in protobuf encodes is kept for the next.
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    let form = api.get(&format!("{CONFIG_MAPS}/c0001"), &accept).await.body.len();
    let list = api.get(CONFIG_MAPS, &accept).await.body.len();
    let text = String::from_utf8(api.get("/metrics", &[]).await.body.to_vec()).unwrap();
    let forms = held(&text, "forms").unwrap();
    assert!(forms > form as f64 && forms < 2.0 * list as f64, "{text}");
}
