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
        let (held, deleting) = state(&*object, U::FINALIZER);
        if held != deleting || (held && self.0.use_it(&object, context).await?) {
            return Ok(Action::await_change());
        }
        hold(&*object, U::FINALIZER, !deleting, context).await
    }
}

/// Whether an object has the finalizer, and whether it is being deleted.
pub(super) fn state<K: ResourceType>(object: &K, finalizer: &str) -> (bool, bool) {
    let meta = object.meta();
    (meta.finalizers.iter().flatten().any(|one| one == finalizer), meta::is_deleting(meta))
}

/// Gives an object the finalizer, or takes it off.
pub(super) async fn hold<K: ResourceType>(
    object: &K,
    finalizer: &str,
    held: bool,
    context: &Context,
) -> Result<Action, Error> {
    let mut changed = object.clone();
    let finalizers = changed.meta_mut().finalizers.get_or_insert_default();
    if held {
        finalizers.push(finalizer.to_owned());
    } else {
        finalizers.retain(|one| one != finalizer);
    }
    match context.api_all::<K>().in_namespace(meta::namespace(object.meta())).update(&changed).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(Action::await_change()),
    }
}
