//! Rows of state tables as a checkpoint holds them: bases with their deltas applied, as JSON lines.

use arrow::array::RecordBatch;
use bytes::Bytes;
use serde_json::json;
use std::collections::BTreeMap;
use streamjob_protocol::manifest::{
    CheckpointManifest, FileRef, KeyGroupRange, KeyedStateHandle, OperatorManifest, OperatorState,
};
use streamjob_runtime::storage::Storage;
use streamjob_state::snapshot;

/// Files that were read, whole ones and damaged ones. Checkpoints share files, so each is read once.
#[derive(Default)]
pub struct Files {
    by_path: BTreeMap<String, Result<Bytes, String>>,
}

impl Files {
    pub async fn load(&mut self, storage: &Storage, file: &FileRef) {
        if !self.by_path.contains_key(&file.path) {
            let read = storage.get_verified(file).await.map_err(|error| error.to_string());
            self.by_path.insert(file.path.clone(), read);
        }
    }

    /// What is wrong with a file.
    pub fn problem(&self, path: &str) -> Option<&str> {
        self.by_path.get(path).and_then(|read| read.as_ref().err()).map(String::as_str)
    }

    fn bytes(&self, path: &str) -> Result<Bytes, String> {
        self.by_path.get(path).cloned().unwrap_or_else(|| Err(format!("{path} was not read")))
    }
}

/// Handles of one subtask by table: several after a change of parallelism.
pub fn tables(state: &OperatorState) -> BTreeMap<&str, Vec<&KeyedStateHandle>> {
    let mut tables: BTreeMap<&str, Vec<&KeyedStateHandle>> = BTreeMap::new();
    for handle in &state.keyed {
        tables.entry(handle.name.as_str()).or_default().push(handle);
    }
    tables
}

/// The rows that the handles' files add up to.
///
/// # Errors
/// Why a file cannot be used.
pub fn rows(handles: &[&KeyedStateHandle], files: &Files) -> Result<Vec<RecordBatch>, String> {
    let mut chain = Vec::new();
    for handle in handles {
        for file in &handle.files {
            chain.push((files.bytes(&file.path)?, handle.key_groups));
        }
    }
    if chain.is_empty() {
        return Ok(Vec::new());
    }
    let base = snapshot::in_memory(|out| snapshot::compact_ranges(&chain, snapshot::Compression::None, out))
        .map_err(|error| error.to_string())?;
    let all = KeyGroupRange { first: 0, last: u16::MAX };
    let decoded = snapshot::decode(base, all).map_err(|error| error.to_string())?;
    Ok(decoded.into_iter().map(|rows| rows.rows).collect())
}

/// One JSON line a row of the state named `<uid>` or `<uid>/<table>`.
///
/// # Errors
/// No such operator or table, with those that there are; or damage.
pub fn lines(manifest: &CheckpointManifest, files: &Files, wanted: &str) -> Result<String, String> {
    let (operator, table) = find(manifest, wanted)?;
    let mut text = String::new();
    for (subtask, state) in &operator.subtasks {
        for (name, handles) in tables(&state.state) {
            if table.is_some_and(|table| table != name) {
                continue;
            }
            for batch in rows(&handles, files)? {
                for row in json_rows(&batch)? {
                    text.push_str(&format!("{{\"table\":{},\"subtask\":{subtask},\"row\":{row}}}\n", json!(name)));
                }
            }
        }
        for list in state.state.lists.iter().filter(|list| table.is_none_or(|table| table == list.name)) {
            for entry in &list.entries {
                text.push_str(&format!("{{\"list\":{},\"subtask\":{subtask},\"entry\":{entry}}}\n", json!(list.name)));
            }
        }
    }
    Ok(text)
}

/// Uids may contain slashes themselves.
fn find<'a>(
    manifest: &'a CheckpointManifest,
    wanted: &'a str,
) -> Result<(&'a OperatorManifest, Option<&'a str>), String> {
    if let Some(operator) = manifest.operators.iter().find(|operator| operator.uid == wanted) {
        return Ok((operator, None));
    }
    let with_table = wanted.rsplit_once('/').and_then(|(uid, table)| {
        let operator = manifest.operators.iter().find(|operator| operator.uid == uid)?;
        Some((operator, table))
    });
    let Some((operator, table)) = with_table else {
        let uids: Vec<&str> = manifest.operators.iter().map(|operator| operator.uid.as_str()).collect();
        return Err(format!("no operator has the uid {wanted}; there are: {}", uids.join(", ")));
    };
    let states = operator.subtasks.values().map(|subtask| &subtask.state);
    let names = |state: &'a OperatorState| {
        let lists = state.lists.iter().map(|list| list.name.as_str());
        state.keyed.iter().map(|handle| handle.name.as_str()).chain(lists)
    };
    if states.clone().flat_map(names).any(|name| name == table) {
        return Ok((operator, Some(table)));
    }
    let known: std::collections::BTreeSet<&str> =
        states.flat_map(|state| state.keyed.iter().map(|handle| handle.name.as_str())).collect();
    let known = if known.is_empty() { "none".into() } else { known.into_iter().collect::<Vec<_>>().join(", ") };
    Err(format!("operator {} has no table {table}; it has: {known}", operator.uid))
}

fn json_rows(batch: &RecordBatch) -> Result<Vec<String>, String> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(batch).and_then(|()| writer.finish()).map_err(|error| error.to_string())?;
    let text = String::from_utf8(writer.into_inner()).map_err(|error| error.to_string())?;
    Ok(text.lines().map(str::to_owned).collect())
}
