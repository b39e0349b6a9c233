//! Benches of rk beside its peers.
