//! From a pod's spec to its containers and back to its status.
//!
//! Each pod has a [worker](worker::Worker): one task that looks at the pod and at what the runtime has of it,
//! decides ([`decide`]), lets operations run beside it ([`start`], [`stop`], volumes), and reports
//! ([`status`]). It keeps nothing that could not be found again in the API and the runtime.

pub(crate) mod backoff;
pub(crate) mod decide;
pub(crate) mod env;
pub(crate) mod fields;
pub(crate) mod prober;
pub(crate) mod sources;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod worker;
