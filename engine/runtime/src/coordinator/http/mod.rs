//! The coordinator's HTTP side: Flink's REST API, our own additions below `/v1`, and `/metrics`.
//!
//! Answers come from a snapshot of what the loop knows; requests that change something are checked for form here and
//! handed to the loop, which decides. Everything that is no `GET` asks for the job's token, if there is one; without one
//! the server listens on loopback only.

mod access;
mod answer;
mod checkpoints;
mod cluster;
mod endpoints;
mod jobs;
mod metrics;
mod names;
mod own;
mod rescale;
mod savepoints;
mod tls;
mod vertices;

pub use access::{TlsFiles, Token};
pub(super) use names::{job_state, storage_location};
pub(super) use savepoints::{Unread, linger};

use super::changes::Changes;
use super::status::Snapshot;
use super::{CoordinatorOptions, Input};
use crate::error::RuntimeError;
use crate::storage::Storage;
use answer::Refusal;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use savepoints::Disposals;
use std::sync::Arc;
use std::time::Duration;
use streamjob_api::config::JobConfig;
use streamjob_protocol::coordinator::Request;
use tokio::sync::{mpsc, oneshot};

/// The loop answers within microseconds unless something is wrong.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A job file may be large, anything else is small.
const LARGEST_BODY: usize = 1 << 20;

/// Who may use the REST API, and what it can do beyond the loop's own knowledge.
#[derive(Clone, Default)]
pub struct RestOptions {
    /// Asked for by everything that changes something. Without one, only loopback addresses are listened on.
    pub token: Option<Token>,
    /// HTTPS instead of HTTP.
    pub tls: Option<TlsFiles>,
    /// Answers `POST /v1/check`; without it there is no such endpoint.
    pub check: Option<CheckJob>,
}

/// Compares the text of a job file with a checkpoint or savepoint, and says per operator what would become of its state.
/// Blocks; the reason if it cannot be compared.
pub type CheckJob = Arc<dyn Fn(&str, &str) -> Result<serde_json::Value, String> + Send + Sync>;

/// What every handler gets.
#[derive(Clone)]
struct Context(Arc<Shared>);

struct Shared {
    inbox: mpsc::Sender<Input>,
    job_id: String,
    config: JobConfig,
    storage: Storage,
    rest: RestOptions,
    unread: Unread,
    disposals: Disposals,
    changes: Changes,
    /// Held from reading options to their change, so that two changes at once both apply.
    reconfiguring: tokio::sync::Mutex<()>,
}

/// Serves until the process ends. Savepoints that end the job and whose end nobody has asked for are kept in `unread`.
pub(super) async fn serve(
    options: &CoordinatorOptions,
    storage: Storage,
    unread: &Unread,
    changes: Changes,
    inbox: mpsc::Sender<Input>,
) -> Result<(), RuntimeError> {
    let (address, rest) = (options.rest_addr, &options.rest);
    let failed = |reason: String| RuntimeError::Listen { address: address.to_string(), reason };
    if rest.token.is_none() && !address.ip().is_loopback() {
        return Err(failed(
            "anybody could stop the job there: set STREAMJOB_TOKEN or STREAMJOB_TOKEN_FILE, so that requests need a token"
                .into(),
        ));
    }
    if !address.ip().is_loopback() && rest.tls.is_none() {
        tracing::warn!(%address, "the token and all answers go over the network in the clear; STREAMJOB_TLS_CERT_FILE and STREAMJOB_TLS_KEY_FILE turn on TLS");
    }
    let tls = rest.tls.as_ref().map(tls::acceptor).transpose()?;
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|error| failed(error.to_string()))?;
    let context = Context(Arc::new(Shared {
        inbox,
        job_id: options.job_id.clone(),
        config: options.config.clone(),
        storage,
        rest: rest.clone(),
        unread: unread.clone(),
        disposals: Disposals::default(),
        changes,
        reconfiguring: tokio::sync::Mutex::default(),
    }));
    let app = router(context);
    tokio::spawn(async move {
        let served = match tls {
            Some(acceptor) => axum::serve(tls::TlsListener::new(listener, acceptor), app).await,
            None => axum::serve(listener, app).await,
        };
        if let Err(error) = served {
            tracing::error!(%error, "the REST endpoint stopped");
        }
    });
    Ok(())
}

fn router(context: Context) -> axum::Router {
    endpoints::routes()
        .fallback(answer::not_found)
        .method_not_allowed_fallback(answer::method_not_allowed)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(context.clone(), access::require_token))
        .with_state(context)
}

impl Context {
    async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.0.inbox.send(input(answer)).await.map_err(|_| Refusal::stopping())?;
        match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(Refusal::stopping()),
        }
    }

    async fn snapshot(&self) -> Result<Snapshot, Refusal> {
        self.ask(Input::View).await
    }

    /// Checks that `job_id` names this job before anything is asked of the loop.
    async fn job(&self, job_id: &str) -> Result<Snapshot, Refusal> {
        self.check_job(job_id)?;
        self.snapshot().await
    }

    fn check_job(&self, job_id: &str) -> Result<(), Refusal> {
        if !streamjob_api::rest::is_id(job_id) {
            return Err(Refusal::bad_parameter("jobid", job_id, "32 hexadecimal digits"));
        }
        if !job_id.eq_ignore_ascii_case(&self.0.job_id) {
            return Err(Refusal::not_found(format!("Could not find Flink job ({job_id})")));
        }
        Ok(())
    }

    /// Hands a request to the machine, if there is one at work.
    async fn request(&self, request: Request) -> Result<(), Refusal> {
        if self.ask(Input::Status).await?.standby.is_some() {
            return Err(Refusal::conflict(
                "This coordinator is on standby: the job is not its own before POST /v1/activate.",
            ));
        }
        self.0.inbox.send(Input::Request(request)).await.map_err(|_| Refusal::stopping())
    }
}
