//! The part of Go's text templates that workloads use: `{{.Index}}`, and calls of the functions that scheduler_perf adds.

/// What a template's placeholders stand for.
pub(super) struct Values<'a> {
    /// `.Index`: the number of the object, from 0.
    pub(super) index: u64,
    /// `.Count`: how many there are.
    pub(super) count: u64,
    /// Other names, with their values.
    pub(super) others: &'a [(String, String)],
}

/// Whether a text has placeholders at all.
pub(super) fn has_placeholders(text: &str) -> bool {
    text.contains("{{")
}

/// The text with its placeholders filled in.
///
/// # Errors
/// A placeholder that is none of those that are known.
pub(super) fn render(text: &str, values: &Values<'_>) -> Result<String, String> {
    let mut rendered = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (inside, after) = behind.split_once("}}").ok_or_else(|| format!("placeholder {{{{{behind} has no end"))?;
        rendered.push_str(before);
        rendered.push_str(&evaluate(inside.trim(), values)?);
        rest = after;
    }
    rendered.push_str(rest);
    Ok(rendered)
}

fn evaluate(expression: &str, values: &Values<'_>) -> Result<String, String> {
    let unknown = || format!("placeholder {{{{ {expression} }}}} is not supported");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let text = |word: &str| {
        Some(match word {
            ".Index" => values.index.to_string(),
            ".Count" => values.count.to_string(),
            other => match other.strip_prefix('.') {
                Some(name) => values.others.iter().find(|(known, _)| known == name)?.1.clone(),
                None => other.to_owned(),
            },
        })
    };
    let number = |word: &str| text(word).and_then(|text| text.parse::<f64>().ok());
    let value = match words[..] {
        [word] if word.starts_with('.') => return text(word).ok_or_else(unknown),
        [function, a, b] => {
            let (a, b) = number(a).zip(number(b)).ok_or_else(unknown)?;
            match function {
                "Mod" | "Divide" | "DivideInt" if b == 0.0 => return Err(format!("{expression}: division by zero")),
                "Mod" => (a.trunc() % b.trunc()).trunc(),
                "DivideInt" => (a / b).trunc(),
                "Divide" => a / b,
                "Multiply" | "MultiplyFloat" => a * b,
                "MultiplyInt" => (a * b).trunc(),
                "Add" | "AddInt" => a + b,
                "Sub" | "SubtractInt" => a - b,
                _ => return Err(unknown()),
            }
        }
        _ => return Err(unknown()),
    };
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> Result<String, String> {
        let others = [("label".to_owned(), "x".to_owned())];
        render(text, &Values { index: 25, count: 40, others: &others })
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(rendered("a").unwrap(), "a");
        assert_eq!(rendered("n-{{.Index}}-{{ .Count }}-{{ .label }}").unwrap(), "n-25-40-x");
        assert_eq!(rendered("8{{ Mod .Index 12 }}: {{ DivideInt 30000 .Count }}Mi").unwrap(), "81: 750Mi");
    }

    #[test]
    fn others_are_refused_by_name() {
        assert_eq!(rendered("{{ range .Items }}").unwrap_err(), "placeholder {{ range .Items }} is not supported");
        assert_eq!(rendered("{{.Index").unwrap_err(), "placeholder {{.Index has no end");
        assert_eq!(rendered("{{ Mod .Index 0 }}").unwrap_err(), "Mod .Index 0: division by zero");
    }
}
