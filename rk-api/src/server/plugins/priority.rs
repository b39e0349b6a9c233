//! Priority classes become numbers.

use async_trait::async_trait;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{forbid, is, spec_mut, text};
use crate::{
    LabelSelector, Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
    status,
};

/// Resolves the priority class of new pods to their priority and preemption policy, and keeps a second class from
/// becoming the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Priority;

const GROUP: &str = "scheduling.k8s.io";
const PREEMPTS: &str = "PreemptLowerPriority";

/// Name, priority and preemption policy.
type Class = (String, i64, String);

async fn class(reader: &dyn Reader, name: &str) -> Result<Option<Class>, Status> {
    let found = reader.get(GROUP, "priorityclasses", "", name).await.map_err(status::internal)?;
    found.map(|object| read(&object)).transpose().map_err(status::internal)
}

fn read(object: &crate::Object) -> Result<Class, crate::Error> {
    let class = object.typed::<PriorityClass>()?;
    let policy = class.preemption_policy.as_deref().unwrap_or(PREEMPTS).to_owned();
    Ok((object.meta().name.clone(), class.value.unwrap_or(0).into(), policy))
}

/// The class of pods that name none: of several marked as default the one with the lowest value.
async fn global_default(reader: &dyn Reader) -> Result<Option<Class>, Status> {
    let all =
        reader.list(GROUP, "priorityclasses", "", &LabelSelector::everything()).await.map_err(status::internal)?;
    let mut found: Option<Class> = None;
    for object in &all {
        if object.typed::<PriorityClass>().map_err(status::internal)?.global_default == Some(true) {
            let class = read(object).map_err(status::internal)?;
            if found.as_ref().is_none_or(|lowest| class.1 < lowest.1) {
                found = Some(class);
            }
        }
    }
    Ok(found)
}

/// A client that updates a pod need not repeat what this plugin set when it was made.
fn keep(request: &mut AdmissionRequest) -> Result<(), Status> {
    let Some(old) = request.old_value()? else { return Ok(()) };
    let Some(spec) = spec_mut(request) else { return Ok(()) };
    for field in ["priority", "preemptionPolicy"] {
        if spec[field].is_null() && !old["spec"][field].is_null() {
            spec[field] = old["spec"][field].clone();
        }
    }
    Ok(())
}

impl Priority {
    async fn admit_pod(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(pod) = &request.object else { return Ok(()) };
        if !pod["spec"].is_object() {
            return Ok(());
        }
        let named = text(&pod["spec"]["priorityClassName"]).to_owned();
        let (name, priority, policy) = if named.is_empty() {
            global_default(reader).await?.unwrap_or_else(|| (String::new(), 0, PREEMPTS.to_owned()))
        } else {
            match class(reader, &named).await? {
                Some(class) => class,
                None => return Err(forbid(request, &format!("no PriorityClass with name {named} was found"))),
            }
        };
        let spec = &pod["spec"];
        if let Some(given) = spec["priority"].as_i64().filter(|given| *given != priority) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                 controller computed {priority} from the given PriorityClass name"
            );
            return Err(forbid(request, &why));
        }
        if let Some(given) = spec["preemptionPolicy"].as_str().filter(|given| *given != policy) {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            );
            return Err(forbid(request, &why));
        }
        let Some(spec) = spec_mut(request) else { return Ok(()) };
        if !name.is_empty() {
            spec["priorityClassName"] = name.into();
        }
        spec["priority"] = priority.into();
        spec["preemptionPolicy"] = policy.into();
        Ok(())
    }
}

#[async_trait]
impl Admit for Priority {
    fn name(&self) -> &str {
        "Priority"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        subresource.is_empty()
            && match operation {
                Operation::Create | Operation::Update => {
                    is(resource, "", "pods") || is(resource, GROUP, "priorityclasses")
                }
                Operation::Delete | Operation::Connect => false,
            }
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        match (request.resource.plural == "pods", request.operation) {
            (true, Operation::Create) => self.admit_pod(request, reader).await,
            (true, _) => keep(request),
            (false, _) => Ok(()),
        }
    }

    async fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(object) = &request.object else { return Ok(()) };
        if request.resource.plural == "pods" || object["globalDefault"] != true {
            return Ok(());
        }
        match global_default(reader).await? {
            Some((name, ..)) if name != text(&object["metadata"]["name"]) => {
                let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
                Err(forbid(request, &why))
            }
            _ => Ok(()),
        }
    }
}
