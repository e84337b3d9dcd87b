//! Checkpoint storage that fails: damaged files, a full disk, a MinIO that dies. Equal results, or one clear error.

use crate::expected;
use crate::harness::{
    Engine, Job, Launch, Place, checkpoints, complete_checkpoints, eventually, files_below, inspection,
    latest_checkpoint, parsed, visible_rows,
};
use crate::minio::Minio;
use crate::nexmark::await_checkpoint;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const EVENTS: u64 = 120_000;
const RATE: u64 = 20_000;

/// Keyed state of many keys and windows; three checkpoints are kept.
fn job() -> Job {
    Job::file("e2e/jobs/accounts.yaml")
        .env("EVENTS", EVENTS)
        .env("RATE", RATE)
        .parallelism(2)
        .checkpoint("interval: 200ms, retained: 3, tolerableFailures: 1000000")
        .restarting()
}

fn results_are_right(place: &Place, more: &[&str]) {
    expected::nexmark("accounts", EVENTS, RATE, &place.path(".streamjob/output/accounts"), more);
    expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), more);
}

/// Runs until a few checkpoints are kept, then kills everything.
fn interrupted(place: &Place) -> PathBuf {
    let state = place.path("state");
    let mut engine = place.job(&job()).start();
    await_checkpoint(&mut engine, &state, 5);
    engine.kill_all();
    state
}

fn manifest(state: &Path, checkpoint: u64) -> PathBuf {
    let end = format!("chk-{checkpoint}/_metadata");
    files_below(state).into_iter().find(|file| file.ends_with(&end)).expect("the manifest")
}

/// State files that the manifest of a checkpoint refers to and no older one does.
fn own_state_files(state: &Path, checkpoint: u64) -> Vec<PathBuf> {
    let text = |id: u64| fs::read_to_string(manifest(state, id)).expect("a manifest");
    let newest = text(checkpoint);
    let older: String = checkpoints(state).into_iter().filter(|&id| id < checkpoint).map(text).collect();
    files_below(state)
        .into_iter()
        .filter(|file| {
            let name = file.file_name().expect("a file").to_string_lossy().into_owned();
            name != "_metadata" && newest.contains(&name) && !older.contains(&name)
        })
        .collect()
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(file, bytes).unwrap();
}

fn truncate(file: &Path) {
    let length = fs::metadata(file).unwrap().len();
    fs::File::options().write(true).open(file).unwrap().set_len(length / 2).unwrap();
}

fn delete(file: &Path) {
    fs::remove_file(file).unwrap();
}

/// After the newest checkpoint is damaged, the job goes on from the one before and says so. What lies between the two was
/// shown already and is shown again; nothing is lost, and no row is wrong.
fn falls_back(damage: impl Fn(&Path), of: impl Fn(&Path, u64) -> PathBuf) {
    let place = Place::new();
    let state = interrupted(&place);
    let newest = *complete_checkpoints(&inspection(place.root())).last().expect("a checkpoint");
    damage(&of(&state, newest));
    let log = place.job(&job()).succeed();
    assert!(log.contains(&format!("checkpoint {newest}")), "says which checkpoint is damaged:\n{log}");
    expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), &["--repeated"]);
}

fn state_file(state: &Path, checkpoint: u64) -> PathBuf {
    own_state_files(state, checkpoint).pop().expect("the newest checkpoint wrote state of its own")
}

#[test]
fn a_truncated_manifest_falls_back_to_the_checkpoint_before() {
    falls_back(truncate, manifest);
}

#[test]
fn a_flipped_manifest_falls_back_to_the_checkpoint_before() {
    falls_back(flip, manifest);
}

#[test]
fn a_deleted_manifest_falls_back_to_the_checkpoint_before() {
    falls_back(delete, manifest);
}

#[test]
fn a_truncated_state_file_falls_back_to_the_checkpoint_before() {
    falls_back(truncate, state_file);
}

#[test]
fn a_flipped_state_file_falls_back_to_the_checkpoint_before() {
    falls_back(flip, state_file);
}

#[test]
fn a_deleted_state_file_falls_back_to_the_checkpoint_before() {
    falls_back(delete, state_file);
}

#[test]
fn with_every_checkpoint_damaged_nothing_starts_and_one_error_says_why() {
    let place = Place::new();
    let state = interrupted(&place);
    let before = crate::harness::visible_rows(&place.path(".streamjob/output/channels"));
    let newest = *complete_checkpoints(&inspection(place.root())).last().expect("a checkpoint");
    for checkpoint in checkpoints(&state) {
        truncate(&manifest(&state, checkpoint));
    }
    place.job(&job()).fail(&[&format!("checkpoint {newest}")]);
    assert_eq!(crate::harness::visible_rows(&place.path(".streamjob/output/channels")), before, "output unchanged");
}

#[test]
fn a_damaged_journal_entry_is_an_error_and_not_a_fresh_start() {
    let place = Place::new();
    let state = interrupted(&place);
    // Beside the entries there may be one that was being written.
    let number = |file: &Path| file.file_name()?.to_str()?.parse::<u64>().ok();
    let entries =
        files_below(&state).into_iter().filter(|file| file.parent().is_some_and(|it| it.ends_with("journal")));
    truncate(&entries.max_by_key(|file| number(file)).expect("a journal"));
    let before = crate::harness::visible_rows(&place.path(".streamjob/output/channels"));
    place.job(&job()).fail(&["journal"]);
    assert_eq!(crate::harness::visible_rows(&place.path(".streamjob/output/channels")), before, "output unchanged");
}

/// A small file system of its own, mounted while this lives.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: PathBuf, kilobytes: u32) -> SmallDisk {
        fs::create_dir_all(&path).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "streamjob-test"])
            .arg(&path)
            .status()
            .expect("running mount");
        assert!(status.success(), "this test mounts a small file system: run it as root, in a place where mount works");
        SmallDisk { path }
    }

    /// Writes until nothing more fits; deleting the file makes room again.
    fn fill(&self) -> PathBuf {
        let filler = self.path.join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        let block = [7u8; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

#[test]
fn a_full_checkpoint_disk_fails_checkpoints_and_the_job_goes_on_when_there_is_room_again() {
    let place = Place::new();
    let disk = SmallDisk::mount(place.path("small"), 16 * 1024);
    let job = job().spec("storage", "{ directory: small/checkpoints }");
    let mut engine = place.job(&job).start();
    await_checkpoint(&mut engine, &disk.path, 1);
    let filler = disk.fill();
    std::thread::sleep(Duration::from_millis(1500));
    let stuck = latest_checkpoint(&disk.path);
    fs::remove_file(filler).unwrap();
    await_checkpoint(&mut engine, &disk.path, stuck);
    // What is stored after all that is whole: it is restored.
    engine.kill_all();
    place.job(&job).succeed();
    results_are_right(&place, &[]);
}

#[test]
fn a_full_output_disk_fails_tasks_and_results_are_whole_once_there_is_room_again() {
    let place = Place::new();
    let output = place.path(".streamjob/output");
    let disk = SmallDisk::mount(output, 64 * 1024);
    let mut engine = place.job(&job()).start();
    await_checkpoint(&mut engine, &place.path("state"), 1);
    let filler = disk.fill();
    engine
        .eventually("a failure that names the disk", || engine.process_logs().contains("No space left").then_some(()));
    fs::remove_file(filler).unwrap();
    engine.succeed();
    results_are_right(&place, &[]);
}

fn on_minio(minio: &Minio) -> Job {
    minio.storage(job())
}

fn await_object_checkpoint(engine: &mut Engine, minio: &Minio, beyond: u64) -> u64 {
    eventually("a checkpoint on MinIO", crate::harness::PATIENCE, || {
        assert!(!engine.has_ended(), "ended early\n{}", engine.log_end());
        Some(minio.latest_checkpoint()).filter(|&latest| latest > beyond)
    })
}

#[test]
fn r70_checkpoints_on_minio_survive_kills_of_every_process() {
    let minio = Minio::start();
    let place = Place::new();
    let mut engine = minio.credentials(place.job(&on_minio(&minio))).start();
    let first = await_object_checkpoint(&mut engine, &minio, 1);
    engine.kill(engine.workers(2)[0]);
    let second = await_object_checkpoint(&mut engine, &minio, first);
    engine.kill(engine.coordinator());
    await_object_checkpoint(&mut engine, &minio, second);
    engine.kill_all();
    minio.credentials(place.job(&on_minio(&minio))).succeed();
    results_are_right(&place, &[]);
    assert_eq!(latest_checkpoint(&place.path("state")), 0, "checkpoints are on MinIO and nowhere else");
}

#[test]
fn r70_minio_killed_and_started_again_costs_checkpoints_but_no_row() {
    let mut minio = Minio::start();
    let place = Place::new();
    let mut engine = minio.credentials(place.job(&on_minio(&minio))).start();
    let before = await_object_checkpoint(&mut engine, &minio, 1);
    minio.kill();
    std::thread::sleep(Duration::from_millis(1500));
    minio.resume();
    await_object_checkpoint(&mut engine, &minio, before);
    engine.kill_all();
    minio.credentials(place.job(&on_minio(&minio))).succeed();
    results_are_right(&place, &[]);
}

const LARGE_KEYS: i64 = 10_000;

/// State of 20 MB in one table, whose files are uploaded and read in three parts.
fn large(minio: &Minio, rows: i64) -> Job {
    let text = "x".repeat(2_000);
    let sql = format!(
        "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '10000',\n\
         'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '{rows}');\n\
         CREATE TABLE totals (seen BIGINT, length BIGINT) WITH ('connector' = 'filesystem',\n\
         'path' = '.streamjob/output/totals', 'format' = 'json', 'sink.changelog' = 'true');\n\
         INSERT INTO totals SELECT SUM(seen), SUM(CHAR_LENGTH(text)) FROM (\n\
         SELECT k, COUNT(*) AS seen, MAX(CONCAT('{text}', CAST(n + 1000000 AS STRING))) AS text\n\
         FROM (SELECT MOD(n, {LARGE_KEYS}) AS k, n FROM numbers) GROUP BY k);"
    );
    minio.storage(Job::sql("large", &sql)).checkpoint("interval: 500ms, tolerableFailures: 1000000").restarting()
}

/// Sums only grow: a row too many or too few shows in the last one.
fn large_results_are_right(place: &Place, rows: i64) {
    let totals = visible_rows(&place.path(".streamjob/output/totals"));
    let values = totals.iter().map(|row| serde_json::from_str::<serde_json::Value>(row).expect("a row in JSON"));
    let last = values.max_by_key(|row| row["seen"].as_i64()).expect("a row");
    assert_eq!((last["seen"].as_i64(), last["length"].as_i64()), (Some(rows), Some(LARGE_KEYS * 2_007)), "{last}");
}

#[test]
fn r70_large_state_on_minio_survives_kills_of_the_worker_and_of_the_store() {
    let mut minio = Minio::start();
    let place = Place::new();
    let mut engine = minio.credentials(place.job(&large(&minio, 100_000))).start();
    let several_parts = || files_below(&minio.objects()).iter().any(|file| file.ends_with("part.3"));
    engine.eventually("a state file of three parts", || several_parts().then_some(()));
    let first = await_object_checkpoint(&mut engine, &minio, minio.latest_checkpoint());
    engine.kill(engine.workers(1)[0]);
    let second = await_object_checkpoint(&mut engine, &minio, first);
    minio.kill();
    std::thread::sleep(Duration::from_millis(700));
    minio.resume();
    await_object_checkpoint(&mut engine, &minio, second);
    engine.succeed();
    large_results_are_right(&place, 100_000);
}

#[test]
fn nothing_is_left_on_minio_of_an_upload_that_was_given_up() {
    let minio = Minio::start();
    let place = Place::new();
    let launch = minio.credentials(place.job(&large(&minio, 40_000)));
    let mut engine = launch.environment("STREAMJOB_FAULTS", "complete.before=fail@2").start();
    engine.eventually("an upload that fails", || engine.process_logs().contains("complete.before").then_some(()));
    let failed = minio.latest_checkpoint();
    await_object_checkpoint(&mut engine, &minio, failed);
    engine.succeed();
    large_results_are_right(&place, 40_000);
    assert_eq!(minio.unfinished_uploads(), Vec::<PathBuf>::new());
}

#[test]
fn r20_a_checkpoint_that_takes_too_long_expires_and_the_next_one_completes() {
    let minio = Minio::start();
    let place = Place::new();
    let job = on_minio(&minio).env("EVENTS", 0).checkpoint("interval: 200ms, timeout: 1s, tolerableFailures: 1000000");
    let mut engine = minio.credentials(place.job(&job)).start();
    let expired = |engine: &Engine| engine.log().contains("expired before completing");
    let mut newest = await_object_checkpoint(&mut engine, &minio, 1);
    while !expired(&engine) {
        minio.freeze();
        // A checkpoint whose entry of the journal is on its way cannot expire any more: then it is the next one.
        for _ in 0..30 {
            if !expired(&engine) {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        minio.thaw();
        newest = await_object_checkpoint(&mut engine, &minio, newest + 1);
    }
    engine.kill_all();
}

#[test]
fn r23_one_failed_checkpoint_more_than_tolerated_fails_the_job() {
    let minio = Minio::start();
    let place = Place::new();
    let job = on_minio(&minio)
        .env("EVENTS", 0)
        .checkpoint("interval: 200ms, timeout: 1s, tolerableFailures: 1")
        .spec("restartStrategy", "{ none: {} }");
    let mut engine = minio.credentials(place.job(&job)).start();
    await_object_checkpoint(&mut engine, &minio, 1);
    minio.freeze();
    // The end of the job is an entry of the journal as well: it is written once the store answers again.
    engine.eventually("the job's failure", || engine.log().contains("FAILING").then_some(()));
    minio.thaw();
    engine.fail(&["tolerable failure threshold"]);
}

#[test]
fn a_take_over_on_minio_fences_the_stopped_run() {
    let minio = Minio::start();
    let place = Place::new();
    let mut old = minio.credentials(place.job(&on_minio(&minio))).start();
    let before = await_object_checkpoint(&mut old, &minio, 1);
    old.freeze();
    let mut new = minio.credentials(place.job(&on_minio(&minio))).argument("--take-over").start();
    await_object_checkpoint(&mut new, &minio, before);
    old.thaw();
    old.fail(&["fenced"]);
    new.succeed();
    results_are_right(&place, &[]);
}

#[test]
fn a_bucket_that_is_not_there_is_one_clear_error() {
    let minio = Minio::start();
    let place = Place::new();
    let job = on_minio(&minio).replace("bucket: checkpoints", "bucket: no-such-bucket");
    minio.credentials(place.job(&job)).fail(&["no-such-bucket"]);
    assert!(!place.path(".streamjob/output").exists(), "nothing ran");
}

#[test]
fn a_damaged_object_falls_back_to_the_checkpoint_before() {
    let minio = Minio::start();
    let place = Place::new();
    let mut engine = minio.credentials(place.job(&on_minio(&minio))).start();
    await_object_checkpoint(&mut engine, &minio, 5);
    engine.kill_all();
    let inspection = parsed(minio.credentials(Launch::inspect(place.root())));
    let newest = *complete_checkpoints(&inspection).last().expect("a checkpoint");
    let name = format!("chk-{newest}/_metadata");
    let object = minio.object_names().into_iter().find(|object| object.ends_with(&name)).expect("the manifest");
    fs::remove_dir_all(minio.objects().join(object)).unwrap();
    let log = minio.credentials(place.job(&on_minio(&minio))).succeed();
    assert!(log.contains(&format!("checkpoint {newest}")), "says which checkpoint is damaged:\n{log}");
    expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), &["--repeated"]);
}
