//! Which collection of which API.

use std::borrow::Cow;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};

/// A kind of object and the collection that serves it: group, version, kind and plural name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: Cow<'static, str>,
    /// Version in the group, such as `v1`.
    pub version: Cow<'static, str>,
    /// Kind of the objects, such as `Deployment`.
    pub kind: Cow<'static, str>,
    /// Name of the collection in URLs, such as `deployments`.
    pub plural: Cow<'static, str>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// The resource of a Rust type: any of k8s-openapi's, or one that derives kube's `CustomResource`.
    pub fn of<K: ResourceType>() -> Self {
        Self {
            group: K::group(&()),
            version: K::version(&()),
            kind: K::kind(&()),
            plural: K::plural(&()),
            namespaced: <K::Scope as Scope>::NAMESPACED,
        }
    }

    /// A resource known by name only at run time.
    pub fn new(group: &str, version: &str, kind: &str, plural: &str, namespaced: bool) -> Self {
        Self {
            group: Cow::Owned(group.to_owned()),
            version: Cow::Owned(version.to_owned()),
            kind: Cow::Owned(kind.to_owned()),
            plural: Cow::Owned(plural.to_owned()),
            namespaced,
        }
    }

    /// `v1`, or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The plural name with its group, as RBAC and error messages write it: `pods`, `deployments.apps`.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The URL path of the collection, or of the object or subresource in it. An empty namespace is
    /// none (all namespaces), an empty name the collection.
    pub fn path(&self, namespace: &str, name: &str, subresource: &str) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if self.namespaced && !namespace.is_empty() {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        for part in [&self.plural, name, subresource] {
            if !part.is_empty() {
                path.push('/');
                path.push_str(part);
            }
        }
        path
    }
}

/// Whether a Rust type's objects live in namespaces.
pub trait Scope: 'static {
    /// `true` for namespaced objects.
    const NAMESPACED: bool;
}

impl Scope for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

impl Scope for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

/// A Rust type that is a Kubernetes object: implemented for all of k8s-openapi's resources and for all types
/// that derive kube's `CustomResource`.
pub trait ResourceType:
    kube_core::Resource<DynamicType = (), Scope: Scope> + Serialize + DeserializeOwned + Clone + Send + Sync + 'static
{
}

impl<K> ResourceType for K where
    K: kube_core::Resource<DynamicType = (), Scope: Scope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Send
        + Sync
        + 'static
{
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Node};

    #[test]
    fn paths_are_those_of_the_api() {
        let deployments = Resource::of::<Deployment>();
        assert_eq!(
            deployments.path("default", "web", "scale"),
            "/apis/apps/v1/namespaces/default/deployments/web/scale"
        );
        assert_eq!(deployments.path("", "", ""), "/apis/apps/v1/deployments");
        assert_eq!(Resource::of::<Node>().path("ignored", "n1", ""), "/api/v1/nodes/n1");
        assert_eq!(deployments.group_resource(), "deployments.apps");
    }
}
