//! The schedulers that are compared.

use std::path::{Path, PathBuf};

use rk_sched::{
    Profile, Registration, SchedulerConfig,
    config::Registry,
    plugins::{NodeResourcesFit, ScoringStrategy},
    simulate::Variant,
};

use serde_json::Value;

use crate::flags::Lab;

/// A scheduler that nobody knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchedulerError {
    #[error("scheduler {0:?}: there are `default` and `packing`")]
    Unknown(String),
    #[error("scheduler {scheduler:?}: there is no plugin {plugin:?} in its profile")]
    NoPlugin { scheduler: String, plugin: String },
    #[error(
        "scheduler {scheduler:?}: {change:?} is neither `-Plugin` nor `Plugin=WEIGHT`, with a weight from 1 to 100"
    )]
    Change { scheduler: String, change: String },
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
}

/// The schedulers of the command line; if there are none, the one of the configuration that the workload is meant for, or Kubernetes' default
/// profile.
pub fn variants(lab: &Lab, meant_for: Option<&Path>) -> Result<Vec<Variant>, SchedulerError> {
    let default = ["default".to_owned()];
    let named = match (lab.scheduler.is_empty() && lab.config.is_empty(), meant_for) {
        (true, Some(path)) => return Ok(vec![of_file(path)?]),
        (true, None) => &default[..],
        (false, _) => &lab.scheduler,
    };
    let percentage = lab.percentage_of_nodes_to_score;
    let of_profile = |text: &String| {
        let (name, of) = text.split_once(':').unwrap_or((text, text));
        let of = of.to_owned();
        // What is wrong is told now; each run has plugins of its own.
        profile(&of)?;
        Ok(Variant::new(name, move || SchedulerConfig {
            profiles: profile(&of).into_iter().collect(),
            percentage_of_nodes_to_score: percentage,
            ..SchedulerConfig::default()
        }))
    };
    let of_profiles = named.iter().map(of_profile);
    of_profiles.chain(lab.config.iter().map(|path| of_file(path))).collect()
}

/// The scheduler that a configuration file describes.
fn of_file(path: &Path) -> Result<Variant, SchedulerError> {
    let failed = |reason: String| SchedulerError::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|error| failed(error.to_string()))?;
    let read = move || SchedulerConfig::from_json(&value, &Registry::kubernetes());
    read().map_err(|error| failed(error.to_string()))?;
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let none = || SchedulerConfig { profiles: Vec::new(), ..SchedulerConfig::default() };
    Ok(Variant::new(name, move || read().unwrap_or_else(|_| none())))
}

fn packing() -> Profile {
    let fit = NodeResourcesFit { strategy: ScoringStrategy::MostAllocated, ..NodeResourcesFit::default() };
    // What the default profile does against packing would stand in its way.
    Profile::kubernetes("default-scheduler")
        .without("NodeResourcesBalancedAllocation")
        .with(Registration::new(fit).filter().score(5))
}

/// A profile by its description: `default,-ImageLocality,NodeAffinity=5`.
fn profile(text: &str) -> Result<Profile, SchedulerError> {
    let mut parts = text.split(',');
    let mut profile = match parts.next().unwrap_or_default() {
        "default" => Profile::kubernetes("default-scheduler"),
        "packing" => packing(),
        other => return Err(SchedulerError::Unknown(other.to_owned())),
    };
    for change in parts {
        let wrong = || SchedulerError::Change { scheduler: text.to_owned(), change: change.to_owned() };
        let missing = |plugin: &str| SchedulerError::NoPlugin { scheduler: text.to_owned(), plugin: plugin.to_owned() };
        if let Some(plugin) = change.strip_prefix('-') {
            if !profile.has(plugin) {
                return Err(missing(plugin));
            }
            profile = profile.without(plugin);
        } else {
            let (plugin, weight) = change.split_once('=').ok_or_else(wrong)?;
            let weight = weight.parse().ok().filter(|weight| (1..=100).contains(weight)).ok_or_else(wrong)?;
            profile = profile.weighted(plugin, weight).ok_or_else(|| missing(plugin))?;
        }
    }
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_described_in_a_line() {
        let described = profile("default,-ImageLocality,NodeAffinity=5").unwrap();
        assert!(!described.has("ImageLocality") && described.has("NodeAffinity"));
        assert_eq!(profile("best").unwrap_err(), SchedulerError::Unknown("best".to_owned()));
        let said = |text| profile(text).unwrap_err().to_string();
        assert_eq!(said("default,-X"), "scheduler \"default,-X\": there is no plugin \"X\" in its profile");
        assert!(said("default,NodeAffinity=0").contains("from 1 to 100"));
    }
}
