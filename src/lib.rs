//! The StreamJob operator: keeps stream-processing jobs on Kubernetes as their resources say.
//!
//! One reconcile is observe (read, decide nothing), [`plan`] (pure, decides everything), act (one idempotent effect after the
//! other). The engine is known by its REST API and the shape of its pods alone.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod api;
pub mod controller;
pub mod diagnosis;
pub mod engine;
pub mod error;
pub mod health;
pub mod key;
pub mod kubernetes;
pub mod leader;
pub mod metrics;
pub mod options;
pub mod plan;
pub mod program;
pub mod resources;
pub mod settings;
