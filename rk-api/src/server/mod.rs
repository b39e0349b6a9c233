//! The API server: one registry of resources, one pipeline for every request.
//!
//! A request passes, in Kubernetes' order: authenticate ([`Authenticator`]), authorize
//! ([`Authorizer`]), decode, mutating admission ([`Admit::mutate`]), default, validate, validating
//! admission ([`Admit::validate`]), store, encode.

mod admission;
mod auth;
mod builtin;
mod catalog;
mod convert;
mod embed;
mod pipeline;
pub mod kinds;
mod registry;
pub mod schema;
mod storage;

pub use admission::{AdmissionRequest, Admit, Operation};
pub use auth::{Attributes, AuthenticationError, Authenticator, Authorizer, Credentials, Decision, UserInfo};
pub use registry::{Column, FieldError, FieldErrors, Reader, Row, Strategy, Subresource, WriteContext};

pub use embed::{Server, ServerBuilder};
