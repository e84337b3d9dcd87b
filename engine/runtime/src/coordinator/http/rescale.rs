//! Another parallelism while the job runs: Flink's resource requirements by vertex, and our own request by number.

use super::Context;
use super::answer::{Answer, Body, Refusal, trigger_id, trigger_of_path, unknown_trigger};
use super::names;
use super::savepoints::check_running;
use crate::coordinator::status::Snapshot;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use streamjob_api::rest::SerializedThrowable;
use streamjob_api::rest::jobs::{ParallelismBounds, ResourceRequirements, VertexRequirements};
use streamjob_api::rest::operations::{Operation, RescaleRequest, RescaleResult, TriggerResponse};
use streamjob_protocol::coordinator::{Outcome, Request};

const FAILED: &str = "org.apache.flink.util.FlinkException";

pub(super) async fn requirements(
    State(context): State<Context>,
    Path(job): Path<String>,
) -> Answer<ResourceRequirements> {
    let snapshot = context.job(&job).await?;
    Ok(Json(requirements_of(&snapshot)))
}

/// What the job runs at, or is about to.
fn requirements_of(snapshot: &Snapshot) -> ResourceRequirements {
    let under_way = snapshot.view.rescales.iter().rev().find(|rescale| rescale.outcome == Outcome::InProgress);
    let wanted = under_way.map_or(snapshot.view.parallelism, |rescale| rescale.parallelism);
    (0..snapshot.plan.vertices.len() as u32)
        .map(|vertex| {
            let now = snapshot.plan.vertices[vertex as usize].parallelism;
            let upper_bound = if now == snapshot.view.parallelism { wanted } else { now };
            let parallelism = ParallelismBounds { lower_bound: 1, upper_bound };
            (names::vertex_id(&snapshot.plan, vertex), VertexRequirements { parallelism })
        })
        .collect()
}

pub(super) async fn require(
    State(context): State<Context>,
    Path(job): Path<String>,
    body: Body,
) -> Answer<serde_json::Value> {
    let snapshot = context.job(&job).await?;
    let wanted: ResourceRequirements = body.json("JobResourceRequirementsBody")?;
    let parallelism = parallelism_for(&snapshot, &wanted)?;
    check_running(&snapshot.view)?;
    if parallelism != snapshot.view.parallelism {
        let trigger = trigger_id(None)?;
        context.request(Request::Rescale { trigger, parallelism }).await?;
    }
    Ok(Json(serde_json::json!({})))
}

/// The one parallelism that these requirements mean: vertices scale together, except for those that always have fewer
/// subtasks than the job.
fn parallelism_for(snapshot: &Snapshot, wanted: &ResourceRequirements) -> Result<u32, Refusal> {
    let (plan, now) = (&snapshot.plan, snapshot.view.parallelism);
    for id in wanted.keys() {
        names::find_vertex(plan, id).map_err(|_| Refusal::bad_request(format!("Job vertex {id} does not exist.")))?;
    }
    let mut target: Option<u32> = None;
    for (index, vertex) in plan.vertices.iter().enumerate() {
        let id = names::vertex_id(plan, index as u32);
        let bounds = wanted.get(&id).ok_or_else(|| {
            Refusal::bad_request(format!(
                "Job vertex {id} ({}) has no requirements; give those of all vertices.",
                vertex.name
            ))
        })?;
        let ParallelismBounds { lower_bound, upper_bound } = bounds.parallelism;
        if lower_bound == 0 || lower_bound > upper_bound {
            return Err(Refusal::bad_request(format!(
                "Job vertex {id} has lowerBound {lower_bound} and upperBound {upper_bound}; expected 1 <= lowerBound <= \
                 upperBound."
            )));
        }
        check_maximum(snapshot, upper_bound)?;
        if vertex.parallelism != now {
            if upper_bound != vertex.parallelism {
                return Err(Refusal::bad_request(format!(
                    "Job vertex {id} ({}) always has {} subtasks; leave its upperBound at that.",
                    vertex.name, vertex.parallelism
                )));
            }
        } else if target.replace(upper_bound).is_some_and(|before| before != upper_bound) {
            return Err(Refusal::bad_request(
                "All vertices are scaled together: give them the same upperBound.".to_owned(),
            ));
        }
    }
    Ok(target.unwrap_or(now))
}

fn check_maximum(snapshot: &Snapshot, parallelism: u32) -> Result<(), Refusal> {
    let most = snapshot.plan.max_parallelism;
    if parallelism == 0 || parallelism > most {
        return Err(Refusal::bad_request(format!(
            "Parallelism {parallelism} is out of range: expected 1 to {most}, the job's maxParallelism, which its state \
             fixes."
        )));
    }
    Ok(())
}

/// `POST /v1/rescale`.
pub(super) async fn trigger(
    State(context): State<Context>,
    body: Body,
) -> Result<(StatusCode, Json<TriggerResponse>), Refusal> {
    let request: RescaleRequest = body.json("RescaleRequest")?;
    let trigger = trigger_id(request.trigger_id)?;
    let snapshot = context.snapshot().await?;
    if let Some(known) = snapshot.view.rescales.iter().find(|known| known.trigger == trigger) {
        if known.parallelism != request.parallelism {
            return Err(Refusal::conflict(format!(
                "Request {trigger} is for parallelism {} already; use another triggerId.",
                known.parallelism
            )));
        }
    } else {
        check_maximum(&snapshot, request.parallelism)?;
        check_running(&snapshot.view)?;
        context.request(Request::Rescale { trigger: trigger.clone(), parallelism: request.parallelism }).await?;
    }
    Ok((StatusCode::ACCEPTED, Json(TriggerResponse { request_id: trigger })))
}

/// `GET /v1/rescale/:triggerid`.
pub(super) async fn poll(
    State(context): State<Context>,
    Path(trigger): Path<String>,
) -> Answer<Operation<RescaleResult>> {
    let trigger = trigger_of_path(&trigger)?;
    let view = context.snapshot().await?.view;
    let found = view.rescales.iter().find(|known| known.trigger == trigger);
    Ok(Json(match &found.ok_or_else(|| unknown_trigger(&trigger))?.outcome {
        Outcome::InProgress => Operation::in_progress(),
        Outcome::Completed(parallelism) => {
            Operation::ended(RescaleResult { parallelism: Some(*parallelism), failure_cause: None })
        }
        Outcome::Failed(reason) => Operation::ended(RescaleResult {
            parallelism: None,
            failure_cause: Some(SerializedThrowable::new(FAILED, reason)),
        }),
    }))
}
