//! `run`: checks everything about a job, then hands it to the supervisor.
//!
//! Nothing is written before job file, program and storage are known to be good, and what was created for a start that
//! failed is removed again.

use crate::arguments::RunArguments;
use crate::client::Client;
use crate::data_dir::DataDir;
use crate::display::Display;
use crate::error::CliError;
use crate::job::{self, JobFile};
use crate::processes::{Blueprint, Reserved};
use crate::supervisor;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use streamjob_api::config::{JobConfig, RestoreSource};
use streamjob_dataflow::graph::ExecutionGraph;
use streamjob_protocol::assign::effective_max_parallelism;
use streamjob_protocol::coordinator::StoreError;
use streamjob_protocol::journal::{EndState, JournalState};
use streamjob_runtime::storage::{Storage, describe};

pub fn run(arguments: &RunArguments) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Process(format!("cannot start its event loop: {error}")))?;
    let result = runtime.block_on(run_async(arguments));
    runtime.shutdown_background();
    result
}

async fn run_async(arguments: &RunArguments) -> Result<ExitCode, CliError> {
    let file = JobFile::read(&arguments.job)?;
    let path = data_directory(arguments, &file);
    let checkpoints = DataDir::checkpoints(&path);
    let config = file.configure(&checkpoints)?;
    // Checks the program before anything is created; planned again if the state says another maximum.
    let graph = file.plan(&config, job::wanted_max_parallelism(&config))?;

    let mut directory = DataDir::open(&path)?;
    if arguments.take_over {
        directory.lock_if_free()
    } else {
        directory.lock()?
    }
    let known = if arguments.fresh { None } else { directory.job_id()? };
    let job_id = known.clone().unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    let storage = Storage::open(&config.storage, &job_id)?;
    storage.probe(&uuid::Uuid::new_v4().simple().to_string()).await?;
    let journal = read_journal(&storage).await?;

    let mut display = Display::new(&config.name);
    let claim = match decide(&journal, arguments.take_over) {
        Decision::Claim { revision } => revision,
        Decision::HasFinished => {
            display.event("has finished already; --fresh runs it anew");
            return Ok(ExitCode::SUCCESS);
        }
        Decision::StateGone { ended } => return Err(CliError::StateGone { ended }),
    };
    let stored = stored_max_parallelism(&config, &storage, &journal).await?;
    let max_parallelism =
        effective_max_parallelism(stored, config.explicit_max_parallelism, job::wanted_max_parallelism(&config))
            .map_err(|error| CliError::MaxParallelism { path: file.path.clone(), reason: error.to_string() })?;
    let graph =
        if graph.plan.max_parallelism == max_parallelism { graph } else { file.plan(&config, max_parallelism)? };

    let (control, own_rest) = (Reserved::new()?, Reserved::new()?);
    let rest = arguments.rest.unwrap_or(own_rest.address);
    let client = Client::local(rest)?;
    check_rest(arguments.rest, &client)?;
    let executable = std::env::current_exe()
        .map_err(|error| CliError::Process(format!("cannot find its own executable: {error}")))?;
    directory.begin(&job_id, &file.text)?;
    let logs = directory.logs()?;
    announce(&mut display, &file, &config, &graph, &path);
    display.event(&format!("REST at {}", client.base()));
    let blueprint = Blueprint {
        executable,
        job_file: directory.job_file(),
        checkpoints,
        logs,
        job_id,
        max_parallelism,
        revision: claim,
        slots: config.slots_per_worker,
        workers: worker_count(&config),
        control: control.address,
        rest,
        capture_rows: display.shares_terminal_with_rows(),
    };
    supervisor::supervise(blueprint, directory, display).await
}

/// A coordinator that cannot listen there would only be started again and again.
fn check_rest(wanted: Option<SocketAddr>, client: &Client) -> Result<(), CliError> {
    let Some(address) = wanted else { return Ok(()) };
    let failed = |reason: String| CliError::Rest { address: format!("--rest {address}"), reason };
    if !address.ip().is_loopback() && !client.has_token() {
        return Err(failed(
            "anybody could stop the job there; set STREAMJOB_TOKEN or STREAMJOB_TOKEN_FILE, or choose 127.0.0.1".into(),
        ));
    }
    std::net::TcpListener::bind(address)
        .map(|_| ())
        .map_err(|error| failed(format!("cannot listen there: {error}; choose another address")))
}

fn data_directory(arguments: &RunArguments, file: &JobFile) -> PathBuf {
    arguments.data_dir.clone().unwrap_or_else(|| Path::new(".streamjob").join(&file.job.metadata.name))
}

fn worker_count(config: &JobConfig) -> usize {
    config.parallelism.div_ceil(config.slots_per_worker.max(1)) as usize
}

async fn read_journal(storage: &Storage) -> Result<JournalState, CliError> {
    let entries = storage
        .read_journal()
        .await
        .map_err(|error| CliError::Storage { location: storage.location().to_owned(), reason: error.to_string() })?;
    Ok(JournalState::fold(entries.iter().map(|(_, entry)| entry)))
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Claim { revision: u64 },
    HasFinished,
    StateGone { ended: String },
}

/// With which revision to claim the job. A higher one fences a coordinator that still runs, and begins a job again that
/// has ended; an equal one goes on where the last run stopped.
fn decide(journal: &JournalState, take_over: bool) -> Decision {
    let standing = journal.revision.max(1);
    match &journal.ended {
        // It was stopped with a savepoint, and goes on from there.
        Some((EndState::Finished, _)) if journal.stopped.is_some() => Decision::Claim { revision: standing + 1 },
        Some((EndState::Finished, _)) => Decision::HasFinished,
        Some((state, reason)) if journal.checkpoints.is_empty() && journal.highest_checkpoint > 0 => {
            let reason = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
            Decision::StateGone { ended: format!("{state:?}{reason}") }
        }
        Some(_) => Decision::Claim { revision: standing + 1 },
        None if take_over => Decision::Claim { revision: standing + 1 },
        None => Decision::Claim { revision: standing },
    }
}

/// Max parallelism of the state that the job continues from. A checkpoint that cannot be read does not matter here: the
/// coordinator finds out the same and says what it does about it.
async fn stored_max_parallelism(
    config: &JobConfig,
    storage: &Storage,
    journal: &JournalState,
) -> Result<Option<u32>, CliError> {
    for (checkpoint, checksum) in journal.checkpoints.iter().rev() {
        let manifest = match journal.locations.get(checkpoint) {
            None => storage.load_manifest(*checkpoint, Some(*checksum)).await,
            Some(location) => {
                storage.load_snapshot(&location.path, Some(*checksum)).await.map(|snapshot| snapshot.manifest)
            }
        };
        if let Ok(manifest) = manifest {
            return Ok(Some(manifest.max_parallelism));
        }
    }
    let Some(RestoreSource::Path(path)) = config.restore_from.as_ref().map(|from| &from.source) else {
        return Ok(None);
    };
    if journal.highest_checkpoint > 0 {
        return Ok(None);
    }
    let failed = |error: StoreError| CliError::RestoreFrom { path: path.clone(), reason: describe(error) };
    let snapshot = storage.load_snapshot(path, None).await.map_err(failed)?;
    Ok(Some(snapshot.manifest.max_parallelism))
}

fn announce(display: &mut Display, file: &JobFile, config: &JobConfig, graph: &ExecutionGraph, path: &Path) {
    let ignored = streamjob_api::ignored_locally(&file.job);
    if !ignored.is_empty() {
        display.event(&format!("without Kubernetes these fields have no effect: {}", ignored.join(", ")));
    }
    display.event(&format!(
        "{} operators at parallelism {}, {}, data directory {}",
        graph.graph.nodes.len(),
        config.parallelism,
        job::guarantee_name(job::guarantee(graph, config)),
        path.display()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims() {
        let journal = |revision, highest, checkpoints: &[u64], ended: Option<EndState>| JournalState {
            revision,
            highest_checkpoint: highest,
            checkpoints: checkpoints.iter().map(|&id| (id, 0)).collect(),
            ended: ended.map(|state| (state, Some("why".into()))),
            ..JournalState::default()
        };
        let stopped = JournalState { stopped: Some(9), ..journal(1, 9, &[9], Some(EndState::Finished)) };
        let claim = |revision| Decision::Claim { revision };
        let gone = |ended: &str| Decision::StateGone { ended: ended.into() };
        let table = [
            ("a new job", journal(0, 0, &[], None), false, claim(1)),
            ("an interrupted run", journal(4, 9, &[9], None), false, claim(4)),
            ("a run that is taken over", journal(4, 9, &[9], None), true, claim(5)),
            ("finished", journal(1, 9, &[], Some(EndState::Finished)), false, Decision::HasFinished),
            ("stopped with a savepoint", stopped, false, claim(2)),
            ("finished, taken over", journal(1, 9, &[], Some(EndState::Finished)), true, Decision::HasFinished),
            ("failed with a checkpoint", journal(1, 9, &[9], Some(EndState::Failed)), false, claim(2)),
            ("failed before the first checkpoint", journal(1, 0, &[], Some(EndState::Failed)), false, claim(2)),
            ("failed, nothing kept", journal(1, 9, &[], Some(EndState::Failed)), false, gone("Failed (why)")),
            ("cancelled, nothing kept", journal(1, 9, &[], Some(EndState::Canceled)), false, gone("Canceled (why)")),
        ];
        for (name, journal, take_over, expected) in table {
            assert_eq!(decide(&journal, take_over), expected, "{name}");
        }
    }
}
