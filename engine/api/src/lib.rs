//! The job file (`kind: StreamJob`) and the configuration that it resolves to.
//!
//! [`spec`] is what people write and what the CRD will embed; [`config`] is what the engine runs on: every default
//! applied, every duration in milliseconds, every cross-field rule checked; [`live`] is what of it changes while the job
//! runs; [`rest`] is what goes over the REST API. Nothing here performs I/O except reading environment values that the
//! caller hands in.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod check;
pub mod config;
mod document;
pub mod error;
pub mod live;
pub mod reference;
pub mod rest;
pub mod schema;
pub mod spec;
pub mod substitute;
pub mod text;
pub mod validate;

pub use error::ApiError;
pub use spec::StreamJob;
pub use validate::{Platform, ignored_locally, parse, resolve, storage_of};
