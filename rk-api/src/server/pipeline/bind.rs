//! `binding`: gives a pod to a node, once.
//!
//! As in Kubernetes (`BindingREST.assignPod`) the pod goes to the store at once: what is admitted is the binding, of the pod's change
//! that comes of it nobody is asked, and its fields have no manager. It is what becomes of every pod, and of most of the pod nothing
//! is looked at.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Serialize, de::IgnoredAny};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::{
    Call, Core, Outcome, admit, invalid, meta,
    subresource::{set_condition, success},
    update::TRIES,
};
use crate::{
    Error, Object, WriteOptions,
    server::{
        Operation, kinds,
        storage::{Claims, Fields, Write, encode_fields, fields},
    },
    status,
};

impl Core {
    /// Answers a Binding.
    ///
    /// # Errors
    /// 400, 404, 409 (the pod has a node, gates, or ends; it is another one, or another version, than the one named), 422 (labels or
    /// annotations of the binding), 500 (it names no node, as in Kubernetes), and whatever admission and the store say.
    pub(super) async fn bind(&self, call: &Call, mut body: Value, options: &WriteOptions) -> Result<Outcome, Error> {
        meta::check_kind(&mut body, "v1", "Binding")?;
        let named = meta::text(&body, "name");
        if !named.is_empty() && named != call.name {
            return Err(status::bad_request("name in URL does not match name in Binding object").into());
        }
        let admission = admit::write_options("CreateOptions", options);
        let mut request = admit::request(call, "create", Operation::Create, Some(body), None, admission);
        self.mutate(&mut request, call).await?;
        let Some(binding) = &request.object else {
            return Err(status::internal("admission removed the object").into());
        };
        check_target(&binding["target"])?;
        self.admit(&request, call).await?;
        for _ in 0..TRIES {
            let stored = self.current(call).await?.ok_or_else(|| call.not_found())?;
            let json = assigned(call, &stored, binding)?;
            if options.dry_run {
                return success();
            }
            let (collection, item, revision) = (&call.served.collection, call.item(), stored.revision());
            match self.cache.put(collection, &item, json, revision, 0, Claims::default()).await? {
                Write::Done(_) => return success(),
                Write::Raced | Write::Held => {}
            }
        }
        Err(status::conflict(call.resource(), &call.name, status::MODIFIED).into())
    }
}

/// Kubernetes answers what is wrong here as failures of its own, with no causes (`BindingREST.Create`).
fn check_target(target: &Value) -> Result<(), Error> {
    let kind = target["kind"].as_str().unwrap_or_default();
    let mut wrong = Vec::new();
    if !matches!(kind, "" | "Node") {
        wrong.push(format!("target.kind: Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\""));
    }
    if target["name"].as_str().unwrap_or_default().is_empty() {
        wrong.push("target.name: Required value".to_owned());
    }
    match wrong.as_slice() {
        [] => Ok(()),
        [one] => Err(status::failure(500, "", one).into()),
        all => Err(status::failure(500, "", format!("[{}]", all.join(", "))).into()),
    }
}

/// The stored form of a pod that a binding has given to its node.
fn assigned(call: &Call, stored: &Object, binding: &Value) -> Result<Bytes, Error> {
    let conflict = |why: String| Error::from(status::conflict(call.resource(), &call.name, &why));
    let (uid, version) = (meta::text(binding, "uid"), meta::text(binding, "resourceVersion"));
    let found = &stored.meta().uid;
    if !uid.is_empty() && uid != found {
        return Err(conflict(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}")));
    }
    if !version.is_empty() && version != stored.meta().resource_version {
        return Err(conflict(status::MODIFIED.to_owned()));
    }
    if stored.meta().deletion_timestamp.is_some() {
        return Err(conflict(format!("pod {} is being deleted, cannot be assigned to a host", call.name)));
    }
    let broken = |error: serde_json::Error| Error::decode("Pod", &error);
    let json = std::str::from_utf8(stored.json()).map_err(|error| Error::decode("Pod", &error))?;
    let mut pod = fields(json).map_err(broken)?;
    let part = |name: &str| pod.get(name).map_or("{}", |part| part.get()).to_owned();
    let (spec, metadata) = (part("spec"), part("metadata"));
    let mut spec = fields(&spec).map_err(broken)?;
    if let Some(node) = spec.get("nodeName") {
        let taken = serde_json::from_str::<Option<Cow<'_, str>>>(node.get()).map_err(broken)?.unwrap_or_default();
        if !taken.is_empty() {
            return Err(conflict(format!("pod {} is already assigned to node {taken:?}", call.name)));
        }
    }
    if let Some(gates) = spec.get("schedulingGates") {
        let gates = serde_json::from_str::<Option<Vec<IgnoredAny>>>(gates.get()).map_err(broken)?;
        if gates.is_some_and(|gates| !gates.is_empty()) {
            return Err(conflict(format!("pod {} has non-empty .spec.schedulingGates", call.name)));
        }
    }
    spec.insert("nodeName".to_owned(), raw(&binding["target"]["name"])?);
    let mut status = match pod.get("status") {
        Some(status) => serde_json::from_str(status.get()).map_err(broken)?,
        None => Value::Null,
    };
    set_condition(&mut status, "PodScheduled", "", "");
    let metadata = marked(call, fields(&metadata).map_err(broken)?, &binding["metadata"])?;
    pod.insert("spec".to_owned(), raw(&spec)?);
    pod.insert("status".to_owned(), raw(&status)?);
    Ok(encode_fields(&pod, &metadata))
}

/// The pod's metadata with the labels and annotations that the binding has.
fn marked<'a>(call: &Call, mut pod: Fields<'a>, binding: &Value) -> Result<Fields<'a>, Error> {
    let mut marks = ["labels", "annotations"].into_iter().filter(|field| binding[field].is_object()).peekable();
    if marks.peek().is_none() {
        return Ok(pod);
    }
    let mut all = serde_json::to_value(&pod).map_err(|error| Error::decode("Pod", &error))?;
    for field in marks {
        for (key, value) in binding[field].as_object().into_iter().flatten() {
            all[field][key] = value.clone();
        }
        pod.insert(field.to_owned(), raw(&all[field])?);
    }
    let errors = kinds::validate_meta(&serde_json::json!({"metadata": all}), call.resource());
    if errors.is_empty() { Ok(pod) } else { Err(invalid(call.resource(), &call.name, errors)) }
}

fn raw<T: Serialize>(value: &T) -> Result<Cow<'static, RawValue>, Error> {
    to_raw_value(value).map(Cow::Owned).map_err(|error| Error::decode("Pod", &error))
}
