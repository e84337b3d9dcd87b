//! Savepoints on request, stopping with one, and deleting one. The coordinator's loop takes them; here they are asked for,
//! and their end is reported.

use super::Context;
use super::answer::{Answer, Body, Refusal, trigger_id, trigger_of_path, unknown_trigger};
use super::names;
use crate::coordinator::Input;
use crate::coordinator::process::Process;
use crate::coordinator::status::{SavepointStatus, complete_savepoint};
use crate::storage::{Storage, describe, referenced_files};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use streamjob_api::config::RestoreSource;
use streamjob_api::rest::SerializedThrowable;
use streamjob_api::rest::operations::{
    DisposalRequest, Operation, PlainResult, SavepointOutcome, SavepointRequest, SavepointResult, StopRequest,
    TriggerResponse,
};
use streamjob_protocol::coordinator::{CoordinatorView, JobState, Outcome, Request, SavepointView};
use streamjob_protocol::journal::AfterSavepoint;
use streamjob_protocol::manifest::ManifestKind;
use tokio::sync::mpsc;

const FAILED: &str = "org.apache.flink.runtime.checkpoint.CheckpointException";
/// Who polls asks again sooner than this; Flink's client waits 2 s at most.
const POLLING: Duration = Duration::from_secs(5);
/// How long the coordinator of a job that has ended stays to tell.
const LINGER: Duration = Duration::from_secs(10);
/// How long workers get to hear that the job is over. A process that ends before takes its last words with it: what the
/// other side has not read of a closed connection may be lost.
const FAREWELL: Duration = Duration::from_secs(5);
/// Ended deletions whose outcome can still be asked for.
const DISPOSALS: usize = 100;

/// Savepoints that end the job: when somebody last asked about them and did not hear of the end.
#[derive(Clone, Default)]
pub(in crate::coordinator) struct Unread(Arc<Mutex<HashMap<String, Instant>>>);

impl Unread {
    fn asked(&self, trigger: &str) {
        self.0.lock().insert(trigger.to_owned(), Instant::now());
    }

    fn told(&self, trigger: &str) {
        self.0.lock().remove(trigger);
    }

    /// Whether somebody may be about to ask about one of these.
    fn awaited(&self, ended: impl Fn(&str) -> bool) -> bool {
        self.0.lock().iter().any(|(trigger, asked)| asked.elapsed() < POLLING && ended(trigger))
    }
}

/// Goes on answering after the job has ended, until every worker has heard of it and nobody waits to hear how the savepoint
/// went that ended it.
pub(in crate::coordinator) async fn linger(inputs: &mut mpsc::Receiver<Input>, process: &mut Process, unread: &Unread) {
    let (farewell, deadline) = (Instant::now() + FAREWELL, Instant::now() + LINGER);
    // What has not ended by now never does with this coordinator.
    let savepoints = process.machine.view().savepoints.clone();
    let ended = |trigger: &str| {
        let mut known = savepoints.iter();
        known.any(|known| known.trigger == trigger && known.outcome != Outcome::InProgress)
    };
    while (!process.workers.is_empty() && Instant::now() < farewell)
        || (unread.awaited(ended) && Instant::now() < deadline)
    {
        match tokio::time::timeout(Duration::from_millis(100), inputs.recv()).await {
            Ok(Some(Input::WorkerGone(worker, _))) => process.workers.leaves(worker),
            // Nobody is there to do anything else.
            Ok(Some(input)) => drop(process.answer(input)),
            Err(_) => {}
            Ok(None) => return,
        }
    }
}

pub(super) async fn trigger(
    State(context): State<Context>,
    Path(job): Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<TriggerResponse>), Refusal> {
    context.check_job(&job)?;
    let request: SavepointRequest = body.json("SavepointTriggerRequestBody")?;
    let then = if request.cancel_job == Some(true) { AfterSavepoint::Cancel } else { AfterSavepoint::GoOn };
    start(&context, request.target_directory, "target-directory", request.trigger_id, then).await
}

pub(super) async fn stop(
    State(context): State<Context>,
    Path(job): Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<TriggerResponse>), Refusal> {
    context.check_job(&job)?;
    let request: StopRequest = body.json("StopWithSavepointRequestBody")?;
    let then = AfterSavepoint::Stop { drain: request.drain == Some(true) };
    start(&context, request.target_directory, "targetDirectory", request.trigger_id, then).await
}

/// `property` is what the request calls the directory.
async fn start(
    context: &Context,
    directory: Option<String>,
    property: &str,
    trigger: Option<String>,
    then: AfterSavepoint,
) -> Result<(StatusCode, Json<TriggerResponse>), Refusal> {
    let trigger = trigger_id(trigger)?;
    let directory = match directory.filter(|directory| !directory.trim().is_empty()) {
        Some(directory) => place(&directory)?,
        None => context.0.config.savepoint_dir.clone().ok_or_else(|| {
            Refusal::bad_request(format!(
                "No savepoint location given and no default location configured. Give {property}, or set \
                 spec.storage.savepointDir in the job file."
            ))
        })?,
    };
    let accepted = (StatusCode::ACCEPTED, Json(TriggerResponse { request_id: trigger.clone() }));
    let view = context.snapshot().await?.view;
    if let Some(known) = view.savepoints.iter().find(|known| known.trigger == trigger) {
        if known.then != then {
            return Err(Refusal::conflict(format!(
                "Request {trigger} is another savepoint already ({:?}); use another triggerId.",
                known.then
            )));
        }
        return Ok(accepted);
    }
    check_running(&view)?;
    let stopping =
        view.savepoints.iter().find(|known| known.then != AfterSavepoint::GoOn && known.outcome == Outcome::InProgress);
    if let (Some(stopping), true) = (stopping, then != AfterSavepoint::GoOn) {
        return Err(Refusal::conflict(format!("The job is being stopped already, by request {}.", stopping.trigger)));
    }
    try_writing(&context.0.storage, &directory).await?;
    if then != AfterSavepoint::GoOn {
        context.0.unread.asked(&trigger);
    }
    context.request(Request::Savepoint { trigger, directory, then }).await?;
    Ok(accepted)
}

/// A task that cannot write its part counts as a failed checkpoint and may restart the job, which a mistyped directory
/// should not do.
async fn try_writing(storage: &Storage, directory: &str) -> Result<(), Refusal> {
    let probe = format!("{directory}/.probe-{}", uuid::Uuid::new_v4().simple());
    let tried = match storage.put(&probe, Bytes::from_static(b"probe")).await {
        Ok(_) => storage.delete(&probe).await,
        Err(error) => Err(error),
    };
    tried.map_err(|error| {
        Refusal::bad_request(format!(
            "The savepoint directory \"{directory}\" cannot be written: {}. Name another one, or make it writable for the \
             coordinator and the workers.",
            describe(error)
        ))
    })
}

/// A directory that does not depend on where this process runs, without a scheme, or an address in S3.
fn place(directory: &str) -> Result<String, Refusal> {
    let directory = directory.trim();
    let refused = |expected: &str| {
        Err(Refusal::bad_request(format!("The savepoint directory is \"{directory}\", expected {expected}.")))
    };
    match directory.split_once(':') {
        Some(("s3", rest)) => match rest.strip_prefix("//").and_then(|rest| rest.split('/').next()) {
            Some(bucket) if !bucket.is_empty() => Ok(directory.trim_end_matches('/').to_owned()),
            _ => refused("s3://bucket/prefix"),
        },
        Some(("file", rest)) => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if path.starts_with('/') { Ok(path.to_owned()) } else { refused("file:///path") }
        }
        _ if directory.starts_with('/') => Ok(directory.to_owned()),
        _ => refused("an absolute path or s3://bucket/prefix"),
    }
}

pub(super) fn check_running(view: &CoordinatorView) -> Result<(), Refusal> {
    if names::has_ended(view.state) || matches!(view.state, JobState::Cancelling | JobState::Failing) {
        let state = names::job_state(view.state);
        return Err(Refusal::conflict(format!("Job {} is {state}: there is nothing more to take of it.", view.job_id)));
    }
    Ok(())
}

pub(super) async fn poll(
    State(context): State<Context>,
    Path((job, trigger)): Path<(String, String)>,
) -> Answer<Operation<SavepointResult>> {
    let view = context.job(&job).await?.view;
    let (location, failure_cause) = match &asked(&context, &view, &trigger)?.outcome {
        Outcome::Failed(reason) => (None, Some(SerializedThrowable::new(FAILED, reason))),
        Outcome::Completed(location) => (Some(location.clone()), None),
        Outcome::InProgress => return Ok(Json(Operation::in_progress())),
    };
    Ok(Json(Operation::ended(SavepointResult { location, failure_cause })))
}

/// `GET /v1/savepoints/:triggerid`: as [`poll`], with all that is known of the savepoint at that moment, for who keeps it in
/// records.
pub(super) async fn outcome(
    State(context): State<Context>,
    Path(trigger): Path<String>,
) -> Answer<Operation<SavepointOutcome<SavepointStatus>>> {
    let view = context.snapshot().await?.view;
    let found = asked(&context, &view, &trigger)?;
    let failure_cause = match &found.outcome {
        Outcome::Failed(reason) => Some(SerializedThrowable::new(FAILED, reason)),
        Outcome::Completed(_) => None,
        Outcome::InProgress => return Ok(Json(Operation::in_progress())),
    };
    Ok(Json(Operation::ended(SavepointOutcome { savepoint: complete_savepoint(&view, found), failure_cause })))
}

/// What was asked for under a name. A job that stops waits until who asked has read how it ended.
fn asked<'a>(context: &Context, view: &'a CoordinatorView, trigger: &str) -> Result<&'a SavepointView, Refusal> {
    let trigger = trigger_of_path(trigger)?;
    let found =
        view.savepoints.iter().find(|known| known.trigger == trigger).ok_or_else(|| unknown_trigger(&trigger))?;
    match found.outcome {
        Outcome::InProgress if found.then != AfterSavepoint::GoOn => context.0.unread.asked(&trigger),
        Outcome::InProgress => {}
        Outcome::Completed(_) | Outcome::Failed(_) => context.0.unread.told(&trigger),
    }
    Ok(found)
}

/// Deletions that were asked for: the reason of those that failed; nothing yet of those under way.
#[derive(Clone, Default)]
pub(super) struct Disposals(Arc<Mutex<BTreeMap<String, Disposal>>>);

struct Disposal {
    at: Instant,
    outcome: Option<Result<(), String>>,
}

impl Disposals {
    fn begin(&self, trigger: &str) {
        let mut known = self.0.lock();
        while known.len() >= DISPOSALS {
            let oldest = known.iter().min_by_key(|(_, disposal)| disposal.at).map(|(trigger, _)| trigger.clone());
            known.remove(&oldest.unwrap_or_default());
        }
        known.insert(trigger.to_owned(), Disposal { at: Instant::now(), outcome: None });
    }

    fn end(&self, trigger: &str, outcome: Result<(), String>) {
        if let Some(disposal) = self.0.lock().get_mut(trigger) {
            disposal.outcome = Some(outcome);
        }
    }
}

/// `POST /savepoint-disposal`: deletes what a valid savepoint consists of, and nothing else.
pub(super) async fn dispose(State(context): State<Context>, body: Body) -> Answer<TriggerResponse> {
    let request: DisposalRequest = body.json("SavepointDisposalRequest")?;
    let path = request.savepoint_path.filter(|path| !path.trim().is_empty()).ok_or_else(|| {
        Refusal::bad_request(
            "Request did not match expected format SavepointDisposalRequest: savepoint-path is missing.",
        )
    })?;
    let path = place(&path)?;
    let directory = path.trim_end_matches('/').trim_end_matches("/_metadata").to_owned();
    if let Some(from) = &context.0.config.restore_from
        && let RestoreSource::Path(path) = &from.source
        && path.trim_end_matches('/').trim_end_matches("/_metadata") == directory
        && (from.claim || context.snapshot().await?.view.checkpoints.latest_completed.is_none())
    {
        return Err(Refusal::conflict(format!("The running job was started from {directory} and still needs it.")));
    }
    let trigger = uuid::Uuid::new_v4().simple().to_string();
    context.0.disposals.begin(&trigger);
    let (disposals, storage, id) = (context.0.disposals.clone(), context.0.storage.clone(), trigger.clone());
    tokio::spawn(async move {
        let outcome = delete(&storage, &directory).await;
        if let Err(reason) = &outcome {
            tracing::warn!(savepoint = directory, reason, "a savepoint was not deleted");
        }
        disposals.end(&id, outcome);
    });
    Ok(Json(TriggerResponse { request_id: trigger }))
}

/// Reads the savepoint first: what has no valid manifest, or is a job's own checkpoint, stays.
async fn delete(storage: &Storage, directory: &str) -> Result<(), String> {
    let snapshot = storage.load_snapshot(directory, None).await.map_err(describe)?;
    if snapshot.manifest.kind != ManifestKind::Savepoint {
        return Err(format!("{directory} is a checkpoint, which its job deletes itself; name a savepoint"));
    }
    let files: Vec<String> = referenced_files(&snapshot.manifest).map(|file| file.path.clone()).collect();
    storage.delete_snapshot(&snapshot.location, &files).await.map_err(describe)
}

pub(super) async fn poll_disposal(
    State(context): State<Context>,
    Path(trigger): Path<String>,
) -> Answer<Operation<PlainResult>> {
    let trigger = trigger_of_path(&trigger)?;
    let known = context.0.disposals.0.lock();
    let disposal = known.get(&trigger).ok_or_else(|| unknown_trigger(&trigger))?;
    Ok(Json(match &disposal.outcome {
        None => Operation::in_progress(),
        Some(Ok(())) => Operation::ended(PlainResult::default()),
        Some(Err(reason)) => Operation::ended(PlainResult {
            failure_cause: Some(SerializedThrowable::new("org.apache.flink.util.FlinkException", reason)),
        }),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (given, expected) in [
            ("/srv/savepoints", "/srv/savepoints"),
            ("file:///srv/savepoints", "/srv/savepoints"),
            ("file:/srv/savepoints", "/srv/savepoints"),
            ("s3://bucket/a/", "s3://bucket/a"),
        ] {
            assert_eq!(place(given).unwrap(), expected);
        }
        for bad in ["savepoints", "file://host", "s3://", "s3:bucket", "hdfs://cluster/a"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_newest_deletions_are_remembered() {
        let disposals = Disposals::default();
        for number in 0..DISPOSALS + 5 {
            disposals.begin(&format!("{number:032}"));
        }
        let known = disposals.0.lock();
        assert_eq!(known.len(), DISPOSALS);
        assert!(!known.contains_key(&format!("{:032}", 0)));
        assert!(known.contains_key(&format!("{:032}", DISPOSALS + 4)));
    }

    #[test]
    fn a_coordinator_stays_until_the_end_was_told() {
        let unread = Unread::default();
        assert!(!unread.awaited(|_| true));
        unread.asked("a");
        assert!(unread.awaited(|trigger| trigger == "a"));
        assert!(!unread.awaited(|trigger| trigger == "b"));
        unread.told("a");
        assert!(!unread.awaited(|_| true));
    }
}
