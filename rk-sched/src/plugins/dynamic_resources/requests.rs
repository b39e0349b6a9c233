//! What claims ask for, read once for all nodes.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::resource::v1::{
    CapacityRequirements, DeviceClass, DeviceRequest, DeviceSelector, DeviceToleration, ResourceClaim,
};
use parking_lot::Mutex;
use rk_api::{Quantity, cel::device::Selector};

use super::{claims::shown, constraints::Constraint};
use crate::{framework::Status, model::Devices};

/// Devices of a claim's allocation (`AllocationResultsMaxSize`).
pub(super) const MOST_DEVICES: usize = 32;

/// How many devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Exactly(usize),
    /// Every one that is selected.
    All,
}

/// A selector, and whose it is.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    pub(super) expression: Arc<str>,
    pub(super) selector: Arc<Selector>,
    /// Such as `class gpu: selector #0`.
    pub(super) origin: String,
}

/// One way to satisfy a request: the request itself, or one of its subrequests.
#[derive(Debug)]
pub(super) struct Choice {
    /// The request's name, with the subrequest's behind a slash.
    pub(super) name: String,
    pub(super) class: Arc<DeviceClass>,
    pub(super) filters: Vec<Filter>,
    pub(super) count: Count,
    pub(super) admin: bool,
    pub(super) tolerations: Vec<DeviceToleration>,
    pub(super) capacity: Vec<(String, Quantity)>,
}

/// A request of one of the claims.
#[derive(Debug)]
pub(super) struct Request {
    /// The claim's place.
    pub(super) claim: usize,
    /// By preference.
    pub(super) choices: Vec<Choice>,
}

/// What the unallocated claims of a pod ask for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) claims: Vec<Arc<ResourceClaim>>,
    pub(super) requests: Vec<Arc<Request>>,
    /// By claim.
    pub(super) constraints: Vec<Vec<Constraint>>,
}

/// Compiled selectors by their text. Classes and claims repeat the same few of them.
#[derive(Debug, Default)]
pub(super) struct Selectors(Mutex<HashMap<Arc<str>, Arc<Selector>>>);

/// Selectors that are kept.
const MOST_KEPT: usize = 1024;

impl Selectors {
    fn get(&self, text: &str) -> Result<(Arc<str>, Arc<Selector>), String> {
        let mut kept = self.0.lock();
        if let Some((text, selector)) = kept.get_key_value(text) {
            return Ok((Arc::clone(text), Arc::clone(selector)));
        }
        let (text, selector): (Arc<str>, _) = (Arc::from(text), Arc::new(Selector::compile(text)?));
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(Arc::clone(&text), Arc::clone(&selector));
        Ok((text, selector))
    }

    fn filters(&self, of: &str, selectors: Option<&[DeviceSelector]>) -> Result<Vec<Filter>, Status> {
        let compiled = selectors.unwrap_or_default().iter().enumerate().map(|(at, selector)| {
            let origin = format!("{of}: selector #{at}");
            let Some(cel) = &selector.cel else {
                return Err(Status::error(format!("{origin}: CEL expression empty (unsupported selector type?)")));
            };
            let compiled = self.get(&cel.expression);
            let (expression, selector) =
                compiled.map_err(|error| Status::error(format!("{origin}: CEL compile error: {error}")))?;
            Ok(Filter { expression, selector, origin })
        });
        compiled.collect()
    }
}

/// What an exact request and a subrequest have in common.
struct Asked<'a> {
    name: String,
    class: &'a str,
    selectors: Option<&'a [DeviceSelector]>,
    mode: Option<&'a str>,
    count: Option<i64>,
    admin: bool,
    tolerations: Option<&'a [DeviceToleration]>,
    capacity: Option<&'a CapacityRequirements>,
}

fn asked(request: &DeviceRequest) -> Vec<Asked<'_>> {
    if let Some(exactly) = &request.exactly {
        return vec![Asked {
            name: request.name.clone(),
            class: &exactly.device_class_name,
            selectors: exactly.selectors.as_deref(),
            mode: exactly.allocation_mode.as_deref(),
            count: exactly.count,
            admin: exactly.admin_access == Some(true),
            tolerations: exactly.tolerations.as_deref(),
            capacity: exactly.capacity.as_ref(),
        }];
    }
    let subrequests = request.first_available.iter().flatten();
    let of = subrequests.map(|sub| Asked {
        name: format!("{}/{}", request.name, sub.name),
        class: &sub.device_class_name,
        selectors: sub.selectors.as_deref(),
        mode: sub.allocation_mode.as_deref(),
        count: sub.count,
        admin: false,
        tolerations: sub.tolerations.as_deref(),
        capacity: sub.capacity.as_ref(),
    });
    of.collect()
}

impl Wanted {
    /// Reads the claims.
    ///
    /// # Errors
    /// A class is missing, or the claim asks for what nobody can give; or an expression can't be compiled.
    pub(super) fn new(
        claims: Vec<Arc<ResourceClaim>>,
        devices: &Devices,
        selectors: &Selectors,
    ) -> Result<Self, Status> {
        let (mut requests, mut constraints) = (Vec::new(), Vec::new());
        for (at, claim) in claims.iter().enumerate() {
            let spec = claim.spec.devices.as_ref();
            let mut least = 0_usize;
            for request in spec.into_iter().flat_map(|spec| spec.requests.iter().flatten()) {
                let choices = asked(request)
                    .into_iter()
                    .map(|asked| Choice::new(asked, claim, devices, selectors))
                    .collect::<Result<Vec<_>, _>>()?;
                if choices.is_empty() {
                    return Err(Status::error(format!("request {}: unsupported request type", request.name)));
                }
                let fewest = choices.iter().map(|choice| match choice.count {
                    Count::Exactly(count) => count,
                    Count::All => 1,
                });
                least = least.saturating_add(fewest.min().unwrap_or(0));
                requests.push(Arc::new(Request { claim: at, choices }));
            }
            if least > MOST_DEVICES {
                return Err(Status::unresolvable(format!(
                    "claim {}: number of requested devices {least} exceeds the claim limit of {MOST_DEVICES}",
                    shown(claim)
                )));
            }
            let read = spec.into_iter().flat_map(|spec| spec.constraints.iter().flatten()).enumerate();
            let read = read.map(|(number, constraint)| {
                Constraint::new(constraint).ok_or_else(|| {
                    Status::error(format!(
                        "claim {}, constraint #{number}: empty constraint (unsupported constraint type?)",
                        shown(claim)
                    ))
                })
            });
            constraints.push(read.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(Self { claims, requests, constraints })
    }
}

impl Wanted {
    /// The same without some requests of the last claim, and without that claim if it has no others.
    pub(super) fn without(&self, names: &[&str]) -> Self {
        let (mut claims, mut constraints) = (self.claims.clone(), self.constraints.clone());
        let mut requests = self.requests.clone();
        let Some(last) = claims.len().checked_sub(1) else { return Self { claims, requests, constraints } };
        let keeps = |name: &String| !names.contains(&name.as_str());
        requests.retain(|request| request.claim != last || keeps(&request.choices[0].name));
        if requests.iter().any(|request| request.claim == last) {
            let claim = Arc::make_mut(&mut claims[last]);
            let all = claim.spec.devices.as_mut().and_then(|devices| devices.requests.as_mut());
            all.into_iter().for_each(|all| all.retain(|request| keeps(&request.name)));
        } else {
            claims.pop();
            constraints.pop();
        }
        Self { claims, requests, constraints }
    }
}

impl Choice {
    fn new(asked: Asked<'_>, claim: &ResourceClaim, devices: &Devices, selectors: &Selectors) -> Result<Self, Status> {
        let (name, shown) = (asked.name, shown(claim));
        let class = devices.class(asked.class).ok_or_else(|| {
            Status::unresolvable(format!("request {name}: device class {} does not exist", asked.class))
        })?;
        let count = match asked.mode.unwrap_or("ExactCount") {
            "ExactCount" => Count::Exactly(usize::try_from(asked.count.unwrap_or(1).max(1)).unwrap_or(usize::MAX)),
            "All" => Count::All,
            mode => {
                return Err(Status::error(format!("claim {shown}, request {name}: unsupported count mode {mode}")));
            }
        };
        let wishes = asked.capacity.into_iter().flat_map(|capacity| capacity.requests.iter().flatten());
        let wishes = wishes.map(|(key, quantity)| match Quantity::try_from(quantity) {
            Ok(quantity) => Ok((key.clone(), quantity)),
            Err(error) => Err(Status::error(format!("claim {shown}, request {name}: capacity {key}: {error}"))),
        });
        let of_class = format!("class {}", asked.class);
        let mut filters = selectors.filters(&of_class, class.spec.selectors.as_deref())?;
        filters.extend(selectors.filters(&format!("claim {shown}"), asked.selectors)?);
        Ok(Self {
            capacity: wishes.collect::<Result<_, _>>()?,
            class: Arc::clone(class),
            filters,
            count,
            admin: asked.admin,
            tolerations: asked.tolerations.unwrap_or_default().to_vec(),
            name,
        })
    }
}
