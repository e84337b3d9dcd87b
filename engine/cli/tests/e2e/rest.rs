//! The REST API: what it says of a running job, what it refuses, who may use it, and the command line's verbs on top of it.

use crate::api::{Running, exchange, get, request};
use crate::harness::{Engine, Job, Launch, Place, Role};
use crate::nexmark::await_checkpoint;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;

const TOKEN: &str = "a-token-of-this-test";

fn endless() -> Job {
    Job::file("e2e/jobs/accounts.yaml").env("EVENTS", 0).parallelism(2).checkpoint("interval: 200ms").restarting()
}

/// With a default place for savepoints.
fn with_savepoints(place: &Place) -> Job {
    endless().spec("storage", &format!("{{ savepointDir: {} }}", place.path("savepoints").display()))
}

fn verb(place: &Place, arguments: &[&str]) -> Launch {
    let mut all = arguments.to_vec();
    all.extend(["--data-dir", "state"]);
    Launch::verb(place.root(), &all)
}

/// Of a verb with `--output json`.
fn json_of(output: &str) -> Value {
    serde_json::from_str(output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

/// `savepoint-<first 6 of the job's id>-<12 hexadecimal digits>`.
fn is_savepoint_name(directory: &str, job: &str) -> bool {
    let name = Path::new(directory).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let random = name.strip_prefix(&format!("savepoint-{}-", &job[..6])).unwrap_or_default();
    random.len() == 12 && random.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn still_works(running: &Running, engine: &Engine) {
    let before = running.completed();
    engine.eventually("further checkpoints", || (running.completed() >= before + 2).then_some(()));
    assert_eq!(running.get("/status"), json!({ "status": "RUNNING" }));
}

/// The coordinator's answer to a worker that planned something else.
fn registered(control: &str, token: Option<&str>) -> Value {
    let register = json!({ "Register": {
        "job_id": "j", "fingerprint": "f", "slots": 1, "data_addr": "127.0.0.1:9", "metrics_addr": null, "pid": 1, "token": token,
    } });
    let body = register.to_string();
    let mut stream = std::net::TcpStream::connect(control).expect("the control port");
    stream.write_all(&(body.len() as u32).to_be_bytes()).expect("sending");
    stream.write_all(body.as_bytes()).expect("sending");
    let mut length = [0u8; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0u8; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("an answer");
    serde_json::from_slice(&answer).expect("JSON")
}

#[test]
fn r68_every_figure_of_checkpoints_is_there_and_adds_up() {
    let place = Place::new();
    let mut engine = place.job(&with_savepoints(&place)).start();
    await_checkpoint(&mut engine, &place.path("state"), 2);
    let running = Running::of(&engine);
    let savepoint = running.savepoint(&engine, &json!({}));
    let statistics = running.get("/checkpoints");
    let counts = &statistics["counts"];
    let sum =
        ["completed", "in_progress", "failed"].map(|name| counts[name].as_u64().expect("a number")).iter().sum::<u64>();
    assert_eq!(counts["total"], json!(sum), "{counts}");
    for figure in ["checkpointed_size", "state_size", "end_to_end_duration"] {
        let summary = &statistics["summary"][figure];
        let in_order: Vec<f64> = ["min", "p50", "p90", "p95", "p99", "p999", "max"]
            .map(|name| summary[name].as_f64().expect("a number"))
            .into();
        assert!(in_order.is_sorted(), "{figure}: {summary}");
        assert!(summary["avg"].as_f64() >= summary["min"].as_f64(), "{figure}: {summary}");
    }
    assert_eq!(statistics["latest"]["savepoint"]["external_path"], json!(savepoint));
    assert_eq!(statistics["latest"]["savepoint"]["checkpoint_type"], "SAVEPOINT");
    let ids: Vec<u64> = statistics["history"]
        .as_array()
        .expect("a history")
        .iter()
        .map(|checkpoint| checkpoint["id"].as_u64().expect("an id"))
        .collect();
    assert!(ids.len() >= 3 && ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");

    // A checkpoint's figures are the sums of its vertices', and those of their subtasks'.
    let checkpoint = &statistics["latest"]["completed"];
    let external = checkpoint["external_path"].as_str().expect("a path");
    assert!(
        Path::new(external).is_absolute() && external.ends_with(&format!("chk-{}", checkpoint["id"])),
        "{external}"
    );
    let details = running.get(&format!("/checkpoints/details/{}", checkpoint["id"]));
    let tasks = details["tasks"].as_object().expect("vertices");
    assert_eq!(tasks.keys().cloned().collect::<BTreeSet<_>>(), running.vertices().into_iter().collect());
    let vertex_sum = |name: &str| tasks.values().map(|task| task[name].as_u64().expect("a number")).sum::<u64>();
    for figure in ["checkpointed_size", "state_size", "num_subtasks", "num_acknowledged_subtasks"] {
        assert_eq!(details[figure].as_u64(), Some(vertex_sum(figure)), "{figure}: {details}");
    }
    assert!(vertex_sum("state_size") > 0, "{details}");
    for (vertex, task) in tasks {
        let path = format!("/checkpoints/details/{}/subtasks/{vertex}", checkpoint["id"]);
        let subtasks = running.get(&path);
        let list = subtasks["subtasks"].as_array().expect("subtasks");
        assert_eq!(list.len() as u64, task["num_subtasks"].as_u64().expect("a number"));
        for figure in ["checkpointed_size", "state_size"] {
            let sum: u64 = list.iter().map(|subtask| subtask[figure].as_u64().expect("a number")).sum();
            assert_eq!(task[figure].as_u64(), Some(sum), "{figure}: {subtasks}");
        }
        for (index, subtask) in list.iter().enumerate() {
            assert_eq!(subtask["index"].as_u64(), Some(index as u64));
            let times = [&subtask["start_delay"], &subtask["alignment"]["duration"], &subtask["checkpoint"]["sync"]];
            assert!(times.iter().all(|time| time.is_u64()) && subtask["checkpoint"]["async"].is_u64(), "{subtask}");
        }
        assert_eq!(
            subtasks["summary"]["state_size"]["max"].as_u64(),
            list.iter().map(|s| s["state_size"].as_u64()).max().flatten()
        );
    }

    // The log says the same.
    let logged = engine.eventually("the checkpoint in the log", || {
        let logs = engine.process_logs();
        let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut of_checkpoint = lines.filter(|line| line["fields"]["checkpoint"] == checkpoint["id"]);
        of_checkpoint
            .find(|line| line["fields"]["message"] == "checkpoint completed")
            .map(|line| line["fields"].clone())
    });
    for (field, figure) in
        [("duration_ms", "end_to_end_duration"), ("bytes_new", "checkpointed_size"), ("bytes_total", "state_size")]
    {
        assert_eq!(logged[field], details[figure], "{logged}\n{details}");
    }

    // What a failure leaves behind: a restore, its cause, and the task or worker.
    engine.kill(engine.workers(2)[0]);
    let restored = engine.eventually("a restore", || {
        Some(running.get("/checkpoints")["latest"]["restored"].clone()).filter(|restored| !restored.is_null())
    });
    assert!(restored["restore_timestamp"].as_u64() > checkpoint["trigger_timestamp"].as_u64(), "{restored}");
    assert!(
        restored["external_path"].as_str().expect("a path").ends_with(&format!("chk-{}", restored["id"])),
        "{restored}"
    );
    let exceptions = running.get("/exceptions");
    let first = &exceptions["exceptionHistory"]["entries"][0];
    assert!(first["stacktrace"].as_str().is_some_and(|text| text.contains("worker-")), "{exceptions}");
    let none = running.get("/exceptions?maxExceptions=0");
    assert_eq!(none["exceptionHistory"], json!({ "entries": [], "truncated": true }));
    still_works(&running, &engine);
}

#[test]
fn r51_a_savepoint_without_a_place_is_refused() {
    let place = Place::new();
    let mut engine = place.job(&endless()).start();
    await_checkpoint(&mut engine, &place.path("state"), 0);
    let running = Running::of(&engine);
    let expected = "No savepoint location given and no default location configured.";
    for path in ["/savepoints", "/stop"] {
        let (status, body) = running.post(path, &json!({}));
        assert_eq!(status, 400, "{body}");
        assert!(body["errors"][0].as_str().is_some_and(|error| error.starts_with(expected)), "{body}");
    }
    verb(&place, &["savepoint"]).fail(&[expected, "spec.storage.savepointDir"]);
    verb(&place, &["stop"]).fail(&[expected]);
    still_works(&running, &engine);
    // With a place it works, and the name is Flink's.
    let target = place.path("elsewhere");
    let savepoint = running.savepoint(&engine, &json!({ "target-directory": target }));
    assert!(is_savepoint_name(&savepoint, &running.job), "{savepoint}");
    assert_eq!(Path::new(&savepoint).parent(), Some(target.as_path()));
}

#[test]
fn r56_savepoints_have_names_of_their_own_and_a_repeated_request_is_the_same_one() {
    let place = Place::new();
    let mut engine = place.job(&with_savepoints(&place)).start();
    await_checkpoint(&mut engine, &place.path("state"), 0);
    let running = Running::of(&engine);
    let mut places = BTreeSet::new();
    for _ in 0..3 {
        let savepoint = running.savepoint(&engine, &json!({ "formatType": "NATIVE" }));
        assert!(is_savepoint_name(&savepoint, &running.job), "{savepoint}");
        assert!(places.insert(savepoint), "{places:?}");
    }
    let trigger = "00112233445566778899AABBCCDDEEFF";
    let request = json!({ "triggerId": trigger });
    let first = running.savepoint(&engine, &request);
    let again = running.savepoint(&engine, &request);
    assert_eq!(first, again);
    // It is not the newest one any more, and all is known of it.
    assert!(places.insert(running.savepoint(&engine, &json!({}))));
    let known = running.ended(&engine, &format!("/v1/savepoints/{trigger}"))["savepoint"].clone();
    assert_eq!((known["path"].as_str(), known["stopped"].as_bool()), (Some(first.as_str()), Some(false)), "{known}");
    for figure in ["checkpoint", "bytes", "triggered_at", "completed_at"] {
        assert!(known[figure].as_u64().is_some_and(|number| number > 0), "{figure}: {known}");
    }
    // A coordinator that comes later knows it too, without the figures that only its own statistics have.
    engine.kill(engine.coordinator());
    let running = Running::of(&engine);
    assert_eq!(running.savepoint(&engine, &request), first);
    let still = running.ended(&engine, &format!("/v1/savepoints/{trigger}"))["savepoint"].clone();
    assert_eq!((&still["path"], &still["checkpoint"]), (&known["path"], &known["checkpoint"]));
    let found = std::fs::read_dir(place.path("savepoints")).expect("savepoints").count();
    assert_eq!(found, 5);
    let (status, body) = running.post("/savepoints", &json!({ "triggerId": trigger, "cancel-job": true }));
    assert_eq!(status, 409, "{body}");
}

#[test]
fn bad_requests_are_refused_and_harm_nothing() {
    let place = Place::new();
    let mut engine = place.job(&with_savepoints(&place)).start();
    await_checkpoint(&mut engine, &place.path("state"), 0);
    let running = Running::of(&engine);
    let job = |rest: &str| running.path(rest);
    let other = "0".repeat(32);
    let large = format!("{{\"target-directory\": \"{}\"}}", "x".repeat(2 << 20));
    let table: Vec<(&str, String, &str, u16, &str)> = vec![
        ("GET", "/nothing".into(), "", 404, "Not found: /nothing"),
        ("GET", format!("/jobs/{other}"), "", 404, "Could not find Flink job"),
        ("GET", format!("/v1/jobs/{other}/checkpoints"), "", 404, "Could not find Flink job"),
        ("GET", "/jobs/xyz".into(), "", 400, "(jobid) from value \"xyz\""),
        ("PATCH", format!("/jobs/{other}"), "", 404, "Could not find Flink job"),
        ("PATCH", job("?mode=stop"), "", 400, "has been removed"),
        ("PATCH", job("?mode=hop"), "", 400, "expected cancel"),
        ("DELETE", job(""), "", 405, "DELETE"),
        ("GET", job("/vertices/xyz"), "", 400, "(vertexid)"),
        ("GET", job(&format!("/vertices/{other}")), "", 404, "not found"),
        ("GET", job("/checkpoints/details/1x"), "", 400, "(checkpointid)"),
        ("GET", job("/checkpoints/details/999999"), "", 404, "999999"),
        ("GET", job("/checkpoints/xyz"), "", 400, "(triggerid)"),
        ("GET", job(&format!("/checkpoints/{other}")), "", 404, "Operation not found"),
        ("GET", job(&format!("/savepoints/{other}")), "", 404, "Operation not found"),
        ("GET", format!("/v1/savepoints/{other}"), "", 404, "Operation not found"),
        ("GET", format!("/savepoint-disposal/{other}"), "", 404, "Operation not found"),
        ("GET", job("/exceptions?maxExceptions=few"), "", 400, "maxExceptions"),
        ("GET", "/taskmanagers/worker-999".into(), "", 404, "worker-999"),
        ("POST", job("/savepoints"), "{", 400, "SavepointTriggerRequestBody"),
        ("POST", job("/savepoints"), "[1]", 400, "SavepointTriggerRequestBody"),
        ("POST", job("/savepoints"), r#"{"target_directory": "/tmp"}"#, 400, "target_directory"),
        ("POST", job("/savepoints"), r#"{"target-directory": "relative"}"#, 400, "an absolute path"),
        ("POST", job("/savepoints"), r#"{"target-directory": "hdfs://a/b"}"#, 400, "hdfs://a/b"),
        ("POST", job("/savepoints"), r#"{"target-directory": "/proc/no/such"}"#, 400, "cannot be written"),
        ("POST", job("/savepoints"), r#"{"formatType": "ZIP"}"#, 400, "ZIP"),
        ("POST", job("/savepoints"), r#"{"triggerId": "mine"}"#, 400, "32 hexadecimal digits"),
        ("POST", job("/savepoints"), &large, 413, "more than 1048576 bytes"),
        ("POST", job("/stop"), r#"{"drain": "yes"}"#, 400, "StopWithSavepointRequestBody"),
        ("POST", job("/checkpoints"), r#"{"checkpointType": "SMALL"}"#, 400, "CheckpointTriggerRequestBody"),
        ("POST", "/savepoint-disposal".into(), "{}", 400, "savepoint-path is missing"),
        ("PUT", job("/resource-requirements"), "{}", 400, "has no requirements"),
        ("PUT", job("/resource-requirements"), "nonsense", 400, "JobResourceRequirementsBody"),
        ("POST", "/v1/rescale".into(), r#"{"parallelism": 0}"#, 400, "expected 1 to 128"),
        ("POST", "/v1/rescale".into(), r#"{"parallelism": 129}"#, 400, "expected 1 to 128"),
        (
            "PATCH",
            "/v1/config".into(),
            r#"{"checkpoint": {"mode": "AtLeastOnce"}}"#,
            400,
            "cannot change while the job runs",
        ),
        ("PATCH", "/v1/config".into(), r#"{"checkpoint": {"interval": "1ms"}}"#, 400, "at least 10ms"),
        ("POST", "/v1/check".into(), "{}", 400, "missing field `job`"),
    ];
    for (method, path, body, expected_status, expected) in table {
        let (status, answer) = request(&running.address, method, &path, None, body);
        let shown: String = body.chars().take(60).collect();
        assert_eq!(status, expected_status, "{method} {path} {shown}: {answer}");
        let errors = answer["errors"].as_array().unwrap_or_else(|| panic!("{method} {path}: {answer}"));
        assert!(
            errors.iter().any(|error| error.as_str().is_some_and(|error| error.contains(expected))),
            "{method} {path}: {answer}"
        );
    }
    still_works(&running, &engine);
    assert_eq!(running.get("/checkpoints")["counts"]["restored"], 0);
}

#[test]
fn changes_need_the_token_and_nobody_sees_it() {
    let place = Place::new();
    let mut engine = place.job(&with_savepoints(&place)).environment("STREAMJOB_TOKEN", TOKEN).start();
    await_checkpoint(&mut engine, &place.path("state"), 0);
    let running = Running::of(&engine);
    let path = running.path("/checkpoints");
    for wrong in [None, Some("wrong"), Some("a-token-of-this-tesT"), Some("")] {
        let (status, head, body) = exchange(&running.address, "POST", &path, wrong, "");
        assert_eq!(status, 401, "{wrong:?}: {body}");
        assert!(head.contains("www-authenticate: bearer"), "{head}");
        assert!(body["errors"][0].as_str().is_some_and(|error| error.contains("Authorization: Bearer")), "{body}");
    }
    for (method, path) in [
        ("PATCH", running.path("?mode=cancel")),
        ("POST", running.path("/stop")),
        ("PUT", running.path("/resource-requirements")),
        ("POST", "/v1/suspend".into()),
        ("POST", "/v1/cancel".into()),
        ("PATCH", "/v1/config".into()),
        ("POST", "/savepoint-disposal".into()),
    ] {
        assert_eq!(request(&running.address, method, &path, None, "").0, 401, "{method} {path}");
    }
    assert_eq!(request(&running.address, "POST", &path, Some(TOKEN), "").0, 202);
    verb(&place, &["savepoint"]).fail(&["needs the job's token", "STREAMJOB_TOKEN"]);
    verb(&place, &["list"]).succeed();
    let file = place.path("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("a file");
    let with_file = verb(&place, &["savepoint"]).environment("STREAMJOB_TOKEN_FILE", &file.display().to_string());
    assert!(with_file.succeed().contains("savepoint: "));
    still_works(&running, &engine);
    for process in engine.processes() {
        let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).expect("arguments");
        assert!(!arguments.contains(TOKEN), "{arguments}");
    }
    // Who registers as a worker gets state and data.
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", engine.coordinator().pid)).expect("arguments");
    let control = arguments.split('\0').skip_while(|argument| *argument != "--control").nth(1).expect("an address");
    for (token, expected) in
        [(None, "the job's token"), (Some("wrong"), "the job's token"), (Some(TOKEN), "another job graph")]
    {
        let refused = registered(control, token);
        assert!(refused["Refused"]["reason"].as_str().is_some_and(|reason| reason.contains(expected)), "{refused}");
    }
    // The supervisor suspends with it.
    engine.interrupt();
    assert!(engine.await_end().success(), "{}", engine.log_end());
    assert!(!engine.log().contains(TOKEN) && !engine.process_logs().contains(TOKEN));
}

#[test]
fn web_pages_cannot_stop_a_job_that_has_no_token() {
    let place = Place::new();
    let engine = place.job(&endless()).start();
    let running = Running::of(&engine);
    // As a browser sends it for a page: the header comes before the path's own.
    let smuggled = format!("{} HTTP/1.1\r\nOrigin: https://elsewhere.example\r\nX-Rest:", running.path("?mode=cancel"));
    let (status, body) = request(&running.address, "PATCH", &smuggled, None, "");
    assert_eq!(status, 403, "{body}");
    assert_eq!(running.get("/status"), json!({ "status": "RUNNING" }));
}

#[test]
fn beyond_this_machine_only_with_a_token() {
    let place = Place::new();
    let launch = place.job(&endless()).argument("--rest").argument("0.0.0.0:0");
    launch.fail(&["--rest 0.0.0.0:0", "STREAMJOB_TOKEN"]);
    assert!(!place.path("state").exists());
    let engine =
        place.job(&endless()).argument("--rest").argument("127.0.0.1:0").environment("STREAMJOB_TOKEN", "two words");
    engine.fail(&["the token in STREAMJOB_TOKEN or STREAMJOB_TOKEN_FILE"]);
}

/// The environment of a coordinator with a certificate for 127.0.0.1: the first value is the certificate's file. RSA, since
/// Flink's clients speak nothing else unless they are configured to.
pub fn certificate(place: &Place) -> [(&'static str, String); 2] {
    let (certificate, key) = (place.path("cert.pem"), place.path("key.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=streamjob test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    [
        ("STREAMJOB_TLS_CERT_FILE", certificate.display().to_string()),
        ("STREAMJOB_TLS_KEY_FILE", key.display().to_string()),
    ]
}

#[test]
fn with_tls_everything_goes_over_tls() {
    let place = Place::new();
    let files = certificate(&place);
    let secured = |launch: Launch| files.iter().fold(launch, |launch, (name, file)| launch.environment(name, file));
    let mut engine = secured(place.job(&with_savepoints(&place))).start();
    await_checkpoint(&mut engine, &place.path("state"), 0);
    let list = json_of(&secured(verb(&place, &["list", "--output", "json"])).succeed());
    assert_eq!(list["jobs"][0]["name"], "accounts");
    let run = std::fs::read_to_string(place.path("state/run.json")).expect("run.json");
    let address = json_of(&run)["rest"].as_str().expect("an address").to_owned();
    assert!(address.starts_with("https://127.0.0.1:"), "{address}");
    // Without the certificate nobody is trusted, and plain HTTP is not spoken.
    verb(&place, &["list"]).fail(&["certificate"]);
    let plain = address.replace("https://", "http://");
    Launch::verb(place.root(), &["list", "--address", &plain]).fail(&["does not answer"]);
    engine.interrupt();
    assert!(engine.await_end().success(), "{}", engine.log_end());
    let log = engine.log();
    assert!(log.contains("suspended at checkpoint") || log.contains("resumes from checkpoint"), "{log}");
}

#[test]
fn options_change_while_the_job_runs() {
    let place = Place::new();
    let mut engine = place.job(&endless().checkpoint("interval: 1h")).start();
    let running = Running::of(&engine);
    assert_eq!(running.get("/checkpoints/config")["interval"], 3_600_000);
    assert_eq!(running.completed(), 0);
    let change = json!({
        "checkpoint": { "interval": "100ms", "retained": 4, "tolerableFailures": 7 },
        "restartStrategy": { "fixedDelay": { "attempts": 9, "delay": "50ms" } },
    });
    let (status, body) = request(&running.address, "PATCH", "/v1/config", None, &change.to_string());
    assert_eq!(status, 200, "{body}");
    let config = running.get("/checkpoints/config");
    assert_eq!((&config["interval"], &config["tolerable_failed_checkpoints"]), (&json!(100), &json!(7)));
    assert!(
        running.get("/config")["execution-config"]["restart-strategy"].as_str().is_some_and(|text| text.contains("#9"))
    );
    await_checkpoint(&mut engine, &place.path("state"), 5);
    let workers = engine.of_role(Role::Worker);
    // A coordinator that comes later goes on with them.
    engine.kill(engine.coordinator());
    let running = Running::of(&engine);
    assert_eq!(running.get("/checkpoints/config")["interval"], 100);
    still_works(&running, &engine);
    assert_eq!(engine.of_role(Role::Worker), workers);
}

#[test]
fn a_job_file_is_compared_with_the_running_jobs_state() {
    let place = Place::new();
    let job = with_savepoints(&place);
    let mut engine = place.job(&job).start();
    await_checkpoint(&mut engine, &place.path("state"), 1);
    let running = Running::of(&engine);
    let check = |body: &Value| request(&running.address, "POST", "/v1/check", None, &body.to_string());
    let (status, same) = check(&json!({ "job": job.text() }));
    assert_eq!((status, &same["compatible"]), (200, &json!(true)), "{same}");
    let savepoint = running.savepoint(&engine, &json!({}));
    let (status, same) = check(&json!({ "job": job.text(), "from": savepoint }));
    assert_eq!((status, &same["compatible"]), (200, &json!(true)), "{same}");
    let (status, other) = check(&json!({ "job": job.clone().spec("maxParallelism", "64").text() }));
    assert!(status == 400 || other["compatible"] == false, "{status}: {other}");
    let (status, wrong) = check(&json!({ "job": "kind: Nonsense" }));
    assert_eq!(status, 400, "{wrong}");
    let (status, nothing) = check(&json!({ "job": job.text(), "from": place.path("nothing") }));
    assert_eq!(status, 400, "{nothing}");
    still_works(&running, &engine);
}

#[test]
fn r48_verbs_show_a_job_and_stop_it() {
    let place = Place::new();
    let mut engine = place.job(&with_savepoints(&place)).start();
    await_checkpoint(&mut engine, &place.path("state"), 1);
    let running = Running::of(&engine);
    let list = verb(&place, &["list"]).succeed();
    assert!(list.contains(&running.job) && list.contains("accounts") && list.contains("RUNNING"), "{list}");

    let taken = json_of(&verb(&place, &["savepoint", "--output", "json"]).succeed());
    assert!(is_savepoint_name(taken["location"].as_str().expect("a place"), &running.job), "{taken}");
    let trigger = "0123456789abcdef0123456789abcdef";
    let twice = [0, 1].map(|_| verb(&place, &["savepoint", "--directory", "here", "--trigger-id", trigger]).succeed());
    assert_eq!(twice[0], twice[1]);
    assert!(twice[0].contains(&place.path("here").display().to_string()), "{}", twice[0]);
    verb(&place, &["savepoint", "--trigger-id", "mine"]).fail(&["32 hexadecimal digits"]);

    let history = verb(&place, &["checkpoints"]).succeed();
    assert!(history.contains(" completed, 0 failed") && history.contains("savepoint"), "{history}");
    let statistics = json_of(&verb(&place, &["checkpoints", "--output", "json"]).succeed());
    let id = statistics["latest"]["completed"]["id"].to_string();
    let details = verb(&place, &["checkpoints", "--details", &id]).succeed();
    assert!(details.contains("start delay") && details.contains("2/2 acknowledged"), "{details}");
    verb(&place, &["checkpoints", "--details", "999999"]).fail(&["Could not find checkpointing statistics"]);

    let stopped = json_of(&verb(&place, &["stop", "--output", "json"]).succeed());
    assert!(is_savepoint_name(stopped["location"].as_str().expect("a place"), &running.job), "{stopped}");
    assert!(engine.await_end().success(), "{}", engine.log_end());
    verb(&place, &["list"]).fail(&["no job runs in state"]);
    Launch::verb(place.root(), &["list", "--address", &running.address]).fail(&["does not answer"]);
}

#[test]
fn r47_a_verb_gets_its_savepoint_from_whichever_coordinator_is_there() {
    let place = Place::new();
    let engine = place.job(&with_savepoints(&place)).start();
    Running::of(&engine);
    let mut taken = BTreeSet::new();
    for round in 0..4u64 {
        let asking = verb(&place, &["savepoint", "--output", "json"]).start();
        // Before, while and after the request is written down, as it happens.
        std::thread::sleep(std::time::Duration::from_millis(round * 15));
        engine.kill(engine.coordinator());
        let report = json_of(&asking.succeed());
        let savepoint = report["location"].as_str().expect("a place").to_owned();
        assert!(Path::new(&savepoint).join("_metadata").is_file(), "{savepoint}");
        assert!(taken.insert(savepoint));
        Running::of(&engine);
    }
}

#[test]
fn r50_a_restore_says_from_where() {
    let place = Place::new();
    let mut engine = place.job(&with_savepoints(&place)).start();
    await_checkpoint(&mut engine, &place.path("state"), 0);
    let savepoint = Running::of(&engine).savepoint(&engine, &json!({}));
    engine.kill_all();
    // Another job from here on, with the same outputs.
    std::fs::rename(place.path("state"), place.path("first")).expect("renaming the data directory");
    let engine = place.job(&endless().spec("restoreFrom", &format!("{{ path: {savepoint} }}"))).start();
    let running = Running::of(&engine);
    let restored = running.get("/checkpoints")["latest"]["restored"].clone();
    assert_eq!((&restored["is_savepoint"], &restored["external_path"]), (&json!(true), &json!(savepoint)));
    still_works(&running, &engine);
    engine.kill(engine.workers(2)[0]);
    let own = engine.eventually("a restore from its own checkpoint", || {
        Some(running.get("/checkpoints")["latest"]["restored"].clone()).filter(|own| own["id"] != restored["id"])
    });
    assert_eq!(own["is_savepoint"], false, "{own}");
    assert!(own["external_path"].as_str().is_some_and(|path| path.contains(&running.job)), "{own}");
}

#[test]
fn cancelling_by_verb() {
    let place = Place::new();
    let mut engine = place.job(&endless()).start();
    await_checkpoint(&mut engine, &place.path("state"), 0);
    Running::of(&engine);
    let canceled = json_of(&verb(&place, &["cancel", "--output", "json"]).succeed());
    assert_eq!(canceled["state"], "CANCELED");
    assert_eq!(engine.await_end().code(), Some(5), "{}", engine.log_end());
}

#[test]
fn parallelism_changes_by_verb_and_by_requirements() {
    let place = Place::new();
    let job = with_savepoints(&place).spec("workers", "{ slots: 4 }");
    let mut engine = place.job(&job).start();
    await_checkpoint(&mut engine, &place.path("state"), 0);
    let running = Running::of(&engine);
    let processes = engine.processes();
    assert_eq!(verb(&place, &["rescale", "--parallelism", "3"]).succeed(), "runs at parallelism 3\n");
    let running = Running { job: running.job.clone(), ..Running::of(&engine) };
    let requirements = running.get("/resource-requirements");
    let bounds: Vec<u64> = requirements
        .as_object()
        .expect("vertices")
        .values()
        .map(|vertex| vertex["parallelism"]["upperBound"].as_u64().expect("a number"))
        .collect();
    assert!(!bounds.is_empty() && bounds.iter().all(|bound| *bound == 3), "{requirements}");
    verb(&place, &["rescale", "--parallelism", "200"]).fail(&["expected 1 to 128"]);

    let mut lower = requirements.clone();
    for vertex in lower.as_object_mut().expect("vertices").values_mut() {
        vertex["parallelism"]["upperBound"] = json!(1);
    }
    let path = running.path("/resource-requirements");
    let (status, body) = request(&running.address, "PUT", &path, None, &lower.to_string());
    assert_eq!((status, &body), (200, &json!({})));
    engine.eventually("one task a vertex", || {
        let details = running.get("");
        let vertices = details["vertices"].as_array()?;
        vertices.iter().all(|vertex| vertex["parallelism"] == 1 && vertex["status"] == "RUNNING").then_some(())
    });
    // One vertex alone cannot change.
    let mut uneven = requirements.clone();
    if let Some(vertex) = uneven.as_object_mut().and_then(|vertices| vertices.values_mut().next()) {
        vertex["parallelism"]["upperBound"] = json!(2);
    }
    let (status, body) = request(&running.address, "PUT", &path, None, &uneven.to_string());
    assert_eq!(status, 400, "{body}");
    still_works(&running, &engine);
    assert_eq!(engine.processes(), processes);
}

#[test]
fn only_whole_savepoints_are_deleted() {
    let place = Place::new();
    let mut engine = place.job(&with_savepoints(&place)).start();
    await_checkpoint(&mut engine, &place.path("state"), 0);
    let running = Running::of(&engine);
    let dispose = |path: &str| {
        let body = json!({ "savepoint-path": path }).to_string();
        let (status, accepted) = request(&running.address, "POST", "/savepoint-disposal", None, &body);
        assert_eq!(status, 200, "{accepted}");
        let trigger = accepted["request-id"].as_str().expect("a request id").to_owned();
        running.ended(&engine, &format!("/savepoint-disposal/{trigger}"))
    };
    let savepoint = running.savepoint(&engine, &json!({}));
    std::fs::write(Path::new(&savepoint).join("notes.txt"), "mine").expect("a file");
    assert_eq!(dispose(&savepoint), json!({}));
    let left: Vec<_> =
        std::fs::read_dir(&savepoint).expect("the directory").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["notes.txt"]);

    let reason = |ended: Value| ended["failure-cause"]["stack-trace"].as_str().expect("a reason").to_owned();
    assert!(reason(dispose(&savepoint)).contains("_metadata"), "nothing is left to delete");
    let keep = place.path("keep");
    std::fs::create_dir(&keep).expect("a directory");
    std::fs::write(keep.join("_metadata"), "no manifest").expect("a file");
    assert!(reason(dispose(&keep.display().to_string())).contains("_metadata"));
    assert!(keep.join("_metadata").exists());
    let checkpoint =
        get(&running.address, &running.path("/checkpoints"))["latest"]["completed"]["external_path"].clone();
    let refused = reason(dispose(checkpoint.as_str().expect("a path")));
    assert!(
        refused.contains("a checkpoint, which its job deletes itself")
            || refused.contains("is not there")
            || refused.contains("missing"),
        "{refused}"
    );
    still_works(&running, &engine);
}
