//! From host and path to a backend.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};

use super::PathRule;
use crate::ServiceKey;

/// A port of a service as an Ingress names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackendPort {
    /// By the port's number in the Service.
    Number(u16),
    /// By its name.
    Name(String),
}

/// Where a rule leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendRef {
    /// The service.
    pub service: ServiceKey,
    /// Its port.
    pub port: BackendPort,
}

impl BackendRef {
    fn new(namespace: &str, backend: &IngressBackend) -> Option<Self> {
        let service = backend.service.as_ref()?;
        let port = service.port.as_ref()?;
        let port = match (&port.name, port.number) {
            (Some(name), _) if !name.is_empty() => BackendPort::Name(name.clone()),
            (_, Some(number)) => BackendPort::Number(u16::try_from(number).ok()?),
            _ => return None,
        };
        Some(Self { service: ServiceKey::new(namespace, &service.name), port })
    }
}

/// The rules for one host.
#[derive(Debug, Default)]
struct Host {
    /// In the order in which they are tried.
    paths: Vec<(PathRule, Arc<BackendRef>)>,
    /// Where the rest goes: the default backend of an Ingress with rules for this host.
    default: Option<Arc<BackendRef>>,
}

/// The rules of all Ingresses.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<String, Host>,
    /// Hosts `*.suffix`, by suffix.
    wildcard: HashMap<String, Host>,
    any: Host,
    default: Option<Arc<BackendRef>>,
}

impl Router {
    /// The rules of these Ingresses. Where two have the same host and path, the first counts.
    pub fn new<'a>(ingresses: impl IntoIterator<Item = &'a Ingress>) -> Self {
        let mut router = Self::default();
        for ingress in ingresses {
            router.add(ingress);
        }
        let hosts = router.exact.values_mut().chain(router.wildcard.values_mut()).chain([&mut router.any]);
        for host in hosts {
            // Stable: the first of two alike stays the first.
            host.paths.sort_by_key(|(rule, _)| rule.order());
        }
        router
    }

    fn add(&mut self, ingress: &Ingress) {
        let namespace = ingress.metadata.namespace.as_deref().unwrap_or_default();
        let Some(spec) = &ingress.spec else { return };
        let default =
            spec.default_backend.as_ref().and_then(|backend| BackendRef::new(namespace, backend)).map(Arc::new);
        for rule in spec.rules.iter().flatten() {
            let name = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            let host = if name.is_empty() {
                &mut self.any
            } else if let Some(suffix) = name.strip_prefix("*.") {
                self.wildcard.entry(suffix.to_owned()).or_default()
            } else {
                self.exact.entry(name).or_default()
            };
            if host.default.is_none() {
                host.default.clone_from(&default);
            }
            let paths = rule.http.as_ref().map(|http| http.paths.as_slice()).unwrap_or_default();
            host.paths.extend(paths.iter().filter_map(|path| {
                let backend = BackendRef::new(namespace, &path.backend)?;
                Some((PathRule::new(&path.path_type, path.path.as_deref()), Arc::new(backend)))
            }));
        }
        if self.default.is_none() {
            self.default = default;
        }
    }

    /// The backend for a request; `None` where no rule applies. The host may have a port.
    pub fn route(&self, host: &str, path: &str) -> Option<Arc<BackendRef>> {
        let name = without_port(host).to_ascii_lowercase();
        // The wildcard stands for exactly one label.
        let wildcard = name.split_once('.').and_then(|(_, suffix)| self.wildcard.get(suffix));
        let host = self.exact.get(&name).or(wildcard).unwrap_or(&self.any);
        let found = host.paths.iter().find(|(rule, _)| rule.matches(path)).map(|(_, backend)| backend);
        found.or(host.default.as_ref()).or(self.default.as_ref()).cloned()
    }
}

/// The name in a `Host` header.
fn without_port(host: &str) -> &str {
    if let Some(end) = host.find(']') {
        return &host[..=end];
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ingress(rules: serde_json::Value) -> Ingress {
        serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "i"}, "spec": rules})).unwrap()
    }

    fn path(kind: &str, path: &str, service: &str) -> serde_json::Value {
        json!({"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}})
    }

    fn routed(router: &Router, host: &str, path: &str) -> Option<String> {
        router.route(host, path).map(|backend| backend.service.name.to_string())
    }

    #[test]
    fn the_most_specific_host_and_the_longest_path_win() {
        let router = Router::new(&[ingress(json!({"rules": [
            {"host": "a.example", "http": {"paths": [
                path("Prefix", "/", "root"), path("Prefix", "/long/er", "longer"), path("Prefix", "/long", "long"),
                path("Prefix", "/same", "same-prefix"), path("Exact", "/same", "same-exact"),
            ]}},
            {"host": "*.example", "http": {"paths": [path("Prefix", "/", "wild")]}},
            {"http": {"paths": [path("Prefix", "/any", "any")]}},
        ]}))]);
        let cases = [
            ("a.example", "/", Some("root")),
            ("A.Example:8080", "/long", Some("long")),
            ("a.example", "/long/er/yet", Some("longer")),
            ("a.example", "/longer", Some("root")),
            ("a.example", "/same", Some("same-exact")),
            ("a.example", "/same/", Some("same-prefix")),
            ("b.example", "/x", Some("wild")),
            ("a.b.example", "/any", Some("any")),
            ("example", "/any/x", Some("any")),
            ("example", "/", None),
            ("[::1]:80", "/any", Some("any")),
        ];
        for (host, path, service) in cases {
            assert_eq!(routed(&router, host, path).as_deref(), service, "{host}{path}");
        }
    }

    #[test]
    fn what_no_rule_takes_goes_to_the_default_backend() {
        let default = json!({"service": {"name": "default", "port": {"name": "http"}}});
        let router = Router::new(&[ingress(json!({"defaultBackend": default, "rules": [
            {"host": "a.example", "http": {"paths": [path("Exact", "/a", "a")]}},
        ]}))]);
        assert_eq!(routed(&router, "a.example", "/a").as_deref(), Some("a"));
        assert_eq!(routed(&router, "a.example", "/b").as_deref(), Some("default"));
        assert_eq!(router.route("elsewhere", "/").unwrap().port, BackendPort::Name("http".to_owned()));
    }
}
