//! A coordinator that has not taken its job over yet: it looks whether it could, lets workers come, and waits to be told to.
//!
//! Reads only. What it finds wrong (a later revision, state that does not fit the program) it finds while the revision
//! before it still runs, which is not disturbed. The claim, and all that follows from it, is the protocol's business.

use super::process::{OnCluster, Process};
use super::{Input, actions, retained};
use crate::error::RuntimeError;
use crate::storage::{Storage, describe};
use crate::task::Planner;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streamjob_api::config::JobConfig;
use streamjob_protocol::assign::{assign_state, effective_max_parallelism};
use streamjob_protocol::coordinator::{AppendOutcome, ExitReason, ExternalRestore, StoreError};
use streamjob_protocol::ids::CheckpointId;
use streamjob_protocol::journal::{EndState, FIRST_SEQ, JournalEntry, JournalState};
use streamjob_protocol::manifest::CheckpointManifest;
use streamjob_protocol::plan::JobPlan;
use tokio::sync::mpsc;

/// Between two looks at the journal: the revision that still runs completes checkpoints, and a later one may appear.
const LOOK: Duration = Duration::from_secs(2);
/// Between two attempts to reach the storage.
const RETRY: Duration = Duration::from_millis(500);
/// Without the storage for so long, the process ends and says why.
const UNAVAILABLE: Duration = Duration::from_secs(60);
/// A checkpoint may be discarded between the journal's being read and its manifest's, so one failed read proves nothing.
const ATTEMPTS: u32 = 4;

/// The job may be claimed.
pub(super) struct Activated {
    /// With the max parallelism that the state has, if there is any.
    pub plan: Arc<JobPlan>,
    pub external: Option<ExternalRestore>,
    pub imported: BTreeSet<String>,
}

/// What a look at the job's storage says.
#[derive(Debug)]
enum Finding {
    /// The newest claim is of this revision: this process replaces one that ran the job.
    Ours(Arc<JobPlan>),
    /// The job could go on from this restore point, or begin.
    Fits(Option<(CheckpointId, String)>, Arc<JobPlan>),
    Refused(ExitReason),
    Unavailable(String),
}

/// What this look is about; owned, so that it runs beside the loop.
#[derive(Clone)]
struct Job {
    config: Arc<JobConfig>,
    /// As the state that was looked at last wants it.
    plan: Arc<JobPlan>,
    planner: Planner,
    /// Of a job without state.
    max_parallelism: u32,
    storage: Storage,
    job_id: String,
    revision: u64,
    claimant: String,
}

impl Job {
    /// Max parallelism is that of the state, if there is some; the job file may name it, but not another one.
    async fn plan_for(&self, stored: Option<u32>) -> Result<Arc<JobPlan>, String> {
        let max_parallelism =
            effective_max_parallelism(stored, self.config.explicit_max_parallelism, self.max_parallelism)
                .map_err(|error| error.to_string())?;
        if self.plan.max_parallelism == max_parallelism {
            return Ok(self.plan.clone());
        }
        let (planner, parallelism) = (self.planner.clone(), self.config.parallelism);
        let planned = tokio::task::spawn_blocking(move || planner(parallelism, max_parallelism)).await;
        let graph = planned.unwrap_or_else(|error| Err(error.to_string()));
        graph.map(|graph| Arc::new(graph.plan)).map_err(|reason| match stored {
            Some(stored) => format!("with max parallelism {stored}, which is that of its state: {reason}"),
            None => reason,
        })
    }
}

type Step = Pin<Box<dyn Future<Output = Done> + Send>>;

enum Done {
    Looked(Finding),
    Prepared(Result<Activated, Refused>),
}

/// Why the job is not taken over.
enum Refused {
    Exit(ExitReason),
    Error(RuntimeError),
}

/// Until the job may be claimed; the reason to exit if it may not be.
pub(super) async fn hold(
    process: &mut Process,
    cluster: &OnCluster,
    storage: &Storage,
    claimant: &str,
    inputs: &mut mpsc::Receiver<Input>,
) -> Result<Result<Activated, ExitReason>, RuntimeError> {
    let options = process.options.clone();
    let mut job = Job {
        planner: options.planner.clone(),
        max_parallelism: options.graph.plan.max_parallelism,
        config: Arc::new(options.config.clone()),
        plan: Arc::new(options.graph.plan.clone()),
        storage: storage.clone(),
        job_id: options.job_id.clone(),
        revision: options.revision,
        claimant: claimant.to_owned(),
    };
    let mut asked = false;
    let mut compared = None;
    let mut unavailable_since: Option<Instant> = None;
    let mut step = look(job.clone(), Duration::ZERO, None);
    loop {
        let input = tokio::select! {
            done = &mut step => {
                match done {
                    Done::Prepared(Ok(activated)) => return Ok(Ok(activated)),
                    Done::Prepared(Err(Refused::Exit(reason))) => return Ok(Err(reason)),
                    Done::Prepared(Err(Refused::Error(error))) => return Err(error),
                    Done::Looked(Finding::Ours(plan)) => {
                        job.plan = plan;
                        tracing::info!(revision = job.revision, "this revision has the newest claim: taking the job over");
                        step = prepare(job.clone(), None);
                    }
                    Done::Looked(Finding::Refused(reason)) => return Ok(Err(reason)),
                    Done::Looked(Finding::Fits(_, plan)) if asked => {
                        job.plan = plan;
                        step = prepare(job.clone(), cluster.replaces.clone());
                    }
                    Done::Looked(Finding::Fits(restore_point, plan)) => {
                        job.plan = plan;
                        if !process.standby.checked {
                            let from = restore_point.as_ref().map(|(_, path)| path.as_str());
                            tracing::info!(revision = job.revision, from, "standby: the job can be taken over");
                        }
                        unavailable_since = None;
                        compared = restore_point.as_ref().map(|(checkpoint, _)| *checkpoint);
                        process.on_compared(restore_point, job.plan.max_parallelism);
                        step = look(job.clone(), LOOK, compared);
                    }
                    Done::Looked(Finding::Unavailable(reason)) => {
                        let since = *unavailable_since.get_or_insert_with(|| {
                            tracing::warn!(reason, "the storage cannot be read, trying again");
                            Instant::now()
                        });
                        if since.elapsed() >= UNAVAILABLE && !process.standby.checked {
                            let location = storage.location().to_owned();
                            let advice = "check volume or bucket, endpoint and credentials";
                            return Err(RuntimeError::Storage { location, reason, advice });
                        }
                        process.on_unavailable(reason);
                        step = look(job.clone(), RETRY, compared);
                    }
                }
                continue;
            }
            input = inputs.recv() => input,
        };
        match input {
            Some(Input::Activate(answer)) => {
                // Nobody waits for this answer any more if it cannot be sent.
                let _ = answer.send(());
                if !asked {
                    tracing::info!(revision = job.revision, "told to take the job over");
                    asked = true;
                    // Once more: what it goes on from is usually newer than what was compared.
                    step = look(job.clone(), Duration::ZERO, compared);
                }
            }
            Some(input) => process.take_in(input),
            None => return Err(RuntimeError::Start("the coordinator's inbox closed".into())),
        }
    }
}

fn look(job: Job, pause: Duration, compared: Option<CheckpointId>) -> Step {
    Box::pin(async move {
        tokio::time::sleep(pause).await;
        Done::Looked(examine(&job, compared).await)
    })
}

/// Everything that has to be done before the claim.
fn prepare(job: Job, replaces: Option<String>) -> Step {
    Box::pin(async move {
        if let Some(other) = replaces {
            match fence(&job, &other).await {
                Ok(()) => {}
                Err(refused) => return Done::Prepared(Err(refused)),
            }
        }
        let external = actions::external_restore(&job.config, job.revision, &job.storage).await;
        Done::Prepared(match external {
            Ok((external, imported)) => Ok(Activated { plan: job.plan, external, imported }),
            Err(error) => Err(Refused::Error(error)),
        })
    })
}

async fn examine(job: &Job, compared: Option<CheckpointId>) -> Finding {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let journal = match job.storage.read_journal().await {
            Ok(entries) => JournalState::fold(entries.iter().map(|(_, entry)| entry)),
            Err(StoreError::Unavailable(reason)) => return Finding::Unavailable(reason),
            Err(StoreError::Damaged(_)) if attempt < ATTEMPTS => continue,
            Err(StoreError::Damaged(reason)) => {
                let reason = format!("the journal of job '{}' is damaged: {reason}", job.job_id);
                return Finding::Refused(ExitReason::Unrecoverable { reason });
            }
        };
        if let Some(claimant) = &journal.claimant {
            if journal.revision > job.revision {
                let by = format!("{claimant} (revision {})", journal.revision);
                return Finding::Refused(ExitReason::Fenced { by });
            }
            if journal.revision == job.revision {
                // What cannot be read, or does not fit, the machine finds out too, which then knows what that means.
                let manifest = match restore_point(job, &journal, None).await {
                    Ok(Found::Manifest(manifest, _)) => Some(manifest.max_parallelism),
                    _ => None,
                };
                return Finding::Ours(job.plan_for(manifest).await.unwrap_or_else(|_| job.plan.clone()));
            }
        }
        if let Some(reason) = nothing_to_continue(&journal) {
            return Finding::Refused(ExitReason::Unrecoverable { reason });
        }
        match restore_point(job, &journal, compared).await {
            Ok(Found::Same(restore_point)) => return Finding::Fits(Some(restore_point), job.plan.clone()),
            Ok(Found::Nothing) => {
                return match job.plan_for(None).await {
                    Ok(plan) => Finding::Fits(None, plan),
                    Err(reason) => Finding::Refused(ExitReason::Incompatible { reason }),
                };
            }
            Ok(Found::Manifest(manifest, path)) => {
                let fits = match job.plan_for(Some(manifest.max_parallelism)).await {
                    Ok(plan) => assign_state(Some(&manifest), &plan, job.config.allow_non_restored_state)
                        .map(|_| plan)
                        .map_err(|error| error.to_string()),
                    Err(reason) => Err(reason),
                };
                return match fits {
                    Ok(plan) => Finding::Fits(Some((manifest.checkpoint, path)), plan),
                    Err(reason) => Finding::Refused(ExitReason::Incompatible { reason }),
                };
            }
            Err(StoreError::Unavailable(reason)) => return Finding::Unavailable(reason),
            Err(StoreError::Damaged(_)) if attempt < ATTEMPTS => {}
            Err(StoreError::Damaged(reason)) => return Finding::Refused(ExitReason::Unrecoverable { reason }),
        }
    }
}

/// A job that has ended goes on only from what it left.
fn nothing_to_continue(journal: &JournalState) -> Option<String> {
    let advice = "run it as a new job";
    match &journal.ended {
        Some((EndState::Finished, _)) if journal.stopped.is_none() => {
            Some(format!("the job has finished: there is nothing to go on with; {advice}"))
        }
        Some((state, reason)) if journal.checkpoints.is_empty() && journal.highest_checkpoint > 0 => {
            let why = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
            Some(format!(
                "the job ended as {state:?}{why} and kept no checkpoint (spec.checkpoint.retention), so there is no state to \
                 go on from; {advice}"
            ))
        }
        _ => None,
    }
}

enum Found {
    Nothing,
    /// Compared already.
    Same((CheckpointId, String)),
    /// With its directory.
    Manifest(Box<CheckpointManifest>, String),
}

/// What the job would go on from: its newest checkpoint that can be read, or what it is to begin with.
async fn restore_point(job: &Job, journal: &JournalState, compared: Option<CheckpointId>) -> Result<Found, StoreError> {
    let mut damage = None;
    for (checkpoint, checksum) in journal.checkpoints.iter().rev() {
        let location = journal.locations.get(checkpoint).map(|location| location.path.clone());
        let path = location.clone().unwrap_or_else(|| job.storage.path_of(&format!("chk-{checkpoint}")));
        if compared == Some(*checkpoint) {
            return Ok(Found::Same((*checkpoint, path)));
        }
        let loaded = match &location {
            None => job.storage.load_manifest(*checkpoint, Some(*checksum)).await,
            Some(path) => job.storage.load_snapshot(path, Some(*checksum)).await.map(|snapshot| snapshot.manifest),
        };
        match loaded {
            Ok(manifest) => return Ok(Found::Manifest(Box::new(manifest), path)),
            Err(StoreError::Damaged(reason)) => damage = Some(format!("checkpoint {checkpoint}: {reason}")),
            Err(error) => return Err(error),
        }
    }
    if let Some(damage) = damage {
        return Err(StoreError::Damaged(format!(
            "none of the job's {} checkpoints can be read (the last one tried: {damage}); starting without them would lose \
             their state",
            journal.checkpoints.len()
        )));
    }
    let Some(from) = &job.config.restore_from else { return Ok(Found::Nothing) };
    let path = retained::path_of(&job.config, &job.storage, from).await?;
    let snapshot = job.storage.load_snapshot(&path, None).await.map_err(|error| match error {
        StoreError::Damaged(reason) => StoreError::Damaged(format!("cannot restore from {path}: {reason}")),
        unavailable => unavailable,
    })?;
    Ok(Found::Manifest(Box::new(snapshot.manifest), snapshot.location))
}

/// Claims the job that this one replaces, so that a coordinator of it that is still somewhere can complete nothing more.
async fn fence(job: &Job, other: &str) -> Result<(), Refused> {
    if other == job.job_id {
        return Ok(());
    }
    let storage = Storage::open(&job.config.storage, other).map_err(Refused::Error)?;
    let unavailable = |reason: String| {
        let location = storage.location().to_owned();
        Refused::Error(RuntimeError::Storage { location, reason, advice: "check volume or bucket" })
    };
    let started = Instant::now();
    loop {
        let entries = storage.read_journal().await;
        let reason = match entries {
            Ok(entries) => {
                let state = JournalState::fold(entries.iter().map(|(_, entry)| entry));
                if state.claimant.is_some() && state.revision > job.revision {
                    let by = format!("revision {} of job {other}, which this one was to replace", state.revision);
                    return Err(Refused::Exit(ExitReason::Fenced { by }));
                }
                if state.claimant.is_some() && state.revision == job.revision {
                    tracing::info!(replaces = other, "the job that this one replaces is claimed");
                    return Ok(());
                }
                let seq = entries.last().map_or(FIRST_SEQ, |(seq, _)| seq + 1);
                let (revision, claimant) = (job.revision, job.claimant.clone());
                let claim = JournalEntry::Claimed { revision, claimant, at: crate::task::unix_ms() as u64 };
                match storage.append_journal(seq, &claim).await {
                    // Whether it stands is seen by reading.
                    AppendOutcome::Written | AppendOutcome::Exists => continue,
                    AppendOutcome::Unknown(reason) => reason,
                }
            }
            Err(error) => describe(error),
        };
        if started.elapsed() >= UNAVAILABLE {
            return Err(unavailable(reason));
        }
        tokio::time::sleep(RETRY).await;
    }
}
