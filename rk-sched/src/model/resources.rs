//! Amounts of resources, in the units that the scheduler counts in.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity as QuantityText,
};
use rk_api::Quantity;

/// A request that a container without one is scored with: 100 milli-cores (`DefaultMilliCPURequest`).
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// A request that a container without one is scored with: 200 MiB (`DefaultMemoryRequest`).
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// A pod that asks for more than so much of a resource (a petabyte of memory) counts as one that asks for so much: no node has it, and the sums
/// of thousands of such pods stay within 64 bits.
pub const MOST: i64 = 1 << 50;

/// Amounts of resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Every other resource by name (huge pages, devices), sorted, in whole units.
    pub scalars: Vec<(Arc<str>, i64)>,
}

/// An amount of text; 0 where it is none, which the API server does not let pass.
fn quantity(text: &QuantityText) -> Quantity {
    text.0.parse().unwrap_or_else(|_| Quantity::from_value(0))
}

impl Resources {
    /// The amounts of a resource list; `pods` is none of them.
    pub fn from_list(list: &BTreeMap<String, QuantityText>) -> Self {
        let mut resources = Self::default();
        for (name, text) in list {
            let amount = quantity(text);
            match name.as_str() {
                "cpu" => resources.milli_cpu = amount.milli_value(),
                "memory" => resources.memory = amount.value(),
                "ephemeral-storage" => resources.ephemeral_storage = amount.value(),
                "pods" => {}
                // A list is sorted by name, so this is too.
                scalar => resources.scalars.push((Arc::from(scalar), amount.value())),
            }
        }
        resources
    }

    /// The amount of a resource by its name.
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            scalar => self.scalar(scalar),
        }
    }

    fn scalar(&self, name: &str) -> i64 {
        self.scalars.binary_search_by(|(known, _)| known.as_ref().cmp(name)).map_or(0, |at| self.scalars[at].1)
    }

    fn merge(&mut self, other: &Self, join: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = join(self.milli_cpu, other.milli_cpu);
        self.memory = join(self.memory, other.memory);
        self.ephemeral_storage = join(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            match self.scalars.binary_search_by(|(known, _)| known.cmp(name)) {
                Ok(at) => self.scalars[at].1 = join(self.scalars[at].1, *amount),
                Err(at) => self.scalars.insert(at, (Arc::clone(name), join(0, *amount))),
            }
        }
    }

    /// Adds other amounts.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    /// Takes other amounts away.
    pub fn subtract(&mut self, other: &Self) {
        self.merge(other, i64::saturating_sub);
    }

    /// Lowers what is more than any node has to that ([`MOST`]).
    fn bounded(mut self) -> Self {
        let amounts = [&mut self.milli_cpu, &mut self.memory, &mut self.ephemeral_storage];
        let scalars = self.scalars.iter_mut().map(|(_, amount)| amount);
        amounts.into_iter().chain(scalars).for_each(|amount| *amount = (*amount).min(MOST));
        self
    }

    /// Raises each amount to the other's.
    pub fn raise(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }
}

/// What a pod asks for (`resource.PodRequests`): the sum of its containers, or the highest of its start phase,
/// where each init container runs beside the sidecars started before it; the pod's own requests in their place where it has
/// them; the overhead on top. `of` gives one container's amounts.
fn pod_total(spec: &PodSpec, of: impl Fn(&Container) -> Resources, pod_level: impl Fn(&mut Resources)) -> Resources {
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of(container));
    }
    let (mut sidecars, mut start) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&needed);
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        start.raise(&needed);
    }
    total.raise(&start);
    pod_level(&mut total);
    if let Some(overhead) = &spec.overhead {
        total.add(&Resources::from_list(overhead));
    }
    total.bounded()
}

fn requests_of(container: &Container) -> Option<&BTreeMap<String, QuantityText>> {
    container.resources.as_ref()?.requests.as_ref()
}

fn pod_level_requests(spec: &PodSpec) -> Option<&BTreeMap<String, QuantityText>> {
    spec.resources.as_ref()?.requests.as_ref()
}

/// What a pod asks for.
pub fn pod_requests(spec: &PodSpec) -> Resources {
    let of = |container: &Container| requests_of(container).map(Resources::from_list).unwrap_or_default();
    pod_total(spec, of, |total| set_pod_level(spec, total))
}

/// Cores and bytes of memory that a pod is scored with: containers without a request count as small ones.
pub fn pod_requests_nonzero(spec: &PodSpec) -> (i64, i64) {
    let has_pod_level = |name| pod_level_requests(spec).is_some_and(|list| list.contains_key(name));
    let (pod_cpu, pod_memory) = (has_pod_level("cpu"), has_pod_level("memory"));
    let of = |container: &Container| {
        let list = requests_of(container);
        let amount = |name: &str| list.and_then(|list| list.get(name)).map(quantity);
        Resources {
            milli_cpu: amount("cpu").map_or(if pod_cpu { 0 } else { DEFAULT_MILLI_CPU }, |cpu| cpu.milli_value()),
            memory: amount("memory").map_or(if pod_memory { 0 } else { DEFAULT_MEMORY }, |memory| memory.value()),
            ..Resources::default()
        }
    };
    let total = pod_total(spec, of, |total| set_pod_level(spec, total));
    (total.milli_cpu, total.memory)
}

/// Requests of the pod as a whole (KEP-2837): cpu, memory and huge pages; they replace the sum of the containers.
fn set_pod_level(spec: &PodSpec, total: &mut Resources) {
    let Some(list) = pod_level_requests(spec) else { return };
    for (name, text) in list {
        match name.as_str() {
            "cpu" => total.milli_cpu = quantity(text).milli_value(),
            "memory" => total.memory = quantity(text).value(),
            huge if huge.starts_with("hugepages-") => {
                let amount = quantity(text).value();
                match total.scalars.binary_search_by(|(known, _)| known.as_ref().cmp(huge)) {
                    Ok(at) => total.scalars[at].1 = amount,
                    Err(at) => total.scalars.insert(at, (Arc::from(huge), amount)),
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn containers_add_up_and_init_containers_raise() {
        let pod = spec(serde_json::json!({
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi", "example.com/gpu": "1"}}},
                {"name": "b", "resources": {"requests": {"cpu": "0.25"}}},
            ],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "2", "memory": "64Mi"}}}],
            "overhead": {"cpu": "10m"},
        }));
        let requests = pod_requests(&pod);
        assert_eq!((requests.milli_cpu, requests.memory, requests.get("example.com/gpu")), (2010, 1 << 30, 1));
        assert_eq!(pod_requests_nonzero(&pod), (2010, (1 << 30) + DEFAULT_MEMORY));
    }

    #[test]
    fn sidecars_run_beside_later_init_containers_and_the_containers() {
        let pod = spec(serde_json::json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "300m"}}},
                {"name": "i", "resources": {"requests": {"cpu": "1200m"}}},
            ],
        }));
        assert_eq!(pod_requests(&pod).milli_cpu, 1500);
    }

    #[test]
    fn requests_of_the_pod_replace_the_sum() {
        let pod = spec(serde_json::json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}],
            "resources": {"requests": {"cpu": "3"}},
        }));
        assert_eq!(pod_requests(&pod).milli_cpu, 3000);
    }

    #[test]
    fn pods_that_ask_for_everything_can_be_summed_and_taken_away() {
        let pod = spec(serde_json::json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "8E", "memory": "8Ei", "x.io/a": "8E"}}}],
        }));
        let requests = pod_requests(&pod);
        assert_eq!((requests.milli_cpu, requests.memory, requests.get("x.io/a")), (MOST, MOST, MOST));
        assert_eq!(pod_requests_nonzero(&pod), (MOST, MOST));
        let mut sum = Resources { memory: 5, ..Resources::default() };
        (0..5000).for_each(|_| sum.add(&requests));
        (0..5000).for_each(|_| sum.subtract(&requests));
        assert_eq!((sum.memory, sum.milli_cpu), (5, 0));
    }

    #[test]
    fn subtracting_undoes_adding() {
        let list = |text: &str| serde_json::from_str::<BTreeMap<String, QuantityText>>(text).unwrap();
        let one = Resources::from_list(&list(r#"{"cpu":"1","x.io/a":"2"}"#));
        let mut sum = Resources::from_list(&list(r#"{"cpu":"2","x.io/b":"5"}"#));
        sum.add(&one);
        assert_eq!((sum.milli_cpu, sum.get("x.io/a"), sum.get("x.io/b")), (3000, 2, 5));
        sum.subtract(&one);
        assert_eq!((sum.milli_cpu, sum.get("x.io/a"), sum.get("x.io/b")), (2000, 0, 5));
    }
}
