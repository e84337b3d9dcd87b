//! Effects on storage: each runs beside the loop and answers with an event.

use super::{CoordinatorOptions, Input};
use crate::error::RuntimeError;
use crate::faults;
use crate::storage::{Storage, checkpoint_of, describe, referenced_files};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use streamjob_api::config::StorageConfig;
use streamjob_protocol::coordinator::{Action, AppendOutcome, Coordinator, Event, StoreError};
use streamjob_protocol::journal::JournalState;
use streamjob_protocol::manifest::CheckpointManifest;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub(super) struct Effects {
    pub storage: Storage,
    pub inbox: mpsc::Sender<Input>,
    /// Files of the checkpoint that the job started from, until its own checkpoints refer to them.
    pub imported: BTreeSet<String>,
    /// What the job's directory held before this coordinator claimed the job; emptied by the sweep.
    pub listing: Arc<Mutex<Option<Vec<String>>>>,
    /// Deletions under way: a coordinator that exits waits for them, or they would stay undone until the next start.
    pub deletions: Mutex<JoinSet<()>>,
}

impl Effects {
    fn spawn(&self, work: impl Future<Output = Event> + Send + 'static) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let event = work.await;
            let _ = inbox.send(Input::Event(event)).await;
        });
    }

    pub fn carry_out(&self, action: Action) {
        let storage = self.storage.clone();
        match action {
            Action::ReadJournal => {
                let listing = self.listing.clone();
                self.spawn(async move {
                    // Listed before the journal is read: nothing in the list can belong to a coordinator that comes later.
                    let listed: Vec<String> = match storage.list("").await {
                        Ok(listed) => listed.into_iter().map(|(path, _)| path).collect(),
                        Err(error) => return Event::JournalRead { result: Err(error), highest_directory: 0 },
                    };
                    let highest_directory = listed.iter().filter_map(|path| checkpoint_of(path)).max().unwrap_or(0);
                    let result = storage.read_journal().await;
                    if result.is_ok() {
                        listing.lock().get_or_insert(listed);
                    }
                    Event::JournalRead { result, highest_directory }
                });
            }
            Action::AppendJournal { seq, entry } => self.spawn(async move {
                let outcome = match faults::point("journal.before") {
                    Ok(()) => storage.append_journal(seq, &entry).await,
                    Err(reason) => AppendOutcome::Unknown(reason),
                };
                let _ = faults::point("journal.after");
                Event::JournalAppended { seq, outcome }
            }),
            Action::TrimJournal { before } => {
                self.deletions.lock().spawn(async move { storage.trim_journal(before).await });
            }
            Action::LoadManifest { checkpoint, expected_checksum } => self.spawn(async move {
                // The files are checked by the tasks that read them.
                let result = storage.load_manifest(checkpoint, Some(expected_checksum)).await;
                Event::ManifestLoaded { checkpoint, result: result.map(Box::new) }
            }),
            Action::WriteManifest { manifest } => self.spawn(async move {
                let checkpoint = manifest.checkpoint;
                let result = match faults::point("manifest.before") {
                    Ok(()) => storage.write_manifest(&manifest).await,
                    Err(reason) => Err(StoreError::Unavailable(reason)),
                };
                Event::ManifestWritten { checkpoint, result }
            }),
            Action::DeleteCheckpoint { checkpoint, files } => {
                let inbox = self.inbox.clone();
                let mut deletions = self.deletions.lock();
                while deletions.try_join_next().is_some() {}
                deletions.spawn(async move {
                    let result = storage.delete_checkpoint(checkpoint, &files).await;
                    let _ = inbox.send(Input::Event(Event::CheckpointDeleted { checkpoint, result })).await;
                });
            }
            // Messages to workers, reports and the exit are carried out by the loop itself.
            other => tracing::error!(?other, "an action that has no effect on storage"),
        }
    }

    /// Waits for deletions under way, for a while.
    pub async fn finish_deletions(&self, limit: Duration) {
        let mut deletions = std::mem::take(&mut *self.deletions.lock());
        let all = async { while deletions.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("files of discarded checkpoints stay until the next start sweeps them");
        }
    }

    /// At this coordinator's first restore, whatever lay there before its claim and belongs to no checkpoint can go. Never
    /// later: a coordinator that was replaced without noticing would delete its successor's files.
    pub fn on_restored(&self, machine: &Coordinator) {
        let Some(listed) = self.listing.lock().replace(Vec::new()).filter(|listed| !listed.is_empty()) else { return };
        let storage = self.storage.clone();
        let checkpoints: Vec<u64> = machine.retained_checkpoints();
        let imported = self.imported.clone();
        tokio::spawn(async move {
            if let Err(error) = sweep(&storage, listed, &checkpoints, imported).await {
                tracing::warn!(reason = describe(error), "orphaned files stay until the next start");
            }
        });
    }
}

/// Deletes listed state files that no retained checkpoint refers to, and directories of checkpoints that never completed.
async fn sweep(
    storage: &Storage,
    listed: Vec<String>,
    checkpoints: &[u64],
    mut keep: BTreeSet<String>,
) -> Result<(), StoreError> {
    for &checkpoint in checkpoints {
        // A manifest that cannot be read may still refer to files: then nothing is swept.
        let manifest = storage.load_manifest(checkpoint, None).await?;
        keep.extend(referenced_files(&manifest).map(|file| file.path.clone()));
    }
    let mut swept = 0;
    for path in listed {
        let orphan_state = path.starts_with("shared/") && !keep.contains(&path);
        let orphan_directory = checkpoint_of(&path).is_some_and(|checkpoint| !checkpoints.contains(&checkpoint));
        if orphan_state || orphan_directory {
            storage.delete(&path).await?;
            swept += 1;
        }
    }
    if swept > 0 {
        tracing::info!(files = swept, "orphaned files swept");
    }
    Ok(())
}

/// The checkpoint that the job file says to start from, if the job has none of its own: read whole, checked, and its
/// files copied, so that the job never depends on a directory that it does not own.
pub(super) async fn external_restore(
    options: &CoordinatorOptions,
    own: &Storage,
) -> Result<Option<CheckpointManifest>, RuntimeError> {
    let Some(path) = options.config.restore_from.as_ref().map(|from| &from.path) else { return Ok(None) };
    let failed = |reason: String| RuntimeError::Restore { what: path.clone(), reason };
    let journal = own.read_journal().await.map_err(|error| failed(format!("{error:?}")))?;
    if !JournalState::fold(journal.iter().map(|(_, entry)| entry)).checkpoints.is_empty() {
        // The job has checkpoints of its own, which are newer than what it once started from.
        return Ok(None);
    }
    let (foreign, checkpoint) = open_checkpoint(path, &options.config.storage).map_err(failed)?;
    let mut manifest = foreign.load_manifest(checkpoint, None).await.map_err(|error| failed(describe(error)))?;
    let handles = manifest
        .operators
        .iter_mut()
        .flat_map(|operator| operator.subtasks.values_mut())
        .flat_map(|subtask| subtask.state.keyed.iter_mut());
    for file in handles.flat_map(|handle| handle.files.iter_mut()) {
        let bytes = foreign.get_verified(file).await.map_err(|error| failed(describe(error)))?;
        let name = format!("shared/{}.arrow", uuid::Uuid::new_v4().simple());
        *file = own.put(&name, bytes).await.map_err(|error| failed(describe(error)))?;
    }
    Ok(Some(manifest))
}

/// `<dir>/<job id>/chk-<n>` or its `_metadata`, as a path or as `s3://bucket/...`.
pub fn open_checkpoint(path: &str, own: &StorageConfig) -> Result<(Storage, u64), String> {
    let advice = "name the directory chk-<n> of a checkpoint, or its _metadata file";
    let trimmed = path.trim_end_matches('/').trim_end_matches("/_metadata");
    let (job, directory) = trimmed.rsplit_once('/').ok_or(advice)?;
    let checkpoint = checkpoint_of(directory).ok_or(advice)?;
    let (base, job_id) = job.rsplit_once('/').ok_or(advice)?;
    let config = match base.strip_prefix("s3://") {
        Some(rest) => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let (endpoint, region) = match own {
                StorageConfig::S3 { endpoint, region, .. } => (endpoint.clone(), region.clone()),
                StorageConfig::Directory { .. } => (None, None),
            };
            StorageConfig::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned(), endpoint, region }
        }
        None => {
            let base = base.strip_prefix("file://").unwrap_or(base);
            if !std::path::Path::new(base).join(job_id).join(directory).join("_metadata").is_file() {
                return Err(format!("there is no {trimmed}/_metadata; {advice}"));
            }
            StorageConfig::Directory { path: if base.is_empty() { "/".to_owned() } else { base.to_owned() } }
        }
    };
    let storage = Storage::open(&config, job_id).map_err(|error| error.to_string())?;
    Ok((storage, checkpoint))
}
