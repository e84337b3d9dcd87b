//! `checkpoints`: counts and history, or one checkpoint by vertex and subtask.

use super::{Target, print, table};
use crate::arguments::CheckpointsArguments;
use crate::error::CliError;
use crate::format::{bytes, duration_ms, time};
use serde::Serialize;
use std::collections::BTreeMap;
use streamjob_api::rest::checkpoints::{
    CheckpointStatistics, CheckpointStatus, CheckpointType, CheckpointingStatistics, Outcome, SubtaskStatistics,
    TaskStatisticsWithSubtasks,
};
use streamjob_api::rest::jobs::JobPlanInfo;

/// One checkpoint with all that is known of it.
#[derive(Serialize)]
struct Details {
    checkpoint: CheckpointStatistics,
    /// By vertex id.
    vertices: BTreeMap<String, TaskStatisticsWithSubtasks>,
}

pub async fn checkpoints(arguments: &CheckpointsArguments) -> Result<(), CliError> {
    let target = Target::find(&arguments.target).await?;
    let failed = |error: crate::client::RestError| target.failed(error.to_string());
    let Some(id) = arguments.details else {
        let statistics: CheckpointingStatistics =
            target.client.get(&target.path("/checkpoints")).await.map_err(failed)?;
        print(arguments.target.output, &statistics, || overview(&statistics));
        return Ok(());
    };
    let path = target.path(&format!("/checkpoints/details/{id}"));
    let checkpoint: CheckpointStatistics = target.client.get(&path).await.map_err(failed)?;
    let plan: JobPlanInfo = target.client.get(&target.path("/plan")).await.map_err(failed)?;
    let mut vertices = BTreeMap::new();
    for vertex in checkpoint.tasks.keys() {
        let subtasks = target.client.get(&format!("{path}/subtasks/{vertex}")).await.map_err(failed)?;
        vertices.insert(vertex.clone(), subtasks);
    }
    let details = Details { checkpoint, vertices };
    print(arguments.target.output, &details, || text(&details, &plan));
    Ok(())
}

fn overview(statistics: &CheckpointingStatistics) -> String {
    let counts = &statistics.counts;
    let mut text = format!(
        "{} triggered, {} in progress, {} completed, {} failed, {} restored\n",
        counts.total, counts.in_progress, counts.completed, counts.failed, counts.restored
    );
    if counts.completed > 0 {
        let duration = &statistics.summary.end_to_end_duration;
        text += &format!(
            "duration: {} to {}, {} on average; size: {} on average, {} in full\n",
            duration_ms(duration.min),
            duration_ms(duration.max),
            duration_ms(duration.avg),
            bytes(statistics.summary.checkpointed_size.avg),
            bytes(statistics.summary.state_size.avg)
        );
    }
    let rows: Vec<Vec<String>> = statistics.history.iter().map(row).collect();
    text.push('\n');
    text + &table(
        &["id", "type", "status", "acknowledged", "triggered", "latest ack", "duration", "size", "full size", ""],
        &rows,
    )
}

fn row(checkpoint: &CheckpointStatistics) -> Vec<String> {
    vec![
        checkpoint.id.to_string(),
        kind(checkpoint).to_owned(),
        status(checkpoint.status).to_owned(),
        format!("{}/{}", checkpoint.num_acknowledged_subtasks, checkpoint.num_subtasks),
        time(checkpoint.trigger_timestamp),
        u64::try_from(checkpoint.latest_ack_timestamp).map_or_else(|_| "-".to_owned(), time),
        duration_ms(checkpoint.end_to_end_duration),
        bytes(checkpoint.checkpointed_size),
        bytes(checkpoint.state_size),
        match &checkpoint.outcome {
            Outcome::Completed { discarded: true, .. } => "discarded".to_owned(),
            Outcome::Completed { external_path, .. } => external_path.clone().unwrap_or_default(),
            Outcome::Failed { failure_message, .. } => failure_message.clone().unwrap_or_default(),
            Outcome::InProgress {} => String::new(),
        },
    ]
}

fn kind(checkpoint: &CheckpointStatistics) -> &'static str {
    match checkpoint.checkpoint_type {
        CheckpointType::Checkpoint | CheckpointType::UnalignedCheckpoint => "checkpoint",
        CheckpointType::Savepoint => "savepoint",
        CheckpointType::SyncSavepoint => "stop",
    }
}

fn status(status: CheckpointStatus) -> &'static str {
    match status {
        CheckpointStatus::InProgress => "in progress",
        CheckpointStatus::Completed => "completed",
        CheckpointStatus::Failed => "failed",
    }
}

fn text(details: &Details, plan: &JobPlanInfo) -> String {
    let mut text = table(
        &["id", "type", "status", "acknowledged", "triggered", "latest ack", "duration", "size", "full size", ""],
        &[row(&details.checkpoint)],
    );
    // In the order of the data's way.
    for node in &plan.plan.nodes {
        let Some(vertex) = details.vertices.get(&node.id) else { continue };
        let name = node.description.replace("<br/>", " -> ");
        text += &format!(
            "\n{name}: {}/{} acknowledged, {}, {} written, {} in full\n",
            vertex.task.num_acknowledged_subtasks,
            vertex.task.num_subtasks,
            duration_ms(vertex.task.end_to_end_duration),
            bytes(vertex.task.checkpointed_size),
            bytes(vertex.task.state_size)
        );
        let rows: Vec<Vec<String>> = vertex.subtasks.iter().map(subtask_row).collect();
        text +=
            &table(&["subtask", "duration", "start delay", "alignment", "sync", "async", "size", "full size"], &rows);
    }
    text
}

fn subtask_row(subtask: &SubtaskStatistics) -> Vec<String> {
    match subtask {
        SubtaskStatistics::Pending { index, .. } => vec![index.to_string(), "not acknowledged".to_owned()],
        SubtaskStatistics::Completed {
            index,
            end_to_end_duration,
            checkpointed_size,
            state_size,
            checkpoint,
            alignment,
            start_delay,
            ..
        } => vec![
            index.to_string(),
            duration_ms(*end_to_end_duration),
            duration_ms(*start_delay),
            duration_ms(alignment.duration),
            duration_ms(checkpoint.sync),
            duration_ms(checkpoint.asynchronous),
            bytes(*checkpointed_size),
            bytes(*state_size),
        ],
    }
}
