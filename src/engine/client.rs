//! The REST API of a coordinator, as far as the operator uses it. One request, one answer; nothing is retried here.

use crate::error::causes;
use crate::plan::effect::EngineCall;
use crate::plan::observed::{EngineSavepoint, EngineStatus, SavepointAnswer};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use streamjob_api::rest::operations::{Operation, Progress, SavepointOutcome, SavepointRequest, StopRequest};
use thiserror::Error;

/// A pod that is there answers its neighbours at once; on a lost node nobody ever does.
const CONNECT: Duration = Duration::from_millis(500);
/// For one answer that nothing is waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// More than any answer that is understood. What claims to be a coordinator may be anything.
const LARGEST: usize = 4 << 20;

/// Why there is no answer, or not the wanted one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// Nobody answers there now.
    #[error("{0}")]
    Unreachable(String),
    #[error("{message} (HTTP {status})")]
    Refused { status: u16, message: String },
}

/// Whom a request is for.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// The engine's name of the job.
    pub job_id: String,
    /// Allows changes.
    pub token: String,
}

/// Cheap to clone: all share the connections.
#[derive(Clone)]
pub struct EngineClient {
    http: reqwest::Client,
}

impl EngineClient {
    /// # Errors
    /// The client library cannot be set up.
    pub fn new() -> Result<EngineClient, CallError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(Duration::from_secs(60))
            .tcp_keepalive(Duration::from_secs(15))
            // Pods are reached directly, and a coordinator sends nobody elsewhere.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .build()
            .map_err(|error| CallError::Unreachable(causes(&error)))?;
        Ok(EngineClient { http })
    }

    /// What the coordinator says of its job: at once, or once it differs from the version that is known.
    pub async fn status(
        &self,
        address: SocketAddr,
        known: Option<u64>,
        patience: Duration,
    ) -> Result<EngineStatus, CallError> {
        let (path, timeout) = match known {
            None => ("/v1/status".to_owned(), ANSWER),
            Some(version) => {
                (format!("/v1/status?after={version}&wait={}", patience.as_millis()), patience.saturating_add(ANSWER))
            }
        };
        self.send(Method::GET, address, &path, None, None::<&()>, timeout).await
    }

    /// How a savepoint or a stop stands that was asked for under this name.
    pub async fn savepoint(&self, target: &Target, trigger: &str) -> Result<SavepointAnswer, CallError> {
        let path = format!("/v1/savepoints/{trigger}");
        let asked = self.send(Method::GET, target.address, &path, None, None::<&()>, ANSWER).await;
        let operation: Operation<SavepointOutcome<EngineSavepoint>> = match asked {
            Err(CallError::Refused { status: 404, .. }) => return Ok(SavepointAnswer::Unknown),
            other => other?,
        };
        Ok(match (operation.status.id, operation.operation) {
            (Progress::InProgress, _) | (_, None) => SavepointAnswer::InProgress,
            (_, Some(SavepointOutcome { savepoint: Some(savepoint), .. })) => {
                SavepointAnswer::Completed(Box::new(savepoint))
            }
            (_, Some(SavepointOutcome { failure_cause, .. })) => SavepointAnswer::Failed {
                reason: failure_cause.map_or_else(|| "no reason was given".into(), |cause| cause.stack_trace),
            },
        })
    }

    /// Asks for a change. Repeated, it is the same request.
    pub async fn call(&self, target: &Target, call: &EngineCall) -> Result<(), CallError> {
        let job = &target.job_id;
        match call {
            EngineCall::Activate => self.change(Method::POST, target, "/v1/activate", None::<&()>).await,
            EngineCall::Cancel => self.change(Method::POST, target, "/v1/cancel", None::<&()>).await,
            EngineCall::Configure(change) => self.change(Method::PATCH, target, "/v1/config", Some(change)).await,
            EngineCall::Stop { trigger, directory } => {
                let request = StopRequest {
                    target_directory: directory.clone(),
                    trigger_id: Some(trigger.clone()),
                    ..StopRequest::default()
                };
                self.change(Method::POST, target, &format!("/jobs/{job}/stop"), Some(&request)).await
            }
            EngineCall::Savepoint { trigger, directory } => {
                let request = SavepointRequest {
                    target_directory: directory.clone(),
                    trigger_id: Some(trigger.clone()),
                    ..SavepointRequest::default()
                };
                self.change(Method::POST, target, &format!("/jobs/{job}/savepoints"), Some(&request)).await
            }
        }
    }

    async fn change(
        &self,
        method: Method,
        target: &Target,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(), CallError> {
        self.send::<Value>(method, target.address, path, Some(&target.token), body, ANSWER).await.map(drop)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        address: SocketAddr,
        path: &str,
        token: Option<&str>,
        body: Option<&impl Serialize>,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let unreachable = |error: reqwest::Error| CallError::Unreachable(causes(&error.without_url()));
        let mut request = self.http.request(method, format!("http://{address}{path}")).timeout(timeout);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            let bytes = serde_json::to_vec(body).map_err(|error| CallError::Unreachable(error.to_string()))?;
            request = request.header("Content-Type", "application/json").body(bytes);
        }
        let mut answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(unreachable)? {
            if bytes.len() + part.len() > LARGEST {
                let message = format!("the answer to {path} is larger than {LARGEST} bytes");
                return Err(CallError::Refused { status: status.as_u16(), message });
            }
            bytes.extend_from_slice(&part);
        }
        if status.is_success() {
            let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            return serde_json::from_slice(bytes).map_err(|error| CallError::Refused {
                status: status.as_u16(),
                message: format!("the answer to {path} is not understood: {error}"),
            });
        }
        Err(CallError::Refused { status: status.as_u16(), message: message_of(&bytes) })
    }
}

/// The first line of what a refusal says.
fn message_of(bytes: &[u8]) -> String {
    let errors = serde_json::from_slice::<Value>(bytes).ok();
    let errors = errors.as_ref().and_then(|body| body.get("errors")).and_then(Value::as_array);
    let texts: Vec<&str> = errors.into_iter().flatten().filter_map(Value::as_str).collect();
    if texts.is_empty() { "no reason was given".into() } else { texts.join("; ") }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
