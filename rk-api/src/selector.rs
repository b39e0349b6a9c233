//! Label and field selectors: one parser and one matcher for lists, watches, controllers and informers.

use std::{collections::BTreeMap, fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as LabelSelectorSpec;

/// A selector that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse requirement: {0}")]
pub struct SelectorError(pub String);

/// One requirement on the labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// The label has one of these values.
    In(String, Vec<String>),
    /// The label is absent or has none of these values.
    NotIn(String, Vec<String>),
    /// The label is there.
    Exists(String),
    /// The label is absent.
    DoesNotExist(String),
    /// The label is a number above this.
    GreaterThan(String, i64),
    /// The label is a number below this.
    LessThan(String, i64),
}

impl Requirement {
    /// Whether `labels` meet it.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let number = |key: &String| labels.get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
            Self::GreaterThan(key, bound) => number(key).is_some_and(|value| value > *bound),
            Self::LessThan(key, bound) => number(key).is_some_and(|value| value < *bound),
        }
    }
}

/// Requirements on labels, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    /// The requirements.
    pub requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// Matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Exactly these labels.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let requirements = labels.into_iter().map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()])).collect();
        Self { requirements }
    }

    /// The selector that an object's spec holds (`matchLabels` and `matchExpressions`).
    ///
    /// # Errors
    /// An operator other than In, NotIn, Exists, DoesNotExist, or one with values where it takes none, or none where it
    /// needs some.
    pub fn from_spec(spec: &LabelSelectorSpec) -> Result<Self, SelectorError> {
        let mut selector = Self::from_labels(spec.match_labels.iter().flatten());
        for expression in spec.match_expressions.iter().flatten() {
            let (key, values) = (expression.key.clone(), expression.values.clone().unwrap_or_default());
            let operator = expression.operator.as_str();
            match (operator, values.is_empty()) {
                ("In" | "NotIn", true) => {
                    let why = "for 'in', 'notin' operators, values set can't be empty";
                    return Err(SelectorError(why.to_owned()));
                }
                ("Exists" | "DoesNotExist", false) => {
                    let why = "values set must be empty for exists and does not exist";
                    return Err(SelectorError(why.to_owned()));
                }
                _ => {}
            }
            selector.requirements.push(match operator {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::DoesNotExist(key),
                other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            });
        }
        Ok(selector)
    }

    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether `labels` meet every requirement.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match requirement {
                Requirement::In(k, v) if v.len() == 1 => write!(f, "{comma}{k}={}", v[0])?,
                Requirement::In(k, v) => write!(f, "{comma}{k} in ({})", v.join(","))?,
                Requirement::NotIn(k, v) if v.len() == 1 => write!(f, "{comma}{k}!={}", v[0])?,
                Requirement::NotIn(k, v) => write!(f, "{comma}{k} notin ({})", v.join(","))?,
                Requirement::Exists(k) => write!(f, "{comma}{k}")?,
                Requirement::DoesNotExist(k) => write!(f, "{comma}!{k}")?,
                Requirement::GreaterThan(k, n) => write!(f, "{comma}{k}>{n}")?,
                Requirement::LessThan(k, n) => write!(f, "{comma}{k}<{n}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split_outside_parens(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    break;
                }
                return Err(SelectorError(format!("found an empty requirement in {text:?}")));
            }
            requirements.push(parse_requirement(part)?);
        }
        Ok(Self { requirements })
    }
}

fn split_outside_parens(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn parse_requirement(part: &str) -> Result<Requirement, SelectorError> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement::DoesNotExist(label_key(key)?));
    }
    if let Some(list) = part.strip_suffix(')') {
        let (head, values) = list.split_once('(').ok_or_else(|| SelectorError(format!("missing '(' in {part:?}")))?;
        let values = values.split(',').map(label_value).collect::<Result<Vec<_>, _>>()?;
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok(Requirement::In(label_key(key)?, values)),
            (Some(key), Some("notin"), None) => Ok(Requirement::NotIn(label_key(key)?, values)),
            _ => Err(SelectorError(format!("expected 'in' or 'notin' in {part:?}"))),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(label_key(key)?, vec![label_value(value)?]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::In(label_key(key)?, vec![label_value(value)?]));
    }
    let number = |value: &str| {
        value
            .trim()
            .parse()
            .map_err(|_| SelectorError(format!("for 'Gt', 'Lt' operators, the value must be an integer: {value:?}")))
    };
    if let Some((key, value)) = part.split_once('>') {
        return Ok(Requirement::GreaterThan(label_key(key)?, number(value)?));
    }
    if let Some((key, value)) = part.split_once('<') {
        return Ok(Requirement::LessThan(label_key(key)?, number(value)?));
    }
    Ok(Requirement::Exists(label_key(part)?))
}

fn name_chars(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn label_key(text: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    let name = text.rsplit_once('/').map_or(text, |(_, name)| name);
    if name_chars(name) {
        Ok(text.to_owned())
    } else {
        Err(SelectorError(format!("{text:?} is not a valid label key")))
    }
}

fn label_value(text: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    let valid = text.is_empty() || name_chars(text);
    if valid { Ok(text.to_owned()) } else { Err(SelectorError(format!("{text:?} is not a valid label value"))) }
}

/// Terms on fields (`metadata.name=a,status.phase!=Running`), all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    /// Path, value, and whether the field must equal it (`true`) or differ from it.
    pub terms: Vec<(String, String, bool)>,
}

impl FieldSelector {
    /// One field with one value.
    pub fn field(path: &str, value: &str) -> Self {
        Self { terms: vec![(path.to_owned(), value.to_owned(), true)] }
    }

    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether every term holds; `field` gives a path's value, empty where there is none.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> std::borrow::Cow<'a, str>) -> bool {
        self.terms.iter().all(|(path, value, equal)| (field(path) == value.as_str()) == *equal)
    }

    /// The value that a path must equal, if the selector says so.
    pub fn required(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|(p, _, equal)| p == path && *equal).map(|(_, value, _)| value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (path, value, equal)) in self.terms.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{}{path}{}{value}", if i == 0 { "" } else { "," }, if *equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

impl FromStr for FieldSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                (path, value, true)
            } else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            terms.push((path.to_owned(), unescape(value)?, equal));
        }
        Ok(Self { terms })
    }
}

fn split_unescaped(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let split = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        split
    })
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                other => {
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: \\{}",
                        other.map(String::from).unwrap_or_default()
                    )));
                }
            },
            (plain, false) => out.push(plain),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn label_selectors_parse_match_and_print() {
        let have = labels(&[("app", "web"), ("tier", "front"), ("n", "5")]);
        for (text, hit) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier in (front, back)", true),
            ("app!=web", false),
            ("absent!=x", true),
            ("tier notin (front)", false),
            ("app,!absent", true),
            ("!app", false),
            ("n>4,n<6", true),
            ("n>5", false),
        ] {
            let selector: LabelSelector = text.parse().unwrap();
            assert_eq!(selector.matches(&have), hit, "{text}");
            assert_eq!(selector.to_string().parse::<LabelSelector>().unwrap(), selector, "{text}");
        }
        for bad in ["a in (", "a b", "=x", "a=b c", "a in x", ",", "a>b"] {
            assert!(bad.parse::<LabelSelector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors_parse_match_and_print() {
        let field = |path: &str| std::borrow::Cow::Borrowed(if path == "metadata.name" { "a,b" } else { "" });
        let selector: FieldSelector = r"metadata.name=a\,b,status.phase!=Running".parse().unwrap();
        assert!(selector.matches(field));
        assert_eq!(selector.to_string().parse::<FieldSelector>().unwrap(), selector);
        assert!("nothing".parse::<FieldSelector>().is_err());
    }
}
