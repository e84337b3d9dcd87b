//! The running job as its coordinator describes it: `GET /v1/status`, and requests to stop it.
//!
//! Tolerant: fields that are missing or new do not matter, so that supervisor and coordinator may change apart.

use crate::client::Client;
use reqwest::Method;
use serde::Deserialize;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Status {
    pub state: String,
    /// Why the job is not running, or why it last restarted.
    pub reason: Option<String>,
    pub restarts: u64,
    pub checkpoints: Checkpoints,
    /// In topological order.
    pub operators: Vec<Operator>,
    pub workers: Vec<Worker>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Checkpoints {
    pub completed: u64,
    pub failed: u64,
    pub in_progress: u64,
    pub last_id: Option<u64>,
    pub last_duration_ms: Option<u64>,
    pub last_bytes_new: Option<u64>,
    pub last_bytes_total: Option<u64>,
    /// Unix milliseconds.
    pub last_completed_at: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Operator {
    pub uid: String,
    pub name: String,
    pub parallelism: u32,
    pub records_in: u64,
    pub records_out: u64,
    /// Unix milliseconds of event time.
    pub watermark: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Worker {
    pub id: String,
    pub pid: u32,
    pub metrics_addr: Option<String>,
}

/// What the coordinator says now.
pub async fn fetch(client: &Client) -> Result<Status, String> {
    client.get("/v1/status").await.map_err(|error| error.to_string())
}

/// Asks for a last checkpoint and the end of the processes.
pub async fn suspend(client: &Client) -> Result<(), String> {
    let answer: Result<serde_json::Value, _> = client.send(Method::POST, "/v1/suspend", None::<&()>).await;
    answer.map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_missing_or_new_do_not_matter() {
        let status: Status =
            serde_json::from_str(r#"{"state": "Running", "novelty": [1], "checkpoints": {"completed": 2}}"#).unwrap();
        assert_eq!(status.state, "Running");
        assert_eq!(status.checkpoints.completed, 2);
        assert_eq!(status.operators, []);
    }
}
