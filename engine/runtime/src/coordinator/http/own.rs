//! What Flink's API has no endpoint for: below `/v1`, and the health check.

use super::Context;
use super::answer::{Answer, Body, Refusal, trigger_id};
use super::checkpoints;
use super::names;
use crate::coordinator::Input;
use crate::coordinator::status::JobStatus;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use streamjob_api::config::{CheckpointConfig, RestartStrategy};
use streamjob_api::live;
use streamjob_api::rest::operations::{CheckRequest, TriggerResponse};
use streamjob_protocol::coordinator::{CoordinatorView, Request, RestoreView};

/// How long a change of configuration may take to be written down before the answer says that it is under way.
const APPLIED: Duration = Duration::from_secs(5);
/// However long a caller would wait for a change.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub(super) async fn health() -> &'static str {
    "ok"
}

/// Whether this process does its part: on standby it does as soon as it knows that the job could be taken over.
pub(super) async fn ready(State(context): State<Context>) -> Result<&'static str, Refusal> {
    let status = context.ask(Input::Status).await?;
    match status.standby {
        Some(standby) if !standby.checked => {
            let reason = status.reason.unwrap_or_else(|| "the job's state is being compared with its program".into());
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason))
        }
        _ => Ok("ready"),
    }
}

#[derive(Deserialize)]
pub(super) struct Watch {
    /// The version that the caller knows.
    after: Option<u64>,
    /// Milliseconds.
    wait: Option<u64>,
}

pub(super) async fn status(State(context): State<Context>, Query(watch): Query<Watch>) -> Answer<JobStatus> {
    if let Some(known) = watch.after {
        let patience = watch.wait.map_or(Duration::ZERO, Duration::from_millis);
        context.0.changes.beyond(known, patience.min(LONGEST_WAIT)).await;
    }
    context.ask(Input::Status).await.map(Json)
}

/// What became of the request to take the job over.
#[derive(Serialize)]
pub(super) struct Activation {
    /// The state before: a job that is no longer on standby is not taken over again.
    state: String,
}

/// `POST /v1/activate`: the job is taken over as soon as it is known that it can be.
pub(super) async fn activate(State(context): State<Context>) -> Result<(StatusCode, Json<Activation>), Refusal> {
    let before = context.ask(Input::Status).await?;
    context.ask(Input::Activate).await?;
    let code = if before.standby.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((code, Json(Activation { state: before.state })))
}

pub(super) async fn checkpoint(State(context): State<Context>) -> Result<(StatusCode, Json<TriggerResponse>), Refusal> {
    checkpoints::start(&context, trigger_id(None)?, false).await
}

pub(super) async fn suspend(State(context): State<Context>) -> Result<StatusCode, Refusal> {
    context.request(Request::Suspend).await.map(|()| StatusCode::ACCEPTED)
}

pub(super) async fn cancel(State(context): State<Context>) -> Result<StatusCode, Refusal> {
    context.request(Request::Cancel).await.map(|()| StatusCode::ACCEPTED)
}

/// What applies now. Durations in milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LiveConfig {
    checkpoint: CheckpointConfig,
    restart_strategy: RestartStrategy,
}

/// `PATCH /v1/config`: fields of the job file that change while the job runs.
pub(super) async fn reconfigure(
    State(context): State<Context>,
    body: Body,
) -> Result<(StatusCode, Json<LiveConfig>), Refusal> {
    let change = body.text()?;
    let _alone = context.0.reconfiguring.lock().await;
    let view = context.snapshot().await?.view;
    let (checkpoint, restart_strategy) = live::apply(&view.checkpoint_config, &view.restart_strategy, change)
        .map_err(|error| Refusal::bad_request(error.to_string()))?;
    super::savepoints::check_running(&view)?;
    let request = Request::Reconfigure { checkpoint: checkpoint.clone(), restart: restart_strategy.clone() };
    context.request(request).await?;
    let deadline = Instant::now() + APPLIED;
    let mut status = StatusCode::OK;
    loop {
        let now = context.snapshot().await?.view;
        if now.checkpoint_config == checkpoint && now.restart_strategy == restart_strategy {
            break;
        }
        if Instant::now() >= deadline {
            status = StatusCode::ACCEPTED;
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok((status, Json(LiveConfig { checkpoint, restart_strategy })))
}

/// `POST /v1/check`: what would become of the state if this job file replaced the running one. Starts nothing.
pub(super) async fn check(State(context): State<Context>, body: Body) -> Answer<serde_json::Value> {
    let request: CheckRequest = body.json("CheckRequest")?;
    let Some(check) = context.0.rest.check.clone() else {
        return Err(Refusal::not_found("This coordinator cannot compare job files."));
    };
    let from = match request.from {
        Some(from) => from,
        None => {
            let view = context.snapshot().await?.view;
            let newest = newest_checkpoint(&view).ok_or_else(|| {
                Refusal::conflict("The job has no checkpoint yet to compare with; give \"from\", or ask again later.")
            })?;
            match newest {
                Newest::Own(id) => {
                    format!("{}/chk-{id}", names::storage_location(&context.0.config, &context.0.job_id))
                }
                Newest::Elsewhere(location) => location,
            }
        }
    };
    let compared = tokio::task::spawn_blocking(move || check(&request.job, &from)).await;
    match compared {
        Ok(Ok(report)) => Ok(Json(report)),
        Ok(Err(reason)) => Err(Refusal::bad_request(reason)),
        Err(error) => {
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("The comparison ended early: {error}.")))
        }
    }
}

enum Newest {
    /// A checkpoint in the job's own storage.
    Own(u64),
    /// The directory of what the job was started from.
    Elsewhere(String),
}

fn newest_checkpoint(view: &CoordinatorView) -> Option<Newest> {
    let completed = view.checkpoints.latest_completed.as_ref().filter(|last| !last.discarded).map(|last| last.id);
    let restored = view.checkpoints.latest_restored.as_ref();
    match (completed, restored) {
        (Some(completed), Some(restored)) if completed < restored.checkpoint => Some(of_restored(restored)),
        (Some(completed), _) => Some(Newest::Own(completed)),
        (None, restored) => restored.map(of_restored),
    }
}

fn of_restored(restored: &RestoreView) -> Newest {
    restored.location.clone().map_or(Newest::Own(restored.checkpoint), Newest::Elsewhere)
}
