//! The position of the source: which parts of which files this subtask reads, and how far each is read.
//!
//! A file is cut in parts of a fixed size; part k has the records that begin in it. Part k of a file belongs to subtask
//! (hash(name) + k) mod parallelism, which every subtask computes by itself. The parts of all subtasks are union list
//! state, so a restore at any parallelism finds every part with its position.

use super::listing::FoundFile;
use crate::error::ConnectorError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use streamjob_dataflow::{OperatorContext, OperatorRestore};
use streamjob_protocol::manifest::{ListStateHandle, Redistribution};
use streamjob_state::StateCut;
use xxhash_rust::xxh3::xxh3_64;

pub(super) const STATE: &str = "files";

/// The first bytes of a file, to recognise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub bytes: u64,
    pub hash: u64,
}

/// Position in one part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Part {
    pub name: String,
    pub part: u64,
    /// Byte of the next record.
    pub offset: u64,
    /// `offset` is the start of a record; otherwise the first one from there on is still to be found.
    pub aligned: bool,
    /// Lines before `offset` within the part.
    pub lines: u64,
    /// Size of the file when it was last looked at.
    pub size: u64,
    pub head: Option<Head>,
}

/// What one subtask writes.
#[derive(Serialize, Deserialize)]
struct PartsEntry {
    part_bytes: u64,
    parts: Vec<Part>,
}

/// The parts of one subtask.
#[derive(Debug)]
pub(super) struct Parts {
    pub part_bytes: u64,
    subtask: u64,
    parallelism: u64,
    parts: BTreeMap<(String, u64), Part>,
    /// The position comes from a checkpoint, with a listing of the files.
    pub restored: bool,
}

impl Parts {
    pub fn open(
        part_bytes: u64,
        context: &OperatorContext,
        restore: &OperatorRestore,
    ) -> Result<Parts, ConnectorError> {
        let mut parts = Parts {
            part_bytes,
            subtask: context.subtask.into(),
            parallelism: context.parallelism.into(),
            parts: BTreeMap::new(),
            restored: false,
        };
        let mut all: BTreeMap<(String, u64), Part> = BTreeMap::new();
        for value in restore.lists.get(STATE).into_iter().flatten() {
            let entry =
                PartsEntry::deserialize(value).map_err(|source| ConnectorError::State { state: STATE, source })?;
            // Parts keep the size they were cut with.
            parts.part_bytes = entry.part_bytes;
            parts.restored = true;
            for part in entry.parts {
                let key = (part.name.clone(), part.part);
                match all.get(&key) {
                    Some(known) if known.offset >= part.offset => {}
                    _ => drop(all.insert(key, part)),
                }
            }
        }
        let files: BTreeMap<String, u64> =
            all.values().map(|part| (part.name.clone(), part.size)).fold(BTreeMap::new(), |mut files, (name, size)| {
                let known = files.entry(name).or_insert(size);
                *known = size.max(*known);
                files
            });
        for (key, part) in all {
            if parts.owns(&key.0, key.1) {
                parts.parts.insert(key, part);
            }
        }
        // A subtask that saw a file later than the others did not have its parts of it.
        for (name, size) in files {
            parts.add(&FoundFile { name, size });
        }
        Ok(parts)
    }

    fn owns(&self, name: &str, part: u64) -> bool {
        (xxh3_64(name.as_bytes()) % self.parallelism + part % self.parallelism) % self.parallelism == self.subtask
    }

    fn end_of(&self, part: u64) -> u64 {
        part.saturating_add(1).saturating_mul(self.part_bytes)
    }

    /// The byte at which no record of the part begins any more, as far as the file goes now.
    fn limit(&self, part: &Part) -> u64 {
        self.end_of(part.part).min(part.size)
    }

    /// Adds this subtask's parts of a file, if they are new.
    pub fn add(&mut self, file: &FoundFile) {
        let count = file.size.div_ceil(self.part_bytes);
        for part in 0..count {
            let key = (file.name.clone(), part);
            if self.owns(&file.name, part) && !self.parts.contains_key(&key) {
                let offset = part * self.part_bytes;
                let fresh = Part {
                    name: file.name.clone(),
                    part,
                    offset,
                    aligned: part == 0,
                    lines: 0,
                    size: file.size,
                    head: None,
                };
                self.parts.insert(key, fresh);
            }
        }
    }

    /// A part and its `limit`.
    pub fn get_mut(&mut self, key: &(String, u64)) -> Option<(&mut Part, u64)> {
        let end = self.end_of(key.1);
        let part = self.parts.get_mut(key)?;
        let limit = end.min(part.size);
        Some((part, limit))
    }

    /// Parts with bytes that were not read, in order of name and place.
    pub fn unread(&self) -> Vec<(String, u64)> {
        self.parts.iter().filter(|(_, part)| part.offset < self.limit(part)).map(|(key, _)| key.clone()).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Part> {
        self.parts.values()
    }

    /// Takes note of the files' present sizes; parts of files that are gone are forgotten.
    ///
    /// # Errors
    /// A file is gone or smaller than it was, and was not read to its end.
    pub fn update(
        &mut self,
        files: &[FoundFile],
        path: impl Fn(&str) -> std::path::PathBuf,
    ) -> Result<(), ConnectorError> {
        let sizes: BTreeMap<&str, u64> = files.iter().map(|file| (file.name.as_str(), file.size)).collect();
        let mut gone = Vec::new();
        for (key, part) in &self.parts {
            let unread = part.offset < self.limit(part);
            match sizes.get(part.name.as_str()) {
                None if unread => {
                    return Err(ConnectorError::FileVanished {
                        path: path(&part.name),
                        offset: part.offset,
                        size: part.size,
                    });
                }
                None => gone.push(key.clone()),
                Some(&size) if size < part.size => {
                    return Err(ConnectorError::FileShrank { path: path(&part.name), size, known: part.size });
                }
                Some(_) => {}
            }
        }
        for key in gone {
            self.parts.remove(&key);
        }
        for part in self.parts.values_mut() {
            if let Some(&size) = sizes.get(part.name.as_str()) {
                part.size = size;
            }
        }
        for file in files {
            self.add(file);
        }
        Ok(())
    }

    pub fn snapshot(&self) -> Result<StateCut, ConnectorError> {
        let entry = PartsEntry { part_bytes: self.part_bytes, parts: self.parts.values().cloned().collect() };
        let entry = serde_json::to_value(entry).map_err(|source| ConnectorError::State { state: STATE, source })?;
        Ok(StateCut {
            keyed: vec![],
            lists: vec![ListStateHandle {
                name: STATE.into(),
                redistribution: Redistribution::Union,
                entries: vec![entry],
            }],
        })
    }
}
