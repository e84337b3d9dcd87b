//! Savepoints that the operator itself makes resources of: by the job's schedule, and for each stop with a savepoint. Their
//! names derive from what they are for, so whoever comes second makes the same one. How many stay is decided here as well.

use super::context::Context;
use super::draft::Draft;
use super::effect::Effect;
use super::garbage::is_referred_to;
use crate::api::savepoint::SavepointFormat;
use crate::api::status::{Operation, OperationKind, Scheduled};
use crate::api::{Savepoint, SavepointPhase, SavepointSpec};
use crate::resources::{self, JOB};
use chrono::{DateTime, Utc};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;
use streamjob_api::spec::LocalReference;

/// Why a savepoint was taken, if the operator took it.
pub const TRIGGER: &str = "streamjob.dev/trigger";
const BY_SCHEDULE: &str = "schedule";
const BY_UPGRADE: &str = "upgrade";
const KEPT_OF_UPGRADES: usize = 10;

pub fn plan(context: &Context, draft: &mut Draft) {
    retain_upgrades(context, draft);
    let Some(savepoints) = &context.spec.savepoints else {
        draft.status.schedule = None;
        return;
    };
    if let Some(retain) = &savepoints.retain {
        let kept = retain.count.map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX));
        let age = retain.age.map(|age| Duration::from_millis(age.millis()));
        for (index, savepoint) in triggered(context, BY_SCHEDULE).into_iter().enumerate() {
            let young = age.is_some_and(|age| context.elapsed(created(savepoint)) < age);
            if index >= kept && !young {
                delete(context, draft, savepoint);
            }
        }
    }
    let Ok(cron) = resources::schedule(&savepoints.schedule) else { return };
    let Some(now) = DateTime::<Utc>::from_timestamp(context.now.as_second(), 0) else { return };
    if let Ok(next) = cron.find_next_occurrence(&now, false) {
        let until = u64::try_from((next - now).num_seconds()).unwrap_or(0);
        draft.requeue(Duration::from_secs(until.max(1)));
    }
    let Some(due) =
        cron.find_previous_occurrence(&now, true).ok().and_then(|due| Timestamp::from_second(due.timestamp()).ok())
    else {
        return;
    };
    let Some(known) = &context.status.schedule else {
        // A schedule counts from when it is first seen.
        draft.status.schedule = Some(Scheduled { due: Time(due), pending: false });
        return;
    };
    if known.due.0 < due {
        draft.status.schedule = Some(Scheduled { due: Time(due), pending: true });
        return;
    }
    if !known.pending {
        return;
    }
    let name = format!("{}-at-{}", context.name(), known.due.0.as_second() / 60);
    if context.observed.savepoints.iter().any(|savepoint| savepoint.metadata.name.as_ref() == Some(&name)) {
        draft.status.schedule = Some(Scheduled { due: known.due.clone(), pending: false });
    } else if context.operation().is_none() && context.current_engine().is_running() {
        draft.because("a savepoint is due by the schedule");
        draft.effect(Effect::CreateSavepoint(Box::new(resource(context, name, BY_SCHEDULE, None))));
    }
}

/// Makes a resource of the savepoint that an operation has taken. Whether that has yet to be seen.
pub fn record(context: &Context, operation: &Operation, draft: &mut Draft) -> bool {
    let takes = !matches!(operation.kind, OperationKind::Start | OperationKind::Resume | OperationKind::Rollback);
    let point = operation.restore_point.as_ref().filter(|point| takes && point.savepoint);
    let Some(path) = point.and_then(|point| point.path.clone()) else { return false };
    record_files(context, &operation.id, path, draft)
}

/// Makes a resource of a savepoint that an operation has taken, be it one that is over. Whether that has yet to be seen.
pub fn record_files(context: &Context, operation: &str, path: String, draft: &mut Draft) -> bool {
    let known = |savepoint: &Savepoint| {
        savepoint.spec.path.as_ref() == Some(&path)
            || savepoint.status.as_ref().and_then(|status| status.path.as_ref()) == Some(&path)
    };
    if context.observed.savepoints.iter().any(known) {
        return false;
    }
    let id: String = operation.chars().take(8).collect();
    let name = format!("{}-{}", context.name(), id);
    draft.effect(Effect::CreateSavepoint(Box::new(resource(context, name, BY_UPGRADE, Some(path)))));
    true
}

fn resource(context: &Context, name: String, trigger: &str, path: Option<String>) -> Savepoint {
    let job_ref = LocalReference { name: context.name().to_owned() };
    let spec = SavepointSpec { job_ref, path, format: SavepointFormat::Canonical, retain: false };
    let mut savepoint = Savepoint::new(&name, spec);
    savepoint.metadata.namespace.clone_from(&context.observed.job.metadata.namespace);
    savepoint.metadata.labels =
        Some([(JOB.to_owned(), context.name().to_owned()), (TRIGGER.to_owned(), trigger.to_owned())].into());
    savepoint
}

/// Of this job, made for this reason, not being deleted; newest first.
fn triggered<'a>(context: &'a Context, trigger: &str) -> Vec<&'a Savepoint> {
    let ours = |savepoint: &&Savepoint| {
        let labels = savepoint.metadata.labels.as_ref();
        savepoint.spec.job_ref.name == context.name()
            && savepoint.metadata.deletion_timestamp.is_none()
            && labels.and_then(|labels| labels.get(TRIGGER)).is_some_and(|found| found == trigger)
    };
    let mut all: Vec<&Savepoint> = context.observed.savepoints.iter().filter(ours).collect();
    all.sort_by_key(|savepoint| std::cmp::Reverse((created(savepoint), savepoint.metadata.name.clone())));
    all
}

fn created(savepoint: &Savepoint) -> Timestamp {
    savepoint.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

fn retain_upgrades(context: &Context, draft: &mut Draft) {
    for savepoint in triggered(context, BY_UPGRADE).into_iter().skip(KEPT_OF_UPGRADES) {
        delete(context, draft, savepoint);
    }
}

fn delete(context: &Context, draft: &mut Draft, savepoint: &Savepoint) {
    let phase = savepoint.status.as_ref().map(|status| status.phase).unwrap_or_default();
    let over = matches!(phase, SavepointPhase::Completed | SavepointPhase::Failed);
    if over && !is_referred_to(context, savepoint) {
        draft.effect(Effect::DeleteSavepoint { name: savepoint.metadata.name.clone().unwrap_or_default() });
    }
}
