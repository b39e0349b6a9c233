//! Matching paths.

/// How a rule's path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMatch {
    /// The same, case included.
    Exact,
    /// The same elements at the start; `ImplementationSpecific` is taken for this too.
    Prefix,
}

/// A path of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// How it is compared.
    pub kind: PathMatch,
    /// The path.
    pub path: String,
}

impl PathRule {
    /// A rule of the API's words; no path is the prefix `/`.
    pub fn new(path_type: &str, path: Option<&str>) -> Self {
        let path = path.filter(|path| !path.is_empty()).unwrap_or("/").to_owned();
        Self { kind: if path_type == "Exact" { PathMatch::Exact } else { PathMatch::Prefix }, path }
    }

    /// Whether a request's path matches.
    pub fn matches(&self, path: &str) -> bool {
        match self.kind {
            PathMatch::Exact => path == self.path,
            PathMatch::Prefix => {
                let prefix = self.path.trim_end_matches('/');
                // Element by element: `/foo` is no prefix of `/foobar`; a slash at the end means nothing.
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }

    /// Rules in the order of this key match first what they should: the longest path, of two alike the exact one.
    pub(crate) fn order(&self) -> (std::cmp::Reverse<usize>, bool) {
        (std::cmp::Reverse(self.path.trim_end_matches('/').len()), self.kind == PathMatch::Prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_documentation() {
        // https://kubernetes.io/docs/concepts/services-networking/ingress/#examples
        let cases = [
            ("Prefix", "/", "/any", true),
            ("Exact", "/foo", "/foo", true),
            ("Exact", "/foo", "/bar", false),
            ("Exact", "/foo", "/foo/", false),
            ("Exact", "/foo/", "/foo", false),
            ("Prefix", "/foo", "/foo", true),
            ("Prefix", "/foo", "/foo/", true),
            ("Prefix", "/foo/", "/foo", true),
            ("Prefix", "/foo/", "/foo/", true),
            ("Prefix", "/aaa/bb", "/aaa/bbb", false),
            ("Prefix", "/aaa/bbb", "/aaa/bbb", true),
            ("Prefix", "/aaa/bbb/", "/aaa/bbb", true),
            ("Prefix", "/aaa/bbb", "/aaa/bbb/", true),
            ("Prefix", "/aaa/bbb", "/aaa/bbb/ccc", true),
            ("Prefix", "/aaa/bbb", "/aaa/bbbxyz", false),
            ("Prefix", "/aaa", "/ccc", false),
            ("ImplementationSpecific", "/x", "/x/y", true),
        ];
        for (kind, rule, path, matches) in cases {
            assert_eq!(PathRule::new(kind, Some(rule)).matches(path), matches, "{kind} {rule} {path}");
        }
        assert!(PathRule::new("ImplementationSpecific", None).matches("/"));
    }
}
