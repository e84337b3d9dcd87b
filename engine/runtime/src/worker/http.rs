//! A worker's `/metrics`, `/healthz` and `/readyz`.

use super::deploy::Tasks;
use crate::error::RuntimeError;
use crate::metrics;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;

pub async fn serve(address: SocketAddr, tasks: Arc<Tasks>, job: String) -> Result<SocketAddr, RuntimeError> {
    let failed =
        |error: std::io::Error| RuntimeError::Listen { address: address.to_string(), reason: error.to_string() };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    let registered = tasks.clone();
    let app = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(move || async move { ready(&registered) }))
        .route("/metrics", get(move || async move { metrics::render_worker(&job, &tasks.metrics()) }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the metrics endpoint stopped");
        }
    });
    Ok(local)
}

fn ready(tasks: &Tasks) -> (StatusCode, &'static str) {
    if tasks.has_session() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no coordinator has taken this worker on")
    }
}
