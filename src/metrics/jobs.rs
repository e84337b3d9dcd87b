//! The series of one job: from its resource and from what its coordinators said.

use super::{Scrape, docs};
use crate::api::StreamJob;
use crate::api::conditions::Truth;
use crate::engine::Tally;
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::HashSet;
use std::sync::Arc;

/// What is known of a job at the moment of a scrape.
pub struct JobView {
    pub job: Arc<StreamJob>,
    pub tally: Option<Tally>,
    /// Whether its coordinator answers, if there is a pod of one.
    pub reachable: Option<bool>,
    pub now: Timestamp,
}

pub(super) fn add(view: &JobView, scrape: &mut Scrape) -> prometheus::Result<()> {
    let namespace = view.job.namespace().unwrap_or_default();
    let name = view.job.name_any();
    let own: [&str; 2] = [&namespace, &name];
    let with = |more: &[&'static str]| [own.as_slice(), more].concat();
    let number = |value: i64| value.to_string();
    if let Some(status) = &view.job.status {
        let revision = status.current_revision.map(number).unwrap_or_default();
        let job_id = status.job_id.as_deref().unwrap_or_default();
        let guarantee = status.guarantee.as_deref().unwrap_or_default();
        scrape.add(&docs::INFO, &[own[0], own[1], &revision, job_id, guarantee], 1.0)?;
        if !status.state.is_empty() {
            scrape.add(&docs::STATE, &[own[0], own[1], &status.state], 1.0)?;
        }
        for condition in &status.conditions {
            for (truth, text) in [(Truth::True, "True"), (Truth::False, "False"), (Truth::Unknown, "Unknown")] {
                let holds = f64::from(u8::from(condition.status == truth));
                scrape.add(&docs::CONDITION, &[own[0], own[1], &condition.type_, text], holds)?;
            }
        }
        if let Some(parallelism) = status.parallelism {
            scrape.add(&docs::PARALLELISM, &own, f64::from(parallelism))?;
        }
        scrape.add(&docs::RESTARTS, &own, status.restarts.max(0) as f64)?;
        if let Some(operation) = &status.operation {
            let (kind, step) = (format!("{:?}", operation.kind), format!("{:?}", operation.step));
            let began = operation.started_at.0.as_millisecond() as f64 / 1000.0;
            scrape.add(&docs::OPERATION, &[own[0], own[1], &kind, &step], began)?;
        }
        // The newest first.
        let mut kinds = HashSet::new();
        for entry in &status.history {
            if let Some(downtime) = entry.downtime_ms
                && kinds.insert(entry.kind)
            {
                let kind = format!("{:?}", entry.kind);
                scrape.add(&docs::DOWNTIME, &[own[0], own[1], &kind], downtime as f64 / 1000.0)?;
            }
        }
    }
    if let Some(reachable) = view.reachable {
        scrape.add(&docs::REACHABLE, &own, f64::from(u8::from(reachable)))?;
    }
    let engine = view.tally.as_ref().and_then(|tally| tally.status.as_ref());
    let recorded = view.job.status.as_ref();
    let checkpoint = recorded.and_then(|status| status.last_checkpoint.as_ref());
    let checkpoints = engine.map(|engine| &engine.checkpoints).filter(|checkpoints| checkpoints.last_id.is_some());
    // What the coordinator said is newer than what was written down; a new operator has only the latter.
    let milliseconds = |value: i64| value as f64 / 1000.0;
    let completed = checkpoints
        .and_then(|checkpoints| checkpoints.last_completed_at)
        .or_else(|| Some(checkpoint?.completed_at.as_ref()?.0.as_millisecond()));
    if let Some(completed) = completed {
        scrape.add(&docs::CHECKPOINT_COMPLETED, &own, milliseconds(completed))?;
        let age = (view.now.as_millisecond() - completed).max(0);
        scrape.add(&docs::CHECKPOINT_AGE, &own, milliseconds(age))?;
    }
    let duration = checkpoints.and_then(|checkpoints| checkpoints.last_duration_ms).or_else(|| checkpoint?.duration_ms);
    if let Some(duration) = duration {
        scrape.add(&docs::CHECKPOINT_DURATION, &own, milliseconds(duration))?;
    }
    if let Some(bytes) = checkpoints.and_then(|checkpoints| checkpoints.last_bytes_new) {
        scrape.add(&docs::CHECKPOINT_SIZE, &own, bytes as f64)?;
    }
    let full = checkpoints.and_then(|checkpoints| checkpoints.last_bytes_total).or_else(|| checkpoint?.size_bytes);
    if let Some(bytes) = full {
        scrape.add(&docs::CHECKPOINT_FULL_SIZE, &own, bytes as f64)?;
    }
    if let Some(engine) = engine {
        scrape.add(&docs::CHECKPOINTS_COMPLETED, &own, engine.checkpoints.completed.max(0) as f64)?;
        if let Some(duration) = engine.restore_duration_ms {
            scrape.add(&docs::RESTORE_DURATION, &own, milliseconds(duration))?;
        }
    }
    if let Some(tally) = &view.tally {
        for (reason, count) in &tally.failed {
            scrape.add(&docs::CHECKPOINTS_FAILED, &with(&[reason]), *count as f64)?;
        }
        if let Some(rewind) = tally.rewind_seconds {
            scrape.add(&docs::REWIND, &own, rewind)?;
        }
    }
    let saved = recorded.and_then(|status| status.last_savepoint.as_ref()?.completed_at.as_ref());
    if let Some(saved) = saved {
        scrape.add(&docs::SAVEPOINT_COMPLETED, &own, milliseconds(saved.0.as_millisecond()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::StreamJobStatus;
    use crate::metrics::{Counts, Metrics};
    use serde_json::json;

    fn view() -> JobView {
        let mut job = StreamJob::new("j", serde_json::from_value(json!({ "program": { "sql": "x" } })).unwrap());
        job.metadata.namespace = Some("n".into());
        let status: StreamJobStatus = serde_json::from_value(json!({
            "state": "Running", "currentRevision": 3, "jobId": "abc", "parallelism": 2, "restarts": 4,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Running", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "lastCheckpoint": { "id": 7, "completedAt": "2026-01-01T00:00:00Z", "durationMs": 120, "sizeBytes": 99 },
            "history": [
                { "id": "b", "kind": "Upgrade", "result": "Succeeded", "downtimeMs": 1500,
                  "startedAt": "2026-01-01T00:00:00Z", "completedAt": "2026-01-01T00:00:10Z" },
                { "id": "a", "kind": "Upgrade", "result": "Succeeded", "downtimeMs": 9000,
                  "startedAt": "2026-01-01T00:00:00Z", "completedAt": "2026-01-01T00:00:10Z" },
            ],
        }))
        .unwrap();
        job.status = Some(status);
        JobView {
            job: Arc::new(job),
            tally: None,
            reachable: Some(false),
            now: "2026-01-01T00:01:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn what_is_written_down_is_shown_without_a_coordinator() {
        let text = Metrics::new().unwrap().text(Counts::default(), [view()]).unwrap();
        for line in [
            r#"streamjob_operator_job_info{guarantee="",job="j",job_id="abc",namespace="n",revision="3"} 1"#,
            r#"streamjob_operator_job_state{job="j",namespace="n",state="Running"} 1"#,
            r#"streamjob_operator_job_condition{job="j",namespace="n",status="True",type="Ready"} 1"#,
            r#"streamjob_operator_job_condition{job="j",namespace="n",status="False",type="Ready"} 0"#,
            r#"streamjob_operator_job_checkpoint_age_seconds{job="j",namespace="n"} 60"#,
            r#"streamjob_operator_job_checkpoint_last_duration_seconds{job="j",namespace="n"} 0.12"#,
            r#"streamjob_operator_job_upgrade_downtime_seconds{job="j",kind="Upgrade",namespace="n"} 1.5"#,
            r#"streamjob_operator_job_restarts_total{job="j",namespace="n"} 4"#,
            r#"streamjob_operator_job_coordinator_reachable{job="j",namespace="n"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn what_the_coordinator_said_is_newer() {
        let mut tally = Tally::default();
        let status = json!({
            "revision": 3, "running_since": 1, "restore_duration_ms": 250,
            "checkpoints": {
                "completed": 5, "failed": 1, "last_id": 8, "last_completed_at": 1_767_225_650_000_i64, "last_bytes_new": 10,
                "last_failure": "expired",
            },
        });
        tally.learned(&serde_json::from_value(status).unwrap(), view().now);
        let view = JobView { tally: Some(tally), ..view() };
        let text = Metrics::new().unwrap().text(Counts::default(), [view]).unwrap();
        for line in [
            r#"streamjob_operator_job_checkpoint_age_seconds{job="j",namespace="n"} 10"#,
            r#"streamjob_operator_job_checkpoint_last_size_bytes{job="j",namespace="n"} 10"#,
            r#"streamjob_operator_job_checkpoints_failed_total{job="j",namespace="n",reason="Expired"} 1"#,
            r#"streamjob_operator_job_restore_duration_seconds{job="j",namespace="n"} 0.25"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn names_cannot_break_the_format() {
        let mut view = view();
        Arc::make_mut(&mut view.job).metadata.name = Some("a\"b\\c\nd".into());
        let text = Metrics::new().unwrap().text(Counts::default(), [view]).unwrap();
        assert!(text.contains(r#"streamjob_operator_job_restarts_total{job="a\"b\\c\nd",namespace="n"} 4"#), "{text}");
        let help = "# TYPE streamjob_operator_job_restarts_total counter\nstreamjob_operator_job_restarts_total{";
        assert!(text.contains(help), "{text}");
    }

    #[test]
    fn series_go_with_the_job() {
        let metrics = Metrics::new().unwrap();
        assert!(metrics.text(Counts::default(), [view()]).unwrap().contains("streamjob_operator_job_"));
        assert!(!metrics.text(Counts::default(), []).unwrap().contains("streamjob_operator_job_"));
    }
}
