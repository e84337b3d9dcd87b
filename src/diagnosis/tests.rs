//! Pods and events as a cluster with Kubernetes 1.34 and containerd showed them (`observed.json`), and variations of them.

use super::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Deserialize)]
struct Case {
    pods: Vec<Value>,
    events: Vec<Value>,
}

fn observed() -> BTreeMap<String, Case> {
    serde_json::from_str(include_str!("observed.json")).unwrap()
}

fn now() -> Timestamp {
    "2026-11-28T06:12:00Z".parse().unwrap()
}

fn pods(values: &[Value]) -> Vec<Pod> {
    values.iter().map(|value| serde_json::from_value(value.clone()).unwrap()).collect()
}

fn events(values: &[Value]) -> Vec<Event> {
    values
        .iter()
        .map(|value| {
            let mut value = value.clone();
            value["metadata"]["name"] = "event".into();
            serde_json::from_value(value).unwrap()
        })
        .collect()
}

fn diagnosed(case: &Case) -> Option<(&'static str, String, bool)> {
    let diagnosis = diagnose(&pods(&case.pods), &events(&case.events), now())?;
    Some((diagnosis.reason, diagnosis.message, diagnosis.terminal))
}

fn expect(case: &Case, reason: &str, message: &str) {
    let (found, text, _) = diagnosed(case).unwrap_or_else(|| panic!("no diagnosis, expected {reason}: {message}"));
    assert_eq!((found, text.as_str()), (reason, message));
}

#[test]
fn what_a_cluster_shows() {
    let expected = [
        ("claim-missing", "ClaimNotFound", "claim-missing: PersistentVolumeClaim absent does not exist; create it"),
        (
            "claim-unbound",
            "ClaimNotBound",
            "claim-unbound: its PersistentVolumeClaim has no volume; see the claim's events",
        ),
        ("config-key", "ConfigMapNotFound", "config-key: ConfigMap present has no key nokey; add it"),
        ("config-missing", "ConfigMapNotFound", "config-missing: ConfigMap absent does not exist; create it"),
        ("crash", "CrashLoop", "crash: ended with exit code 1: boom: it broke"),
        ("evicted", "Evicted", "evicted: evicted: Usage of EmptyDir volume \"t\" exceeds the limit \"20Mi\""),
        (
            "image-missing",
            "ImagePullFailed",
            "image-missing: cannot pull image registry.example/streamjob/nope:dev: the registry does not answer; it is tried again",
        ),
        (
            "image-name",
            "InvalidImageName",
            "image-name: \"UPPER//case:x:y\" is no name of an image; correct spec.image",
        ),
        (
            "image-never",
            "ImagePullFailed",
            "image-never: image registry.example/streamjob/nope:dev is not on the node, and imagePullPolicy is Never; load it or change the policy",
        ),
        (
            "image-registry",
            "ImagePullFailed",
            "image-registry: cannot pull image registry.invalid/x:1: the registry does not answer; it is tried again",
        ),
        (
            "insecure",
            "PodSecurityRefused",
            "insecure-5cf45c589: violates PodSecurity \"restricted:latest\": runAsNonRoot != true (pod or container \"streamjob\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"streamjob\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ),
        ("many", "QuotaExceeded", "many: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2"),
        (
            "no-program",
            "ContainerStartFailed",
            "no-program: exec: \"/no/such/program\": stat /no/such/program: no such file or directory",
        ),
        ("oom", "OutOfMemory", "oom: out of memory (OOMKilled); raise resources.limits.memory"),
        (
            "quota",
            "QuotaExceeded",
            "quota-7445f64c79: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2",
        ),
        ("secret-key", "SecretNotFound", "secret-key: Secret present has no key nokey; add it"),
        ("secret-missing", "SecretNotFound", "secret-missing: Secret absent does not exist; create it"),
        ("secret-volume", "SecretNotFound", "secret-volume: Secret absent does not exist; create it"),
        ("secret-volume-key", "SecretNotFound", "secret-volume-key: a Secret has no key nokey; add it"),
        (
            "selector",
            "Unschedulable",
            "selector: cannot be scheduled: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector",
        ),
        (
            "toobig",
            "PodRefused",
            "toobig-c669d544b: may not be created: maximum cpu usage per Container is 2, but limit is 4",
        ),
        (
            "unschedulable",
            "Unschedulable",
            "unschedulable: cannot be scheduled: 0/1 nodes are available: 1 Insufficient cpu",
        ),
        ("words", "InvalidProgram", "words: line 3: no table x"),
    ];
    let cases = observed();
    let names: Vec<&str> = expected.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, cases.keys().collect::<Vec<_>>());
    let mut wrong = Vec::new();
    for (name, reason, message) in expected {
        let terminal = matches!(reason, "InvalidImageName" | "InvalidProgram");
        let found = diagnosed(&cases[name]);
        if found != Some((reason, message.to_owned(), terminal)) {
            wrong.push((name, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A container of the engine in some state.
fn pod(name: &str, container: Value) -> Value {
    let mut status =
        json!({ "name": "streamjob", "image": "engine:1", "imageID": "", "ready": false, "restartCount": 1 });
    status.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    json!({
        "metadata": { "name": name, "uid": name, "creationTimestamp": "2026-11-28T06:00:00Z" },
        "status": { "phase": "Running", "containerStatuses": [status] },
    })
}

fn one(pod: Value) -> Case {
    Case { pods: vec![pod], events: Vec::new() }
}

fn ended(exit_code: i32, message: &str) -> Value {
    json!({ "terminated": { "exitCode": exit_code, "reason": "Error", "message": message } })
}

fn back_off() -> Value {
    json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container" } })
}

#[test]
fn last_words_of_the_engine() {
    let table = [
        (2, r#"{"reason":"InvalidProgram","message":"no table x"}"#, "InvalidProgram", "no table x", true),
        (2, r#"{"reason":"IncompatibleState","message":"a\nb"}"#, "IncompatibleState", "a b", true),
        (4, r#"{"reason":"RestoreFailed","message":"gone"}"#, "RestoreFailed", "gone", true),
        (3, r#"{"reason":"Fenced","message":"by 4"}"#, "Fenced", "by 4", false),
        (70, r#"{"reason":"StorageUnavailable","message":"no bucket"}"#, "StorageUnavailable", "no bucket", false),
        (70, r#"{"reason":"StartFailed","message":"port taken"}"#, "StartFailed", "port taken", false),
        (70, r#"{"reason":"OfALaterVersion","message":"unheard of"}"#, "StartFailed", "unheard of", false),
        // Lines of a log before it, when the message is what a process wrote last.
        (2, "{\"level\":\"INFO\"}\n{\"reason\":\"InvalidProgram\",\"message\":\"x\"}\n", "InvalidProgram", "x", true),
        // Another version of the engine does not know our arguments.
        (
            2,
            "error: unexpected argument '--new'\n\nUsage: streamjob-engine\n\nFor more information, try '--help'.\n",
            "StartFailed",
            "error: unexpected argument '--new'",
            true,
        ),
        (2, "", "StartFailed", "it gives no reason", true),
        (101, "thread panicked\nat here\n", "CrashLoop", "ended with exit code 101: at here", false),
        (137, "", "CrashLoop", "killed (exit code 137); see kubectl logs --previous", false),
    ];
    for (code, words, reason, message, terminal) in table {
        let now = pod("j-c1-a", json!({ "state": ended(code, words) }));
        let before = pod("j-c1-a", json!({ "state": back_off(), "lastState": ended(code, words) }));
        for case in [one(now), one(before)] {
            assert_eq!(diagnosed(&case), Some((reason, format!("j-c1-a: {message}"), terminal)), "{code} {words}");
        }
    }
}

#[test]
fn a_process_that_is_back_is_given_its_time() {
    let running = json!({ "running": { "startedAt": "2026-11-28T06:11:59Z" } });
    let killed = pod("j-w1-0", json!({ "state": running, "lastState": ended(137, "") }));
    assert_eq!(diagnosed(&one(killed)), None);
    let out_of_memory = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
    let again = pod("j-w1-0", json!({ "state": running, "lastState": out_of_memory }));
    expect(&one(again), "OutOfMemory", "j-w1-0: out of memory (OOMKilled); raise resources.limits.memory");
    let ready = pod("j-w1-0", json!({ "state": running, "lastState": out_of_memory, "ready": true }));
    assert_eq!(diagnosed(&one(ready)), None);
    let clean = pod("j-w1-0", json!({ "state": { "terminated": { "exitCode": 0, "reason": "Completed" } } }));
    assert_eq!(diagnosed(&one(clean)), None);
}

#[test]
fn other_containers_do_not_speak_for_the_engine() {
    let words = r#"{"reason":"InvalidProgram","message":"no"}"#;
    let sidecar = pod("j-c1-a", json!({ "name": "sidecar", "state": ended(2, words) }));
    let (reason, _, terminal) = diagnosed(&one(sidecar)).unwrap();
    assert_eq!((reason, terminal), ("CrashLoop", false));
}

#[test]
fn the_first_cause_of_many() {
    let cases = observed();
    let all = |names: &[&str]| Case {
        pods: names.iter().flat_map(|name| cases[*name].pods.clone()).collect(),
        events: names.iter().flat_map(|name| cases[*name].events.clone()).collect(),
    };
    let chosen = |names: &[&str]| diagnosed(&all(names)).unwrap().0;
    // A program that cannot work comes before workers without a place, whatever their order.
    assert_eq!(chosen(&["unschedulable", "words", "crash"]), "InvalidProgram");
    assert_eq!(chosen(&["crash", "words", "unschedulable"]), "InvalidProgram");
    assert_eq!(chosen(&["crash", "unschedulable"]), "Unschedulable");
    assert_eq!(chosen(&["evicted", "quota"]), "QuotaExceeded");
    // Of several pods with the same reason always the same one.
    let (there, back) = (all(&["config-key", "config-missing"]), all(&["config-missing", "config-key"]));
    assert_eq!(diagnosed(&there), diagnosed(&back));
    assert_eq!(diagnosed(&all(&[])), None);
}

#[test]
fn pulling_and_waiting_say_the_same() {
    let cause = "failed to pull and unpack image \"r/x:1\": failed to resolve image: r/x:1: not found";
    let waiting = |reason: &str, message: &str| {
        let state = json!({ "waiting": { "reason": reason, "message": message } });
        one(pod("j-c1-a", json!({ "image": "r/x:1", "state": state })))
    };
    let mut old = waiting("ImagePullBackOff", "Back-off pulling image \"r/x:1\"");
    let event = |message: String| {
        json!({
            "metadata": {}, "type": "Warning", "reason": "Failed", "message": message,
            "involvedObject": { "kind": "Pod", "name": "j-c1-a", "uid": "j-c1-a" },
        })
    };
    old.events = vec![event(format!("Failed to pull image \"r/x:1\": {cause}")), event("Error: ErrImagePull".into())];
    let rpc = format!("rpc error: code = NotFound desc = {cause}");
    for case in [
        waiting("ErrImagePull", cause),
        waiting("ErrImagePull", &rpc),
        waiting("ImagePullBackOff", &format!("Back-off pulling image \"r/x:1\": ErrImagePull: {cause}")),
        old,
    ] {
        let message = "j-c1-a: cannot pull image r/x:1: the registry has no such image; check name and tag";
        expect(&case, "ImagePullFailed", message);
    }
    let table = [
        ("pull access denied, repository does not exist or may require authorization", "refuses access"),
        ("failed to authorize: failed to fetch oauth token: 401 Unauthorized", "refuses access"),
        ("no match for platform in manifest: not found", "not made for the node's processor"),
        ("toomanyrequests: You have reached your pull rate limit", "limits requests"),
        ("pull QPS exceeded", "too many images at once"),
        ("dial tcp: lookup r on 10.0.0.10:53: no such host", "does not answer"),
        ("rpc error: code = Unknown desc = something new", "r/x:1: something new"),
        ("", "see the pod's events"),
    ];
    for (text, expected) in table {
        let (_, message, _) = diagnosed(&waiting("ErrImagePull", text)).unwrap();
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn a_refused_pod_that_was_made_later_is_history() {
    let refused = observed()["many"].clone();
    let made = |name: &str, at: &str| json!({ "metadata": { "name": name, "uid": name, "creationTimestamp": at } });
    let with = |pod: Value| Case { pods: [refused.pods.clone(), vec![pod]].concat(), ..refused.clone() };
    assert_eq!(diagnosed(&with(made("many-1", "2026-11-28T06:11:00Z"))), None);
    // Others are no answer: made before, or of another workload whose name begins alike.
    assert!(diagnosed(&with(made("many-1", "2026-11-28T06:09:00Z"))).is_some());
    assert!(diagnosed(&with(made("manya-1", "2026-11-28T06:11:00Z"))).is_some());
    let later = "2026-11-28T07:00:00Z".parse().unwrap();
    assert_eq!(diagnose(&pods(&refused.pods), &events(&refused.events), later), None, "nobody tries any more");
    let mut passes = observed()["quota"].clone();
    for event in &mut passes.events {
        event["message"] = "Error creating: pods \"j\" is forbidden: error looking up service account shop/j: serviceaccount \"j\" not found".into();
    }
    assert_eq!(diagnosed(&passes), None);
}

#[test]
fn a_pod_that_was_replaced_is_history() {
    let mut evicted = observed()["evicted"].pods[0].clone();
    let owner =
        json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "j-c1", "uid": "rs", "controller": true }]);
    evicted["metadata"]["ownerReferences"] = owner.clone();
    assert_eq!(diagnosed(&one(evicted.clone())).unwrap().0, "Evicted");
    let running = json!({ "running": { "startedAt": "2026-11-28T06:11:30Z" } });
    let mut next = pod("j-c1-b", json!({ "state": running, "ready": true }));
    next["metadata"]["creationTimestamp"] = "2026-11-28T06:11:26Z".into();
    let of_another = Case { pods: vec![evicted.clone(), next.clone()], events: Vec::new() };
    assert_eq!(diagnosed(&of_another).unwrap().0, "Evicted");
    next["metadata"]["ownerReferences"] = owner;
    assert_eq!(diagnosed(&Case { pods: vec![evicted, next], events: Vec::new() }), None);
}

#[test]
fn a_lost_node() {
    let mut terminating = observed()["oom"].pods[0].clone();
    terminating["spec"] = json!({ "containers": [], "nodeName": "node-2" });
    terminating["metadata"]["deletionTimestamp"] = "2026-11-28T06:11:40Z".into();
    assert_eq!(diagnosed(&one(terminating.clone())), None, "it may still go");
    terminating["metadata"]["deletionTimestamp"] = "2026-11-28T06:11:20Z".into();
    expect(&one(terminating), "NodeLost", "oom: cannot be deleted, node-2 does not answer");
}

#[test]
fn volumes_and_network() {
    let table = [
        (
            "FailedMount",
            "MountVolume.SetUp failed for volume \"pvc-1\" : mount failed: exit status 32",
            Some("VolumeMountFailed"),
        ),
        (
            "FailedAttachVolume",
            "Multi-Attach error for volume \"pvc-1\" Volume is already used by pod(s) a",
            Some("VolumeMountFailed"),
        ),
        (
            "FailedMount",
            "MountVolume.SetUp failed for volume \"job\" : configmap \"j-1\" not found",
            Some("ConfigMapNotFound"),
        ),
        (
            "FailedMount",
            "Unable to attach or mount volumes: unmounted volumes=[state]: timed out waiting for the condition",
            None,
        ),
        (
            "FailedCreatePodSandBox",
            "Failed to create pod sandbox: plugin type=\"bridge\" failed (add)",
            Some("SandboxFailed"),
        ),
        ("Unhealthy", "Readiness probe failed", None),
    ];
    for (reason, message, expected) in table {
        let mut case = observed()["secret-volume"].clone();
        case.events[0]["reason"] = reason.into();
        case.events[0]["message"] = message.into();
        assert_eq!(diagnosed(&case).map(|found| found.0), expected, "{message}");
        // Once the container has started it is history.
        case.pods[0]["status"]["containerStatuses"][0]["state"] = json!({ "running": {} });
        assert_eq!(diagnosed(&case), None, "{message}");
    }
}

#[test]
fn other_states() {
    let waiting = |reason: &str, message: &str| {
        one(pod("p", json!({ "state": { "waiting": { "reason": reason, "message": message } } })))
    };
    expect(
        &waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
        "ContainerConfigError",
        "p: container has runAsNonRoot and image will run as root",
    );
    expect(&waiting("RunContainerError", "failed to start"), "ContainerStartFailed", "p: failed to start");
    assert_eq!(diagnosed(&waiting("PodInitializing", "")), None);
    let failed = json!({ "metadata": { "name": "p" }, "status": { "phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough resource: cpu" } });
    expect(&one(failed), "PodFailed", "p: OutOfcpu: Node didn't have enough resource: cpu");
    let gated = json!({ "metadata": { "name": "p" }, "status": { "phase": "Pending", "conditions": [
        { "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates" },
    ] } });
    expect(&one(gated), "SchedulingGated", "p: scheduling is gated");
    assert_eq!(diagnosed(&one(json!({ "metadata": { "name": "p" } }))), None);
}

#[test]
fn messages_are_short_lines() {
    let long = "word ".repeat(500) + "\n";
    let case = one(pod("p", json!({ "state": ended(1, &long) })));
    let (_, message, _) = diagnosed(&case).unwrap();
    assert!(message.chars().count() < 450 && !message.contains('\n') && message.ends_with('…'), "{message}");
}

#[test]
fn reasons_are_told() {
    let names: BTreeSet<&str> = REASONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), REASONS.len());
    for (name, text) in REASONS {
        assert!(text.ends_with('.') && text.len() > 30, "{name}");
    }
    // Those of the engine keep their names here.
    for reason in
        ["InvalidProgram", "IncompatibleState", "RestoreFailed", "StorageUnavailable", "Fenced", "StartFailed"]
    {
        assert!(names.contains(reason), "{reason}");
    }
}
