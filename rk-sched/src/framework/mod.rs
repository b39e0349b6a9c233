//! The scheduling framework: extension points, and what passes through them.
//!
//! A pod goes through a *scheduling cycle*: [`PreFilter`], [`Filter`] per node, then [`PreScore`],
//! [`Score`] per node, [`Reserve`], [`Permit`]; if no node passes, [`PostFilter`]. It is one
//! pod at a time and never waits. Then comes its *binding cycle*, beside the next pods' cycles:
//! the wait that `Permit` asked for, [`PreBind`], [`Bind`], [`PostBind`]. What plugins have to
//! tell each other in between is in the pod's [`CycleState`]; what they answer is a [`Status`].
//!
//! [`Filter`] and [`Score`] have a batch form, which sees many nodes at once and their state as columns
//! ([`Columns`](crate::model::Columns)); a plugin may write it for speed, else it is made of the form per node.
//!
//! A plugin implements [`Plugin`] and the traits of its extension points, and is
//! [registered](Registration) in a [`Profile`] at those points.

mod batch;
mod event;
mod extender;
mod guard;
mod plugin;
mod point;
mod profile;
mod state;
mod status;
mod waiting;

pub use batch::Candidates;
pub use event::{ClusterEvent, Hint};
pub use extender::{
    Extender, ExtenderError, ExtenderFilter, ExtenderParts, MAX_EXTENDER_SCORE, NodeVictims, VictimIds,
};
pub use guard::SLOW_PLUGIN;
pub use plugin::{
    Bind, BindContext, Filter, MAX_SCORE, MIN_SCORE, NodeScore, Permit, PermitAnswer, Plugin, PostBind, PostFilter,
    PostFilterContext, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort, Reserve, Score, normalize_to_max,
};
pub use profile::{Profile, Registration};
pub use state::CycleState;
pub use status::{Code, Diagnosis, Refusals, Status};
pub use waiting::{Waited, WaitingPods};

pub(crate) use guard::Guarded;
pub(crate) use point::Point;
pub(crate) use profile::{Enabled, Points};
