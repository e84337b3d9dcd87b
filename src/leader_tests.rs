use super::*;
use http::{Request, Response, StatusCode};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::convert::Infallible;
use tower::service_fn;

fn lease(holder: Option<&str>) -> Read {
    Read { holder: holder.map(str::to_owned), resource_version: Some("1".into()), duration: LEASE, transitions: 0 }
}

#[test]
fn who_takes_the_lease() {
    let s = Duration::from_secs;
    for (held, unchanged, decision) in [
        (None, s(0), Decision::Take),
        (Some(lease(None)), s(0), Decision::Take),
        (Some(lease(Some(""))), s(0), Decision::Take),
        (Some(lease(Some("me"))), s(0), Decision::Renew),
        // Also after a long silence it is ours as long as nobody took it.
        (Some(lease(Some("me"))), s(60), Decision::Renew),
        (Some(lease(Some("other"))), s(0), Decision::Wait(s(15))),
        (Some(lease(Some("other"))), s(14), Decision::Wait(s(1))),
        (Some(lease(Some("other"))), s(15), Decision::Take),
        // A released lease asks for a second at most.
        (Some(Read { duration: s(1), ..lease(Some("other")) }), s(1), Decision::Take),
    ] {
        assert_eq!(decide("me", held.as_ref(), unchanged), decision, "{held:?} unchanged for {unchanged:?}");
    }
}

#[test]
fn a_leader_stops_before_another_may_begin() {
    // The last request begun as a leader has the rest of the lease to end.
    assert!(RENEW_DEADLINE + Duration::from_secs(4) < LEASE);
    // Two more attempts when a renewal fails.
    assert!(RENEW + RETRY + RETRY < RENEW_DEADLINE);
}

/// One lease of an API server that refuses writes with an old resource version.
#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    away: bool,
    requests: Vec<String>,
}

fn api(server: &Arc<Mutex<Server>>) -> Client {
    let server = server.clone();
    let service = service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let (code, answer) = server.lock().answer(parts.method.as_str(), &body);
            let bytes = serde_json::to_vec(&answer).unwrap();
            let response = Response::builder().status(StatusCode::from_u16(code).unwrap()).body(Body::from(bytes));
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    Client::new(service, "n")
}

impl Server {
    fn answer(&mut self, method: &str, body: &[u8]) -> (u16, Value) {
        let failure = |code: u16, reason: &str| {
            (code, json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason }))
        };
        self.requests.push(method.to_owned());
        if self.away {
            return failure(503, "ServiceUnavailable");
        }
        let current = self.lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
        match (method, current) {
            ("GET", None) => failure(404, "NotFound"),
            ("GET", Some(_)) => (200, self.lease.clone().unwrap()),
            ("POST", Some(_)) => failure(409, "AlreadyExists"),
            (_, current) => {
                let mut lease: Value = serde_json::from_slice(body).unwrap();
                if method == "PUT" && Some(&lease["metadata"]["resourceVersion"]) != current.as_ref() {
                    return failure(409, "Conflict");
                }
                self.version += 1;
                lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
                self.lease = Some(lease.clone());
                (200, lease)
            }
        }
    }

    fn holder(&self) -> String {
        self.lease.as_ref().unwrap()["spec"]["holderIdentity"].as_str().unwrap().to_owned()
    }
}

fn election(server: &Arc<Mutex<Server>>, identity: &str) -> Election {
    Election::new(api(server), "n", "l", identity)
}

#[tokio::test]
async fn one_leads_until_it_leaves() {
    let server = Arc::default();
    let (mut a, mut b) = (election(&server, "a"), election(&server, "b"));
    assert!(!a.token().is_leader());
    assert_eq!(a.attempt().await.unwrap(), Decision::Take);
    assert_eq!(a.attempt().await.unwrap(), Decision::Renew);
    assert!(matches!(b.attempt().await.unwrap(), Decision::Wait(_)));
    assert!(a.token().check().is_ok() && b.token().check().is_err());
    a.release().await;
    assert!(!a.token().is_leader());
    assert_eq!(b.attempt().await.unwrap(), Decision::Take);
    assert!(b.token().is_leader());
    assert_eq!(server.lock().holder(), "b");
    // Who left late releases nothing of another's.
    a.release().await;
    assert_eq!(server.lock().holder(), "b");
}

#[tokio::test]
async fn of_two_that_read_the_same_one_wins() {
    let server: Arc<Mutex<Server>> = Arc::default();
    let (mut a, mut b) = (election(&server, "a"), election(&server, "b"));
    a.attempt().await.unwrap();
    a.release().await;
    // Both saw the empty lease; b was quicker.
    let seen = server.lock().lease.clone();
    b.attempt().await.unwrap();
    let stale = serde_json::to_vec(&seen).unwrap();
    assert_eq!(server.lock().answer("PUT", &stale).0, 409);
    assert!(matches!(a.attempt().await.unwrap(), Decision::Wait(_)));
    assert!(!a.token().is_leader());
}

#[tokio::test]
async fn an_api_server_that_is_away_ends_no_leadership_at_once() {
    let server: Arc<Mutex<Server>> = Arc::default();
    let mut a = election(&server, "a");
    a.attempt().await.unwrap();
    server.lock().away = true;
    assert!(a.attempt().await.is_err());
    assert!(a.token().is_leader());
    // It ends by the clock of this process.
    a.token.hold_until(Instant::now());
    assert!(!a.token().is_leader());
}

#[tokio::test]
async fn a_leader_that_renews_reads_only_what_it_does_not_know() {
    let server: Arc<Mutex<Server>> = Arc::default();
    let mut a = election(&server, "a");
    let mut asked = async |expected: &[&str]| {
        let decision = a.attempt().await;
        assert_eq!(std::mem::take(&mut server.lock().requests), expected);
        decision.ok()
    };
    assert_eq!(asked(&["GET", "POST"]).await, Some(Decision::Take));
    assert_eq!(asked(&["PUT"]).await, Some(Decision::Renew));
    // It is not known whether a write that failed took place.
    server.lock().away = true;
    assert_eq!(asked(&["PUT"]).await, None);
    server.lock().away = false;
    assert_eq!(asked(&["GET", "PUT"]).await, Some(Decision::Renew));
    assert_eq!(asked(&["PUT"]).await, Some(Decision::Renew));
    // Somebody else has written meanwhile.
    let taken = json!({ "metadata": { "resourceVersion": "77" }, "spec": { "holderIdentity": "b" } });
    server.lock().lease = Some(taken);
    assert!(matches!(asked(&["PUT", "GET"]).await, Some(Decision::Wait(_))));
}
