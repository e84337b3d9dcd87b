//! End-to-end tests: jobs run by the real binary in several processes, which die in the middle.
//!
//! Names that begin with `rNN_` show that row of docs/flink-rows.md. Results are compared with what scripts under
//! `e2e/expected` compute on their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod chaos;
mod check;
mod checkpoints;
mod cluster_roles;
mod examples;
mod expected;
mod failures;
mod faults;
mod fencing;
mod flink_cli;
mod foreign;
mod harness;
mod input;
mod minio;
mod nexmark;
mod observing;
mod rest;
mod savepoints;
mod storage;
