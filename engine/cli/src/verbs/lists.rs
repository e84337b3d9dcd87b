//! `list`: the jobs that a coordinator runs, which is one.

use super::{Target, print, table};
use crate::arguments::ListArguments;
use crate::error::CliError;
use crate::format::{duration_ms, time};
use streamjob_api::rest::jobs::MultipleJobsDetails;

pub async fn list(arguments: &ListArguments) -> Result<(), CliError> {
    let target = Target::find(&arguments.target).await?;
    let jobs: MultipleJobsDetails =
        target.client.get("/v1/jobs/overview").await.map_err(|error| target.failed(error.to_string()))?;
    print(arguments.target.output, &jobs, || text(&jobs));
    Ok(())
}

fn text(jobs: &MultipleJobsDetails) -> String {
    let rows: Vec<Vec<String>> = jobs
        .jobs
        .iter()
        .map(|job| {
            let running = job.tasks.get("running").copied().unwrap_or(0);
            let total = job.tasks.get("total").copied().unwrap_or(0);
            vec![
                job.jid.clone(),
                job.name.clone(),
                job.state.clone(),
                format!("{running}/{total}"),
                time(job.start_time),
                duration_ms(job.duration),
            ]
        })
        .collect();
    table(&["job", "name", "state", "tasks running", "started", "for"], &rows)
}
