//! A field of a `ROW`.

use crate::types::describe;
use arrow::array::{Array, ArrayRef, StructArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::cast::as_struct_array;
use datafusion_common::{Result, plan_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// Takes one field out of a row; the field of a null row is null.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RowField {
    pub field: String,
    signature: Signature,
}

/// `row.field`.
pub fn row_field(row: Expr, field: &str) -> Expr {
    let function = RowField { field: field.to_string(), signature: Signature::any(1, Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(function)), vec![row]))
}

impl RowField {
    /// The field that an expression takes, and of what.
    pub fn of(expr: &Expr) -> Option<(&RowField, &Expr)> {
        let Expr::ScalarFunction(function) = expr else { return None };
        let field = function.func.inner().downcast_ref::<RowField>()?;
        Some((field, function.args.first()?))
    }
}

impl ScalarUDFImpl for RowField {
    fn name(&self) -> &str {
        "row_field"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        self.schema_name(args)
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(|row| format!("{}.{}", row.schema_name(), self.field)).collect())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [DataType::Struct(fields)] => match fields.iter().find(|field| *field.name() == self.field) {
                Some(field) => Ok(field.data_type().clone()),
                None => {
                    let known: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
                    plan_err!("there is no field '{}' in the ROW; fields: {}", self.field, known.join(", "))
                }
            },
            [other] => plan_err!("'.{}' needs a ROW before it, found {}", self.field, describe(other)),
            _ => plan_err!("a field is taken of one ROW"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let row = &args.arg_fields[0];
        let data_type = self.return_type(&[row.data_type().clone()])?;
        let nullable = match row.data_type() {
            DataType::Struct(fields) => fields.iter().any(|field| *field.name() == self.field && field.is_nullable()),
            _ => true,
        };
        Ok(Arc::new(Field::new(self.field.as_str(), data_type, nullable || row.is_nullable())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let row = args.args[0].to_array(args.number_rows)?;
        Ok(ColumnarValue::Array(take_field(as_struct_array(&row)?, &self.field)?))
    }
}

/// The child column with the row's nulls applied; copies no values.
pub fn take_field(row: &StructArray, field: &str) -> Result<ArrayRef> {
    let Some(child) = row.column_by_name(field) else {
        return plan_err!("there is no field '{field}' in the ROW");
    };
    match row.nulls() {
        None => Ok(Arc::clone(child)),
        Some(nulls) => {
            let combined = NullBuffer::union(Some(nulls), child.nulls());
            let data = child.to_data().into_builder().nulls(combined).build()?;
            Ok(make_array(data))
        }
    }
}
