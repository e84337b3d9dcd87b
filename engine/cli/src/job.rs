//! A job file on its way to something that runs: reading, configuring, planning.

use crate::error::CliError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use streamjob_api::config::{CheckpointMode, JobConfig, RestoreSource};
use streamjob_api::{Platform, StreamJob};
use streamjob_dataflow::graph::{ExecutionGraph, Guarantee};
use streamjob_protocol::key_groups::default_max_parallelism;
use streamjob_runtime::Planner;

pub struct JobFile {
    pub path: PathBuf,
    pub text: String,
    pub job: StreamJob,
}

impl JobFile {
    pub fn read(path: &Path) -> Result<JobFile, CliError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| CliError::ReadJob { path: path.to_owned(), reason: error.to_string() })?;
        JobFile::parse(path, text)
    }

    /// `path` is only for messages.
    pub fn parse(path: &Path, text: String) -> Result<JobFile, CliError> {
        let job = streamjob_api::parse(&text).map_err(|source| CliError::Job { path: path.to_owned(), source })?;
        Ok(JobFile { path: path.to_owned(), text, job })
    }

    /// Applies defaults and this process's environment. `checkpoints` is where checkpoints go if the job does not say.
    pub fn configure(&self, checkpoints: &Path) -> Result<JobConfig, CliError> {
        self.configure_on(Platform::Local, checkpoints)
    }

    pub fn configure_on(&self, platform: Platform, checkpoints: &Path) -> Result<JobConfig, CliError> {
        let directory = checkpoints.to_string_lossy();
        let environment = |name: &str| std::env::var(name).ok();
        let mut config = streamjob_api::resolve(&self.job, platform, &directory, &environment)
            .map_err(|source| CliError::Job { path: self.path.clone(), source })?;
        if let Some(RestoreSource::Path(path)) = config.restore_from.as_mut().map(|from| &mut from.source) {
            *path = absolute(path);
        }
        config.savepoint_dir = config.savepoint_dir.map(|path| absolute(&path));
        Ok(config)
    }

    pub fn plan(&self, config: &JobConfig, max_parallelism: u32) -> Result<ExecutionGraph, CliError> {
        let failed = |source| CliError::Plan { path: self.path.clone(), source };
        streamjob_sql::plan(&config.sql, config.parallelism, &streamjob_connectors::all())
            .and_then(|graph| graph.into_execution(max_parallelism))
            .map_err(failed)
    }

    /// Plans this file's job at any parallelism and max parallelism.
    pub fn planner(self, config: &JobConfig) -> Planner {
        let config = config.clone();
        Arc::new(move |parallelism, max_parallelism| {
            let config = JobConfig { parallelism, ..config.clone() };
            self.plan(&config, max_parallelism).map_err(|error| error.to_string())
        })
    }
}

/// What the job file asks for, or what follows from its parallelism.
pub fn wanted_max_parallelism(config: &JobConfig) -> u32 {
    config.explicit_max_parallelism.unwrap_or_else(|| default_max_parallelism(config.parallelism))
}

/// The weakest of sources, sinks and the engine's mode.
pub fn guarantee(graph: &ExecutionGraph, config: &JobConfig) -> Guarantee {
    let engine = match (config.checkpoint.interval_ms, config.checkpoint.mode) {
        (None, _) => Guarantee::AtMostOnce,
        (Some(_), CheckpointMode::AtLeastOnce) => Guarantee::AtLeastOnce,
        (Some(_), CheckpointMode::ExactlyOnce) => Guarantee::ExactlyOnce,
    };
    graph.graph.guarantee.map_or(engine, |connectors| connectors.min(engine))
}

pub fn guarantee_name(guarantee: Guarantee) -> &'static str {
    match guarantee {
        Guarantee::AtMostOnce => "at-most-once",
        Guarantee::AtLeastOnce => "at-least-once",
        Guarantee::ExactlyOnce => "exactly-once",
    }
}

/// Paths on this machine become absolute; addresses stay as they are.
pub fn absolute(path: &str) -> String {
    let local = path.strip_prefix("file://").unwrap_or(path);
    if local.contains("://") {
        return path.to_owned();
    }
    std::path::absolute(local).map_or_else(|_| path.to_owned(), |absolute| absolute.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_paths_become_absolute() {
        assert_eq!(absolute("s3://bucket/a/chk-1"), "s3://bucket/a/chk-1");
        assert_eq!(absolute("/a/chk-1"), "/a/chk-1");
        assert_eq!(absolute("file:///a/chk-1"), "/a/chk-1");
        assert!(absolute("a/chk-1").starts_with('/'));
        assert!(absolute("a/chk-1").ends_with("/a/chk-1"));
    }
}
