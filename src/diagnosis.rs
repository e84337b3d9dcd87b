//! Why pods do not start: the first cause over all pods of a revision and the events about them. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};

/// Why a revision's pods do not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// One of [`REASONS`].
    pub reason: &'static str,
    /// One line.
    pub message: String,
    /// Waiting does not help: the spec has to change.
    pub terminal: bool,
}

/// Every reason with what it means and what to do.
pub const REASONS: &[(&str, &str)] = &[];

pub fn diagnose(_pods: &[Pod], _events: &[Event], _now: Timestamp) -> Option<Diagnosis> {
    None
}
