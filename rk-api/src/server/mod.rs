//! The API server: one registry of resources, one pipeline for every request.
//!
//! A request passes, in Kubernetes' order: authenticate ([`Authenticator`]), audit ([`AuditSink`]), flow control
//! ([`FlowControl`]), authorize ([`Authorizer`]), decode, mutating admission ([`Admit::mutate`]), default, validate,
//! validating admission ([`Admit::validate`]), store, encode.

mod address_repair;
mod admission;
#[cfg(feature = "serve")]
mod aggregation;
pub mod apply;
mod audit;
mod auth;
pub mod authn;
pub mod authz;
pub mod bootstrap;
mod builtin;
mod catalog;
mod chain;
mod control_plane;
mod convert;
mod custom;
mod embed;
#[cfg(feature = "serve")]
mod endpoints;
#[cfg(test)]
mod fixture;
mod flow;
mod follow;
mod http;
pub mod kinds;
mod late_reader;
mod limits;
pub mod openapi;
#[cfg(feature = "serve")]
mod outbound;
pub mod patch;
mod pipeline;
#[cfg(feature = "serve")]
pub mod pki;
pub mod plugins;
mod registry;
mod reinvocation;
#[cfg(feature = "serve")]
mod remembered;
mod reserve;
pub mod reviews;
mod runtime_config;
pub mod schema;
mod security;
mod storage;
mod weak_client;

pub(crate) use crate::{addresses, cel};
pub use admission::{AdmissionRequest, Admit, Notes, OldObject, Operation};
#[cfg(feature = "serve")]
pub use aggregation::Aggregation;
pub use audit::{AuditLog, AuditLogOptions, AuditPolicy, AuditPolicyError, AuditSink};
pub use auth::{Attributes, AuthenticationError, Authenticator, Authorizer, Credentials, Decision, UserInfo};
pub(crate) use follow::Follower;
pub use follow::Version;
pub use late_reader::LateReader;
pub use registry::{Changes, Column, FieldError, FieldErrors, Reader, Row, Strategy, Subresource, WriteContext};
pub use reinvocation::Reinvocation;
pub use reserve::{Reservation, Reserve, Reserved};
pub use runtime_config::{RuntimeConfig, RuntimeConfigError};
pub use security::{Security, ServiceAccountIssuer};

pub use control_plane::ControlPlane;
pub use embed::{Server, ServerBuilder};
pub use flow::FlowControl;
pub use http::{Body, ClientCertificate, HttpService};
#[cfg(feature = "serve")]
pub use http::{KubeletClient, Tls, TlsError, TlsFiles, serve, tls_config};
pub use limits::Limits;
#[cfg(feature = "serve")]
pub use outbound::{Remote, RemoteError};
pub use storage::{Encryption, EncryptionError};
