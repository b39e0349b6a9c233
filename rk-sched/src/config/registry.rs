//! Plugins by name, for configurations that name them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::FieldError;
use crate::framework::{Enabled, Plugin, Registration};

/// Makes a plugin of its arguments.
type Factory = dyn Fn(PluginArgs<'_>) -> Result<Enabled, ArgsError> + Send + Sync;

/// The plugins that a configuration can name: Kubernetes' default ones, and those that are added here.
///
/// ```
/// use rk_sched::{Registration, SchedulerConfig, config::Registry, framework::*, model::*};
/// use serde_json::json;
///
/// #[derive(serde::Deserialize)]
/// #[serde(rename_all = "camelCase", deny_unknown_fields)]
/// struct GreenPowerArgs {
///     label: String,
/// }
///
/// struct GreenPower(GreenPowerArgs);
///
/// impl Plugin for GreenPower {
///     fn name(&self) -> &'static str {
///         "GreenPower"
///     }
/// }
///
/// impl Score for GreenPower {
///     fn score(&self, _: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
///         Ok(if node.labels().contains_key(&self.0.label) { MAX_SCORE } else { MIN_SCORE })
///     }
/// }
///
/// let registry = Registry::kubernetes()
///     .with("GreenPower", |args| Ok(Registration::new(GreenPower(args.read()?)).score(1)));
/// let configuration = |label| json!({
///     "apiVersion": "kubescheduler.config.k8s.io/v1",
///     "kind": "KubeSchedulerConfiguration",
///     "profiles": [{
///         "plugins": {"multiPoint": {"enabled": [{"name": "GreenPower", "weight": 5}]}},
///         "pluginConfig": [{"name": "GreenPower", "args": {"label": label}}],
///     }],
/// });
/// SchedulerConfig::from_json(&configuration(json!("green")), &registry)?;
///
/// let error = SchedulerConfig::from_json(&configuration(json!(7)), &registry).err().unwrap();
/// let wrong = "profiles[0].pluginConfig[0].args.label: invalid type: integer `7`, expected a string";
/// assert_eq!(error.to_string(), wrong);
/// # Ok::<(), rk_sched::config::ConfigurationError>(())
/// ```
#[derive(Clone, Default)]
pub struct Registry {
    factories: BTreeMap<String, Arc<Factory>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("added", &self.factories.keys()).finish_non_exhaustive()
    }
}

impl Registry {
    /// Kubernetes' default plugins.
    pub fn kubernetes() -> Self {
        Self::default()
    }

    /// Adds a plugin, or puts it in the place of the one of that name. It is made for each profile that uses it, and used at the extension
    /// points of its registration; its weight is the configuration's (1 if that gives none), as in Kubernetes.
    #[must_use]
    pub fn with<P: Plugin>(
        mut self,
        name: &str,
        make: impl Fn(PluginArgs<'_>) -> Result<Registration<P>, ArgsError> + Send + Sync + 'static,
    ) -> Self {
        let named = name.to_owned();
        let make = move |args: PluginArgs<'_>| {
            let enabled = make(args)?.enabled(false);
            // It is found by its name again: when it refuses a pod, and when an event may change its mind.
            match enabled.plugin.name() {
                name if name == named => Ok(enabled),
                other => Err(ArgsError::from(format!("the plugin that is made for {named:?} calls itself {other:?}"))),
            }
        };
        self.factories.insert(name.to_owned(), Arc::new(make));
        self
    }

    /// Whether a plugin was added under this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.factories.contains_key(name)
    }

    /// Makes an added plugin. `path` is the field of its arguments.
    pub(super) fn make(&self, name: &str, args: &Value, path: &str) -> Option<Result<Enabled, FieldError>> {
        let factory = self.factories.get(name)?;
        Some(factory(PluginArgs(args)).map_err(|error| {
            let dot = if error.path.is_empty() { "" } else { "." };
            FieldError::new(format!("{path}{dot}{}", error.path), error.reason)
        }))
    }
}

/// The arguments that a configuration has for a plugin.
#[derive(Debug, Clone, Copy)]
pub struct PluginArgs<'a>(&'a Value);

impl PluginArgs<'_> {
    /// The arguments as they are; null if there are none.
    pub fn json(&self) -> &Value {
        self.0
    }

    /// The arguments as a type of the plugin's own. No arguments are read as an empty object.
    ///
    /// # Errors
    /// They are none of that type; the field is told.
    pub fn read<A: DeserializeOwned>(&self) -> Result<A, ArgsError> {
        let empty = Value::Object(serde_json::Map::new());
        let args = if self.0.is_null() { &empty } else { self.0 };
        serde_path_to_error::deserialize(args).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." { String::new() } else { path };
            ArgsError { path, reason: error.inner().to_string() }
        })
    }
}

/// Arguments that a plugin can't be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ArgsError {
    /// The field of the arguments, empty for the whole.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl From<String> for ArgsError {
    fn from(reason: String) -> Self {
        Self { path: String::new(), reason }
    }
}

impl From<&str> for ArgsError {
    fn from(reason: &str) -> Self {
        Self::from(reason.to_owned())
    }
}
