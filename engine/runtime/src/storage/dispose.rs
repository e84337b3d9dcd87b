//! Deleting what a job, or a savepoint, has left. Whoever asks knows that nothing uses it any more.
//!
//! Everything can be done again after it was interrupted: manifests go first, so that what is left of a half-deleted
//! snapshot is never taken for one, and what is not there is no error.

use super::{Storage, describe, within};
use crate::error::RuntimeError;
use futures::{StreamExt, TryStreamExt};
use streamjob_api::config::StorageConfig;
use streamjob_protocol::coordinator::StoreError;
use streamjob_protocol::manifest::ManifestKind;

/// Requests at a time.
const AT_ONCE: usize = 16;
/// Directory of savepoints beside those of the job's lives.
const SAVEPOINTS: &str = "savepoints";

/// Deletes a savepoint, wherever it lies. A checkpoint is its job's own and stays.
///
/// # Errors
/// The storage does not do it, or it is no savepoint.
pub async fn savepoint(storage: &Storage, path: &str) -> Result<(), RuntimeError> {
    let location = path.trim_end_matches('/').trim_end_matches("/_metadata");
    let failed = |reason: String| RuntimeError::Storage {
        location: location.to_owned(),
        reason,
        advice: "name the directory of a savepoint, and see that this user may delete there",
    };
    let name = location.rsplit('/').next().unwrap_or_default();
    if name.starts_with("chk-") || matches!(name, "shared" | "journal") {
        return Err(failed("it is a job's own directory".into()));
    }
    match storage.manifest_kind(location).await {
        Ok(ManifestKind::Savepoint) => {}
        Ok(ManifestKind::Checkpoint) => return Err(failed("it is a checkpoint, which its job deletes itself".into())),
        // Damaged, or gone already: only what a savepoint consists of is deleted.
        Err(StoreError::Damaged(_)) => {}
        Err(error) => return Err(failed(describe(error))),
    }
    storage.delete_savepoint_files(location).await.map_err(|error| failed(describe(error)))
}

/// Deletes everything that is stored under a job's id.
///
/// # Errors
/// The storage does not do it.
pub async fn job(config: &StorageConfig, job_id: &str) -> Result<(), RuntimeError> {
    if !streamjob_api::rest::is_id(job_id) {
        return Err(RuntimeError::Start(format!("'{job_id}' is no job id: expected 32 hexadecimal digits")));
    }
    let storage = Storage::open(config, job_id)?;
    storage.delete_below("").await.map_err(|error| unavailable(&storage, error))
}

/// Deletes everything that a job has at its place: all of its lives, and savepoints that lie beside them.
///
/// # Errors
/// The storage does not do it, or the place is not the job's alone.
pub async fn all(config: &StorageConfig) -> Result<(), RuntimeError> {
    if let StorageConfig::S3 { prefix, .. } = config
        && prefix.is_empty()
    {
        return Err(RuntimeError::Start(
            "the job has no prefix of its own in the bucket: name its job id instead".into(),
        ));
    }
    let beside = Storage::open(config, SAVEPOINTS)?;
    let ids = beside.jobs_in(config).await.map_err(|error| unavailable(&beside, error))?;
    for id in ids {
        job(config, &id).await?;
    }
    beside.delete_below("").await.map_err(|error| unavailable(&beside, error))?;
    if let StorageConfig::Directory { path } = config {
        // Something else may lie in it.
        let _ = tokio::fs::remove_dir(path).await;
    }
    Ok(())
}

fn unavailable(storage: &Storage, error: StoreError) -> RuntimeError {
    let advice = "see that this user may delete there";
    RuntimeError::Storage { location: storage.location().to_owned(), reason: describe(error), advice }
}

impl Storage {
    async fn manifest_kind(&self, location: &str) -> Result<ManifestKind, StoreError> {
        let path = format!("{location}/_metadata");
        let bytes = self.get(&path).await?;
        Ok(super::read_manifest(&path, &bytes, None)?.0.kind)
    }

    /// Of a directory: the manifest, then state files, then the directory if nothing else is in it.
    async fn delete_savepoint_files(&self, location: &str) -> Result<(), StoreError> {
        self.delete(&format!("{location}/_metadata")).await?;
        let place = self.place(location)?;
        let listed = place.store.list_with_delimiter(Some(&place.path));
        let files = match within("listing", location, listed).await? {
            Ok(listed) => listed.objects,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(StoreError::Unavailable(format!("listing {location}: {error}"))),
        };
        let names = files.iter().filter_map(|file| file.location.filename());
        let names: Vec<String> = names
            .filter(|name| name.ends_with(".arrow") || name.starts_with(".probe-") || super::is_unfinished(name))
            .map(|name| format!("{location}/{name}"))
            .collect();
        self.delete_all(&names).await?;
        self.elsewhere.remove_empty(location).await;
        Ok(())
    }

    /// Everything of which the name begins so, in the job's directory.
    async fn delete_below(&self, prefix: &str) -> Result<(), StoreError> {
        let listed: Vec<String> = self.list(prefix).await?.into_iter().map(|(path, _)| path).collect();
        let (manifests, rest): (Vec<String>, Vec<String>) =
            listed.into_iter().partition(|path| path.ends_with("_metadata"));
        // A journal that is left says which job this was.
        let (journal, files): (Vec<String>, Vec<String>) =
            rest.into_iter().partition(|path| path.starts_with("journal/"));
        for paths in [manifests, files, journal] {
            self.delete_all(&paths).await?;
        }
        if let Some(directory) = &self.directory {
            // Directories, and files that were being written.
            let left = directory.join(self.root.as_ref());
            let removed = within("deleting", &self.location, tokio::fs::remove_dir_all(&left)).await?;
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(StoreError::Unavailable(format!("deleting {}: {error}", left.display())));
            }
        }
        Ok(())
    }

    async fn delete_all(&self, names: &[String]) -> Result<(), StoreError> {
        futures::stream::iter(names)
            .map(|name| self.delete(name))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await
            .map(|_| ())
    }
}
