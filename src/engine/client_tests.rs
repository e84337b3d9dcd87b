use super::*;
use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;

const JOB: &str = "0123456789abcdef0123456789abcdef";

/// What a coordinator was asked: method, path with query, token, body.
type Asked = Arc<Mutex<Vec<(String, String, Option<String>, Value)>>>;

/// A coordinator that always answers the same.
async fn answering(status: u16, answer: Value) -> (Target, Asked) {
    let asked = Asked::default();
    let seen = asked.clone();
    let router = Router::new().fallback(move |request: Request| {
        let (seen, answer) = (seen.clone(), answer.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let token = parts.headers.get("authorization").map(|token| token.to_str().unwrap().to_owned());
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            seen.lock().push((parts.method.to_string(), parts.uri.to_string(), token, body));
            (StatusCode::from_u16(status).unwrap(), answer.to_string())
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (Target { address, job_id: JOB.into(), token: "secret".into() }, asked)
}

#[tokio::test]
async fn calls_carry_token_and_name() {
    let client = EngineClient::new().unwrap();
    let (target, asked) = answering(202, json!({ "request-id": "t" })).await;
    let trigger = "t".to_owned();
    for call in [
        EngineCall::Activate,
        EngineCall::Stop { trigger: trigger.clone(), directory: Some("/d".into()) },
        EngineCall::Savepoint { trigger, directory: None },
        EngineCall::Cancel,
        EngineCall::Configure(json!({ "checkpoint": { "interval": "2s" } })),
    ] {
        client.call(&target, &call).await.unwrap();
    }
    let token = Some("Bearer secret".to_owned());
    let expected = [
        ("POST", "/v1/activate".to_owned(), json!(null)),
        ("POST", format!("/jobs/{JOB}/stop"), json!({ "targetDirectory": "/d", "triggerId": "t" })),
        ("POST", format!("/jobs/{JOB}/savepoints"), json!({ "triggerId": "t" })),
        ("POST", "/v1/cancel".to_owned(), json!(null)),
        ("PATCH", "/v1/config".to_owned(), json!({ "checkpoint": { "interval": "2s" } })),
    ];
    let expected: Vec<_> =
        expected.into_iter().map(|(method, path, body)| (method.to_owned(), path, token.clone(), body)).collect();
    assert_eq!(*asked.lock(), expected);
}

#[tokio::test]
async fn how_a_savepoint_stands() {
    let failed = json!({ "class": "x", "stack-trace": "no space", "serialized-throwable": "" });
    for (code, answer, expected) in [
        (200, json!({ "status": { "id": "IN_PROGRESS" }, "operation": null }), SavepointAnswer::InProgress),
        (
            200,
            json!({ "status": { "id": "COMPLETED" }, "operation": { "savepoint": { "checkpoint": 8, "path": "/s" } } }),
            SavepointAnswer::Completed(Box::new(EngineSavepoint {
                id: 8,
                path: "/s".into(),
                ..EngineSavepoint::default()
            })),
        ),
        (
            200,
            json!({ "status": { "id": "COMPLETED" }, "operation": { "failure-cause": failed } }),
            SavepointAnswer::Failed { reason: "no space".into() },
        ),
        (404, json!({ "errors": ["unknown"] }), SavepointAnswer::Unknown),
    ] {
        let (target, asked) = answering(code, answer).await;
        assert_eq!(EngineClient::new().unwrap().savepoint(&target, "t").await, Ok(expected));
        // Reading needs no token, so it is not sent.
        assert_eq!(asked.lock()[0].2, None);
    }
}

#[tokio::test]
async fn refusals_and_silence() {
    let client = EngineClient::new().unwrap();
    let (target, _) = answering(409, json!({ "errors": ["it is stopped", "already"] })).await;
    let refused = client.call(&target, &EngineCall::Cancel).await;
    assert_eq!(refused, Err(CallError::Refused { status: 409, message: "it is stopped; already".into() }));
    // Somebody else's server.
    let (target, _) = answering(200, json!("hello")).await;
    let odd = client.status(target.address, None, Duration::ZERO).await;
    assert!(matches!(odd, Err(CallError::Refused { status: 200, .. })), "{odd:?}");
    // A port that nobody listens on any more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let gone = client.status(address, None, Duration::ZERO).await;
    assert!(matches!(gone, Err(CallError::Unreachable(_))), "{gone:?}");
}

#[tokio::test]
async fn a_status_is_waited_for() {
    let (target, asked) = answering(200, json!({ "version": 8, "state": "RUNNING", "news": 1 })).await;
    let client = EngineClient::new().unwrap();
    let status = client.status(target.address, Some(7), Duration::from_secs(30)).await.unwrap();
    assert_eq!((status.version, status.state.as_str()), (8, "RUNNING"));
    assert_eq!(asked.lock()[0].1, "/v1/status?after=7&wait=30000");
}
