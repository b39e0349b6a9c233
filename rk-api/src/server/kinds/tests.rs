//! Wrong objects, and what is said of them.
