//! A revision as it is stored: all that is needed to make the same children again.

use super::Revision;
use super::meta::{job_name, owned};
use super::names;
use crate::api::StreamJob;
use crate::settings::Settings;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde::{Deserialize, Serialize};
use streamjob_api::spec::StreamJobSpec;

/// What a `ControllerRevision` of a job says.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRevision {
    pub number: i64,
    pub spec: StreamJobSpec,
    pub job_id: String,
    pub max_parallelism: i32,
    /// The job id before, which the new coordinator fences.
    pub replaces: Option<String>,
    /// What it restores from when the job id has no restore point of its own.
    pub restore_path: Option<String>,
}

impl StoredRevision {
    /// What its children are made from.
    pub fn of<'a>(&'a self, job: &'a StreamJob, settings: &'a Settings) -> Revision<'a> {
        Revision {
            job,
            spec: &self.spec,
            number: self.number,
            job_id: &self.job_id,
            max_parallelism: self.max_parallelism,
            replaces: self.replaces.as_deref(),
            restore_path: self.restore_path.as_deref(),
            settings,
        }
    }
}

/// Never changes once it is written, and is read by later versions of the operator: fields are added, never renamed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    spec: StreamJobSpec,
    job_id: String,
    max_parallelism: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restore_path: Option<String>,
}

pub fn controller_revision(revision: &Revision) -> ControllerRevision {
    let data = Data {
        spec: revision.spec.clone(),
        job_id: revision.job_id.to_owned(),
        max_parallelism: revision.max_parallelism,
        replaces: revision.replaces.map(str::to_owned),
        restore_path: revision.restore_path.map(str::to_owned),
    };
    let name = names::controller_revision(job_name(revision.job), revision.number);
    ControllerRevision {
        metadata: owned(revision.job, name, None, Some(revision.number)),
        data: serde_json::to_value(data).ok().map(RawExtension),
        revision: revision.number,
    }
}

/// # Errors
/// What is wrong with it: somebody else wrote it, or a newer operator.
pub fn read_revision(stored: &ControllerRevision) -> Result<StoredRevision, String> {
    let name = stored.metadata.name.as_deref().unwrap_or_default();
    let RawExtension(data) =
        stored.data.as_ref().ok_or_else(|| format!("ControllerRevision {name} has no data; delete it"))?;
    let data: Data = serde_json::from_value(data.clone()).map_err(|error| {
        format!("ControllerRevision {name} cannot be read: {error}; was it written by a newer operator?")
    })?;
    Ok(StoredRevision {
        number: stored.revision,
        spec: data.spec,
        job_id: data.job_id,
        max_parallelism: data.max_parallelism,
        replaces: data.replaces,
        restore_path: data.restore_path,
    })
}
