//! What a URL names (apiserver's `RequestInfoFactory`).

use crate::Resource;

/// A path that names a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ResourcePath {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) subresource: String,
    /// What follows the subresource: the path behind `proxy`, or what a server behind this one makes of it.
    pub(super) rest: String,
    /// The old form of a watch: `/api/v1/watch/...`.
    pub(super) watch: bool,
}

/// Decodes `%XX`; `None` if what comes out is no text.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

impl ResourcePath {
    /// Reads a path; `None` if it names no resource.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut raw = path.trim_start_matches('/').splitn(3, '/');
        let (group, version, tail) = match (raw.next()?, raw.next()?) {
            ("api", version) => (String::new(), version, raw.next()?),
            ("apis", group) => {
                let (version, tail) = raw.next()?.split_once('/')?;
                (group.to_owned(), version, tail)
            }
            _ => return None,
        };
        let mut parsed = Self { group, version: version.to_owned(), ..Self::default() };
        let mut parts: Vec<&str> = tail.split('/').collect();
        if parts.first() == Some(&"watch") && parts.len() > 1 {
            parsed.watch = true;
            parts.remove(0);
        }
        // `namespaces/x` and `namespaces/x/status` are about the namespace itself, whatever follows.
        let inside = parts.first() == Some(&"namespaces")
            && parts.len() > 2
            && !matches!(parts[2], "status" | "finalize")
            && !(parts.len() == 3 && parts[2].is_empty());
        if inside {
            parsed.namespace = unescape(parts[1])?;
            parts.drain(..2);
        }
        let mut parts = parts.into_iter();
        parsed.plural = unescape(parts.next().filter(|plural| !plural.is_empty())?)?;
        parsed.name = unescape(parts.next().unwrap_or_default())?;
        parsed.subresource = unescape(parts.next().unwrap_or_default())?;
        parsed.rest = parts.collect::<Vec<_>>().join("/");
        Some(parsed)
    }

    /// The resource, of which the path does not tell the kind.
    pub(super) fn resource(&self) -> Resource {
        Resource::new(&self.group, &self.version, "", &self.plural, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let parts = |path: &str| {
            let p = ResourcePath::parse(path)?;
            Some([p.group, p.version, p.namespace, p.plural, p.name, p.subresource, p.rest].join("|"))
        };
        for (path, wanted) in [
            ("/api/v1/pods", "|v1||pods|||"),
            ("/api/v1/namespaces", "|v1||namespaces|||"),
            ("/api/v1/namespaces/a", "|v1||namespaces|a||"),
            ("/api/v1/namespaces/a/status", "|v1||namespaces|a|status|"),
            ("/api/v1/namespaces/a/", "|v1||namespaces|a||"),
            ("/apis/x/v1/namespaces/a/status/y", "x|v1||namespaces|a|status|y"),
            ("/api/v1/namespaces/a/finalize/y/z", "|v1||namespaces|a|finalize|y/z"),
            ("/api/v1/namespaces/a/pods", "|v1|a|pods|||"),
            ("/api/v1/namespaces/a/pods/p/proxy/x/y", "|v1|a|pods|p|proxy|x/y"),
            ("/api/v1/pods/a/log/x", "|v1||pods|a|log|x"),
            ("/apis/apps/v1/namespaces/a/deployments/d/scale", "apps|v1|a|deployments|d|scale|"),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "rbac.authorization.k8s.io|v1||clusterroles|system:node||",
            ),
            ("/api/v1/watch/namespaces/a/pods/p", "|v1|a|pods|p||"),
        ] {
            assert_eq!(parts(path).as_deref(), Some(wanted), "{path}");
        }
        for path in ["/", "/api", "/api/v1", "/apis/apps", "/apis/apps/v1", "/version", "/api/v1/"] {
            assert_eq!(parts(path), None, "{path}");
        }
        assert!(ResourcePath::parse("/api/v1/watch/pods").unwrap().watch);
    }
}
