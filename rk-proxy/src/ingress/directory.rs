//! From a service's port to its endpoints.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use k8s_openapi::api::core::v1::Service;
use parking_lot::RwLock;

use super::{BackendPort, BackendRef};
use crate::{Protocol, ServiceKey, Tracker, usable};

/// The endpoints of a port, in turn.
#[derive(Debug, Default)]
struct Pool {
    targets: Vec<SocketAddr>,
    next: AtomicUsize,
}

#[derive(Debug, Default)]
struct Ports {
    by_name: BTreeMap<String, Arc<Pool>>,
    by_number: BTreeMap<u16, Arc<Pool>>,
}

/// The endpoints of all services.
#[derive(Debug, Default)]
pub struct Directory {
    services: RwLock<HashMap<ServiceKey, Ports>>,
}

impl Directory {
    /// Takes what the tracker knows of a service now; `None` when it is gone.
    pub fn set(&self, key: &ServiceKey, service: Option<&Service>, tracker: &Tracker) {
        let Some(spec) = service.and_then(|service| service.spec.as_ref()) else {
            self.services.write().remove(key);
            return;
        };
        let mut ports = Ports::default();
        for port in spec.ports.iter().flatten() {
            let name = port.name.as_deref().unwrap_or_default();
            let endpoints = tracker.endpoints(key, name, Protocol::Tcp);
            let targets = usable(&endpoints).into_iter().map(|endpoint| endpoint.address).collect();
            let pool = Arc::new(Pool { targets, next: AtomicUsize::new(0) });
            ports.by_name.insert(name.to_owned(), Arc::clone(&pool));
            if let Ok(number) = u16::try_from(port.port) {
                ports.by_number.insert(number, pool);
            }
        }
        self.services.write().insert(key.clone(), ports);
    }

    /// The endpoints to try, the one whose turn it is first. `None` if there is no such service or port.
    pub fn endpoints(&self, backend: &BackendRef) -> Option<Vec<SocketAddr>> {
        let pool = {
            let services = self.services.read();
            let ports = services.get(&backend.service)?;
            match &backend.port {
                BackendPort::Number(number) => Arc::clone(ports.by_number.get(number)?),
                BackendPort::Name(name) => Arc::clone(ports.by_name.get(name)?),
            }
        };
        let mut targets = pool.targets.clone();
        if !targets.is_empty() {
            let turn = pool.next.fetch_add(1, Ordering::Relaxed) % targets.len();
            targets.rotate_left(turn);
        }
        Some(targets)
    }
}
