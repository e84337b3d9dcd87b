//! What a checkpoint consists of: state handles as tasks acknowledge them, and the `_metadata` manifest made of them.

use crate::ids::{CheckpointId, Millis, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Half-open would not say it: both ends belong to the range, as in Flink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    pub first: u16,
    pub last: u16,
}

/// An immutable file in checkpoint storage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileRef {
    /// Relative to the job's directory, for example `shared/7f…c2.arrow`, or with a scheme if it lies elsewhere.
    pub path: String,
    pub bytes: u64,
    /// xxh3-64 of the whole file.
    pub checksum: u64,
}

/// One keyed state table of one subtask: a base and its deltas, to be applied in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedStateHandle {
    pub name: String,
    /// Column names and types, to be compared on restore.
    pub schema: String,
    pub key_groups: KeyGroupRange,
    pub files: Vec<FileRef>,
}

/// How list state is given out when a job is restored (Flink §2.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Redistribution {
    Split,
    Union,
    Broadcast,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListStateHandle {
    pub name: String,
    pub redistribution: Redistribution,
    pub entries: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorState {
    pub keyed: Vec<KeyedStateHandle>,
    pub lists: Vec<ListStateHandle>,
}

/// What one task acknowledges: the state of its chained operators, by uid.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskSnapshot {
    pub operators: BTreeMap<String, OperatorState>,
    /// The task had processed its last element before the barrier; after a restore it only says so downstream.
    pub finished: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubtaskStats {
    /// Checkpoint trigger to the first barrier at this task.
    pub start_delay_ms: u64,
    /// First to last barrier.
    pub alignment_ms: u64,
    pub sync_ms: u64,
    pub async_ms: u64,
    /// Written for this checkpoint.
    pub bytes_new: u64,
    /// Referenced by this checkpoint.
    pub bytes_total: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorManifest {
    pub uid: String,
    pub name: String,
    pub parallelism: u32,
    /// By subtask; `finished` subtasks keep the last state they had.
    pub subtasks: BTreeMap<u32, SubtaskManifest>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubtaskManifest {
    pub finished: bool,
    pub state: OperatorState,
}

pub const MANIFEST_VERSION: u32 = 1;

/// Who owns a snapshot's files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestKind {
    /// Paths are relative to the job's directory; files may be shared with other checkpoints.
    #[default]
    Checkpoint,
    /// Paths are relative to the directory of the manifest, which holds everything.
    Savepoint,
}

/// Content of `chk-<n>/_metadata` (JSON with a checksum line, see the runtime's storage).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointManifest {
    pub version: u32,
    #[serde(default)]
    pub kind: ManifestKind,
    pub checkpoint: CheckpointId,
    pub job_id: String,
    pub job_name: String,
    /// Unix time.
    pub triggered_at: Millis,
    pub completed_at: Millis,
    /// Which hash places keys in key groups; frozen as `xxh3-1`.
    pub key_hash: String,
    pub max_parallelism: u32,
    pub operators: Vec<OperatorManifest>,
    pub stats: Vec<TaskStats>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskStats {
    pub task: TaskId,
    pub stats: SubtaskStats,
}

/// State handed to one task at deployment: what every chained operator gets, by uid.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskRestore {
    pub checkpoint: Option<CheckpointId>,
    pub operators: BTreeMap<String, OperatorState>,
    /// All of this subtask had finished: emit end of data and nothing else.
    pub finished: bool,
    /// The job stopped with this snapshot: make visible what belongs to it, and end.
    #[serde(default)]
    pub stopped: bool,
}
