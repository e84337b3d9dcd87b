//! What becomes of a savepoint's resource: taken, adopted, and its files deleted with it. Pure, as [`super::plan`].

use super::draft::{AT_REST, NOW_AND_THEN, SHORTLY, SOON};
use super::effect::{Child, ChildKind, Deletion, EngineCall, Event, SavepointEffect};
use super::ids::savepoint_trigger;
use super::observed::{EngineAnswer, ObservedSavepoint, SavepointAnswer};
use crate::api::conditions::{self, Reason, Truth, Verdict, aspect, shorten};
use crate::api::{FINALIZER, SavepointPhase, SavepointStatus, StreamJobStatus};
use crate::resources::{files_of, names, savepoint_dispose_pod, spec_of, storage_location};
use crate::settings::Settings;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;
use streamjob_api::spec::StreamJobSpec;

/// For deleting files; then the finalizer goes, and an event says what is left.
const DISPOSAL: Duration = Duration::from_secs(600);
const LONGEST_ERROR: usize = 1024;

/// What is done now for a savepoint, and when it is looked at again.
#[derive(Debug, Clone, PartialEq)]
pub struct SavepointPlan {
    pub effects: Vec<SavepointEffect>,
    pub requeue_after: Duration,
    /// For people: why this plan.
    pub why: String,
}

struct Draft {
    status: SavepointStatus,
    effects: Vec<SavepointEffect>,
    requeue_after: Duration,
    why: &'static str,
    verdict: Verdict,
}

#[must_use]
pub fn plan_savepoint(observed: &ObservedSavepoint, settings: &Settings, now: Timestamp) -> SavepointPlan {
    let savepoint = &observed.savepoint;
    let ours = savepoint.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    let deleting = savepoint.metadata.deletion_timestamp.is_some();
    if !ours {
        return SavepointPlan {
            effects: if deleting { Vec::new() } else { vec![SavepointEffect::AddFinalizer] },
            requeue_after: if deleting { AT_REST } else { SOON },
            why: "a finalizer keeps the savepoint until its files were dealt with".into(),
        };
    }
    let before = savepoint.status.clone().unwrap_or_default();
    let mut draft = Draft {
        status: before.clone(),
        effects: Vec::new(),
        requeue_after: AT_REST,
        why: "nothing is to be done",
        verdict: Verdict::new(Truth::False, Reason::Pending, ""),
    };
    draft.status.observed_generation = savepoint.metadata.generation;
    match before.phase {
        SavepointPhase::Deleting => dispose(observed, settings, now, &mut draft),
        SavepointPhase::Completed | SavepointPhase::Failed | SavepointPhase::Pending if deleting => {
            delete(observed, now, &mut draft);
        }
        SavepointPhase::Pending => pending(observed, now, &mut draft),
        SavepointPhase::InProgress => in_progress(observed, now, deleting, &mut draft),
        SavepointPhase::Completed => draft.verdict = complete(&before),
        SavepointPhase::Failed => {
            draft.verdict = Verdict::new(Truth::False, Reason::Failed, before.error.clone().unwrap_or_default());
        }
    }
    record_files(observed, &mut draft);
    finish(observed, now, draft)
}

fn finish(observed: &ObservedSavepoint, now: Timestamp, mut draft: Draft) -> SavepointPlan {
    let generation = observed.savepoint.metadata.generation;
    let failed = draft.status.phase == SavepointPhase::Failed;
    conditions::set(&mut draft.status.conditions, aspect::READY, draft.verdict.clone(), generation, now);
    if failed {
        let verdict = Verdict { status: Truth::True, ..draft.verdict };
        conditions::set(&mut draft.status.conditions, aspect::STALLED, verdict, generation, now);
    } else {
        conditions::remove(&mut draft.status.conditions, aspect::STALLED);
    }
    let before = observed.savepoint.status.as_ref();
    let phase = before.map(|status| (status.phase, status.trigger_id.clone()));
    if phase.unwrap_or_default() != (draft.status.phase, draft.status.trigger_id.clone()) {
        // What follows from it is done once it is written.
        draft.effects.retain(|effect| matches!(effect, SavepointEffect::Event(_)));
        draft.requeue_after = SOON;
    }
    if before != Some(&draft.status) {
        draft.effects.insert(0, SavepointEffect::WriteStatus(Box::new(draft.status)));
    }
    SavepointPlan { effects: draft.effects, requeue_after: draft.requeue_after, why: draft.why.into() }
}

fn complete(status: &SavepointStatus) -> Verdict {
    Verdict::new(Truth::True, Reason::Completed, status.path.clone().unwrap_or_default())
}

fn fail(draft: &mut Draft, now: Timestamp, reason: &str) {
    let reason = shorten(reason.to_owned(), LONGEST_ERROR);
    draft.status.phase = SavepointPhase::Failed;
    draft.status.completed_at = Some(Time(now));
    draft.status.error = Some(reason.clone());
    draft.why = "the savepoint has failed";
    draft.verdict = Verdict::new(Truth::False, Reason::Failed, reason.clone());
    draft.effects.push(SavepointEffect::Event(Event { warning: true, reason: "SavepointFailed".into(), note: reason }));
}

fn pending(observed: &ObservedSavepoint, now: Timestamp, draft: &mut Draft) {
    if let Some(path) = &observed.savepoint.spec.path {
        draft.status.phase = SavepointPhase::Completed;
        draft.status.path = Some(path.clone());
        let taken = observed.job.as_ref().and_then(|job| job.status.as_ref()?.last_savepoint.clone());
        if let Some(taken) = taken.filter(|taken| taken.path.as_ref() == Some(path)) {
            draft.status.checkpoint_id = Some(taken.id);
            draft.status.size_bytes = taken.size_bytes;
            draft.status.completed_at = taken.completed_at;
        }
        draft.verdict = complete(&draft.status);
        draft.why = "an existing savepoint is adopted";
        return;
    }
    let status = observed.job.as_ref().and_then(|job| job.status.as_ref());
    if status.is_some_and(|status| status.ended.is_some()) {
        return fail(draft, now, "the job has ended");
    }
    if status.and_then(|status| status.operation.as_ref()).is_none() && running(observed).is_some() {
        draft.status.phase = SavepointPhase::InProgress;
        draft.status.trigger_id = Some(savepoint_trigger(&observed.savepoint));
        draft.status.started_at = Some(Time(now));
        draft.verdict = Verdict::new(Truth::False, Reason::InProgress, "");
        draft.why = "the job runs: the savepoint is taken";
        return;
    }
    draft.requeue_after = NOW_AND_THEN;
    draft.why = "the job does not run";
    let message = match &observed.job {
        None => format!("there is no StreamJob {}", observed.savepoint.spec.job_ref.name),
        Some(_) => "the savepoint is taken once the job runs".into(),
    };
    draft.verdict = Verdict::new(Truth::False, Reason::WaitingForJob, message);
}

/// Revision of the job, if it runs.
fn running(observed: &ObservedSavepoint) -> Option<i64> {
    let Some(EngineAnswer::Status(engine)) = &observed.engine else { return None };
    let revision = observed.job.as_ref()?.status.as_ref()?.current_revision?;
    (engine.state == "RUNNING").then_some(revision)
}

fn in_progress(observed: &ObservedSavepoint, now: Timestamp, deleting: bool, draft: &mut Draft) {
    draft.requeue_after = SHORTLY;
    draft.why = "the savepoint is being taken";
    draft.verdict = Verdict::new(Truth::False, Reason::InProgress, "");
    match &observed.answer {
        Some(SavepointAnswer::Completed(taken)) => {
            draft.status.phase = SavepointPhase::Completed;
            draft.status.path = Some(taken.path.clone());
            draft.status.checkpoint_id = Some(taken.id);
            draft.status.size_bytes = taken.bytes;
            draft.status.completed_at = taken.completed_at.and_then(super::engine::time).or(Some(Time(now)));
            draft.verdict = complete(&draft.status);
            let event = Event { warning: false, reason: "SavepointCompleted".into(), note: taken.path.clone() };
            return draft.effects.push(SavepointEffect::Event(event));
        }
        Some(SavepointAnswer::Failed { reason } | SavepointAnswer::Refused { reason, terminal: true }) => {
            return fail(draft, now, reason);
        }
        Some(SavepointAnswer::Refused { reason, .. }) => {
            draft.verdict = Verdict::new(Truth::False, Reason::InProgress, format!("it has to wait: {reason}"));
        }
        _ => {}
    }
    let status = observed.job.as_ref().and_then(|job| job.status.as_ref());
    let timeout = status.and(observed.job.as_ref()).and_then(|job| job.spec.upgrade.as_ref());
    let timeout = timeout.map_or(600_000, |upgrade| upgrade.savepoint_timeout.millis());
    let started = draft.status.started_at.as_ref().map_or(now, |time| time.0);
    let elapsed = Duration::try_from(now.duration_since(started)).unwrap_or_default();
    if elapsed >= Duration::from_millis(timeout) {
        return fail(draft, now, &format!("it was not complete within {} s", timeout / 1000));
    }
    if observed.job.is_none() || status.is_some_and(|status| status.ended.is_some()) {
        return fail(draft, now, "the job ended before the savepoint was complete");
    }
    let known = matches!(observed.answer, Some(SavepointAnswer::InProgress));
    if let Some(revision) = running(observed).filter(|_| !known && !deleting)
        && let (Some(job), Some(trigger)) = (&observed.job, draft.status.trigger_id.clone())
    {
        let directory = Some(super::saving::directory(job, observed.spec.as_ref()));
        let call = EngineCall::Savepoint { trigger, directory };
        draft.effects.push(SavepointEffect::Engine { revision, call });
    } else if deleting && !known {
        fail(draft, now, "deleted before it was complete");
    }
}

/// The resource goes, and its files with it, unless somebody needs them.
fn delete(observed: &ObservedSavepoint, now: Timestamp, draft: &mut Draft) {
    let savepoint = &observed.savepoint;
    draft.verdict = Verdict::new(Truth::False, Reason::Deleting, "");
    let Some(path) = draft.status.path.clone().filter(|_| !savepoint.spec.retain) else {
        draft.why = "the files stay";
        return draft.effects.push(SavepointEffect::RemoveFinalizer);
    };
    if observed.namespace_terminating || place(observed, &draft.status).is_none() {
        draft.why = "nothing can delete the files";
        return leave(draft, &path, "there is no StreamJob that says where they lie, or its namespace goes");
    }
    let job = observed.job.as_ref().filter(|job| job.metadata.deletion_timestamp.is_none());
    if job.and_then(|job| job.status.as_ref()).is_some_and(|status| is_needed(observed, status, &path)) {
        draft.why = "a job has nothing else to go on from";
        draft.verdict = Verdict::new(Truth::True, Reason::InUse, "the job would go back to this savepoint");
        draft.requeue_after = NOW_AND_THEN;
        return;
    }
    draft.status.phase = SavepointPhase::Deleting;
    draft.status.started_at = Some(Time(now));
    draft.why = "the files are deleted";
}

fn leave(draft: &mut Draft, path: &str, reason: &str) {
    let note = format!("the files in {path} are left: {reason}");
    let event = Event { warning: true, reason: Reason::FilesLeft.name().into(), note };
    draft.effects.extend([SavepointEffect::Event(event), SavepointEffect::RemoveFinalizer]);
}

/// The spec that says how a pod reaches the files: as it was when the savepoint was complete, with what the job has
/// changed since, unless the job has another place by now, or is another one.
fn place(observed: &ObservedSavepoint, status: &SavepointStatus) -> Option<StreamJobSpec> {
    let live = live(observed);
    let recorded = status.files.as_ref().and_then(spec_of);
    match (recorded, live) {
        (Some(recorded), Some(live)) if storage_location(&recorded) == storage_location(live) => Some(live.clone()),
        (Some(recorded), _) => Some(recorded),
        (None, live) => live.cloned(),
    }
}

fn live(observed: &ObservedSavepoint) -> Option<&StreamJobSpec> {
    observed.spec.as_ref().or(observed.job.as_ref().map(|job| &job.spec))
}

/// Written down while there is a job that knows it.
fn record_files(observed: &ObservedSavepoint, draft: &mut Draft) {
    if draft.status.phase == SavepointPhase::Completed && draft.status.files.is_none() {
        draft.status.files = live(observed).and_then(files_of);
    }
}

fn dispose(observed: &ObservedSavepoint, settings: &Settings, now: Timestamp, draft: &mut Draft) {
    draft.requeue_after = SHORTLY;
    draft.why = "the files are being deleted";
    draft.verdict = Verdict::new(Truth::False, Reason::Deleting, "");
    let savepoint = &observed.savepoint;
    let path = draft.status.path.clone().unwrap_or_default();
    let started = draft.status.started_at.as_ref().map_or(now, |time| time.0);
    let late = Duration::try_from(now.duration_since(started)).unwrap_or_default() >= DISPOSAL;
    let phase = observed.dispose_pod.as_ref().and_then(|pod| pod.status.as_ref()?.phase.as_deref());
    let name = names::savepoint_dispose_pod(savepoint.metadata.name.as_deref().unwrap_or_default());
    let deletion = observed.dispose_pod.as_ref().map(|pod| {
        let uid = pod.metadata.uid.clone();
        SavepointEffect::Delete(Deletion { kind: ChildKind::Pod, name, uid, force: false })
    });
    match (phase, place(observed, &draft.status)) {
        (Some("Succeeded"), _) => {
            draft.effects.extend(deletion);
            draft.effects.push(SavepointEffect::RemoveFinalizer);
        }
        _ if late || observed.namespace_terminating => {
            draft.effects.extend(deletion);
            leave(draft, &path, "they could not be deleted in time");
        }
        (Some("Failed"), _) => draft.effects.extend(deletion),
        (None, None) => leave(draft, &path, "there is no StreamJob that says where they lie"),
        (None, Some(spec)) if observed.dispose_pod.is_none() => {
            let pod = savepoint_dispose_pod(savepoint, observed.job.as_ref(), &spec, &path, settings);
            draft.effects.push(SavepointEffect::Create(Child::Pod(Box::new(pod))));
        }
        _ => {}
    }
}

/// Whether the job would go back to this savepoint, as the engine says. The status says so as well, but is written now and
/// then only, and may be older than the savepoint.
fn restores(observed: &ObservedSavepoint, path: &str) -> Option<bool> {
    running(observed)?;
    let Some(EngineAnswer::Status(engine)) = &observed.engine else { return None };
    // One that a running job has taken is no restore point: an answer that is older than it says the same.
    Some(engine.restore_point.as_ref().is_some_and(|point| point.path == path))
}

fn is_needed(observed: &ObservedSavepoint, status: &StreamJobStatus, path: &str) -> bool {
    let restores = restores(observed, path);
    let taken = observed.savepoint.status.as_ref().and_then(|status| status.checkpoint_id);
    let newest = status.last_checkpoint.as_ref().map(|point| point.id);
    // Nobody says what the job would go back to: then it is the newest of what is known.
    let runs = status.current_revision.is_some() && status.ended.is_none() && !status.suspended;
    let may_be = restores.is_none() && runs && taken.is_some() && taken >= newest;
    restores == Some(true) || may_be || needs(status, path, restores == Some(false))
}

/// The job has nothing newer to go on from, or would go back to it. `has_newer`: though the status does not say so yet.
fn needs(status: &StreamJobStatus, path: &str, has_newer: bool) -> bool {
    let same = |point: Option<&crate::api::status::RestorePoint>| {
        point.is_some_and(|point| point.path.as_deref() == Some(path))
    };
    let waits = status.suspended || status.ended.is_some();
    let newer = status.last_checkpoint.as_ref().map(|point| point.id);
    let last = status.last_savepoint.as_ref();
    same(status.operation.as_ref().and_then(|operation| operation.restore_point.as_ref()))
        || same(status.trial.as_ref().and_then(|trial| trial.restore_point.as_ref()))
        || same(status.ended.as_ref().and_then(|ended| ended.restore_point.as_ref()))
        || (same(last) && (waits || (!has_newer && newer <= last.map(|point| point.id))))
}

/// The status speaks of these files, be it in its history.
pub(super) fn refers_to(status: &StreamJobStatus, path: &str) -> bool {
    let past = |entry: &crate::api::status::HistoryEntry| {
        entry.restore_point.as_ref().is_some_and(|point| point.path.as_deref() == Some(path))
    };
    let last = status.last_savepoint.as_ref().is_some_and(|point| point.path.as_deref() == Some(path));
    needs(status, path, false) || last || status.history.iter().any(past)
}
