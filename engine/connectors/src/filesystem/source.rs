//! The source. Without `source.monitor-interval` it reads the files that are there when the job first starts and ends;
//! a directory must not change while that happens. With it, it goes on with new files and with lines that are appended
//! to known ones; a last line without a newline is then not finished and is waited for.

use super::listing::Listing;
use super::splits::{Head, Part, Parts};
use crate::error::ConnectorError;
use crate::format::{BadRecord, Decoder};
use memchr::memchr;
use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use streamjob_dataflow::{Batch, OperatorContext, OperatorMetrics, OperatorRestore, Source, SourceEvent, TaskError};
use streamjob_state::StateCut;
use xxhash_rust::xxh3::xxh3_64;

const BATCH_ROWS: usize = 8192;
const READ_BYTES: usize = 1 << 20;
const MAX_RECORD_BYTES: usize = 64 << 20;
const HEAD_BYTES: u64 = 256;
const LONGEST_WAIT: Duration = Duration::from_millis(50);

#[derive(Debug, Clone)]
pub(super) struct SourceSettings {
    pub part_bytes: u64,
    /// `None` for a bounded source.
    pub monitor: Option<Duration>,
    /// For the message about a broken record.
    pub ignore_errors_option: &'static str,
}

pub(super) struct FileSource {
    settings: SourceSettings,
    listing: Listing,
    decoder: Decoder,
    parts: Option<Parts>,
    queue: VecDeque<(String, u64)>,
    reading: Option<Reading>,
    /// Unix milliseconds of the last look at the directory.
    listed_at: Option<i64>,
    metrics: Arc<OperatorMetrics>,
}

/// The part being read.
struct Reading {
    key: (String, u64),
    file: File,
    path: PathBuf,
    /// Bytes of the file; those before `start` are decoded.
    buffer: Vec<u8>,
    start: usize,
    /// The buffer reaches the end of the file.
    at_end: bool,
}

impl Reading {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Reads on; `from` is the place in the file of `bytes`.
    fn read_more(&mut self, from: u64, budget: &mut usize) -> Result<(), ConnectorError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let known = self.buffer.len();
        if known > MAX_RECORD_BYTES {
            let path = self.path.clone();
            return Err(ConnectorError::RecordTooLong { path, offset: from, limit: MAX_RECORD_BYTES });
        }
        self.buffer.resize(known + READ_BYTES, 0);
        let read = self.file.read_at(&mut self.buffer[known..], from + known as u64);
        let read = read.map_err(ConnectorError::io("reading", &self.path))?;
        self.buffer.truncate(known + read);
        self.at_end = read == 0;
        *budget = budget.saturating_sub(read);
        Ok(())
    }

    /// Moves an offset in the middle of a file to the first record that begins there: after the first newline from the
    /// byte before it on. The buffer starts with that byte.
    fn align(&mut self, part: &mut Part) {
        if let Some(newline) = memchr(b'\n', self.bytes()) {
            part.offset += newline as u64;
            part.aligned = true;
            self.start += newline + 1;
        }
    }
}

fn not_open() -> TaskError {
    TaskError::Fatal("the filesystem source was used before it was opened".into())
}

impl FileSource {
    pub fn new(settings: SourceSettings, listing: Listing, decoder: Decoder) -> Self {
        FileSource {
            settings,
            listing,
            decoder,
            parts: None,
            queue: VecDeque::new(),
            reading: None,
            listed_at: None,
            metrics: Arc::default(),
        }
    }

    /// Looks for new files and new bytes.
    fn list(&mut self, now_unix_ms: i64) -> Result<(), TaskError> {
        let parts = self.parts.as_mut().ok_or_else(not_open)?;
        let files = self.listing.files().map_err(|error| match error {
            // It was there: it may come back.
            ConnectorError::NoSuchPath { .. } => TaskError::Recoverable(error.to_string()),
            error => error.into(),
        })?;
        parts.update(&files, |name| self.listing.path(name))?;
        self.queue = parts.unread().into();
        self.listed_at = Some(now_unix_ms);
        Ok(())
    }

    /// Opens the next part with unread bytes; `false` if there is none.
    fn next_part(&mut self) -> Result<bool, TaskError> {
        let parts = self.parts.as_mut().ok_or_else(not_open)?;
        while let Some(key) = self.queue.pop_front() {
            let Some((part, _)) = parts.get_mut(&key) else { continue };
            let path = self.listing.path(&part.name);
            let file = open_file(&path, part)?;
            self.reading = Some(Reading { key, file, path, buffer: Vec::new(), start: 0, at_end: false });
            return Ok(true);
        }
        Ok(false)
    }

    /// Decodes what the buffer holds, then reads more. `true` when the part has nothing more to give now. `budget`: bytes
    /// that may still be read.
    fn step(&mut self, budget: &mut usize) -> Result<bool, TaskError> {
        let parts = self.parts.as_mut().ok_or_else(not_open)?;
        let Some(reading) = &mut self.reading else { return Ok(true) };
        let Some((part, limit)) = parts.get_mut(&reading.key) else { return Ok(true) };
        if !part.aligned {
            reading.align(part);
        }
        if part.aligned && part.offset < limit {
            let within = usize::try_from(limit - part.offset).unwrap_or(usize::MAX);
            let last_line_counts = self.settings.monitor.is_none() && reading.at_end;
            let progress = self
                .decoder
                .decode(reading.bytes(), last_line_counts, within, BATCH_ROWS)
                .map_err(|bad| record_error(bad, &reading.path, part, &self.settings))?;
            reading.start += progress.bytes;
            part.offset += progress.bytes as u64;
            part.lines += progress.lines;
            OperatorMetrics::add(&self.metrics.records_skipped, progress.skipped);
        }
        if part.offset >= limit {
            return Ok(true);
        }
        if self.decoder.rows() >= BATCH_ROWS {
            return Ok(false);
        }
        if reading.at_end {
            return Ok(true);
        }
        let from = if part.aligned { part.offset } else { part.offset - 1 };
        reading.read_more(from, budget)?;
        Ok(false)
    }
}

/// Opens a file and makes sure that it is the one that was read before.
fn open_file(path: &Path, part: &mut Part) -> Result<File, ConnectorError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(ConnectorError::FileVanished {
                path: path.to_path_buf(),
                offset: part.offset,
                size: part.size,
            });
        }
        Err(error) => return Err(ConnectorError::io("opening", path)(error)),
    };
    let size = file.metadata().map_err(ConnectorError::io("looking at", path))?.len();
    if size < part.size {
        return Err(ConnectorError::FileShrank { path: path.to_path_buf(), size, known: part.size });
    }
    let head = |bytes: u64| {
        let mut first = vec![0; bytes as usize];
        file.read_exact_at(&mut first, 0).map_err(ConnectorError::io("reading", path))?;
        Ok::<_, ConnectorError>(Head { bytes, hash: xxh3_64(&first) })
    };
    match part.head {
        None => part.head = Some(head(part.size.min(HEAD_BYTES))?),
        Some(known) if head(known.bytes)? != known => {
            return Err(ConnectorError::FileReplaced { path: path.to_path_buf(), offset: part.offset });
        }
        Some(_) => {}
    }
    Ok(file)
}

fn record_error(bad: BadRecord, path: &Path, part: &Part, settings: &SourceSettings) -> ConnectorError {
    ConnectorError::Record {
        path: path.to_path_buf(),
        line: (part.part == 0).then_some(part.lines + bad.lines + 1),
        offset: part.offset + bad.offset as u64,
        reason: bad.reason,
        option: settings.ignore_errors_option,
    }
}

impl Source for FileSource {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        self.metrics = context.metrics.clone();
        let mut parts = Parts::open(self.settings.part_bytes, context, &restore)?;
        if self.settings.monitor.is_none() {
            // A restored bounded source keeps the files of its first start.
            if !parts.restored {
                for file in self.listing.files()? {
                    parts.add(&file);
                }
            }
            self.queue = parts.unread().into();
        } else if !parts.restored {
            // Fails now if there is nothing to watch.
            self.listing.files()?;
        }
        tracing::debug!(
            source = context.name,
            subtask = context.subtask,
            parts = parts.iter().count(),
            "files to read"
        );
        self.parts = Some(parts);
        Ok(())
    }

    fn poll(&mut self, now_unix_ms: i64) -> Result<SourceEvent, TaskError> {
        let mut budget = READ_BYTES;
        while self.decoder.rows() < BATCH_ROWS && (budget > 0 || self.decoder.rows() == 0) {
            if self.reading.is_some() {
                if self.step(&mut budget)? {
                    self.reading = None;
                } else if budget == 0 && self.decoder.rows() == 0 {
                    // A long record: go on with it in the next call.
                    return Ok(SourceEvent::Wait(Duration::ZERO));
                }
                continue;
            }
            if self.next_part()? {
                continue;
            }
            if self.decoder.rows() > 0 {
                break;
            }
            let Some(interval) = self.settings.monitor else { return Ok(SourceEvent::End) };
            let since = self.listed_at.map(|at| Duration::from_millis(now_unix_ms.saturating_sub(at).max(0) as u64));
            match since {
                Some(since) if since < interval => return Ok(SourceEvent::Wait((interval - since).min(LONGEST_WAIT))),
                _ => {
                    self.list(now_unix_ms)?;
                    if self.queue.is_empty() {
                        return Ok(SourceEvent::Wait(interval.min(LONGEST_WAIT)));
                    }
                }
            }
        }
        Ok(SourceEvent::Batch(Batch::inserts(self.decoder.take()?)))
    }

    fn snapshot(&mut self, _checkpoint: u64) -> Result<StateCut, TaskError> {
        Ok(self.parts.as_ref().ok_or_else(not_open)?.snapshot()?)
    }
}
