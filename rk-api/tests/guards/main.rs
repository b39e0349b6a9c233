//! What guards a server, asked as clients do: over TLS, with certificates, tokens and headers.
#![cfg(feature = "serve")]

mod aggregation;
mod audit;
mod authentication;
mod authorizers;
mod common;
mod encryption;
mod flow;
mod impersonation;
mod nodes;
mod reinvocation;
