//! Clients of the API server: set up alike, every request counted. No request is repeated here: who asks knows better when.

use crate::error::{Error, causes};
use crate::metrics::Metrics;
use http::{Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{Layer, Service};

/// # Errors
/// There is neither a service account nor a usable kubeconfig.
pub async fn config() -> Result<Config, Error> {
    let mut config = Config::infer().await.map_err(|error| {
        let reason = causes(&error);
        Error::Setup(format!("no way to the API server: {reason}; run in a pod, or set KUBECONFIG"))
    })?;
    config.connect_timeout = Some(Duration::from_secs(5));
    // A watch hears a bookmark every minute: a connection that is silent for longer leads to nobody any more.
    config.read_timeout = Some(Duration::from_secs(100));
    config.write_timeout = Some(Duration::from_secs(10));
    config.default_retry = false;
    Ok(config)
}

/// # Errors
/// Certificates or credentials cannot be read.
pub fn client(config: &Config, metrics: Arc<Metrics>) -> Result<Client, Error> {
    let builder = ClientBuilder::try_from(config.clone())
        .map_err(|error| Error::Setup(format!("cannot set up the client of the API server: {}", causes(&error))))?;
    Ok(builder.with_layer(&Counting(metrics)).build())
}

struct Counting(Arc<Metrics>);

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: self.0.clone() }
    }
}

struct Counted<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (verb, resource) = describe(request.method(), request.uri().path(), request.uri().query());
        let metrics = self.metrics.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            metrics.api_request(verb, &resource, answer.as_ref().ok().map(|answer| answer.status().as_u16()));
            answer
        })
    }
}

/// Verb and resource as RBAC calls them; no names, so that there are few.
fn describe(method: &Method, path: &str, query: Option<&str>) -> (&'static str, String) {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let prefix = if parts.next() == Some("apis") { 2 } else { 1 };
    let mut parts: Vec<&str> = parts.skip(prefix).collect();
    if let ["namespaces", _, _, ..] = parts.as_slice() {
        parts.drain(..2);
    }
    let (resource, named) = match parts.as_slice() {
        [] => ("", false),
        [resource] => (*resource, false),
        [resource, _] => (*resource, true),
        [resource, _, sub, ..] => return (verb(method, true, query), format!("{resource}/{sub}")),
    };
    (verb(method, named, query), resource.to_owned())
}

fn verb(method: &Method, named: bool, query: Option<&str>) -> &'static str {
    let watches = || query.unwrap_or_default().split('&').any(|part| part == "watch=true" || part == "watch=1");
    match *method {
        Method::GET if watches() => "watch",
        Method::GET if named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_as_rbac_calls_them() {
        for (method, path, query, verb, resource) in [
            (Method::GET, "/apis/streamjob.dev/v1alpha1/streamjobs", Some("limit=500"), "list", "streamjobs"),
            (Method::GET, "/api/v1/pods", Some("limit=1&watch=true"), "watch", "pods"),
            (Method::GET, "/api/v1/namespaces/a/pods/b", None, "get", "pods"),
            (Method::GET, "/api/v1/namespaces/a", None, "get", "namespaces"),
            (Method::POST, "/apis/apps/v1/namespaces/a/deployments", None, "create", "deployments"),
            (
                Method::PUT,
                "/apis/streamjob.dev/v1alpha1/namespaces/a/streamjobs/b/status",
                None,
                "update",
                "streamjobs/status",
            ),
            (Method::PATCH, "/api/v1/namespaces/a/services/b", Some("force=true"), "patch", "services"),
            (Method::DELETE, "/api/v1/namespaces/a/pods/b", None, "delete", "pods"),
            (Method::GET, "/version", None, "list", ""),
        ] {
            assert_eq!(describe(&method, path, query), (verb, resource.to_owned()), "{method} {path}");
        }
    }
}
