//! The registry's row: everything the server knows of one resource.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::Value;

use super::{Attributes, Decision, UserInfo, Version, schema::Schema};
use crate::{Error, LabelSelector, Object, Resource};

/// One resource: the server serves what rows say and nothing else.
#[derive(Clone)]
pub struct Row {
    /// Group, version, kind, plural name, scope.
    pub resource: Resource,
    /// `deployment`.
    pub singular: String,
    /// `deploy`.
    pub short_names: Vec<String>,
    /// `all`.
    pub categories: Vec<String>,
    /// The verbs that discovery names.
    pub verbs: Vec<String>,
    /// Its subresources.
    pub subresources: Vec<Subresource>,
    /// Whether objects are stored; if not, a create is a question that the strategy answers (`SubjectAccessReview`).
    pub stored: bool,
    /// The columns kubectl shows; the first is the name.
    pub columns: Arc<[Column]>,
    /// Fields besides `metadata.name` and `metadata.namespace` that a field selector may name, such as `status.phase`.
    pub selectable_fields: Vec<String>,
    /// The rules of the kind.
    pub strategy: Arc<dyn Strategy>,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("resource", &self.resource).field("verbs", &self.verbs).finish_non_exhaustive()
    }
}

/// A subresource as discovery shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, ...
    pub name: String,
    /// Kind of the bodies: `Pod` for its status, `Scale`, `Eviction`.
    pub kind: String,
    /// Group of that kind, where it differs.
    pub group: String,
    /// Version of that kind, where it differs.
    pub version: String,
    /// Verbs.
    pub verbs: Vec<String>,
}

/// A column of kubectl's tables.
#[derive(Clone)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`, ...
    pub kind: &'static str,
    /// Shown only with `-o wide` if above 0.
    pub priority: i32,
    /// What it shows.
    pub description: &'static str,
    /// The cell.
    pub cell: fn(&Value) -> Value,
}

/// One broken rule: Kubernetes' reason, the field's path, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// `FieldValueInvalid`, `FieldValueRequired`, `FieldValueNotSupported`, `FieldValueForbidden`,
    /// `FieldValueDuplicate`, `FieldValueTypeInvalid`, `FieldValueTooLong`, ...
    pub reason: &'static str,
    /// Such as `spec.containers[0].name`.
    pub field: String,
    /// In Kubernetes' words, such as `Invalid value: "Bad_Name": ...` or `Required value`.
    pub message: String,
}

/// The broken rules of one object; empty is valid.
pub type FieldErrors = Vec<FieldError>;

/// What a strategy may know of the write it serves.
pub struct WriteContext<'a> {
    /// Who writes.
    pub user: &'a UserInfo,
    /// The subresource written to; empty for the object itself.
    pub subresource: &'a str,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// The server's current objects.
    pub reader: &'a dyn Reader,
}

/// The rules of one kind that its schema does not say. Every method has a default that does nothing;
/// defaulting and typing by schema, metadata rules, generation, and the split of spec and status are the pipeline's own.
#[async_trait]
pub trait Strategy: Send + Sync + 'static {
    /// Sets defaults that the schema does not hold (`spec.strategy` of a Deployment).
    fn default(&self, _object: &mut Value) {}

    /// Readies a new object: drops fields a client may not set, sets the first status.
    fn prepare_create(&self, _object: &mut Value, _context: &WriteContext<'_>) {}

    /// Readies a changed object; `new` comes with what the written subresource may not change already put back.
    fn prepare_update(&self, _new: &mut Value, _old: &Value, _context: &WriteContext<'_>) {}

    /// The broken rules of a new object.
    fn validate_create(&self, _object: &Value) -> FieldErrors {
        Vec::new()
    }

    /// The broken rules of a change.
    fn validate_update(&self, _new: &Value, _old: &Value, _subresource: &str) -> FieldErrors {
        Vec::new()
    }

    /// What the client is told of a new or changed object (`old` is what it was) that is valid all the same, in `Warning` headers:
    /// what is obsolete, has no effect, or can hardly be meant (KEP-1693). Writes of other subresources than `scale` are not asked about.
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Whether [`allocate`](Self::allocate) does anything. If it does not, `release` is not called either, and the object need not be kept
    /// for it while it is written.
    fn allocates(&self) -> bool {
        true
    }

    /// Takes what the object needs from the outside (a cluster IP, a node port) just before it is stored; a dry run takes nothing. A
    /// failure of the store calls `release` with the same object.
    ///
    /// # Errors
    /// A [`Status`] refuses the write.
    async fn allocate(
        &self,
        _new: &mut Value,
        _old: Option<&Value>,
        _context: &WriteContext<'_>,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// What this object holds and no other object of the store may hold: `ports/30080`, say. It is written with the object in
    /// one step, so that no two servers give the same to two objects.
    fn claims(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// Objects that come and go with this one, in one step, each in the version that is stored: the IPAddresses of a Service. Where one
    /// of that name is there already, the write is tried anew, beginning with [`allocate`](Self::allocate).
    fn companions(&self, _object: &Value) -> Vec<(Resource, Value)> {
        Vec::new()
    }

    /// Gives back what `allocate` took, or what a deleted object held.
    fn release(&self, _object: &Value) {}

    /// Whether a delete with this grace period (seconds) removes the object at once; `None` is the kind's default.
    /// A kind that ends gracefully (Pod) answers the seconds to wait; 0 is at once.
    fn grace_period(&self, _object: &Value, _asked: Option<i64>) -> i64 {
        0
    }

    /// Whether a delete that does not say what becomes of dependents leaves them, which Kubernetes does for old kinds only.
    fn orphans(&self) -> bool {
        false
    }

    /// Answers a question that is not stored (`SubjectAccessReview`, `TokenReview`, `Binding`).
    ///
    /// # Errors
    /// A [`Status`] refuses it.
    async fn answer(&self, _question: Value, _context: &WriteContext<'_>) -> Result<Value, Status> {
        Err(crate::status::method_not_allowed())
    }
}

/// The server's current objects, from its own cache, with nobody's permissions asked.
#[async_trait]
pub trait Reader: Send + Sync {
    /// One object, `None` if there is none. The namespace is empty for objects of the cluster.
    ///
    /// # Errors
    /// The store failed, or the resource is not served.
    async fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Error>;

    /// The objects of a namespace (empty for all) with such labels.
    ///
    /// # Errors
    /// The store failed, or the resource is not served.
    async fn list(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        labels: &LabelSelector,
    ) -> Result<Vec<Arc<Object>>, Error>;

    /// The version of a resource's objects in all namespaces, as it goes on.
    ///
    /// # Errors
    /// The store failed, or the resource is not served.
    fn version(&self, group: &str, plural: &str) -> Result<Version, Error>;

    /// What changed in a resource after a version that [`Changes`] told (0: from nothing), in all namespaces.
    ///
    /// # Errors
    /// The store failed, or the resource is not served.
    fn changes(&self, group: &str, plural: &str, after: u64) -> Result<Changes, Error>;

    /// Waits until all resources are shown as they were at this revision of the store, or later. Changes of several resources may
    /// be shown one after the other, though they are of one revision.
    ///
    /// # Errors
    /// The revision does not come in time.
    async fn reach(&self, _revision: u64) -> Result<(), Error> {
        Ok(())
    }

    /// The resource that serves a kind, such as `apps/v1` and `Deployment`; `None` if none does.
    fn resource_of(&self, _api_version: &str, _kind: &str) -> Option<Resource> {
        None
    }

    /// The resource of this group, version and plural name; `None` if it is not served.
    fn resource(&self, _group: &str, _version: &str, _plural: &str) -> Option<Resource> {
        None
    }

    /// The other versions in which a resource is served.
    fn other_versions(&self, _resource: &Resource) -> Vec<Resource> {
        Vec::new()
    }

    /// An object in another version of its resource.
    ///
    /// # Errors
    /// It can't be converted.
    async fn convert(&self, object: Value, _from: &Resource, _to: &Resource) -> Result<Value, Error> {
        Ok(object)
    }

    /// What objects of a resource look like; `None` for anything.
    fn schema(&self, resource: &Resource) -> Option<Arc<Schema>> {
        Schema::builtin(&resource.group, &resource.version, &resource.kind)
    }

    /// What the server's authorizers say, for plugins that ask on somebody's behalf.
    async fn authorize(&self, _attributes: &Attributes) -> Decision {
        Decision::NoOpinion("there is no authorizer".to_owned())
    }
}

/// What changed among the objects of a resource.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Whether these are all objects there are, for the single changes are not known any more.
    pub all: bool,
    /// Each object's new state, oldest change first; of a deleted one the last state, and `true`.
    pub objects: Vec<(Arc<Object>, bool)>,
    /// The version that is reached with them.
    pub version: u64,
}
