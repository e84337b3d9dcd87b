use super::*;
use crate::keys::{EMPTY_KEY_HASH, hash_rows};
use arrow::array::*;
use arrow::datatypes::TimeUnit;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

fn intern(index: &mut KeyIndex, columns: &[ArrayRef]) -> (Vec<u32>, Vec<(u32, usize)>) {
    let (mut slots, mut new) = (Vec::new(), Vec::new());
    index.intern_batch(columns, columns[0].len(), &mut slots, |slot, row| new.push((slot, row))).unwrap();
    (slots, new)
}

#[test]
fn equal_keys_share_a_slot_and_new_ones_are_announced_once() {
    let mut index = KeyIndex::new(&[DataType::Int64]).unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), Some(0), None, Some(5), None, Some(-1)]));
    let (slots, new) = intern(&mut index, std::slice::from_ref(&column));
    assert_eq!(slots, vec![0, 1, 2, 0, 2, 3]);
    assert_eq!(new, vec![(0, 0), (1, 1), (2, 2), (3, 5)]);
    assert_eq!(index.len(), 4);
    let back = index.keys(&[3, 2, 1, 0]).unwrap();
    assert_eq!(back[0].as_ref(), &Int64Array::from(vec![Some(-1), None, Some(0), Some(5)]) as &dyn Array);
    assert!(intern(&mut index, &[column]).1.is_empty());
}

#[test]
fn every_type_comes_back_as_it_was_and_keeps_its_hash() {
    let types = [
        DataType::Boolean,
        DataType::Int8,
        DataType::UInt16,
        DataType::Int32,
        DataType::UInt64,
        DataType::Float32,
        DataType::Float64,
        DataType::Utf8,
        DataType::Binary,
        DataType::Decimal128(20, 3),
        DataType::Date32,
        DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        DataType::Time32(TimeUnit::Second),
        DataType::Time64(TimeUnit::Microsecond),
    ];
    for data_type in types {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(0), None, Some(7)]));
        let column = if data_type == DataType::Binary {
            Arc::new(BinaryArray::from_iter([Some(&b"a"[..]), Some(&b""[..]), None, Some(&b"\xff"[..])])) as ArrayRef
        } else {
            let middle = match &data_type {
                DataType::Date32 | DataType::Time32(_) => DataType::Int32,
                _ => DataType::Int64,
            };
            let numbers = arrow::compute::cast(&numbers, &middle).unwrap();
            arrow::compute::cast(&numbers, &data_type).unwrap()
        };
        for columns in [vec![column.clone()], vec![column.clone(), Arc::new(Int32Array::from(vec![1, 2, 3, 4]))]] {
            let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
            let mut index = KeyIndex::new(&types).unwrap();
            let (slots, _) = intern(&mut index, &columns);
            assert_eq!(index.keys(&slots).unwrap(), columns, "{data_type}");
            let mut hashes = Vec::new();
            hash_rows(&columns, &mut hashes).unwrap();
            for (slot, hash) in slots.iter().zip(&hashes) {
                assert_eq!(index.hash(*slot), *hash, "{data_type}");
            }
            let mut again = Vec::new();
            index.intern(&columns, &hashes, &mut again, |_, _| panic!("known")).unwrap();
            assert_eq!(slots, again);
        }
    }
}

#[test]
fn keys_without_columns_have_one_slot() {
    let mut index = KeyIndex::new(&[]).unwrap();
    let mut slots = Vec::new();
    index.intern_batch(&[], 3, &mut slots, |_, _| {}).unwrap();
    assert_eq!(slots, vec![0, 0, 0]);
    assert_eq!(index.hash(0), EMPTY_KEY_HASH);
    assert!(index.keys(&[0]).unwrap().is_empty());
}

#[test]
fn owners_separate_equal_keys() {
    for column in [
        Arc::new(Int64Array::from(vec![1, 1, 2, 1])) as ArrayRef,
        Arc::new(StringArray::from(vec!["a", "a", "b", "a"])) as ArrayRef,
    ] {
        let mut index = KeyIndex::owned(&[column.data_type().clone()]).unwrap();
        let mut slots = Vec::new();
        index.intern_owned(&[7, 8, 7, 7], std::slice::from_ref(&column), &mut slots, |_, _| {}).unwrap();
        assert_eq!(slots, vec![0, 1, 2, 0]);
        assert_eq!((index.owner(0), index.owner(1)), (7, 8));
        index.remove(0);
        index.intern_owned(&[8, 7], &[column.slice(0, 2)], &mut slots, |_, _| {}).unwrap();
        assert_eq!(slots, vec![1, 0]);
    }
}

#[test]
fn wrong_columns_are_errors() {
    let mut index = KeyIndex::new(&[DataType::Int64]).unwrap();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    assert!(index.intern_batch(&[text], 1, &mut Vec::new(), |_, _| {}).is_err());
    assert!(index.intern_batch(&[], 1, &mut Vec::new(), |_, _| {}).is_err());
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert!(index.intern_batch(std::slice::from_ref(&number), 2, &mut Vec::new(), |_, _| {}).is_err());
    assert!(index.intern_owned(&[1], &[number], &mut Vec::new(), |_, _| {}).is_err());
    assert!(KeyIndex::new(&[DataType::Null]).is_err());
}

/// Two keys with one hash, as the caller says: both are kept apart.
#[test]
fn keys_with_the_same_hash_have_different_slots() {
    let mut index = KeyIndex::new(&[DataType::Utf8]).unwrap();
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a", "b"]));
    let (mut slots, mut new) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        index
            .intern(std::slice::from_ref(&column), &[9, 9, 9, 9], &mut slots, |slot, row| new.push((slot, row)))
            .unwrap();
        assert_eq!(slots, vec![0, 1, 0, 1]);
    }
    assert_eq!(new, vec![(0, 0), (1, 1)]);
    index.remove(0);
    index.intern(&[column.slice(1, 1)], &[9], &mut slots, |_, _| panic!("known")).unwrap();
    assert_eq!(slots, vec![1]);
}

/// Long keys removed in bulk: their bytes are given back, the others stay readable.
#[test]
fn the_arena_is_compacted() {
    let mut index = KeyIndex::new(&[DataType::Utf8]).unwrap();
    let texts: Vec<String> = (0..4000).map(|n| format!("{n}-{}", "x".repeat(1000))).collect();
    let column: ArrayRef = Arc::new(StringArray::from(texts.clone()));
    let (slots, _) = intern(&mut index, &[column]);
    for slot in &slots[..3900] {
        index.remove(*slot);
    }
    let Store::Bytes(keys) = &index.store else { panic!("text keys are bytes") };
    assert!(keys.arena.len() < 2 << 20, "{}", keys.arena.len());
    let back = index.keys(&slots[3900..]).unwrap();
    assert_eq!(back[0].as_ref(), &StringArray::from(texts[3900..].to_vec()) as &dyn Array);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a plain map, over inserts and removals that reuse slots.
    #[test]
    fn behaves_like_a_map(steps in prop::collection::vec((prop::collection::vec(0i64..60, 1..40), prop::collection::vec(0i64..60, 0..30)), 1..20), wide in any::<bool>(), stride in 1i64..1_000_000_007) {
        let types: &[DataType] = if wide { &[DataType::Utf8, DataType::Int64] } else { &[DataType::Int64] };
        let columns = |keys: &[i64]| -> Vec<ArrayRef> {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.iter().map(|key| key * stride)));
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(keys.iter().map(|key| key.to_string())));
            if wide { vec![texts, numbers] } else { vec![numbers] }
        };
        let mut index = KeyIndex::new(types).unwrap();
        let mut model: HashMap<i64, u32> = HashMap::new();
        for (insert, remove) in steps {
            let mut announced = Vec::new();
            let mut slots = Vec::new();
            index.reserve(remove.len() * 7);
            index.intern_batch(&columns(&insert), insert.len(), &mut slots, |slot, row| announced.push((slot, row))).unwrap();
            for (row, key) in insert.iter().enumerate() {
                match model.get(key) {
                    Some(slot) => prop_assert_eq!(*slot, slots[row]),
                    None => {
                        prop_assert!(announced.contains(&(slots[row], row)));
                        prop_assert!(!model.values().any(|slot| *slot == slots[row]));
                        model.insert(*key, slots[row]);
                    }
                }
            }
            for key in remove {
                if let Some(slot) = model.remove(&key) {
                    index.remove(slot);
                    prop_assert!(!index.is_live(slot));
                }
            }
            prop_assert_eq!(index.len(), model.len());
            let mut live = index.live_slots();
            let mut expected: Vec<u32> = model.values().copied().collect();
            live.sort();
            expected.sort();
            prop_assert_eq!(live, expected);
            let keys: Vec<i64> = model.keys().copied().collect();
            let slots: Vec<u32> = keys.iter().map(|key| model[key]).collect();
            prop_assert_eq!(index.keys(&slots).unwrap(), columns(&keys));
        }
    }
}
