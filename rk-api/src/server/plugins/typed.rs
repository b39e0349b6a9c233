//! Plugins that see the objects of one kind as a Rust type.

use std::{collections::HashMap, marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    Resource, ResourceType, Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
    status,
};

/// A plugin for the objects of one kind, in one version: those that come in another version of its group it does not see. What
/// the type does not know of an object stays as it is. [`typed`] puts it into the chain.
///
/// ```
/// use async_trait::async_trait;
/// use rk_api::{Status, k8s_openapi::api::core::v1::ConfigMap, server::{AdmissionRequest, Reader, plugins}};
///
/// struct Owned;
///
/// #[async_trait]
/// impl plugins::AdmitTyped for Owned {
///     type Object = ConfigMap;
///
///     fn name(&self) -> &str {
///         "Owned"
///     }
///
///     async fn mutate(&self, map: &mut ConfigMap, request: &AdmissionRequest, _: &dyn Reader) -> Result<(), Status> {
///         let labels = map.metadata.labels.get_or_insert_default();
///         labels.entry("owner".to_owned()).or_insert_with(|| request.attributes.user.name.clone());
///         Ok(())
///     }
/// }
///
/// assert_eq!(plugins::typed(Owned).name(), "Owned");
/// ```
#[async_trait]
pub trait AdmitTyped: Send + Sync + 'static {
    /// The kind.
    type Object: ResourceType;

    /// Its name in errors, logs and the chain.
    fn name(&self) -> &str;

    /// Whether it wants to see such writes of its kind. Unless said these are new objects and changed ones; of subresources it
    /// may ask for `status` only, whose body is the whole object.
    fn handles(&self, operation: Operation, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && subresource.is_empty()
    }

    /// May change the object before it is validated; not called for deletions. `request.object` is empty meanwhile, and what is
    /// in `request.notes` is told the client.
    ///
    /// # Errors
    /// A [`Status`] (most often 403) refuses the write.
    async fn mutate(
        &self,
        _object: &mut Self::Object,
        _request: &AdmissionRequest,
        _reader: &dyn Reader,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Looks at the object as it will be stored, or in a deletion at the one that goes; `old` is what it replaces.
    ///
    /// # Errors
    /// A [`Status`] (most often 403) refuses the write.
    async fn validate(
        &self,
        _object: &Self::Object,
        _old: Option<&Self::Object>,
        _request: &AdmissionRequest,
        _reader: &dyn Reader,
    ) -> Result<(), Status> {
        Ok(())
    }
}

/// A typed plugin as one of the chain.
pub fn typed<P: AdmitTyped>(plugin: P) -> Arc<dyn Admit> {
    Arc::new(Typed { resource: Resource::of::<P::Object>(), plugin })
}

/// A plugin that changes new and changed objects of a kind, or refuses them.
///
/// ```
/// use rk_api::{k8s_openapi::api::core::v1::Pod, server::plugins};
///
/// let plugin = plugins::mutating_typed("HostNames", |pod: &mut Pod, _| {
///     let name = pod.metadata.name.clone();
///     pod.spec.get_or_insert_default().hostname = name;
///     Ok(())
/// });
/// assert_eq!(plugin.name(), "HostNames");
/// ```
pub fn mutating_typed<K, M>(name: &str, mutate: M) -> Arc<dyn Admit>
where
    K: ResourceType,
    M: Fn(&mut K, &AdmissionRequest) -> Result<(), Status> + Send + Sync + 'static,
{
    typed(Closures { name: name.to_owned(), mutate, validate: |_: &K, _: Option<&K>, _: &_| Ok(()), kind: PhantomData })
}

/// A plugin that refuses new and changed objects of a kind, or does not; it sees the old one too.
pub fn validating_typed<K, V>(name: &str, validate: V) -> Arc<dyn Admit>
where
    K: ResourceType,
    V: Fn(&K, Option<&K>, &AdmissionRequest) -> Result<(), Status> + Send + Sync + 'static,
{
    typed(Closures { name: name.to_owned(), mutate: |_: &mut K, _: &_| Ok(()), validate, kind: PhantomData })
}

struct Closures<K, M, V> {
    name: String,
    mutate: M,
    validate: V,
    kind: PhantomData<fn(K)>,
}

#[async_trait]
impl<K, M, V> AdmitTyped for Closures<K, M, V>
where
    K: ResourceType,
    M: Fn(&mut K, &AdmissionRequest) -> Result<(), Status> + Send + Sync + 'static,
    V: Fn(&K, Option<&K>, &AdmissionRequest) -> Result<(), Status> + Send + Sync + 'static,
{
    type Object = K;

    fn name(&self) -> &str {
        &self.name
    }

    async fn mutate(&self, object: &mut K, request: &AdmissionRequest, _: &dyn Reader) -> Result<(), Status> {
        (self.mutate)(object, request)
    }

    async fn validate(
        &self,
        object: &K,
        old: Option<&K>,
        request: &AdmissionRequest,
        _: &dyn Reader,
    ) -> Result<(), Status> {
        (self.validate)(object, old, request)
    }
}

struct Typed<P> {
    plugin: P,
    resource: Resource,
}

fn decode<K: ResourceType>(object: &Value) -> Result<K, Status> {
    let kind = K::kind(&());
    K::deserialize(object).map_err(|error| status::bad_request(format!("the object is no {kind}: {error}")))
}

#[async_trait]
impl<P: AdmitTyped> Admit for Typed<P> {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        *resource == self.resource
            && matches!(subresource, "" | "status")
            && operation != Operation::Connect
            && self.plugin.handles(operation, subresource)
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(mut tree) = request.object.take() else { return Ok(()) };
        let mut object: P::Object = decode(&tree)?;
        let before = serde_json::to_value(&object).map_err(status::internal)?;
        let result = self.plugin.mutate(&mut object, request, reader).await;
        let after = serde_json::to_value(&object).map_err(status::internal)?;
        overlay(&mut tree, &before, after);
        request.object = Some(tree);
        result
    }

    async fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let old = request.old_object.as_ref().map(|old| old.typed::<P::Object>()).transpose();
        let old = old.map_err(status::internal)?;
        match (&request.object, &old) {
            (Some(object), old) => self.plugin.validate(&decode(object)?, old.as_deref(), request, reader).await,
            (None, Some(old)) => self.plugin.validate(old, None, request, reader).await,
            (None, None) => Ok(()),
        }
    }
}

/// The fields by which items of lists are told apart, if all have them and none has another's.
const KEYS: [&str; 8] = ["name", "key", "type", "mountPath", "containerPort", "port", "ip", "uid"];

/// Brings to a tree what changed between two others, and nothing else.
fn overlay(tree: &mut Value, before: &Value, after: Value) {
    if *before == after {
        return;
    }
    match (tree, before, after) {
        (Value::Object(tree), Value::Object(before), Value::Object(after)) => {
            tree.retain(|field, _| !before.contains_key(field) || after.contains_key(field));
            for (field, value) in after {
                match before.get(&field) {
                    Some(before) if *before == value => {}
                    Some(before) => overlay(tree.entry(field).or_insert(Value::Null), before, value),
                    None => _ = tree.insert(field, value),
                }
            }
        }
        (Value::Array(tree), Value::Array(before), Value::Array(after)) if tree.len() == before.len() => {
            let mut olds = std::mem::take(tree);
            let origins = origins(before, &after);
            tree.extend(after.into_iter().zip(origins).map(|(after, origin)| {
                let Some(origin) = origin else { return after };
                let mut kept = olds[origin].take();
                overlay(&mut kept, &before[origin], after);
                kept
            }));
        }
        (tree, _, after) => *tree = after,
    }
}

/// Where the items of a list were before: what is told apart by a field, by that field; else those that are as they were, and in
/// a list that is as long as it was those that nothing else has taken the place of. `None` for new ones.
fn origins(before: &[Value], after: &[Value]) -> Vec<Option<usize>> {
    let keyed = KEYS.iter().find_map(|key| Some((key, places(before, key)?, places(after, key)?)));
    if let Some((key, places, _)) = keyed {
        return after.iter().map(|item| places.get(&item[key].to_string()).copied()).collect();
    }
    let mut free = vec![true; before.len()];
    let mut take = |at: &usize| free.get_mut(*at).is_some_and(std::mem::take);
    let unchanged = |(at, item): (usize, &Value)| {
        let mut same = std::iter::once(at).chain(0..before.len()).filter(|at| before.get(*at) == Some(item));
        same.find(&mut take)
    };
    let mut origins: Vec<_> = after.iter().enumerate().map(unchanged).collect();
    if before.len() == after.len() {
        for (at, origin) in origins.iter_mut().enumerate() {
            *origin = origin.or_else(|| Some(at).filter(&mut take));
        }
    }
    origins
}

/// The places of a list's items by a field, if each has one of its own.
fn places(list: &[Value], key: &str) -> Option<HashMap<String, usize>> {
    let all = list.iter().enumerate().map(|(at, item)| Some((item.get(key)?.to_string(), at)));
    let places: HashMap<_, _> = all.collect::<Option<_>>()?;
    (places.len() == list.len()).then_some(places)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_changed_is_laid_over() {
        let mut tree = json!({"known": 1, "unknown": 2, "gone": 3, "list": [{"a": 1, "unknown": 2}], "short": [1, 2]});
        let before = json!({"known": 1, "gone": 3, "list": [{"a": 1}], "short": [1, 2], "empty": []});
        let after = json!({"known": 5, "new": {"x": 1}, "list": [{"a": 2}], "short": [2], "empty": []});
        overlay(&mut tree, &before, after);
        let wanted = json!({"known": 5, "unknown": 2, "new": {"x": 1}, "list": [{"a": 2, "unknown": 2}], "short": [2]});
        assert_eq!(tree, wanted);
    }

    #[test]
    fn items_keep_what_is_theirs_wherever_they_go() {
        let overlaid = |mut tree: Value, before: Value, after: Value| {
            overlay(&mut tree, &before, after);
            tree
        };
        let named = |name: &str, image: &str| json!({"name": name, "image": image});
        let stored = |name: &str, image: &str| json!({"name": name, "image": image, "newer": name});
        let tree = json!([stored("a", "1"), stored("b", "1")]);
        let before = json!([named("a", "1"), named("b", "1")]);
        let after = json!([named("b", "2"), named("c", "1")]);
        let wanted = json!([stored("b", "2"), named("c", "1")]);
        assert_eq!(overlaid(tree.clone(), before.clone(), after), wanted, "one goes, one is new");
        let after = json!([named("c", "1"), named("b", "1"), named("a", "1")]);
        let wanted = json!([named("c", "1"), stored("b", "1"), stored("a", "1")]);
        assert_eq!(overlaid(tree, before, after), wanted, "one more, in another order");

        // A volume may be mounted twice.
        let mount = |path: &str| json!({"name": "v", "mountPath": path});
        let tree = json!([{"name": "v", "mountPath": "/a", "newer": 1}, {"name": "v", "mountPath": "/b"}]);
        let after = json!([mount("/b"), mount("/a")]);
        let wanted = json!([{"name": "v", "mountPath": "/b"}, {"name": "v", "mountPath": "/a", "newer": 1}]);
        assert_eq!(overlaid(tree, json!([mount("/a"), mount("/b")]), after), wanted);

        // Nothing tells these apart.
        let tree = || json!([{"x": 1, "newer": 1}, {"x": 2, "newer": 2}]);
        let before = || json!([{"x": 1}, {"x": 2}]);
        assert_eq!(overlaid(tree(), before(), json!([{"x": 2}])), json!([{"x": 2, "newer": 2}]));
        let wanted = json!([{"x": 2, "newer": 2}, {"x": 3}]);
        assert_eq!(overlaid(tree(), before(), json!([{"x": 2}, {"x": 3}])), wanted);
        let wanted = json!([{"x": 3, "newer": 1}, {"x": 2, "newer": 2}]);
        assert_eq!(overlaid(tree(), before(), json!([{"x": 3}, {"x": 2}])), wanted);
    }
}
