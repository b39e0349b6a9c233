//! The syntax of names: what apimachinery's `util/validation` checks, with its words.
//!
//! Each check returns what is wrong, one text per broken rule; an empty list is a good name.

use std::net::IpAddr;

use crate::addresses::is_within;

/// A label of the DNS: RFC 1123.
pub fn dns_label(value: &str) -> Vec<String> {
    let mut errors = too_long(value, 63);
    if !is_label(value) {
        errors.push(if is_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            regex(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
                 with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    errors
}

/// Labels joined by dots: RFC 1123.
pub fn dns_subdomain(value: &str) -> Vec<String> {
    let mut errors = too_long(value, 253);
    if !is_subdomain(value) {
        errors.push(regex(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
             and end with an alphanumeric character",
            SUBDOMAIN,
            &["example.com"],
        ));
    }
    errors
}

/// Labels joined by dots, which may hold underscores: the search paths of a resolver.
pub fn dns_subdomain_underscore(value: &str) -> Vec<String> {
    let mut errors = too_long(value, 253);
    let label = |label: &str| {
        let label = label.strip_prefix('_').unwrap_or(label);
        is_label(&label.replace('_', "-")) && !label.starts_with('_') && !label.ends_with('_')
    };
    if !value.split('.').all(label) {
        errors.push(regex(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must \
             start and end with an alphanumeric character",
            "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    errors
}

/// A label that does not start with a digit: RFC 1035.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut errors = too_long(value, 63);
    if !(is_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        errors.push(regex(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// A subdomain behind `*.`.
pub fn wildcard_subdomain(value: &str) -> Vec<String> {
    let mut errors = too_long(value, 253);
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        errors.push(regex(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of \
             lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    errors
}

/// A key of labels, annotations, taints, finalizers: a name, perhaps behind a subdomain and `/`.
pub fn qualified_name(value: &str) -> Vec<String> {
    const WHAT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character";
    const FORM: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut errors = Vec::new();
    let mut parts = value.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, None) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(dns_subdomain(prefix).into_iter().map(|error| format!("prefix part {error}")));
            }
            name
        }
        _ => {
            return vec![
                regex(&format!("a qualified name {WHAT}"), FORM, EXAMPLES)
                    + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            ];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_name(name) {
        errors.push(regex(&format!("name part {WHAT}"), FORM, EXAMPLES));
    }
    errors
}

/// The value of a label.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = too_long(value, 63);
    if !value.is_empty() && !is_name(value) {
        errors.push(regex(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
             and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// A name that can be a segment of a URL path (RBAC's objects).
pub fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|part| value.contains(**part)).map(|part| format!("may not contain '{part}'")).collect()
}

/// A key of a ConfigMap or a Secret.
pub fn config_key(value: &str) -> Vec<String> {
    let mut errors = too_long(value, 253);
    let chars = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if value.is_empty() || !value.chars().all(chars) {
        errors.push(regex(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    if value == "." || value == ".." {
        errors.push(format!("must not be '{value}'"));
    } else if value.starts_with("..") {
        errors.push("must not start with '..'".to_owned());
    }
    errors
}

/// The name of an environment variable (the relaxed rule: printable ASCII but `=`).
pub fn env_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value.chars().all(|c| matches!(c, ' '..='~') && c != '=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// The name of a port (IANA's service name).
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = too_long(value, 15);
    let mut rule = |broken: bool, text: &str| {
        if broken {
            errors.push(text.to_owned());
        }
    };
    let chars = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    rule(
        value.is_empty() || !value.chars().all(chars),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    rule(!value.chars().any(|c| c.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    rule(value.contains("--"), "must not contain consecutive hyphens");
    rule(value.starts_with('-') || value.ends_with('-'), "must not begin or end with a hyphen");
    errors
}

/// A port's number.
pub fn port_number(value: i64) -> Option<&'static str> {
    (!(1..=65535).contains(&value)).then_some("must be between 1 and 65535, inclusive")
}

/// The name of an HTTP header.
pub fn header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Vec::new();
    }
    vec![regex(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// An IPv4 or IPv6 address.
pub fn ip(value: &str) -> Option<&'static str> {
    value.parse::<IpAddr>().is_err().then_some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
}

/// An address as the name of an object: in the one form that it has.
pub fn ip_name(value: &str) -> Vec<String> {
    match value.parse::<IpAddr>() {
        Err(_) => ip(value).into_iter().map(str::to_owned).collect(),
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
        }
        Ok(ip) if ip.to_string() != value => vec![format!("must be in canonical form ({:?})", ip.to_string())],
        Ok(_) => Vec::new(),
    }
}

/// A range of addresses, such as `10.0.0.0/8`.
pub fn cidr(value: &str) -> Option<&'static str> {
    let valid = value.split_once('/').is_some_and(|(address, bits)| {
        let most = if address.contains(':') { 128 } else { 32 };
        address.parse::<IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    });
    (!valid).then_some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
}

/// Whether the first range is a part of the second, and not the whole.
pub fn cidr_within(part: &str, whole: &str) -> bool {
    let (Some((part, bits)), Some((whole, whole_bits))) = (network(part), network(whole)) else { return false };
    bits > whole_bits && is_within(part, (whole, whole_bits))
}

/// A range's address and the bits of its prefix.
pub fn network(cidr: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = cidr.split_once('/')?;
    Some((address.parse().ok()?, bits.parse().ok()?))
}

/// A percentage, such as `25%`.
pub fn percent(value: &str) -> Option<String> {
    let valid = value.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
    (!valid).then(|| {
        regex("a valid percent string must be a numeric string followed by an ending '%'", "[0-9]+%", &["1%", "93%"])
    })
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

fn is_label(value: &str) -> bool {
    !value.is_empty()
        && value.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        && !value.starts_with('-')
        && !value.ends_with('-')
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

fn is_name(value: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(value.chars().next())
        && edge(value.chars().next_back())
        && value.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

fn too_long(value: &str, limit: usize) -> Vec<String> {
    if value.len() > limit { vec![format!("must be no more than {limit} bytes")] } else { Vec::new() }
}

/// Apimachinery's `RegexError`, its odd double space included.
fn regex(what: &str, form: &str, examples: &[&str]) -> String {
    let mut text = format!("{what} (e.g. ");
    for (i, example) in examples.iter().enumerate() {
        text.push_str(if i == 0 { "" } else { " or " });
        text.push_str(&format!("'{example}', "));
    }
    text + &format!("regex used for validation is '{form}')")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        type Check = fn(&str) -> Vec<String>;
        let long = "a".repeat(64);
        let cases: &[(Check, &[&str], &[&str])] = &[
            (dns_label, &["a", "a-1", "1"], &["", "A", "a.b", "-a", "a-", "a_b", &long]),
            (dns_subdomain, &["a.b", "a", "a-b.c"], &["", "a..b", ".a", "a.", "a.-b", "A.b"]),
            (dns1035_label, &["a", "a-1"], &["1a", "", "a.b"]),
            (wildcard_subdomain, &["*.a.b"], &["*", "*.", "a.b", "*.*.a"]),
            (qualified_name, &["a", "A.b_c", "x.y/Z"], &["", "/a", "a/", "a/b/c", "-a", "X/y", "a b", &long]),
            (label_value, &["", "a", "A_1.b"], &["-a", "a b", "a/b", &long]),
            (path_segment, &["system:x", "a"], &[".", "..", "a/b", "a%b"]),
            (config_key, &["a.b", "_A-1"], &["", "a/b", ".", "..", "..a"]),
            (env_name, &["A_B", "a.b", "1x"], &["", "a=b", "é"]),
            (port_name, &["http", "a-1"], &["", "1", "a--b", "-a", "HTTP", "sixteencharacters"]),
            (header_name, &["X-A"], &["", "a b", "a:"]),
        ];
        for (check, good, bad) in cases {
            for value in *good {
                assert_eq!(check(value), Vec::<String>::new(), "{value}");
            }
            for value in *bad {
                assert_ne!(check(value), Vec::<String>::new(), "{value}");
            }
        }
        assert_eq!(
            dns_label("Bad"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
                 with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert!(cidr("10.0.0.0/8").is_none() && cidr("10.0.0.0/33").is_some() && cidr("x/8").is_some());
        assert!(cidr_within("10.1.0.0/16", "10.0.0.0/8") && !cidr_within("11.0.0.0/16", "10.0.0.0/8"));
        assert!(!cidr_within("10.0.0.0/8", "10.0.0.0/8") && cidr_within("10.0.0.0/8", "0.0.0.0/0"));
        assert!(ip("::1").is_none() && ip("1.2.3").is_some());
        assert!(percent("5%").is_none() && percent("5").is_some() && percent("%").is_some());
    }
}
