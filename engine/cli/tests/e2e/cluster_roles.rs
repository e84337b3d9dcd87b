//! The roles as they run in pods: standby, activation, one revision after another, and processes that stay. Each process
//! is started by the test, as Kubernetes would, on loopback.

use crate::api::{request, try_request};
use crate::expected;
use crate::harness::{Engine, Job, Launch, Place, Random, Reserved, Role, files_below, http_get};
use crate::minio::Minio;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const EVENTS: u64 = 120_000;
const RATE: u64 = 20_000;
const TOKEN: &str = "a-token-of-this-test";

/// Keyed state of many keys, windows, source splits and pending files of two sinks.
fn job() -> Job {
    Job::file("e2e/jobs/accounts.yaml")
        .env("EVENTS", EVENTS)
        .env("RATE", RATE)
        .parallelism(2)
        .checkpoint("interval: 200ms, retention: RetainOnCancellation, tolerableFailures: 1000000")
        .restarting()
}

fn endless() -> Job {
    job().env("EVENTS", 0)
}

fn results_are_right(place: &Place) {
    expected::nexmark("accounts", EVENTS, RATE, &place.path(".streamjob/output/accounts"), &[]);
    expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), &[]);
}

/// 32 hexadecimal digits.
fn id(digit: char) -> String {
    digit.to_string().repeat(32)
}

/// What all pods of a revision have in common.
struct Revision<'a> {
    place: &'a Place,
    job_file: PathBuf,
    /// Name of the job's directory.
    directory: String,
    job_id: String,
    number: u64,
    max_parallelism: &'static str,
    control: String,
    rest: String,
    _held: [Reserved; 2],
    environment: Vec<(String, String)>,
}

impl<'a> Revision<'a> {
    fn new(place: &'a Place, job: &Job, job_id: &str, number: u64) -> Revision<'a> {
        let job_file = place.path(&format!("{}-{}-{number}.yaml", job.name(), &job_id[..4]));
        fs::write(&job_file, job.text()).unwrap();
        let held = [(); 2].map(|()| Reserved::new());
        let [control, rest] = held.each_ref().map(|reserved| reserved.address.clone());
        let directory = format!("state/ns.{}", job.name());
        let (job_id, environment, max_parallelism) = (job_id.to_owned(), Vec::new(), "128");
        Revision {
            place,
            job_file,
            directory,
            job_id,
            number,
            max_parallelism,
            control,
            rest,
            _held: held,
            environment,
        }
    }

    fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn launch(&self, role: &str, more: &[&str]) -> Launch {
        let file = self.job_file.display().to_string();
        let mut arguments = vec![role, "--job", &file, "--checkpoints", &self.directory, "--job-id", &self.job_id];
        arguments.extend(["--max-parallelism", self.max_parallelism, "--on-cluster"]);
        arguments.extend(more);
        let launch = Launch::verb(self.place.root(), &arguments)
            .environment("STREAMJOB_TOKEN", TOKEN)
            .environment("STREAMJOB_TERMINATION_LOG", &self.last_words_file().display().to_string());
        self.environment.iter().fold(launch, |launch, (name, value)| launch.environment(name, value))
    }

    fn last_words_file(&self) -> PathBuf {
        self.place.path(&format!("last-words-{}-{}", &self.job_id[..4], self.number))
    }

    /// What the coordinator left for Kubernetes to show.
    fn last_words(&self) -> Value {
        let text = fs::read_to_string(self.last_words_file()).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn coordinator(&self, more: &[&str]) -> Engine {
        fs::write(self.last_words_file(), "").unwrap();
        let number = self.number.to_string();
        let mut arguments = vec!["--revision", &number, "--control", &self.control, "--rest", &self.rest];
        arguments.extend(more);
        self.launch("coordinator", &arguments).start()
    }

    fn workers(&self, count: usize) -> Vec<Engine> {
        (0..count).map(|_| self.worker().start()).collect()
    }

    fn worker(&self) -> Launch {
        let port = self.control.rsplit_once(':').unwrap().1;
        let coordinator = format!("localhost:{port}");
        self.launch("worker", &["--coordinator", &coordinator, "--slots", "1", "--rest", "127.0.0.1:0"])
    }

    fn status(&self) -> Option<Value> {
        serde_json::from_str(&http_get(&self.rest, "/v1/status")?).ok()
    }

    /// Once the coordinator says so.
    fn until(&self, coordinator: &Engine, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        coordinator.eventually(what, || self.status().filter(|status| is(status)))
    }

    fn until_ready(&self, coordinator: &Engine) -> Value {
        self.until(coordinator, "a standby that is ready", |status| status["standby"]["ready"] == true)
    }

    fn until_running(&self, coordinator: &Engine) -> Value {
        self.until(coordinator, "all tasks running", |status| status["running_since"].is_u64())
    }

    /// So many more checkpoints.
    fn until_checkpoints(&self, coordinator: &Engine, more: u64) -> Value {
        let completed = |status: &Value| status["checkpoints"]["completed"].as_u64().unwrap();
        let wanted = completed(&self.until_running(coordinator)) + more;
        self.until(coordinator, "checkpoints", |status| completed(status) >= wanted)
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        request(&self.rest, "POST", path, Some(TOKEN), &body.to_string())
    }

    fn activate(&self) -> (u16, Value) {
        self.post("/v1/activate", &json!({}))
    }

    /// Standby, workers, activation.
    fn run(&self, workers: usize) -> (Engine, Vec<Engine>) {
        let coordinator = self.coordinator(&[]);
        let workers = self.workers(workers);
        self.until_ready(&coordinator);
        assert_eq!(self.activate(), (202, json!({ "state": "STANDBY" })));
        self.until_running(&coordinator);
        (coordinator, workers)
    }

    /// Stops the job with a savepoint; its directory.
    fn stop(&self, coordinator: &Engine, trigger: &str) -> String {
        let (code, accepted) =
            self.post(&format!("/jobs/{}/stop", self.job_id), &json!({ "drain": false, "triggerId": trigger }));
        assert_eq!(code, 202, "{accepted}");
        self.savepoint(coordinator, trigger)
    }

    /// Where the savepoint of a request is, once it is complete.
    fn savepoint(&self, coordinator: &Engine, trigger: &str) -> String {
        coordinator.eventually("the savepoint", || {
            let answer: Value =
                serde_json::from_str(&http_get(&self.rest, &format!("/jobs/{}/savepoints/{trigger}", self.job_id))?)
                    .ok()?;
            assert!(answer["operation"]["failure-cause"].is_null(), "{answer}");
            answer["operation"]["location"].as_str().map(str::to_owned)
        })
    }

    fn dispose(&self, what: &[&str]) -> Launch {
        let file = self.job_file.display().to_string();
        let mut arguments = vec!["dispose", "--job", &file, "--checkpoints", &self.directory];
        arguments.extend(what);
        let launch = Launch::verb(self.place.root(), &arguments);
        self.environment.iter().fold(launch, |launch, (name, value)| launch.environment(name, value))
    }
}

/// SIGKILL to the one process.
fn kill(mut engine: Engine) {
    engine.kill_all();
}

fn exit_code(mut engine: Engine) -> i32 {
    engine.await_end().code().expect("an exit code")
}

/// Workers that have nothing to do are still there.
fn all_alive(workers: &[Engine]) -> bool {
    workers.iter().all(|worker| worker.of_role(Role::Worker).len() == 1)
}

#[test]
fn one_revision_takes_over_from_another_with_a_savepoint_and_every_row_is_written_once() {
    let place = Place::new();
    let first = Revision::new(&place, &job(), &id('a'), 1);
    let coordinator = first.coordinator(&[]);
    first.until(&coordinator, "a standby without workers", |status| status["standby"]["checked"] == true);
    let status = first.status().unwrap();
    assert_eq!(status["state"], "STANDBY", "{status}");
    assert_eq!(status["standby"], json!({ "ready": false, "checked": true, "slots": 0, "needed": 2 }));
    assert_eq!(request(&first.rest, "GET", "/readyz", None, ""), (200, json!("ready")));
    assert_eq!(request(&first.rest, "POST", "/v1/activate", None, "{}").0, 401);
    let (code, refused) = first.post(&format!("/jobs/{}/savepoints", first.job_id), &json!({}));
    assert_eq!(code, 409, "{refused}");
    assert!(refused.to_string().contains("standby"), "{refused}");
    assert!(!place.path(".streamjob").exists() && files_below(&place.path("state/ns.accounts")).is_empty());
    let workers = first.workers(2);
    let known = first.until_ready(&coordinator)["version"].as_u64().unwrap();
    // Who watches is answered when something changes, and not before.
    let (watched, rest) = (format!("/v1/status?after={known}&wait=30000"), first.rest.clone());
    let watching = std::thread::spawn(move || request(&rest, "GET", &watched, None, ""));
    assert_eq!(first.activate(), (202, json!({ "state": "STANDBY" })));
    let (code, seen) = watching.join().unwrap();
    assert!(code == 200 && seen["version"].as_u64() > Some(known), "{seen}");
    let status = first.until_checkpoints(&coordinator, 2);
    assert_eq!(first.activate(), (200, json!({ "state": "RUNNING" })));
    assert_eq!(status["guarantee"], "exactly-once");
    assert_eq!(
        status["checkpoints"]["last_path"],
        format!("{}/{}/chk-{}", place.path(&first.directory).display(), id('a'), status["checkpoints"]["last_id"])
    );

    // The next revision comes up beside it.
    let second = Revision::new(&place, &job().parallelism(3), &id('a'), 2);
    let successor = second.coordinator(&[]);
    let successors = second.workers(3);
    let ready = second.until_ready(&successor);
    assert!(ready["restore_point"]["path"].is_string(), "{ready}");
    first.until_checkpoints(&coordinator, 2);

    let trigger = id('1');
    let savepoint = first.stop(&coordinator, &trigger);
    let default = place.path(&first.directory).join("savepoints");
    assert!(Path::new(&savepoint).starts_with(default), "{savepoint}");
    let ended = first.until(&coordinator, "the end", |status| status["state"] == "FINISHED");
    assert_eq!(ended["restore_point"]["path"], savepoint, "{ended}");
    assert_eq!(ended["latest_savepoint"]["trigger"], trigger, "{ended}");

    // The end is told again by another process of the revision, and workers stay.
    kill(coordinator);
    let again = first.coordinator(&[]);
    let told = first.until(&again, "the end, told again", |status| status["state"] == "FINISHED");
    assert_eq!(told["restore_point"]["path"], savepoint, "{told}");
    assert_eq!(told["latest_savepoint"]["path"], savepoint, "{told}");
    assert!(told["version"].as_u64() > ended["version"].as_u64(), "{told}");
    assert_ne!(told["incarnation"], ended["incarnation"]);
    assert_eq!(first.savepoint(&again, &trigger), savepoint);
    first.until(&again, "workers that stayed", |status| status["workers"].as_array().unwrap().len() == 2);
    assert!(all_alive(&workers));
    kill(again);

    assert_eq!(second.activate().0, 202);
    let running = second.until_running(&successor);
    assert_eq!(running["restored_from_path"], savepoint, "{running}");
    assert_eq!(running["parallelism"], 3, "{running}");
    assert!(running["restore_duration_ms"].is_u64(), "{running}");

    // The revision before it comes back.
    assert_eq!(exit_code(first.coordinator(&[])), 3);
    assert_eq!(first.last_words()["reason"], "Fenced");
    second.until(&successor, "the end", |status| status["state"] == "FINISHED");
    assert!(all_alive(&successors));
    results_are_right(&place);
}

#[test]
fn a_coordinator_that_died_is_replaced_without_being_told_and_one_that_was_ended_leaves_the_job_as_it_is() {
    let place = Place::new();
    let revision = Revision::new(&place, &job(), &id('a'), 7);
    let (coordinator, workers) = revision.run(2);
    let before = revision.until_checkpoints(&coordinator, 1);
    kill(coordinator);
    let coordinator = revision.coordinator(&[]);
    let after = revision.until_running(&coordinator);
    assert!(after["restored_from_path"].is_string(), "{after}");
    assert!(after["version"].as_u64() > before["version"].as_u64());
    revision.until_checkpoints(&coordinator, 1);
    // As Kubernetes ends a pod.
    coordinator.terminate();
    assert_eq!(exit_code(coordinator), 143);
    let coordinator = revision.coordinator(&[]);
    let after = revision.until_running(&coordinator);
    assert_eq!(after["restarts"], 0, "{after}");
    // A worker's pod is replaced by another one.
    workers[0].terminate();
    let _replaced = revision.workers(1);
    revision.until(&coordinator, "the end", |status| status["state"] == "FINISHED");
    assert!(all_alive(&workers[1..]));
    results_are_right(&place);
}

/// One of the processes dies, and Kubernetes starts it again.
fn one_dies(revision: &Revision<'_>, coordinator: &mut Engine, workers: &mut [Engine], random: &mut Random) {
    std::thread::sleep(Duration::from_millis(random.between(50, 500)));
    match random.below(workers.len() as u64 + 1) as usize {
        0 => {
            coordinator.kill_all();
            *coordinator = revision.coordinator(&[]);
        }
        worker => {
            workers[worker - 1].kill_all();
            workers[worker - 1] = revision.workers(1).remove(0);
        }
    }
}

/// Stops the job although processes die meanwhile: the same request as long as it is not known to have failed, then another
/// one. Nothing if the job has come to its end by itself.
fn stopped_between_deaths(
    revision: &Revision<'_>,
    coordinator: &mut Engine,
    workers: &mut [Engine],
    random: &mut Random,
) -> Option<String> {
    let body = |attempt: u32| json!({ "triggerId": format!("{:032x}", 0x100 * revision.number as u32 + attempt) });
    let (mut attempt, mut deaths) = (0, 2);
    loop {
        let body = body(attempt);
        let (stop, poll) = (
            format!("/jobs/{}/stop", revision.job_id),
            format!("/jobs/{}/savepoints/{}", revision.job_id, body["triggerId"].as_str().unwrap()),
        );
        let _asked = try_request(&revision.rest, "POST", &stop, Some(TOKEN), &body.to_string());
        if deaths > 0 {
            deaths -= 1;
            one_dies(revision, coordinator, workers, random);
        }
        // Seen before the stop is looked at: a job that is over by then and knows of no stop has come to its own end.
        let over = revision.status().is_some_and(|status| status["state"] == "FINISHED");
        match try_request(&revision.rest, "GET", &poll, None, "") {
            Some((200, told)) => {
                if let Some(location) = told["operation"]["location"].as_str() {
                    return Some(location.to_owned());
                }
                attempt += u32::from(!told["operation"]["failure-cause"].is_null());
            }
            Some((404, _)) if over => return None,
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_stopped_job_ends_although_some_tasks_connect_when_others_have_ended() {
    let place = Place::new();
    // No commit but that of the stop.
    let job = job().checkpoint("interval: 1h, retention: RetainOnCancellation");
    let revision = Revision::new(&place, &job, &id('a'), 1);
    let coordinator = revision.coordinator(&[]);
    let mut dies = revision.worker().environment("STREAMJOB_FAULTS", "commit.before=crash").start();
    let _stays = revision.workers(1);
    revision.until_ready(&coordinator);
    revision.activate();
    revision.until_running(&coordinator);
    let savepoint = revision.stop(&coordinator, &id('b'));
    assert!(!dies.await_end().success());
    // The other worker's tasks get the savepoint back, commit and end at once; those of this one come later.
    let _late = revision.worker().environment("STREAMJOB_FAULTS", "connect.before=delay:2000").start();
    revision.until(&coordinator, "the end", |status| status["state"] == "FINISHED");

    let second = Revision::new(&place, &job, &id('a'), 2);
    let (coordinator, _workers) = second.run(2);
    assert_eq!(second.status().unwrap()["restored_from_path"], json!(savepoint));
    second.until(&coordinator, "the end", |status| status["state"] == "FINISHED");
    results_are_right(&place);
}

#[test]
fn random_deaths_over_several_revisions_change_nothing() {
    const EVENTS: u64 = 160_000;
    for seed in [11, 12] {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let place = Place::new();
        let mut savepoint: Option<String> = None;
        for (number, parallelism) in [(1, 2), (2, 3), (3, 1)] {
            let job = job().env("EVENTS", EVENTS).parallelism(parallelism);
            let revision = Revision::new(&place, &job, &id('a'), number);
            let (mut coordinator, mut workers) = revision.run(parallelism as usize);
            let running = revision.until_running(&coordinator);
            assert_eq!(running["restored_from_path"].as_str(), savepoint.as_deref(), "{running}");
            for _ in 0..3 {
                one_dies(&revision, &mut coordinator, &mut workers, &mut random);
            }
            savepoint = match number {
                3 => None,
                _ => stopped_between_deaths(&revision, &mut coordinator, &mut workers, &mut random),
            };
            revision.until(&coordinator, "the end", |status| status["state"] == "FINISHED");
            if savepoint.is_none() {
                break;
            }
        }
        expected::nexmark("accounts", EVENTS, RATE, &place.path(".streamjob/output/accounts"), &[]);
        expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), &[]);
    }
}

#[test]
fn what_cannot_work_is_said_before_anything_that_runs_is_touched() {
    let place = Place::new();
    let first = Revision::new(&place, &endless(), &id('a'), 1);
    let (coordinator, _workers) = first.run(2);
    first.until_checkpoints(&coordinator, 1);
    let other = |from: &str, to: &str| Revision::new(&place, &endless().replace(from, to), &id('a'), 2);

    let incompatible = other("SUM(price) AS spent FROM bid", "CAST(MAX(price) AS BIGINT) AS spent FROM bid");
    assert_eq!(exit_code(incompatible.coordinator(&[])), 2);
    let words = incompatible.last_words();
    assert_eq!(words["reason"], "IncompatibleState", "{words}");
    assert!(words["message"].as_str().unwrap().contains("state"), "{words}");

    let broken = other("SELECT bidder, COUNT(*)", "SELECT bider, COUNT(*)");
    assert_eq!(exit_code(broken.coordinator(&[])), 2);
    let words = broken.last_words();
    assert_eq!(words["reason"], "InvalidProgram", "{words}");
    assert!(words["message"].as_str().unwrap().contains("bider"), "{words}");
    // Its workers say the same.
    let worker = broken.workers(1).remove(0);
    assert_eq!(exit_code(worker), 2);

    let unresolved = endless().spec("restoreFrom", "{ savepointRef: { name: a } }");
    let unresolved = Revision::new(&place, &unresolved, &id('a'), 2);
    assert_eq!(exit_code(unresolved.coordinator(&[])), 2);
    assert!(unresolved.last_words()["message"].as_str().unwrap().contains("savepointRef"));

    let grown = Revision::new(&place, &endless().parallelism(129), &id('a'), 2);
    assert_eq!(exit_code(grown.coordinator(&[])), 2);
    let words = grown.last_words();
    assert_eq!(words["reason"], "InvalidProgram", "{words}");
    assert!(words["message"].as_str().unwrap().contains("parallelism 129 is more than 128"), "{words}");

    let other_maximum = Revision::new(&place, &endless().spec("maxParallelism", "256"), &id('a'), 2);
    assert_eq!(exit_code(other_maximum.coordinator(&[])), 2);
    let words = other_maximum.last_words();
    assert_eq!(words["reason"], "IncompatibleState", "{words}");
    assert!(words["message"].as_str().unwrap().contains("set max parallelism 128"), "{words}");

    let still = first.until_checkpoints(&coordinator, 2);
    assert_eq!((&still["state"], &still["restarts"]), (&json!("RUNNING"), &json!(0)), "{still}");
}

#[test]
fn a_coordinator_on_standby_goes_on_looking() {
    let place = Place::new();
    let rarely = endless().checkpoint("interval: 1h");
    let first = Revision::new(&place, &rarely, &id('a'), 1);
    let (coordinator, _workers) = first.run(2);
    let other = rarely.clone().replace("SUM(price) AS spent FROM bid", "CAST(MAX(price) AS BIGINT) AS spent FROM bid");
    let incompatible = Revision::new(&place, &other, &id('a'), 2);
    let standby = incompatible.coordinator(&[]);
    let status = incompatible.until(&standby, "a standby", |status| status["standby"]["checked"] == true);
    assert_eq!(status["restore_point"], Value::Null, "there is no state yet: {status}");
    assert_eq!(first.post("/v1/checkpoint", &json!({})).0, 202);
    assert_eq!(exit_code(standby), 2);
    assert_eq!(incompatible.last_words()["reason"], "IncompatibleState");
    first.until_checkpoints(&coordinator, 0);

    let third = Revision::new(&place, &rarely, &id('a'), 3);
    let overtaken = third.coordinator(&[]);
    third.until(&overtaken, "a standby", |status| status["standby"]["checked"] == true);
    let fourth = Revision::new(&place, &rarely, &id('a'), 4);
    let (_successor, _successors) = fourth.run(2);
    assert_eq!(exit_code(overtaken), 3);
    assert_eq!(third.last_words()["reason"], "Fenced");
    // It has nothing to write, and finds out by looking.
    assert_eq!(exit_code(coordinator), 3);
}

#[test]
fn a_job_that_has_ended_for_good_is_not_begun_again_under_its_id() {
    let place = Place::new();
    let first = Revision::new(&place, &endless().checkpoint("interval: 200ms"), &id('a'), 1);
    let (coordinator, _workers) = first.run(2);
    first.until_checkpoints(&coordinator, 1);
    assert_eq!(first.post("/v1/cancel", &json!({})).0, 202);
    first.until(&coordinator, "the end", |status| status["state"] == "CANCELED");
    let second = Revision::new(&place, &endless(), &id('a'), 2);
    assert_eq!(exit_code(second.coordinator(&[])), 4);
    let words = second.last_words();
    assert_eq!(words["reason"], "RestoreFailed", "{words}");
    assert!(words["message"].as_str().unwrap().contains("kept no checkpoint"), "{words}");
}

#[test]
fn a_worker_that_is_refused_stays_and_says_so_once() {
    let place = Place::new();
    let first = Revision::new(&place, &endless(), &id('a'), 1);
    let coordinator = first.coordinator(&[]);
    let mut other = Revision::new(&place, &endless().parallelism(1), &id('a'), 2);
    other.control.clone_from(&first.control);
    let worker = other.workers(1).remove(0);
    worker.eventually("the refusal", || worker.log().contains("refuses this worker").then_some(()));
    kill(coordinator);
    // Another coordinator under the same name.
    let coordinator = other.coordinator(&[]);
    let ready = other.until_ready(&coordinator);
    assert_eq!(ready["standby"]["slots"], 1, "{ready}");
    assert_eq!(worker.log().matches("refuses this worker").count(), 1, "{}", worker.log());
}

#[test]
fn a_job_that_replaces_another_one_fences_it() {
    let place = Place::new();
    let old = Revision::new(&place, &endless(), &id('a'), 1);
    let (coordinator, _workers) = old.run(2);
    old.until_checkpoints(&coordinator, 1);
    let new = Revision::new(&place, &endless(), &id('b'), 2);
    let successor = new.coordinator(&["--replaces", &id('a')]);
    let _successors = new.workers(2);
    let ready = new.until_ready(&successor);
    assert_eq!(ready["restore_point"], Value::Null, "{ready}");
    assert_eq!(new.activate().0, 202);
    new.until_checkpoints(&successor, 1);
    assert_eq!(exit_code(coordinator), 3);
    let words = old.last_words();
    assert_eq!(words["reason"], "Fenced", "{words}");
}

#[test]
fn a_job_begins_with_what_another_one_left() {
    let place = Place::new();
    let first = Revision::new(&place, &job(), &id('a'), 1);
    let (coordinator, _workers) = first.run(2);
    first.until_checkpoints(&coordinator, 2);
    let savepoint = first.stop(&coordinator, &id('1'));
    first.until(&coordinator, "the end", |status| status["state"] == "FINISHED");

    let nobody = job().replace("name: accounts\n", "name: nobody\n");
    let nobody = nobody.spec("restoreFrom", "{ latestRetained: { jobName: missing } }");
    let nobody = Revision::new(&place, &nobody, &id('c'), 1);
    assert_eq!(exit_code(nobody.coordinator(&[])), 4);
    let words = nobody.last_words();
    assert!(words["message"].as_str().unwrap().contains("job missing left no checkpoint"), "{words}");

    let heir = job().replace("name: accounts\n", "name: heir\n");
    let heir = heir.spec("restoreFrom", "{ latestRetained: { jobName: accounts } }");
    let mut heir = Revision::new(&place, &heir, &id('b'), 1);
    // It has none of its own until there is state.
    heir.max_parallelism = "64";
    let successor = heir.coordinator(&[]);
    let _successors = heir.workers(2);
    let ready = heir.until_ready(&successor);
    assert_eq!(
        (&ready["restore_point"]["path"], &ready["max_parallelism"]),
        (&json!(savepoint), &json!(128)),
        "{ready}"
    );
    assert_eq!(heir.activate().0, 202);
    let running = heir.until_running(&successor);
    assert_eq!(running["restored_from_path"], savepoint, "{running}");
    assert_eq!(running["max_parallelism"], 128, "{running}");
    heir.until(&successor, "the end", |status| status["state"] == "FINISHED");
    results_are_right(&place);
    // What it began with is needed no more, not even to tell of the end again.
    fs::remove_dir_all(place.path(&first.directory)).unwrap();
    kill(successor);
    let successor = heir.coordinator(&[]);
    heir.until(&successor, "the end, told again", |status| status["state"] == "FINISHED");
}

/// A checkpoint that was retained, and a savepoint.
fn left_behind(revision: &Revision<'_>) -> String {
    let (coordinator, _workers) = revision.run(2);
    revision.until_checkpoints(&coordinator, 1);
    let trigger = id('1');
    let path = format!("/jobs/{}/savepoints", revision.job_id);
    assert_eq!(revision.post(&path, &json!({ "triggerId": trigger })).0, 202);
    let savepoint = revision.savepoint(&coordinator, &trigger);
    assert_eq!(revision.post("/v1/cancel", &json!({})).0, 202);
    revision.until(&coordinator, "the end", |status| status["state"] == "CANCELED");
    savepoint
}

#[test]
fn what_a_job_left_is_disposed_of() {
    let place = Place::new();
    let revision = Revision::new(&place, &endless(), &id('a'), 1);
    let savepoint = left_behind(&revision);
    let root = place.path(&revision.directory);
    let checkpoints = files_below(&root.join(id('a')));
    let manifest = checkpoints.iter().find(|file| file.ends_with("_metadata")).expect("a retained checkpoint");
    let checkpoint = manifest.parent().unwrap().display().to_string();
    revision.dispose(&["--savepoint", &checkpoint]).fail(&["a job's own directory"]);
    assert!(manifest.is_file());
    // Interrupted behind the manifest's deletion, and asked for again and again.
    fs::remove_file(Path::new(&savepoint).join("_metadata")).unwrap();
    for _ in 0..2 {
        revision.dispose(&["--savepoint", &savepoint]).succeed();
        assert!(!Path::new(&savepoint).exists());
    }
    revision.dispose(&["--job-id", "a"]).fail(&["no job id"]);
    for _ in 0..2 {
        revision.dispose(&["--job-id", &id('a')]).succeed();
        assert!(!root.join(id('a')).exists());
    }
    left_behind(&Revision::new(&place, &endless(), &id('b'), 1));
    left_behind(&Revision::new(&place, &endless(), &id('c'), 1));
    fs::create_dir_all(root.parent().unwrap().join("ns.other")).unwrap();
    for _ in 0..2 {
        revision.dispose(&["--all"]).succeed();
        assert!(!root.exists(), "{:?}", files_below(&root));
    }
    assert!(root.parent().unwrap().join("ns.other").is_dir());
}

#[test]
fn what_a_job_left_on_minio_is_disposed_of() {
    let place = Place::new();
    let minio = Minio::start();
    let job = minio.storage(endless());
    let revision = |digit: char| {
        let revision = Revision::new(&place, &job, &id(digit), 1);
        minio.secrets().into_iter().fold(revision, |revision, (name, value)| revision.with_environment(name, value))
    };
    let first = revision('a');
    let savepoint = left_behind(&first);
    assert!(savepoint.starts_with("s3://checkpoints/jobs/savepoints/savepoint-aaaaaa-"), "{savepoint}");
    let below = |prefix: &str| minio.object_names().iter().filter(|name| name.starts_with(prefix)).count();
    assert!(below("jobs/savepoints/") > 0);
    for _ in 0..2 {
        first.dispose(&["--savepoint", &savepoint]).succeed();
        assert_eq!(below("jobs/savepoints/"), 0);
    }
    left_behind(&revision('b'));
    let (a, b) = (format!("jobs/{}/", id('a')), format!("jobs/{}/", id('b')));
    assert!(below(&a) > 0 && below(&b) > 0);
    first.dispose(&["--job-id", &id('a')]).succeed();
    assert_eq!(below(&a), 0);
    assert!(below(&b) > 0);
    for _ in 0..2 {
        first.dispose(&["--all"]).succeed();
        assert_eq!(below("jobs/"), 0, "{:?}", minio.object_names());
    }
}
