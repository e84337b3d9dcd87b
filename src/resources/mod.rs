//! Makes a job's child objects from its spec. Pure: no client, no clock, and the same input gives the same objects, byte
//! for byte. What is created when is the plan's business.

mod dispose;
mod job_file;
mod meta;
pub mod names;
mod overlay;
mod pods;
mod revisions;
mod shared;
mod spec;
mod unsupported;
mod workloads;

pub use dispose::{Disposal, files_of, job_dispose_pod, savepoint_dispose_pod, spec_of};
pub use meta::{
    COMPONENT, COORDINATOR, DISPOSE, INSTANCE, JOB, MANAGED_BY, OPERATOR, REVISION, SAVEPOINT, STATE, WORKER,
    worker_selector,
};
pub use pods::{CONTAINER, REST_PORT, WORKER_REST_PORT};
pub use revisions::{StoredRevision, controller_revision, read_revision};
pub use shared::shared_children;
pub use spec::{
    STATE_MOUNT, attempt_hash, default_max_parallelism, has_storage, savepoint_directory, spec_hash, storage_location,
    workers_needed,
};
pub use unsupported::{Unsupported, schedule, unsupported_change, unsupported_on_kubernetes};

use crate::api::StreamJob;
use crate::plan::effect::Child;
use crate::settings::Settings;
use streamjob_api::spec::StreamJobSpec;

/// One start of pods: a spec under a number that grows with each start.
#[derive(Debug, Clone, Copy)]
pub struct Revision<'a> {
    pub job: &'a StreamJob,
    pub spec: &'a StreamJobSpec,
    pub number: i64,
    /// The engine's name of the job, under which its state is stored.
    pub job_id: &'a str,
    pub max_parallelism: i32,
    /// The job id before, which the new coordinator fences.
    pub replaces: Option<&'a str>,
    /// What it restores from when the job id has no restore point of its own; stands for the spec's `restoreFrom`.
    pub restore_path: Option<&'a str>,
    pub settings: &'a Settings,
}

/// Objects of a revision, in the order in which they are created.
pub fn revision_children(revision: &Revision) -> Vec<Child> {
    vec![
        Child::ConfigMap(Box::new(workloads::config_map(revision))),
        Child::Service(Box::new(workloads::coordinator_service(revision))),
        Child::Service(Box::new(workloads::workers_service(revision))),
        Child::Deployment(Box::new(workloads::coordinator(revision))),
        Child::StatefulSet(Box::new(workloads::workers(revision))),
    ]
}

#[cfg(test)]
mod tests;
