//! What becomes of a job's state when its spec changes or it is deleted. The operator acts on it; a job file may have it too,
//! so that it is the same file.

use crate::text::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a changed job takes over from the running one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upgrade {
    /// What the new job starts from: a savepoint, the last checkpoint or nothing.
    #[serde(default)]
    pub mode: UpgradeMode,
    /// How long the savepoint may take.
    #[serde(default = "super::default::ten_minutes")]
    pub savepoint_timeout: Duration,
    /// Savepoints that are tried.
    #[serde(default = "super::default::three")]
    #[schemars(range(min = 1, max = 100))]
    pub attempts: i32,
    /// What happens when no savepoint succeeds.
    #[serde(default)]
    pub on_savepoint_failure: OnSavepointFailure,
    /// Going back to the last stable revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Drop state that no operator of the new job takes, instead of refusing to start.
    #[serde(default)]
    pub allow_non_restored_state: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpgradeMode {
    #[default]
    Savepoint,
    LastCheckpoint,
    Stateless,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnSavepointFailure {
    #[default]
    Abort,
    LastCheckpoint,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollback {
    /// Whether to go back at all.
    #[serde(default)]
    pub enabled: bool,
    /// Checkpoints without a restart after which a revision is stable.
    #[serde(default = "super::default::three")]
    #[schemars(range(min = 1, max = 1000))]
    pub stable_after_checkpoints: i32,
    /// How long a revision may take to become stable.
    #[serde(default = "super::default::ten_minutes")]
    pub deadline: Duration,
}

/// Savepoints by a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Savepoints {
    /// In cron's format.
    #[schemars(length(min = 1, max = 128))]
    pub schedule: String,
    /// How many stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<SavepointRetention>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SavepointRetention {
    /// The newest ones, however old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: Option<i32>,
    /// Younger ones, however many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<Duration>,
}

/// What happens to state when the resource is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deletion {
    /// Discard deletes it, Retain keeps it, Savepoint takes a last savepoint and keeps that.
    #[serde(default)]
    pub policy: DeletionPolicy,
    /// How long the last savepoint may take.
    #[serde(default = "super::default::ten_minutes")]
    pub deadline: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    Discard,
    #[default]
    Retain,
    Savepoint,
}

impl Default for Upgrade {
    fn default() -> Self {
        Upgrade {
            mode: UpgradeMode::default(),
            savepoint_timeout: super::default::ten_minutes(),
            attempts: super::default::three(),
            on_savepoint_failure: OnSavepointFailure::default(),
            rollback: None,
            allow_non_restored_state: false,
        }
    }
}
