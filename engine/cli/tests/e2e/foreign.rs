//! A savepoint read by a tool that knows nothing of the engine: the manifest as JSON, its state files with pyarrow.

use crate::api::Running;
use crate::harness::{Job, Place, files_below, tree};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

const ROWS: i64 = 50_000;
const PAGES: i64 = 1_000;

/// Counts pages of a known input; ticks that never end keep the job running when all of it was read.
fn job(compression: &str) -> Job {
    let sql = format!(
        "CREATE TABLE numbers (n BIGINT, page AS CONCAT('page-', CAST(MOD(n, {PAGES}) AS STRING))) WITH (\n\
         'connector' = 'datagen', 'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '{ROWS}');\n\
         CREATE TABLE ticks (t BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '10');\n\
         CREATE TABLE pages (page STRING, visits BIGINT, total BIGINT) WITH ('connector' = 'blackhole');\n\
         CREATE TABLE passed (t BIGINT) WITH ('connector' = 'blackhole');\n\
         EXECUTE STATEMENT SET BEGIN\n\
         INSERT INTO pages SELECT page, COUNT(*) AS visits, SUM(n) AS total FROM numbers GROUP BY page;\n\
         INSERT INTO passed SELECT t FROM ticks;\n\
         END;"
    );
    Job::sql("foreign", &sql)
        .parallelism(2)
        .spec("workers", "{ slots: 4 }")
        .checkpoint(&format!("interval: 1h, compression: {compression}"))
}

/// Prints what the state of the pages adds up to. A row belongs to the state unless it is marked as deleted.
const READER: &str = r#"
import json, os, sys
import pyarrow as arrow, pyarrow.compute as compute, pyarrow.ipc

savepoint = sys.argv[1]
with open(os.path.join(savepoint, "_metadata")) as file:
    file.readline()
    manifest = json.load(file)
tables, schemas = [], set()
for operator in manifest["operators"]:
    for subtask in operator["subtasks"].values():
        for state in subtask["state"]["keyed"]:
            schemas.add(state["schema"])
            for part in state["files"]:
                with arrow.memory_map(os.path.join(savepoint, part["path"])) as file:
                    table = arrow.ipc.open_file(file).read_all()
                groups = table["__key_group"].to_pylist()
                span = state["key_groups"]
                assert groups == sorted(groups), "not in order of key groups"
                assert span["first"] <= groups[0] and groups[-1] <= span["last"], "key groups of another subtask"
                tables.append(table.filter(compute.invert(table["__deleted"])))
table = arrow.concat_tables(tables)
[schema] = schemas
[key] = [column.split(" ")[0] for column in schema.split(", ") if column.endswith(" KEY")]
print(json.dumps({
    "files": len(tables),
    "key": [key, table.schema.names[0]],
    "columns": table.schema.names[1:],
    "types": [str(field.type) for field in table.schema],
    "rows": len(table),
    "keys": compute.count_distinct(table[key]).as_py(),
    "visits": compute.sum(table["count"]).as_py(),
    "total": compute.sum(table["sum_n"]).as_py(),
    "pages": {row[key]: [row["count"], row["sum_n"]] for row in table.to_pylist()},
}))
"#;

/// A Python that has pyarrow.
fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let output = Command::new(tree().join("e2e/parts/pyarrow.sh")).output().expect("pyarrow.sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

fn read(savepoint: &str) -> Value {
    let output = Command::new(python()).args(["-c", READER, savepoint]).output().expect("python");
    assert!(output.status.success(), "{savepoint}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn expected() -> BTreeMap<String, (i64, i64)> {
    let mut pages: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for n in 1..=ROWS {
        let (visits, total) = pages.entry(format!("page-{}", n % PAGES)).or_default();
        *visits += 1;
        *total += n;
    }
    pages
}

/// Directory of a savepoint that was taken when the job had read all of its input.
fn savepoint(place: &Place, compression: &str) -> String {
    let engine = place.job(&job(compression)).start();
    let running = Running::of(&engine);
    engine.eventually("all input to be read", || {
        let details = running.get("");
        let numbers = details["vertices"]
            .as_array()?
            .iter()
            .find(|vertex| vertex["name"].as_str().is_some_and(|name| name.starts_with("Source: numbers")))?;
        (numbers["metrics"]["read-records"].as_i64() == Some(ROWS)).then_some(())
    });
    let directory = place.path("savepoints").display().to_string();
    running.savepoint(&engine, &json!({ "target-directory": directory }))
}

#[test]
fn another_tool_reads_the_state_of_a_savepoint_whatever_its_compression() {
    let mut bytes = Vec::new();
    for compression in ["None", "Lz4", "Zstd"] {
        let place = Place::new();
        let savepoint = savepoint(&place, compression);
        let state = read(&savepoint);
        assert_eq!(state["files"], 2, "{compression}: one of each subtask");
        assert_eq!(state["key"][0], state["key"][1], "{compression}: the manifest says which column is the key");
        assert_eq!(state["columns"], json!(["count", "sum_n", "__key_group", "__deleted"]), "{compression}");
        assert_eq!(state["types"], json!(["string", "int64", "int64", "uint16", "bool"]), "{compression}");
        assert_eq!(state["keys"], PAGES, "{compression}");
        assert_eq!(state["rows"], PAGES, "{compression}: no key stands twice");
        assert_eq!(state["visits"], ROWS, "{compression}");
        assert_eq!(state["total"], ROWS * (ROWS + 1) / 2, "{compression}");
        let pages: BTreeMap<String, (i64, i64)> = serde_json::from_value(state["pages"].clone()).expect("pages");
        assert!(pages == expected(), "{compression}: counts and sums of single pages differ");
        let files = files_below(Path::new(&savepoint)).into_iter();
        let states = files.filter(|file| file.extension().is_some_and(|extension| extension == "arrow"));
        bytes.push(states.map(|file| fs::metadata(file).expect("a state file").len()).sum::<u64>());
    }
    assert!(bytes[1] < bytes[0] && bytes[2] < bytes[0], "not packed: {bytes:?}");
}
