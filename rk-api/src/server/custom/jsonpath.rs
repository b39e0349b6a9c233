//! The JSONPath of printer columns: fields, indexes, wildcards and filters by equality, as in
//! `.status.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose path equals a value.
    Where(Vec<Step>, Value),
}

/// A path from an object to the values that a column shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads a path, with or without the braces around it; `None` if it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        steps(text.strip_prefix('$').unwrap_or(text)).map(Self)
    }

    /// The values that the path leads to.
    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        find(&self.0, value)
    }
}

fn find<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found
            .into_iter()
            .flat_map(|value| -> Vec<&'a Value> {
                match (step, value) {
                    (Step::Field(name), Value::Object(fields)) => fields.get(name).into_iter().collect(),
                    (Step::Index(at), Value::Array(items)) => {
                        let from_end = usize::try_from(-at).ok().and_then(|back| items.len().checked_sub(back));
                        let at = if *at < 0 { from_end } else { usize::try_from(*at).ok() };
                        at.and_then(|at| items.get(at)).into_iter().collect()
                    }
                    (Step::All, Value::Array(items)) => items.iter().collect(),
                    (Step::All, Value::Object(fields)) => fields.values().collect(),
                    (Step::Where(path, wanted), Value::Array(items)) => {
                        items.iter().filter(|item| find(path, item).contains(&wanted)).collect()
                    }
                    _ => Vec::new(),
                }
            })
            .collect();
    }
    found
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after)?;
            steps.push(bracket(after[..end].trim())?);
            rest = &after[end + 1..];
            continue;
        }
        let after = rest.strip_prefix('.')?;
        if let Some(after) = after.strip_prefix('*') {
            steps.push(Step::All);
            rest = after;
            continue;
        }
        let mut name = String::new();
        let mut chars = after.char_indices();
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.push(chars.next()?.1),
                '.' | '[' => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        if !name.is_empty() {
            steps.push(Step::Field(name));
        } else if end < after.len() && after[end..].starts_with('.') {
            return None;
        }
        rest = &after[end..];
    }
    Some(steps)
}

/// Where a bracket ends, quotes and inner brackets left out.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn unquote(text: &str) -> Option<&str> {
    let quoted = |quote| text.strip_prefix(quote).and_then(|text: &str| text.strip_suffix(quote));
    quoted('"').or_else(|| quoted('\''))
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquote(text) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (path, wanted) = filter.split_once("==")?;
        let wanted = wanted.trim();
        let wanted = match unquote(wanted) {
            Some(text) => Value::String(text.to_owned()),
            None => serde_json::from_str(wanted).ok()?,
        };
        return Some(Step::Where(steps(path.trim().strip_prefix('@')?)?, wanted));
    }
    text.parse().ok().map(Step::Index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_values() {
        let object = json!({"spec": {"a.b": 1, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]}, "m": {"k": "z"}});
        for (path, wanted) in [
            (".spec.list[0].v", json!([1])),
            ("{.spec.list[-1].v}", json!([2])),
            (".spec.list[*].v", json!([1, 2])),
            (".spec.list[?(@.n==\"y\")].v", json!([2])),
            (".spec.list[?(@.n=='x')].v", json!([1])),
            (".spec.a\\.b", json!([1])),
            (".spec['a.b']", json!([1])),
            (".m.*", json!(["z"])),
            (".nothing.here", json!([])),
        ] {
            let found: Value = JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
            assert_eq!(found, wanted, "{path}");
        }
        for bad in ["spec", ".a[", ".a[?(b)]", ".a[x]"] {
            assert_eq!(JsonPath::parse(bad), None, "{bad}");
        }
    }
}
