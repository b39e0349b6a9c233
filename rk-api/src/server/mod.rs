//! The API server: one registry of resources, one pipeline for every request.
//!
//! A request passes, in Kubernetes' order: authenticate ([`Authenticator`]), authorize
//! ([`Authorizer`]), decode, mutating admission ([`Admit::mutate`]), default, validate, validating
//! admission ([`Admit::validate`]), store, encode.

mod admission;
pub mod apply;
mod auth;
pub mod authn;
pub mod authz;
pub mod bootstrap;
mod builtin;
mod catalog;
mod control_plane;
mod convert;
mod custom;
mod embed;
#[cfg(test)]
mod fixture;
mod http;
pub mod kinds;
mod late_reader;
pub mod openapi;
pub mod patch;
mod pipeline;
#[cfg(feature = "serve")]
pub mod pki;
pub mod plugins;
mod registry;
pub mod reviews;
pub mod schema;
mod security;
mod storage;

pub use admission::{AdmissionRequest, Admit, Operation};
pub use auth::{Attributes, AuthenticationError, Authenticator, Authorizer, Credentials, Decision, UserInfo};
pub use late_reader::LateReader;
pub use registry::{Column, FieldError, FieldErrors, Reader, Row, Strategy, Subresource, WriteContext};
pub use security::{Security, ServiceAccountIssuer};

pub use control_plane::ControlPlane;
pub use embed::{Server, ServerBuilder};
pub use http::{Body, ClientCertificate, HttpService};
#[cfg(feature = "serve")]
pub use http::{KubeletClient, Tls, TlsError, serve, tls_config};
