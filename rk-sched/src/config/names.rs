//! What names must look like.

use super::FieldError;

/// Whether a text is letters, digits and some of `inner`, with letters or digits at both ends.
fn is_name(text: &str, longest: usize, inner: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= longest
        && ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || inner.contains(c))
}

/// A name with an optional prefix, as labels and resources have (`validation.IsQualifiedName`).
pub(super) fn qualified_name(name: &str, path: &str, errors: &mut Vec<FieldError>) {
    let (prefix, local) = name.split_once('/').map_or((None, name), |(prefix, local)| (Some(prefix), local));
    let domain = |prefix: &str| {
        prefix.len() <= 253
            && !prefix.is_empty()
            && prefix.split('.').all(|part| is_name(part, 253, "-") && !part.contains(|c: char| c.is_ascii_uppercase()))
    };
    if !prefix.is_none_or(domain) {
        errors.push(FieldError::invalid(path, name, "prefix part must be a DNS subdomain (e.g. 'example.com')"));
    }
    if !is_name(local, 63, "-_.") {
        errors.push(FieldError::invalid(
            path,
            name,
            "name part must consist of at most 63 alphanumeric characters, '-', '_' or '.', and must start and end with \
             an alphanumeric character (e.g. 'MyName')",
        ));
    }
}

/// A label's value (`validation.IsValidLabelValue`).
pub(super) fn label_value(value: &str, path: &str, errors: &mut Vec<FieldError>) {
    if value.len() > 63 {
        errors.push(FieldError::invalid(path, value, "must be no more than 63 bytes"));
    }
    if !value.is_empty() && !is_name(value, usize::MAX, "-_.") {
        errors.push(FieldError::invalid(
            path,
            value,
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and \
             end with an alphanumeric character (e.g. 'MyValue')",
        ));
    }
}

/// Whether a name is of an extended resource: not one of Kubernetes' own, nor a quota's (`IsExtendedResourceName`).
pub(super) fn is_extended_resource(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualified_names_are_kubernetes() {
        let good = |name: &str| {
            let mut errors = Vec::new();
            qualified_name(name, "n", &mut errors);
            errors.is_empty()
        };
        for name in ["cpu", "example.com/gpu", "a/B_c.d", &"x".repeat(63)] {
            assert!(good(name), "{name}");
        }
        for name in ["", "a/", "/a", "a/b/c", "-a", "a-", "Example.com/a", "a b", "ex..com/a", &"x".repeat(64)] {
            assert!(!good(name), "{name}");
        }
    }

    #[test]
    fn extended_resources_are_not_kubernetes() {
        assert!(is_extended_resource("example.com/gpu"));
        for name in ["cpu", "hugepages-2Mi", "kubernetes.io/x", "a.kubernetes.io/x", "requests.example.com/gpu"] {
            assert!(!is_extended_resource(name), "{name}");
        }
    }
}
