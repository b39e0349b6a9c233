//! One ResourceSlice: its devices, read once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::NodeSelector,
    resource::v1::{CapacityRequestPolicy, Device, DeviceTaint, ResourceSlice},
};
use parking_lot::Mutex;
use rk_api::{
    Quantity, QuantityError,
    cel::device::{Device as Seen, Selector},
};

use super::PoolId;
use crate::model::NodeTerm;

/// Which nodes have access to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    Node(String),
    Selected(Vec<NodeTerm>),
    All,
    /// Each device has its own.
    PerDevice,
    /// It is not said in any way that is known.
    None,
}

impl Reach {
    fn new(node: Option<&String>, selector: Option<&NodeSelector>, all: Option<bool>) -> Self {
        match (node.filter(|name| !name.is_empty()), selector, all) {
            (Some(name), _, _) => Self::Node(name.clone()),
            (_, _, Some(true)) => Self::All,
            (_, Some(selector), _) => Self::Selected(NodeTerm::all(&selector.node_selector_terms)),
            _ => Self::None,
        }
    }

    fn includes(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Node(node) => node == name,
            Self::Selected(terms) => terms.iter().any(|term| term.matches(name, labels)),
            Self::All => true,
            Self::PerDevice | Self::None => false,
        }
    }
}

/// A capacity of a device.
#[derive(Debug, Clone)]
pub struct Capacity {
    /// Its name, as the driver publishes it.
    pub name: String,
    /// All that there is.
    pub value: Quantity,
    /// How much of it a request may consume; `None` for any amount.
    pub policy: Option<CapacityRequestPolicy>,
}

/// What a device consumes of a counter that it shares with other devices of its pool (KEP-4815).
#[derive(Debug, Clone)]
pub struct Consumption {
    /// The set of counters.
    pub set: String,
    /// The counter in it.
    pub counter: String,
    /// How much.
    pub amount: Quantity,
}

/// A device, read once.
#[derive(Debug)]
pub struct DeviceInfo {
    /// Its name in its pool.
    pub name: Arc<str>,
    /// The device as the driver published it.
    pub published: Device,
    /// Its capacities.
    pub capacity: Vec<Capacity>,
    /// What it consumes of its pool's counters.
    pub consumes: Vec<Consumption>,
    /// The device in expressions.
    seen: Seen,
    /// Which nodes have access to it, where the slice leaves it to its devices.
    reach: Option<Reach>,
}

impl DeviceInfo {
    fn new(driver: &str, device: &Device, own_reach: bool) -> Result<Self, String> {
        let read = |name: &str, quantity| {
            Quantity::try_from(quantity)
                .map_err(|error: QuantityError| format!("device {}: {name}: {error}", device.name))
        };
        let mut capacity = Vec::new();
        for (name, of) in device.capacity.iter().flatten() {
            let value = read(name, &of.value)?;
            capacity.push(Capacity { name: name.clone(), value, policy: of.request_policy.clone() });
        }
        let mut consumes = Vec::new();
        for set in device.consumes_counters.iter().flatten() {
            for (counter, amount) in &set.counters {
                let amount = read(counter, &amount.value)?;
                consumes.push(Consumption { set: set.counter_set.clone(), counter: counter.clone(), amount });
            }
        }
        let reach = || Reach::new(device.node_name.as_ref(), device.node_selector.as_ref(), device.all_nodes);
        Ok(Self {
            name: Arc::from(device.name.as_str()),
            capacity,
            consumes,
            seen: Seen::new(driver, device).map_err(|error| format!("device {}: {error}", device.name))?,
            reach: own_reach.then(reach),
            published: device.clone(),
        })
    }

    /// Whether several claims can have a part of it each (KEP-5075).
    pub fn shared(&self) -> bool {
        self.published.allow_multiple_allocations == Some(true)
    }

    /// Its taints (KEP-5055).
    pub fn taints(&self) -> &[DeviceTaint] {
        self.published.taints.as_deref().unwrap_or_default()
    }

    /// Whether a driver has to do something after it is allocated and before the pod is bound (KEP-5007).
    pub fn is_conditional(&self) -> bool {
        self.published.binding_conditions.as_ref().is_some_and(|conditions| !conditions.is_empty())
    }

    /// Whether it can be used only where it was allocated (KEP-5007).
    pub fn binds_to_node(&self) -> bool {
        self.published.binds_to_node == Some(true)
    }
}

/// The answers of an expression for the devices of a slice, in their order.
pub(super) type Answers = Arc<[Result<bool, String>]>;

/// Expressions whose answers a slice keeps.
const MOST_KEPT: usize = 64;

/// A ResourceSlice, read once.
#[derive(Debug)]
pub struct Slice {
    /// The slice as the driver published it.
    pub published: Arc<ResourceSlice>,
    /// The pool that it is a part of.
    pub pool: PoolId,
    /// Its devices; those that could not be read are left out, and [`Slice::wrong`] says why.
    pub devices: Vec<DeviceInfo>,
    /// What could not be read.
    pub wrong: Option<String>,
    pub(super) reach: Reach,
    /// A slice never changes, so neither do the answers.
    selected: Mutex<HashMap<Arc<str>, Answers>>,
}

impl Slice {
    /// Reads a slice.
    pub fn new(published: Arc<ResourceSlice>) -> Self {
        let spec = &published.spec;
        let per_device = spec.per_device_node_selection == Some(true);
        let read = |device| DeviceInfo::new(&spec.driver, device, per_device);
        let (mut devices, mut wrong) = (Vec::new(), None);
        for device in spec.devices.iter().flatten() {
            match read(device) {
                Ok(device) => devices.push(device),
                Err(why) => wrong = Some(why),
            }
        }
        let reach = if per_device {
            Reach::PerDevice
        } else {
            Reach::new(spec.node_name.as_ref(), spec.node_selector.as_ref(), spec.all_nodes)
        };
        Self {
            pool: PoolId::new(&spec.driver, &spec.pool.name),
            devices,
            wrong,
            reach,
            selected: Mutex::default(),
            published,
        }
    }

    /// Whether some device of it is [conditional](DeviceInfo::is_conditional).
    pub fn is_conditional(&self) -> bool {
        self.devices.iter().any(DeviceInfo::is_conditional)
    }

    /// The generation of the pool that the slice belongs to.
    pub fn generation(&self) -> i64 {
        self.published.spec.pool.generation
    }

    /// The name of the node that alone has access to a device of the slice, if one does.
    pub fn only_node<'a>(&'a self, device: &'a DeviceInfo) -> Option<&'a str> {
        match device.reach.as_ref().unwrap_or(&self.reach) {
            Reach::Node(name) => Some(name),
            _ => None,
        }
    }

    /// The node selector that says who has access to a device of the slice, if one does.
    pub fn node_selector<'a>(&'a self, device: &'a DeviceInfo) -> Option<&'a NodeSelector> {
        match &device.reach {
            Some(_) => device.published.node_selector.as_ref(),
            None => self.published.spec.node_selector.as_ref(),
        }
    }

    /// The devices, by their places, that a node has access to.
    pub fn devices_on<'a>(
        &'a self,
        name: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = usize> + 'a {
        let all = self.reach.includes(name, labels);
        let of = move |device: &DeviceInfo| device.reach.as_ref().map_or(all, |reach| reach.includes(name, labels));
        self.devices.iter().enumerate().filter(move |(_, device)| of(device)).map(|(at, _)| at)
    }

    /// Whether an expression selects each of the devices, in their order. It is evaluated once, however often it is asked.
    pub fn selected(&self, expression: &Arc<str>, selector: &Selector) -> Answers {
        if let Some(known) = self.selected.lock().get(expression) {
            return Arc::clone(known);
        }
        let answers: Answers = self.devices.iter().map(|device| selector.matches(&device.seen)).collect();
        let mut kept = self.selected.lock();
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(Arc::clone(expression), Arc::clone(&answers));
        answers
    }
}
