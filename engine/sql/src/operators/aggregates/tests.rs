use super::*;
use arrow::array::*;
use std::sync::Arc;

fn call(function: AggregateFunction, data_type: &DataType) -> AggregateCall {
    AggregateCall { function, argument: Some((0, data_type.clone())), filter: None, name: "x".into() }
}

/// The result of one call over one column, all rows in slot 0; through one accumulator, and as two merged partials.
fn evaluate(function: AggregateFunction, column: ArrayRef) -> ArrayRef {
    let call = call(function, column.data_type());
    let rows = column.len();
    let index = KeyIndex::new(&[]).unwrap();
    let make = || {
        let mut set = AggregateSet::new(std::slice::from_ref(&call), false, false).unwrap();
        set.resize(2);
        set
    };
    let batch = |column: ArrayRef| RecordBatch::try_from_iter_with_nullable([("x", column, true)]).unwrap();
    let mut whole = make();
    whole.update(&vec![0; rows], None, &batch(column.clone()), &index).unwrap();
    let result = whole.results(&[0]).unwrap().remove(0);
    assert_eq!(result.data_type(), &call.result_type().unwrap());
    if call.is_mergeable() {
        let mut merged = make();
        for part in [column.slice(0, rows / 2), column.slice(rows / 2, rows - rows / 2)] {
            let mut partial = make();
            partial.update(&vec![1; part.len()], None, &batch(part), &index).unwrap();
            merged.merge(&[0], &partial.state(&[1]).unwrap()).unwrap();
        }
        assert_eq!(&merged.results(&[0]).unwrap()[0], &result, "merged {function:?}");
        let mut restored = make();
        restored.restore(&[1], &merged.state(&[0]).unwrap()).unwrap();
        assert_eq!(&restored.results(&[1]).unwrap()[0], &result, "restored {function:?}");
        assert_eq!(restored.state_fields().len(), restored.state(&[1]).unwrap().len());
    }
    result
}

fn decimals(values: &[Option<i128>], precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
}

#[test]
fn results_have_flinks_types_and_values() {
    use AggregateFunction::*;
    let cases: Vec<(AggregateFunction, ArrayRef, ArrayRef)> = vec![
        (Count, Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])), Arc::new(Int64Array::from(vec![2]))),
        (CountDistinct, Arc::new(Int32Array::from(vec![Some(1), None, Some(1)])), Arc::new(Int64Array::from(vec![1]))),
        (CountDistinct, Arc::new(StringArray::from(vec!["a", "", "a"])), Arc::new(Int64Array::from(vec![2]))),
        (Sum, Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])), Arc::new(Int32Array::from(vec![4]))),
        (Sum, Arc::new(Int8Array::from(vec![100, 27])), Arc::new(Int8Array::from(vec![127]))),
        (Sum, Arc::new(Int64Array::from(vec![i64::MAX, -1])), Arc::new(Int64Array::from(vec![i64::MAX - 1]))),
        (Sum, Arc::new(Float64Array::from(vec![0.5, 0.25])), Arc::new(Float64Array::from(vec![0.75]))),
        (Sum, Arc::new(Float32Array::from(vec![0.5, 0.25])), Arc::new(Float32Array::from(vec![0.75]))),
        (Sum, decimals(&[Some(150), None, Some(-25)], 10, 2), decimals(&[Some(125)], 38, 2)),
        (Sum, Arc::new(Int64Array::from(vec![None, None])), Arc::new(Int64Array::from(vec![None]))),
        (Avg, Arc::new(Int64Array::from(vec![1, 2, 2])), Arc::new(Int64Array::from(vec![1]))),
        (Avg, Arc::new(Int64Array::from(vec![-1, -2, -2])), Arc::new(Int64Array::from(vec![-1]))),
        (Avg, Arc::new(Int32Array::from(vec![Some(7), None, Some(8)])), Arc::new(Int32Array::from(vec![7]))),
        (Avg, Arc::new(Float32Array::from(vec![1.0, 2.0])), Arc::new(Float32Array::from(vec![1.5]))),
        (Avg, Arc::new(Float64Array::from(vec![None, None])), Arc::new(Float64Array::from(vec![None]))),
        // 1.00 / 3 = 0.333333; 2.00 / 3 = 0.666667, the half away from zero.
        (Avg, decimals(&[Some(100), Some(0), Some(0)], 10, 2), decimals(&[Some(333_333)], 38, 6)),
        (Avg, decimals(&[Some(200), Some(0), Some(0)], 10, 2), decimals(&[Some(666_667)], 38, 6)),
        (Avg, decimals(&[Some(-200), Some(0), Some(0)], 10, 2), decimals(&[Some(-666_667)], 38, 6)),
        (Avg, decimals(&[Some(1), Some(2)], 20, 8), decimals(&[Some(2)], 38, 8)),
        (Min, Arc::new(Int64Array::from(vec![Some(5), None, Some(-3)])), Arc::new(Int64Array::from(vec![-3]))),
        (Max, Arc::new(Int16Array::from(vec![-5, -3])), Arc::new(Int16Array::from(vec![-3]))),
        (Max, Arc::new(StringArray::from(vec![Some("b"), None, Some("ab")])), Arc::new(StringArray::from(vec!["b"]))),
        (Min, Arc::new(StringArray::from(vec![Some("b"), None, Some("ab")])), Arc::new(StringArray::from(vec!["ab"]))),
        (Max, Arc::new(Float64Array::from(vec![1.0, f64::NAN])), Arc::new(Float64Array::from(vec![f64::NAN]))),
        (Min, Arc::new(Float64Array::from(vec![f64::NAN, 0.0, -0.0])), Arc::new(Float64Array::from(vec![-0.0]))),
        (Min, Arc::new(BooleanArray::from(vec![true, false])), Arc::new(BooleanArray::from(vec![false]))),
        (Max, decimals(&[Some(-7), None, Some(-9)], 10, 2), decimals(&[Some(-7)], 10, 2)),
        (Max, Arc::new(Date32Array::from(vec![3, 4])), Arc::new(Date32Array::from(vec![4]))),
        (
            Max,
            Arc::new(TimestampMillisecondArray::from(vec![3, 4]).with_timezone("UTC")),
            Arc::new(TimestampMillisecondArray::from(vec![4]).with_timezone("UTC")),
        ),
        (Max, Arc::new(Int64Array::from(vec![None::<i64>, None])), Arc::new(Int64Array::from(vec![None::<i64>]))),
    ];
    for (function, column, expected) in cases {
        assert_eq!(evaluate(function, column.clone()).to_data(), expected.to_data(), "{function:?} of {column:?}");
    }
}

#[test]
fn sums_that_do_not_fit_are_errors() {
    let cases: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![i64::MAX, 1])),
        Arc::new(Int32Array::from(vec![i32::MAX, 1])),
        Arc::new(Int8Array::from(vec![100, 28])),
        decimals(&[Some(DECIMAL_MAX), Some(1)], 38, 0),
    ];
    for column in cases {
        let call = call(AggregateFunction::Sum, column.data_type());
        let mut set = AggregateSet::new(&[call], false, false).unwrap();
        set.resize(1);
        let index = KeyIndex::new(&[]).unwrap();
        let batch = RecordBatch::try_from_iter([("x", column.clone())]).unwrap();
        let outcome = set.update(&[0, 0], None, &batch, &index).and_then(|()| set.results(&[0]).map(|_| ()));
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("does not fit"), "{error}");
    }
}

const DECIMAL_MAX: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;

#[test]
fn calls_without_meaning_are_refused() {
    let text = call(AggregateFunction::Sum, &DataType::Utf8);
    assert!(text.result_type().unwrap_err().contains("needs a number"));
    let row = DataType::Struct(vec![Field::new("a", DataType::Int64, true)].into());
    for function in [AggregateFunction::Min, AggregateFunction::CountDistinct, AggregateFunction::Avg] {
        assert!(call(function, &row).result_type().is_err());
    }
    let missing = AggregateCall { function: AggregateFunction::Sum, argument: None, filter: None, name: "x".into() };
    assert!(missing.result_type().is_err());
    let max = call(AggregateFunction::Max, &DataType::Int64);
    assert!(!max.supports_retraction() && max.is_mergeable());
    assert!(AggregateSet::new(&[max], true, true).is_err());
}

#[test]
fn filters_and_nulls_select_rows() {
    let filter = BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]);
    let argument = Int64Array::from(vec![None, Some(1), Some(2), Some(3)]);
    assert_eq!(select(4, Some(&filter), None), Some(vec![0, 3]));
    assert_eq!(select(4, None, Some(&argument)), Some(vec![1, 2, 3]));
    assert_eq!(select(4, Some(&filter), Some(&argument)), Some(vec![3]));
    assert_eq!(select(4, Some(&BooleanArray::from(vec![true; 4])), None), None);
    assert_eq!(select(2, Some(&filter.slice(2, 2)), Some(&argument.slice(2, 2))), Some(vec![1]));
}
