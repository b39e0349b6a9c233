//! The environment of a container: service links, sources, references, in the kubelet's order.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};

use super::fields::{self, Place};

/// Config maps and secrets of the pod's namespace.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<String, Arc<ConfigMap>>,
    pub(crate) secrets: BTreeMap<String, Arc<Secret>>,
}

/// Replaces `$(NAME)` by its value and `$$` by `$`; unknown names stay as they are.
pub(crate) fn expand<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Variables in the order they were first set; a later value replaces an earlier one.
#[derive(Default)]
pub(crate) struct Envs(Vec<(String, String)>);

impl Envs {
    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn into_inner(self) -> Vec<(String, String)> {
        self.0
    }
}

/// Variables of services (`WEB_SERVICE_HOST`, the docker links' `WEB_PORT_80_TCP_ADDR`, ...).
fn service_links(envs: &mut Envs, services: &[Arc<Service>], namespace: &str, links: bool) {
    for service in services {
        let (Some(name), Some(spec)) = (&service.metadata.name, &service.spec) else { continue };
        let own = service.metadata.namespace.as_deref() == Some(namespace);
        let api = service.metadata.namespace.as_deref() == Some("default") && name == "kubernetes";
        if !(api || own && links) {
            continue;
        }
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { continue };
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let upper = name.to_uppercase().replace('-', "_");
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        envs.set(&format!("{upper}_SERVICE_HOST"), ip.to_owned());
        envs.set(&format!("{upper}_SERVICE_PORT"), first.port.to_string());
        for port in ports {
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let port_name = port_name.to_uppercase().replace('-', "_");
                envs.set(&format!("{upper}_SERVICE_PORT_{port_name}"), port.port.to_string());
            }
        }
        for (index, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                envs.set(&format!("{upper}_PORT"), url.clone());
            }
            let prefix = format!("{upper}_PORT_{}_{protocol}", port.port);
            envs.set(&prefix, url);
            envs.set(&format!("{prefix}_PROTO"), protocol.to_lowercase());
            envs.set(&format!("{prefix}_PORT"), port.port.to_string());
            envs.set(&format!("{prefix}_ADDR"), ip.to_owned());
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The whole environment of a container.
///
/// # Errors
/// In the kubelet's words, what a variable needs and the cluster does not have: the reason
/// `CreateContainerConfigError`.
pub(crate) fn make(
    pod: &Pod,
    container: &Container,
    place: &Place,
    sources: &Sources,
    services: &[Arc<Service>],
    api_server: Option<&(String, u16)>,
) -> Result<Envs, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let mut linked = Envs::default();
    if let Some((host, port)) = api_server {
        linked.set("KUBERNETES_SERVICE_HOST", host.clone());
        linked.set("KUBERNETES_SERVICE_PORT", port.to_string());
    }
    let links = spec.and_then(|spec| spec.enable_service_links).unwrap_or(true);
    service_links(&mut linked, services, namespace, links);
    let mut envs = Envs::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(map) = &from.config_map_ref {
            match sources.config_maps.get(&map.name) {
                Some(found) => {
                    for (key, value) in found.data.iter().flatten() {
                        envs.set(&format!("{prefix}{key}"), value.clone());
                    }
                }
                None if map.optional == Some(true) => {}
                None => return Err(format!("configmap \"{}\" not found", map.name)),
            }
        }
        if let Some(secret) = &from.secret_ref {
            match sources.secrets.get(&secret.name) {
                Some(found) => {
                    for (key, value) in found.data.iter().flatten() {
                        envs.set(&format!("{prefix}{key}"), text(&value.0));
                    }
                }
                None if secret.optional == Some(true) => {}
                None => return Err(format!("secret \"{}\" not found", secret.name)),
            }
        }
    }
    for var in container.env.iter().flatten() {
        let value = if let Some(value) = var.value.as_deref().filter(|value| !value.is_empty()) {
            expand(value, |name| envs.get(name).or_else(|| linked.get(name)))
        } else if let Some(from) = &var.value_from {
            let found = if let Some(of) = &from.field_ref {
                let found = fields::field(pod, place, &of.field_path);
                Some(found.ok_or_else(|| format!("unsupported fieldPath: {}", of.field_path))?)
            } else if let Some(of) = &from.resource_field_ref {
                let found = fields::resource(pod, Some(container), place, of);
                Some(found.ok_or_else(|| format!("unsupported container resource : {}", of.resource))?)
            } else if let Some(of) = &from.config_map_key_ref {
                let found = sources.config_maps.get(&of.name);
                let value = found.and_then(|map| map.data.as_ref()?.get(&of.key).cloned());
                match (found, value) {
                    (_, Some(value)) => Some(value),
                    _ if of.optional == Some(true) => None,
                    (None, _) => return Err(format!("configmap \"{}\" not found", of.name)),
                    _ => return Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", of.key, of.name)),
                }
            } else if let Some(of) = &from.secret_key_ref {
                let found = sources.secrets.get(&of.name);
                let value = found.and_then(|secret| secret.data.as_ref()?.get(&of.key).map(|value| text(&value.0)));
                match (found, value) {
                    (_, Some(value)) => Some(value),
                    _ if of.optional == Some(true) => None,
                    (None, _) => return Err(format!("secret \"{}\" not found", of.name)),
                    _ => return Err(format!("couldn't find key {} in Secret {namespace}/{}", of.key, of.name)),
                }
            } else {
                return Err(format!("environment variable {} has a source this agent does not know", var.name));
            };
            match found {
                Some(value) => value,
                None => continue,
            }
        } else {
            String::new()
        };
        envs.set(&var.name, value);
    }
    for (name, value) in linked.0 {
        if envs.get(&name).is_none() {
            envs.set(&name, value);
        }
    }
    Ok(envs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_expand_as_in_kubernetes() {
        let value = |name: &str| (name == "A").then_some("1");
        for (text, want) in [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A", "$A"),
            ("x$", "x$"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, value), want, "{text}");
        }
    }

    #[test]
    fn sources_are_joined_in_order() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": []}}))
                .unwrap();
        let container: Container = serde_json::from_value(json!({
            "name": "c",
            "envFrom": [{"prefix": "X_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "BOTH", "value": "$(X_k)-$(WEB_SERVICE_HOST)-$(NAME)"},
                {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "none", "optional": true}}},
            ],
        }))
        .unwrap();
        let mut sources = Sources::default();
        sources
            .config_maps
            .insert("m".into(), Arc::new(serde_json::from_value(json!({"metadata": {}, "data": {"k": "v"}})).unwrap()));
        sources.secrets.insert(
            "s".into(),
            Arc::new(serde_json::from_value(json!({"metadata": {}, "data": {"k": "cHc="}})).unwrap()),
        );
        let services: Vec<Arc<Service>> = vec![Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n"},
                "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "name": "http"}]}}))
            .unwrap(),
        )];
        let envs = make(&pod, &container, &Place::default(), &sources, &services, None).unwrap();
        assert_eq!(envs.get("BOTH"), Some("v-10.0.0.1-p"));
        assert_eq!(envs.get("SECRET"), Some("pw"));
        assert_eq!(envs.get("MAYBE"), None);
        assert_eq!(envs.get("WEB_PORT_80_TCP"), Some("tcp://10.0.0.1:80"));
        assert_eq!(envs.get("WEB_SERVICE_PORT_HTTP"), Some("80"));
        sources.secrets.clear();
        let error = make(&pod, &container, &Place::default(), &sources, &services, None).err().unwrap();
        assert_eq!(error, "secret \"s\" not found");
    }
}
