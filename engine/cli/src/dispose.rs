//! `dispose`: deletes what a job left behind, in a pod of its own. Needs no running job, and does no harm when it is done
//! again.

use crate::arguments::DisposeArguments;
use crate::error::CliError;
use crate::job::JobFile;
use crate::roles;
use crate::termination;
use std::process::ExitCode;
use streamjob_runtime::RuntimeError;
use streamjob_runtime::storage::{Storage, dispose};

/// Something is left; the same again may delete it.
const LEFT: u8 = 1;

pub fn run(arguments: &DisposeArguments) -> Result<ExitCode, CliError> {
    roles::log_to_stderr();
    roles::exit_when_told()?;
    Ok(match delete(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            termination::end(termination::of_error(&error), &error.to_string());
            ExitCode::from(LEFT)
        }
    })
}

fn delete(arguments: &DisposeArguments) -> Result<(), CliError> {
    let file = JobFile::read(&arguments.job)?;
    // Values of secrets are not needed for this, and not there.
    let config = streamjob_api::storage_of(&file.job, &arguments.checkpoints.to_string_lossy());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Process(format!("cannot start its event loop: {error}")))?;
    let what = &arguments.what;
    let deleted: Result<(), RuntimeError> = runtime.block_on(async {
        if let Some(path) = &what.savepoint {
            // Of no job's life in particular.
            dispose::savepoint(&Storage::open(&config, "dispose")?, path).await
        } else if let Some(job_id) = &what.job_id {
            dispose::job(&config, job_id).await
        } else {
            dispose::all(&config).await
        }
    });
    deleted?;
    tracing::info!(savepoint = what.savepoint, job_id = what.job_id, all = what.all, "deleted");
    Ok(())
}
