//! Where a Service leads, for requests that this server passes on.

use rand::seq::SliceRandom;
use serde_json::Value;

use super::Reader;
use crate::{Error, LabelSelector, status};

/// Where one port of a Service leads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Endpoint {
    /// An address, or a name of the DNS.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Of what it is an address, most often of a pod; null if it was not told.
    pub(crate) target: Value,
}

/// The ready endpoints of a Service's port, the port's name being empty if it has none. Each time in another order, so that
/// those who take the first spread over all.
///
/// # Errors
/// They can't be read.
pub(crate) async fn ready(
    reader: &dyn Reader,
    namespace: &str,
    service: &str,
    port: &str,
) -> Result<Vec<Endpoint>, Error> {
    let selector: LabelSelector = format!("kubernetes.io/service-name={service}").parse().map_err(status::internal)?;
    let mut found = Vec::new();
    for slice in reader.list("discovery.k8s.io", "endpointslices", namespace, &selector).await? {
        let slice = slice.value()?;
        let list = |field: &str| slice[field].as_array().map(Vec::as_slice).unwrap_or_default();
        let number = list("ports").iter().find(|entry| entry["name"].as_str().unwrap_or_default() == port);
        let number = number.and_then(|entry| u16::try_from(entry["port"].as_u64()?).ok());
        let Some(number) = number else { continue };
        for endpoint in list("endpoints").iter().filter(|endpoint| endpoint["conditions"]["ready"] != false) {
            let Some(host) = endpoint["addresses"][0].as_str() else { continue };
            found.push(Endpoint { host: host.to_owned(), port: number, target: endpoint["targetRef"].clone() });
        }
    }
    found.shuffle(&mut rand::rng());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::server::fixture::Objects;

    #[tokio::test]
    async fn ready_endpoints_of_a_port_are_found_in_changing_order() {
        let labels = json!({"kubernetes.io/service-name": "s"});
        let metadata = |name: &str| json!({"name": name, "namespace": "a", "labels": labels});
        let endpoints: Vec<_> = (1..=8)
            .map(|i| {
                json!({"addresses": [format!("10.0.0.{i}")], "conditions": {"ready": i != 8},
                "targetRef": {"kind": "Pod", "name": format!("p{i}")}})
            })
            .collect();
        let slices = Objects::new([
            (
                "endpointslices",
                json!({"metadata": metadata("s-1"), "ports": [{"name": "web", "port": 80}],
                "endpoints": endpoints}),
            ),
            (
                "endpointslices",
                json!({"metadata": metadata("s-2"), "ports": [{"name": "admin", "port": 81}],
                "endpoints": [{"addresses": ["10.0.1.1"]}, {"addresses": []}]}),
            ),
            (
                "endpointslices",
                json!({"metadata": metadata("s-3"), "ports": [{"name": "admin", "port": 99999}],
                "endpoints": [{"addresses": ["10.0.1.2"]}]}),
            ),
        ]);
        let mut first = BTreeSet::new();
        for _ in 0..200 {
            let found = ready(&*slices, "a", "s", "web").await.unwrap();
            assert_eq!(found.len(), 7, "{found:?}");
            first.insert(found[0].host.clone());
        }
        assert_eq!(first.len(), 7, "each is the first sometimes: {first:?}");
        let only = Endpoint { host: "10.0.1.1".to_owned(), port: 81, target: Value::Null };
        assert_eq!(ready(&*slices, "a", "s", "admin").await.unwrap(), [only]);
        assert_eq!(ready(&*slices, "a", "s", "").await.unwrap(), []);
        assert_eq!(ready(&*slices, "b", "s", "web").await.unwrap(), []);
    }
}
