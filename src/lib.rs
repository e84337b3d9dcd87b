//! The StreamJob operator: keeps stream-processing jobs on Kubernetes as their resources say.
//!
//! One reconcile is observe (read, decide nothing), [`plan`] (pure, decides everything), act (one idempotent effect after the
//! other). The engine is known by its REST API and the shape of its pods alone.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod api;
pub mod diagnosis;
pub mod plan;
pub mod resources;
pub mod settings;
