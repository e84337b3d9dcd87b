//! Every endpoint, once: the routes are made from this table, and so is `docs/rest.md`.

use super::{Context, checkpoints, cluster, jobs, metrics, own, rescale, savepoints, vertices};
use axum::routing::{MethodRouter, get, patch, post, put};
use axum::{Json, Router};
use serde::Serialize;

pub(super) struct Endpoint {
    method: &'static str,
    path: &'static str,
    /// Flink has it too: it is there with and without `/v1`.
    flink: bool,
    about: &'static str,
    handler: fn() -> MethodRouter<Context>,
}

const fn flink(
    method: &'static str,
    path: &'static str,
    about: &'static str,
    handler: fn() -> MethodRouter<Context>,
) -> Endpoint {
    Endpoint { method, path, flink: true, about, handler }
}

const fn own(
    method: &'static str,
    path: &'static str,
    about: &'static str,
    handler: fn() -> MethodRouter<Context>,
) -> Endpoint {
    Endpoint { method, path, flink: false, about, handler }
}

const ENDPOINTS: &[Endpoint] = &[
    flink("GET", "/overview", "Workers, slots, and the state of the one job", || get(cluster::overview)),
    flink("GET", "/config", "Version of the API, and what it can do", || get(cluster::dashboard)),
    flink("GET", "/jobmanager/config", "Options that have a name in Flink, with the values that apply now", || {
        get(jobs::all_options)
    }),
    flink("GET", "/taskmanagers", "Workers", || get(cluster::workers)),
    flink("GET", "/taskmanagers/{worker}", "One worker", || get(cluster::worker)),
    flink("GET", "/jobs", "Id and state", || get(jobs::list)),
    flink("GET", "/jobs/overview", "Name, state, times and tasks by state", || get(jobs::overview)),
    flink("GET", "/jobs/{job}", "Vertices with their states and counters, times of each state, plan", || {
        get(jobs::details)
    }),
    flink("PATCH", "/jobs/{job}", "`?mode=cancel`: cancels the job", || patch(jobs::cancel)),
    flink("GET", "/jobs/{job}/status", "State", || get(jobs::status)),
    flink("GET", "/jobs/{job}/plan", "Vertices and edges", || get(jobs::plan)),
    flink("GET", "/jobs/{job}/config", "Restart strategy and parallelism", || get(jobs::config)),
    flink("GET", "/jobs/{job}/jobmanager/config", "As `/jobmanager/config`", || get(jobs::options_of_job)),
    flink("GET", "/jobs/{job}/exceptions", "Failures, newest first; `?maxExceptions=`", || get(jobs::exceptions)),
    flink("GET", "/jobs/{job}/accumulators", "Always empty", || get(jobs::accumulators)),
    flink("GET", "/jobs/{job}/metrics", "Names of metrics, or values with `?get=a,b`", || get(metrics::of_job)),
    flink("GET", "/jobs/{job}/vertices/{vertex}", "Subtasks of a vertex", || get(vertices::details)),
    flink("GET", "/jobs/{job}/vertices/{vertex}/metrics", "As above, by subtask", || get(metrics::of_vertex)),
    flink("GET", "/jobs/{job}/vertices/{vertex}/backpressure", "How each subtask spends its time", || {
        get(vertices::backpressure)
    }),
    flink("GET", "/jobs/{job}/vertices/{vertex}/watermarks", "Watermark of each subtask", || get(metrics::watermarks)),
    flink("GET", "/jobs/{job}/vertices/{vertex}/subtasks/{subtask}", "One subtask", || get(vertices::subtask)),
    flink("GET", "/jobs/{job}/checkpoints", "Counts, summary with quantiles, latest ones, history", || {
        get(checkpoints::statistics)
    }),
    flink("POST", "/jobs/{job}/checkpoints", "Takes a checkpoint now: `{checkpointType, triggerId}`", || {
        post(checkpoints::trigger)
    }),
    flink("GET", "/jobs/{job}/checkpoints/{trigger}", "How a checkpoint on request stands", || get(checkpoints::poll)),
    flink("GET", "/jobs/{job}/checkpoints/config", "Options of checkpoints as they are now", || {
        get(checkpoints::config)
    }),
    flink("GET", "/jobs/{job}/checkpoints/details/{checkpoint}", "One checkpoint, by vertex", || {
        get(checkpoints::details)
    }),
    flink(
        "GET",
        "/jobs/{job}/checkpoints/details/{checkpoint}/subtasks/{vertex}",
        "One checkpoint and vertex, by subtask: start delay, alignment, sync, async, sizes",
        || get(checkpoints::subtasks),
    ),
    flink(
        "POST",
        "/jobs/{job}/savepoints",
        "Takes a savepoint: `{target-directory, cancel-job, formatType, triggerId}`",
        || post(savepoints::trigger),
    ),
    flink("GET", "/jobs/{job}/savepoints/{trigger}", "How a savepoint or a stop stands", || get(savepoints::poll)),
    flink(
        "POST",
        "/jobs/{job}/stop",
        "Stops the job with a savepoint: `{targetDirectory, drain, formatType, triggerId}`",
        || post(savepoints::stop),
    ),
    flink("POST", "/savepoint-disposal", "Deletes a savepoint: `{savepoint-path}`", || post(savepoints::dispose)),
    flink("GET", "/savepoint-disposal/{trigger}", "How a deletion stands", || get(savepoints::poll_disposal)),
    flink("GET", "/jobs/{job}/resource-requirements", "Parallelism of each vertex", || get(rescale::requirements)),
    flink(
        "PUT",
        "/jobs/{job}/resource-requirements",
        "Changes the parallelism in place: `{vertex: {parallelism: {lowerBound, upperBound}}}`, all vertices alike",
        || put(rescale::require),
    ),
    own(
        "GET",
        "/v1/status",
        "The job in one document: state, checkpoints, operators, workers. `?after=<version>&wait=<ms>`: once it has another \
         version, or after that time, at most 30 s",
        || get(own::status),
    ),
    own("POST", "/v1/activate", "Takes the job over, on a cluster; once is enough, again does no harm", || {
        post(own::activate)
    }),
    own("POST", "/v1/checkpoint", "Takes a checkpoint now", || post(own::checkpoint)),
    own("POST", "/v1/suspend", "Takes a last checkpoint and ends the processes; the job can be resumed", || {
        post(own::suspend)
    }),
    own("POST", "/v1/cancel", "Cancels the job", || post(own::cancel)),
    own(
        "PATCH",
        "/v1/config",
        "Changes options while the job runs, in the job file's form: `{\"checkpoint\": {\"interval\": \"2s\"}}`",
        || patch(own::reconfigure),
    ),
    own("POST", "/v1/check", "Compares a job file with a restore point, starts nothing: `{job, from}`", || {
        post(own::check)
    }),
    own("POST", "/v1/rescale", "Changes the parallelism in place: `{parallelism, triggerId}`", || {
        post(rescale::trigger)
    }),
    own("GET", "/v1/rescale/{trigger}", "How a change of parallelism stands", || get(rescale::poll)),
    own(
        "GET",
        "/v1/savepoints/{trigger}",
        "How a savepoint or stop stands, with the savepoint's checkpoint id, path, size and times",
        || get(savepoints::outcome),
    ),
    own("GET", "/v1/endpoints", "This table", || get(list)),
    own("GET", "/metrics", "Metrics for Prometheus", || get(metrics::prometheus)),
    own("GET", "/healthz", "`ok`", || get(own::health)),
    own("GET", "/readyz", "`ready`, or why not: on standby only when the job could be taken over", || get(own::ready)),
];

#[derive(Serialize)]
struct Described {
    method: &'static str,
    path: &'static str,
    flink: bool,
    about: &'static str,
}

async fn list() -> Json<Vec<Described>> {
    Json(described())
}

fn described() -> Vec<Described> {
    let describe = |endpoint: &Endpoint| Described {
        method: endpoint.method,
        path: endpoint.path,
        flink: endpoint.flink,
        about: endpoint.about,
    };
    ENDPOINTS.iter().map(describe).collect()
}

/// Not yet wrapped in what applies to all of them.
pub(super) fn routes() -> Router<Context> {
    let mut router = Router::new();
    for endpoint in ENDPOINTS {
        router = router.route(endpoint.path, (endpoint.handler)());
        if endpoint.flink {
            router = router.route(&format!("/v1{}", endpoint.path), (endpoint.handler)());
        }
    }
    router
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# REST API

<!-- Written by `make docs` from the table of endpoints in engine/runtime; edit that, not this. -->

The coordinator serves it at the address that `run` shows and that `run.json` in the data directory has. Bodies and answers are
JSON; names and types are those of Apache Flink 2.3, so that its clients work: `flink list`, `flink savepoint`, `flink stop`,
`flink checkpoint`, `flink cancel`. An answer that is no success is `{\"errors\": [\"...\"]}`.

- **Token.** With `STREAMJOB_TOKEN`, or `STREAMJOB_TOKEN_FILE` naming a file, in the environment of `run`, every request that is no
  `GET` needs `Authorization: Bearer <token>`; without one it is answered with 401. Flink's command line sends what
  `FLINK_REST_CLIENT_HEADERS=\"Authorization:Bearer <token>\"` says, our own reads the same variables as `run`. Without a token only
  loopback addresses are listened on.
- **TLS.** `STREAMJOB_TLS_CERT_FILE` and `STREAMJOB_TLS_KEY_FILE` (PEM) turn it on. Our command line trusts the system's
  authorities and the certificates in `STREAMJOB_TLS_CA_FILE`, or else those in `STREAMJOB_TLS_CERT_FILE`. The certificate has to
  name the address that is connected to; `run` itself connects to `127.0.0.1`. Flink's clients want an RSA key, or
  `security.ssl.algorithms` with others, and its command line needs `rest.address` and `rest.port` in its configuration then,
  since with `-m` it speaks no TLS.
- **Requests that take a while** answer with `{\"request-id\": ...}` at once and are polled. A caller may give the id itself,
  `triggerId`, 32 hexadecimal digits: the same request repeated under the same id is the same request, also when the
  coordinator was replaced in between (savepoints and stops).
- **Vertices** are named by 32 hexadecimal digits derived from the uid of their first operator.
- There is one savepoint format; `formatType` is accepted and makes no difference.

";

    fn page() -> String {
        let mut page = HEAD.to_owned();
        for (title, flink) in
            [("## Flink's endpoints\n\nEach also below `/v1`.\n\n", true), ("\n## Own endpoints\n\n", false)]
        {
            page += title;
            page += "| | | |\n|---|---|---|\n";
            for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.flink == flink) {
                page += &format!(
                    "| {} | `{}` | {} |\n",
                    endpoint.method,
                    endpoint.path,
                    endpoint.about.replace('|', "\\|")
                );
            }
        }
        page
    }

    #[test]
    fn the_page_of_endpoints_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rest.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page(), "run `make docs`");
    }

    #[test]
    fn methods_of_the_table_are_those_that_are_served() {
        for endpoint in ENDPOINTS {
            let served = format!("{:?}", (endpoint.handler)());
            assert!(served.contains(endpoint.method), "{} {}: {served}", endpoint.method, endpoint.path);
        }
    }
}
