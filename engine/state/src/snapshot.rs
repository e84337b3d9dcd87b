//! Files of keyed state: Arrow IPC that any Arrow reader opens, sorted by key group, with an index and a checksum.
//!
//! A file holds the rows of one table (a base or a delta) with two more columns, `__key_group` (UInt16) and `__deleted`
//! (Boolean). Rows are in order of key group and, within one, in the order they are to be applied. The schema's metadata
//! has the keys `streamjob.*` below; the footer's metadata has a checksum of the whole file, which is verified before
//! anything else is looked at, so damaged bytes never reach a parser.

mod file;
mod order;

use crate::error::StateError;
use crate::key_index::KeyIndex;
use crate::{KeyedDelta, KeyedRows};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt16Array};
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use file::{Header, StateFile};
use order::GroupOrder;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use streamjob_protocol::manifest::KeyGroupRange;

pub const KEY_GROUP_COLUMN: &str = "__key_group";
pub const DELETED_COLUMN: &str = "__deleted";

/// Rows of one record batch in a file: readers skip batches without a row they need.
const ROWS_PER_BATCH: usize = 64 << 10;

/// How the rows of a file are packed: Arrow IPC's own compression of bodies, which readers undo by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    None,
    /// LZ4 frames: little time, some space.
    Lz4,
    /// Zstandard at its default level: more time, less space.
    Zstd,
}

/// xxh3-64 of the bytes, as manifests store it.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// One line that says which columns and types a table has, to be compared on restore: `user Utf8 KEY, visits Int64`.
pub fn schema_text(delta: &KeyedDelta) -> String {
    let columns: Vec<String> = delta
        .rows
        .schema()
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let key = if index < delta.key_columns { " KEY" } else { "" };
            format!("{} {}{key}", field.name(), field.data_type())
        })
        .collect();
    columns.join(", ")
}

/// Writes the rows of a delta. Fails if a row's key group lies outside `range`: it would be lost on restore.
pub fn encode(
    delta: &KeyedDelta,
    range: KeyGroupRange,
    compression: Compression,
    out: &mut dyn Write,
) -> Result<(), StateError> {
    let rows = delta.rows.num_rows();
    let problem = |message: String| StateError::Encode { table: delta.name.clone(), message };
    if delta.key_groups.len() != rows || delta.deleted.as_ref().is_some_and(|deleted| deleted.len() != rows) {
        return Err(problem(format!(
            "{rows} rows, but {} key groups or another number of marks",
            delta.key_groups.len()
        )));
    }
    let order = GroupOrder::new(&delta.key_groups, range)
        .map_err(|group| problem(format!("key group {group} is not in {}..={}", range.first, range.last)))?;
    let header = Header {
        table: delta.name.clone(),
        key_columns: delta.key_columns,
        full: delta.full,
        index: order.index().to_vec(),
    };
    let schema = file::schema(&delta.rows.schema(), &header)?;
    let columns = order.columns(delta.rows.columns())?;
    let (groups, deleted) = (order.groups(), order.marks(delta.deleted.as_ref()));
    file::write(schema, rows, compression, out, |chunk: Range<usize>| {
        let values = columns.iter().map(|column| column.chunk(chunk.clone())).collect::<Result<Vec<_>, _>>()?;
        let deleted = BooleanArray::from(deleted.slice(chunk.start, chunk.len()));
        Ok((values, groups.slice(chunk.start, chunk.len()), deleted))
    })
}

/// What is written by one of the functions of this module, as a file in memory.
pub fn in_memory(write: impl FnOnce(&mut dyn Write) -> Result<(), StateError>) -> Result<Bytes, StateError> {
    let mut bytes = Vec::new();
    write(&mut bytes)?;
    Ok(bytes.into())
}

/// The rows of a file whose key groups lie in `range`, without the extra columns, in the order to apply them.
pub fn decode(bytes: Bytes, range: KeyGroupRange) -> Result<Vec<KeyedRows>, StateError> {
    let mut file = StateFile::open(bytes)?;
    let mut found = Vec::new();
    for batch in file.read(range)? {
        let deleted = (batch.deleted.true_count() > 0).then_some(batch.deleted);
        found.push(KeyedRows { rows: batch.rows, deleted, whole: file.header().full });
    }
    Ok(found)
}

/// Merges a base and its deltas, in this order, into one base: the last row of every key stays, removed keys vanish.
pub fn compact(files: &[Bytes], compression: Compression, out: &mut dyn Write) -> Result<(), StateError> {
    let all = KeyGroupRange { first: 0, last: u16::MAX };
    let files: Vec<(Bytes, KeyGroupRange)> = files.iter().map(|file| (file.clone(), all)).collect();
    compact_ranges(&files, compression, out)
}

/// Like [`compact`], taking from each file only the key groups it is named for. Chains that come from several subtasks of
/// an earlier parallelism need this: a file may hold groups whose newer rows stand in another subtask's chain.
pub fn compact_ranges(
    files: &[(Bytes, KeyGroupRange)],
    compression: Compression,
    out: &mut dyn Write,
) -> Result<(), StateError> {
    merge(files)?.finish(true, compression, out)
}

/// Merges deltas that follow each other into one delta: the last row of every key stays, also where the key was removed.
/// Costs as much as they hold, however large the table is.
pub fn merge_changes(deltas: &[Bytes], compression: Compression, out: &mut dyn Write) -> Result<(), StateError> {
    let all = KeyGroupRange { first: 0, last: u16::MAX };
    let deltas: Vec<(Bytes, KeyGroupRange)> = deltas.iter().map(|file| (file.clone(), all)).collect();
    merge(&deltas)?.finish(false, compression, out)
}

fn merge(files: &[(Bytes, KeyGroupRange)]) -> Result<Merge, StateError> {
    let mut merged: Option<Merge> = None;
    for (bytes, range) in files {
        let mut file = StateFile::open(bytes.clone())?;
        let merge = match &mut merged {
            Some(merge) => merge,
            None => merged.insert(Merge::new(file.table_schema(), file.header())?),
        };
        merge.check(&file.table_schema(), file.header())?;
        for batch in file.read(*range)? {
            merge.add(batch)?;
        }
    }
    merged.ok_or_else(|| StateError::Mismatch("there is no file to compact".into()))
}

/// Where the newest row of every key is.
struct Merge {
    schema: SchemaRef,
    table: String,
    key_columns: usize,
    index: KeyIndex,
    batches: Vec<file::FileRows>,
    /// By slot: batch and row.
    newest: Vec<(u32, u32)>,
}

impl Merge {
    fn new(schema: SchemaRef, header: &Header) -> Result<Merge, StateError> {
        let types: Vec<DataType> =
            schema.fields().iter().take(header.key_columns).map(|field| field.data_type().clone()).collect();
        Ok(Merge {
            schema,
            table: header.table.clone(),
            key_columns: header.key_columns,
            index: KeyIndex::new(&types)?,
            batches: Vec::new(),
            newest: Vec::new(),
        })
    }

    fn check(&self, schema: &SchemaRef, header: &Header) -> Result<(), StateError> {
        if header.table != self.table || header.key_columns != self.key_columns || schema != &self.schema {
            return Err(StateError::Mismatch(format!(
                "table '{}' with {} columns beside table '{}' with {}",
                header.table,
                schema.fields().len(),
                self.table,
                self.schema.fields().len()
            )));
        }
        Ok(())
    }

    fn add(&mut self, batch: file::FileRows) -> Result<(), StateError> {
        let keys: Vec<ArrayRef> = batch.rows.columns()[..self.key_columns].to_vec();
        let mut slots = Vec::new();
        self.index.intern_batch(&keys, batch.rows.num_rows(), &mut slots, |_, _| {})?;
        self.newest.resize(self.index.slot_count(), (0, 0));
        let number = self.batches.len() as u32;
        for (row, &slot) in slots.iter().enumerate() {
            self.newest[slot as usize] = (number, row as u32);
        }
        self.batches.push(batch);
        Ok(())
    }

    /// A whole table, without rows of removed keys, or a delta.
    fn finish(self, full: bool, compression: Compression, out: &mut dyn Write) -> Result<(), StateError> {
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(self.newest.len());
        let mut groups: Vec<u16> = Vec::with_capacity(self.newest.len());
        for &(batch, row) in &self.newest {
            let (batch, row) = (batch as usize, row as usize);
            if !full || !self.batches[batch].deleted.value(row) {
                places.push((batch, row));
                groups.push(self.batches[batch].groups.value(row));
            }
        }
        let range = KeyGroupRange { first: 0, last: groups.iter().copied().max().unwrap_or(0) };
        let outside = |group| StateError::Encode { table: self.table.clone(), message: format!("key group {group}") };
        let order = GroupOrder::new(&groups, range).map_err(outside)?;
        let header =
            Header { table: self.table.clone(), key_columns: self.key_columns, full, index: order.index().to_vec() };
        let rows = order.rows();
        let batches: Vec<&RecordBatch> = self.batches.iter().map(|batch| &batch.rows).collect();
        let schema = file::schema(&self.schema, &header)?;
        file::write(schema, rows.len(), compression, out, |chunk: Range<usize>| {
            let chosen = &rows[chunk];
            let indices: Vec<(usize, usize)> = chosen.iter().map(|&row| places[row as usize]).collect();
            let values = if self.schema.fields().is_empty() || indices.is_empty() {
                RecordBatch::new_empty(self.schema.clone())
            } else {
                interleave_record_batch(&batches, &indices)?
            };
            let groups = UInt16Array::from_iter_values(chosen.iter().map(|&row| groups[row as usize]));
            let deleted = indices.iter().map(|&(batch, row)| Some(self.batches[batch].deleted.value(row))).collect();
            Ok((values.columns().to_vec(), groups, deleted))
        })
    }
}

/// All rows of a table as one batch after applying files in order, for tools that show state.
pub fn read_table(files: &[Bytes]) -> Result<RecordBatch, StateError> {
    let base = in_memory(|out| compact(files, Compression::None, out))?;
    let rows = decode(base.clone(), KeyGroupRange { first: 0, last: u16::MAX })?;
    let schema = match rows.first() {
        Some(first) => first.rows.schema(),
        None => StateFile::open(base)?.table_schema(),
    };
    Ok(concat_batches(&schema, rows.iter().map(|part| &part.rows))?)
}

fn plain_schema(fields: &[Arc<Field>]) -> SchemaRef {
    Arc::new(Schema::new(fields.to_vec()))
}

#[cfg(test)]
mod tests;
