//! Errors of key handling and of snapshot files.

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum StateError {
    #[error(
        "a column of type {0} cannot be a key; cast it to a boolean, integer, floating-point, decimal, string, binary, \
         date, time or timestamp type"
    )]
    KeyType(DataType),
    #[error("key columns do not fit: {0}")]
    KeyShape(String),
    #[error("a keyed table holds more than {0} keys in one subtask; raise the parallelism")]
    TooManyKeys(u32),
    #[error("encoding state table '{table}': {message}")]
    Encode { table: String, message: String },
    /// The bytes are not what was written: use an older checkpoint.
    #[error("the state file is damaged: {0}")]
    Damaged(String),
    #[error(
        "the state file has format version {found}, this program reads version {expected}; use the program that wrote it"
    )]
    Version { found: String, expected: &'static str },
    #[error("state files of one table do not fit together: {0}")]
    Mismatch(String),
    /// Of where a state file is written to.
    #[error("{0}")]
    Write(#[from] std::io::Error),
    #[error("handling state rows: {0}")]
    Arrow(#[from] ArrowError),
}
