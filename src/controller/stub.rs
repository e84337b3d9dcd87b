//! Stands in for the plan until it is there.
use crate::api::Savepoint;
use crate::api::status::Operation;
use crate::plan::Plan;
use crate::plan::effect::SavepointEffect;
use crate::plan::observed::{Observed, ObservedSavepoint};
use crate::settings::Settings;
use jiff::Timestamp;
use std::time::Duration;

pub struct SavepointPlan {
    pub effects: Vec<SavepointEffect>,
    pub requeue_after: Duration,
    pub why: String,
}
pub fn plan(_: &Observed, _: &Settings, _: Timestamp) -> Plan {
    Plan { effects: Vec::new(), requeue_after: Duration::from_secs(60), why: String::new() }
}
pub fn plan_savepoint(_: &ObservedSavepoint, _: &Settings, _: Timestamp) -> SavepointPlan {
    SavepointPlan { effects: Vec::new(), requeue_after: Duration::from_secs(60), why: String::new() }
}
pub fn savepoint_trigger(_: &Savepoint) -> String {
    String::new()
}
pub fn stop_trigger(_: &Operation) -> Option<String> {
    None
}
