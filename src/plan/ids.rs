//! Names that are the same whoever derives them: of operations, of requests to the engine, of a job's state.

use crate::api::Savepoint;
use crate::api::status::{Operation, OperationStep};
use sha2::{Digest, Sha256};

/// The name of the stop that an operation waits for, if it waits for one: the same for whoever repeats it.
#[must_use]
pub fn stop_trigger(operation: &Operation) -> Option<String> {
    (operation.step == OperationStep::Saving).then(|| trigger_of(&operation.id, operation.attempt))
}

/// The name of the request that takes a savepoint.
#[must_use]
pub fn savepoint_trigger(savepoint: &Savepoint) -> String {
    hexadecimal(savepoint.metadata.uid.as_deref().unwrap_or_default())
}

pub(super) fn trigger_of(operation: &str, attempt: i32) -> String {
    hash(&format!("{operation}/{attempt}"))
}

/// Of the job's first state, and of any that begins anew with a revision.
pub(super) fn job_id(uid: &str, lineage: Option<i64>) -> String {
    match lineage {
        None => hexadecimal(uid),
        Some(revision) => hash(&format!("{uid}/{revision}")),
    }
}

/// Unique for a job: an operation begins at one moment, and two at the same time would begin with the same status, which
/// only one of them can replace.
pub(super) fn operation_id(uid: &str, what: &str, started: &str) -> String {
    hash(&format!("{uid}/{what}/{started}"))
}

/// A uid without its dashes; anything else is hashed, so that it has the right form.
fn hexadecimal(uid: &str) -> String {
    let digits = uid.replace('-', "").to_lowercase();
    if digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) { digits } else { hash(uid) }
}

fn hash(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..16])
}
