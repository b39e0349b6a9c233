//! What several controllers need: owners and adoption, pods and their conditions, writing many objects at a time.

pub(crate) mod batch;
pub(crate) mod claim;
pub(crate) mod condition;
pub(crate) mod history;
pub(crate) mod meta;
pub(crate) mod pod;
