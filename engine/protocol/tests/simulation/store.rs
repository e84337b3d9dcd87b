//! Model of checkpoint storage: a journal of create-if-absent entries, manifests, state files, and the sinks' output.

use crate::job::{Key, KeyState, Row};
use std::collections::BTreeMap;
use std::rc::Rc;
use streamjob_protocol::ids::CheckpointId;
use streamjob_protocol::journal::{JournalEntry, JournalState};
use streamjob_protocol::manifest::{CheckpointManifest, FileRef};

pub type Rows = Rc<Vec<(Key, KeyState)>>;

#[derive(Clone)]
pub struct StoredManifest {
    pub manifest: Rc<CheckpointManifest>,
    pub checksum: u64,
    pub damaged: bool,
    /// At which the job ran.
    pub parallelism: u32,
}

pub struct StateFile {
    pub rows: Rows,
    pub damaged: bool,
}

/// Output that a sink closed at a barrier.
pub struct Transaction {
    pub rows: Vec<Row>,
    pub visible: bool,
}

#[derive(Default)]
pub struct Store {
    pub journal: BTreeMap<u64, JournalEntry>,
    pub manifests: BTreeMap<CheckpointId, StoredManifest>,
    /// By directory. Files are named relative to it.
    pub savepoints: BTreeMap<String, StoredManifest>,
    /// Those of savepoints by their absolute names.
    pub files: BTreeMap<String, StateFile>,
    /// By name, which is unique.
    pub transactions: BTreeMap<u64, Transaction>,
    next_name: u64,
}

impl Store {
    /// Never used by anybody else, as random names are.
    pub fn fresh_name(&mut self) -> u64 {
        self.next_name += 1;
        self.next_name
    }

    /// What the journal's entries add up to, read as a coordinator reads them.
    pub fn state(&self) -> JournalState {
        JournalState::fold(self.journal.values())
    }

    pub fn write_file(&mut self, rows: Vec<(Key, KeyState)>) -> FileRef {
        let name = self.fresh_name();
        let path = format!("shared/{name}");
        let bytes = rows.len() as u64;
        self.files.insert(path.clone(), StateFile { rows: Rc::new(rows), damaged: false });
        FileRef { path, bytes, checksum: name }
    }

    /// A file of a savepoint, named relative to its directory.
    pub fn write_savepoint_file(&mut self, directory: &str, rows: Rows) -> FileRef {
        let name = self.fresh_name();
        let path = name.to_string();
        let bytes = rows.len() as u64;
        self.files.insert(format!("{directory}/{path}"), StateFile { rows, damaged: false });
        FileRef { path, bytes, checksum: name }
    }

    /// Everything in a savepoint's directory.
    pub fn delete_directory(&mut self, directory: &str) {
        self.savepoints.remove(directory);
        self.files.retain(|path, _| !is_in(path, directory));
    }

    /// Manifest of a journaled snapshot, with absolute names of what lies outside of the job's storage.
    pub fn snapshot(&self, state: &JournalState, checkpoint: CheckpointId) -> Option<StoredManifest> {
        match state.locations.get(&checkpoint) {
            Some(location) => self.savepoint(&location.path),
            None => self.manifests.get(&checkpoint).cloned(),
        }
    }

    /// With absolute names.
    pub fn savepoint(&self, directory: &str) -> Option<StoredManifest> {
        let stored = self.savepoints.get(directory)?;
        let mut manifest = CheckpointManifest::clone(&stored.manifest);
        for file in files_mut(&mut manifest) {
            if !is_elsewhere(&file.path) {
                file.path = format!("{directory}/{}", file.path);
            }
        }
        Some(StoredManifest { manifest: Rc::new(manifest), ..stored.clone() })
    }

    /// The rows of a file, if it is there and whole.
    pub fn read_file(&self, path: &str) -> Option<Rows> {
        self.files.get(path).filter(|file| !file.damaged).map(|file| Rc::clone(&file.rows))
    }

    pub fn files_are_whole(&self, manifest: &CheckpointManifest) -> bool {
        files_of(manifest).all(|file| self.read_file(&file.path).is_some())
    }

    /// The checkpoint, one that the journal knows, can be restored.
    pub fn is_whole(&self, state: &JournalState, checkpoint: CheckpointId) -> bool {
        let stored = self.snapshot(state, checkpoint);
        stored.is_some_and(|stored| !stored.damaged && self.files_are_whole(&stored.manifest))
    }

    pub fn is_savepoint_whole(&self, directory: &str) -> bool {
        self.savepoint(directory).is_some_and(|stored| self.files_are_whole(&stored.manifest))
    }

    pub fn highest_directory(&self) -> CheckpointId {
        self.manifests.keys().next_back().copied().unwrap_or(0)
    }
}

pub fn files_of(manifest: &CheckpointManifest) -> impl Iterator<Item = &FileRef> {
    manifest
        .operators
        .iter()
        .flat_map(|operator| operator.subtasks.values())
        .flat_map(|subtask| &subtask.state.keyed)
        .flat_map(|handle| &handle.files)
}

pub fn files_mut(manifest: &mut CheckpointManifest) -> impl Iterator<Item = &mut FileRef> {
    manifest
        .operators
        .iter_mut()
        .flat_map(|operator| operator.subtasks.values_mut())
        .flat_map(|subtask| &mut subtask.state.keyed)
        .flat_map(|handle| &mut handle.files)
}

/// Not in the job's own storage.
pub fn is_elsewhere(path: &str) -> bool {
    path.starts_with('/')
}

pub fn is_in(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// FNV-1a of the manifest's JSON.
pub fn checksum(manifest: &CheckpointManifest) -> u64 {
    let bytes = serde_json::to_vec(manifest).expect("a manifest has a JSON form");
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
