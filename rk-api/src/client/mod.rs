//! The client contract: Kubernetes' API verbs, over whatever answers them.
//!
//! [`Client`] has four methods that an implementation writes; [`Api`] is the typed face that
//! programs use; [`Informer`] keeps a collection at hand.

mod api;
mod contract;
mod events;
mod informer;
mod patch;
mod projection;
#[cfg(feature = "remote")]
mod remote;

pub use api::{Api, TypedEvent, TypedList};
pub use contract::{
    Client, DeleteOptions, EventStream, List, ListOptions, Preconditions, Propagation, Request, Verb, WatchEvent,
    WatchOptions, WriteOptions,
};
pub use events::{EventRecorder, EventType, object_reference};
pub use informer::{Change, Held, Informer, Informers, Key};
pub use patch::{Patch, PatchKind};
pub use projection::Projection;
#[cfg(feature = "remote")]
pub use remote::RemoteClient;
