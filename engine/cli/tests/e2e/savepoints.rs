//! Savepoints of real jobs: taken, stopped with, restored from and rescaled between, while processes die.
//!
//! A job is cut into pieces by savepoints; its output over all pieces has to be what one undisturbed run writes.

use crate::api::Running;
use crate::expected;
use crate::harness::{Engine, Job, Launch, Place, files_below, visible_files};
use crate::minio::Minio;
use crate::nexmark::await_checkpoint;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const EVENTS: u64 = 120_000;
const RATE: u64 = 20_000;

/// Keyed state of many keys, windows, source splits and pending files of two sinks.
fn job(place: &Place) -> Job {
    Job::file("e2e/jobs/accounts.yaml")
        .env("EVENTS", EVENTS)
        .env("RATE", RATE)
        .parallelism(2)
        .spec("workers", "{ slots: 4 }")
        .spec("storage", &format!("{{ savepointDir: {} }}", savepoints(place).display()))
        .checkpoint("interval: 200ms, tolerableFailures: 1000000")
        .restarting()
}

fn savepoints(place: &Place) -> PathBuf {
    place.path("savepoints")
}

fn verb(place: &Place, arguments: &[&str]) -> Launch {
    let mut all = arguments.to_vec();
    all.extend(["--data-dir", "state"]);
    Launch::verb(place.root(), &all)
}

fn location(output: &str) -> String {
    let answer: Value = serde_json::from_str(output).unwrap_or_else(|error| panic!("{error}: {output}"));
    answer["location"].as_str().expect("where the savepoint is").to_owned()
}

fn savepoint(place: &Place) -> String {
    location(&verb(place, &["savepoint", "--output", "json"]).succeed())
}

/// Stops the job with a savepoint and waits for its end.
fn stop(place: &Place, engine: &mut Engine, more: &[&str]) -> String {
    let mut arguments = vec!["stop", "--output", "json"];
    arguments.extend(more);
    let stopped = location(&verb(place, &arguments).succeed());
    assert!(engine.await_end().success(), "{}", engine.log_end());
    stopped
}

/// As [`stop`], of a job of which processes were killed: a savepoint that a restart hits fails, and is asked for again.
fn stop_between_restarts(place: &Place, engine: &mut Engine) -> String {
    let stopped = engine
        .eventually("a stop that no restart hits", || verb(place, &["stop", "--output", "json"]).start().ended_well());
    assert!(engine.await_end().success(), "{}", engine.log_end());
    location(&stopped)
}

/// The job, started anew from a snapshot, in a data directory of its own.
fn restored(place: &Place, job: &Job, from: &str, claim: &str, data_dir: &str) -> Launch {
    let job = job.clone().spec("restoreFrom", &format!("{{ path: {from}, claimMode: {claim} }}"));
    let file = place.path(&format!("{data_dir}.yaml"));
    fs::write(&file, job.text()).unwrap();
    Launch::verb(place.root(), &["run", &file.display().to_string(), "--data-dir", data_dir])
}

fn results_are_right(place: &Place) {
    expected::nexmark("accounts", EVENTS, RATE, &place.path(".streamjob/output/accounts"), &[]);
    expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), &[]);
}

/// Its directory holds the manifest, every file that the manifest names, and nothing else.
fn is_self_contained(savepoint: &str) {
    let manifest = fs::read_to_string(Path::new(savepoint).join("_metadata")).expect("the manifest");
    let files = files_below(Path::new(savepoint));
    for file in &files {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(name == "_metadata" || manifest.contains(name), "{name} does not belong to it");
    }
    assert_eq!(manifest.matches(".arrow\"").count(), files.len() - 1, "{manifest}");
    assert!(!manifest.contains("shared/"), "it refers to files of checkpoints");
}

fn started(place: &Place, job: &Job, beyond: u64) -> Engine {
    let mut engine = place.job(job).start();
    await_checkpoint(&mut engine, &place.path("state"), beyond);
    engine
}

#[test]
fn r47_savepoints_beside_checkpoints_disturb_nothing() {
    let place = Place::new();
    let engine = started(&place, &job(&place), 1);
    let taken: Vec<String> = (0..3).map(|_| savepoint(&place)).collect();
    engine.succeed();
    results_are_right(&place);
    taken.iter().for_each(|savepoint| is_self_contained(savepoint));
    assert!(taken[0] != taken[1] && taken[1] != taken[2]);
}

#[test]
fn r47_a_savepoint_completes_beside_a_checkpoint_that_hangs_and_under_back_pressure() {
    let place = Place::new();
    let go = place.path("go");
    // Every file takes long to write, so that checkpoints are always under way, and the source runs as fast as it can.
    let job = job(&place).env("PACED", "false").env("EVENTS", 0).checkpoint("interval: 100ms, timeout: 1min");
    let rule = format!("upload.before=wait:{}@3", go.display());
    let engine = place.job(&job).environment("STREAMJOB_FAULTS", &rule).start();
    let running = Running::of(&engine);
    engine.eventually("a checkpoint that hangs", || {
        engine.process_logs().contains("fault point upload.before waits").then_some(())
    });
    let savepoint = verb(&place, &["savepoint", "--output", "json"]).start();
    engine.eventually("both under way", || {
        (running.get("/checkpoints")["counts"]["in_progress"].as_u64() >= Some(2)).then_some(())
    });
    fs::write(&go, "").unwrap();
    let savepoint = location(&savepoint.succeed());
    is_self_contained(&savepoint);
    let statistics = running.get("/checkpoints");
    assert_eq!(statistics["counts"]["failed"], 0, "{statistics}");
}

#[test]
fn r48_stopped_again_and_again_the_output_is_that_of_one_run() {
    let place = Place::new();
    let job = job(&place);
    let mut last = 0;
    let mut taken = Vec::new();
    for _ in 0..3 {
        let mut engine = started(&place, &job, last);
        taken.push(stop(&place, &mut engine, &[]));
        last = 0;
    }
    let log = place.job(&job).succeed();
    assert!(log.contains("restored from checkpoint"), "{log}");
    results_are_right(&place);
    taken.iter().for_each(|savepoint| is_self_contained(savepoint));
}

#[test]
fn r61_a_plain_savepoint_commits_nothing_and_stopping_commits() {
    let place = Place::new();
    let job = job(&place).checkpoint("interval: 1h");
    let mut engine = place.job(&job).start();
    Running::of(&engine);
    let rows = || visible_files(&place.path(".streamjob/output")).len();
    savepoint(&place);
    savepoint(&place);
    assert_eq!(rows(), 0, "a savepoint showed output");
    stop(&place, &mut engine, &[]);
    assert!(rows() > 0, "stopping did not show the output");
    place.job(&job).succeed();
    results_are_right(&place);
}

#[test]
fn r48_draining_fires_what_waits_and_ends_the_output() {
    let place = Place::new();
    let sql = "CREATE TABLE numbers (n BIGINT, at AS TO_TIMESTAMP_LTZ(n, 3), WATERMARK FOR at AS at) WITH (\n\
         'connector' = 'datagen', 'rows-per-second' = '100', 'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '1000000');\n\
         CREATE TABLE sums (total BIGINT, rows_read BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');\n\
         INSERT INTO sums SELECT SUM(n), COUNT(*) FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(at), INTERVAL '1' DAY))\n\
         GROUP BY window_start, window_end;";
    let job = Job::sql("drained", sql)
        .checkpoint("interval: 100ms")
        .spec("storage", &format!("{{ savepointDir: {} }}", savepoints(&place).display()));
    let mut engine = started(&place, &job, 2);
    let drained = stop(&place, &mut engine, &["--drain"]);
    is_self_contained(&drained);
    let rows: Vec<Value> = visible_files(&place.path("out"))
        .iter()
        .flat_map(|file| fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect();
    // The window of a day would not have fired by itself for hours.
    assert_eq!(rows.len(), 1, "{rows:?}");
    let read = rows[0]["rows_read"].as_i64().unwrap();
    assert!(read > 0);
    assert_eq!(rows[0]["total"].as_i64().unwrap(), read * (read + 1) / 2, "all rows up to the last one read");
}

#[test]
fn r49_r53_a_new_job_goes_on_where_the_savepoint_was_taken() {
    let place = Place::new();
    let job = job(&place);
    let mut engine = started(&place, &job, 2);
    let taken = stop(&place, &mut engine, &[]);
    // Relocatable: it is moved, and nothing of the old job is left.
    let moved = place.path("archive");
    fs::rename(&taken, &moved).unwrap();
    fs::remove_dir_all(place.path("state")).unwrap();
    let moved = moved.display().to_string();
    let log = restored(&place, &job.parallelism(3), &moved, "NoClaim", "state").succeed();
    assert!(log.contains("restored from checkpoint"), "{log}");
    results_are_right(&place);
    is_self_contained(&moved);
}

#[test]
fn r50_a_retained_checkpoint_is_restored_by_directory_or_metadata_and_ids_go_on() {
    for form in ["", "/_metadata"] {
        let place = Place::new();
        let job = job(&place).checkpoint("interval: 200ms, retention: RetainOnCancellation");
        let mut engine = started(&place, &job, 2);
        verb(&place, &["cancel"]).succeed();
        engine.await_end();
        let chk = files_below(&place.path("state"))
            .into_iter()
            .filter(|file| file.ends_with("_metadata"))
            .max()
            .expect("the retained checkpoint");
        let directory = chk.parent().unwrap().display().to_string();
        let id: u64 = directory.rsplit_once("chk-").unwrap().1.parse().unwrap();
        let again = restored(&place, &job, &format!("{directory}{form}"), "NoClaim", "again").start();
        let first = again.eventually("the first own checkpoint", || {
            files_below(&place.path("again"))
                .into_iter()
                .filter(|file| file.ends_with("_metadata"))
                .filter_map(|file| {
                    let name = file.parent()?.file_name()?.to_str()?.strip_prefix("chk-")?.parse::<u64>().ok()?;
                    Some(name)
                })
                .min()
        });
        assert!(first > id, "ids go on: {first} after {id}");
        again.succeed();
        results_are_right(&place);
        assert!(chk.is_file(), "it is not claimed, so it stays");
    }
}

#[test]
fn r55_a_claimed_savepoint_is_the_job_s_own_and_an_unclaimed_one_is_never_touched() {
    let place = Place::new();
    let job = job(&place);
    let mut engine = started(&place, &job, 2);
    let taken = stop(&place, &mut engine, &[]);
    let copy = place.path("copy");
    fs::create_dir_all(&copy).unwrap();
    files_below(Path::new(&taken)).iter().for_each(|file| {
        fs::copy(file, copy.join(file.file_name().unwrap())).unwrap();
    });
    let engine = restored(&place, &job, &taken, "Claim", "state2").start();
    // Replaced by the job's own checkpoints it goes, with its directory.
    engine.eventually("the claimed savepoint's end", || (!Path::new(&taken).exists()).then_some(()));
    engine.succeed();
    results_are_right(&place);
    assert!(copy.join("_metadata").is_file());
}

#[test]
fn coordinator_and_workers_die_while_the_job_stops_and_the_savepoint_holds() {
    // After the savepoint's entry is written but before anybody is told; before a sink commits; after it did.
    for rule in ["journal.after=crash@14", "commit.before=crash@9", "commit.before=fail@7", "commit.after=crash@8"] {
        let place = Place::new();
        let job = job(&place).checkpoint("interval: 1h, tolerableFailures: 1000000");
        let mut engine = place.job(&job).environment("STREAMJOB_FAULTS", rule).start();
        Running::of(&engine);
        // Entries and commits of these come before those of the stop.
        for _ in 0..3 {
            savepoint(&place);
        }
        let trigger = "00000000000000000000000000000abc";
        let stopped = engine.eventually("a stop, whoever asks for it", || {
            // The coordinator may die while it answers; the same request again is the same savepoint.
            let engine = verb(&place, &["stop", "--output", "json", "--trigger-id", trigger]).start();
            engine.ended_well()
        });
        let status = engine.await_end();
        assert!(status.success(), "{rule}: {status}\n{}", engine.log_end());
        is_self_contained(&location(&stopped));
        place.job(&job).succeed();
        results_are_right(&place);
    }
}

#[test]
fn kills_around_savepoints_stops_and_rescaling_leave_the_result_as_it_is() {
    let place = Place::new();
    let job = job(&place);
    for round in 0..3u32 {
        let mut engine = started(&place, &job, 0);
        let asked = verb(&place, &["savepoint"]).start();
        engine.kill(engine.workers(1)[0]);
        asked.ended();
        let asked = verb(&place, &["rescale", "--parallelism", &(3 - round % 3).to_string()]).start();
        if round != 1 {
            engine.kill(engine.coordinator());
        }
        asked.ended();
        stop_between_restarts(&place, &mut engine);
    }
    place.job(&job).succeed();
    results_are_right(&place);
    // What came of disturbed savepoints is whole, or gone.
    for entry in fs::read_dir(savepoints(&place)).unwrap().flatten() {
        is_self_contained(&entry.path().display().to_string());
    }
}

#[test]
fn r74_rescaled_in_place_up_and_down_the_result_is_the_same() {
    let place = Place::new();
    let job = job(&place).parallelism(1).checkpoint("interval: 300ms");
    let engine = started(&place, &job, 0);
    let processes = engine.processes();
    for parallelism in ["2", "3", "1", "4"] {
        let said = verb(&place, &["rescale", "--parallelism", parallelism]).succeed();
        assert!(said.contains(parallelism), "{said}");
    }
    assert_eq!(engine.processes(), processes, "without new processes");
    engine.succeed();
    results_are_right(&place);
}

#[test]
fn a_rescaled_job_keeps_its_parallelism_when_its_coordinator_dies() {
    let place = Place::new();
    let engine = started(&place, &job(&place), 0);
    verb(&place, &["rescale", "--parallelism", "3"]).succeed();
    engine.kill(engine.coordinator());
    let running = Running::of(&engine);
    let details = running.get("");
    assert!(details["vertices"].as_array().unwrap().iter().all(|vertex| vertex["parallelism"] == 3), "{details}");
    engine.succeed();
    results_are_right(&place);
}

#[test]
fn rescaling_beyond_slots_or_max_parallelism_is_refused_and_the_job_runs_on() {
    let place = Place::new();
    let engine = started(&place, &job(&place).spec("maxParallelism", "6"), 0);
    verb(&place, &["rescale", "--parallelism", "5"]).fail(&["5", "4"]);
    verb(&place, &["rescale", "--parallelism", "7"]).fail(&["6"]);
    engine.succeed();
    results_are_right(&place);
}

#[test]
fn damaged_missing_and_foreign_savepoints_start_nothing() {
    let place = Place::new();
    let job = job(&place);
    let mut engine = started(&place, &job, 2);
    let taken = stop(&place, &mut engine, &[]);
    let output = visible_files(&place.path(".streamjob/output"));
    let refused = |from: &str, expected: &[&str]| {
        restored(&place, &job, from, "NoClaim", "other").fail(expected);
        assert!(!place.path("other/logs").exists(), "a process was started for {from}");
    };
    refused(&place.path("nowhere").display().to_string(), &["nowhere/_metadata is missing", "_metadata"]);
    let state = files_below(Path::new(&taken)).into_iter().find(|file| !file.ends_with("_metadata")).unwrap();
    let whole = fs::read(&state).unwrap();
    fs::write(&state, &whole[..whole.len() / 2]).unwrap();
    refused(&taken, &["bytes instead of"]);
    fs::remove_file(&state).unwrap();
    refused(&taken, &["is missing"]);
    fs::write(&state, &whole).unwrap();
    let metadata = Path::new(&taken).join("_metadata");
    let text = fs::read(&metadata).unwrap();
    fs::write(&metadata, &text[..text.len() - 7]).unwrap();
    refused(&taken, &["checksum"]);
    fs::write(&metadata, &text).unwrap();
    let lower = job.clone().spec("maxParallelism", "4");
    restored(&place, &lower, &taken, "NoClaim", "other").fail(&["max parallelism", "128"]);
    assert_eq!(visible_files(&place.path(".streamjob/output")), output, "nothing was written");
    restored(&place, &job, &taken, "NoClaim", "other").succeed();
    results_are_right(&place);
}

#[test]
fn a_flipped_state_file_of_a_savepoint_is_found_before_anything_is_processed() {
    let place = Place::new();
    let job = job(&place);
    let mut engine = started(&place, &job, 2);
    let taken = stop(&place, &mut engine, &[]);
    let output = visible_files(&place.path(".streamjob/output"));
    let state = files_below(Path::new(&taken)).into_iter().find(|file| !file.ends_with("_metadata")).unwrap();
    let mut bytes = fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, bytes).unwrap();
    restored(&place, &job, &taken, "NoClaim", "other").fail(&["checksum", "start from another"]);
    assert_eq!(visible_files(&place.path(".streamjob/output")), output, "nothing was written");
}

#[test]
fn a_savepoint_that_cannot_be_written_fails_alone() {
    let place = Place::new();
    let engine = started(&place, &job(&place), 0);
    fs::write(place.path("file"), "").unwrap();
    let below_a_file = place.path("file/below").display().to_string();
    verb(&place, &["savepoint", "--directory", &below_a_file]).fail(&["file/below"]);
    verb(&place, &["stop", "--savepoint-dir", &below_a_file]).fail(&["file/below"]);
    verb(&place, &["savepoint", "--directory", "gopher://somewhere/else"]).fail(&["gopher"]);
    engine.succeed();
    results_are_right(&place);
}

#[test]
fn two_stops_at_once_are_one_stop() {
    let place = Place::new();
    let go = place.path("go");
    let job = job(&place).checkpoint("interval: 1h");
    let rule = format!("upload.before=wait:{}@1", go.display());
    let mut engine = place.job(&job).environment("STREAMJOB_FAULTS", &rule).start();
    let running = Running::of(&engine);
    let first = verb(&place, &["stop", "--output", "json"]).start();
    engine.eventually("the first stop under way", || {
        (running.get("/checkpoints")["counts"]["in_progress"] == 1).then_some(())
    });
    verb(&place, &["stop"]).fail(&["being stopped already"]);
    let (status, answer) = running.post("/stop", &json!({ "drain": "perhaps" }));
    assert_eq!(status, 400, "{answer}");
    fs::write(&go, "").unwrap();
    location(&first.succeed());
    assert!(engine.await_end().success());
    place.job(&job).succeed();
    results_are_right(&place);
}

#[test]
fn compressed_snapshots_are_smaller_and_restore_the_same() {
    let mut sizes = Vec::new();
    for compression in ["None", "Lz4", "Zstd"] {
        let place = Place::new();
        let job = job(&place).checkpoint(&format!("interval: 200ms, compression: {compression}"));
        let mut engine = started(&place, &job, 2);
        engine.kill(engine.workers(1)[0]);
        let taken = stop_between_restarts(&place, &mut engine);
        sizes.push(files_below(Path::new(&taken)).iter().map(|file| fs::metadata(file).unwrap().len()).sum::<u64>());
        // Another compression reads it as well.
        place.job(&job.checkpoint("interval: 200ms")).succeed();
        results_are_right(&place);
    }
    eprintln!("bytes of a savepoint without, with LZ4 and with Zstandard: {sizes:?}");
}

#[test]
fn savepoints_on_s3_are_taken_stopped_with_and_restored() {
    let minio = Minio::start();
    let place = Place::new();
    let job = minio.storage(job(&place));
    let mut engine = minio.credentials(place.job(&job)).start();
    Running::of(&engine);
    let directory = "s3://checkpoints/elsewhere/savepoints";
    let plain = verb(&place, &["savepoint", "--output", "json", "--directory", directory]).succeed();
    assert!(location(&plain).starts_with(directory), "{plain}");
    let stopped = stop(&place, &mut engine, &["--savepoint-dir", directory]);
    assert!(minio.object_names().iter().any(|name| name.contains("elsewhere/savepoints/savepoint-")));
    minio.credentials(restored(&place, &job, &stopped, "Claim", "other")).succeed();
    results_are_right(&place);
    let left: Vec<String> =
        minio.object_names().into_iter().filter(|name| name.contains(stopped.rsplit('/').next().unwrap())).collect();
    assert_eq!(left, Vec::<String>::new(), "claimed, so it went with the job's own checkpoints");
}

const CHANNELS: &str = "WHERE LOWER(channel) IN ('apple', 'google', 'facebook', 'baidu')";

/// What somebody does to the SQL between two runs, and what `check` says about it. Nothing touches the accounts.
fn edits(job: &Job) -> [(&'static str, Job, &'static [&'static str]); 4] {
    let other = "        INSERT INTO channels\n";
    let more = "CREATE TABLE more (bids BIGINT) WITH ('connector' = 'blackhole');\n\n      EXECUTE STATEMENT SET\n";
    let added = job
        .clone()
        .replace("EXECUTE STATEMENT SET\n", more)
        .replace(other, &format!("        INSERT INTO more SELECT COUNT(*) FROM bid WHERE price > 100;\n{other}"));
    let filtered = job.clone().replace(CHANNELS, "WHERE channel <> 'apple'");
    let start = job.text().find(other).expect("the statement");
    let end = start + job.text()[start..].find(";\n").expect("its end") + 2;
    let statement = job.text()[start..end].to_owned();
    let dropped = job.clone().replace(&statement, "").spec("upgrade", "{ allowNonRestoredState: true }");
    let accounts =
        "        INSERT INTO accounts SELECT bidder, COUNT(*) AS bids, SUM(price) AS spent FROM bid GROUP BY bidder;\n";
    let reordered = job.clone().replace(accounts, "").replace(
        &statement,
        &format!("{statement}        -- The big spenders.\n{}", accounts.replace("FROM bid", "\n          FROM bid")),
    );
    [
        ("a statement more", added, &["new"]),
        ("another filter", filtered, &[]),
        ("a statement less", dropped, &["dropped"]),
        ("another order, a comment, a line break", reordered, &[]),
    ]
}

#[test]
fn r53_upgrade_drills_with_kills_keep_what_the_edit_does_not_touch() {
    let place = Place::new();
    let plain = job(&place);
    for (name, edited, verdicts) in edits(&plain) {
        let place = Place::new();
        let savepoint_dir = format!("{{ savepointDir: {} }}", savepoints(&place).display());
        let mut engine = started(&place, &plain.clone().spec("storage", &savepoint_dir), 1);
        engine.kill(engine.workers(1)[0]);
        let taken = stop_between_restarts(&place, &mut engine);
        let edited = edited.spec("storage", &savepoint_dir);
        fs::write(place.path("edited.yaml"), edited.text()).unwrap();
        let check =
            Launch::verb(place.root(), &["check", "edited.yaml", "--from", &taken, "--output", "json"]).succeed();
        let check: Value = serde_json::from_str(&check).unwrap_or_else(|error| panic!("{error}: {check}"));
        let text = check.to_string().to_lowercase();
        for verdict in ["new", "dropped", "incompatible"] {
            let found = text.contains(&format!("\"verdict\":\"{verdict}\""));
            assert_eq!(found, verdicts.contains(&verdict), "{name}: {verdict} in {check}");
        }
        let engine = restored(&place, &edited, &taken, "NoClaim", "upgraded").start();
        engine.eventually("a checkpoint of the upgraded job", || {
            files_below(&place.path("upgraded")).iter().any(|file| file.ends_with("_metadata")).then_some(())
        });
        engine.kill(engine.coordinator());
        engine.kill(engine.workers(1)[0]);
        engine.succeed();
        expected::nexmark("accounts", EVENTS, RATE, &place.path(".streamjob/output/accounts"), &[]);
        if name.starts_with("another order") || name.starts_with("a statement more") {
            expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), &[]);
        }
    }
}
