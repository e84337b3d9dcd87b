//! A sink that shows every change as a line, in Flink's form: `identifier:1> +I[1, Mary, 2020-01-01T00:00]`.
//!
//! A line cannot be taken back, so rows after the last completed checkpoint are shown again after a failure.

use crate::error::ConnectorError;
use crate::options::{Options, optional};
use crate::rows::{Cell, Columns, check_schema};
use crate::text::{
    Fraction, push_date, push_decimal, push_double, push_float, push_integer, push_time, push_timestamp, push_unsigned,
};
use std::io::Write;
use std::sync::Arc;
use streamjob_dataflow::connector::{
    Connector, OptionDoc, SinkGuarantee, SinkSpec, SourceRequest, SourceSpec, TableDefinition,
};
use streamjob_dataflow::{
    Batch, Collector, Instance, Operator, OperatorContext, OperatorRestore, PlanError, RowKind, TaskError,
};

pub(crate) struct PrintConnector;

impl Connector for PrintConnector {
    fn name(&self) -> &'static str {
        "print"
    }

    fn options(&self) -> Vec<OptionDoc> {
        vec![
            optional(
                "print-identifier",
                None,
                "Text before every line; with parallelism above 1 the subtask follows it",
            ),
            optional("standard-error", Some("false"), "Print to standard error instead of standard output"),
        ]
    }

    fn source(&self, request: &SourceRequest) -> Result<SourceSpec, PlanError> {
        Err(PlanError::Table {
            table: request.table.name.clone(),
            message: "connector 'print' is a sink only; nothing can be read from it".into(),
        })
    }

    fn sink(&self, table: &TableDefinition) -> Result<SinkSpec, PlanError> {
        let options = Options::of(table);
        let identifier = options.text("print-identifier").unwrap_or_default().to_string();
        let standard_error = options.flag("standard-error", false)?;
        check_schema(&table.schema).map_err(|message| options.table_error(message))?;
        Ok(SinkSpec {
            factory: Arc::new(move |context| {
                Ok(Instance::Operator(Box::new(PrintSink {
                    prefix: prefix(&identifier, context.subtask, context.parallelism),
                    standard_error,
                    lines: Vec::new(),
                })))
            }),
            guarantee: SinkGuarantee::AtLeastOnce,
            accepts_updates: true,
            state: vec![],
        })
    }
}

/// The identifier, the subtask counted from 1 when there are several, and `> `.
fn prefix(identifier: &str, subtask: u32, parallelism: u32) -> String {
    match (identifier.is_empty(), parallelism > 1) {
        (true, false) => String::new(),
        (true, true) => format!("{}> ", subtask + 1),
        (false, false) => format!("{identifier}> "),
        (false, true) => format!("{identifier}:{}> ", subtask + 1),
    }
}

struct PrintSink {
    prefix: String,
    standard_error: bool,
    lines: Vec<u8>,
}

impl Operator for PrintSink {
    fn open(&mut self, _context: &OperatorContext, _restore: OperatorRestore) -> Result<(), TaskError> {
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _out: &mut dyn Collector) -> Result<(), TaskError> {
        self.lines.clear();
        format_rows(&mut self.lines, &self.prefix, &batch)?;
        // One write for the whole batch: lines of subtasks in one process do not mix.
        let (stream, written) = if self.standard_error {
            ("standard error", std::io::stderr().lock().write_all(&self.lines))
        } else {
            let mut stdout = std::io::stdout().lock();
            ("standard output", stdout.write_all(&self.lines).and_then(|()| stdout.flush()))
        };
        Ok(written.map_err(|source| ConnectorError::Stream { stream, source })?)
    }
}

fn format_rows(out: &mut Vec<u8>, prefix: &str, batch: &Batch) -> Result<(), ConnectorError> {
    let columns = Columns::of(&batch.rows)?;
    for row in 0..batch.len() {
        out.extend_from_slice(prefix.as_bytes());
        push_row(out, batch.kind(row), &columns, row);
        out.push(b'\n');
    }
    Ok(())
}

fn push_row(out: &mut Vec<u8>, kind: RowKind, columns: &Columns<'_>, row: usize) {
    out.extend_from_slice(kind.symbol().as_bytes());
    out.push(b'[');
    for (index, column) in columns.columns.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        push_cell(out, column.cell(row));
    }
    out.push(b']');
}

fn push_cell(out: &mut Vec<u8>, cell: Cell<'_>) {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Boolean(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Cell::Integer(value) => push_integer(out, value),
        Cell::Unsigned(value) => push_unsigned(out, value),
        Cell::Float(value) => push_float(out, value),
        Cell::Double(value) => push_double(out, value),
        Cell::Decimal(value, scale) => push_decimal(out, value, scale.into()),
        Cell::Text(value) => out.extend_from_slice(value.as_bytes()),
        Cell::Bytes(value) => {
            out.push(b'[');
            for (index, byte) in value.iter().enumerate() {
                if index > 0 {
                    out.extend_from_slice(b", ");
                }
                // A Java byte is signed.
                push_integer(out, i64::from(*byte as i8));
            }
            out.push(b']');
        }
        Cell::Date(days) => push_date(out, days.into()),
        Cell::Time(nanos) => push_time(out, nanos, Fraction::Groups),
        Cell::Timestamp { seconds, nanos, instant } => {
            push_timestamp(out, seconds, nanos, b'T', if instant { Fraction::Shortest } else { Fraction::Groups });
            if instant {
                out.push(b'Z');
            }
        }
        Cell::Row(columns, row) => push_row(out, RowKind::Insert, columns, row),
        Cell::List(column, start, end) => {
            out.push(b'[');
            for element in start..end {
                if element > start {
                    out.extend_from_slice(b", ");
                }
                push_cell(out, column.cell(element));
            }
            out.push(b']');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{schema, table};
    use arrow::array::*;
    use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

    #[test]
    fn r65_prefix_names_the_subtask_only_when_there_are_several() {
        assert_eq!(prefix("", 0, 1), "");
        assert_eq!(prefix("", 1, 2), "2> ");
        assert_eq!(prefix("一致性状态统计", 0, 1), "一致性状态统计> ");
        assert_eq!(prefix("用户访问统计", 1, 2), "用户访问统计:2> ");
    }

    #[test]
    fn r65_lines_as_flink_prints_them() {
        let inner = Fields::from(vec![Field::new("x", DataType::Int32, true), Field::new("y", DataType::Utf8, true)]);
        let nested = StructArray::new(
            inner.clone(),
            vec![Arc::new(Int32Array::from(vec![Some(7), None])), Arc::new(StringArray::from(vec!["a", "b"]))],
            Some(vec![true, true].into()),
        );
        let rows = RecordBatch::try_new(
            schema(vec![
                ("user", DataType::Utf8),
                ("count", DataType::Int64),
                ("price", DataType::Decimal128(10, 2)),
                ("at", DataType::Timestamp(TimeUnit::Millisecond, None)),
                ("nested", DataType::Struct(inner)),
            ]),
            vec![
                Arc::new(StringArray::from(vec![Some("Mary"), None])),
                Arc::new(Int64Array::from(vec![1, -2])),
                Arc::new(Decimal128Array::from(vec![150, 5]).with_precision_and_scale(10, 2).unwrap()),
                Arc::new(TimestampMillisecondArray::from(vec![1_577_836_800_000, 1_577_836_801_120])),
                Arc::new(nested),
            ],
        )
        .unwrap();
        let mut out = vec![];
        format_rows(&mut out, "id:1> ", &Batch::changes(rows, vec![0, 1])).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "id:1> +I[Mary, 1, 1.50, 2020-01-01T00:00, +I[7, a]]\n\
             id:1> -U[null, -2, 0.05, 2020-01-01T00:00:01.120, +I[null, b]]\n"
        );
    }

    #[test]
    fn wrong_flag_is_refused() {
        let table = table(schema(vec![]), &[("connector", "print"), ("standard-error", "yes")]);
        let error = PrintConnector.sink(&table).err().unwrap().to_string();
        assert!(error.contains("standard-error") && error.contains("'yes'"), "{error}");
    }
}
