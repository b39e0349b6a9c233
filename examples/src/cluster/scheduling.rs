//! The scheduler, and the file that configures it.

use std::{path::Path, sync::Arc};

use rk_api::{Client, server::Server};
use rk_sched::{
    Profile, Scheduler, SchedulerConfig,
    config::{KubeSchedulerConfiguration, Registry},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    ClusterError,
    components::{client, lead},
};

/// The settings of a `KubeSchedulerConfiguration` file, in YAML or JSON; without one Kubernetes' own, and the placement of gangs where
/// there are PodGroups.
pub(super) fn config(file: Option<&Path>, gangs: bool) -> Result<SchedulerConfig, ClusterError> {
    let Some(path) = file else {
        let mut config = SchedulerConfig::default();
        if gangs {
            config.profiles = config.profiles.into_iter().map(Profile::with_gangs).collect();
        }
        return Ok(config);
    };
    let wrong =
        |error: &dyn std::fmt::Display| ClusterError::part("scheduler", &format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let value: serde_json::Value = serde_saphyr::from_str(&text).map_err(|error| wrong(&error))?;
    let config = SchedulerConfig::from_json(&value, &Registry::kubernetes()).map_err(|error| wrong(&error))?;
    let configuration = KubeSchedulerConfiguration::from_json(&value).map_err(|error| wrong(&error))?;
    for field in configuration.unused_fields() {
        tracing::warn!(field, file = %path.display(), "this field of the scheduler's configuration is of no effect");
    }
    Ok(config)
}

/// Runs a server's scheduler, as one of several where it has to be elected.
pub(super) fn start(
    server: &Server,
    config: &SchedulerConfig,
    elect: Option<&str>,
    shutdown: CancellationToken,
) -> Result<JoinHandle<()>, ClusterError> {
    let client = client(server, "system:kube-scheduler", "");
    let config = config.clone();
    let new = move |client: &Arc<dyn Client>| Scheduler::new(Arc::clone(client), config.clone());
    new(&client).map_err(|e| ClusterError::part("scheduler", &e))?;
    let elector = Arc::clone(&client);
    let work = move |stop: CancellationToken| {
        let scheduler = new(&client);
        async move {
            match scheduler {
                Ok(scheduler) => scheduler.run(stop).await,
                Err(error) => tracing::error!(%error, "the scheduler can't start"),
            }
        }
    };
    Ok(tokio::spawn(lead(elector, "kube-scheduler", elect.map(str::to_owned), shutdown, work)))
}
