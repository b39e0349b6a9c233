//! Storage objects that are in use stay until they are not
//! (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>).
//!
//! Each kind has a finalizer, which admission gives to new objects and the controller to those that lack it. Once the object
//! is deleted and nobody uses it, the controller takes the finalizer off, and the object goes.

mod claim;
mod class;
mod volume;

use std::sync::Arc;

use async_trait::async_trait;
use rk_api::ResourceType;

use crate::{Action, Context, Error, Reconcile, common::meta};

pub use claim::run as run_claims;
pub use class::run as run_classes;
pub use volume::run as run_volumes;

/// What uses the objects of a kind.
#[async_trait]
trait Users: Send + Sync + 'static {
    /// The kind.
    type Object: ResourceType;

    /// The finalizer of what is used.
    const FINALIZER: &str;

    /// Whether a deleted object is still used.
    async fn use_it(&self, object: &Self::Object, context: &Context) -> Result<bool, Error>;
}

/// Sees to the finalizer of a kind.
struct Protection<U>(U);

#[async_trait]
impl<U: Users> Reconcile for Protection<U> {
    type Object = U::Object;

    async fn reconcile(&self, object: Arc<U::Object>, context: &Context) -> Result<Action, Error> {
        let (meta, finalizer) = (object.meta(), U::FINALIZER);
        let held = meta.finalizers.iter().flatten().any(|one| one == finalizer);
        let deleting = meta::is_deleting(meta);
        if held != deleting || (held && self.0.use_it(&object, context).await?) {
            return Ok(Action::await_change());
        }
        let mut changed = U::Object::clone(&object);
        let finalizers = changed.meta_mut().finalizers.get_or_insert_default();
        if deleting {
            finalizers.retain(|one| one != finalizer);
        } else {
            finalizers.push(finalizer.to_owned());
        }
        let api = context.api_all::<U::Object>().in_namespace(meta::namespace(meta));
        match api.update(&changed).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Action::await_change()),
        }
    }
}
