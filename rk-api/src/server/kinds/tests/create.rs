//! Wrong new objects (`wrong.txt`): one edit of a good object each, and exactly what is said of it.

use serde_json::{Value, json};

use super::{Sample, assert_said, create, edit, good};

fn check(kind: &str, pointer: &str, value: Value, expected: &[&str]) {
    let Sample { resource, mut object } = good(kind);
    let what = format!("{kind} {pointer} = {value:.200}");
    edit(&mut object, pointer, value);
    assert_said(&create(&resource, &mut object), expected, &what);
}

#[test]
fn wrong_objects_are_refused_in_kubernetes_words() {
    let mut lines =
        include_str!("wrong.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
    let mut cases = 0;
    while let Some(case) = lines.next() {
        let mut parts = case.splitn(3, ' ');
        let (Some(kind), Some(pointer), Some(value)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("not a case: {case}");
        };
        let mut expected = Vec::new();
        while let Some(said) = lines.peek().and_then(|line| line.strip_prefix("    ")) {
            expected.push(said);
            lines.next();
        }
        assert!(!expected.is_empty(), "nothing is said of {case}");
        check(kind, pointer, serde_json::from_str(value).unwrap(), &expected);
        cases += 1;
    }
    assert!(cases >= 250, "only {cases} cases");
}

#[test]
fn what_is_too_large_is_not_repeated() {
    check(
        "ConfigMap",
        "/metadata/annotations",
        json!({"a": "x".repeat(256 << 10)}),
        &["TooLong metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
    check(
        "ConfigMap",
        "/data",
        json!({"k": "x".repeat((1 << 20) + 1)}),
        &["TooLong []: Too long: may not be more than 1048576 bytes"],
    );
}
