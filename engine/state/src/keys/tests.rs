use super::*;
use arrow::array::*;
use arrow::datatypes::*;
use std::sync::Arc;

fn hashes(columns: &[ArrayRef]) -> Vec<u64> {
    let mut hashes = Vec::new();
    hash_rows(columns, &mut hashes).unwrap();
    hashes
}

/// The documented encoding, written down a second time, a value at a time.
fn reference(encoded: &[u8]) -> u64 {
    xxh3_64(encoded)
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend((value.len() as u32).to_le_bytes());
    bytes.extend(value.as_bytes());
    bytes
}

#[test]
fn encoding_is_as_documented_for_every_type() {
    let cases: Vec<(ArrayRef, Vec<u8>)> = vec![
        (Arc::new(BooleanArray::from(vec![true])), vec![1, 1]),
        (Arc::new(Int8Array::from(vec![-2])), vec![1, 0xfe]),
        (Arc::new(UInt8Array::from(vec![7])), vec![1, 7]),
        (Arc::new(Int16Array::from(vec![-2])), vec![1, 0xfe, 0xff]),
        (Arc::new(UInt16Array::from(vec![258])), vec![1, 2, 1]),
        (Arc::new(Int32Array::from(vec![1])), vec![1, 1, 0, 0, 0]),
        (Arc::new(UInt32Array::from(vec![1])), vec![1, 1, 0, 0, 0]),
        (Arc::new(Int64Array::from(vec![1])), vec![1, 1, 0, 0, 0, 0, 0, 0, 0]),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), vec![1, 255, 255, 255, 255, 255, 255, 255, 255]),
        (Arc::new(Date32Array::from(vec![3])), vec![1, 3, 0, 0, 0]),
        (Arc::new(Time32MillisecondArray::from(vec![3])), vec![1, 3, 0, 0, 0]),
        (Arc::new(Time64NanosecondArray::from(vec![3])), vec![1, 3, 0, 0, 0, 0, 0, 0, 0]),
        (Arc::new(TimestampMillisecondArray::from(vec![3])), vec![1, 3, 0, 0, 0, 0, 0, 0, 0]),
        (Arc::new(TimestampSecondArray::from(vec![3]).with_timezone("UTC")), vec![1, 3, 0, 0, 0, 0, 0, 0, 0]),
        (Arc::new(Decimal128Array::from(vec![-1])), [vec![1], vec![255; 16]].concat()),
        (Arc::new(Float32Array::from(vec![-0.0])), vec![1, 0, 0, 0, 0]),
        (Arc::new(Float32Array::from(vec![-f32::NAN])), vec![1, 0, 0, 0xc0, 0x7f]),
        (Arc::new(Float64Array::from(vec![-0.0])), vec![1, 0, 0, 0, 0, 0, 0, 0, 0]),
        (Arc::new(Float64Array::from(vec![-f64::NAN])), vec![1, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f]),
        (Arc::new(Float64Array::from(vec![1.0])), vec![1, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
        (Arc::new(StringArray::from(vec!["Mary"])), text("Mary")),
        (Arc::new(BinaryArray::from(vec!["Mary".as_bytes()])), text("Mary")),
    ];
    for (column, encoded) in cases {
        assert_eq!(hashes(std::slice::from_ref(&column)), vec![reference(&encoded)], "{}", column.data_type());
        // The same through the general path, beside a second column, and as NULL.
        let second: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        let both = [encoded, text("x")].concat();
        assert_eq!(hashes(&[column.clone(), second]), vec![reference(&both)], "{}", column.data_type());
        let null = new_null_array(column.data_type(), 1);
        assert_eq!(hashes(&[null]), vec![reference(&[0])], "{}", column.data_type());
    }
}

#[test]
fn golden_values_never_change() {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 2, 42, -1]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["Mary", "Alice", "Bob", "Cary", ""]));
    let mut groups = Vec::new();
    key_groups(std::slice::from_ref(&ids), 128, &mut groups).unwrap();
    assert_eq!(groups, GOLDEN_ID_GROUPS);
    key_groups(std::slice::from_ref(&names), 128, &mut groups).unwrap();
    assert_eq!(groups, GOLDEN_NAME_GROUPS);
    assert_eq!(hashes(std::slice::from_ref(&ids)), GOLDEN_IDS);
    assert_eq!(hashes(std::slice::from_ref(&names)), GOLDEN_NAMES);
    assert_eq!(hashes(&[ids, names]), GOLDEN_PAIRS);
    assert_eq!(xxh3_64(&[]), EMPTY_KEY_HASH);
}

// Computed by another implementation of xxh3-64, from the documented encoding.
const GOLDEN_IDS: [u64; 5] =
    [0x313c_2dd2_ec99_6e80, 0xa048_b5cb_8216_2577, 0x04f2_c58c_2ede_dcae, 0x3d8e_917a_3bb2_a06c, 0x53a5_f4bc_2fc0_168c];
const GOLDEN_NAMES: [u64; 5] =
    [0x43f6_ab5e_ebf8_ddb9, 0x3362_1341_2ec9_086c, 0xf4cd_8a82_8e3f_ed58, 0xad85_337c_9854_2bd0, 0xd1dd_927e_d529_f768];
const GOLDEN_PAIRS: [u64; 5] =
    [0x36f3_417e_a463_a77a, 0x7e89_2d8c_364c_b747, 0xc4f3_040d_1a7e_86de, 0x7ab4_4557_ed62_818d, 0x4b20_8990_2882_915f];
const GOLDEN_ID_GROUPS: [u16; 5] = [24, 80, 2, 30, 41];
const GOLDEN_NAME_GROUPS: [u16; 5] = [33, 25, 122, 86, 104];

#[test]
fn fast_paths_agree_with_the_general_path() {
    let long: Vec<String> = (0..200).map(|n| "ab".repeat(n * 3)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter((0..200).map(|n| (n % 7 != 0).then_some(n * 31)))),
        Arc::new(Int32Array::from_iter_values(0..200)),
        Arc::new(StringArray::from(long)),
        Arc::new(StringArray::from_iter((0..200).map(|n| (n % 5 != 0).then(|| n.to_string())))),
    ];
    for column in columns {
        let mut encoded = EncodedRows::default();
        encoded.encode(std::slice::from_ref(&column), column.len()).unwrap();
        let general: Vec<u64> = (0..column.len()).map(|row| xxh3_64(encoded.row(row))).collect();
        assert_eq!(hashes(std::slice::from_ref(&column)), general);
        // A slice of a column hashes as the rows it shows.
        assert_eq!(hashes(&[column.slice(13, 50)]), general[13..63]);
        let pair = [column.slice(13, 50), column.slice(20, 50)];
        assert_eq!(hashes(&pair).len(), 50);
    }
}

#[test]
fn key_groups_stay_in_range_and_spread() {
    for max_parallelism in [1u32, 2, 3, 128, 1000, 32768] {
        let mut counts = vec![0u32; max_parallelism as usize];
        for key in 0..200_000u64 {
            counts[key_group(hash_8(key), max_parallelism) as usize] += 1;
        }
        let expected = 200_000.0 / max_parallelism as f64;
        if expected > 100.0 {
            let worst = counts.iter().map(|&count| (count as f64 - expected).abs() / expected).fold(0.0, f64::max);
            assert!(worst < 0.5, "max parallelism {max_parallelism}: {worst}");
        }
    }
    assert_eq!(key_group(u64::MAX, 32768), 32767);
    assert_eq!(key_group(0, 32768), 0);
}

#[test]
fn other_types_and_shapes_are_errors() {
    let list: ArrayRef = Arc::new(StructArray::from(vec![(
        Arc::new(Field::new("a", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![1])) as ArrayRef,
    )]));
    let error = hash_rows(&[list], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("cannot be a key"), "{error}");
    let a: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let b: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    assert!(hash_rows(&[a, b], &mut Vec::new()).is_err());
    assert!(hash_rows(&[], &mut Vec::new()).is_err());
}
