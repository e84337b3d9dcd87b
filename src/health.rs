//! Serves what Kubernetes and Prometheus ask the operator: whether it lives, whether it is ready, and its metrics. It does not
//! live when what it does has come to a stop that only a restart ends. A replica that stands by is alive and ready; and an
//! API server that is away makes nobody dead or unready, since restarting would not bring it back.

use crate::error::Error;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What the answers are made of.
pub trait Answers: Send + Sync + 'static {
    /// Why nothing goes on any more, if that is so.
    fn stopped(&self) -> Option<String>;
    /// Why it is not ready, if it is not.
    fn unready(&self) -> Option<&'static str>;
    fn metrics(&self) -> Result<String, String>;
}

/// `/livez` and `/readyz`.
pub fn health(answers: Arc<impl Answers>) -> Router {
    let known = answers.clone();
    let live = move || {
        let answers = known.clone();
        async move {
            match answers.stopped() {
                None => (StatusCode::OK, "ok".to_owned()),
                Some(reason) => {
                    tracing::error!(reason, "nothing goes on; to be started again");
                    (StatusCode::INTERNAL_SERVER_ERROR, reason)
                }
            }
        }
    };
    let ready = move || {
        let answers = answers.clone();
        async move {
            match answers.unready() {
                None => (StatusCode::OK, "ok"),
                Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
            }
        }
    };
    Router::new().route("/livez", get(live)).route("/readyz", get(ready))
}

/// `/metrics`.
pub fn metrics(answers: Arc<impl Answers>) -> Router {
    let scrape = move || {
        let answers = answers.clone();
        async move {
            let kind = [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")];
            match answers.metrics() {
                Ok(text) => (StatusCode::OK, kind, text),
                Err(reason) => (StatusCode::INTERNAL_SERVER_ERROR, kind, reason),
            }
        }
    };
    Router::new().route("/metrics", get(scrape))
}

/// Serves until `end`.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    router: Router,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<SocketAddr, Error> {
    let failed = |error: std::io::Error| Error::Setup(format!("cannot listen on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(end).await {
            tracing::error!(address = %bound, error = %error, "no longer served");
        }
    });
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Option<&'static str>, Result<String, String>);

    const HANGS: &str = "hangs";

    impl Answers for Fixed {
        fn stopped(&self) -> Option<String> {
            self.0.filter(|reason| *reason == HANGS).map(str::to_owned)
        }

        fn unready(&self) -> Option<&'static str> {
            self.0
        }

        fn metrics(&self) -> Result<String, String> {
            self.1.clone()
        }
    }

    async fn ask(answers: Fixed, path: &str) -> (u16, String) {
        let answers = Arc::new(answers);
        let router = health(answers.clone()).merge(metrics(answers));
        let address = serve("127.0.0.1:0".parse().unwrap(), router, std::future::pending()).await.unwrap();
        let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn answers() {
        let (syncing, fine) = (Some("not synced"), Ok("m 1".to_owned()));
        assert_eq!(ask(Fixed(syncing, fine.clone()), "/livez").await, (200, "ok".into()));
        assert_eq!(ask(Fixed(Some(HANGS), fine.clone()), "/livez").await, (500, "hangs".into()));
        assert_eq!(ask(Fixed(syncing, fine.clone()), "/readyz").await, (503, "not synced".into()));
        assert_eq!(ask(Fixed(None, fine.clone()), "/readyz").await, (200, "ok".into()));
        assert_eq!(ask(Fixed(None, fine), "/metrics").await, (200, "m 1".into()));
        assert_eq!(ask(Fixed(None, Err("no".into())), "/metrics").await, (500, "no".into()));
    }
}
