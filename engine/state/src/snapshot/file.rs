//! Layout of one state file: schema metadata, row chunks, checksum in the footer.

use super::{Compression, DELETED_COLUMN, KEY_GROUP_COLUMN, ROWS_PER_BATCH, plain_schema};
use crate::error::StateError;
use crate::keys::KEY_HASH_NAME;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt16Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt16Type};
use arrow_ipc::CompressionType;
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use bytes::Bytes;
use std::collections::HashMap;
use std::io::{Cursor, Write};
use std::ops::Range;
use std::sync::Arc;
use streamjob_protocol::manifest::KeyGroupRange;
use xxhash_rust::xxh3::Xxh3Default;

const FORMAT_VERSION: &str = "1";
const FORMAT_KEY: &str = "streamjob.state_format";
const TABLE_KEY: &str = "streamjob.table";
const KEY_COLUMNS_KEY: &str = "streamjob.key_columns";
const FULL_KEY: &str = "streamjob.full";
const HASH_KEY: &str = "streamjob.key_hash";
/// JSON: `[[key group, first row], ...]` of the groups that have rows, ascending.
const INDEX_KEY: &str = "streamjob.key_group_index";
const ROWS_KEY: &str = "streamjob.rows";
const CHUNK_KEY: &str = "streamjob.rows_per_batch";

const CHECKSUM_KEY: &str = "streamjob.checksum";
/// Followed by 16 hexadecimal digits: xxh3-64 of the file without these digits.
const CHECKSUM_MARK: &[u8] = b"xxh3-64:";
const DIGITS: usize = 16;
const TRAILER: &[u8] = b"ARROW1";

/// What a file says about its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub table: String,
    pub key_columns: usize,
    pub full: bool,
    pub index: Vec<(u16, u64)>,
}

/// Rows of one record batch with the extra columns taken apart.
pub(crate) struct FileRows {
    pub rows: RecordBatch,
    pub groups: UInt16Array,
    pub deleted: BooleanArray,
}

/// The file's schema: the table's columns, the extra ones, and the header as metadata.
pub(crate) fn schema(table: &Schema, header: &Header) -> Result<SchemaRef, StateError> {
    let problem = |message: String| StateError::Encode { table: header.table.clone(), message };
    let mut fields: Vec<Arc<Field>> = table.fields().iter().cloned().collect();
    if fields.iter().any(|field| field.name() == KEY_GROUP_COLUMN || field.name() == DELETED_COLUMN) {
        return Err(problem(format!("{KEY_GROUP_COLUMN} and {DELETED_COLUMN} cannot be column names")));
    }
    if header.key_columns > fields.len() {
        return Err(problem(format!("{} key columns of {}", header.key_columns, fields.len())));
    }
    fields.push(Arc::new(Field::new(KEY_GROUP_COLUMN, DataType::UInt16, false)));
    fields.push(Arc::new(Field::new(DELETED_COLUMN, DataType::Boolean, false)));
    let index = serde_json::to_string(&header.index).map_err(|error| problem(error.to_string()))?;
    let metadata = HashMap::from([
        (FORMAT_KEY.to_string(), FORMAT_VERSION.to_string()),
        (TABLE_KEY.to_string(), header.table.clone()),
        (KEY_COLUMNS_KEY.to_string(), header.key_columns.to_string()),
        (FULL_KEY.to_string(), header.full.to_string()),
        (HASH_KEY.to_string(), KEY_HASH_NAME.to_string()),
        (INDEX_KEY.to_string(), index),
        (CHUNK_KEY.to_string(), ROWS_PER_BATCH.to_string()),
    ]);
    Ok(Arc::new(Schema::new_with_metadata(fields, metadata)))
}

/// Writes `rows` rows that `chunk` gives out piece by piece, each with key groups and marks of removal. No more than one
/// record batch is in memory.
pub(crate) fn write(
    schema: SchemaRef,
    rows: usize,
    compression: Compression,
    out: &mut dyn Write,
    chunk: impl Fn(Range<usize>) -> Result<(Vec<ArrayRef>, UInt16Array, BooleanArray), StateError>,
) -> Result<(), StateError> {
    let mut metadata = schema.metadata().clone();
    metadata.insert(ROWS_KEY.to_string(), rows.to_string());
    let schema = Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata));
    let mut hasher = Xxh3Default::new();
    // Holds what `out` has not got yet.
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &schema, write_options(compression)?)?;
    let mut start = 0;
    while start < rows {
        let end = rows.min(start + ROWS_PER_BATCH);
        let (mut columns, groups, deleted) = chunk(start..end)?;
        columns.push(Arc::new(groups));
        columns.push(Arc::new(deleted));
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        writer.write(&batch)?;
        hasher.update(writer.get_ref());
        out.write_all(writer.get_ref())?;
        writer.get_mut().clear();
        start = end;
    }
    let placeholder = format!("{}{}", String::from_utf8_lossy(CHECKSUM_MARK), "0".repeat(DIGITS));
    writer.write_metadata(CHECKSUM_KEY, placeholder);
    writer.finish()?;
    let mut rest = writer.into_inner()?;
    // They stand in the footer.
    let digits = find_checksum(&rest).ok_or_else(|| StateError::Damaged("the writer left no checksum".into()))?;
    hasher.update(&rest[..digits.start]);
    hasher.update(&rest[digits.end..]);
    let sum = hasher.digest();
    rest[digits].copy_from_slice(format!("{sum:016x}").as_bytes());
    Ok(out.write_all(&rest)?)
}

fn write_options(compression: Compression) -> Result<IpcWriteOptions, StateError> {
    let codec = match compression {
        Compression::None => None,
        Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
        Compression::Zstd => Some(CompressionType::ZSTD),
    };
    Ok(IpcWriteOptions::default().try_with_compression(codec)?)
}

/// Where the digits of the checksum stand: in the footer, found without parsing it.
fn find_checksum(bytes: &[u8]) -> Option<Range<usize>> {
    let body = bytes.strip_suffix(TRAILER)?;
    let (rest, length) = body.split_last_chunk::<4>()?;
    let length = usize::try_from(i32::from_le_bytes(*length)).ok()?;
    let footer_start = rest.len().checked_sub(length)?;
    let footer = &rest[footer_start..];
    let mark = footer.windows(CHECKSUM_MARK.len()).rposition(|window| window == CHECKSUM_MARK)?;
    let start = footer_start + mark + CHECKSUM_MARK.len();
    (start + DIGITS <= rest.len()).then_some(start..start + DIGITS)
}

fn checksum_around(bytes: &[u8], digits: &Range<usize>) -> u64 {
    let mut hasher = Xxh3Default::new();
    hasher.update(&bytes[..digits.start]);
    hasher.update(&bytes[digits.end..]);
    hasher.digest()
}

/// A verified file.
pub(crate) struct StateFile {
    reader: FileReader<Cursor<Bytes>>,
    schema: SchemaRef,
    header: Header,
    rows: u64,
    rows_per_batch: u64,
}

fn damaged(message: impl Into<String>) -> StateError {
    StateError::Damaged(message.into())
}

impl StateFile {
    pub fn open(bytes: Bytes) -> Result<StateFile, StateError> {
        let digits = find_checksum(&bytes).ok_or_else(|| {
            damaged(format!("{} bytes without the end of a state file; it is cut off or foreign", bytes.len()))
        })?;
        let stored =
            std::str::from_utf8(&bytes[digits.clone()]).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
        let computed = checksum_around(&bytes, &digits);
        if stored != Some(computed) {
            return Err(damaged(format!("its {} bytes do not have the checksum that they name", bytes.len())));
        }
        let reader = FileReader::try_new(Cursor::new(bytes), None).map_err(|error| damaged(error.to_string()))?;
        let schema = reader.schema();
        let text = |key: &str| {
            schema.metadata().get(key).map(String::as_str).ok_or_else(|| damaged(format!("it does not say {key}")))
        };
        let number = |key: &str| text(key)?.parse::<u64>().map_err(|_| damaged(format!("{key} is not a number")));
        let version = text(FORMAT_KEY)?;
        if version != FORMAT_VERSION {
            return Err(StateError::Version { found: version.into(), expected: FORMAT_VERSION });
        }
        if text(HASH_KEY)? != KEY_HASH_NAME {
            return Err(StateError::Version { found: text(HASH_KEY)?.into(), expected: KEY_HASH_NAME });
        }
        let header = Header {
            table: text(TABLE_KEY)?.to_string(),
            key_columns: number(KEY_COLUMNS_KEY)? as usize,
            full: text(FULL_KEY)? == "true",
            index: serde_json::from_str(text(INDEX_KEY)?).map_err(|error| damaged(error.to_string()))?,
        };
        let (rows, rows_per_batch) = (number(ROWS_KEY)?, number(CHUNK_KEY)?);
        let fields = schema.fields();
        let extra: Vec<&str> = fields.iter().rev().take(2).map(|field| field.name().as_str()).collect();
        if extra != [DELETED_COLUMN, KEY_GROUP_COLUMN] || header.key_columns + 2 > fields.len() || rows_per_batch == 0 {
            return Err(damaged("its columns are not those of a state file"));
        }
        Ok(StateFile { reader, schema, header, rows, rows_per_batch })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Columns of the table itself.
    pub fn table_schema(&self) -> SchemaRef {
        let fields = self.schema.fields();
        plain_schema(&fields[..fields.len() - 2])
    }

    /// The rows of a range of key groups; other batches are not read.
    pub fn read(&mut self, range: KeyGroupRange) -> Result<Vec<FileRows>, StateError> {
        let first = self.position(range.first as u32);
        let end = self.position(range.last as u32 + 1);
        let schema = self.table_schema();
        let mut found = Vec::new();
        let mut start = first;
        while start < end {
            let number = start / self.rows_per_batch;
            let offset = (start % self.rows_per_batch) as usize;
            self.reader.set_index(number as usize).map_err(|error| damaged(error.to_string()))?;
            let batch = match self.reader.next() {
                Some(batch) => batch.map_err(|error| damaged(error.to_string()))?,
                None => return Err(damaged("a batch of rows is missing")),
            };
            let length = ((end - start) as usize).min(batch.num_rows().saturating_sub(offset));
            if length == 0 {
                return Err(damaged("a batch has fewer rows than the index says"));
            }
            found.push(take_apart(&schema, &batch.slice(offset, length))?);
            start += length as u64;
        }
        Ok(found)
    }

    /// First row of a key group, or of the next group that has rows.
    fn position(&self, group: u32) -> u64 {
        let at = self.header.index.partition_point(|(of, _)| (*of as u32) < group);
        self.header.index.get(at).map_or(self.rows, |(_, row)| *row)
    }
}

fn take_apart(schema: &SchemaRef, batch: &RecordBatch) -> Result<FileRows, StateError> {
    let width = schema.fields().len();
    let columns = batch.columns();
    let groups =
        columns[width].as_primitive_opt::<UInt16Type>().ok_or_else(|| damaged("key groups have another type"))?;
    let deleted = columns[width + 1].as_boolean_opt().ok_or_else(|| damaged("marks of removal have another type"))?;
    if groups.null_count() > 0 || deleted.null_count() > 0 {
        return Err(damaged("key groups or marks of removal are missing"));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(schema.clone(), columns[..width].to_vec(), &options)?;
    Ok(FileRows { rows, groups: groups.clone(), deleted: deleted.clone() })
}
