//! Effects on storage: each runs beside the loop and answers with an event.

use super::{Input, retained};
use crate::error::RuntimeError;
use crate::faults;
use crate::storage::{Storage, checkpoint_of, describe, is_unfinished, referenced_files};
use crate::task::Planner;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use streamjob_api::config::{JobConfig, RestoreSource};
use streamjob_protocol::coordinator::{Action, AppendOutcome, Coordinator, Event, ExternalRestore, StoreError};
use streamjob_protocol::journal::JournalState;
use streamjob_protocol::manifest::CheckpointManifest;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub(super) struct Effects {
    pub storage: Storage,
    pub planner: Planner,
    pub max_parallelism: u32,
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

    fn delete(&self, work: impl Future<Output = Event> + Send + 'static) {
        let inbox = self.inbox.clone();
        let mut deletions = self.deletions.lock();
        while deletions.try_join_next().is_some() {}
        deletions.spawn(async move {
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
            Action::LoadManifest { checkpoint, expected_checksum, location } => self.spawn(async move {
                // The files are checked by the tasks that read them.
                let result = match location {
                    None => storage.load_manifest(checkpoint, Some(expected_checksum)).await,
                    Some(location) => load_elsewhere(&storage, &location, expected_checksum).await,
                };
                Event::ManifestLoaded { checkpoint, result: result.map(Box::new) }
            }),
            Action::WriteManifest { manifest, savepoint } => self.spawn(async move {
                let checkpoint = manifest.checkpoint;
                let result = match (faults::point("manifest.before"), savepoint) {
                    (Ok(()), None) => storage.write_manifest(&manifest).await,
                    (Ok(()), Some(directory)) => storage.write_savepoint(&manifest, &directory).await,
                    (Err(reason), _) => Err(StoreError::Unavailable(reason)),
                };
                Event::ManifestWritten { checkpoint, result }
            }),
            Action::DeleteCheckpoint { checkpoint, files, location } => self.delete(async move {
                let result = match location {
                    None => storage.delete_checkpoint(checkpoint, &files).await,
                    Some(location) => storage.delete_snapshot(&location, &files).await,
                };
                Event::CheckpointDeleted { checkpoint, result }
            }),
            Action::DeleteSavepoint { location } => self.delete(async move {
                let result = storage.delete_directory(&location).await;
                Event::SavepointDeleted { location, result }
            }),
            Action::Plan { parallelism } => {
                let (planner, most) = (self.planner.clone(), self.max_parallelism);
                self.spawn(async move {
                    let planned = tokio::task::spawn_blocking(move || planner(parallelism, most)).await;
                    let result = planned.unwrap_or_else(|error| Err(error.to_string()));
                    Event::Planned { parallelism, result: result.map(|graph| Box::new(graph.plan)) }
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

async fn load_elsewhere(
    storage: &Storage,
    location: &str,
    expected_checksum: u64,
) -> Result<CheckpointManifest, StoreError> {
    let mut snapshot = storage.load_snapshot(location, Some(expected_checksum)).await?;
    storage.import_finished(&mut snapshot.manifest).await?;
    Ok(snapshot.manifest)
}

/// Deletes listed state files that no retained checkpoint refers to, directories of checkpoints that never completed, and
/// what was being written when its writer was killed.
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
        if orphan_state || orphan_directory || is_unfinished(&path) {
            storage.delete(&path).await?;
            swept += 1;
        }
    }
    if swept > 0 {
        tracing::info!(files = swept, "orphaned files swept");
    }
    Ok(())
}

/// The snapshot that the job file says to start from, if the job has none of its own, and what of it was copied.
pub(super) async fn external_restore(
    config: &JobConfig,
    revision: u64,
    own: &Storage,
) -> Result<(Option<ExternalRestore>, BTreeSet<String>), RuntimeError> {
    let nothing = (None, BTreeSet::new());
    let Some(from) = &config.restore_from else { return Ok(nothing) };
    let what = match &from.source {
        RestoreSource::Path(path) => path.clone(),
        RestoreSource::LatestRetained { job_name } => format!("what job {job_name} left"),
    };
    let failed = |error: StoreError| match error {
        StoreError::Damaged(reason) => RuntimeError::Restore { what: what.clone(), reason },
        StoreError::Unavailable(reason) => RuntimeError::Storage {
            location: what.clone(),
            reason,
            advice: "see that it can be reached, and try again",
        },
    };
    let journal = own.read_journal().await.map_err(failed)?;
    let journal = JournalState::fold(journal.iter().map(|(_, entry)| entry));
    let over = journal.ended.is_some() && journal.revision >= revision;
    if over || !journal.checkpoints.is_empty() {
        // The job has checkpoints of its own, which are newer than what it once started from, or needs none any more.
        return Ok(nothing);
    }
    let mut snapshot =
        own.load_snapshot(&retained::path_of(config, own, from).await.map_err(failed)?, None).await.map_err(failed)?;
    let imported = own.import_finished(&mut snapshot.manifest).await.map_err(failed)?;
    let restore = ExternalRestore {
        manifest: snapshot.manifest,
        manifest_checksum: snapshot.manifest_checksum,
        location: snapshot.location,
        claim: from.claim,
    };
    Ok((Some(restore), imported.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::tests::manifest;
    use bytes::Bytes;
    use streamjob_api::config::StorageConfig;

    #[tokio::test]
    async fn what_nothing_refers_to_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_string_lossy().into_owned();
        let storage = Storage::open(&StorageConfig::Directory { path }, "0123").unwrap();
        storage.write_manifest(&manifest(3)).await.unwrap();
        let stay = ["shared/kept.arrow", "journal/00000000000000000007", "something"];
        let orphans = [
            "shared/orphan.arrow",
            "chk-4/_metadata",
            "chk-3/_metadata.unfinished-1",
            "journal/00000000000000000008.unfinished-1",
            "probe-1",
            "probe-1.unfinished-1",
        ];
        for name in stay.iter().chain(&orphans) {
            storage.put(name, Bytes::from_static(b"x")).await.unwrap();
        }
        let list = async || -> BTreeSet<String> {
            storage.list("").await.unwrap().into_iter().map(|(path, _)| path).collect()
        };
        sweep(&storage, list().await.into_iter().collect(), &[3], BTreeSet::from([stay[0].to_owned()])).await.unwrap();
        let expected = stay.into_iter().chain(["chk-3/_metadata"]).map(str::to_owned).collect();
        assert_eq!(list().await, expected);
    }
}
