//! The journal: the one source of truth of a job, a sequence of entries each of which is created only if absent.

use crate::ids::{CheckpointId, Millis};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum JournalEntry {
    /// A coordinator takes the job over. Only the newest claimant may append afterwards.
    Claimed {
        revision: u64,
        /// Unique to the claiming process.
        claimant: String,
        at: Millis,
    },
    /// The checkpoint exists from here on.
    Completed { checkpoint: CheckpointId, manifest_checksum: u64, at: Millis },
    /// The checkpoint will be deleted; written before its files go.
    Discarded { checkpoint: CheckpointId },
    /// Every sink confirmed what belongs to this checkpoint; saves the successor nothing but time.
    Committed { checkpoint: CheckpointId },
    /// The job reached a terminal state; a later coordinator has nothing to run.
    Ended { state: EndState, reason: Option<String>, at: Millis },
    /// Replaces all entries before it, so that listing stays cheap.
    Compacted { state: JournalState },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndState {
    Finished,
    Canceled,
    Failed,
}

/// What a sequence of entries adds up to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JournalState {
    pub revision: u64,
    pub claimant: Option<String>,
    /// Completed and not discarded, oldest first, with the manifest's checksum.
    pub checkpoints: Vec<(CheckpointId, u64)>,
    /// The highest id ever completed or used.
    pub highest_checkpoint: CheckpointId,
    pub ended: Option<(EndState, Option<String>)>,
}
