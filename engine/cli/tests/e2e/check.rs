//! What an edited job makes of stored state: told by `check` before anything starts, and by a start itself.

use crate::expected;
use crate::harness::{Job, Launch, Place, files_below, latest_checkpoint, visible_rows};
use crate::minio::Minio;
use crate::nexmark::await_checkpoint;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const ROWS: u64 = 400_000;
const KEYS: u64 = 50;

const COUNTS: &str = "INSERT INTO counts SELECT id, COUNT(*) FROM keyed GROUP BY id;";
const TOTALS: &str = "INSERT INTO totals SELECT COUNT(*), SUM(n) FROM numbers;";

/// Numbers are counted by key, and summed up; the last rows of both tables are the result.
fn job(statements: &[&str]) -> Job {
    let sql = format!(
        "CREATE TABLE numbers (n BIGINT) WITH (
           'connector' = 'datagen', 'rows-per-second' = '100000', 'fields.n.kind' = 'sequence', 'fields.n.start' = '0',
           'fields.n.end' = '{}');
         CREATE VIEW keyed AS SELECT MOD(n, {KEYS}) AS id, n FROM numbers;
         CREATE TABLE counts (id BIGINT, visits BIGINT) WITH (
           'connector' = 'filesystem', 'path' = 'output/counts', 'format' = 'json', 'sink.changelog' = 'true');
         CREATE TABLE totals (visits BIGINT, amount BIGINT) WITH (
           'connector' = 'filesystem', 'path' = 'output/totals', 'format' = 'json', 'sink.changelog' = 'true');
         {}",
        ROWS - 1,
        statements.join("\n")
    );
    Job::sql("visits", &sql).checkpoint("interval: 100ms, retained: 2").spec("maxParallelism", "16").restarting()
}

fn both() -> Job {
    job(&[COUNTS, TOTALS])
}

/// State of a job in the middle of its input: the directory of a checkpoint or savepoint.
struct Interrupted {
    place: Place,
    checkpoint: PathBuf,
}

impl Interrupted {
    fn run() -> Interrupted {
        let place = Place::new();
        let state = place.path("state");
        let mut engine = place.job(&both()).start();
        await_checkpoint(&mut engine, &state, 4);
        engine.kill_all();
        let newest = format!("chk-{}/_metadata", latest_checkpoint(&state));
        let metadata = files_below(&state).into_iter().find(|file| file.ends_with(&newest)).expect("a manifest");
        Interrupted { checkpoint: metadata.parent().expect("its directory").to_owned(), place }
    }

    /// Stopped with a savepoint instead of killed.
    fn stop(job: &Job) -> Interrupted {
        let place = Place::new();
        let mut engine = place.job(job).start();
        await_checkpoint(&mut engine, &place.path("state"), 4);
        let directory = place.path("savepoints").display().to_string();
        let arguments = ["stop", "--data-dir", "state", "--savepoint-dir", &directory, "--output", "json"];
        let report = Launch::verb(place.root(), &arguments).succeed();
        let report: Value = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"));
        engine.succeed();
        Interrupted { checkpoint: PathBuf::from(report["location"].as_str().expect("a place")), place }
    }

    fn metadata(&self) -> PathBuf {
        self.checkpoint.join("_metadata")
    }

    fn check_launch(&self, job: &Job, from: &Path, more: &[&str]) -> Launch {
        let file = self.place.path("edited.yaml");
        fs::write(&file, job.text()).unwrap();
        let mut arguments = vec!["check", "edited.yaml", "--from", from.to_str().unwrap()];
        arguments.extend(more);
        Launch::verb(self.place.root(), &arguments)
    }

    /// Exit code and output.
    fn check(&self, job: &Job, more: &[&str]) -> (i32, String) {
        let mut engine = self.check_launch(job, &self.checkpoint, more).start();
        let code = engine.await_end().code().expect("an exit code");
        (code, engine.log())
    }

    /// Verdict and uid of every operator, and whether the job would start.
    fn verdicts(&self, job: &Job) -> (bool, Vec<String>) {
        let (code, output) = self.check(job, &["--output", "json"]);
        let report: Value = serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"));
        assert_eq!(report["compatible"], code == 0, "{output}");
        assert!(code == 0 || code == 1, "{code}: {output}");
        let operators = report["operators"].as_array().expect("operators").iter();
        let mut verdicts: Vec<String> = operators
            .map(|check| {
                let text = |field: &str| check[field].as_str().expect("a text").to_owned();
                format!("{} {}", text("verdict"), text("uid"))
            })
            .collect();
        verdicts.sort();
        (code == 0, verdicts)
    }

    /// A first start of a job, in a directory of its own, from the stored state.
    fn restored(&self, job: &Job, place: &Place) -> Launch {
        place.job(&job.clone().spec("restoreFrom", &format!("{{ path: {} }}", self.checkpoint.display())))
    }
}

fn allowing(job: Job) -> Job {
    job.spec("upgrade", "{ allowNonRestoredState: true }")
}

fn nothing_ran(place: &Place) {
    assert!(!place.path("output").exists(), "tasks ran");
}

/// Of every key the row with the highest count: counts only grow.
fn last_rows(place: &Place, table: &str) -> Vec<Value> {
    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    for row in visible_rows(&place.path("output").join(table)) {
        let row: Value = serde_json::from_str(&row).expect("JSON");
        let known = last.entry(row["id"].to_string()).or_insert_with(|| row.clone());
        if known["visits"].as_u64() < row["visits"].as_u64() {
            *known = row;
        }
    }
    last.into_values().collect()
}

#[test]
fn r50_r54_check_says_what_an_edit_does_to_a_retained_checkpoint() {
    let stored = Interrupted::run();
    let before = files_below(stored.place.root());
    let restored = ["restored sink:counts", "restored sink:totals", "restored source:numbers"];
    let with = |more: &[&str]| {
        let mut all: Vec<String> = restored.iter().chain(more).map(|verdict| (*verdict).to_owned()).collect();
        all.sort();
        all
    };
    let kept = with(&["restored counts/numbers/group-by-mod_n_50_ebfa56ea", "restored totals/numbers/group-all"]);
    assert_eq!(stored.verdicts(&both()), (true, kept.clone()), "unchanged");
    assert_eq!(stored.verdicts(&both().parallelism(3)), (true, kept.clone()), "another parallelism");
    let filtered = COUNTS.replace(" GROUP", " WHERE n > 7 GROUP");
    assert_eq!(stored.verdicts(&job(&[TOTALS, &filtered])), (true, kept), "another order and a condition");

    let other_key = job(&[&COUNTS.replace("id,", "n,").replace("BY id", "BY n"), TOTALS]);
    let replaced = with(&[
        "dropped counts/numbers/group-by-mod_n_50_ebfa56ea",
        "new counts/numbers/group-by-n",
        "restored totals/numbers/group-all",
    ]);
    assert_eq!(stored.verdicts(&other_key), (false, replaced.clone()));
    assert_eq!(stored.verdicts(&allowing(other_key.clone())), (true, replaced));

    let other_aggregate = job(&[COUNTS, &TOTALS.replace("SUM(n)", "MAX(n)")]);
    let incompatible =
        with(&["restored counts/numbers/group-by-mod_n_50_ebfa56ea", "incompatible totals/numbers/group-all"]);
    assert_eq!(stored.verdicts(&allowing(other_aggregate.clone())), (false, incompatible));

    let one_less = job(&[COUNTS, &TOTALS.replace(", SUM(n)", ", 0")]);
    let without = with(&["restored counts/numbers/group-by-mod_n_50_ebfa56ea", "dropped totals/numbers/group-all"]);
    assert_eq!(stored.verdicts(&one_less), (false, without.clone()));
    assert_eq!(stored.verdicts(&allowing(one_less)), (true, without));

    let (code, text) = stored.check(&other_aggregate, &[]);
    assert_eq!(code, 1);
    for part in
        ["totals/numbers/group-all", "count Int64, sum_n Int64", "sum_n Int64 became max_n Int64", "not compatible"]
    {
        assert!(text.contains(part), "'{part}' in\n{text}");
    }
    let (code, text) = stored.check(&other_key, &[]);
    assert_eq!(code, 1);
    assert!(text.contains("no operator with this uid") && text.contains("allowNonRestoredState"), "{text}");
    assert!(stored.check_launch(&both(), &stored.metadata(), &[]).succeed().contains("compatible"), "the file itself");

    let logs = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "log" || extension == "yaml");
    let after: Vec<PathBuf> = files_below(stored.place.root());
    let new: Vec<&PathBuf> = after.iter().filter(|file| !before.contains(file) && !logs(file)).collect();
    assert_eq!(new, Vec::<&PathBuf>::new(), "a check writes nothing");
}

#[test]
fn r49_state_that_does_not_fit_is_refused_before_any_task_starts() {
    let stored = Interrupted::run();
    let refused = |job: &Job, expected: &[&str]| {
        let place = Place::new();
        stored.restored(job, &place).fail(expected);
        nothing_ran(&place);
    };
    refused(
        &allowing(job(&[COUNTS, &TOTALS.replace("SUM(n)", "MAX(n)")])),
        &["totals/numbers/group-all", "'groups'", "count Int64, sum_n Int64", "count Int64, max_n Int64", "Undo"],
    );
    refused(
        &job(&[COUNTS]),
        &["Cannot map checkpoint/savepoint state for operator", "totals/numbers/group-all", "allowNonRestoredState"],
    );
    refused(&both().spec("maxParallelism", "8"), &["maxParallelism", "16", "8"]);
    refused(&both().parallelism(17).spec("maxParallelism", "32"), &["16"]);
    let place = Place::new();
    let missing = stored.checkpoint.with_file_name("chk-99999");
    let job = both().spec("restoreFrom", &format!("{{ path: {} }}", missing.display()));
    place.job(&job).fail(&["chk-99999", "_metadata"]);
    nothing_ran(&place);
}

#[test]
fn r52_an_edited_job_goes_on_from_a_checkpoint_with_the_state_that_the_edit_does_not_touch() {
    let stored = Interrupted::run();
    goes_on(&stored, &format!("restored from checkpoint {}", latest_checkpoint(&stored.place.path("state"))));
}

#[test]
fn r49_r53_an_edited_job_goes_on_from_a_savepoint_with_the_state_that_the_edit_does_not_touch() {
    let stored = Interrupted::stop(&both());
    let kept = stored.verdicts(&both()).1;
    assert!(kept.len() == 5 && kept.iter().all(|verdict| verdict.starts_with("restored")), "{kept:?}");
    let (compatible, verdicts) = stored.verdicts(&job(&[COUNTS, &TOTALS.replace("SUM(n)", "MAX(n)")]));
    assert!(!compatible && verdicts.contains(&"incompatible totals/numbers/group-all".to_owned()), "{verdicts:?}");
    goes_on(&stored, "restored from");
}

/// One statement goes, another comes, and the order changes: the counts are those of a run without interruption.
fn goes_on(stored: &Interrupted, restored: &str) {
    let highest = "INSERT INTO totals SELECT MAX(n), MIN(n) FROM keyed WHERE id = 7 GROUP BY id;";
    let without_sum = "INSERT INTO totals SELECT COUNT(*), -1 FROM numbers;";
    let edited = allowing(job(&[highest, without_sum, COUNTS])).parallelism(2);
    // In the same place: files that wait to be committed are where the sink left them.
    let file = stored.place.path("next.yaml");
    let from = format!("{{ path: {} }}", stored.checkpoint.display());
    fs::write(&file, edited.spec("restoreFrom", &from).text()).unwrap();
    let log = Launch::verb(stored.place.root(), &["run", "next.yaml", "--data-dir", "next"]).succeed();
    assert!(log.contains(restored), "{log}");
    let counts = last_rows(&stored.place, "counts");
    assert_eq!(counts.len() as u64, KEYS);
    for row in counts {
        assert_eq!(row["visits"], ROWS / KEYS, "{row}");
    }
    // The count goes on where the sum beside it was taken out.
    let totals = visible_rows(&stored.place.path("output/totals"));
    let totals = totals.iter().map(|row| serde_json::from_str::<Value>(row).expect("JSON"));
    let highest = totals.filter(|row| row["amount"] == -1).filter_map(|row| row["visits"].as_u64()).max();
    assert_eq!(highest, Some(ROWS));
}

#[test]
fn snapshots_that_are_damaged_or_of_another_job_are_refused() {
    let stored = Interrupted::run();
    let metadata = stored.metadata();
    let whole = fs::read(&metadata).unwrap();

    let other = Job::example("quickstart");
    let (compatible, verdicts) = stored.verdicts(&other);
    assert!(!compatible, "{verdicts:?}");
    let labels: Vec<&str> = verdicts.iter().map(|verdict| verdict.split(' ').next().unwrap()).collect();
    assert!(labels.contains(&"dropped") && labels.contains(&"new") && !labels.contains(&"restored"), "{verdicts:?}");

    for (what, limit) in [("lower", "8"), ("higher", "64")] {
        let (code, text) = stored.check(&both().spec("maxParallelism", limit), &[]);
        assert_eq!(code, 1, "{what}: {text}");
        assert!(text.contains("problem") && text.contains("16") && text.contains(limit), "{what}: {text}");
    }
    let wide = Job::example("quickstart").parallelism(17);
    let (code, text) = stored.check(&wide, &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("parallelism 17") && text.contains("16"), "{text}");

    let refused = |job: &Job, expected: &[&str]| {
        let mut check = stored.check_launch(job, &stored.checkpoint, &[]).start();
        assert_eq!(check.await_end().code(), Some(2), "{}", check.log());
        for part in expected {
            assert!(check.log().contains(part), "'{part}' in\n{}", check.log());
        }
        let place = Place::new();
        stored.restored(&both(), &place).fail(expected);
        nothing_ran(&place);
    };
    fs::write(&metadata, &whole[..whole.len() / 2]).unwrap();
    refused(&both(), &["cannot restore from", "_metadata"]);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x20;
    fs::write(&metadata, &flipped).unwrap();
    refused(&both(), &["cannot restore from", "_metadata"]);
    fs::write(&metadata, b"").unwrap();
    refused(&both(), &["cannot restore from", "_metadata"]);
    fs::remove_file(&metadata).unwrap();
    refused(&both(), &["cannot restore from", "_metadata"]);
    fs::write(&metadata, &whole).unwrap();
    assert!(stored.verdicts(&both()).0, "whole again");

    let missing = stored.checkpoint.with_file_name("nothing-here");
    let mut check = stored.check_launch(&both(), &missing, &[]).start();
    assert_eq!(check.await_end().code(), Some(2));
    assert!(check.log().contains("there is no directory"), "{}", check.log());
}

/// A condition puts an operator in front of one that has had all of its input.
#[test]
fn r52_a_statement_whose_input_had_ended_can_be_edited() {
    let few = "CREATE TABLE few (n BIGINT) WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence', 'fields.n.start' = '0', \
               'fields.n.end' = '9');";
    let ended = "INSERT INTO totals SELECT COUNT(*), n FROM few GROUP BY n;";
    let before = job(&[few, ended, COUNTS]).parallelism(2);
    let stored = Interrupted::stop(&before);
    let metadata = fs::read_to_string(stored.metadata()).unwrap();
    let metadata: Value = serde_json::from_str(metadata.split_once('\n').expect("a checksum line").1).expect("JSON");
    let operators = metadata["operators"].as_array().expect("operators");
    let finished = |uid: &str| {
        let operator = operators.iter().find(|operator| operator["uid"] == uid).expect("the operator");
        operator["subtasks"].as_object().expect("subtasks").values().all(|subtask| subtask["finished"] == true)
    };
    assert!(finished("source:few") && finished("totals/few/group-by-n") && !finished("source:numbers"));

    let edited = job(&[few, &ended.replace("few ", "few WHERE n < 100 "), COUNTS]).parallelism(2);
    assert!(stored.verdicts(&edited).0);
    stored.place.job(&edited).succeed();
    let totals = visible_rows(&stored.place.path("output/totals"));
    let mut amounts: Vec<u64> = totals
        .iter()
        .map(|row| serde_json::from_str::<Value>(row).expect("JSON"))
        .map(|row| {
            assert_eq!(row["visits"], 1, "{row}");
            row["amount"].as_u64().expect("a number")
        })
        .collect();
    amounts.sort_unstable();
    assert_eq!(amounts, (0..10).collect::<Vec<u64>>());
    assert!(last_rows(&stored.place, "counts").iter().all(|row| row["visits"] == ROWS / KEYS));
}

/// An upgrade in the way people do it, with processes that die before and after: stop with a savepoint, edit the text, check,
/// run again. What the edit does not touch is as if nothing had happened.
#[test]
fn r53_an_upgrade_of_a_nexmark_job_with_kills_in_the_middle() {
    const EVENTS: u64 = 120_000;
    const RATE: u64 = 20_000;
    let job = Job::file("e2e/jobs/accounts.yaml")
        .env("EVENTS", EVENTS)
        .env("RATE", RATE)
        .parallelism(2)
        .checkpoint("interval: 200ms, tolerableFailures: 1000000")
        .restarting();
    let place = Place::new();
    let state = place.path("state");
    let mut engine = place.job(&job).start();
    let first = await_checkpoint(&mut engine, &state, 2);
    engine.kill(engine.workers(2)[0]);
    await_checkpoint(&mut engine, &state, first + 1);
    let directory = place.path("savepoints").display().to_string();
    let stop = ["stop", "--data-dir", "state", "--savepoint-dir", &directory, "--output", "json"];
    let report: Value = serde_json::from_str(&Launch::verb(place.root(), &stop).succeed()).expect("JSON");
    let savepoint = report["location"].as_str().expect("a place").to_owned();
    engine.succeed();

    // Cheap bids are counted no more, a statement comes, and the statements change places.
    let statements = job.text().find("INSERT INTO accounts").zip(job.text().find("INSERT INTO channels"));
    let (accounts, channels) = statements.expect("both statements");
    let accounts = job.text()[accounts..channels].trim().to_owned();
    let busiest = "INSERT INTO auctions SELECT auction, COUNT(*) FROM bid GROUP BY auction;";
    let edited = job
        .replace(&accounts, "")
        .replace("GROUP BY window_start, window_end, channel;", &format!(
            "GROUP BY window_start, window_end, channel;\n        {}\n        {busiest}",
            accounts.replace("FROM bid", "FROM bid WHERE price >= 1000")
        ))
        .replace("CREATE TABLE channels (", "CREATE TABLE auctions (auction BIGINT, bids BIGINT) WITH ('connector' = 'blackhole');\n      CREATE TABLE channels (");
    let file = place.path("edited.yaml");
    fs::write(&file, edited.text()).unwrap();
    let checked = Launch::verb(place.root(), &["check", "edited.yaml", "--from", &savepoint]).succeed();
    for part in
        ["restored      accounts/events/group-by-bid_bidder", "new           auctions/events/group-by-bid_auction"]
    {
        assert!(checked.contains(part), "'{part}' in\n{checked}");
    }
    assert!(!checked.contains("dropped") && !checked.contains("incompatible"), "{checked}");

    let before = latest_checkpoint(&state);
    let mut engine = place.job(&edited).start();
    let next = await_checkpoint(&mut engine, &state, before);
    engine.kill(engine.workers(2)[1]);
    await_checkpoint(&mut engine, &state, next);
    engine.kill(engine.coordinator());
    engine.succeed();
    expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), &[]);
}

#[test]
fn checkpoints_on_s3_are_checked_where_they_lie() {
    let minio = Minio::start();
    let place = Place::new();
    let on_minio = |statements: &[&str]| minio.storage(job(statements));
    let mut engine = minio.credentials(place.job(&on_minio(&[COUNTS, TOTALS]))).start();
    engine.eventually("two checkpoints on MinIO", || (minio.latest_checkpoint() > 2).then_some(()));
    engine.kill_all();
    let newest = format!("chk-{}/_metadata", minio.latest_checkpoint());
    let metadata = minio.object_names().into_iter().find(|object| object.ends_with(&newest)).expect("a manifest");
    let check = |statements: &[&str], from: &str| {
        fs::write(place.path("edited.yaml"), on_minio(statements).text()).unwrap();
        let launch = Launch::verb(place.root(), &["check", "edited.yaml", "--from", from]);
        let mut engine = minio.credentials(launch).start();
        (engine.await_end().code(), engine.log())
    };
    let before = minio.object_names();
    let (code, text) = check(&[TOTALS, COUNTS], &format!("s3://checkpoints/{metadata}"));
    assert_eq!(code, Some(0), "{text}");
    let directory = metadata.trim_end_matches("/_metadata");
    let (code, text) = check(&[TOTALS], &format!("s3://checkpoints/{directory}/"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("dropped       counts/numbers/group-by"), "{text}");
    let (code, text) = check(&[TOTALS, COUNTS], &format!("s3://checkpoints/{directory}9"));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("cannot restore from") && text.contains("_metadata"), "{text}");
    assert_eq!(minio.object_names(), before, "a check writes nothing");
}
