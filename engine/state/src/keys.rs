//! Which key group a key belongs to. Frozen: checkpoints depend on it.
//!
//! The canonical encoding of a key row is the concatenation of its columns. A column is one tag byte, 0 for NULL and 1
//! otherwise, followed by the value unless it is NULL:
//!
//! | type | value |
//! |---|---|
//! | Boolean | 1 byte, 0 or 1 |
//! | integers, Date32, Time32, Time64, Timestamp (in its unit), Decimal128 (unscaled) | little-endian, in the type's width |
//! | Float32, Float64 | little-endian bits; -0.0 as 0.0, every NaN as the positive quiet NaN |
//! | Utf8, Binary | length as 4 bytes little-endian, then the bytes |
//!
//! The hash is xxh3-64 (seed 0) of that encoding. The key group is `(upper 32 bits of the hash * max parallelism) >> 32`:
//! a multiplication instead of a division, and the lower bits stay independent of the group, for hash tables.

use crate::encoding::{EncodedRows, Layout, byte_values, fixed_values, layout};
use crate::error::StateError;
use arrow::array::ArrayRef;
use xxhash_rust::xxh3::xxh3_64;

/// Name of encoding, hash and key group rule together, as stored in manifests and state files.
pub const KEY_HASH_NAME: &str = "xxh3-1";

/// Hash of a key without columns: the one group of a global aggregation.
pub const EMPTY_KEY_HASH: u64 = 0x2d06_8005_38d3_94c2;

/// Hash of a non-null value of eight bytes.
#[inline(always)]
pub(crate) fn hash_8(value: u64) -> u64 {
    let mut bytes = [1u8; 9];
    bytes[1..].copy_from_slice(&value.to_le_bytes());
    xxh3_64(&bytes)
}

#[inline(always)]
fn hash_4(value: u32) -> u64 {
    let mut bytes = [1u8; 5];
    bytes[1..].copy_from_slice(&value.to_le_bytes());
    xxh3_64(&bytes)
}

/// Hash of a NULL in a single key column.
pub(crate) fn hash_null() -> u64 {
    xxh3_64(&[0])
}

/// Replaces `hashes` by the hash of every row's key.
///
/// Fails if there is no column, the columns differ in length or one has a type that cannot be a key.
pub fn hash_rows(columns: &[ArrayRef], hashes: &mut Vec<u64>) -> Result<(), StateError> {
    let Some(first) = columns.first() else {
        return Err(StateError::KeyShape("hashing needs at least one key column".into()));
    };
    let rows = first.len();
    hashes.clear();
    hashes.reserve(rows);
    if columns.len() == 1 {
        match (layout(first.data_type())?, first.nulls()) {
            (Layout::Fixed(8), None) => {
                for value in fixed_values::<u64>(first).iter() {
                    hashes.push(hash_8(*value));
                }
                return Ok(());
            }
            (Layout::Fixed(8), Some(nulls)) => {
                let null = hash_null();
                for (row, value) in fixed_values::<u64>(first).iter().enumerate() {
                    hashes.push(if nulls.is_valid(row) { hash_8(*value) } else { null });
                }
                return Ok(());
            }
            (Layout::Fixed(4), None) => {
                for value in fixed_values::<u32>(first).iter() {
                    hashes.push(hash_4(*value));
                }
                return Ok(());
            }
            (Layout::Bytes, None) => {
                let (offsets, data) = byte_values(first);
                let mut encoded = Vec::with_capacity(64);
                for row in 0..rows {
                    let value = &data[offsets[row] as usize..offsets[row + 1] as usize];
                    encoded.clear();
                    encoded.push(1);
                    encoded.extend_from_slice(&(value.len() as u32).to_le_bytes());
                    encoded.extend_from_slice(value);
                    hashes.push(xxh3_64(&encoded));
                }
                return Ok(());
            }
            _ => {}
        }
    }
    let mut encoded = EncodedRows::default();
    encoded.encode(columns, rows)?;
    for row in 0..rows {
        hashes.push(xxh3_64(encoded.row(row)));
    }
    Ok(())
}

/// The key group of a hash, in `0..max_parallelism`.
#[inline(always)]
pub fn key_group(hash: u64, max_parallelism: u32) -> u16 {
    (((hash >> 32) * max_parallelism as u64) >> 32) as u16
}

/// Replaces `out` by the key group of every row. Fails like [`hash_rows`].
pub fn key_groups(columns: &[ArrayRef], max_parallelism: u32, out: &mut Vec<u16>) -> Result<(), StateError> {
    let mut hashes = Vec::new();
    hash_rows(columns, &mut hashes)?;
    out.clear();
    out.reserve(hashes.len());
    for hash in hashes {
        out.push(key_group(hash, max_parallelism));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
