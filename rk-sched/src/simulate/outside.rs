//! Extenders of a simulated scheduler. They are outside: what they take counts in nobody's virtual time.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use rk_api::{Api, Client};
use tokio::runtime::Runtime;

use crate::{
    framework::{Extender, ExtenderError, ExtenderFilter, ExtenderParts, NodeVictims, VictimIds},
    model::PodInfo,
    plugins::binding_of,
};

/// Asks an extender while virtual time stands still.
struct Outside {
    extender: Arc<dyn Extender>,
    runtime: Arc<Runtime>,
    client: Arc<dyn Client>,
}

impl Outside {
    /// Waits for an answer in real time. That takes a thread: who asks is in the runtime of virtual time.
    fn wait<T: Send>(
        &self,
        question: impl Future<Output = Result<T, ExtenderError>> + Send,
    ) -> Result<T, ExtenderError> {
        let answered = std::thread::scope(|scope| scope.spawn(|| self.runtime.block_on(question)).join());
        answered.unwrap_or_else(|_| Err(ExtenderError(format!("extender {} panicked", self.name()))))
    }
}

#[async_trait]
impl Extender for Outside {
    fn name(&self) -> &str {
        self.extender.name()
    }

    fn is_interested(&self, pod: &PodInfo) -> bool {
        self.extender.is_interested(pod)
    }

    fn is_ignorable(&self) -> bool {
        self.extender.is_ignorable()
    }

    fn parts(&self) -> ExtenderParts {
        self.extender.parts()
    }

    async fn filter(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<ExtenderFilter, ExtenderError> {
        self.wait(self.extender.filter(pod, nodes))
    }

    async fn prioritize(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<Vec<(String, i64)>, ExtenderError> {
        self.wait(self.extender.prioritize(pod, nodes))
    }

    fn weight(&self) -> i64 {
        self.extender.weight()
    }

    async fn preempt(&self, pod: &PodInfo, proposals: &[NodeVictims]) -> Result<Vec<VictimIds>, ExtenderError> {
        self.wait(self.extender.preempt(pod, proposals))
    }

    async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), ExtenderError> {
        self.wait(self.extender.bind(pod, node))?;
        // It does not know of the simulated API, where the pod is to be bound.
        let api = Api::<Pod>::namespaced(Arc::clone(&self.client), &pod.namespace);
        let bound = api.create_subresource(&pod.name, "binding", binding_of(pod, node)).await;
        bound.map(drop).map_err(|error| ExtenderError(error.to_string()))
    }
}

/// The extenders, each asked outside of virtual time.
pub(super) fn outside(
    extenders: &[Arc<dyn Extender>],
    client: &Arc<dyn Client>,
) -> std::io::Result<Vec<Arc<dyn Extender>>> {
    if extenders.is_empty() {
        return Ok(Vec::new());
    }
    let runtime = Arc::new(tokio::runtime::Builder::new_current_thread().enable_all().build()?);
    let wrapped = extenders.iter().map(|extender| -> Arc<dyn Extender> {
        let (extender, runtime, client) = (Arc::clone(extender), Arc::clone(&runtime), Arc::clone(client));
        Arc::new(Outside { extender, runtime, client })
    });
    Ok(wrapped.collect())
}
