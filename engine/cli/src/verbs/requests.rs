//! `savepoint`, `stop`, `cancel`, `rescale`: ask, wait for the end, say how it went.
//!
//! The request's id is made here, or given by the caller: an answer that got lost, or a coordinator that died in between,
//! does not make two requests of one.

use super::{Target, print};
use crate::arguments::{CancelArguments, RescaleArguments, SavepointArguments, StopArguments};
use crate::client::{Client, RestError};
use crate::error::CliError;
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::{Duration, Instant};
use streamjob_api::rest::SerializedThrowable;
use streamjob_api::rest::jobs::JobStatusInfo;
use streamjob_api::rest::operations::{
    Operation, RescaleRequest, RescaleResult, SavepointRequest, SavepointResult, StopRequest, TriggerResponse,
};

/// A coordinator elsewhere that has not answered for so long has ended with its job.
const GONE: Duration = Duration::from_secs(10);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SavepointReport<'a> {
    job_id: &'a str,
    trigger_id: &'a str,
    location: &'a str,
}

pub async fn savepoint(arguments: &SavepointArguments) -> Result<(), CliError> {
    let target = Target::find(&arguments.target).await?;
    let trigger = trigger_id(arguments.trigger_id.as_deref());
    let request = SavepointRequest {
        target_directory: arguments.directory.as_deref().map(absolute),
        cancel_job: None,
        format_type: None,
        trigger_id: Some(trigger.clone()),
    };
    let timeout = Duration::from_secs(arguments.timeout);
    let location = take_savepoint(&target, "/savepoints", &request, &trigger, timeout).await?;
    let report = SavepointReport { job_id: &target.job_id, trigger_id: &trigger, location: &location };
    print(arguments.target.output, &report, || format!("savepoint: {location}\n"));
    Ok(())
}

pub async fn stop(arguments: &StopArguments) -> Result<(), CliError> {
    let target = Target::find(&arguments.target).await?;
    let trigger = trigger_id(arguments.trigger_id.as_deref());
    let request = StopRequest {
        target_directory: arguments.savepoint_dir.as_deref().map(absolute),
        drain: Some(arguments.drain),
        format_type: None,
        trigger_id: Some(trigger.clone()),
    };
    let timeout = Duration::from_secs(arguments.timeout);
    let location = take_savepoint(&target, "/stop", &request, &trigger, timeout).await?;
    let report = SavepointReport { job_id: &target.job_id, trigger_id: &trigger, location: &location };
    print(arguments.target.output, &report, || format!("stopped, savepoint: {location}\n"));
    Ok(())
}

async fn take_savepoint(
    target: &Target,
    path: &str,
    request: &impl Serialize,
    trigger: &str,
    timeout: Duration,
) -> Result<String, CliError> {
    let poll = target.path(&format!("/savepoints/{trigger}"));
    let result: SavepointResult =
        to_the_end(target, "the savepoint", timeout, &target.path(path), request, &poll).await?;
    match (result.location, result.failure_cause) {
        (Some(location), None) => Ok(location),
        (_, cause) => Err(target.failed(format!("no savepoint: {}", because(cause.as_ref())))),
    }
}

pub async fn rescale(arguments: &RescaleArguments) -> Result<(), CliError> {
    let target = Target::find(&arguments.target).await?;
    let trigger = trigger_id(arguments.trigger_id.as_deref());
    let request = RescaleRequest { parallelism: arguments.parallelism, trigger_id: Some(trigger.clone()) };
    let poll = format!("/v1/rescale/{trigger}");
    let timeout = Duration::from_secs(arguments.timeout);
    let what = "the change of parallelism";
    let result: RescaleResult = to_the_end(&target, what, timeout, "/v1/rescale", &request, &poll).await?;
    let Some(parallelism) = result.parallelism else {
        return Err(
            target.failed(format!("the parallelism was not changed: {}", because(result.failure_cause.as_ref())))
        );
    };
    let report = serde_json::json!({ "jobId": target.job_id, "triggerId": trigger, "parallelism": parallelism });
    print(arguments.target.output, &report, || format!("runs at parallelism {parallelism}\n"));
    Ok(())
}

pub async fn cancel(arguments: &CancelArguments) -> Result<(), CliError> {
    let target = Target::find(&arguments.target).await?;
    let path = target.path("?mode=cancel");
    let _: serde_json::Value = target
        .patiently(super::ABSENCE, async |client: &Client| client.send(Method::PATCH, &path, None::<&()>).await)
        .await?;
    let poll = target.path("/status");
    let mut absent_since: Option<Instant> = None;
    let state = target
        .until("cancelling", Duration::from_secs(arguments.timeout), async |client: &Client| {
            match client.get::<JobStatusInfo>(&poll).await {
                Ok(info) => {
                    absent_since = None;
                    let over = matches!(info.status.as_str(), "CANCELED" | "FAILED" | "FINISHED");
                    Ok(over.then_some(info.status))
                }
                // A coordinator whose job has ended does not stay; one that crashed comes back.
                Err(RestError::Unreachable(_)) => {
                    let absent = absent_since.get_or_insert_with(Instant::now).elapsed();
                    Ok((target.run_has_ended() || absent >= GONE).then(|| "CANCELED".to_owned()))
                }
                Err(error) => Err(error),
            }
        })
        .await?;
    if state != "CANCELED" {
        return Err(target.failed(format!("the job ended as {state} before it was cancelled")));
    }
    let report = serde_json::json!({ "jobId": target.job_id, "state": state });
    print(arguments.target.output, &report, || "cancelled\n".to_owned());
    Ok(())
}

/// Asks, and polls until it has ended. A coordinator that died before it wrote the request down is asked again.
async fn to_the_end<T: DeserializeOwned>(
    target: &Target,
    what: &str,
    timeout: Duration,
    path: &str,
    request: &impl Serialize,
    poll: &str,
) -> Result<T, CliError> {
    let ask = async |client: &Client| client.send::<TriggerResponse>(Method::POST, path, Some(request)).await;
    target.patiently(super::ABSENCE, ask).await?;
    target
        .until(what, timeout, async |client: &Client| match client.get::<Operation<T>>(poll).await {
            Ok(operation) => Ok(operation.operation),
            Err(RestError::Refused { status: 404, .. }) => ask(client).await.map(|_| None),
            Err(error) => Err(error),
        })
        .await
}

fn because(cause: Option<&SerializedThrowable>) -> &str {
    cause.map_or("no reason was given", SerializedThrowable::message)
}

fn trigger_id(given: Option<&str>) -> String {
    given.map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned)
}

/// The coordinator runs somewhere else than this command.
fn absolute(directory: &str) -> String {
    if directory.contains("://") {
        return directory.to_owned();
    }
    std::path::absolute(Path::new(directory))
        .map_or_else(|_| directory.to_owned(), |path| path.to_string_lossy().into_owned())
}
