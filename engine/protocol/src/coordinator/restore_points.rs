//! Which checkpoint the job goes back to: the newest one that can be read. Loads manifests, remembers damaged ones.

use super::machine::{Backoff, Coordinator};
use super::{Action, Report, StoreError};
use crate::ids::{CheckpointId, Millis};
use crate::manifest::{CheckpointManifest, MANIFEST_VERSION};
use crate::retention::files_of_manifest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Clone, Default)]
pub(super) struct RestorePoints {
    /// Of journaled checkpoints, as far as they were read or written by this coordinator.
    pub manifests: BTreeMap<CheckpointId, Arc<CheckpointManifest>>,
    pub damaged: BTreeSet<CheckpointId>,
    /// Why the newest damaged one is.
    damage: String,
    /// Why the checkpoint that the job was to start from cannot be read.
    pub external_damage: Option<String>,
    loads: BTreeMap<CheckpointId, Load>,
}

#[derive(Debug, Clone)]
struct Load {
    checksum: u64,
    location: Option<String>,
    /// `None` while the answer is awaited.
    due: Option<Millis>,
    backoff: Backoff,
}

/// What to restore from.
pub(super) enum RestorePoint {
    Ready(Option<Arc<CheckpointManifest>>),
    Loading,
    /// There are checkpoints, but none can be used.
    Lost {
        reason: String,
    },
}

impl RestorePoints {
    pub fn next_timer(&self) -> Option<Millis> {
        self.loads.values().filter_map(|load| load.due).min()
    }

    /// Asks for a manifest, unless it is known, damaged or asked for already.
    pub fn load(&mut self, checkpoint: CheckpointId, checksum: u64, location: Option<String>, now: Millis) {
        if !self.manifests.contains_key(&checkpoint) && !self.damaged.contains(&checkpoint) {
            self.loads.entry(checkpoint).or_insert_with(|| Load {
                checksum,
                location,
                due: Some(now),
                backoff: Backoff::default(),
            });
        }
    }

    pub fn forget(&mut self, checkpoint: CheckpointId) {
        self.manifests.remove(&checkpoint);
        self.damaged.remove(&checkpoint);
        self.loads.remove(&checkpoint);
    }
}

impl Coordinator {
    pub(super) fn restore_point(&mut self) -> RestorePoint {
        let newest = self
            .journal
            .state
            .checkpoints
            .iter()
            .rev()
            .find(|(checkpoint, _)| !self.restore_points.damaged.contains(checkpoint))
            .copied();
        match newest {
            Some((checkpoint, checksum)) => match self.restore_points.manifests.get(&checkpoint) {
                Some(manifest) => RestorePoint::Ready(Some(Arc::clone(manifest))),
                None => {
                    self.restore_points.load(checkpoint, checksum, self.location_of(checkpoint), self.now);
                    RestorePoint::Loading
                }
            },
            None if self.journal.state.checkpoints.is_empty() => match &self.restore_points.external_damage {
                Some(reason) => RestorePoint::Lost { reason: format!("{reason}; start from another checkpoint") },
                None => RestorePoint::Ready(self.external.clone()),
            },
            None => RestorePoint::Lost {
                reason: format!(
                    "none of the job's {} checkpoints can be read (the last one tried: {}); starting without them would \
                     lose their state. Restore the storage's files, or remove the job's directory to start anew",
                    self.journal.state.checkpoints.len(),
                    self.restore_points.damage
                ),
            },
        }
    }

    /// Of a snapshot that is not in the job's own storage.
    pub(super) fn location_of(&self, checkpoint: CheckpointId) -> Option<String> {
        self.journal.state.locations.get(&checkpoint).map(|location| location.path.clone())
    }

    pub(super) fn advance_restore_points(&mut self) {
        let mut due = Vec::new();
        for (checkpoint, load) in &mut self.restore_points.loads {
            if load.due.is_some_and(|at| at <= self.now) {
                load.due = None;
                due.push(Action::LoadManifest {
                    checkpoint: *checkpoint,
                    expected_checksum: load.checksum,
                    location: load.location.clone(),
                });
            }
        }
        due.into_iter().for_each(|action| self.push(action));
    }

    pub(super) fn on_manifest_loaded(
        &mut self,
        checkpoint: CheckpointId,
        result: Result<Box<CheckpointManifest>, StoreError>,
    ) {
        let Some(load) = self.restore_points.loads.get_mut(&checkpoint).filter(|load| load.due.is_none()) else {
            return;
        };
        match result {
            Err(StoreError::Unavailable(_)) => load.due = Some(self.now + load.backoff.next()),
            Err(StoreError::Damaged(reason)) => self.mark_damaged(checkpoint, reason),
            Ok(manifest) if manifest.checkpoint != checkpoint => {
                let reason = format!("the manifest is that of checkpoint {}", manifest.checkpoint);
                self.mark_damaged(checkpoint, reason);
            }
            Ok(manifest) if manifest.version != MANIFEST_VERSION => {
                let reason = format!("manifest version {} instead of {MANIFEST_VERSION}", manifest.version);
                self.mark_damaged(checkpoint, reason);
            }
            Ok(manifest) => {
                self.restore_points.loads.remove(&checkpoint);
                if !self.journal.state.owns(checkpoint) {
                    self.ledger.protect(files_of_manifest(&manifest));
                }
                self.ledger.hold(checkpoint, files_of_manifest(&manifest));
                self.restore_points.manifests.insert(checkpoint, Arc::from(manifest));
            }
        }
    }

    /// The checkpoint cannot be restored. It goes with the next completed one; what it refers to is not known, so its
    /// files are left to a sweep, unless its manifest had been read.
    pub(super) fn mark_damaged(&mut self, checkpoint: CheckpointId, reason: String) {
        self.restore_points.loads.remove(&checkpoint);
        self.restore_points.manifests.remove(&checkpoint);
        self.ledger.hold(checkpoint, []);
        if self.restore_points.damaged.insert(checkpoint) {
            self.restore_points.damage = format!("checkpoint {checkpoint}: {reason}");
            self.report(Report::CheckpointSkipped { checkpoint, reason });
        }
    }
}
