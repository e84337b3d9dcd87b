//! `check`: what would become of the state of a checkpoint or savepoint if a job started from it. Starts nothing and
//! writes nothing; the same comparison refuses a start that cannot work.

use crate::arguments::{CheckArguments, OutputFormat};
use crate::error::CliError;
use crate::job::{self, JobFile};
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use streamjob_api::config::{JobConfig, StorageConfig};
use streamjob_protocol::compatibility::{Compatibility, OperatorCheck, Verdict, compare};
use streamjob_protocol::manifest::CheckpointManifest;
use streamjob_runtime::storage::{Snapshot, Storage, describe};

/// The state does not fit.
const NOT_COMPATIBLE: u8 = 1;

/// What is printed as JSON, and answered by the coordinator.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The job would start from this state.
    pub compatible: bool,
    /// What the job file says about state that nothing takes.
    pub allow_non_restored_state: bool,
    /// Directory of the checkpoint or savepoint.
    pub from: String,
    pub checkpoint: u64,
    /// The job that wrote it.
    pub job_id: String,
    pub job_name: String,
    pub operators: Vec<OperatorCheck>,
    pub problems: Vec<String>,
}

pub fn run(arguments: &CheckArguments) -> Result<ExitCode, CliError> {
    let file = JobFile::read(&arguments.job)?;
    let report = report(file, &arguments.from)?;
    let text = match arguments.output {
        OutputFormat::Text => text(&report),
        OutputFormat::Json => format!("{:#}\n", serde_json::json!(report)),
    };
    // Whoever closed standard output does not want to see more.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(if report.compatible { ExitCode::SUCCESS } else { ExitCode::from(NOT_COMPATIBLE) })
}

/// For the coordinator: the text of a job file against a checkpoint or savepoint. Blocks while it reads.
///
/// # Errors
/// Why there is nothing to compare: the job file is wrong, or the snapshot cannot be read.
pub fn answer(text: &str, from: &str) -> Result<serde_json::Value, String> {
    let report = JobFile::parse(Path::new("the job file"), text.to_owned()).and_then(|file| report(file, from));
    report.map(|report| serde_json::json!(report)).map_err(|error| error.to_string())
}

fn report(file: JobFile, from: &str) -> Result<Report, CliError> {
    let config = configure(&file)?;
    let from = job::absolute(from);
    let Snapshot { manifest, location, .. } = load(&from, &config.storage)?;
    let found = compare_planned(&file, &config, &manifest)?;
    Ok(Report {
        compatible: found.is_compatible(config.allow_non_restored_state),
        allow_non_restored_state: config.allow_non_restored_state,
        from: location,
        checkpoint: found.checkpoint,
        job_id: manifest.job_id,
        job_name: manifest.job_name,
        operators: found.operators,
        problems: found.problems,
    })
}

/// Where the job's own checkpoints would go does not matter here.
fn configure(file: &JobFile) -> Result<JobConfig, CliError> {
    file.configure(Path::new("checkpoints"))
}

fn compare_planned(
    file: &JobFile,
    config: &JobConfig,
    manifest: &CheckpointManifest,
) -> Result<Compatibility, CliError> {
    // As a start would: the stored maximum, unless the job file names one or cannot live with it.
    let fits = config.explicit_max_parallelism.is_none() && config.parallelism <= manifest.max_parallelism;
    let max_parallelism = if fits { manifest.max_parallelism } else { job::wanted_max_parallelism(config) };
    Ok(compare(manifest, &file.plan(config, max_parallelism)?.plan))
}

fn load(from: &str, own: &StorageConfig) -> Result<Snapshot, CliError> {
    let failed = |reason: String| CliError::RestoreFrom { path: from.to_owned(), reason };
    let storage = Storage::open(&reading(from, own).map_err(failed)?, "check")?;
    let read = async { storage.load_snapshot(from, None).await.map_err(describe) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Process(format!("cannot start its event loop: {error}")))?;
    runtime.block_on(read).map_err(failed)
}

/// A storage from which the snapshot can be read, without creating anything.
fn reading(from: &str, own: &StorageConfig) -> Result<StorageConfig, String> {
    if let StorageConfig::S3 { .. } = own {
        return Ok(own.clone());
    }
    if let Some(rest) = from.strip_prefix("s3://") {
        let bucket = rest.split('/').next().unwrap_or_default().to_owned();
        return Ok(StorageConfig::S3 { bucket, prefix: String::new(), endpoint: None, region: None });
    }
    let directory = Path::new(from.trim_end_matches('/').trim_end_matches("/_metadata"));
    if !directory.is_dir() {
        return Err(format!(
            "there is no directory {}; name the directory of a savepoint or of a checkpoint (chk-<n>), or its _metadata \
             file",
            directory.display()
        ));
    }
    Ok(StorageConfig::Directory { path: directory.display().to_string() })
}

fn text(report: &Report) -> String {
    let mut text =
        format!("checkpoint {} of job {} ({}), {}\n", report.checkpoint, report.job_name, report.job_id, report.from);
    for problem in &report.problems {
        text.push_str(&format!("\nproblem: {problem}\n"));
    }
    text.push('\n');
    let widest = report.operators.iter().map(|operator| operator.uid.chars().count()).max().unwrap_or(0);
    for operator in &report.operators {
        let line = format!("{:<12}  {:<widest$}  {}", operator.verdict.label(), operator.uid, operator.name);
        text.push_str(line.trim_end());
        text.push('\n');
        for reason in &operator.reasons {
            text.push_str(&format!("{:<12}  {reason}\n", ""));
        }
    }
    text.push_str(&format!("\n{}\n", conclusion(report)));
    text
}

fn conclusion(report: &Report) -> &'static str {
    let dropped = report.operators.iter().any(|operator| operator.verdict == Verdict::Dropped);
    let incompatible = report.operators.iter().any(|operator| operator.verdict == Verdict::Incompatible);
    match (report.compatible, dropped) {
        (true, false) => "compatible: the job would go on from this state",
        (true, true) => "compatible: spec.upgrade.allowNonRestoredState lets state be dropped",
        (false, true) if !incompatible && report.problems.is_empty() => {
            "not compatible: state would be lost; where that is meant, set spec.upgrade.allowNonRestoredState: true"
        }
        (false, _) => "not compatible: the job would not start from this state",
    }
}
