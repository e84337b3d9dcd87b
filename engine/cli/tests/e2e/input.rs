//! What a person can get wrong: one clear error each, and nothing half-done left behind.

use crate::harness::{Job, Launch, Place, files_below};
use std::fs;

const SINK: &str =
    "CREATE TABLE sink (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');\n";
const SOURCE: &str = "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '5');\n";
const COPY: &str = "INSERT INTO sink SELECT n FROM numbers;";

/// Runs a job that cannot work; its output has to name all of `expected`, and there is no output afterwards.
fn refused(job: &Job, expected: &[&str]) {
    let place = Place::new();
    let log = place.job(job).fail(expected);
    assert_eq!(log.lines().count(), 1, "one error:\n{log}");
    assert!(!place.path("out").exists(), "output of a job that never ran");
    assert!(!place.path("state").exists(), "a data directory of a job that never ran");
}

fn sql(text: &str) -> Job {
    Job::sql("wrong", text)
}

#[test]
fn sql_that_does_not_parse_names_line_and_column() {
    refused(&sql(&format!("{SOURCE}{SINK}INSERT INTO sink SELEC n FROM numbers;")), &["line 3"]);
}

#[test]
fn an_unknown_column_names_it() {
    refused(&sql(&format!("{SOURCE}{SINK}INSERT INTO sink SELECT m FROM numbers;")), &["m"]);
}

#[test]
fn an_unknown_table_names_it() {
    refused(&sql(&format!("{SOURCE}{SINK}INSERT INTO sink SELECT n FROM nmbers;")), &["nmbers"]);
}

#[test]
fn an_unsupported_clause_is_refused_at_planning() {
    refused(
        &sql(&format!("{SOURCE}{SINK}INSERT INTO sink SELECT n FROM numbers ORDER BY n LIMIT 3;")),
        &["line 3", "ORDER BY"],
    );
}

#[test]
fn an_unknown_connector_names_the_known_ones() {
    refused(&sql(&format!("{}{SINK}{COPY}", SOURCE.replace("datagen", "datagne"))), &["datagne", "datagen"]);
}

#[test]
fn an_unknown_option_of_a_connector_names_the_known_ones() {
    refused(&sql(&format!("{SOURCE}{}{COPY}", SINK.replace("'path'", "'pfad'"))), &["pfad", "path"]);
}

#[test]
fn a_wrong_value_of_an_option_names_it() {
    refused(&sql(&format!("{}{SINK}{COPY}", SOURCE.replace("'sequence'", "'sequenz'"))), &["sequenz"]);
}

#[test]
fn a_missing_input_file_names_its_path_and_is_not_tried_again() {
    let place = Place::new();
    let source =
        "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'not/there', 'format' = 'json');\n";
    let job = sql(&format!("{source}{SINK}{COPY}")).checkpoint("interval: 100ms");
    let log = place.job(&job).fail(&["not/there"]);
    assert!(!log.contains("(restart "), "{log}");
    assert!(files_below(&place.path("out")).is_empty(), "output of a job without input");
}

#[test]
fn an_output_directory_that_cannot_be_written_names_its_path_and_is_not_tried_again() {
    let place = Place::new();
    // A file stands where the directory should be: not even root can write below it.
    fs::write(place.path("blocked"), "in the way").unwrap();
    let sink = SINK.replace("'out'", "'blocked/out'");
    let log = place.job(&sql(&format!("{SOURCE}{sink}{COPY}")).checkpoint("interval: 100ms")).fail(&["blocked/out"]);
    assert!(!log.contains("(restart "), "{log}");
    assert_eq!(fs::read_to_string(place.path("blocked")).unwrap(), "in the way");
}

#[test]
fn an_unwritable_data_directory_names_its_path() {
    let place = Place::new();
    fs::write(place.path("blocked"), "in the way").unwrap();
    let file = place.path("job.yaml");
    fs::write(&file, sql(&format!("{SOURCE}{SINK}{COPY}")).text()).unwrap();
    Launch::verb(place.root(), &["run", "job.yaml", "--data-dir", "blocked/state"]).fail(&["blocked/state"]);
}

#[test]
fn a_missing_job_file_names_its_path() {
    let place = Place::new();
    Launch::verb(place.root(), &["run", "nothing.yaml", "--data-dir", "state"]).fail(&["nothing.yaml"]);
    assert!(!place.path("state").exists(), "a data directory for a job that is not there");
}

#[test]
fn an_unknown_field_of_the_job_file_names_its_path() {
    refused(&sql(&format!("{SOURCE}{SINK}{COPY}")).spec("paralelism", "2"), &["spec.paralelism"]);
}

#[test]
fn r18_an_interval_below_ten_milliseconds_is_refused_and_ten_are_accepted() {
    let job = sql(&format!("{SOURCE}{SINK}{COPY}"));
    refused(&job.clone().checkpoint("interval: 5ms"), &["spec.checkpoint.interval", "10ms"]);
    let place = Place::new();
    place.job(&job.checkpoint("interval: 10ms")).succeed();
}

#[test]
fn a_row_that_cannot_be_parsed_fails_the_job_or_is_skipped_as_the_option_says() {
    let source = |more: &str| {
        format!(
            "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json'{more});\n"
        )
    };
    let job = |more: &str| sql(&format!("{}{SINK}{COPY}", source(more))).spec("restartStrategy", "{ none: {} }");
    let place = Place::new();
    fs::create_dir(place.path("in")).unwrap();
    fs::write(place.path("in/numbers.json"), "{\"n\": 1}\n{\"n\": tow}\n{\"n\": 3}\n").unwrap();
    place.job(&job("")).fail(&["numbers.json"]);
    place.job(&job(", 'json.ignore-parse-errors' = 'true'")).argument("--fresh").succeed();
    let rows = crate::harness::visible_rows(&place.path("out"));
    assert_eq!(rows, ["{\"n\":1}", "{\"n\":3}"]);
}
