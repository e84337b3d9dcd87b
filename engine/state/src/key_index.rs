//! Dense slots for keys: operators keep their values in vectors indexed by slot.
//!
//! Works on whole batches, allocates nothing per row. A single integer-like key column has a table of its own; everything
//! else goes through the canonical encoding of [`crate::keys`].

use crate::encoding::{EncodedRows, Layout, decode_rows, fixed_column, fixed_values, layout};
use crate::error::StateError;
use crate::integer_table::{EMPTY, IntegerTable};
use crate::keys::{hash_8, hash_null, key_group};
use arrow::array::{Array, ArrayRef};
use arrow::buffer::{MutableBuffer, NullBuffer};
use arrow::datatypes::DataType;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// Owner of keys in an index without owners.
const NOBODY: u32 = 0;

/// Maps keys to slots `0..slot_count()`. Slots of removed keys are used again.
#[derive(Debug)]
pub struct KeyIndex {
    types: Vec<DataType>,
    store: Store,
    /// By slot: hash of the key alone.
    hashes: Vec<u64>,
    /// By slot; empty unless keys have owners.
    owners: Vec<u32>,
    owned: bool,
    live: Vec<bool>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
enum Store {
    Integer(IntegerKeys),
    Bytes(ByteKeys),
}

/// One column of at most eight bytes a value.
#[derive(Debug)]
struct IntegerKeys {
    table: IntegerTable,
    /// By slot; values of narrower types are zero-extended.
    keys: Vec<u64>,
    width: usize,
    /// Slots of NULL, by owner.
    nulls: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct ByteKeys {
    table: HashTable<ByteEntry>,
    arena: Vec<u8>,
    /// By slot: start and length in the arena.
    spans: Vec<(usize, u32)>,
    /// Bytes of removed keys in the arena.
    garbage: usize,
    scratch: EncodedRows,
}

/// Enough to tell keys apart without looking at their bytes, short of two keys with one 64-bit hash.
#[derive(Debug, Clone, Copy)]
struct ByteEntry {
    hash: u64,
    owner: u32,
    slot: u32,
}

impl ByteKeys {
    #[inline(always)]
    fn bytes(&self, slot: u32) -> &[u8] {
        let (start, length) = self.spans[slot as usize];
        &self.arena[start..start + length as usize]
    }

    fn set(&mut self, slot: u32, row: usize) {
        let bytes = self.scratch.row(row);
        let span = (self.arena.len(), bytes.len() as u32);
        self.arena.extend_from_slice(bytes);
        match self.spans.get_mut(slot as usize) {
            Some(old) => *old = span,
            None => self.spans.push(span),
        }
    }
}

/// Placement in the byte table: the lower half of the hash, which says nothing about the key group, picks the tag.
#[inline(always)]
fn placement(hash: u64, owner: u32) -> u64 {
    hash.rotate_left(32) ^ (owner as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl KeyIndex {
    /// An empty index of keys with these column types; no types make an index of one key at most.
    /// Fails if a type cannot be a key.
    pub fn new(types: &[DataType]) -> Result<KeyIndex, StateError> {
        Self::build(types, false)
    }

    /// An index of (owner, key) pairs, for collections per slot of another index: see [`KeyIndex::intern_owned`].
    pub fn owned(types: &[DataType]) -> Result<KeyIndex, StateError> {
        Self::build(types, true)
    }

    fn build(types: &[DataType], owned: bool) -> Result<KeyIndex, StateError> {
        let mut layouts = Vec::with_capacity(types.len());
        for data_type in types {
            layouts.push(layout(data_type)?);
        }
        let store = match layouts.as_slice() {
            [Layout::Fixed(width)] if *width <= 8 => Store::Integer(IntegerKeys {
                table: IntegerTable::new(),
                keys: Vec::new(),
                width: *width,
                nulls: Vec::new(),
            }),
            _ => Store::Bytes(ByteKeys {
                table: HashTable::new(),
                arena: Vec::new(),
                spans: Vec::new(),
                garbage: 0,
                scratch: EncodedRows::default(),
            }),
        };
        Ok(KeyIndex {
            types: types.to_vec(),
            store,
            hashes: Vec::new(),
            owners: Vec::new(),
            owned,
            live: Vec::new(),
            free: Vec::new(),
            len: 0,
        })
    }

    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Keys in the index.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One more than the highest slot given out: vectors indexed by slot need this length.
    pub fn slot_count(&self) -> usize {
        self.live.len()
    }

    pub fn is_live(&self, slot: u32) -> bool {
        self.live.get(slot as usize).copied().unwrap_or(false)
    }

    /// Slots that have a key, ascending.
    pub fn live_slots(&self) -> Vec<u32> {
        let slots = 0..self.live.len() as u32;
        if self.free.is_empty() { slots.collect() } else { slots.filter(|&slot| self.is_live(slot)).collect() }
    }

    /// Hash of the key in a live slot, as [`crate::keys::hash_rows`] gives it.
    pub fn hash(&self, slot: u32) -> u64 {
        self.hashes[slot as usize]
    }

    pub fn key_group(&self, slot: u32, max_parallelism: u32) -> u16 {
        key_group(self.hash(slot), max_parallelism)
    }

    /// Owner of the key in a live slot; 0 in an index without owners.
    pub fn owner(&self, slot: u32) -> u32 {
        self.owners.get(slot as usize).copied().unwrap_or(NOBODY)
    }

    /// Makes room for that many more keys, so that the index does not grow step by step.
    pub fn reserve(&mut self, keys: usize) {
        self.hashes.reserve(keys);
        self.live.reserve(keys);
        if self.owned {
            self.owners.reserve(keys);
        }
        match &mut self.store {
            Store::Integer(store) => {
                store.table.reserve(keys);
                store.keys.reserve(keys);
            }
            Store::Bytes(store) => {
                store.table.reserve(keys, |entry| placement(entry.hash, entry.owner));
                store.spans.reserve(keys);
            }
        }
    }

    /// Replaces `slots` by the slot of every row's key, adding keys that are missing. `new(slot, row)` is called for each
    /// added key with its first row. `hashes` are those of [`crate::keys::hash_rows`], one a row.
    pub fn intern(
        &mut self,
        columns: &[ArrayRef],
        hashes: &[u64],
        slots: &mut Vec<u32>,
        new: impl FnMut(u32, usize),
    ) -> Result<(), StateError> {
        self.probe(columns, None, hashes.len(), Some(hashes), slots, new)
    }

    /// Like [`KeyIndex::intern`], but computes what hashes it needs: with integer keys only those of new keys.
    /// `rows` is the number of rows, which says how many there are when a key has no columns.
    pub fn intern_batch(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        slots: &mut Vec<u32>,
        new: impl FnMut(u32, usize),
    ) -> Result<(), StateError> {
        self.probe(columns, None, rows, None, slots, new)
    }

    /// Like [`KeyIndex::intern_batch`] with an owner for every row: equal keys of different owners are different.
    pub fn intern_owned(
        &mut self,
        owners: &[u32],
        columns: &[ArrayRef],
        slots: &mut Vec<u32>,
        new: impl FnMut(u32, usize),
    ) -> Result<(), StateError> {
        if !self.owned {
            return Err(StateError::KeyShape("the index was made for keys without owners".into()));
        }
        self.probe(columns, Some(owners), owners.len(), None, slots, new)
    }

    fn probe(
        &mut self,
        columns: &[ArrayRef],
        owners: Option<&[u32]>,
        rows: usize,
        hashes: Option<&[u64]>,
        slots: &mut Vec<u32>,
        new: impl FnMut(u32, usize),
    ) -> Result<(), StateError> {
        if columns.len() != self.types.len() {
            return Err(StateError::KeyShape(format!("{} columns, keys have {}", columns.len(), self.types.len())));
        }
        for (column, expected) in columns.iter().zip(&self.types) {
            if column.data_type() != expected || column.len() != rows {
                return Err(StateError::KeyShape(format!(
                    "column of {} with {} rows, expected {expected} with {rows}",
                    column.data_type(),
                    column.len()
                )));
            }
        }
        if self.slot_count() + rows > EMPTY as usize {
            return Err(StateError::TooManyKeys(EMPTY));
        }
        slots.clear();
        slots.reserve(rows);
        match &self.store {
            Store::Integer(_) => self.probe_integers(&columns[0], owners, hashes, slots, new),
            Store::Bytes(_) => self.probe_bytes(columns, owners, rows, hashes, slots, new)?,
        }
        Ok(())
    }

    fn probe_integers(
        &mut self,
        column: &ArrayRef,
        owners: Option<&[u32]>,
        hashes: Option<&[u64]>,
        slots: &mut Vec<u32>,
        mut new: impl FnMut(u32, usize),
    ) {
        let widened: Vec<u64>;
        let eight;
        let values: &[u64] = match &self.store {
            Store::Integer(keys) if keys.width == 8 => {
                eight = fixed_values::<u64>(column);
                &eight
            }
            Store::Integer(keys) => {
                widened = widen(column, keys.width);
                &widened
            }
            Store::Bytes(_) => return,
        };
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        for (row, &key) in values.iter().enumerate() {
            let owner = match owners {
                None => NOBODY,
                Some(owners) => owners[row],
            };
            let Store::Integer(keys) = &self.store else { return };
            let null = nulls.is_some_and(|nulls| nulls.is_null(row));
            let mut slot = if null {
                keys.nulls.iter().find(|(of, _)| *of == owner).map_or(EMPTY, |(_, slot)| *slot)
            } else {
                keys.table.find(key, owner)
            };
            if slot == EMPTY {
                let hash = hashes.map(|hashes| hashes[row]);
                slot = self.add_integer((!null).then_some(key), owner, hash);
                new(slot, row);
            }
            slots.push(slot);
        }
    }

    #[cold]
    #[inline(never)]
    fn add_integer(&mut self, key: Option<u64>, owner: u32, hash: Option<u64>) -> u32 {
        let width = match &self.store {
            Store::Integer(keys) => keys.width,
            Store::Bytes(_) => 8,
        };
        let hash = hash.unwrap_or_else(|| hash_integer(key, width));
        let slot = self.allocate(hash, owner);
        if let Store::Integer(keys) = &mut self.store {
            if keys.keys.len() <= slot as usize {
                keys.keys.resize(slot as usize + 1, 0);
            }
            keys.keys[slot as usize] = key.unwrap_or(0);
            match key {
                Some(key) => keys.table.insert(key, owner, slot),
                None => keys.nulls.push((owner, slot)),
            }
        }
        slot
    }

    fn probe_bytes(
        &mut self,
        columns: &[ArrayRef],
        owners: Option<&[u32]>,
        rows: usize,
        hashes: Option<&[u64]>,
        slots: &mut Vec<u32>,
        mut new: impl FnMut(u32, usize),
    ) -> Result<(), StateError> {
        if let Store::Bytes(keys) = &mut self.store {
            keys.scratch.encode(columns, rows)?;
        }
        // First by hash alone, then all bytes are compared: no lookup waits for the memory of the one before.
        for row in 0..rows {
            let owner = owners.map_or(NOBODY, |owners| owners[row]);
            let Store::Bytes(keys) = &self.store else { return Ok(()) };
            let hash = match hashes {
                Some(hashes) => hashes[row],
                None => xxh3_64(keys.scratch.row(row)),
            };
            let found = keys.table.find(placement(hash, owner), |entry| entry.hash == hash && entry.owner == owner);
            let slot = match found {
                Some(entry) => entry.slot,
                None => {
                    let slot = self.add_bytes(row, hash, owner);
                    new(slot, row);
                    slot
                }
            };
            slots.push(slot);
        }
        for (row, slot) in slots.iter_mut().enumerate() {
            let Store::Bytes(keys) = &self.store else { return Ok(()) };
            if keys.bytes(*slot) != keys.scratch.row(row) {
                let owner = owners.map_or(NOBODY, |owners| owners[row]);
                *slot = self.resolve_collision(row, self.hash(*slot), owner, &mut new);
            }
        }
        Ok(())
    }

    /// The slot of a key that shares its hash with another one.
    #[cold]
    #[inline(never)]
    fn resolve_collision(&mut self, row: usize, hash: u64, owner: u32, new: &mut impl FnMut(u32, usize)) -> u32 {
        if let Store::Bytes(keys) = &self.store {
            let bytes = keys.scratch.row(row);
            let found = keys.table.find(placement(hash, owner), |entry| {
                entry.hash == hash && entry.owner == owner && keys.bytes(entry.slot) == bytes
            });
            if let Some(entry) = found {
                return entry.slot;
            }
        }
        let slot = self.add_bytes(row, hash, owner);
        new(slot, row);
        slot
    }

    #[cold]
    #[inline(never)]
    fn add_bytes(&mut self, row: usize, hash: u64, owner: u32) -> u32 {
        let slot = self.allocate(hash, owner);
        if let Store::Bytes(keys) = &mut self.store {
            keys.set(slot, row);
            let entry = ByteEntry { hash, owner, slot };
            keys.table.insert_unique(placement(hash, owner), entry, |entry| placement(entry.hash, entry.owner));
        }
        slot
    }

    fn allocate(&mut self, hash: u64, owner: u32) -> u32 {
        self.len += 1;
        if let Some(slot) = self.free.pop() {
            self.live[slot as usize] = true;
            self.hashes[slot as usize] = hash;
            if self.owned {
                self.owners[slot as usize] = owner;
            }
            return slot;
        }
        self.live.push(true);
        self.hashes.push(hash);
        if self.owned {
            self.owners.push(owner);
        }
        (self.live.len() - 1) as u32
    }

    /// Forgets the key of a slot; a slot that is not live is left alone.
    pub fn remove(&mut self, slot: u32) {
        if !self.is_live(slot) {
            return;
        }
        let owner = self.owner(slot);
        match &mut self.store {
            Store::Integer(keys) => {
                let before = keys.nulls.len();
                keys.nulls.retain(|(_, null)| *null != slot);
                if keys.nulls.len() == before {
                    keys.table.remove(keys.keys[slot as usize], owner);
                }
            }
            Store::Bytes(keys) => {
                let at = placement(self.hashes[slot as usize], owner);
                if let Ok(entry) = keys.table.find_entry(at, |entry| entry.slot == slot) {
                    entry.remove();
                }
                keys.garbage += keys.spans[slot as usize].1 as usize;
            }
        }
        self.live[slot as usize] = false;
        self.free.push(slot);
        self.len -= 1;
        self.collect_garbage();
    }

    /// Rewrites the arena when most of it belongs to removed keys.
    fn collect_garbage(&mut self) {
        let Store::Bytes(keys) = &mut self.store else { return };
        if keys.garbage < 1 << 20 || keys.garbage * 2 < keys.arena.len() {
            return;
        }
        let mut arena = Vec::with_capacity(keys.arena.len() - keys.garbage);
        for (span, live) in keys.spans.iter_mut().zip(&self.live) {
            let start = arena.len();
            if *live {
                arena.extend_from_slice(&keys.arena[span.0..span.0 + span.1 as usize]);
            } else {
                span.1 = 0;
            }
            span.0 = start;
        }
        keys.arena = arena;
        keys.garbage = 0;
    }

    /// Forgets everything, keeping memory for the next batch.
    pub fn clear(&mut self) {
        match &mut self.store {
            Store::Integer(keys) => {
                keys.table.clear();
                keys.keys.clear();
                keys.nulls.clear();
            }
            Store::Bytes(keys) => {
                keys.table.clear();
                keys.arena.clear();
                keys.spans.clear();
                keys.garbage = 0;
            }
        }
        self.hashes.clear();
        self.owners.clear();
        self.live.clear();
        self.free.clear();
        self.len = 0;
    }

    /// The key columns of live slots, in the order given.
    pub fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, StateError> {
        match &self.store {
            Store::Bytes(keys) => decode_rows(&self.types, slots.iter().map(|&slot| keys.bytes(slot)).collect()),
            Store::Integer(keys) => {
                let stored = slots.iter().map(|&slot| keys.keys[slot as usize]);
                let values: MutableBuffer = match keys.width {
                    1 => stored.map(|key| key as u8).collect::<Vec<u8>>().into(),
                    2 => stored.map(|key| key as u16).collect::<Vec<u16>>().into(),
                    4 => stored.map(|key| key as u32).collect::<Vec<u32>>().into(),
                    _ => stored.collect::<Vec<u64>>().into(),
                };
                let nulls = (!keys.nulls.is_empty()).then(|| {
                    let valid = slots.iter().map(|slot| !keys.nulls.iter().any(|(_, null)| null == slot));
                    NullBuffer::from(valid.collect::<Vec<bool>>())
                });
                Ok(vec![fixed_column(&self.types[0], (values, nulls), keys.width)?])
            }
        }
    }
}

fn hash_integer(key: Option<u64>, width: usize) -> u64 {
    match key {
        None => hash_null(),
        Some(key) if width == 8 => hash_8(key),
        Some(key) => {
            let mut bytes = [1u8; 9];
            bytes[1..].copy_from_slice(&key.to_le_bytes());
            xxh3_64(&bytes[..1 + width])
        }
    }
}

fn widen(column: &ArrayRef, width: usize) -> Vec<u64> {
    let mut widened = Vec::with_capacity(column.len());
    match width {
        1 => widened.extend(fixed_values::<u8>(column).iter().map(|&value| value as u64)),
        2 => widened.extend(fixed_values::<u16>(column).iter().map(|&value| value as u64)),
        _ => widened.extend(fixed_values::<u32>(column).iter().map(|&value| value as u64)),
    }
    widened
}

#[cfg(test)]
mod tests;
