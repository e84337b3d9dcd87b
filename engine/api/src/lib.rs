//! The job file (`kind: StreamJob`) and the configuration that it resolves to.
//!
//! [`spec`] is what people write and what the CRD will embed; [`config`] is what the engine runs on: every default
//! applied, every duration in milliseconds, every cross-field rule checked. Nothing here performs I/O except reading
//! environment values that the caller hands in.

pub mod config;
