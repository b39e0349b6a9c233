//! Extenders over HTTP, as kube-scheduler has them (`extenders` of its configuration).
//!
//! An extender is asked with POST of JSON at `urlPrefix/VERB` and answers 200 with JSON. The messages are those of
//! `k8s.io/kube-scheduler/extender/v1`: their fields begin with capital letters (`Pod`, `NodeNames`), and what is answered is read in any
//! case, as Go does.

mod http;
mod messages;
mod tls;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Node};
use serde_json::Value;

use self::http::Connection;
use crate::{
    config::ExtenderSettings,
    framework::{Extender, ExtenderError, ExtenderFilter, ExtenderParts, NodeVictims, VictimIds},
    model::PodInfo,
};

/// An HTTP server that takes part in decisions.
pub struct HttpExtender {
    settings: ExtenderSettings,
    managed: BTreeSet<String>,
    connection: Connection,
}

/// An extender that can't be called as it is described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ExtenderSetupError {
    /// The field of the settings, such as `tlsConfig.caFile`.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl HttpExtender {
    /// The extender of these settings. Files are read now; nobody is called yet.
    ///
    /// # Errors
    /// The URL is none, or certificates can't be read.
    pub fn new(settings: &ExtenderSettings) -> Result<Self, ExtenderSetupError> {
        let timeout = Duration::try_from(settings.http_timeout).unwrap_or_default();
        let timeout = if timeout.is_zero() { http::DEFAULT_TIMEOUT } else { timeout };
        let tls = tls::client_config(settings)?;
        Ok(Self {
            connection: Connection::new(&settings.url_prefix, tls, timeout)?,
            managed: settings.managed_resources.iter().map(|resource| resource.name.clone()).collect(),
            settings: settings.clone(),
        })
    }

    async fn ask(&self, verb: &str, question: &Value) -> Result<Value, ExtenderError> {
        self.connection.post(verb, question).await.map_err(ExtenderError)
    }

    fn asks_for_managed(&self, container: &Container) -> bool {
        let resources = container.resources.as_ref();
        let lists = resources.map(|resources| [resources.requests.as_ref(), resources.limits.as_ref()]);
        lists.into_iter().flatten().flatten().any(|list| list.keys().any(|name| self.managed.contains(name)))
    }
}

#[async_trait]
impl Extender for HttpExtender {
    fn name(&self) -> &str {
        &self.settings.url_prefix
    }

    fn is_interested(&self, pod: &PodInfo) -> bool {
        let spec = pod.spec();
        let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        self.managed.is_empty() || containers.any(|container| self.asks_for_managed(container))
    }

    fn is_ignorable(&self) -> bool {
        self.settings.ignorable
    }

    fn parts(&self) -> ExtenderParts {
        ExtenderParts {
            filter: !self.settings.filter_verb.is_empty(),
            prioritize: !self.settings.prioritize_verb.is_empty(),
            preempt: !self.settings.preempt_verb.is_empty(),
            bind: !self.settings.bind_verb.is_empty(),
        }
    }

    async fn filter(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<ExtenderFilter, ExtenderError> {
        let question = messages::args(pod, nodes, self.settings.node_cache_capable);
        let answer = self.ask(&self.settings.filter_verb, &question).await?;
        messages::filter_result(&answer, nodes, self.settings.node_cache_capable, self.name()).map_err(ExtenderError)
    }

    async fn prioritize(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<Vec<(String, i64)>, ExtenderError> {
        let question = messages::args(pod, nodes, self.settings.node_cache_capable);
        let answer = self.ask(&self.settings.prioritize_verb, &question).await?;
        messages::host_priorities(&answer).map_err(ExtenderError)
    }

    fn weight(&self) -> i64 {
        self.settings.weight
    }

    async fn preempt(&self, pod: &PodInfo, proposals: &[NodeVictims]) -> Result<Vec<VictimIds>, ExtenderError> {
        let question = messages::preemption_args(pod, proposals, self.settings.node_cache_capable);
        let answer = self.ask(&self.settings.preempt_verb, &question).await?;
        messages::preemption_result(&answer).map_err(ExtenderError)
    }

    async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), ExtenderError> {
        let answer = self.ask(&self.settings.bind_verb, &messages::binding_args(pod, node)).await?;
        messages::error_of(&answer).map_or(Ok(()), |error| Err(ExtenderError(error)))
    }
}
