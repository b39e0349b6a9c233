//! The crates assembled: the miniature cluster and small programs to start from.
