//! A replicated rk-store: the same contract, kept by a raft group.
