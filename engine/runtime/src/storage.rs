//! Checkpoint storage of one job: immutable files, the manifest, the journal, on a directory or on S3; and snapshots that lie
//! elsewhere.
//!
//! A name is relative to the job's directory, or absolute (a path or `s3://bucket/key`) for what lies elsewhere: savepoints,
//! and what a job was started from.
//!
//! Every read checks what it read; every write that must have one winner is a conditional create. Retries are bounded.
//! What to write or delete is decided elsewhere.

pub mod dispose;
mod files;
mod parts;
mod places;

use crate::error::RuntimeError;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use places::{Place, Places};
use std::future::Future;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use streamjob_api::config::StorageConfig;
use streamjob_protocol::coordinator::{AppendOutcome, StoreError};
use streamjob_protocol::journal::JournalEntry;
use streamjob_protocol::manifest::{CheckpointManifest, FileRef, MANIFEST_VERSION, ManifestKind};
use streamjob_protocol::retention::is_elsewhere;
use xxhash_rust::xxh3::xxh3_64;

const JOURNAL_MAGIC: &str = "streamjob-journal-1";
const MANIFEST_MAGIC: &str = "streamjob-checkpoint-1";
/// Begin of names, in the job's directory.
const PROBE: &str = "probe-";
/// Entries of the journal that are read at a time.
const ENTRIES_AT_ONCE: usize = 16;
/// Bytes a second that a disk or an object store takes at least.
const SLOWEST_STORE: u64 = 10_000_000;
/// Of one request, retries of the client library included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    /// `<prefix>/<job id>`.
    root: Path,
    /// Root of the store if it is a file system: files are written by ourselves, for the store leaves fsync to us.
    directory: Option<PathBuf>,
    location: String,
    /// What `root` is below: a directory or `s3://bucket`.
    base: String,
    elsewhere: Places,
}

/// A snapshot as it was found.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// With all files named absolutely.
    pub manifest: CheckpointManifest,
    pub manifest_checksum: u64,
    /// Directory of the manifest.
    pub location: String,
}

/// A file that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    bytes: u64,
    /// xxh3-64 of all of it.
    checksum: u64,
}

/// Outcome of a conditional create.
#[derive(Debug, PartialEq, Eq)]
enum Created {
    Written,
    Exists,
    Unknown(String),
}

impl Storage {
    /// Opens the storage of a job; no request is made yet.
    pub fn open(config: &StorageConfig, job_id: &str) -> Result<Storage, RuntimeError> {
        match config {
            StorageConfig::Directory { path } => {
                let location = format!("directory {path}");
                std::fs::create_dir_all(path).map_err(|error| RuntimeError::Storage {
                    location: location.clone(),
                    reason: error.to_string(),
                    advice: "name a directory that this user may create and write",
                })?;
                let canonical = std::fs::canonicalize(path).map_err(|error| RuntimeError::Storage {
                    location: location.clone(),
                    reason: error.to_string(),
                    advice: "name a directory that this user may create and write",
                })?;
                let store = object_store::local::LocalFileSystem::new_with_prefix(&canonical)
                    .map_err(|error| RuntimeError::Storage {
                        location: location.clone(),
                        reason: error.to_string(),
                        advice: "name a directory that this user may create and write",
                    })?
                    .with_automatic_cleanup(true);
                Ok(Storage {
                    store: Arc::new(store),
                    root: Path::from(job_id),
                    base: canonical.to_string_lossy().into_owned(),
                    directory: Some(canonical),
                    location,
                    elsewhere: Places::new(None, None),
                })
            }
            StorageConfig::S3 { bucket, prefix, endpoint, region } => {
                let location = format!("s3://{bucket}/{prefix}");
                let elsewhere = Places::new(endpoint.clone(), region.clone());
                let store = elsewhere.bucket(bucket).map_err(|reason| RuntimeError::Storage {
                    location: location.clone(),
                    reason,
                    advice: "check bucket, endpoint and the AWS_* credentials in the environment",
                })?;
                let root = if prefix.is_empty() {
                    Path::from(job_id)
                } else {
                    Path::from(format!("{}/{job_id}", prefix.trim_matches('/')))
                };
                let base = format!("s3://{bucket}");
                Ok(Storage { store, root, directory: None, location, base, elsewhere })
            }
        }
    }

    /// Absolute name of something in the job's directory.
    pub fn path_of(&self, relative: &str) -> String {
        format!("{}/{}", self.base, places::join(&self.root, relative))
    }

    /// Where this is, for messages.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Proves that the storage can be written and that a conditional create has one winner; a store that silently
    /// overwrites would let two coordinators both believe themselves the only one.
    pub async fn probe(&self, unique: &str) -> Result<(), RuntimeError> {
        let path = format!("{PROBE}{unique}");
        let fail = |reason: String, advice: &'static str| RuntimeError::Storage {
            location: self.location.clone(),
            reason,
            advice,
        };
        let writable = "make it writable for this user, or fix endpoint, bucket and credentials";
        match self.create(&path, Bytes::from_static(b"first")).await {
            Created::Written => {}
            Created::Exists => return Err(fail(format!("{path} exists already"), "remove it")),
            Created::Unknown(reason) => return Err(fail(reason, writable)),
        }
        let second = self.create(&path, Bytes::from_static(b"second")).await;
        self.delete(&path).await.map_err(|error| fail(describe(error), writable))?;
        match second {
            Created::Exists => Ok(()),
            Created::Written => Err(fail(
                "it overwrites an existing object although the request was conditional (If-None-Match)".into(),
                "use a store with conditional writes: without them two coordinators could both complete checkpoints",
            )),
            Created::Unknown(reason) => Err(fail(reason, writable)),
        }
    }

    /// Where a name leads.
    fn place(&self, name: &str) -> Result<Place, StoreError> {
        if is_elsewhere(name) {
            return self.elsewhere.find(name).map_err(|reason| StoreError::Unavailable(format!("{name}: {reason}")));
        }
        Ok(Place { store: self.store.clone(), path: places::join(&self.root, name), directory: self.directory.clone() })
    }

    /// Writes an immutable file under a name that nobody else uses, with what `fill` gives piece by piece, about `expected`
    /// bytes. There is no file after an error.
    pub async fn write(
        &self,
        relative: &str,
        expected: u64,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), String> + Send + 'static,
    ) -> Result<FileRef, StoreError> {
        let place = self.place(relative)?;
        let writing = async {
            match place.file() {
                Some(path) => tokio::task::spawn_blocking(move || files::write_new(&path, fill))
                    .await
                    .unwrap_or_else(|error| Err(error.to_string())),
                None => parts::write_new(place.store.as_ref(), &place.path, fill).await,
            }
        };
        let limit = REQUEST_TIMEOUT * 2 + Duration::from_secs(expected / SLOWEST_STORE);
        let written = within_time(limit, "writing", relative, writing).await?;
        let Written { bytes, checksum } =
            written.map_err(|reason| StoreError::Unavailable(format!("writing {relative}: {reason}")))?;
        Ok(FileRef { path: relative.to_owned(), bytes, checksum })
    }

    /// Like [`Storage::write`], with what is at hand.
    pub async fn put(&self, relative: &str, bytes: Bytes) -> Result<FileRef, StoreError> {
        let length = bytes.len() as u64;
        self.write(relative, length, move |out| out.write_all(&bytes).map_err(|error| error.to_string())).await
    }

    async fn create(&self, relative: &str, bytes: Bytes) -> Created {
        let place = match self.place(relative) {
            Ok(place) => place,
            Err(error) => return Created::Unknown(describe(error)),
        };
        let creating = async {
            let Some(path) = place.file() else {
                let options = PutOptions { mode: PutMode::Create, ..Default::default() };
                let put = place.store.put_opts(&place.path, PutPayload::from_bytes(bytes.clone()), options).await;
                return match put {
                    Ok(_) => Created::Written,
                    Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                        Created::Exists
                    }
                    Err(error) => Created::Unknown(error.to_string()),
                };
            };
            let content = bytes.clone();
            match tokio::task::spawn_blocking(move || files::create_whole(&path, &content)).await {
                Ok(Ok(())) => Created::Written,
                Ok(Err(error)) if error.kind() == ErrorKind::AlreadyExists => Created::Exists,
                Ok(Err(error)) => Created::Unknown(error.to_string()),
                Err(error) => Created::Unknown(error.to_string()),
            }
        };
        match within("creating", relative, creating).await {
            // A request is repeated when its answer got lost: the object may be our own.
            Ok(Created::Exists) => match self.get(relative).await {
                Ok(existing) if existing == bytes => Created::Written,
                Ok(_) => Created::Exists,
                Err(error) => Created::Unknown(describe(error)),
            },
            Ok(Created::Unknown(reason)) => Created::Unknown(format!("creating {relative}: {reason}")),
            Ok(Created::Written) => Created::Written,
            Err(error) => Created::Unknown(describe(error)),
        }
    }

    pub async fn get(&self, relative: &str) -> Result<Bytes, StoreError> {
        let place = self.place(relative)?;
        let read = async {
            match place.store.get(&place.path).await {
                Ok(result) => result.bytes().await,
                Err(error) => Err(error),
            }
        };
        match within("reading", relative, read).await? {
            Ok(bytes) => Ok(bytes),
            Err(object_store::Error::NotFound { .. }) => Err(StoreError::Damaged(format!("{relative} is missing"))),
            Err(error) => Err(StoreError::Unavailable(format!("reading {relative}: {error}"))),
        }
    }

    /// Reads a state file and checks its size and checksum.
    pub async fn get_verified(&self, file: &FileRef) -> Result<Bytes, StoreError> {
        let bytes = match file.bytes <= parts::PART as u64 {
            true => self.get(&file.path).await?,
            false => {
                self.check_size(&file.path, file.bytes).await?;
                let place = self.place(&file.path)?;
                parts::read(place.store.as_ref(), &place.path, file.bytes).await?
            }
        };
        if bytes.len() as u64 != file.bytes {
            return Err(StoreError::Damaged(format!(
                "{} has {} bytes instead of {}",
                file.path,
                bytes.len(),
                file.bytes
            )));
        }
        let checksum = xxh3_64(&bytes);
        if checksum != file.checksum {
            return Err(StoreError::Damaged(format!(
                "{} has checksum {checksum:016x} instead of {:016x}",
                file.path, file.checksum
            )));
        }
        Ok(bytes)
    }

    /// Paths relative to the job's directory with their sizes.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let path = places::join(&self.root, prefix);
        let listed = self.store.list(Some(&path)).try_collect::<Vec<_>>();
        let listed = within("listing", prefix, listed)
            .await?
            .map_err(|error| StoreError::Unavailable(format!("listing {prefix}: {error}")))?;
        let root = format!("{}/", self.root);
        Ok(listed
            .into_iter()
            .filter_map(|meta| meta.location.as_ref().strip_prefix(&root).map(|path| (path.to_owned(), meta.size)))
            .collect())
    }

    /// Ids of the jobs that have something in another place of the same store.
    pub async fn jobs_in(&self, other: &StorageConfig) -> Result<Vec<String>, StoreError> {
        let name = match other {
            StorageConfig::Directory { path } => std::path::absolute(path)
                .map_err(|error| StoreError::Unavailable(format!("{path}: {error}")))?
                .to_string_lossy()
                .into_owned(),
            StorageConfig::S3 { bucket, prefix, .. } => format!("s3://{bucket}/{prefix}"),
        };
        let place = self.place(&name)?;
        let listed = within("listing", &name, place.store.list_with_delimiter(Some(&place.path))).await?;
        let below = match listed {
            Ok(listed) => listed.common_prefixes,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(StoreError::Unavailable(format!("listing {name}: {error}"))),
        };
        let ids = below.iter().filter_map(|path| path.filename()).filter(|name| streamjob_api::rest::is_id(name));
        Ok(ids.map(str::to_owned).collect())
    }

    /// Deleting what is not there is no error.
    pub async fn delete(&self, relative: &str) -> Result<(), StoreError> {
        let place = self.place(relative)?;
        match within("deleting", relative, place.store.delete(&place.path)).await? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StoreError::Unavailable(format!("deleting {relative}: {error}"))),
        }
    }

    /// The journal from its newest compaction on, in order.
    pub async fn read_journal(&self) -> Result<Vec<(u64, JournalEntry)>, StoreError> {
        let mut sequence: Vec<u64> =
            self.list("journal").await?.iter().filter_map(|(path, _)| path.rsplit('/').next()?.parse().ok()).collect();
        sequence.sort_unstable();
        let mut entries = Vec::new();
        // Newest first, several at a time: a coordinator that takes over waits for all of them.
        let read = async |seq: u64| self.get(&journal_path(seq)).await.map(|bytes| (seq, bytes));
        let found = futures::stream::iter(sequence.into_iter().rev()).map(read).buffered(ENTRIES_AT_ONCE);
        let mut found = std::pin::pin!(found);
        while let Some((seq, bytes)) = found.try_next().await? {
            let entry: JournalEntry = decode_sealed(JOURNAL_MAGIC, &bytes)
                .map_err(|reason| StoreError::Damaged(format!("journal entry {seq}: {reason}")))?;
            let compacted = matches!(entry, JournalEntry::Compacted { .. });
            entries.push((seq, entry));
            if compacted {
                break;
            }
        }
        entries.reverse();
        Ok(entries)
    }

    pub async fn append_journal(&self, seq: u64, entry: &JournalEntry) -> AppendOutcome {
        let bytes = match encode_sealed(JOURNAL_MAGIC, entry) {
            Ok((bytes, _)) => bytes,
            Err(reason) => return AppendOutcome::Unknown(reason),
        };
        match self.create(&journal_path(seq), bytes).await {
            Created::Written => match self.newest_journal_entry().await {
                // Old numbers become free when the journal is trimmed: who is that late has been replaced.
                Ok(newest) if newest > seq => AppendOutcome::Exists,
                Ok(_) => AppendOutcome::Written,
                Err(error) => AppendOutcome::Unknown(describe(error)),
            },
            Created::Exists => AppendOutcome::Exists,
            Created::Unknown(reason) => AppendOutcome::Unknown(reason),
        }
    }

    async fn newest_journal_entry(&self) -> Result<u64, StoreError> {
        let listed = self.list("journal").await?;
        Ok(listed.iter().filter_map(|(path, _)| path.rsplit('/').next()?.parse().ok()).max().unwrap_or(0))
    }

    /// Removes entries that a compaction replaced. What stays behind after a failure is read over.
    pub async fn trim_journal(&self, seq: u64) {
        if let Ok(listed) = self.list("journal").await {
            for (path, _) in listed {
                let older = path.rsplit('/').next().and_then(|name| name.parse::<u64>().ok()).is_some_and(|n| n < seq);
                if older && let Err(error) = self.delete(&path).await {
                    tracing::warn!(path, error = describe(error), "old journal entry not deleted");
                }
            }
        }
    }

    /// Writes `chk-<n>/_metadata` and returns its checksum.
    pub async fn write_manifest(&self, manifest: &CheckpointManifest) -> Result<u64, StoreError> {
        let (bytes, checksum) = encode_sealed(MANIFEST_MAGIC, manifest).map_err(StoreError::Unavailable)?;
        match self.create(&manifest_path(manifest.checkpoint), bytes).await {
            Created::Written => Ok(checksum),
            Created::Exists => Err(StoreError::Damaged(format!(
                "{} was written by another coordinator",
                manifest_path(manifest.checkpoint)
            ))),
            Created::Unknown(reason) => Err(StoreError::Unavailable(reason)),
        }
    }

    /// Completes a savepoint: what its manifest refers to elsewhere (state of parts of the job that had ended before) is
    /// copied beside it, then the manifest is written. Returns its checksum.
    pub async fn write_savepoint(&self, manifest: &CheckpointManifest, directory: &str) -> Result<u64, StoreError> {
        let mut manifest = manifest.clone();
        for file in files_mut(&mut manifest).filter(|file| file.path.contains('/')) {
            let bytes = self.get_verified(file).await?;
            let name = new_file_name();
            let copy = self.put(&format!("{directory}/{name}"), bytes).await?;
            *file = FileRef { path: name, ..copy };
        }
        let (bytes, checksum) = encode_sealed(MANIFEST_MAGIC, &manifest).map_err(StoreError::Unavailable)?;
        let path = format!("{directory}/_metadata");
        match self.create(&path, bytes).await {
            Created::Written => Ok(checksum),
            Created::Exists => Err(StoreError::Damaged(format!("{path} was written by somebody else"))),
            Created::Unknown(reason) => Err(StoreError::Unavailable(reason)),
        }
    }

    /// A savepoint, or a checkpoint of any job: its directory or its `_metadata`. Sizes of its files are checked here, their
    /// content by whoever reads them.
    pub async fn load_snapshot(&self, path: &str, expected: Option<u64>) -> Result<Snapshot, StoreError> {
        let location = path.trim_end_matches('/').trim_end_matches("/_metadata").to_owned();
        let advice = "name the directory of a savepoint or of a checkpoint (chk-<n>), or its _metadata file";
        if !is_elsewhere(&location) {
            return Err(StoreError::Damaged(format!("'{path}' is no absolute path or s3:// address; {advice}")));
        }
        let metadata = format!("{location}/_metadata");
        let bytes = match self.get(&metadata).await {
            Ok(bytes) => bytes,
            Err(StoreError::Damaged(reason)) => return Err(StoreError::Damaged(format!("{reason}; {advice}"))),
            Err(error) => return Err(error),
        };
        let (mut manifest, manifest_checksum) = read_manifest(&metadata, &bytes, expected)?;
        let base = match manifest.kind {
            ManifestKind::Savepoint => location.as_str(),
            ManifestKind::Checkpoint => location.rsplit_once('/').map_or("", |(job, _)| job),
        };
        let mut sizes: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
        for file in files_mut(&mut manifest) {
            if !is_elsewhere(&file.path) {
                file.path = format!("{base}/{}", file.path);
            }
            sizes.insert(file.path.clone(), file.bytes);
        }
        for (path, bytes) in sizes {
            self.check_size(&path, bytes).await?;
        }
        Ok(Snapshot { manifest, manifest_checksum, location })
    }

    async fn check_size(&self, name: &str, bytes: u64) -> Result<(), StoreError> {
        let place = self.place(name)?;
        match within("looking at", name, place.store.head(&place.path)).await? {
            Ok(meta) if meta.size == bytes => Ok(()),
            Ok(meta) => Err(StoreError::Damaged(format!("{name} has {} bytes instead of {bytes}", meta.size))),
            Err(object_store::Error::NotFound { .. }) => Err(StoreError::Damaged(format!("{name} is missing"))),
            Err(error) => Err(StoreError::Unavailable(format!("looking at {name}: {error}"))),
        }
    }

    /// State of parts of the job that had ended is carried on by every later checkpoint and never read again, so it is
    /// copied to the job's own files: nothing of the job may depend on a snapshot that it does not own.
    pub async fn import_finished(&self, manifest: &mut CheckpointManifest) -> Result<Vec<String>, StoreError> {
        let mut imported = Vec::new();
        let subtasks = manifest.operators.iter_mut().flat_map(|operator| operator.subtasks.values_mut());
        let finished = subtasks.filter(|subtask| subtask.finished);
        for file in finished.flat_map(|subtask| &mut subtask.state.keyed).flat_map(|handle| &mut handle.files) {
            let bytes = self.get_verified(file).await?;
            *file = self.put(&format!("shared/{}", new_file_name()), bytes).await?;
            imported.push(file.path.clone());
        }
        Ok(imported)
    }

    /// Loads a manifest and checks it. The files it refers to are checked by whoever reads them.
    pub async fn load_manifest(
        &self,
        checkpoint: u64,
        expected: Option<u64>,
    ) -> Result<CheckpointManifest, StoreError> {
        let path = manifest_path(checkpoint);
        let bytes = self.get(&path).await?;
        Ok(read_manifest(&path, &bytes, expected)?.0)
    }

    /// Manifest first, so that no manifest ever refers to what is gone.
    pub async fn delete_checkpoint(&self, checkpoint: u64, files: &[String]) -> Result<(), StoreError> {
        self.delete(&manifest_path(checkpoint)).await?;
        for file in files {
            self.delete(file).await?;
        }
        for (path, _) in self.list(&format!("chk-{checkpoint}")).await? {
            self.delete(&path).await?;
        }
        Ok(())
    }

    /// As [`Self::delete_checkpoint`], of a snapshot that lies elsewhere.
    pub async fn delete_snapshot(&self, location: &str, files: &[String]) -> Result<(), StoreError> {
        self.delete(&format!("{location}/_metadata")).await?;
        for file in files {
            self.delete(file).await?;
        }
        self.elsewhere.remove_empty(location).await;
        Ok(())
    }

    /// Everything in the directory of a savepoint, the manifest first. What is not there is no error.
    pub async fn delete_directory(&self, location: &str) -> Result<(), StoreError> {
        self.delete(&format!("{location}/_metadata")).await?;
        let place = self.place(location)?;
        let listed = place.store.list(Some(&place.path)).try_collect::<Vec<_>>();
        let listed = match within("listing", location, listed).await? {
            Ok(listed) => listed,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(StoreError::Unavailable(format!("listing {location}: {error}"))),
        };
        for meta in listed {
            match within("deleting", location, place.store.delete(&meta.location)).await? {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(StoreError::Unavailable(format!("deleting {}: {error}", meta.location))),
            }
        }
        self.elsewhere.remove_empty(location).await;
        Ok(())
    }
}

fn read_manifest(path: &str, bytes: &Bytes, expected: Option<u64>) -> Result<(CheckpointManifest, u64), StoreError> {
    let manifest: CheckpointManifest =
        decode_sealed(MANIFEST_MAGIC, bytes).map_err(|reason| StoreError::Damaged(format!("{path}: {reason}")))?;
    let found = sealed_checksum(bytes).unwrap_or(0);
    if let Some(expected) = expected
        && expected != found
    {
        return Err(StoreError::Damaged(format!("{path} has checksum {found:016x}, the journal says {expected:016x}")));
    }
    if manifest.version != MANIFEST_VERSION {
        return Err(StoreError::Damaged(format!(
            "{path} has format version {}, this engine reads {MANIFEST_VERSION}",
            manifest.version
        )));
    }
    Ok((manifest, found))
}

fn files_mut(manifest: &mut CheckpointManifest) -> impl Iterator<Item = &mut FileRef> {
    let subtasks = manifest.operators.iter_mut().flat_map(|operator| operator.subtasks.values_mut());
    subtasks.flat_map(|subtask| subtask.state.keyed.iter_mut()).flat_map(|handle| handle.files.iter_mut())
}

/// Of a state file; nobody else uses it.
pub fn new_file_name() -> String {
    format!("{}.arrow", uuid::Uuid::new_v4().simple())
}

/// Every state file a manifest refers to.
pub fn referenced_files(manifest: &CheckpointManifest) -> impl Iterator<Item = &FileRef> {
    manifest
        .operators
        .iter()
        .flat_map(|operator| operator.subtasks.values())
        .flat_map(|subtask| subtask.state.keyed.iter())
        .flat_map(|handle| handle.files.iter())
}

pub fn manifest_path(checkpoint: u64) -> String {
    format!("chk-{checkpoint}/_metadata")
}

/// The checkpoint whose directory a path lies in.
pub fn checkpoint_of(path: &str) -> Option<u64> {
    path.split('/').next()?.strip_prefix("chk-")?.parse().ok()
}

/// What a killed process leaves of a write that was to have one winner.
pub fn is_unfinished(path: &str) -> bool {
    path.contains(files::UNFINISHED) || path.starts_with(PROBE)
}

fn journal_path(seq: u64) -> String {
    format!("journal/{seq:020}")
}

/// What happened, without whether repeating would help.
pub fn describe(error: StoreError) -> String {
    match error {
        StoreError::Damaged(reason) | StoreError::Unavailable(reason) => reason,
    }
}

async fn within<T>(what: &str, path: &str, future: impl Future<Output = T>) -> Result<T, StoreError> {
    // Twice the client's own limit: only a client that does not keep it runs into this one.
    within_time(REQUEST_TIMEOUT * 2, what, path, future).await
}

async fn within_time<T>(
    limit: Duration,
    what: &str,
    path: &str,
    future: impl Future<Output = T>,
) -> Result<T, StoreError> {
    tokio::time::timeout(limit, future)
        .await
        .map_err(|_| StoreError::Unavailable(format!("{what} {path}: no answer within {} s", limit.as_secs())))
}

/// `<magic> <xxh3-64 of the rest>\n<json>`.
fn encode_sealed<T: serde::Serialize>(magic: &str, value: &T) -> Result<(Bytes, u64), String> {
    let json = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    let checksum = xxh3_64(&json);
    let mut bytes = format!("{magic} {checksum:016x}\n").into_bytes();
    bytes.extend_from_slice(&json);
    Ok((bytes.into(), checksum))
}

fn decode_sealed<T: serde::de::DeserializeOwned>(magic: &str, bytes: &[u8]) -> Result<T, String> {
    let newline = bytes.iter().position(|&byte| byte == b'\n').ok_or("it is cut short")?;
    let header = std::str::from_utf8(&bytes[..newline]).map_err(|_| "its first line is not text".to_string())?;
    let (found_magic, checksum) = header.split_once(' ').ok_or("its first line is not what it should be")?;
    if found_magic != magic {
        return Err(format!("it says '{found_magic}' where '{magic}' is expected"));
    }
    let json = &bytes[newline + 1..];
    let expected = u64::from_str_radix(checksum, 16).map_err(|_| "its checksum is not a number".to_string())?;
    let found = xxh3_64(json);
    if found != expected {
        return Err(format!("its checksum is {found:016x} instead of {expected:016x}"));
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

fn sealed_checksum(bytes: &[u8]) -> Option<u64> {
    let newline = bytes.iter().position(|&byte| byte == b'\n')?;
    let (_, checksum) = std::str::from_utf8(&bytes[..newline]).ok()?.split_once(' ')?;
    u64::from_str_radix(checksum, 16).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use streamjob_protocol::journal::JournalState;

    fn storage(directory: &tempfile::TempDir) -> Storage {
        let path = directory.path().to_string_lossy().into_owned();
        Storage::open(&StorageConfig::Directory { path }, "0123").unwrap()
    }

    fn claimed(revision: u64) -> JournalEntry {
        JournalEntry::Claimed { revision, claimant: format!("c{revision}"), at: 1 }
    }

    pub(crate) fn manifest(checkpoint: u64) -> CheckpointManifest {
        CheckpointManifest {
            version: MANIFEST_VERSION,
            kind: ManifestKind::Checkpoint,
            checkpoint,
            job_id: "0123".into(),
            job_name: "job".into(),
            triggered_at: 1,
            completed_at: 2,
            key_hash: "xxh3-1".into(),
            max_parallelism: 128,
            operators: Vec::new(),
            stats: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_journal_entry_has_one_writer() {
        let directory = tempfile::tempdir().unwrap();
        let storage = storage(&directory);
        storage.probe("x").await.unwrap();
        assert_eq!(storage.append_journal(1, &claimed(1)).await, AppendOutcome::Written);
        assert_eq!(storage.append_journal(1, &claimed(2)).await, AppendOutcome::Exists);
        assert_eq!(storage.append_journal(1, &claimed(1)).await, AppendOutcome::Written, "our own entry, asked again");
        assert_eq!(storage.read_journal().await.unwrap(), vec![(1, claimed(1))]);
    }

    #[tokio::test]
    async fn a_race_for_an_entry_has_one_winner() {
        let directory = tempfile::tempdir().unwrap();
        let storage = storage(&directory);
        let attempts = (0..20).map(|revision| {
            let storage = storage.clone();
            tokio::spawn(async move { storage.append_journal(7, &claimed(revision)).await })
        });
        let outcomes = futures::future::join_all(attempts.collect::<Vec<_>>()).await;
        let won = outcomes.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == AppendOutcome::Written).count();
        assert_eq!(won, 1);
    }

    #[tokio::test]
    async fn the_journal_is_read_from_its_newest_compaction() {
        let directory = tempfile::tempdir().unwrap();
        let storage = storage(&directory);
        for seq in 1..=3 {
            storage.append_journal(seq, &claimed(seq)).await;
        }
        let compacted = JournalEntry::Compacted { state: JournalState { revision: 3, ..JournalState::default() } };
        assert_eq!(storage.append_journal(4, &compacted).await, AppendOutcome::Written);
        storage.append_journal(5, &claimed(4)).await;
        storage.trim_journal(4).await;
        assert_eq!(storage.append_journal(2, &claimed(9)).await, AppendOutcome::Exists, "a late coordinator");
        storage.trim_journal(4).await;
        assert_eq!(storage.read_journal().await.unwrap(), vec![(4, compacted), (5, claimed(4))]);
        assert_eq!(storage.list("journal").await.unwrap().len(), 2, "older entries are gone");
    }

    #[tokio::test]
    async fn damage_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let storage = storage(&directory);
        let file = storage.put("shared/a.arrow", Bytes::from_static(b"0123456789")).await.unwrap();
        assert_eq!(storage.get_verified(&file).await.unwrap(), Bytes::from_static(b"0123456789"));
        let path = directory.path().join("0123/shared/a.arrow");
        std::fs::write(&path, b"0123456780").unwrap();
        let flipped = storage.get_verified(&file).await.unwrap_err();
        assert!(matches!(&flipped, StoreError::Damaged(text) if text.contains("checksum")), "{flipped:?}");
        std::fs::write(&path, b"0123").unwrap();
        let cut = storage.get_verified(&file).await.unwrap_err();
        assert!(matches!(&cut, StoreError::Damaged(text) if text.contains("4 bytes instead of 10")), "{cut:?}");
        std::fs::remove_file(&path).unwrap();
        let missing = storage.get_verified(&file).await.unwrap_err();
        assert_eq!(missing, StoreError::Damaged("shared/a.arrow is missing".into()));
    }

    #[tokio::test]
    async fn a_manifest_is_checked_against_its_own_checksum_and_the_journals() {
        let directory = tempfile::tempdir().unwrap();
        let storage = storage(&directory);
        let checksum = storage.write_manifest(&manifest(3)).await.unwrap();
        assert_eq!(storage.load_manifest(3, Some(checksum)).await.unwrap(), manifest(3));
        assert!(storage.load_manifest(3, Some(checksum + 1)).await.is_err());
        let path = directory.path().join("0123/chk-3/_metadata");
        let mut bytes = std::fs::read(&path).unwrap();
        for position in 0..bytes.len() {
            bytes[position] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(storage.load_manifest(3, Some(checksum)).await.is_err(), "byte {position} flipped unnoticed");
            bytes[position] ^= 1;
        }
        storage.delete_checkpoint(3, &[]).await.unwrap();
        assert!(storage.load_manifest(3, Some(checksum)).await.is_err());
    }
}
