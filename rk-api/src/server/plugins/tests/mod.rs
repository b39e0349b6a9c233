//! Each plugin against a few objects.

mod declared_features;
mod furnish;
mod identity;
mod limits;
mod pod_security;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::server::{Attributes, Notes, Reinvocation, UserInfo, fixture::Objects};

/// A write through one plugin: `mutate`, `validate`, then `reserve`, as in the server.
struct Case {
    reader: Arc<Objects>,
    user: UserInfo,
    operation: Operation,
    resource: Resource,
    subresource: &'static str,
    namespace: &'static str,
    old: Option<Value>,
}

impl Case {
    fn create(reader: &Arc<Objects>, group: &str, plural: &str, namespaced: bool) -> Self {
        Self {
            reader: Arc::clone(reader),
            user: UserInfo::new("jane", ["system:authenticated"]),
            operation: Operation::Create,
            resource: Resource::new(group, "v1", "Kind", plural, namespaced),
            subresource: "",
            namespace: if namespaced { "dev" } else { "" },
            old: None,
        }
    }

    fn pods(reader: &Arc<Objects>) -> Self {
        Self::create(reader, "", "pods", true)
    }

    fn by(self, user: UserInfo) -> Self {
        Self { user, ..self }
    }

    fn update(self, old: Value) -> Self {
        Self { operation: Operation::Update, old: Some(old), ..self }
    }

    fn delete(self, old: Value) -> Self {
        Self { operation: Operation::Delete, old: Some(old), ..self }
    }

    fn sub(self, subresource: &'static str) -> Self {
        Self { subresource, ..self }
    }

    /// The object as it leaves the plugin, with warnings; or code and message of the refusal.
    async fn run(self, plugin: &dyn Admit, object: Value) -> Result<(Value, Vec<String>), (i32, String)> {
        let (mut request, seen) = self.seen(plugin, object).await;
        seen.map_err(|status| (status.code.unwrap(), status.message.unwrap()))?;
        request.warnings.extend(request.notes.take_warnings());
        Ok((request.object.unwrap_or_default(), request.warnings))
    }

    /// The request as it leaves the plugin, and what was decided.
    async fn seen(self, plugin: &dyn Admit, object: Value) -> (AdmissionRequest, Result<(), Status>) {
        let named = self.old.as_ref().unwrap_or(&object);
        let attributes = Attributes {
            user: Arc::new(self.user),
            group: self.resource.group.clone(),
            resource: self.resource.plural.clone(),
            subresource: self.subresource.to_owned(),
            namespace: self.namespace.to_owned(),
            name: text(&named["metadata"]["name"]).to_owned(),
            ..Attributes::default()
        };
        let handled = plugin.handles(self.operation, &self.resource, self.subresource);
        let mut request = AdmissionRequest {
            attributes,
            resource: self.resource,
            operation: self.operation,
            object: (self.operation != Operation::Delete).then_some(object),
            old_object: self.old.map(|old| Arc::new(crate::Object::from_value(&old).unwrap()).into()),
            options: Value::Null,
            dry_run: false,
            warnings: Vec::new(),
            notes: Notes::default(),
            reinvocation: Reinvocation::default(),
        };
        let reader = &*self.reader;
        let decided = async {
            if !handled {
                return Ok(());
            }
            plugin.mutate(&mut request, reader).await?;
            plugin.validate(&request, reader).await?;
            match plugin.reserve() {
                Some(counts) => counts.reserve(&request, reader).await.map(drop),
                None => Ok(()),
            }
        };
        let decided = decided.await;
        (request, decided)
    }
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name, "namespace": "dev"}, "spec": {"containers": [{"name": "c"}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}, "status": {"phase": "Active"}})
}

fn cluster(objects: impl IntoIterator<Item = (&'static str, Value)>) -> Arc<Objects> {
    let base = [
        ("namespaces", namespace("dev", json!({}))),
        ("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "dev", "uid": "u1"}})),
    ];
    Objects::new(base.into_iter().chain(objects))
}

#[tokio::test]
async fn namespace_lifecycle_guards_missing_ending_and_system_namespaces() {
    let plugin = NamespaceLifecycle;
    let all = cluster([("namespaces", json!({"metadata": {"name": "old"}, "status": {"phase": "Terminating"}}))]);
    Case::pods(&all).run(&plugin, pod("p", json!({}))).await.unwrap();
    let lost = Case { namespace: "lost", ..Case::pods(&all) };
    assert_eq!(lost.run(&plugin, pod("p", json!({}))).await, Err((404, r#"namespaces "lost" not found"#.into())));
    let ending = || Case { namespace: "old", ..Case::pods(&all) };
    let why = r#"pods "p" is forbidden: unable to create new content in namespace old because it is being terminated"#;
    assert_eq!(ending().run(&plugin, pod("p", json!({}))).await, Err((403, why.into())));
    ending().update(pod("p", json!({}))).run(&plugin, pod("p", json!({}))).await.unwrap();
    let delete = |name: &str| Case::create(&all, "", "namespaces", false).delete(namespace(name, json!({})));
    let why = r#"namespaces "default" is forbidden: this namespace may not be deleted"#;
    assert_eq!(delete("default").run(&plugin, Value::Null).await, Err((403, why.into())));
    delete("dev").run(&plugin, Value::Null).await.unwrap();
}

#[tokio::test]
async fn a_closure_is_a_plugin() {
    let all = cluster([]);
    let plugin = mutating_fn(
        "Labels",
        |operation, resource, _| operation == Operation::Create && resource.plural == "pods",
        |request| {
            let Some(pod) = &mut request.object else { return Ok(()) };
            pod["metadata"]["labels"] = json!({"seen": "yes"});
            Ok(())
        },
    );
    let (done, _) = Case::pods(&all).run(&*plugin, pod("p", json!({}))).await.unwrap();
    assert_eq!(done["metadata"]["labels"]["seen"], "yes");
}
