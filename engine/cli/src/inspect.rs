//! `inspect`: what a job left on disk or in a bucket. Reads only, and checks every file that a checkpoint refers to.

use crate::arguments::InspectArguments;
use crate::data_dir::{DataDir, is_job_id};
use crate::error::CliError;
use crate::format::{bytes, count, duration_ms, time};
use crate::state_rows::{self, Files};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use streamjob_api::config::StorageConfig;
use streamjob_protocol::journal::JournalState;
use streamjob_protocol::manifest::{CheckpointManifest, KeyGroupRange, Redistribution};
use streamjob_runtime::storage::{Storage, checkpoint_of, manifest_path, referenced_files};

/// Something is damaged.
const DAMAGED: u8 = 1;
/// Characters of a list that are shown.
const LIST_WIDTH: usize = 160;

/// # Errors
/// The directory holds no job, or the checkpoint or state asked for does not exist. Damage is no error: it is part of
/// what is shown, with exit code 1.
pub fn run(arguments: &InspectArguments) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Process(format!("cannot start its event loop: {error}")))?;
    let located = locate(&arguments.directory)?;
    let failed = |reason: String| CliError::Inspect { path: arguments.directory.clone(), reason };
    let storage = Storage::open(&located.storage, &located.job_id)?;
    let mut inspection = runtime.block_on(inspect(storage, &located.job_id))?;
    if let Some(id) = arguments.checkpoint
        && !inspection.report.checkpoints.iter().any(|checkpoint| checkpoint.id == id)
    {
        let known: Vec<String> = inspection.report.checkpoints.iter().map(|known| known.id.to_string()).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return Err(failed(format!("there is no checkpoint {id}; there are: {known}")));
    }
    let chosen = arguments.checkpoint.or_else(|| inspection.newest_whole());
    if let Some(state) = &arguments.state {
        let manifest =
            chosen.and_then(|id| inspection.manifest(id)).ok_or_else(|| failed("there is no checkpoint".into()))?;
        let lines = state_rows::lines(manifest, &inspection.files, state).map_err(failed)?;
        print(&lines);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(id) = arguments.checkpoint {
        inspection.report.checkpoints.retain(|checkpoint| checkpoint.id == id);
    }
    if let Some(id) = chosen {
        inspection.describe_operators(id);
    }
    let report = &inspection.report;
    if arguments.json {
        let json = serde_json::to_string_pretty(report).map_err(|error| failed(error.to_string()))?;
        print(&format!("{json}\n"));
    } else {
        print(&text(report));
    }
    Ok(if report.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) })
}

fn print(text: &str) {
    // Whoever closed standard output does not want to see more.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[derive(Debug, PartialEq)]
struct Located {
    storage: StorageConfig,
    job_id: String,
}

/// A data directory, a directory of checkpoints of several jobs, or that of one job.
fn locate(directory: &Path) -> Result<Located, CliError> {
    let failed = |reason: String| CliError::Inspect { path: directory.to_owned(), reason };
    if !directory.is_dir() {
        return Err(failed("there is no such directory; name a data directory or one with checkpoints".into()));
    }
    let jobs = |directory: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| directory.join(name).join("journal").is_dir()).collect();
        names.sort();
        names
    };
    let at = |base: &Path, job_id: String| Located {
        storage: StorageConfig::Directory { path: base.to_string_lossy().into_owned() },
        job_id,
    };
    if directory.join("journal").is_dir() {
        let whole = std::fs::canonicalize(directory).map_err(|error| failed(error.to_string()))?;
        if let (Some(parent), Some(name)) = (whole.parent(), whole.file_name().and_then(|name| name.to_str())) {
            return Ok(at(parent, name.to_owned()));
        }
    }
    if directory.join("job-id").is_file() {
        return locate_by_data_directory(directory);
    }
    match jobs(directory).as_slice() {
        [] => Err(failed("there is no job in it; name a data directory or one with checkpoints".into())),
        [job_id] => Ok(at(directory, job_id.clone())),
        several => Err(failed(format!("there are several jobs in it, name one: {}", several.join(", ")))),
    }
}

fn locate_by_data_directory(directory: &Path) -> Result<Located, CliError> {
    let failed = |reason: String| CliError::Inspect { path: directory.to_owned(), reason };
    let read = |name: &str| {
        let file: PathBuf = directory.join(name);
        std::fs::read_to_string(file).map_err(|error| failed(format!("cannot read {name}: {error}")))
    };
    let job_id = read("job-id")?.trim().to_owned();
    if !is_job_id(&job_id) {
        return Err(failed(format!("its file job-id is damaged: found {job_id:?}, expected 32 hexadecimal digits")));
    }
    let job = streamjob_api::parse(&read("job.yaml")?).map_err(|error| failed(format!("job.yaml: {error}")))?;
    let checkpoints = DataDir::checkpoints(directory);
    let storage = streamjob_api::storage_of(&job, &checkpoints.to_string_lossy());
    if let StorageConfig::Directory { path } = &storage
        && !Path::new(path).is_dir()
    {
        return Err(failed(format!(
            "its job keeps checkpoints in {path}, which is not there (run this where the job ran)"
        )));
    }
    Ok(Located { storage, job_id })
}

#[derive(Debug, Default, Serialize)]
struct Report {
    location: String,
    job_id: String,
    job_name: Option<String>,
    revision: u64,
    /// How the job ended, if it did.
    ended: Option<String>,
    /// Oldest first.
    checkpoints: Vec<CheckpointReport>,
    /// Directories of checkpoints that the journal does not know: interrupted or about to be deleted.
    unfinished: Vec<u64>,
    /// What is damaged, each by name.
    damaged: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CheckpointReport {
    id: u64,
    /// Unix milliseconds.
    completed_at: Option<u64>,
    duration_ms: Option<u64>,
    bytes_new: Option<u64>,
    bytes_total: Option<u64>,
    max_parallelism: Option<u32>,
    whole: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    operators: Option<Vec<OperatorReport>>,
}

#[derive(Debug, Serialize)]
struct OperatorReport {
    uid: String,
    name: String,
    parallelism: u32,
    finished_subtasks: usize,
    tables: Vec<TableReport>,
    lists: Vec<ListReport>,
}

#[derive(Debug, Serialize)]
struct TableReport {
    name: String,
    subtask: u32,
    schema: String,
    key_groups: Vec<KeyGroupRange>,
    /// Absent when a file is damaged.
    rows: Option<usize>,
    files: usize,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct ListReport {
    name: String,
    subtask: u32,
    redistribution: Redistribution,
    entries: Vec<serde_json::Value>,
}

struct Inspection {
    report: Report,
    manifests: Vec<CheckpointManifest>,
    files: Files,
}

impl Inspection {
    fn manifest(&self, id: u64) -> Option<&CheckpointManifest> {
        self.manifests.iter().find(|manifest| manifest.checkpoint == id)
    }

    fn newest_whole(&self) -> Option<u64> {
        self.report.checkpoints.iter().rev().find(|checkpoint| checkpoint.whole).map(|checkpoint| checkpoint.id)
    }

    fn describe_operators(&mut self, id: u64) {
        let Some(manifest) = self.manifests.iter().find(|manifest| manifest.checkpoint == id) else { return };
        let operators = manifest.operators.iter().map(|operator| describe_operator(operator, &self.files)).collect();
        if let Some(checkpoint) = self.report.checkpoints.iter_mut().find(|checkpoint| checkpoint.id == id) {
            checkpoint.operators = Some(operators);
        }
    }
}

fn describe_operator(operator: &streamjob_protocol::manifest::OperatorManifest, files: &Files) -> OperatorReport {
    let mut tables = Vec::new();
    let mut lists = Vec::new();
    for (&subtask, state) in &operator.subtasks {
        for (name, handles) in state_rows::tables(&state.state) {
            let referenced = handles.iter().flat_map(|handle| &handle.files);
            tables.push(TableReport {
                name: name.to_owned(),
                subtask,
                schema: handles.first().map_or_else(String::new, |handle| handle.schema.clone()),
                key_groups: handles.iter().map(|handle| handle.key_groups).collect(),
                rows: state_rows::rows(&handles, files)
                    .ok()
                    .map(|batches| batches.iter().map(|rows| rows.num_rows()).sum()),
                files: referenced.clone().count(),
                bytes: referenced.map(|file| file.bytes).sum(),
            });
        }
        lists.extend(state.state.lists.iter().map(|list| ListReport {
            name: list.name.clone(),
            subtask,
            redistribution: list.redistribution,
            entries: list.entries.clone(),
        }));
    }
    OperatorReport {
        uid: operator.uid.clone(),
        name: operator.name.clone(),
        parallelism: operator.parallelism,
        finished_subtasks: operator.subtasks.values().filter(|subtask| subtask.finished).count(),
        tables,
        lists,
    }
}

async fn inspect(storage: Storage, job_id: &str) -> Result<Inspection, CliError> {
    let mut report = Report { location: storage.location().to_owned(), job_id: job_id.to_owned(), ..Report::default() };
    let listed = storage
        .list("")
        .await
        .map_err(|error| CliError::Storage { location: storage.location().to_owned(), reason: error.to_string() })?;
    let directories: BTreeSet<u64> = listed.iter().filter_map(|(path, _)| checkpoint_of(path)).collect();
    // Without a journal nobody knows which checkpoints count: those that have a manifest are shown.
    let expected: Vec<(u64, Option<u64>)> = match storage.read_journal().await {
        Ok(entries) => {
            let journal = JournalState::fold(entries.iter().map(|(_, entry)| entry));
            report.revision = journal.revision;
            report.ended = journal.ended.as_ref().map(|(state, reason)| match reason {
                Some(reason) => format!("{state:?}: {reason}"),
                None => format!("{state:?}"),
            });
            journal.checkpoints.iter().map(|&(id, checksum)| (id, Some(checksum))).collect()
        }
        Err(error) => {
            report.damaged.push(format!("the journal: {error}"));
            let manifests: BTreeSet<&str> = listed.iter().map(|(path, _)| path.as_str()).collect();
            let with_manifest = directories.iter().filter(|id| manifests.contains(manifest_path(**id).as_str()));
            with_manifest.map(|&id| (id, None)).collect()
        }
    };
    let known: BTreeSet<u64> = expected.iter().map(|(id, _)| *id).collect();
    report.unfinished = directories.difference(&known).copied().collect();
    let mut files = Files::default();
    let mut manifests = Vec::new();
    for (id, checksum) in expected {
        match storage.load_manifest(id, checksum).await {
            Ok(manifest) => {
                for file in referenced_files(&manifest) {
                    files.load(&storage, file).await;
                }
                let damage: BTreeSet<&str> =
                    referenced_files(&manifest).filter_map(|file| files.problem(&file.path)).collect();
                report.damaged.extend(damage.iter().map(|problem| format!("checkpoint {id}: {problem}")));
                report.job_name = Some(manifest.job_name.clone());
                report.checkpoints.push(describe_checkpoint(&manifest, damage.is_empty()));
                manifests.push(manifest);
            }
            Err(error) => {
                report.damaged.push(format!("checkpoint {id}: {error}"));
                report.checkpoints.push(CheckpointReport {
                    id,
                    completed_at: None,
                    duration_ms: None,
                    bytes_new: None,
                    bytes_total: None,
                    max_parallelism: None,
                    whole: false,
                    operators: None,
                });
            }
        }
    }
    Ok(Inspection { report, manifests, files })
}

fn describe_checkpoint(manifest: &CheckpointManifest, whole: bool) -> CheckpointReport {
    let files: BTreeSet<(&str, u64)> =
        referenced_files(manifest).map(|file| (file.path.as_str(), file.bytes)).collect();
    CheckpointReport {
        id: manifest.checkpoint,
        completed_at: Some(manifest.completed_at),
        duration_ms: Some(manifest.completed_at.saturating_sub(manifest.triggered_at)),
        bytes_new: Some(manifest.stats.iter().map(|task| task.stats.bytes_new).sum()),
        bytes_total: Some(files.iter().map(|(_, bytes)| bytes).sum()),
        max_parallelism: Some(manifest.max_parallelism),
        whole,
        operators: None,
    }
}

fn text(report: &Report) -> String {
    let name = report.job_name.as_deref().unwrap_or("job");
    let mut text = format!("{name} ({}) in {}, revision {}\n", report.job_id, report.location, report.revision);
    if let Some(ended) = &report.ended {
        text.push_str(&format!("ended: {ended}\n"));
    }
    if report.checkpoints.is_empty() {
        text.push_str("no checkpoints\n");
    } else {
        text.push_str(&format!(
            "\n{:>10}  {:<24} {:>12} {:>12} {:>12}  {}\n",
            "CHECKPOINT", "COMPLETED", "DURATION", "NEW", "TOTAL", "FILES"
        ));
    }
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "?".into());
    for checkpoint in &report.checkpoints {
        text.push_str(&format!(
            "{:>10}  {:<24} {:>12} {:>12} {:>12}  {}\n",
            checkpoint.id,
            or_unknown(checkpoint.completed_at.map(time)),
            or_unknown(checkpoint.duration_ms.map(duration_ms)),
            or_unknown(checkpoint.bytes_new.map(bytes)),
            or_unknown(checkpoint.bytes_total.map(bytes)),
            if checkpoint.whole { "whole" } else { "DAMAGED" },
        ));
    }
    for checkpoint in &report.checkpoints {
        if let Some(operators) = &checkpoint.operators {
            let most = checkpoint.max_parallelism.unwrap_or_default();
            text.push_str(&format!("\ncheckpoint {}, max parallelism {most}\n", checkpoint.id));
            operators.iter().for_each(|operator| operator_text(operator, &mut text));
        }
    }
    if !report.unfinished.is_empty() {
        let ids: Vec<String> = report.unfinished.iter().map(u64::to_string).collect();
        text.push_str(&format!("\nleft over, in no journal and never used: {}\n", ids.join(", ")));
    }
    for damaged in &report.damaged {
        text.push_str(&format!("\nDAMAGED {damaged}\n"));
    }
    text
}

fn operator_text(operator: &OperatorReport, text: &mut String) {
    text.push_str(&format!("  {}  (uid {}, parallelism {})\n", operator.name, operator.uid, operator.parallelism));
    if operator.finished_subtasks > 0 {
        text.push_str(&format!(
            "    {} of {} subtasks have finished\n",
            operator.finished_subtasks, operator.parallelism
        ));
    }
    for table in &operator.tables {
        let groups: Vec<String> =
            table.key_groups.iter().map(|range| format!("{}-{}", range.first, range.last)).collect();
        text.push_str(&format!(
            "    table {}, subtask {}: {} rows, key groups {}, {} in {} files [{}]\n",
            table.name,
            table.subtask,
            table.rows.map_or_else(|| "?".into(), |rows| count(rows as f64)),
            groups.join(" and "),
            bytes(table.bytes),
            table.files,
            table.schema
        ));
    }
    for list in &operator.lists {
        let entries: Vec<String> = list.entries.iter().map(serde_json::Value::to_string).collect();
        let entries = shortened(&entries.join(", "));
        text.push_str(&format!("    list {}, subtask {}: {entries}\n", list.name, list.subtask));
    }
}

/// The whole is shown by --json and --state.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(LIST_WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
