//! Names and result types of the aggregate functions. They are computed by the streaming operators, never by DataFusion.

use crate::types::{Family, describe, family};
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, not_impl_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregate {
    Count,
    Sum,
    Min,
    Max,
    Avg,
}

impl Aggregate {
    fn name(self) -> &'static str {
        match self {
            Aggregate::Count => "COUNT",
            Aggregate::Sum => "SUM",
            Aggregate::Min => "MIN",
            Aggregate::Max => "MAX",
            Aggregate::Avg => "AVG",
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FlinkAggregate {
    aggregate: Aggregate,
    signature: Signature,
}

pub fn aggregate_by_name(name: &str) -> Option<Arc<AggregateUDF>> {
    let aggregate = match name.to_lowercase().as_str() {
        "count" => Aggregate::Count,
        "sum" => Aggregate::Sum,
        "min" => Aggregate::Min,
        "max" => Aggregate::Max,
        "avg" => Aggregate::Avg,
        _ => return None,
    };
    let signature = Signature::user_defined(Volatility::Immutable);
    Some(Arc::new(AggregateUDF::new_from_impl(FlinkAggregate { aggregate, signature })))
}

/// Which of Flink's aggregates a planned function is.
pub fn aggregate_of(function: &AggregateUDF) -> Option<Aggregate> {
    function.inner().downcast_ref::<FlinkAggregate>().map(|flink| flink.aggregate)
}

/// Sums and averages of integers have the argument's type, those of decimals the largest precision.
pub fn aggregate_type(aggregate: Aggregate, argument: &DataType) -> Result<DataType> {
    let numeric = |result: DataType| match family(argument) {
        Family::Number => Ok(result),
        _ => plan_err!("{}: needs a number, found {}", aggregate.name(), describe(argument)),
    };
    match aggregate {
        Aggregate::Count => Ok(DataType::Int64),
        Aggregate::Min | Aggregate::Max => match family(argument) {
            Family::Row | Family::Bytes | Family::Other | Family::Interval | Family::Null => {
                plan_err!("{}: an argument of type {} is not supported", aggregate.name(), describe(argument))
            }
            _ => Ok(argument.clone()),
        },
        Aggregate::Sum => numeric(match argument {
            DataType::Decimal128(_, scale) => DataType::Decimal128(38, *scale),
            other => other.clone(),
        }),
        Aggregate::Avg => numeric(match argument {
            DataType::Decimal128(_, scale) => DataType::Decimal128(38, (*scale).max(6)),
            other => other.clone(),
        }),
    }
}

impl AggregateUDFImpl for FlinkAggregate {
    fn name(&self) -> &str {
        // Queries are matched without regard to case.
        self.aggregate.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [argument] => aggregate_type(self.aggregate, argument),
            other => plan_err!("{}: takes 1 argument, found {}", self.aggregate.name(), other.len()),
        }
    }

    fn is_nullable(&self) -> bool {
        self.aggregate != Aggregate::Count
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.return_type(arg_types)?;
        Ok(arg_types.to_vec())
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("aggregates are computed by the streaming operators")
    }

    fn state_fields(&self, _args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        not_impl_err!("aggregates are computed by the streaming operators")
    }
}
