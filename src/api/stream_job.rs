//! `StreamJob`: the engine's job file as a Kubernetes resource.

use super::StreamJobStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use streamjob_api::spec::StreamJobSpec;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamJob {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: StreamJobSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StreamJobStatus>,
}

resource!(StreamJob, StreamJobSpec, "streamjobs");
