//! The custom resources as Kubernetes sees them: `StreamJob` and `Savepoint`, with their status. What a job is made of is
//! the engine's business (`streamjob-api`); nothing here decides anything.

#[macro_use]
mod resource;

pub mod conditions;
pub mod crd;
mod rules;
pub mod savepoint;
pub mod status;
pub mod stream_job;
mod yaml;

pub use savepoint::{Savepoint, SavepointPhase, SavepointSpec, SavepointStatus};
pub use status::StreamJobStatus;
pub use stream_job::StreamJob;

pub const GROUP: &str = "streamjob.dev";
pub const VERSION: &str = "v1alpha1";
pub const API_VERSION: &str = "streamjob.dev/v1alpha1";
/// Keeps a resource until what lies outside Kubernetes was dealt with.
pub const FINALIZER: &str = "streamjob.dev/cleanup";
/// Who writes child objects.
pub const FIELD_MANAGER: &str = "streamjob-operator";
