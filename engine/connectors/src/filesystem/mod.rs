//! Tables in files. The source reads directories of JSON lines or CSV, once or as files arrive, with its exact position
//! in checkpoints; the sink writes each row exactly once.

mod commit;
mod listing;
mod sink;
mod source;
mod splits;

use crate::format::{self, Decoder, Encoder, Format};
use crate::options::{Options, optional, required};
use crate::rows::check_schema;
use listing::Listing;
use regex::Regex;
use sink::{FileSink, SinkSettings};
use source::{FileSource, SourceSettings};
use std::path::PathBuf;
use std::sync::Arc;
use streamjob_dataflow::connector::{
    Connector, OptionDoc, SinkGuarantee, SinkSpec, SourceRequest, SourceSpec, TableDefinition,
};
use streamjob_dataflow::{Instance, PlanError, TaskError};
use streamjob_protocol::manifest::Redistribution;
use streamjob_protocol::plan::StateTable;

/// Files of formats whose records are single lines are read in parts of this size, by different subtasks.
const PART_BYTES: u64 = 16 << 20;
const DEFAULT_FILE_SIZE: u64 = 128 << 20;

pub(crate) struct FilesystemConnector;

impl Connector for FilesystemConnector {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn options(&self) -> Vec<OptionDoc> {
        let mut docs = vec![
            required(
                "path",
                "File or directory; directories are read with their subdirectories, without names that begin with '.' \
                 or '_'",
            ),
            optional(
                "source.monitor-interval",
                None,
                "How often to look for new files and new lines; without it the source reads what is there and ends",
            ),
            optional("source.path.regex-pattern", None, "Only files whose whole path matches are read"),
            optional(
                "sink.rolling-policy.file-size",
                Some("128MB"),
                "A file that is larger is closed; every checkpoint closes the current file too",
            ),
            optional(
                "sink.changelog",
                Some("false"),
                "'true' takes updating results too and writes the kind of each change (+I, -U, +U, -D) in a first field \
                 'op'; not in Flink",
            ),
        ];
        docs.extend(format::options());
        docs
    }

    fn source(&self, request: &SourceRequest) -> Result<SourceSpec, PlanError> {
        let options = Options::of(&request.table);
        let format = Format::of(options)?;
        let root = path(options)?;
        let pattern = options.parsed("source.path.regex-pattern", |pattern| {
            Regex::new(&format!("^(?:{pattern})$")).map_err(|error| format!("'{pattern}' is no pattern: {error}"))
        })?;
        let monitor = options.duration("source.monitor-interval")?;
        if monitor.is_some_and(|interval| interval.is_zero()) {
            return Err(options.error("source.monitor-interval", "must be longer than nothing"));
        }
        let schema = request.table.schema.clone();
        let required = request.required.clone();
        // Made once here, so that a type that cannot be read is found before the job starts.
        Decoder::new(format.clone(), schema.clone(), required.as_ref())
            .map_err(|message| options.table_error(message))?;
        let listing = Listing { root, pattern };
        Ok(SourceSpec {
            factory: Arc::new(move |_| {
                let settings = SourceSettings {
                    part_bytes: if format.one_line_records() { PART_BYTES } else { u64::MAX },
                    monitor,
                    ignore_errors_option: match format {
                        Format::Json(_) => "json.ignore-parse-errors",
                        Format::Csv(_) => "csv.ignore-parse-errors",
                    },
                };
                let decoder =
                    Decoder::new(format.clone(), schema.clone(), required.as_ref()).map_err(TaskError::Fatal)?;
                Ok(Instance::Source(Box::new(FileSource::new(settings, listing.clone(), decoder))))
            }),
            replayable: true,
            bounded: monitor.is_none(),
            max_parallelism: None,
            state: vec![StateTable::list(splits::STATE, Redistribution::Union)],
        })
    }

    fn sink(&self, table: &TableDefinition) -> Result<SinkSpec, PlanError> {
        let options = Options::of(table);
        let format = Format::of(options)?;
        let directory = path(options)?;
        let changelog = options.flag("sink.changelog", false)?;
        check_schema(&table.schema).map_err(|message| options.table_error(message))?;
        if changelog && table.schema.field_with_name(format::CHANGELOG_FIELD).is_ok() {
            return Err(options.error("sink.changelog", "adds a field 'op', but the table has such a column already"));
        }
        let settings = SinkSettings {
            directory,
            roll_bytes: options.memory("sink.rolling-policy.file-size", DEFAULT_FILE_SIZE)?.max(1),
        };
        let schema = table.schema.clone();
        Ok(SinkSpec {
            factory: Arc::new(move |context| {
                let encoder = Encoder::new(format.clone(), &schema, changelog);
                Ok(Instance::Operator(Box::new(FileSink::new(settings.clone(), encoder, context))))
            }),
            guarantee: SinkGuarantee::ExactlyOnce,
            accepts_updates: changelog,
            state: [sink::PENDING, sink::RUN].map(|name| StateTable::list(name, Redistribution::Union)).into(),
        })
    }
}

fn path(options: Options<'_>) -> Result<PathBuf, PlanError> {
    let text = options.text("path").unwrap_or_default();
    let path = match text.split_once(':') {
        Some(("file", rest)) => match rest.strip_prefix("//") {
            // An empty host.
            Some(rest) if rest.starts_with('/') => rest,
            Some(_) => return Err(options.error("path", format!("'{text}' names a host; write file:///…"))),
            None => rest,
        },
        Some((scheme, rest)) if rest.starts_with("//") => {
            return Err(options.error("path", format!("the scheme '{scheme}' is not supported; only local paths are")));
        }
        _ => text,
    };
    if path.is_empty() {
        return Err(options.error("path", "is empty"));
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod sink_tests;
#[cfg(test)]
mod source_tests;
