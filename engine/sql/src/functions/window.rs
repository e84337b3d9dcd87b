//! The columns that the window table functions add: start, end and time of the window a row falls into.

use crate::position::Position;
use arrow::array::{Array, PrimitiveArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use datafusion_common::cast::as_timestamp_millisecond_array;
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// Windows of fixed size, one after the other. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowSpec {
    pub size: i64,
    /// Start of a window, anywhere on the time line.
    pub offset: i64,
}

impl WindowSpec {
    /// Start of the window that holds `time`.
    pub fn start_of(self, time: i64) -> i64 {
        time - (time - self.offset).rem_euclid(self.size)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowEdge {
    Start,
    End,
    /// The last millisecond of the window; it is a time attribute.
    Time,
}

/// An edge of the window that holds the argument, which must be a time attribute.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct WindowBoundary {
    pub edge: WindowEdge,
    pub spec: WindowSpec,
    /// Of the table function, for messages.
    pub position: Position,
    signature: Signature,
}

pub fn window_boundary(edge: WindowEdge, spec: WindowSpec, position: Position, time: Expr) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    let function = ScalarUDF::new_from_impl(WindowBoundary { edge, spec, position, signature });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![time]))
}

impl WindowBoundary {
    /// The boundary that an expression computes, and of which time.
    pub fn of(expr: &Expr) -> Option<(&WindowBoundary, &Expr)> {
        let Expr::ScalarFunction(function) = expr else { return None };
        let boundary = function.func.inner().downcast_ref::<WindowBoundary>()?;
        Some((boundary, function.args.first()?))
    }
}

impl ScalarUDFImpl for WindowBoundary {
    fn name(&self) -> &str {
        match self.edge {
            WindowEdge::Start => "window_start",
            WindowEdge::End => "window_end",
            WindowEdge::Time => "window_time",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match (arg_types, self.edge) {
            ([DataType::Timestamp(TimeUnit::Millisecond, _)], WindowEdge::Time) => Ok(arg_types[0].clone()),
            // Start and end are local times, also of windows over instants; the session's zone is UTC.
            ([DataType::Timestamp(TimeUnit::Millisecond, _)], _) => {
                Ok(DataType::Timestamp(TimeUnit::Millisecond, None))
            }
            _ => plan_err!("a window is made of a time attribute of type TIMESTAMP(3)"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let time = args.args[0].to_array(args.number_rows)?;
        let time = as_timestamp_millisecond_array(&time)?;
        if time.null_count() > 0 {
            return exec_err!("the time attribute of a window is null; filter such rows out before the window");
        }
        let spec = self.spec;
        let result: PrimitiveArray<TimestampMillisecondType> = match self.edge {
            WindowEdge::Start => time.unary(|time| spec.start_of(time)),
            WindowEdge::End => time.unary(|time| spec.start_of(time) + spec.size),
            WindowEdge::Time => {
                let last: PrimitiveArray<_> = time.unary(|time| spec.start_of(time) + spec.size - 1);
                last.with_data_type(time.data_type().clone())
            }
        };
        Ok(ColumnarValue::Array(Arc::new(result)))
    }
}
