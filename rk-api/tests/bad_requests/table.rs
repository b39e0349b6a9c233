//! The table of wrong requests: text, a family per file, read into cases.
//!
//! A case is a line `METHOD PATH BODY` and below it, indented, what Kubernetes answers: `CODE REASON: MESSAGE`, of which
//! the message is a part of what is said (nothing to leave it open), and for each field cause `REASON FIELD`, all of
//! them. `Content-Type: TYPE` holds for the cases that follow it; without, bodies are JSON. `#` begins a remark.

const FAMILIES: [&str; 4] = [
    include_str!("cases/decoding.txt"),
    include_str!("cases/requests.txt"),
    include_str!("cases/patches.txt"),
    include_str!("cases/objects.txt"),
];

/// A wrong request and its answer.
pub struct Case {
    pub method: &'static str,
    pub path: &'static str,
    pub content_type: &'static str,
    pub body: &'static str,
    pub code: u16,
    pub reason: &'static str,
    /// A part of the message.
    pub message: &'static str,
    /// Reason and field of each cause, sorted.
    pub causes: Vec<String>,
}

/// All cases.
pub fn cases() -> Vec<Case> {
    FAMILIES.into_iter().flat_map(read).collect()
}

fn read(text: &'static str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut content_type = "application/json";
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).peekable();
    while let Some((number, line)) = lines.next() {
        if let Some(media) = line.strip_prefix("Content-Type: ") {
            content_type = media;
            continue;
        }
        let mut indented = || lines.next_if(|(_, line)| line.starts_with("    ")).map(|(_, line)| line.trim());
        let (method, rest) = split(line, " ");
        let (path, body) = split(rest, " ");
        let (head, message) = split(indented().unwrap_or_default(), ": ");
        let (code, reason) = split(head, " ");
        let code = code.parse().unwrap_or_else(|_| panic!("line {}: no answer to {line}", number + 1));
        let mut causes: Vec<String> = std::iter::from_fn(indented).map(str::to_owned).collect();
        causes.sort();
        cases.push(Case { method, path, content_type, body, code, reason, message, causes });
    }
    cases
}

fn split(text: &'static str, at: &str) -> (&'static str, &'static str) {
    text.split_once(at).unwrap_or((text, ""))
}
