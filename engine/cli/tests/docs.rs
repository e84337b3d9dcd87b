//! Keeps the generated pages of `docs/` equal to what the code says. `UPDATE_DOCS=1` writes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write;
use std::path::Path;

fn up_to_date(page: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(found == text, "docs/{page} is stale: run `make docs` and commit it");
}

/// Text within a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn the_page_of_connectors_lists_every_option() {
    let mut text = String::from(
        "# Connectors\n\n<!-- Written by `make docs` from the connectors themselves; edit those, not this. -->\n\n\
         A table names its connector with the option `connector`. Options bear the names that Flink gives them; a `*` stands\n\
         for any name. An unknown option, or a value that cannot be, is an error before the job starts.\n",
    );
    for connector in streamjob_connectors::all().iter() {
        let options = connector.options();
        writeln!(text, "\n## {}\n", connector.name()).unwrap();
        if options.is_empty() {
            text.push_str("No options.\n");
            continue;
        }
        text.push_str("| option | default | meaning |\n|---|---|---|\n");
        for option in options {
            let default = match (option.required, option.default) {
                (true, _) => "required".to_owned(),
                (false, Some(default)) => format!("`{}`", cell(default)),
                (false, None) => String::new(),
            };
            writeln!(text, "| `{}` | {default} | {} |", cell(option.name), cell(option.description)).unwrap();
        }
    }
    up_to_date("connectors.md", &text);
}
