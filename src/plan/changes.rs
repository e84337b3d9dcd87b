//! What kind of change one spec is to another, and which specs need not be tried twice.

use crate::resources;
use serde_json::json;
use sha2::{Digest, Sha256};
use streamjob_api::spec::StreamJobSpec;

/// What needs new pods. The rest the running job takes over live, or concerns nobody but the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Restart,
    Rescale,
    Upgrade,
}

/// Nothing if the pods of the one do for the other.
pub fn change(running: &StreamJobSpec, wanted: &StreamJobSpec) -> Option<Change> {
    if running == wanted {
        return None;
    }
    let before = resources::spec_hash(running);
    if before == resources::spec_hash(wanted) {
        return None;
    }
    let alike =
        StreamJobSpec { parallelism: running.parallelism, restart_nonce: running.restart_nonce, ..wanted.clone() };
    Some(match before == resources::spec_hash(&alike) {
        false => Change::Upgrade,
        true if running.parallelism != wanted.parallelism => Change::Rescale,
        true => Change::Restart,
    })
}

/// Equal for two specs if what became of the one says what would become of the other: all that the engine is given, and
/// whether the job shall run.
pub fn attempt(spec: &StreamJobSpec) -> String {
    let rest = json!([spec.checkpoint, spec.restart_strategy, spec.state]);
    let text = format!("{}/{rest}", resources::attempt_hash(spec));
    hex::encode(&Sha256::digest(text)[..16])
}
