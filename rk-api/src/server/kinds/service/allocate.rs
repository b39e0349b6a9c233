//! Cluster IPs and node ports: what is free, and who holds what.
//!
//! What Services hold is read from the server's current objects whenever one asks for something; only what was given out to a write
//! that those do not show yet is remembered here. So nothing is lost with the process. Several servers on one store choose each for
//! itself; what they chose is written with the Service: ports as [`claims`], addresses as IPAddresses. That fails where another server
//! was faster, and then the choice is made anew.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::Service;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    Ranges, addresses,
    defaults::{has_cluster_ip, has_node_ports},
    families::texts,
    pool,
    range::family,
};
use crate::{
    LabelSelector, Network, Status,
    server::{
        WriteContext,
        kinds::{
            field::{self, Errors, Path},
            value::{Peek, at_mut, object_mut, set},
        },
    },
    status,
};

/// Gives out cluster IPs and node ports.
pub struct Allocator {
    ranges: Ranges,
    state: Mutex<State>,
}

struct State {
    random: StdRng,
    /// Given out to writes that may not be visible yet, by the Service they are for (`namespace/name`).
    held: HashMap<String, Held>,
}

/// Addresses and ports: those of one Service, or those of all but one.
#[derive(Default)]
struct Held {
    ips: HashSet<IpAddr>,
    ports: HashSet<u16>,
}

impl Held {
    /// Adds what a Service shows that it holds.
    fn add(&mut self, service: &Service) {
        let Some(spec) = &service.spec else { return };
        let ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        self.ips.extend(ips.filter_map(|ip| ip.parse::<IpAddr>().ok()));
        let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port).chain(spec.health_check_node_port);
        self.ports.extend(ports.filter_map(|port| u16::try_from(port).ok()).filter(|port| *port != 0));
    }

    fn is_empty(&self) -> bool {
        self.ips.is_empty() && self.ports.is_empty()
    }
}

impl Allocator {
    /// Gives out of these ranges.
    pub fn new(ranges: Ranges) -> Self {
        let state = State { random: StdRng::seed_from_u64(ranges.seed), held: HashMap::new() };
        Self { ranges, state: Mutex::new(state) }
    }

    /// Fills in or checks the cluster IPs and the node ports of a Service about to be stored.
    pub async fn allocate(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        context: &WriteContext<'_>,
    ) -> Result<(), Status> {
        let (mut objects, mut networks, mut reserved) = (Vec::new(), Vec::new(), Vec::new());
        if wants(new, old) {
            let all = context.reader.list("", "services", "", &LabelSelector::everything()).await;
            objects = all.map_err(status::internal)?;
            networks = addresses::networks(context.reader, &self.ranges.cluster_ips).await?;
            reserved = addresses::reserved(context.reader).await?;
        }
        let key = key(new);
        let own = (new.text("metadata.namespace"), new.text("metadata.name"));
        let mut state = self.state.lock();
        let (mut taken, mut shown) = (Held::default(), Held::default());
        for object in &objects {
            let service = object.typed::<Service>().map_err(status::internal)?;
            let of = (object.meta().namespace.as_str(), object.meta().name.as_str());
            if of == own { shown.add(&service) } else { taken.add(&service) }
        }
        // What is visible needs no memory.
        state.held.retain(|owner, held| {
            let visible = if *owner == key { &shown } else { &taken };
            held.ips.retain(|ip| !visible.ips.contains(ip));
            held.ports.retain(|port| !visible.ports.contains(port));
            !held.is_empty()
        });
        for (_, held) in state.held.iter().filter(|(owner, _)| **owner != key) {
            taken.ips.extend(&held.ips);
            taken.ports.extend(&held.ports);
        }
        taken.ips.extend(reserved);
        let mut errors = Errors::default();
        let mut given = Held::default();
        let failed = self
            .ips(new, old, (&networks, &taken), &mut state, &mut given, &mut errors)
            .and_then(|()| self.ports(new, &mut taken, &mut state, &mut given, &mut errors));
        failed?;
        let errors = errors.into_inner();
        if !errors.is_empty() {
            return Err(field::invalid("", "Service", new.text("metadata.name"), &errors));
        }
        if !given.is_empty() && !context.dry_run {
            let held = state.held.entry(key).or_default();
            held.ips.extend(given.ips);
            held.ports.extend(given.ports);
        }
        Ok(())
    }

    /// Forgets what a Service was given.
    pub fn release(&self, service: &Value) {
        self.state.lock().held.remove(&key(service));
    }

    fn ips(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        (networks, taken): (&[Network], &Held),
        state: &mut State,
        given: &mut Held,
        errors: &mut Errors,
    ) -> Result<(), Status> {
        let is_kubernetes = key(new) == "default/kubernetes";
        let Some(spec) = at_mut(new, "spec") else { return Ok(()) };
        if !has_cluster_ip(spec.text("type")) {
            return Ok(());
        }
        if spec.text("clusterIP") == "None" {
            return Ok(());
        }
        let before = old.map_or(&[][..], |old| old.list("spec.clusterIPs"));
        let families: Vec<_> = texts(spec, "ipFamilies").into_iter().map(str::to_owned).collect();
        let mut ips: Vec<_> = texts(spec, "clusterIPs").into_iter().map(str::to_owned).collect();
        // What is to be given out is empty until then.
        ips.resize(ips.len().max(families.len()), String::new());
        let (asked, path) = (json!(ips), Path::Root.child("spec.clusterIPs"));
        let own = self.ranges.cluster_ips.primary();
        for (place, (text, of)) in ips.iter_mut().zip(&families).enumerate() {
            let mut networks = networks.iter().filter(|network| family(network.address) == *of);
            if text.is_empty() {
                // The first of the cluster's own range is kept for the API.
                let free = |network: &Network| {
                    let first = if *network == own { 2 } else { 1 };
                    pool::free(network, first, &taken.ips, &mut state.random)
                };
                let ip = if is_kubernetes && place == 0 { own.nth(1) } else { networks.find_map(free) };
                let ip = ip.ok_or_else(|| status::internal("failed to allocate a serviceIP: range is full"))?;
                given.ips.insert(ip);
                *text = ip.to_string();
            } else if let Ok(ip) = text.parse::<IpAddr>().map(|ip| ip.to_canonical())
                && before.iter().all(|before| before != text)
            {
                let failed = |why: &str| format!("failed to allocate IP {text}: {why}");
                if !networks.any(|network| network.is_assignable(ip)) {
                    errors.invalid(&path, &asked, &failed("the provided network does not match the current range"));
                } else if taken.ips.contains(&ip) {
                    errors.invalid(&path, &asked, &failed("provided IP is already allocated"));
                } else {
                    given.ips.insert(ip);
                }
            }
        }
        if let Some(first) = ips.first() {
            set(spec, "clusterIP", first.as_str());
            set(spec, "clusterIPs", ips);
        }
        Ok(())
    }

    fn ports(
        &self,
        new: &mut Value,
        taken: &mut Held,
        state: &mut State,
        given: &mut Held,
        errors: &mut Errors,
    ) -> Result<(), Status> {
        let Some(spec) = object_mut(new, "spec") else { return Ok(()) };
        if !has_node_ports(spec) {
            return Ok(());
        }
        let list = Path::Root.child("spec.ports");
        let range = &self.ranges.node_ports;
        // Named ports first, so that none of them is chosen for another.
        for (i, port) in spec.list("ports").iter().enumerate() {
            let Some(number) = port.int("nodePort").filter(|number| *number != 0) else { continue };
            let path = list.index(i);
            match u16::try_from(number).ok().filter(|number| range.contains(number)) {
                None => {
                    let detail = format!(
                        "provided port is not in the valid range. The range of valid ports is {}-{}",
                        range.start(),
                        range.end()
                    );
                    errors.invalid(&path.child("nodePort"), &number, &detail);
                }
                Some(port) if taken.ports.contains(&port) => {
                    errors.invalid(&path.child("nodePort"), &number, "provided port is already allocated");
                }
                Some(port) => {
                    given.ports.insert(port);
                }
            }
        }
        taken.ports.extend(&given.ports);
        let Some(Value::Array(ports)) = spec.get_mut("ports") else { return Ok(()) };
        for i in 0..ports.len() {
            if ports[i].int("nodePort").unwrap_or(0) != 0 {
                continue;
            }
            // One number serves all protocols of a port.
            let twin = ports.iter().find(|other| {
                other.at("port") == ports[i].at("port")
                    && other.text("protocol") != ports[i].text("protocol")
                    && other.int("nodePort").unwrap_or(0) != 0
            });
            let number = match twin.and_then(|twin| twin.int("nodePort")) {
                Some(number) => number,
                None => {
                    let free = self.free_port(taken, state);
                    let free = free.ok_or_else(|| status::internal("failed to allocate a nodePort: range is full"))?;
                    given.ports.insert(free);
                    taken.ports.insert(free);
                    i64::from(free)
                }
            };
            set(&mut ports[i], "nodePort", number);
        }
        Ok(())
    }

    fn free_port(&self, taken: &Held, state: &mut State) -> Option<u16> {
        let range = &self.ranges.node_ports;
        let count = u32::from(range.end().saturating_sub(*range.start())) + 1;
        let start = state.random.random_range(0..count);
        let number = |i: u32| u16::try_from(u32::from(*range.start()) + (start + i) % count).ok();
        (0..count).filter_map(number).find(|port| !taken.ports.contains(port))
    }
}

/// The node ports of a Service, as what no other Service may have.
pub(super) fn claims(service: &Value) -> Vec<String> {
    let ports = service.list("spec.ports").iter().filter_map(|port| port.int("nodePort").filter(|port| *port != 0));
    ports.map(|port| format!("ports/{port}")).collect()
}

fn key(service: &Value) -> String {
    format!("{}/{}", service.text("metadata.namespace"), service.text("metadata.name"))
}

/// Whether a Service asks for something, or names other things than before.
fn wants(new: &Value, old: Option<&Value>) -> bool {
    fn named(service: &Value) -> (&str, &[Value], impl Iterator<Item = i64>) {
        let ports = service.list("spec.ports").iter().map(|port| port.int("nodePort").unwrap_or(0));
        (service.text("spec.type"), service.list("spec.clusterIPs"), ports)
    }
    let (kind, ips, mut ports) = named(new);
    let headless = new.text("spec.clusterIP") == "None";
    let unset = has_cluster_ip(kind) && !headless && ips.len() < new.list("spec.ipFamilies").len()
        || has_node_ports(new.at("spec")) && ports.any(|port| port == 0);
    unset
        || old.is_none_or(|old| {
            let ((kind, ips, ports), (old_kind, old_ips, old_ports)) = (named(new), named(old));
            kind != old_kind || ips != old_ips || ports.ne(old_ports)
        })
}
