//! Apache Flink's own command line and client classes against our coordinator.

use crate::api::Running;
use crate::harness::{Job, Launch, Place, tree};
use crate::nexmark::await_checkpoint;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const TOKEN: &str = "a-token-for-flink";

fn endless(place: &Place) -> Job {
    Job::file("e2e/jobs/accounts.yaml")
        .env("EVENTS", 0)
        .parallelism(2)
        .checkpoint("interval: 200ms, retention: RetainOnCancellation")
        .restarting()
        .spec("storage", &format!("{{ savepointDir: {} }}", place.path("savepoints").display()))
}

/// Directory with the jars of Apache Flink.
fn jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let output = Command::new(tree().join("e2e/parts/flink.sh")).output().expect("flink.sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    })
}

fn java(arguments: &[String]) -> Command {
    let mut command = Command::new("java");
    // Short runs: compiling less is quicker.
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]).arg(format!("{}/*", jars().display()));
    command.args(arguments);
    command
}

/// `flink <arguments> -m <address>`, with the address after the verb.
fn flink(place: &Place, running: &Running, headers: Option<&str>, arguments: &[&str]) -> Output {
    let (verb, rest) = arguments.split_first().expect("a verb");
    let mut all = vec![*verb, "-m", &running.address];
    all.extend(rest);
    configured_flink(place, "rest.address: localhost\n", headers, &all)
}

/// With `config` as its configuration file.
fn configured_flink(place: &Place, config: &str, headers: Option<&str>, arguments: &[&str]) -> Output {
    let conf = place.path("flink-conf");
    std::fs::create_dir_all(&conf).expect("a directory");
    std::fs::write(conf.join("config.yaml"), config).expect("a file");
    let all = std::iter::once(&"org.apache.flink.client.cli.CliFrontend").chain(arguments);
    let all: Vec<String> = all.map(|&argument| argument.to_owned()).collect();
    let mut command = java(&all);
    command.env("FLINK_CONF_DIR", &conf);
    if let Some(headers) = headers {
        command.env("FLINK_REST_CLIENT_HEADERS", headers);
    }
    command.output().expect("java")
}

/// Standard output of a run that has to succeed.
fn succeeds(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// All that a run printed which has to fail.
fn fails(output: &Output) -> String {
    let all = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "a failure was expected\n{all}");
    all
}

#[test]
fn r69_r47_r48_flinks_command_line_lists_checkpoints_saves_and_stops() {
    let place = Place::new();
    let mut engine = place.job(&endless(&place)).start();
    await_checkpoint(&mut engine, &place.path("state"), 0);
    let running = Running::of(&engine);
    let job = running.job.clone();

    let listed = succeeds(&flink(&place, &running, None, &["list"]));
    assert!(listed.contains(&format!("{job} : accounts (RUNNING)")), "{listed}");

    let before = running.completed();
    let checkpoint = succeeds(&flink(&place, &running, None, &["checkpoint", &job]));
    assert!(checkpoint.contains(&format!("for job {job} completed.")), "{checkpoint}");
    assert!(running.completed() > before);

    let target = place.path("by-flink");
    let saved = succeeds(&flink(&place, &running, None, &["savepoint", &job, &target.display().to_string()]));
    let directory =
        saved.split("Path: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or_else(|| panic!("{saved}"));
    assert!(directory.starts_with(&format!("{}/savepoint-{}-", target.display(), &job[..6])), "{directory}");
    assert!(Path::new(directory).join("_metadata").is_file());

    // Disposing of it is Flink's too.
    succeeds(&flink(&place, &running, None, &["savepoint", "-d", directory]));
    assert!(!Path::new(directory).join("_metadata").exists());

    // Failures reach the person with their reason, refused at once or found later.
    let again = fails(&flink(&place, &running, None, &["savepoint", "-d", directory]));
    assert!(again.contains("FlinkException") && again.contains("_metadata"), "{again}");
    std::fs::write(place.path("no-directory"), "a file").expect("a file");
    let nowhere = place.path("no-directory").display().to_string();
    let failed = fails(&flink(&place, &running, None, &["savepoint", &job, &nowhere]));
    assert!(failed.contains("cannot be written") && failed.contains("no-directory"), "{failed}");
    let unknown = fails(&flink(&place, &running, None, &["savepoint", &"0".repeat(32)]));
    assert!(unknown.contains("Could not find Flink job"), "{unknown}");

    let stopped =
        succeeds(&flink(&place, &running, None, &["stop", "--savepointPath", &target.display().to_string(), &job]));
    assert!(stopped.contains(&format!("{}/savepoint-{}-", target.display(), &job[..6])), "{stopped}");
    assert!(engine.await_end().success(), "{}", engine.log_end());
}

#[test]
fn r69_flinks_command_line_cancels_with_the_token() {
    let place = Place::new();
    let mut engine = place.job(&endless(&place)).environment("STREAMJOB_TOKEN", TOKEN).start();
    await_checkpoint(&mut engine, &place.path("state"), 0);
    let running = Running::of(&engine);
    let refused = fails(&flink(&place, &running, None, &["cancel", &running.job]));
    assert!(refused.contains("needs the job's token"), "{refused}");
    assert_eq!(running.get("/status"), json!({ "status": "RUNNING" }));
    let headers = format!("Authorization:Bearer {TOKEN}");
    succeeds(&flink(&place, &running, Some(&headers), &["cancel", &running.job]));
    assert_eq!(engine.await_end().code(), Some(5), "{}", engine.log_end());
}

#[test]
fn r48_flinks_command_line_drains_and_cancels_with_a_savepoint() {
    for (arguments, said, code) in [
        (["stop", "--drain"], "Savepoint completed. Path: ", 0),
        // Deprecated there, and still used.
        (["cancel", "-s"], "Savepoint stored in ", 5),
    ] {
        let place = Place::new();
        let mut engine = place.job(&endless(&place)).start();
        await_checkpoint(&mut engine, &place.path("state"), 0);
        let running = Running::of(&engine);
        let output = succeeds(&flink(&place, &running, None, &[arguments[0], arguments[1], &running.job]));
        let directory = output.split(said).nth(1).unwrap_or_else(|| panic!("{output}"));
        let directory = directory.split(['\n', ' ']).next().unwrap_or_default().trim_end_matches('.');
        assert!(Path::new(directory).join("_metadata").is_file(), "{directory}: {output}");
        assert_eq!(engine.await_end().code(), Some(code), "{}", engine.log_end());
    }
}

#[test]
fn r69_flinks_command_line_speaks_tls() {
    let place = Place::new();
    let [certificate, key] = crate::rest::certificate(&place);
    let launch = place.job(&endless(&place)).environment(certificate.0, &certificate.1).environment(key.0, &key.1);
    let engine = launch.start();
    engine.eventually("the REST endpoint", || engine.log().contains(": RUNNING").then_some(()));
    let run = std::fs::read_to_string(place.path("state/run.json")).expect("run.json");
    let run: serde_json::Value = serde_json::from_str(&run).expect("JSON");
    let port = run["rest"].as_str().and_then(|rest| rest.strip_prefix("https://127.0.0.1:")).expect("an address");
    let trust = place.path("trust.p12").display().to_string();
    let imported = Command::new("keytool")
        .args(["-importcert", "-noprompt", "-alias", "job", "-storetype", "PKCS12", "-storepass", "changeit"])
        .args(["-file", &certificate.1, "-keystore", &trust])
        .output()
        .expect("keytool");
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    // With `-m` Flink's command line forgets about TLS.
    let config = format!(
        "rest.address: 127.0.0.1\nrest.port: {port}\nsecurity.ssl.rest.enabled: true\n\
         security.ssl.rest.truststore: {trust}\nsecurity.ssl.rest.truststore-type: PKCS12\nsecurity.ssl.rest.truststore-password: changeit\n"
    );
    let listed = succeeds(&configured_flink(&place, &config, None, &["list"]));
    assert!(listed.contains("accounts (RUNNING)"), "{listed}");
}

#[test]
fn r68_flinks_classes_read_every_answer() {
    let place = Place::new();
    let mut engine = place.job(&endless(&place)).start();
    let running = Running::of(&engine);
    // Before the first checkpoint there are no quantiles.
    let early = vec![(running.path("/checkpoints"), "rest.messages.checkpoints.CheckpointingStatistics".to_owned())];
    await_checkpoint(&mut engine, &place.path("state"), 1);
    engine.kill(engine.workers(2)[0]);
    engine.eventually("a restore", || (running.get("/checkpoints")["counts"]["restored"] == 1).then_some(()));
    let running = Running::of(&engine);
    running.savepoint(&engine, &json!({ "triggerId": "1".repeat(32) }));
    let (_, checkpoint) = running.post("/checkpoints", &json!({ "checkpointType": "FULL" }));
    let by_request = running.path(&format!("/checkpoints/{}", checkpoint["request-id"].as_str().expect("an id")));
    running.ended(&engine, &by_request);
    let nothing = json!({ "savepoint-path": place.path("nothing") }).to_string();
    let (_, failed) = crate::api::request(&running.address, "POST", "/savepoint-disposal", None, &nothing);
    let failed = format!("/savepoint-disposal/{}", failed["request-id"].as_str().expect("an id"));
    running.ended(&engine, &failed);

    // The history is short: from here on nothing is added to it.
    let pause = json!({ "checkpoint": { "interval": "1h" } }).to_string();
    assert_eq!(crate::api::request(&running.address, "PATCH", "/v1/config", None, &pause).0, 200);
    engine.eventually("no checkpoint in progress", || {
        (running.get("/checkpoints")["counts"]["in_progress"] == 0).then_some(())
    });
    let vertex = running.vertices()[0].clone();
    engine.eventually("two reports of every task", || {
        let load = running.get(&format!("/vertices/{vertex}/backpressure"));
        let subtasks = load["subtasks"].as_array()?;
        let whole = |subtask: &serde_json::Value| {
            ["ratio", "idleRatio", "busyRatio"].iter().filter_map(|name| subtask[name].as_f64()).sum::<f64>()
        };
        (subtasks.len() == 2 && subtasks.iter().all(|subtask| (whole(subtask) - 1.0).abs() < 1e-6)).then_some(())
    });
    let statistics = running.get("/checkpoints");
    let id = statistics["latest"]["completed"]["id"].to_string();
    let savepoint = statistics["latest"]["savepoint"]["id"].to_string();
    let worker =
        crate::api::get(&running.address, "/taskmanagers")["taskmanagers"][0]["id"].as_str().expect("an id").to_owned();
    let messages = "rest.messages.";
    let mut pairs: Vec<(String, String)> = early;
    let mut add = |path: String, class: &str| pairs.push((path, class.to_owned()));
    add("/overview".into(), "rest.handler.legacy.messages.ClusterOverviewWithVersion");
    add("/v1/config".into(), &format!("{messages}DashboardConfiguration"));
    add("/jobmanager/config".into(), &format!("{messages}ConfigurationInfo"));
    add("/taskmanagers".into(), &format!("{messages}taskmanager.TaskManagersInfo"));
    add(format!("/taskmanagers/{worker}"), &format!("{messages}taskmanager.TaskManagerDetailsInfo"));
    add("/jobs".into(), "messages.webmonitor.JobIdsWithStatusOverview");
    add("/v1/jobs/overview".into(), "messages.webmonitor.MultipleJobsDetails");
    for (rest, class) in [
        ("".to_owned(), "job.JobDetailsInfo"),
        ("/plan".to_owned(), "JobPlanInfo"),
        ("/config".to_owned(), "JobConfigInfo"),
        ("/jobmanager/config".to_owned(), "ConfigurationInfo"),
        ("/exceptions".to_owned(), "JobExceptionsInfoWithHistory"),
        ("/accumulators".to_owned(), "JobAccumulatorsInfo"),
        ("/metrics".to_owned(), "job.metrics.MetricCollectionResponseBody"),
        ("/metrics?get=numRestarts,lastCheckpointSize".to_owned(), "job.metrics.MetricCollectionResponseBody"),
        ("/checkpoints".to_owned(), "checkpoints.CheckpointingStatistics"),
        ("/checkpoints/config".to_owned(), "checkpoints.CheckpointConfigInfo"),
        (format!("/checkpoints/details/{id}"), "checkpoints.CheckpointStatistics"),
        (format!("/checkpoints/details/{savepoint}"), "checkpoints.CheckpointStatistics"),
        (
            format!("/checkpoints/details/{id}/subtasks/{vertex}"),
            "checkpoints.TaskCheckpointStatisticsWithSubtaskDetails",
        ),
        ("/resource-requirements".to_owned(), "job.JobResourceRequirementsBody"),
        (format!("/vertices/{vertex}"), "JobVertexDetailsInfo"),
        (format!("/vertices/{vertex}/subtasks/1"), "job.SubtaskExecutionAttemptDetailsInfo"),
        (format!("/vertices/{vertex}/metrics"), "job.metrics.MetricCollectionResponseBody"),
        (format!("/vertices/{vertex}/backpressure"), "JobVertexBackPressureInfo"),
        (format!("/vertices/{vertex}/watermarks"), "job.metrics.MetricCollectionResponseBody"),
    ] {
        add(running.path(&rest), &format!("{messages}{class}"));
    }
    add(running.path("/status"), "messages.webmonitor.JobStatusInfo");
    add(running.path(&format!("/savepoints/{}", "1".repeat(32))), "savepoint");
    add(failed, "operation");
    add(by_request, "checkpoint");

    let program = tree().join("e2e/flink/ReadRest.java").display().to_string();
    let mut arguments = vec![program, format!("http://{}", running.address)];
    arguments.extend(pairs.iter().flat_map(|(path, class)| [path.clone(), class.clone()]));
    let output = java(&arguments).output().expect("java");
    let read = succeeds(&output);
    assert!(read.contains(&format!("{} answers read, 0 do not fit", pairs.len())), "{read}");
    // Its command line still finds the job after all that.
    assert!(Launch::verb(place.root(), &["list", "--data-dir", "state"]).succeed().contains("RUNNING"));
}
