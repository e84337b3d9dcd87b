//! The table of metrics: names, labels and meanings, for the code and for the page of documentation.

/// One metric.
#[derive(Debug)]
pub struct Doc {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub const $constant: Doc = Doc { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        pub const ALL: &[Doc] = &[$($constant),*];
    };
}

metrics! {
    RECONCILES = Counter "streamjob_operator_reconcile_total" ["controller", "result"]
        "Reconciles by result: done, conflict, error, waiting (left alone for a while after errors), canceled.";
    DURATION = Histogram "streamjob_operator_reconcile_duration_seconds" ["controller"] "Durations of reconciles.";
    ERRORS = Counter "streamjob_operator_reconcile_errors_total" ["controller", "reason"]
        "Failed reconciles by reason.";
    IN_FLIGHT = Gauge "streamjob_operator_reconcile_in_flight" ["controller"] "Reconciles under way.";
    BACKOFF = Gauge "streamjob_operator_backoff_objects" [] "Objects that failed and wait to be tried again.";
    OBJECTS = Gauge "streamjob_operator_objects" ["kind"] "Resources that the operator looks after.";
    COORDINATORS = Gauge "streamjob_operator_coordinators_followed" []
        "Coordinator pods whose status is followed; 0 on replicas that stand by.";
    API_REQUESTS = Counter "streamjob_operator_api_requests_total" ["verb", "resource", "code"]
        "Requests to the API server; code is none where no answer came.";
    WATCH_ERRORS = Counter "streamjob_operator_watch_errors_total" ["resource"]
        "Watches that were interrupted by an error.";
    SYNCED = Gauge "streamjob_operator_synced" [] "1 once every watch has listed what there is.";
    LEADER = Gauge "streamjob_operator_leader" [] "1 on the replica that acts.";
    BUILD = Gauge "streamjob_operator_build_info" ["version"] "Always 1.";
    MEMORY = Gauge "process_resident_memory_bytes" [] "Memory of the operator's process.";

    INFO = Gauge "streamjob_operator_job_info" ["namespace", "job", "revision", "job_id", "guarantee"]
        "Always 1: the revision that has the job's state, the engine's name of the job, and what it guarantees end to end.";
    STATE = Gauge "streamjob_operator_job_state" ["namespace", "job", "state"] "1 for the state that status shows.";
    CONDITION = Gauge "streamjob_operator_job_condition" ["namespace", "job", "type", "status"]
        "1 for the status that each condition has, 0 for the others.";
    PARALLELISM = Gauge "streamjob_operator_job_parallelism" ["namespace", "job"] "Subtasks of each operator.";
    REACHABLE = Gauge "streamjob_operator_job_coordinator_reachable" ["namespace", "job"]
        "1 while the coordinator answers; absent while there is no pod of one.";
    CHECKPOINT_DURATION = Gauge "streamjob_operator_job_checkpoint_last_duration_seconds" ["namespace", "job"]
        "Trigger to journal entry of the newest completed checkpoint.";
    CHECKPOINT_SIZE = Gauge "streamjob_operator_job_checkpoint_last_size_bytes" ["namespace", "job"]
        "Bytes written for the newest completed checkpoint.";
    CHECKPOINT_FULL_SIZE = Gauge "streamjob_operator_job_checkpoint_last_full_size_bytes" ["namespace", "job"]
        "Bytes that the newest completed checkpoint refers to.";
    CHECKPOINT_COMPLETED = Gauge "streamjob_operator_job_checkpoint_last_completed_timestamp_seconds" ["namespace", "job"]
        "Unix time at which the newest checkpoint completed.";
    CHECKPOINT_AGE = Gauge "streamjob_operator_job_checkpoint_age_seconds" ["namespace", "job"]
        "Time since the newest checkpoint completed: how far back a failure now would set the job.";
    CHECKPOINTS_COMPLETED = Counter "streamjob_operator_job_checkpoints_completed_total" ["namespace", "job"]
        "Completed checkpoints since the coordinator started.";
    CHECKPOINTS_FAILED = Counter "streamjob_operator_job_checkpoints_failed_total" ["namespace", "job", "reason"]
        "Failed checkpoints that this operator saw, by reason: Expired, TaskFailed, Declined, Storage, Other.";
    RESTORE_DURATION = Gauge "streamjob_operator_job_restore_duration_seconds" ["namespace", "job"]
        "From the deployment of all tasks until all of them ran, the last time.";
    REWIND = Gauge "streamjob_operator_job_rewind_seconds" ["namespace", "job"]
        "By how much of its work the last restore set the job back; 0 after a stop with a savepoint.";
    DOWNTIME = Gauge "streamjob_operator_job_upgrade_downtime_seconds" ["namespace", "job", "kind"]
        "From the end of the old revision's work to the start of the new one's, by kind of operation, the last time.";
    RESTARTS = Counter "streamjob_operator_job_restarts_total" ["namespace", "job"]
        "Restarts by the restart strategy, over all revisions.";
    SAVEPOINT_COMPLETED = Gauge "streamjob_operator_job_savepoint_last_completed_timestamp_seconds" ["namespace", "job"]
        "Unix time at which the newest savepoint completed.";
    OPERATION = Gauge "streamjob_operator_job_operation_started_timestamp_seconds" ["namespace", "job", "kind", "step"]
        "Unix time at which the operation under way began; absent without one.";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> String {
        let mut text = String::from(
            "# Metrics of the operator\n\n\
             Generated by `make docs`. The operator serves `/metrics` in Prometheus' text format. What begins with\n\
             `streamjob_operator_job_` is of one job each, comes from the replica that is the leader alone, is there also while\n\
             the job's coordinator is not, and goes with the resource. The job's own processes have more: see [metrics.md](metrics.md).\n\n\
             | name | type | labels | meaning |\n|---|---|---|---|\n",
        );
        for doc in ALL {
            let kind = format!("{:?}", doc.kind).to_lowercase();
            text += &format!("| `{}` | {kind} | {} | {} |\n", doc.name, doc.labels.join(", "), doc.help);
        }
        text
    }

    #[test]
    fn the_documentation_of_metrics_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operator-metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page(), "run `make docs`");
    }

    #[test]
    fn names_are_in_base_units_and_not_the_engines() {
        let engine =
            std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
        for doc in ALL {
            assert_eq!(doc.name.ends_with("_total"), doc.kind == Kind::Counter, "{}", doc.name);
            assert!(!doc.name.contains("_ms"), "{}", doc.name);
            assert!(!engine.contains(&format!("`{}`", doc.name)), "{} is the engine's", doc.name);
            assert!(doc.help.ends_with('.'), "{}", doc.name);
        }
    }
}
