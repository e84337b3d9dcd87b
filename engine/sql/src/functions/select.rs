//! `CASE` whose results are plain columns or constants of fixed width: every branch is looked at for all rows, which is
//! much cheaper than splitting the batch by condition when there is nothing to compute.

use arrow::array::{Array, ArrayRef, BooleanArray, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{ArrowNativeType, DataType, Field, FieldRef};
use datafusion_common::cast::as_boolean_array;
use datafusion_common::{Result, exec_err, internal_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// Arguments: condition, result, condition, result, ..., result without condition.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Select {
    signature: Signature,
}

/// Whether values of a type can be selected.
pub fn is_selectable(data_type: &DataType) -> bool {
    data_type.is_primitive() && matches!(data_type.primitive_width(), Some(4 | 8))
}

pub fn select(branches: Vec<(Expr, Expr)>, otherwise: Expr) -> Expr {
    let arguments = branches.into_iter().flat_map(|(when, then)| [when, then]).chain([otherwise]).collect();
    let function = Select { signature: Signature::variadic_any(Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(function)), arguments))
}

impl ScalarUDFImpl for Select {
    fn name(&self) -> &str {
        "select"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types.last() {
            Some(data_type) => Ok(data_type.clone()),
            None => internal_err!("select has no branches"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let results = args.arg_fields.iter().skip(1).step_by(2).chain(args.arg_fields.last());
        let nullable = results.into_iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let Some((otherwise, branches)) = arrays.split_last() else { return internal_err!("select has no branches") };
        let array = match otherwise.data_type().primitive_width() {
            Some(4) => selected::<u32>(branches, otherwise)?,
            Some(8) => selected::<u64>(branches, otherwise)?,
            _ => return exec_err!("select of {}", otherwise.data_type()),
        };
        Ok(ColumnarValue::Array(array))
    }
}

/// The bits of a primitive array's values.
fn bits<T: ArrowNativeType>(array: &ArrayRef) -> ScalarBuffer<T> {
    let data = array.to_data();
    ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len())
}

fn selected<T: ArrowNativeType>(branches: &[ArrayRef], otherwise: &ArrayRef) -> Result<ArrayRef> {
    let mut values: Vec<T> = bits::<T>(otherwise).to_vec();
    let mut nulls: Option<NullBuffer> = otherwise.nulls().cloned();
    // The first condition that holds wins, so it is written last.
    for branch in branches.chunks_exact(2).rev() {
        let (when, then) = (&branch[0], &branch[1]);
        let mask = condition(as_boolean_array(when)?);
        let taken = bits::<T>(then);
        for ((value, taken), chosen) in values.iter_mut().zip(taken.iter()).zip(mask.iter()) {
            *value = if chosen { *taken } else { *value };
        }
        nulls = match (&nulls, then.nulls()) {
            (None, None) => None,
            (before, of_branch) => {
                let all = || BooleanBuffer::new_set(values.len());
                let before = before.as_ref().map_or_else(all, |nulls| nulls.inner().clone());
                let of_branch = of_branch.map_or_else(all, |nulls| nulls.inner().clone());
                Some(NullBuffer::new(&(&mask & &of_branch) | &(&!&mask & &before)))
            }
        };
    }
    let data = otherwise.to_data().into_builder().offset(0).buffers(vec![Buffer::from_vec(values)]).nulls(nulls);
    Ok(make_array(data.build()?))
}

fn condition(when: &BooleanArray) -> BooleanBuffer {
    if when.null_count() > 0 { prep_null_mask_filter(when).values().clone() } else { when.values().clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, TimestampMillisecondArray};

    #[test]
    fn the_first_condition_that_holds_decides() {
        let first: ArrayRef =
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(false), Some(true)]));
        let second: ArrayRef = Arc::new(BooleanArray::from(vec![true, true, true, false, false]));
        let a: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), Some(4), None]));
        let b: ArrayRef = Arc::new(Int64Array::from(vec![10, 20, 30, 40, 50]));
        let c: ArrayRef = Arc::new(Int64Array::from(vec![Some(100), Some(200), Some(300), None, Some(500)]));
        let found = selected::<u64>(&[first, a, second, b], &c).unwrap();
        assert_eq!(found.as_ref(), &Int64Array::from(vec![Some(1), Some(20), Some(30), None, None]) as &dyn Array);
    }

    #[test]
    fn slices_are_read_from_their_start() {
        let mask: ArrayRef = Arc::new(BooleanArray::from(vec![false, true, false]).slice(1, 2));
        let then: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![None, Some(2), Some(3)]).slice(1, 2));
        let otherwise: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![Some(10), Some(20), None]).slice(1, 2));
        let found = selected::<u64>(&[mask, then], &otherwise).unwrap();
        assert_eq!(found.as_ref(), &TimestampMillisecondArray::from(vec![Some(2), None]) as &dyn Array);
    }
}
