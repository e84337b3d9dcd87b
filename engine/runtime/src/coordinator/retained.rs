//! Finds the snapshot that a job file names only by the job that left it. Reads, and chooses nothing but the newest.

use crate::storage::{Storage, describe};
use streamjob_api::config::{JobConfig, RestoreConfig, RestoreSource, StorageConfig};
use streamjob_protocol::coordinator::StoreError;
use streamjob_protocol::journal::JournalState;

/// The directory of the snapshot that the job is to begin with.
pub(super) async fn path_of(config: &JobConfig, own: &Storage, from: &RestoreConfig) -> Result<String, StoreError> {
    match &from.source {
        RestoreSource::Path(path) => Ok(path.clone()),
        RestoreSource::LatestRetained { job_name } => latest(config, own, job_name).await,
    }
}

/// Of all lives that the other job had, the snapshot that was completed last.
async fn latest(config: &JobConfig, own: &Storage, other: &str) -> Result<String, StoreError> {
    let sibling = sibling(&config.storage, &config.name, other).ok_or_else(|| {
        StoreError::Damaged(format!(
            "spec.restoreFrom.latestRetained: where job {other} keeps its state cannot be told from where this one does ({}); \
             use path",
            own.location()
        ))
    })?;
    let unavailable = |error: crate::RuntimeError| StoreError::Unavailable(error.to_string());
    let mut newest: Option<(u64, String)> = None;
    for job_id in own.jobs_in(&sibling).await? {
        let storage = Storage::open(&sibling, &job_id).map_err(unavailable)?;
        if storage.path_of("") == own.path_of("") {
            continue;
        }
        let entries = match storage.read_journal().await {
            Ok(entries) => entries,
            // One life's being unreadable says nothing about the others.
            Err(StoreError::Damaged(reason)) => {
                tracing::warn!(job = other, job_id, reason, "a journal cannot be read and is left out");
                continue;
            }
            Err(error) => return Err(error),
        };
        let journal = JournalState::fold(entries.iter().map(|(_, entry)| entry));
        for (checkpoint, checksum) in journal.checkpoints.iter().rev() {
            let path = match journal.locations.get(checkpoint) {
                Some(location) => location.path.clone(),
                None => storage.path_of(&format!("chk-{checkpoint}")),
            };
            match storage.load_snapshot(&path, Some(*checksum)).await {
                Ok(snapshot) => {
                    let at = snapshot.manifest.completed_at;
                    if newest.as_ref().is_none_or(|(newest, _)| at > *newest) {
                        newest = Some((at, path));
                    }
                    break;
                }
                Err(StoreError::Damaged(reason)) => {
                    tracing::warn!(job = other, path, reason, "a checkpoint cannot be read and is left out");
                }
                Err(error) => return Err(StoreError::Unavailable(describe(error))),
            }
        }
    }
    newest.map(|(_, path)| path).ok_or_else(|| {
        StoreError::Damaged(format!(
            "spec.restoreFrom.latestRetained: job {other} left no checkpoint that can be read; did it set \
             spec.checkpoint.retention, and is it in the same namespace and storage?"
        ))
    })
}

/// Where the other job keeps its state: beside this one's, under a name that differs in the job's name only.
fn sibling(storage: &StorageConfig, own: &str, other: &str) -> Option<StorageConfig> {
    let renamed = |path: &str| -> Option<String> {
        let (parent, last) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
        let namespace = last.strip_suffix(own).filter(|rest| rest.is_empty() || rest.ends_with('.'))?;
        let slash = if path.contains('/') { "/" } else { "" };
        Some(format!("{parent}{slash}{namespace}{other}"))
    };
    Some(match storage {
        StorageConfig::Directory { path } => StorageConfig::Directory { path: renamed(path)? },
        StorageConfig::S3 { bucket, prefix, endpoint, region } => StorageConfig::S3 {
            bucket: bucket.clone(),
            prefix: renamed(prefix)?,
            endpoint: endpoint.clone(),
            region: region.clone(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_another_job_of_the_namespace_keeps_its_state() {
        let directory = |path: &str| StorageConfig::Directory { path: path.into() };
        let table = [
            ("/streamjob/state/ns.visits", Some("/streamjob/state/ns.other")),
            ("/streamjob/state/ns.visits/", Some("/streamjob/state/ns.other")),
            ("state/visits", Some("state/other")),
            ("ns.visits", Some("ns.other")),
            ("/state/ns.revisits", None),
            ("/state/somewhere", None),
        ];
        for (path, expected) in table {
            assert_eq!(sibling(&directory(path), "visits", "other"), expected.map(directory), "{path}");
        }
        let s3 = |prefix: &str| StorageConfig::S3 {
            bucket: "b".into(),
            prefix: prefix.into(),
            endpoint: None,
            region: None,
        };
        assert_eq!(sibling(&s3("jobs/ns.visits"), "visits", "other"), Some(s3("jobs/ns.other")));
        assert_eq!(sibling(&s3("ns.visits"), "visits", "other"), Some(s3("ns.other")));
        assert_eq!(sibling(&s3(""), "visits", "other"), None);
    }
}
