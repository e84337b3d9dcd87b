use super::*;
use crate::controller::World;
use crate::controller::run::Context;
use crate::engine::EngineClient;
use crate::error::Class;
use crate::leader::LeaderToken;
use crate::metrics::Metrics;
use crate::settings::{Settings, TokenKey};
use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::sync::Arc;
use tower::service_fn;

/// What an API server was asked: method and path with query, and the body.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An API server that answers each request by the first rule whose text occurs in "METHOD path"; otherwise with what it
/// was sent.
fn server(rules: Vec<(&'static str, u16, Value)>) -> (Client, Asked) {
    let asked = Asked::default();
    let seen = asked.clone();
    let rules = Arc::new(rules);
    let service = service_fn(move |request: Request<Body>| {
        let (seen, rules) = (seen.clone(), rules.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let line = format!("{} {}", parts.method, parts.uri.path_and_query().unwrap());
            let rule = rules.iter().find(|(text, ..)| line.contains(text));
            let (code, answer) = rule.map_or((200, body.clone()), |(_, code, answer)| (*code, answer.clone()));
            seen.lock().push((line, body));
            let response = Response::builder().status(code).body(Body::from(serde_json::to_vec(&answer).unwrap()));
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    (Client::new(service, "n"), asked)
}

fn failure(code: u16, reason: &str) -> Value {
    let details = json!({ "retryAfterSeconds": 7 });
    json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no", "details": details })
}

fn context(client: Client) -> Context {
    Context {
        client,
        world: World::new(EngineClient::new().unwrap(), Arc::new(Metrics::new().unwrap())),
        settings: Settings {
            engine_image: "engine".into(),
            image_pull_policy: None,
            token_key: TokenKey::new("0123456789abcdef0123456789abcdef"),
        },
        leader: LeaderToken::always(),
        identity: "me".into(),
    }
}

fn job() -> StreamJob {
    let mut job = StreamJob::new("j", serde_json::from_value(json!({ "program": { "sql": "x" } })).unwrap());
    job.metadata.namespace = Some("n".into());
    job.metadata.uid = Some("u".into());
    job.metadata.resource_version = Some("5".into());
    job
}

fn child(owner: &str) -> Child {
    let mut map = ConfigMap::default();
    map.metadata.name = Some("j-1".into());
    map.metadata.namespace = Some("n".into());
    map.metadata.owner_references = Some(vec![owned_by(owner)]);
    Child::ConfigMap(Box::new(map))
}

fn owned_by(uid: &str) -> OwnerReference {
    OwnerReference { uid: uid.into(), controller: Some(true), name: "j".into(), ..OwnerReference::default() }
}

fn status(state: &str) -> Effect {
    Effect::WriteStatus(Box::new(StreamJobStatus { state: state.into(), ..StreamJobStatus::default() }))
}

fn deletion(uid: Option<&str>, force: bool) -> Effect {
    Effect::Delete(Deletion { kind: ChildKind::Pod, name: "p".into(), uid: uid.map(str::to_owned), force })
}

fn lines(asked: &Asked) -> Vec<String> {
    asked.lock().iter().map(|(line, _)| line.clone()).collect()
}

const STATUS: &str =
    "PUT /apis/streamjob.dev/v1alpha1/namespaces/n/streamjobs/j/status?&fieldManager=streamjob-operator";
const CREATE: &str = "POST /api/v1/namespaces/n/configmaps?&fieldManager=streamjob-operator";
const DELETE: &str = "DELETE /api/v1/namespaces/n/pods/p?";

#[tokio::test]
async fn one_after_the_other_until_one_fails() {
    let (client, asked) = server(vec![("POST", 429, failure(429, "TooManyRequests"))]);
    let error =
        act(&context(client), &job(), vec![status("a"), Effect::Create(child("u")), deletion(None, false)]).await;
    let error = error.unwrap_err();
    assert_eq!((error.class(), error.reason()), (Class::Transient, "ApiThrottled"));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(lines(&asked), [STATUS, CREATE]);
    let (client, asked) = server(Vec::new());
    act(&context(client), &job(), vec![status("a"), Effect::Create(child("u")), deletion(None, false)]).await.unwrap();
    assert_eq!(lines(&asked), [STATUS, CREATE, DELETE]);
}

#[tokio::test]
async fn who_is_not_the_leader_does_nothing() {
    let (client, asked) = server(Vec::new());
    let context = context(client);
    context.leader.give_up();
    let error = act(&context, &job(), vec![status("a")]).await.unwrap_err();
    assert!(matches!(error, Error::NotLeader));
    assert_eq!(lines(&asked).len(), 0);
}

#[tokio::test]
async fn a_status_is_written_once_and_over_nothing_newer() {
    let (client, asked) = server(Vec::new());
    let mut known = job();
    known.status = Some(StreamJobStatus { state: "a".into(), ..StreamJobStatus::default() });
    act(&context(client), &known, vec![status("a")]).await.unwrap();
    assert_eq!(lines(&asked).len(), 0);
    // The version that was observed goes with it.
    let (client, asked) = server(vec![("PUT", 409, failure(409, "Conflict"))]);
    let error = act(&context(client), &job(), vec![status("b")]).await.unwrap_err();
    assert_eq!(error.class(), Class::Conflict);
    assert_eq!(asked.lock()[0].1["metadata"]["resourceVersion"], "5");
}

#[tokio::test]
async fn the_next_pass_begins_with_what_was_written() {
    let mut answer = serde_json::to_value(job()).unwrap();
    answer["metadata"]["resourceVersion"] = json!("6");
    answer["status"] = json!({ "state": "a" });
    let (client, _) = server(vec![("PUT", 200, answer)]);
    let context = context(client);
    let key = JobKey { namespace: "n".into(), name: "j".into() };
    context.world.jobs.saw(key.clone(), job());
    act(&context, &job(), vec![status("a")]).await.unwrap();
    let known = context.world.jobs.by_job().get(&key, "j").unwrap();
    assert_eq!(known.metadata.resource_version.as_deref(), Some("6"));
    assert_eq!(known.status.as_ref().unwrap().state, "a");
}

#[tokio::test]
async fn what_exists_is_ours_or_in_the_way() {
    let exists = |owner: Option<&str>| {
        let mut found = json!({ "metadata": { "name": "j-1", "namespace": "n" } });
        if let Some(owner) = owner {
            found["metadata"]["ownerReferences"] = serde_json::to_value([owned_by(owner)]).unwrap();
        }
        server(vec![("POST", 409, failure(409, "AlreadyExists")), ("GET", 200, found)]).0
    };
    let create = || vec![Effect::Create(child("u"))];
    act(&context(exists(Some("u"))), &job(), create()).await.unwrap();
    for other in [Some("another"), None] {
        let error = act(&context(exists(other)), &job(), create()).await.unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
    }
    // Deleted between the two requests: made by another pass.
    let gone = server(vec![("POST", 409, failure(409, "AlreadyExists")), ("GET", 404, failure(404, "NotFound"))]).0;
    assert_eq!(act(&context(gone), &job(), create()).await.unwrap_err().class(), Class::Conflict);
}

/// Without the right to read one: its name says whose it is.
#[tokio::test]
async fn the_secret_of_a_job_is_made_once_and_never_looked_at() {
    let (client, asked) = server(vec![("POST", 409, failure(409, "AlreadyExists"))]);
    let (context, job) = (context(client), job());
    let key = JobKey { namespace: "n".into(), name: "j".into() };
    let secrets = |context: &Context| {
        let children = crate::resources::shared_children(&job, None, &context.settings).into_iter();
        children.filter(|child| child.kind() == ChildKind::Secret).map(Effect::Create).collect()
    };
    assert!(!context.world.tokens.is_there(&key, &job, &[]));
    act(&context, &job, secrets(&context)).await.unwrap();
    assert_eq!(lines(&asked), ["POST /api/v1/namespaces/n/secrets?&fieldManager=streamjob-operator"]);
    assert!(context.world.tokens.is_there(&key, &job, &[]));
    let observed = crate::controller::observe::observe(&context, &job).await;
    assert_eq!(observed.children.secrets.len(), 1);
}

#[tokio::test]
async fn only_the_object_that_is_meant_is_deleted() {
    let (client, asked) = server(Vec::new());
    act(&context(client), &job(), vec![deletion(Some("x"), true)]).await.unwrap();
    let body = asked.lock()[0].1.clone();
    assert_eq!(body["preconditions"]["uid"], "x");
    assert_eq!(body["gracePeriodSeconds"], 0);
    for (code, reason) in [(404, "NotFound"), (409, "Conflict")] {
        let (client, _) = server(vec![("DELETE", code, failure(code, reason))]);
        act(&context(client), &job(), vec![deletion(Some("x"), false)]).await.unwrap();
    }
    let (client, _) = server(vec![("DELETE", 403, failure(403, "Forbidden"))]);
    assert_eq!(act(&context(client), &job(), vec![deletion(None, false)]).await.unwrap_err().reason(), "ApiForbidden");
}

#[tokio::test]
async fn finalizers_of_others_stay() {
    let (client, asked) = server(vec![("PATCH", 200, serde_json::to_value(job()).unwrap())]);
    let mut ours = job();
    ours.metadata.finalizers = Some(vec!["other".into(), FINALIZER.into()]);
    act(&context(client), &ours, vec![Effect::AddFinalizer, Effect::RemoveFinalizer]).await.unwrap();
    let expected = json!([
        { "op": "test", "path": "/metadata/uid", "value": "u" },
        { "op": "test", "path": "/metadata/finalizers/1", "value": FINALIZER },
        { "op": "remove", "path": "/metadata/finalizers/1" },
    ]);
    // There already, so that nothing is added.
    assert_eq!(asked.lock().iter().map(|(_, body)| body.clone()).collect::<Vec<_>>(), [expected]);
    // Somebody changed the list.
    let (client, _) = server(vec![("PATCH", 422, failure(422, "Invalid"))]);
    let error = act(&context(client), &job(), vec![Effect::AddFinalizer]).await.unwrap_err();
    assert_eq!(error.class(), Class::Conflict);
    let (client, _) = server(vec![("PATCH", 404, failure(404, "NotFound"))]);
    act(&context(client), &ours, vec![Effect::RemoveFinalizer]).await.unwrap();
}

#[tokio::test]
async fn a_lost_event_is_no_failure() {
    let (client, asked) = server(vec![("events", 403, failure(403, "Forbidden"))]);
    let event = Effect::Event(Event { warning: true, reason: "R".into(), note: "é".repeat(1000) });
    act(&context(client), &job(), vec![event, status("a")]).await.unwrap();
    let asked = asked.lock();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].1["note"].as_str().unwrap().len(), LONGEST_NOTE);
    assert_eq!(asked[0].1["regarding"]["uid"], "u");
}

#[tokio::test]
async fn nobody_to_ask() {
    let (client, _) = server(Vec::new());
    let effects = vec![Effect::Engine { revision: 3, call: EngineCall::Activate }];
    let error = act(&context(client), &job(), effects).await.unwrap_err();
    assert!(matches!(error, Error::EngineUnreachable { revision: 3, .. }), "{error}");
}

#[test]
fn texts_are_cut_between_characters() {
    assert_eq!(shortened("aé", 2), "a");
    assert_eq!(shortened("aé", 3), "aé");
    assert_eq!(shortened("a", 9), "a");
}
