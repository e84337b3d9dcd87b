//! The asynchronous part of a checkpoint: encode what a task cut, write it, acknowledge.
//!
//! One lane a task, in order of checkpoints: a delta is relative to the one before it. A file once written stays part of
//! its table's chain whether or not its checkpoint completes; a delta that could not be written is kept and written with
//! the next checkpoint. A savepoint has nothing to do with the chains: whole tables in files of its own.

use crate::faults;
use crate::storage::{Storage, describe, new_file_name};
use crate::wire::FromWorker;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;
use streamjob_api::config;
use streamjob_protocol::coordinator::DeclineReason;
use streamjob_protocol::ids::{DeploymentId, TaskId};
use streamjob_protocol::manifest::{
    FileRef, KeyGroupRange, KeyedStateHandle, OperatorState, SubtaskStats, TaskRestore, TaskSnapshot,
};
use streamjob_protocol::retention::is_elsewhere;
use streamjob_state::snapshot::{self, Compression};
use streamjob_state::{KeyedDelta, StateCut};
use tokio::sync::mpsc;

/// Files in a chain before some of them are merged.
const MAX_CHAIN: usize = 16;
/// Bytes up to which a base counts as this large, so that small tables are not merged all the time.
const SMALL_FILE: u64 = 64 << 10;

/// One checkpoint of one task, cut and ready to be written.
pub struct Upload {
    pub checkpoint: u64,
    /// The directory that a savepoint's files go to; `None`: a checkpoint.
    pub savepoint: Option<String>,
    /// By uid.
    pub cuts: Vec<(String, StateCut)>,
    pub finished: bool,
    pub stats: SubtaskStats,
    pub cut_at: Instant,
}

struct Table {
    schema: String,
    files: Vec<FileRef>,
    /// Deltas that are in memory only, because writing them failed.
    unwritten: Vec<Arc<KeyedDelta>>,
}

/// Whether deltas may follow the restored files: only when every table comes from one chain of exactly these key groups
/// in the job's own storage. After a change of parallelism a file can be part of two chains, and a snapshot elsewhere is not
/// the job's to build on: the task starts new ones, with a full cut.
pub fn chains_continue(restore: &TaskRestore, key_groups: KeyGroupRange) -> bool {
    restore.operators.values().all(|state| {
        let names: HashSet<&str> = state.keyed.iter().map(|handle| handle.name.as_str()).collect();
        let own = |handle: &KeyedStateHandle| handle.files.iter().all(|file| !is_elsewhere(&file.path));
        names.len() == state.keyed.len()
            && state.keyed.iter().all(|handle| handle.key_groups == key_groups && own(handle))
    })
}

/// Checkpoints that were given up: what a savepoint among them has left is removed.
#[derive(Debug, Clone, Default)]
pub struct Aborted(Arc<Mutex<BTreeSet<u64>>>);

impl Aborted {
    const REMEMBERED: usize = 100;

    pub fn insert(&self, checkpoint: u64) {
        let mut aborted = self.0.lock();
        aborted.insert(checkpoint);
        if aborted.len() > Self::REMEMBERED {
            aborted.pop_first();
        }
    }

    fn contains(&self, checkpoint: u64) -> bool {
        self.0.lock().contains(&checkpoint)
    }
}

/// Whose state a lane writes.
#[derive(Debug, Clone, Copy)]
pub struct LaneOwner {
    pub task: TaskId,
    pub deployment: DeploymentId,
    pub key_groups: KeyGroupRange,
}

pub struct Uploader {
    storage: Storage,
    owner: LaneOwner,
    compression: Compression,
    aborted: Aborted,
    /// By uid and table name.
    tables: HashMap<(String, String), Table>,
    answers: mpsc::Sender<FromWorker>,
}

impl Uploader {
    pub fn new(
        storage: Storage,
        owner: LaneOwner,
        compression: config::Compression,
        restore: &TaskRestore,
        aborted: Aborted,
        answers: mpsc::Sender<FromWorker>,
    ) -> Uploader {
        let mut tables: HashMap<(String, String), Table> = HashMap::new();
        let compression = match compression {
            config::Compression::None => Compression::None,
            config::Compression::Lz4 => Compression::Lz4,
            config::Compression::Zstd => Compression::Zstd,
        };
        if chains_continue(restore, owner.key_groups) {
            for (uid, state) in &restore.operators {
                for handle in &state.keyed {
                    let table =
                        Table { schema: handle.schema.clone(), files: handle.files.clone(), unwritten: Vec::new() };
                    tables.insert((uid.clone(), handle.name.clone()), table);
                }
            }
        }
        Uploader { storage, owner, compression, aborted, tables, answers }
    }

    /// Runs until the task drops its end.
    pub async fn run(mut self, mut uploads: mpsc::Receiver<Upload>) {
        while let Some(upload) = uploads.recv().await {
            let checkpoint = upload.checkpoint;
            let LaneOwner { task, deployment, .. } = self.owner;
            let written = match upload.savepoint.clone() {
                None => self.write(upload).await,
                Some(directory) => self.write_savepoint(upload, &directory).await,
            };
            let answer = match written {
                Ok((snapshot, stats)) => FromWorker::Ack { task, deployment, checkpoint, snapshot, stats },
                Err(message) => {
                    FromWorker::Decline { task, deployment, checkpoint, reason: DeclineReason::AsyncException, message }
                }
            };
            if let Err(message) = faults::point("ack.before") {
                tracing::warn!(message, "acknowledgement dropped");
                continue;
            }
            if self.answers.send(answer).await.is_err() {
                return;
            }
            self.merge_long_chains().await;
        }
    }

    async fn write(&mut self, upload: Upload) -> Result<(TaskSnapshot, SubtaskStats), String> {
        let mut stats = upload.stats;
        let mut snapshot = TaskSnapshot { operators: BTreeMap::new(), finished: upload.finished };
        let mut failure = None;
        for (uid, cut) in upload.cuts {
            for delta in cut.keyed {
                let table = self.tables.entry((uid.clone(), delta.name.clone())).or_insert_with(|| Table {
                    schema: String::new(),
                    files: Vec::new(),
                    unwritten: Vec::new(),
                });
                table.schema = snapshot::schema_text(&delta);
                if delta.full {
                    table.unwritten.clear();
                }
                if delta.full || delta.rows.num_rows() > 0 {
                    table.unwritten.push(Arc::new(delta));
                }
            }
            snapshot.operators.insert(uid, OperatorState { keyed: Vec::new(), lists: cut.lists });
        }
        for ((uid, name), table) in &mut self.tables {
            while !table.unwritten.is_empty() {
                let rows = table.unwritten[0].clone();
                match write_rows(&self.storage, &new_path(), rows, self.owner.key_groups, self.compression).await {
                    Ok(file) => {
                        if table.unwritten.remove(0).full {
                            table.files.clear();
                        }
                        stats.bytes_new += file.bytes;
                        table.files.push(file);
                    }
                    Err(reason) => {
                        failure = Some(format!("state '{name}' of {uid}: {reason}"));
                        break;
                    }
                }
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        for ((uid, name), table) in &self.tables {
            stats.bytes_total += table.files.iter().map(|file| file.bytes).sum::<u64>();
            if let Some(operator) = snapshot.operators.get_mut(uid) {
                operator.keyed.push(KeyedStateHandle {
                    name: name.clone(),
                    schema: table.schema.clone(),
                    key_groups: self.owner.key_groups,
                    files: table.files.clone(),
                });
            }
        }
        for operator in snapshot.operators.values_mut() {
            operator.keyed.sort_by(|a, b| a.name.cmp(&b.name));
        }
        stats.async_ms = upload.cut_at.elapsed().as_millis() as u64;
        Ok((snapshot, stats))
    }

    /// Whole tables, none of which any chain ever hears of.
    async fn write_savepoint(&self, upload: Upload, directory: &str) -> Result<(TaskSnapshot, SubtaskStats), String> {
        let mut written = Vec::new();
        let result = self.write_tables(upload, directory, &mut written).await;
        if result.is_err() {
            for path in written {
                // The coordinator deletes the directory as well; this is for what came after it looked.
                if let Err(error) = self.storage.delete(&path).await {
                    tracing::warn!(task = %self.owner.task, path, reason = describe(error), "left behind");
                }
            }
        }
        result
    }

    async fn write_tables(
        &self,
        upload: Upload,
        directory: &str,
        written: &mut Vec<String>,
    ) -> Result<(TaskSnapshot, SubtaskStats), String> {
        let mut stats = upload.stats;
        let mut snapshot = TaskSnapshot { operators: BTreeMap::new(), finished: upload.finished };
        let given_up = || Err("the savepoint was given up".to_owned());
        for (uid, cut) in upload.cuts {
            let mut operator = OperatorState { keyed: Vec::new(), lists: cut.lists };
            for table in cut.keyed {
                if self.aborted.contains(upload.checkpoint) {
                    return given_up();
                }
                let mut handle = KeyedStateHandle {
                    name: table.name.clone(),
                    schema: snapshot::schema_text(&table),
                    key_groups: self.owner.key_groups,
                    files: Vec::new(),
                };
                if table.rows.num_rows() > 0 {
                    let name = new_file_name();
                    let path = format!("{directory}/{name}");
                    let file =
                        write_rows(&self.storage, &path, Arc::new(table), self.owner.key_groups, self.compression)
                            .await?;
                    written.push(path);
                    stats.bytes_new += file.bytes;
                    stats.bytes_total += file.bytes;
                    handle.files.push(FileRef { path: name, ..file });
                }
                operator.keyed.push(handle);
            }
            operator.keyed.sort_by(|a, b| a.name.cmp(&b.name));
            snapshot.operators.insert(uid, operator);
        }
        if self.aborted.contains(upload.checkpoint) {
            return given_up();
        }
        stats.async_ms = upload.cut_at.elapsed().as_millis() as u64;
        Ok((snapshot, stats))
    }

    /// Keeps restores short. Failure is no harm, the chain stays as it is.
    async fn merge_long_chains(&mut self) {
        for ((uid, name), table) in &mut self.tables {
            let kept = match due_merge(&table.files) {
                Merge::Nothing => continue,
                Merge::Changes => 1,
                Merge::All => 0,
            };
            match merge(&self.storage, &table.files[kept..], kept == 0, self.compression).await {
                Ok(file) => {
                    table.files.truncate(kept);
                    table.files.push(file);
                }
                Err(reason) => {
                    tracing::warn!(task = %self.owner.task, uid, table = name, reason, "state files not merged")
                }
            }
        }
    }
}

/// Which files of a chain become one.
#[derive(Debug, PartialEq, Eq)]
enum Merge {
    Nothing,
    /// Those behind the first: costs what they hold, however large the table is.
    Changes,
    All,
}

/// A chain is merged when its deltas outweigh its base, and its deltas alone when there are many.
fn due_merge(files: &[FileRef]) -> Merge {
    let base = files.first().map_or(0, |file| file.bytes);
    let deltas: u64 = files.iter().skip(1).map(|file| file.bytes).sum();
    if deltas > base.max(SMALL_FILE) * 2 {
        Merge::All
    } else if files.len() > MAX_CHAIN {
        Merge::Changes
    } else {
        Merge::Nothing
    }
}

/// Encodes rows while they are being written.
async fn write_rows(
    storage: &Storage,
    path: &str,
    rows: Arc<KeyedDelta>,
    key_groups: KeyGroupRange,
    compression: Compression,
) -> Result<FileRef, String> {
    let size = rows.rows.get_array_memory_size() as u64;
    let fill = move |out: &mut dyn Write| {
        faults::point("upload.before")?;
        snapshot::encode(&rows, key_groups, compression, out).map_err(|error| error.to_string())
    };
    storage.write(path, size, fill).await.map_err(describe)
}

/// One file from those of a chain: a whole table, or a delta if the chain's base is not among them.
async fn merge(storage: &Storage, files: &[FileRef], whole: bool, compression: Compression) -> Result<FileRef, String> {
    let mut contents: Vec<Bytes> = Vec::with_capacity(files.len());
    for file in files {
        contents.push(storage.get_verified(file).await.map_err(describe)?);
    }
    let merge = if whole { snapshot::compact } else { snapshot::merge_changes };
    let size = files.iter().map(|file| file.bytes).sum();
    let fill = move |out: &mut dyn Write| merge(&contents, compression, out).map_err(|error| error.to_string());
    storage.write(&new_path(), size, fill).await.map_err(describe)
}

fn new_path() -> String {
    format!("shared/{}", new_file_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(name: &str, first: u16, last: u16) -> KeyedStateHandle {
        let key_groups = KeyGroupRange { first, last };
        KeyedStateHandle { name: name.into(), schema: String::new(), key_groups, files: Vec::new() }
    }

    fn restore(keyed: Vec<KeyedStateHandle>) -> TaskRestore {
        let state = OperatorState { keyed, lists: Vec::new() };
        TaskRestore {
            checkpoint: Some(1),
            operators: [("u".to_owned(), state)].into(),
            finished: false,
            stopped: false,
        }
    }

    #[test]
    fn long_chains_are_merged_at_the_cost_of_their_changes() {
        let chain = |sizes: &[u64]| -> Vec<FileRef> {
            sizes.iter().map(|&bytes| FileRef { path: "shared/a.arrow".into(), bytes, checksum: 1 }).collect()
        };
        let (large, small) = (100 << 20, 1 << 10);
        assert_eq!(due_merge(&[]), Merge::Nothing);
        assert_eq!(due_merge(&chain(&[large; 3])), Merge::Nothing);
        assert_eq!(due_merge(&chain(&[large, large, large, small])), Merge::All);
        let mut long = vec![small; MAX_CHAIN + 1];
        assert_eq!(due_merge(&chain(&long[1..])), Merge::Nothing);
        assert_eq!(due_merge(&chain(&long)), Merge::Changes);
        long[0] = large;
        assert_eq!(due_merge(&chain(&long)), Merge::Changes);
    }

    #[test]
    fn chains_continue_only_where_they_were_written() {
        let own = KeyGroupRange { first: 0, last: 63 };
        assert!(chains_continue(&TaskRestore::default(), own));
        assert!(chains_continue(&restore(vec![handle("a", 0, 63), handle("b", 0, 63)]), own));
        assert!(!chains_continue(&restore(vec![handle("a", 0, 127)]), own), "scaled out");
        assert!(!chains_continue(&restore(vec![handle("a", 0, 31), handle("a", 32, 63)]), own), "scaled in");
        assert!(
            !chains_continue(&restore(vec![handle("a", 0, 63), handle("a", 0, 63)]), own),
            "two chains of one table"
        );
        let mut foreign = handle("a", 0, 63);
        foreign.files.push(FileRef { path: "/savepoints/s/a.arrow".into(), bytes: 1, checksum: 1 });
        assert!(!chains_continue(&restore(vec![foreign]), own), "somebody else's file");
    }
}
