//! Places: nodes that share the value of a label.

use std::{collections::HashMap, sync::Arc};

use super::{NodeIndex, NodeInfo};

/// The number of a place in its [`Topology`].
pub type PlaceId = u32;

/// The places that one label makes of the nodes, numbered, so that a count per place is an index into a list.
#[derive(Debug)]
pub struct Topology {
    /// The label.
    pub key: Arc<str>,
    /// The values of the label, by place.
    pub places: Vec<Arc<str>>,
    of_node: Vec<PlaceId>,
}

const NOWHERE: PlaceId = PlaceId::MAX;

impl Topology {
    pub(crate) fn new<'a>(key: &str, slots: usize, nodes: impl Iterator<Item = (NodeIndex, &'a NodeInfo)>) -> Self {
        let mut ids: HashMap<&str, PlaceId> = HashMap::new();
        let mut topology = Self { key: Arc::from(key), places: Vec::new(), of_node: vec![NOWHERE; slots] };
        for (index, node) in nodes {
            let Some(value) = node.labels().get(key) else { continue };
            let id = *ids.entry(value).or_insert_with(|| {
                topology.places.push(Arc::from(value.as_str()));
                PlaceId::try_from(topology.places.len() - 1).expect("fewer places than nodes")
            });
            topology.of_node[index.0 as usize] = id;
        }
        topology
    }

    /// The place of a node; `None` if it lacks the label.
    pub fn place(&self, node: NodeIndex) -> Option<PlaceId> {
        self.of_node.get(node.0 as usize).copied().filter(|place| *place != NOWHERE)
    }

    /// A number for each place, all 0.
    pub fn counts(&self) -> Vec<i64> {
        vec![0; self.places.len()]
    }
}
