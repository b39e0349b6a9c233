//! Which versions of the built-in groups are served: kube-apiserver's `--runtime-config`.

use std::{collections::BTreeMap, str::FromStr};

use super::builtin;

/// Turns versions of built-in groups on and off. If nothing is said the stable ones (`v1`) are served and no others (KEP-3136).
///
/// As text it is kube-apiserver's flag: entries like `scheduling.k8s.io/v1alpha2=true`, separated by commas. `=true` may be left out; the
/// core group's version is `v1`; `api/all` is about all versions, and `api/ga`, `api/beta` and `api/alpha` are about those of a stage. What is
/// said of a version counts before what is said of its stage, and that before what is said of all.
///
/// ```
/// use rk_api::server::RuntimeConfig;
///
/// let config: RuntimeConfig = "scheduling.k8s.io/v1alpha2=true".parse()?;
/// assert!(config.serves("scheduling.k8s.io", "v1alpha2") && config.serves("scheduling.k8s.io", "v1"));
/// assert!("scheduling.k8s.io/v3".parse::<RuntimeConfig>().is_err());
/// # Ok::<(), rk_api::server::RuntimeConfigError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeConfig(BTreeMap<String, bool>);

/// What is wrong with the text of a [`RuntimeConfig`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("runtime-config {entry:?}: {why}")]
pub struct RuntimeConfigError {
    /// The entry.
    pub entry: String,
    /// What is wrong with it.
    pub why: &'static str,
}

const ALL: &str = "api/all";
const STAGES: [&str; 3] = ["api/ga", "api/beta", "api/alpha"];

impl RuntimeConfig {
    /// Whether a version of a group is served; the core group is `""`.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        let stage = stage(version);
        let said = [&*name(group, version), stage, ALL].iter().find_map(|entry| self.0.get(*entry).copied());
        said.unwrap_or(stage == STAGES[0])
    }
}

impl FromStr for RuntimeConfig {
    type Err = RuntimeConfigError;

    fn from_str(text: &str) -> Result<Self, RuntimeConfigError> {
        let mut said = BTreeMap::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let wrong = |why| RuntimeConfigError { entry: entry.to_owned(), why };
            let (version, on) = entry.split_once('=').unwrap_or((entry, "true"));
            let on = on.parse::<bool>().map_err(|_| wrong("expected true or false"))?;
            if !is_known(version) {
                return Err(wrong("there is no such group and version here"));
            }
            said.insert(version.to_owned(), on);
        }
        Ok(Self(said))
    }
}

/// How the versions of a group are named together with it.
fn name(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn stage(version: &str) -> &'static str {
    match version {
        alpha if alpha.contains("alpha") => STAGES[2],
        beta if beta.contains("beta") => STAGES[1],
        _ => STAGES[0],
    }
}

fn is_known(version: &str) -> bool {
    let mut rows = builtin::rows().into_iter().chain(builtin::optional_rows());
    version == ALL || STAGES.contains(&version) || rows.any(|row| row.resource.api_version() == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closer_to_a_version_counts_first() {
        let alpha = |text: &str| text.parse::<RuntimeConfig>().unwrap().serves("scheduling.k8s.io", "v1alpha2");
        for text in [
            "scheduling.k8s.io/v1alpha2",
            "api/all=true",
            "api/alpha=true",
            "api/all=false, api/alpha",
            "apps/v1=false,api/all",
        ] {
            assert!(alpha(text), "{text}");
        }
        for text in ["", "api/beta=true", "api/all=true,api/alpha=false", "api/all,scheduling.k8s.io/v1alpha2=false"] {
            assert!(!alpha(text), "{text}");
        }
        let without: RuntimeConfig = "apps/v1=false,v1=true".parse().unwrap();
        assert!(!without.serves("apps", "v1") && without.serves("", "v1") && without.serves("batch", "v1"));
        for text in ["apps/v2", "apps", "apps/v1=on", "=true"] {
            assert_eq!(text.parse::<RuntimeConfig>().unwrap_err().entry, text);
        }
    }
}
