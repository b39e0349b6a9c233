//! `mini-cluster`: rk assembled into a working cluster.
fn main() {}
