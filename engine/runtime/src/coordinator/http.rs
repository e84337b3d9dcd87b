//! The coordinator's HTTP side: status, metrics, suspend and cancel. It listens on loopback only, since it asks for no token.

use super::{Input, JobStatus};
use crate::error::RuntimeError;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use std::net::SocketAddr;
use std::time::Duration;
use streamjob_protocol::coordinator::Request;
use tokio::sync::{mpsc, oneshot};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn serve(address: SocketAddr, inbox: mpsc::Sender<Input>) -> Result<(), RuntimeError> {
    let failed = |reason: String| RuntimeError::Listen { address: address.to_string(), reason };
    if !address.ip().is_loopback() {
        return Err(failed(
            "requests that stop the job need no token yet, so only loopback addresses are allowed".into(),
        ));
    }
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|error| failed(error.to_string()))?;
    let app = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/v1/status", get(status))
        .route("/metrics", get(metrics))
        .route("/v1/checkpoint", post(|inbox| request(inbox, Request::TriggerCheckpoint)))
        .route("/v1/suspend", post(|inbox| request(inbox, Request::Suspend)))
        .route("/v1/cancel", post(|inbox| request(inbox, Request::Cancel)))
        .with_state(inbox);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the REST endpoint stopped");
        }
    });
    Ok(())
}

async fn ask<T>(inbox: &mpsc::Sender<Input>, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, StatusCode> {
    let (answer, answered) = oneshot::channel();
    inbox.send(input(answer)).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn status(State(inbox): State<mpsc::Sender<Input>>) -> Result<Json<JobStatus>, StatusCode> {
    ask(&inbox, Input::Status).await.map(Json)
}

async fn metrics(State(inbox): State<mpsc::Sender<Input>>) -> Result<String, StatusCode> {
    ask(&inbox, Input::Metrics).await
}

async fn request(State(inbox): State<mpsc::Sender<Input>>, request: Request) -> StatusCode {
    match inbox.send(Input::Request(request)).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
