use super::harness::Memory;
#[test]
fn dump() {
    let sql = std::fs::read_to_string("/tmp/cases.json").unwrap();
    let cases: Vec<(String, String)> = serde_json::from_str(&sql).unwrap();
    const T: &str = "CREATE TABLE t (a BIGINT, s STRING, r ROW<b INT>, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) WITH ('connector' = 'memory');\nCREATE TABLE out (a BIGINT, s STRING) WITH ('connector' = 'memory', 'accepts-updates' = 'false');\n";
    for (prelude, sql) in cases {
        let text = format!("{}{sql}", if prelude == "T" { T } else { "" });
        match Memory::default().plan(&text) {
            Ok(_) => println!("OK??? {sql}"),
            Err(error) => println!("{sql:?}\n    {error}"),
        }
    }
}
