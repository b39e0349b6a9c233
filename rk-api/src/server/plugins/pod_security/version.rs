//! Versions of the standards: what a level means has changed with Kubernetes' releases.

use std::fmt;

/// A version of the standards, as the labels `pod-security.kubernetes.io/MODE-version` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// The newest that this server knows.
    #[default]
    Latest,
    /// That of the release 1.N.
    Minor(u32),
}

impl Version {
    /// Reads `latest` or `v1.N`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let canonical = minor == "0" || !minor.starts_with('0');
        let digits = !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit());
        (canonical && digits).then(|| minor.parse().ok().map(Self::Minor)).flatten()
    }

    /// Whether this is the release 1.`minor` or a later one.
    pub(super) fn since(self, minor: u32) -> bool {
        match self {
            Self::Latest => true,
            Self::Minor(own) => own >= minor,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_written() {
        for text in ["latest", "v1.0", "v1.25", "v1.99"] {
            assert_eq!(Version::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "1.25", "v1", "v1.", "v1.x", "v2.0", "v1.01", "v1.2.3", "v1.99999999999", "Latest"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        assert!(Version::Latest.since(99) && Version::Minor(25).since(25) && !Version::Minor(24).since(25));
    }
}
