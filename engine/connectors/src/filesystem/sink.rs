//! The sink. Rows go to files that nobody sees; a barrier closes the current file, the checkpoint's state names it, and
//! the completed checkpoint renames it. So a file holds rows of one checkpoint interval of one subtask only.
//!
//! The pending files of all subtasks are union list state. Each subtask commits, when it is restored, those it answers
//! for, and removes what the restored checkpoint does not know: unfinished files of its dead attempts, and visible files of
//! later checkpoints. The source sends those rows again.

use super::commit::{FileNames, PendingFile, Swept, commit, sweep, sync_directory};
use crate::error::ConnectorError;
use crate::format::Encoder;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use streamjob_dataflow::{Batch, Collector, Operator, OperatorContext, OperatorRestore, TaskError};
use streamjob_protocol::manifest::{ListStateHandle, Redistribution};
use streamjob_protocol::two_phase::PendingCommits;
use streamjob_state::{Cut, StateCut};

pub(super) const PENDING: &str = "pending-files";
pub(super) const RUN: &str = "run";
const WRITE_BYTES: usize = 256 << 10;

#[derive(Debug, Clone)]
pub(super) struct SinkSettings {
    pub directory: PathBuf,
    pub roll_bytes: u64,
}

pub(super) struct FileSink {
    settings: SinkSettings,
    encoder: Encoder,
    checkpointing: bool,
    names: FileNames,
    current: Option<OpenFile>,
    /// Names of the files closed since the last barrier.
    closed: Vec<String>,
    pending: PendingCommits<PendingFile>,
    buffer: Vec<u8>,
}

struct OpenFile {
    name: String,
    path: PathBuf,
    file: File,
    written: u64,
}

impl FileSink {
    pub fn new(settings: SinkSettings, encoder: Encoder, context: &OperatorContext) -> Self {
        FileSink {
            settings,
            encoder,
            checkpointing: context.checkpointing,
            names: FileNames::new(context, BTreeSet::new()),
            current: None,
            closed: Vec::new(),
            pending: PendingCommits::default(),
            buffer: Vec::new(),
        }
    }

    fn write_buffer(&mut self) -> Result<(), ConnectorError> {
        let current = match &mut self.current {
            Some(current) => current,
            None => {
                let name = self.names.next_file();
                let path = self.settings.directory.join(&name);
                let file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(&path)
                    .map_err(ConnectorError::io("creating", &path))?;
                self.current.insert(OpenFile { name, path, file, written: 0 })
            }
        };
        current.file.write_all(&self.buffer).map_err(ConnectorError::io("writing", &current.path))?;
        current.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Everything written so far is on disk afterwards, in files that are complete.
    fn close_file(&mut self) -> Result<(), ConnectorError> {
        if !self.buffer.is_empty() {
            self.write_buffer()?;
        }
        if let Some(current) = &self.current {
            current.file.sync_all().map_err(ConnectorError::io("syncing", &current.path))?;
        }
        self.closed.extend(self.current.take().map(|current| current.name));
        Ok(())
    }

    fn open_files(&mut self, context: &OperatorContext, restore: &OperatorRestore) -> Result<(), ConnectorError> {
        let directory = &self.settings.directory;
        fs::create_dir_all(directory).map_err(ConnectorError::io("creating directory", directory))?;
        let list = |state| restore.lists.get(state).map(Vec::as_slice).unwrap_or_default();
        let runs = list(RUN).iter().map(String::deserialize).collect::<Result<BTreeSet<_>, _>>();
        let runs = runs.map_err(|source| ConnectorError::State { state: RUN, source })?;
        self.names = FileNames::new(context, runs);
        let names = &self.names;
        let mut restored = PendingCommits::<PendingFile>::from_entries(list(PENDING))?;
        let all: BTreeSet<String> = restored.iter().map(|(_, file)| file.temporary.clone()).collect();
        let committed = restored.commit_restored(|_, file| match names.answers_for(file.subtask) {
            true => commit(directory, file),
            // Another subtask commits it.
            false => Ok(()),
        })?;
        let swept = sweep(directory, names, &all, restore.checkpoint)?;
        if swept.undone > 0 {
            tracing::warn!(
                directory = %directory.display(),
                files = swept.undone,
                checkpoint = restore.checkpoint,
                "removed files of checkpoints after the restored one; their rows come again"
            );
        }
        if committed > 0 || swept != Swept::default() {
            sync_directory(directory)?;
        }
        self.check_writable()
    }

    /// Fails now rather than at the first row.
    fn check_writable(&mut self) -> Result<(), ConnectorError> {
        let probe = self.settings.directory.join(self.names.next_file());
        File::create(&probe).map_err(ConnectorError::io("creating", &probe))?;
        fs::remove_file(&probe).map_err(ConnectorError::io("removing", &probe))
    }

    fn pre_commit(&mut self, checkpoint: u64) {
        for name in self.closed.drain(..) {
            self.pending.pre_commit(checkpoint, self.names.pending(name, checkpoint));
        }
    }

    fn commit_through(&mut self, checkpoint: u64) -> Result<(), ConnectorError> {
        let directory = &self.settings.directory;
        if self.pending.commit_through(checkpoint, |_, file| commit(directory, file))? > 0 {
            sync_directory(directory)?;
        }
        Ok(())
    }
}

/// Restarting does not help against a directory that was never writable.
fn open_error(error: ConnectorError, restored: bool) -> TaskError {
    let hopeless = |kind| {
        matches!(
            kind,
            ErrorKind::PermissionDenied
                | ErrorKind::NotADirectory
                | ErrorKind::AlreadyExists
                | ErrorKind::ReadOnlyFilesystem
        )
    };
    match &error {
        ConnectorError::Io { source, .. } if !restored && hopeless(source.kind()) => {
            TaskError::Fatal(error.to_string())
        }
        _ => error.into(),
    }
}

impl Operator for FileSink {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        self.open_files(context, &restore).map_err(|error| open_error(error, restore.checkpoint.is_some()))
    }

    fn process(&mut self, _input: usize, batch: Batch, _out: &mut dyn Collector) -> Result<(), TaskError> {
        self.encoder.encode(&batch, &mut self.buffer)?;
        let size = self.current.as_ref().map_or(0, |current| current.written) + self.buffer.len() as u64;
        if size >= self.settings.roll_bytes {
            self.close_file()?;
        } else if self.buffer.len() >= WRITE_BYTES {
            self.write_buffer()?;
        }
        Ok(())
    }

    fn before_barrier(&mut self, checkpoint: u64, _out: &mut dyn Collector) -> Result<(), TaskError> {
        self.close_file()?;
        if !self.closed.is_empty() {
            // The files' names have to survive too before the checkpoint counts on them.
            sync_directory(&self.settings.directory)?;
        }
        self.pre_commit(checkpoint);
        Ok(())
    }

    fn snapshot(&mut self, _checkpoint: u64, _cut: Cut) -> Result<StateCut, TaskError> {
        let state = |source| ConnectorError::State { state: PENDING, source };
        let list =
            |name: &str, entries| ListStateHandle { name: name.into(), redistribution: Redistribution::Union, entries };
        Ok(StateCut {
            keyed: vec![],
            lists: vec![
                list(PENDING, self.pending.to_entries().map_err(state)?),
                list(RUN, vec![self.names.run().into()]),
            ],
        })
    }

    fn checkpoint_complete(&mut self, checkpoint: u64) -> Result<(), TaskError> {
        Ok(self.commit_through(checkpoint)?)
    }

    fn finish(&mut self, _out: &mut dyn Collector) -> Result<(), TaskError> {
        self.close_file()?;
        if !self.checkpointing {
            self.pre_commit(0);
            self.commit_through(0)?;
        }
        Ok(())
    }
}

impl Drop for FileSink {
    /// Files that no barrier covered belong to no checkpoint: their rows come again.
    fn drop(&mut self) {
        let closed = self.closed.iter().map(|name| self.settings.directory.join(name));
        let open = self.current.iter().map(|current| current.path.clone());
        for path in closed.chain(open) {
            remove_quietly(&path);
        }
    }
}

/// A file that cannot be removed is swept by the next attempt.
fn remove_quietly(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "left an unfinished file");
    }
}
