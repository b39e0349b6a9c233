//! A queue of keys to work on, as client-go's workqueue.
//!
//! A key that is added while it waits is there once; one that is added while a worker has it comes back once, after
//! that worker is done. Keys may be added later ([`WorkQueue::add_after`]), after a failure with growing delays
//! ([`WorkQueue::retry`]), and with a [`Priority`]. `state` holds the rules without any waiting; the queue
//! adds tokio's clock; `rate` has the delays.

mod queue;
mod rate;
mod state;

pub use queue::{Item, Metrics, NoMetrics, WorkQueue};
pub use rate::RateLimiter;
pub use state::Priority;
