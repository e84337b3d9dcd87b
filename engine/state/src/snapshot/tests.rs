use super::*;
use crate::keys::key_groups;
use arrow::array::{AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;
use std::collections::BTreeMap;

const MAX: u32 = 128;
const ALL: KeyGroupRange = KeyGroupRange { first: 0, last: 127 };

/// The functions under test, with what they write as their result.
mod bytes_of {
    use super::{Bytes, Compression, KeyGroupRange, KeyedDelta, StateError, Write};

    fn written(write: impl FnOnce(&mut dyn Write) -> Result<(), StateError>) -> Result<Vec<u8>, StateError> {
        super::in_memory(write).map(Vec::from)
    }

    pub fn encode(delta: &KeyedDelta, range: KeyGroupRange, with: Compression) -> Result<Vec<u8>, StateError> {
        written(|out| super::encode(delta, range, with, out))
    }

    pub fn compact(files: &[Bytes], with: Compression) -> Result<Vec<u8>, StateError> {
        written(|out| super::compact(files, with, out))
    }

    pub fn compact_ranges(files: &[(Bytes, KeyGroupRange)], with: Compression) -> Result<Vec<u8>, StateError> {
        written(|out| super::compact_ranges(files, with, out))
    }

    pub fn merge_changes(files: &[Bytes], with: Compression) -> Result<Vec<u8>, StateError> {
        written(|out| super::merge_changes(files, with, out))
    }
}

type Model = BTreeMap<i64, Option<i64>>;

/// A delta of (key, value) rows; `None` removes the key.
fn delta(rows: &[(i64, Option<i64>)], full: bool) -> KeyedDelta {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| format!("k{}", row.0))));
    let values: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.1)));
    let mut groups = Vec::new();
    key_groups(&[keys.clone(), names.clone()], MAX, &mut groups).unwrap();
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("value", DataType::Int64, true),
    ]);
    KeyedDelta {
        name: "counts".into(),
        full,
        key_columns: 2,
        rows: RecordBatch::try_new(Arc::new(schema), vec![keys, names, values]).unwrap(),
        key_groups: groups,
        deleted: Some(BooleanArray::from_iter(rows.iter().map(|row| Some(row.1.is_none())))),
    }
}

fn apply(model: &mut Model, decoded: &[KeyedRows]) {
    for part in decoded {
        let keys = part.rows.column(0).as_primitive::<Int64Type>();
        let values = part.rows.column(2).as_primitive::<Int64Type>();
        for row in 0..part.rows.num_rows() {
            let deleted = part.deleted.as_ref().is_some_and(|deleted| deleted.value(row));
            if deleted {
                model.remove(&keys.value(row));
            } else {
                model.insert(keys.value(row), Some(values.value(row)));
            }
        }
    }
}

fn read(files: &[Bytes], range: KeyGroupRange) -> Model {
    let mut model = Model::new();
    for file in files {
        apply(&mut model, &decode(file.clone(), range).unwrap());
    }
    model
}

#[test]
fn a_file_comes_back_and_ranges_split_it() {
    // So many that threads share the work.
    let rows: Vec<(i64, Option<i64>)> = (0..300_000).map(|n| (n, Some(n * 2))).collect();
    let delta = delta(&rows, true);
    let bytes = Bytes::from(bytes_of::encode(&delta, ALL, Compression::None).unwrap());
    let whole = read(std::slice::from_ref(&bytes), ALL);
    assert_eq!(whole, rows.iter().copied().collect());
    let mut parts = Model::new();
    for (first, last) in [(0, 42), (43, 43), (44, 85), (86, 127)] {
        let part = decode(bytes.clone(), KeyGroupRange { first, last }).unwrap();
        for rows in &part {
            let mut groups = Vec::new();
            key_groups(&rows.rows.columns()[..2], MAX, &mut groups).unwrap();
            assert!(groups.iter().all(|group| (first..=last).contains(group)));
            assert!(groups.is_sorted());
            assert_eq!(rows.rows.schema(), delta.rows.schema());
        }
        let before = parts.len();
        apply(&mut parts, &part);
        assert_eq!(parts.len() - before, part.iter().map(|rows| rows.rows.num_rows()).sum::<usize>());
    }
    assert_eq!(parts, whole);
}

#[test]
fn packed_files_come_back_and_mix_with_others() {
    let rows: Vec<(i64, Option<i64>)> = (0..70_000).map(|n| (n, Some(n % 10))).collect();
    let changed: Vec<(i64, Option<i64>)> = (0..70_000).step_by(7).map(|n| (n, (n % 2 == 0).then_some(-n))).collect();
    let mut model: Model = rows.iter().copied().collect();
    for (key, value) in &changed {
        match value {
            Some(value) => model.insert(*key, Some(*value)),
            None => model.remove(key),
        };
    }
    let plain = bytes_of::encode(&delta(&rows, true), ALL, Compression::None).unwrap();
    for compression in [Compression::Lz4, Compression::Zstd] {
        let packed = bytes_of::encode(&delta(&rows, true), ALL, compression).unwrap();
        assert!(packed.len() * 4 < plain.len() * 3, "{compression:?}: {} of {} bytes", packed.len(), plain.len());
        let other = if compression == Compression::Lz4 { Compression::Zstd } else { Compression::None };
        let chain =
            [Bytes::from(packed.clone()), Bytes::from(bytes_of::encode(&delta(&changed, false), ALL, other).unwrap())];
        assert_eq!(read(&chain, ALL), model);
        let low = KeyGroupRange { first: 0, last: 40 };
        let part = read(&chain, low);
        assert!(!part.is_empty() && part.len() < model.len());
        let merged = Bytes::from(bytes_of::compact(&chain, compression).unwrap());
        assert_eq!(read(std::slice::from_ref(&merged), ALL), model);
        for at in (0..packed.len()).step_by(packed.len() / 50) {
            let mut flipped = packed.clone();
            flipped[at] ^= 4;
            assert!(decode(flipped.into(), ALL).is_err(), "byte {at}");
        }
    }
}

#[test]
fn schema_is_one_line_and_metadata_names_the_table() {
    let delta = delta(&[(1, Some(2))], false);
    assert_eq!(schema_text(&delta), "id Int64 KEY, name Utf8 KEY, value Int64");
    let bytes = bytes_of::encode(&delta, ALL, Compression::None).unwrap();
    let reader = arrow::ipc::reader::FileReader::try_new(std::io::Cursor::new(bytes), None).unwrap();
    let metadata = reader.schema().metadata().clone();
    assert_eq!(metadata["streamjob.table"], "counts");
    assert_eq!(metadata["streamjob.key_columns"], "2");
    assert_eq!(metadata["streamjob.key_hash"], "xxh3-1");
}

#[test]
fn rows_outside_the_range_and_reserved_names_are_refused() {
    let good = delta(&[(1, Some(1)), (2, Some(1)), (3, Some(1))], false);
    let error = bytes_of::encode(&good, KeyGroupRange { first: 0, last: 0 }, Compression::None).unwrap_err();
    assert!(error.to_string().contains("is not in 0..=0"), "{error}");
    let mut bad = good.clone();
    let schema = Schema::new(vec![Field::new(KEY_GROUP_COLUMN, DataType::Int64, true)]);
    bad.rows = RecordBatch::try_new(Arc::new(schema), vec![good.rows.column(0).clone()]).unwrap();
    assert!(bytes_of::encode(&bad, ALL, Compression::None).is_err());
    let mut bad = good.clone();
    bad.key_groups.pop();
    assert!(bytes_of::encode(&bad, ALL, Compression::None).is_err());
    let mut bad = good;
    bad.key_columns = 4;
    assert!(bytes_of::encode(&bad, ALL, Compression::None).is_err());
}

#[test]
fn an_empty_table_is_a_file_too() {
    let bytes = Bytes::from(bytes_of::encode(&delta(&[], true), ALL, Compression::None).unwrap());
    assert!(decode(bytes.clone(), ALL).unwrap().is_empty());
    let merged = Bytes::from(bytes_of::compact(&[bytes.clone(), bytes], Compression::None).unwrap());
    assert!(decode(merged.clone(), ALL).unwrap().is_empty());
    assert_eq!(read_table(&[merged]).unwrap().num_rows(), 0);
}

#[test]
fn tables_without_key_columns_keep_their_last_row() {
    let one = |value: i64| {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        let schema = Arc::new(Schema::new(vec![Field::new("count", DataType::Int64, true)]));
        let delta = KeyedDelta {
            name: "total".into(),
            full: false,
            key_columns: 0,
            rows: RecordBatch::try_new(schema, vec![values]).unwrap(),
            key_groups: vec![22],
            deleted: None,
        };
        Bytes::from(bytes_of::encode(&delta, ALL, Compression::None).unwrap())
    };
    let table = read_table(&[one(1), one(5), one(3)]).unwrap();
    assert_eq!(table.column(0).as_primitive::<Int64Type>().values(), &[3]);
}

#[test]
fn files_of_other_tables_do_not_merge() {
    let one = delta(&[(1, Some(1))], true);
    let mut other = one.clone();
    other.name = "sums".into();
    let files = [
        Bytes::from(bytes_of::encode(&one, ALL, Compression::None).unwrap()),
        Bytes::from(bytes_of::encode(&other, ALL, Compression::None).unwrap()),
    ];
    assert!(bytes_of::compact(&files, Compression::None).unwrap_err().to_string().contains("do not fit together"));
    assert!(bytes_of::compact(&[], Compression::None).is_err());
}

/// Two chains that grew apart from one file: each counts only for its own key groups.
#[test]
fn chains_of_several_subtasks_merge_by_range() {
    let keys: Vec<i64> = (0..500).collect();
    let base: Vec<_> = keys.iter().map(|&key| (key, Some(0))).collect();
    let base = Bytes::from(bytes_of::encode(&delta(&base, true), ALL, Compression::None).unwrap());
    let newer = delta(&keys.iter().map(|&key| (key, Some(1))).collect::<Vec<_>>(), false);
    let low = KeyGroupRange { first: 0, last: 63 };
    let high = KeyGroupRange { first: 64, last: 127 };
    let newer = Bytes::from(bytes_of::encode(&newer, ALL, Compression::None).unwrap());
    let chain = [(base.clone(), low), (newer.clone(), low), (base, high), (newer, high)];
    let merged = Bytes::from(bytes_of::compact_ranges(&chain, Compression::None).unwrap());
    assert!(read(&[merged], ALL).values().all(|value| *value == Some(1)));
}

#[test]
fn a_foreign_arrow_file_is_refused() {
    let batch = delta(&[(1, Some(1))], true).rows;
    let mut writer = arrow::ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let bytes = writer.into_inner().unwrap();
    assert!(matches!(decode(bytes.into(), ALL), Err(StateError::Damaged(_))));
    for text in
        ["", "ARROW1", "not a file at all, but a text", "\u{0}\u{0}\u{0}\u{0}ARROW1", "\u{7f}\u{7f}\u{7f}\u{7f}ARROW1"]
    {
        assert!(matches!(decode(Bytes::from(text), ALL), Err(StateError::Damaged(_))), "{text:?}");
    }
}

/// Not only samples: every byte of a small file, every length of it.
#[test]
fn every_flipped_byte_and_every_cut_is_noticed() {
    let bytes =
        bytes_of::encode(&delta(&[(1, Some(1)), (2, None), (3, Some(5))], false), ALL, Compression::None).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(decode(flipped.into(), ALL).is_err(), "byte {at}");
        assert!(decode(bytes[..at].to_vec().into(), ALL).is_err(), "cut at {at}");
        assert!(decode(bytes[at + 1..].to_vec().into(), ALL).is_err(), "begun at {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_chain_its_merge_and_a_map_agree(chain in prop::collection::vec(prop::collection::vec((0i64..40, prop::option::of(0i64..1000)), 0..60), 1..6)) {
        let mut model = Model::new();
        let mut files = Vec::new();
        for rows in &chain {
            for (key, value) in rows {
                match value {
                    Some(value) => model.insert(*key, Some(*value)),
                    None => model.remove(key),
                };
            }
            files.push(Bytes::from(bytes_of::encode(&delta(rows, false), ALL, Compression::None).unwrap()));
        }
        prop_assert_eq!(&read(&files, ALL), &model);
        let merged = Bytes::from(bytes_of::compact(&files, Compression::None).unwrap());
        prop_assert_eq!(&read(std::slice::from_ref(&merged), ALL), &model);
        prop_assert_eq!(read_table(&files).unwrap().num_rows(), model.len());
        // So is merging only the changes.
        let mut folded = vec![files[0].clone()];
        if files.len() > 1 {
            folded.push(Bytes::from(bytes_of::merge_changes(&files[1..], Compression::None).unwrap()));
        }
        prop_assert_eq!(&read(&folded, ALL), &model);
        prop_assert_eq!(&read(&[Bytes::from(bytes_of::compact(&folded, Compression::None).unwrap())], ALL), &model);
        // Merging a merged prefix with the rest is the same.
        let cut = files.len() / 2;
        if cut > 0 {
            let mut shorter = vec![Bytes::from(bytes_of::compact(&files[..cut], Compression::None).unwrap())];
            shorter.extend_from_slice(&files[cut..]);
            prop_assert_eq!(&read(&[Bytes::from(bytes_of::compact(&shorter, Compression::None).unwrap())], ALL), &model);
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic(seed in any::<u64>(), edits in prop::collection::vec((any::<prop::sample::Index>(), 1u8..=255), 1..8), cut in prop::option::of(any::<prop::sample::Index>())) {
        let rows: Vec<_> = (0..50).map(|n| (n ^ (seed % 64) as i64, Some(n))).collect();
        let mut bytes = bytes_of::encode(&delta(&rows, false), ALL, Compression::None).unwrap();
        let original = bytes.clone();
        for (at, flip) in &edits {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if bytes != original {
            prop_assert!(decode(bytes.clone().into(), ALL).is_err());
            prop_assert!(bytes_of::compact(&[bytes.into()], Compression::None).is_err());
        }
    }
}
