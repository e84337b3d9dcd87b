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
use std::time::Duration;
use streamjob_api::rest::SerializedThrowable;
use streamjob_api::rest::jobs::JobStatusInfo;
use streamjob_api::rest::operations::{
    Operation, RescaleRequest, RescaleResult, SavepointRequest, SavepointResult, StopRequest, TriggerResponse,
};

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
    ask(target, &target.path(path), request).await?;
    let poll = target.path(&format!("/savepoints/{trigger}"));
    let result: SavepointResult =
        target.until("the savepoint", timeout, async |client: &Client| ended(client, &poll).await).await?;
    match (result.location, result.failure_cause) {
        (Some(location), None) => Ok(location),
        (_, cause) => Err(target.failed(format!("no savepoint: {}", because(cause.as_ref())))),
    }
}

pub async fn rescale(arguments: &RescaleArguments) -> Result<(), CliError> {
    let target = Target::find(&arguments.target).await?;
    let trigger = trigger_id(arguments.trigger_id.as_deref());
    let request = RescaleRequest { parallelism: arguments.parallelism, trigger_id: Some(trigger.clone()) };
    ask(&target, "/v1/rescale", &request).await?;
    let poll = format!("/v1/rescale/{trigger}");
    let timeout = Duration::from_secs(arguments.timeout);
    let result: RescaleResult =
        target.until("the change of parallelism", timeout, async |client: &Client| ended(client, &poll).await).await?;
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
        .patiently(super::POLL, async |client: &Client| client.send(Method::PATCH, &path, None::<&()>).await)
        .await?;
    let poll = target.path("/status");
    // A coordinator whose job has ended does not stay: that it no longer answers is the end too.
    let state = target
        .until("cancelling", Duration::from_secs(arguments.timeout), async |client: &Client| {
            match client.get::<JobStatusInfo>(&poll).await {
                Ok(info) if matches!(info.status.as_str(), "CANCELED" | "FAILED" | "FINISHED") => Ok(Some(info.status)),
                Ok(_) => Ok(None),
                Err(RestError::Unreachable(_)) => Ok(Some("CANCELED".to_owned())),
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

async fn ask(target: &Target, path: &str, request: &impl Serialize) -> Result<(), CliError> {
    let _: TriggerResponse = target
        .patiently(super::ABSENCE, async |client: &Client| client.send(Method::POST, path, Some(request)).await)
        .await?;
    Ok(())
}

async fn ended<T: DeserializeOwned>(client: &Client, path: &str) -> Result<Option<T>, RestError> {
    client.get::<Operation<T>>(path).await.map(|operation| operation.operation)
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
