//! Requests of coordinators to the model store: they take time, fail, take effect without an answer, and outlive the
//! process that sent them.

use crate::mutant::Mutant;
use crate::store::{StoredManifest, checksum, files_mut, files_of, is_elsewhere};
use crate::world::{End, World};
use std::collections::BTreeSet;
use std::rc::Rc;
use streamjob_protocol::coordinator::{AppendOutcome, Event, StoreError};
use streamjob_protocol::ids::{CheckpointId, Millis};
use streamjob_protocol::journal::{AfterSavepoint, EndState, JournalEntry, SavepointOutcome};
use streamjob_protocol::manifest::{CheckpointManifest, OperatorState};

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "few of them are alive at once")]
pub enum Request {
    ReadJournal,
    Append {
        seq: u64,
        entry: JournalEntry,
    },
    /// Second half of an append: whether later entries stand, which make it void.
    ListAfterAppend {
        seq: u64,
        unknown: bool,
    },
    Trim {
        before: u64,
    },
    LoadManifest {
        checkpoint: CheckpointId,
        expected: u64,
        location: Option<String>,
    },
    WriteManifest {
        manifest: Box<CheckpointManifest>,
        savepoint: Option<String>,
        parallelism: u32,
    },
    Delete {
        checkpoint: CheckpointId,
        files: Vec<String>,
        location: Option<String>,
    },
    DeleteSavepoint {
        location: String,
    },
    /// Deletes orphans among the listed files and directories; what these checkpoints refer to is kept.
    Sweep {
        checkpoints: Vec<CheckpointId>,
        files: Vec<String>,
        directories: Vec<CheckpointId>,
    },
}

pub struct PendingRequest {
    pub coordinator: usize,
    pub request: Request,
    pub due: Millis,
}

fn unavailable<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("simulated outage".into()))
}

impl World {
    pub fn request(&mut self, coordinator: usize, request: Request) {
        let longest = if self.shared.store_is_slow() { 250 } else { 12 };
        let due = self.shared.now + self.shared.random.between(0, longest);
        self.requests.push(PendingRequest { coordinator, request, due });
    }

    fn answer(&mut self, coordinator: usize, event: Event) {
        let at = self.shared.now + self.shared.random.between(0, 6);
        if self.coordinators[coordinator].alive {
            self.coordinators[coordinator].inbox.push((at, event));
        }
    }

    /// The request reaches the store now.
    pub fn carry_out(&mut self, index: usize) {
        let PendingRequest { coordinator, request, .. } = self.requests.swap_remove(index);
        let fails = self.shared.store_fails();
        // A request that fails may have had its effect.
        let effect = !fails || self.shared.random.once_in(2);
        self.shared.trace(|| {
            let outcome = match (fails, effect) {
                (false, _) => "",
                (true, true) => " (done, no answer)",
                (true, false) => " (fails)",
            };
            let mut text = format!("{request:?}");
            text.truncate(160);
            format!("store: coordinator {coordinator}: {text}{outcome}")
        });
        match request {
            Request::ReadJournal => {
                let listing = self.list();
                self.coordinators[coordinator].listing_of_answer = (!fails).then_some(listing);
                let event = self.read_journal(coordinator, fails);
                self.answer(coordinator, event);
            }
            Request::Append { seq, entry } => self.append(coordinator, seq, entry, fails, effect),
            Request::ListAfterAppend { seq, unknown } => {
                let later = self.shared.store.journal.range(seq + 1..).next().is_some();
                let outcome = if unknown || fails {
                    self.unknown()
                } else if later && !self.shared.is(Mutant::FenceSkipped) {
                    AppendOutcome::Exists
                } else {
                    AppendOutcome::Written
                };
                self.answer(coordinator, Event::JournalAppended { seq, outcome });
            }
            Request::Trim { before } => {
                if effect {
                    let state = self.shared.store.state();
                    self.shared.store.journal.retain(|seq, _| *seq >= before);
                    if self.shared.store.state() != state {
                        self.shared.oracle.violate("I5", format!("trimming below {before} changes the journal"));
                    }
                }
            }
            Request::LoadManifest { checkpoint, expected, location } => {
                let result = if fails { unavailable() } else { self.load_manifest(checkpoint, expected, location) };
                self.answer(coordinator, Event::ManifestLoaded { checkpoint, result });
            }
            Request::WriteManifest { manifest, savepoint: Some(directory), parallelism } => {
                let checkpoint = manifest.checkpoint;
                let written = if effect { self.write_savepoint(*manifest, &directory, parallelism) } else { Ok(0) };
                let result = if fails { unavailable() } else { written };
                self.answer(coordinator, Event::ManifestWritten { checkpoint, result });
            }
            Request::WriteManifest { manifest, savepoint: None, parallelism } => {
                let (checkpoint, checksum) = (manifest.checkpoint, checksum(&manifest));
                if effect {
                    self.shared.oracle.on_manifest(&self.shared.store, &manifest);
                    let stored = StoredManifest { manifest: Rc::from(manifest), checksum, damaged: false, parallelism };
                    self.shared.store.manifests.insert(checkpoint, stored);
                }
                let result = if fails { unavailable() } else { Ok(checksum) };
                self.answer(coordinator, Event::ManifestWritten { checkpoint, result });
            }
            Request::Delete { checkpoint, files, location } => {
                if effect {
                    match location {
                        None => self.delete(checkpoint, files),
                        Some(location) => self.delete_adopted(&location, &files),
                    }
                }
                let result = if fails { unavailable() } else { Ok(()) };
                self.answer(coordinator, Event::CheckpointDeleted { checkpoint, result });
            }
            Request::DeleteSavepoint { location } => {
                if effect && !self.shared.is(Mutant::SavepointLeftBehind) {
                    self.shared.oracle.on_directory_deleted(&location);
                    self.shared.store.delete_directory(&location);
                }
                let result = if fails { unavailable() } else { Ok(()) };
                self.answer(coordinator, Event::SavepointDeleted { location, result });
            }
            Request::Sweep { checkpoints, files, directories } => {
                if !fails {
                    self.sweep(&checkpoints, files, directories);
                }
            }
        }
    }

    fn unknown(&self) -> AppendOutcome {
        if self.shared.is(Mutant::UnknownTakenForWritten) {
            AppendOutcome::Written
        } else {
            AppendOutcome::Unknown("simulated outage".into())
        }
    }

    fn read_journal(&mut self, coordinator: usize, fails: bool) -> Event {
        let mut highest_directory = self.shared.store.highest_directory();
        if fails {
            return Event::JournalRead { result: unavailable(), highest_directory: 0 };
        }
        let mut entries: Vec<(u64, JournalEntry)> =
            self.shared.store.journal.iter().map(|(seq, entry)| (*seq, entry.clone())).collect();
        if self.shared.is(Mutant::CheckpointIdsReused) {
            highest_directory = 0;
            for (_, entry) in &mut entries {
                match entry {
                    JournalEntry::Reserved { up_to } => *up_to = 0,
                    JournalEntry::Compacted { state } => {
                        state.highest_checkpoint = state.latest_checkpoint().unwrap_or(0);
                    }
                    _ => {}
                }
            }
        }
        if self.shared.store.state().claimant.as_ref() != Some(&self.coordinators[coordinator].claimant) {
            self.forget_savepoints(&mut entries);
        }
        if self.shared.is(Mutant::HalfCheckpointRestored) {
            let newest = self.shared.store.state().latest_checkpoint().unwrap_or(0);
            if let (Some((checkpoint, stored)), Some((seq, _))) =
                (self.shared.store.manifests.range(newest + 1..).next_back(), entries.last())
            {
                let (checkpoint, manifest_checksum, seq) = (*checkpoint, stored.checksum, *seq);
                entries.push((seq, JournalEntry::Completed { checkpoint, manifest_checksum, at: 0 }));
            }
        }
        Event::JournalRead { result: Ok(entries), highest_directory }
    }

    fn append(&mut self, coordinator: usize, seq: u64, entry: JournalEntry, fails: bool, effect: bool) {
        let exists = self.shared.store.journal.contains_key(&seq) && !self.shared.is(Mutant::FenceSkipped);
        if effect && !exists {
            let before = self.shared.store.state();
            self.shared.store.journal.insert(seq, entry.clone());
            let after = self.shared.store.state();
            if before != after {
                let process = &self.coordinators[coordinator];
                let writer = (coordinator, process.claimant.as_str());
                let states = (&before, &after);
                self.shared.oracle.on_journal(states, &entry, writer, &self.schedule.jobs, &self.shared.store);
                if before.ended.is_none() && after.ended.is_some() {
                    self.ended_by = Some(coordinator);
                }
                if let (Some((end, _)), None) = (&before.ended, &after.ended) {
                    // One that stopped goes on behind its savepoint.
                    self.ended = None;
                    if before.stopped.is_none() || *end != EndState::Finished {
                        // A newer revision runs the ended job anew, which is another story.
                        self.ended = Some(End::Job(*end));
                        for later in coordinator..self.coordinators.len() {
                            self.end_coordinator(later);
                        }
                    }
                }
            }
        }
        if exists && !fails {
            self.answer(coordinator, Event::JournalAppended { seq, outcome: AppendOutcome::Exists });
        } else {
            self.request(coordinator, Request::ListAfterAppend { seq, unknown: fails });
        }
    }

    fn load_manifest(
        &mut self,
        checkpoint: CheckpointId,
        expected: u64,
        location: Option<String>,
    ) -> Result<Box<CheckpointManifest>, StoreError> {
        let store = &self.shared.store;
        let stored = match &location {
            Some(location) => store.savepoint(location),
            None => store.manifests.get(&checkpoint).cloned(),
        };
        let Some(stored) = stored else {
            return Err(StoreError::Damaged("there is no manifest".into()));
        };
        if stored.damaged || stored.checksum != expected {
            return Err(StoreError::Damaged("the manifest's checksum is another".into()));
        }
        if !store.files_are_whole(&stored.manifest) {
            return Err(StoreError::Damaged("a state file is missing or damaged".into()));
        }
        let mut manifest = CheckpointManifest::clone(&stored.manifest);
        if self.shared.is(Mutant::StateOfOneTaskLost)
            && let Some(subtask) = manifest.operators.first_mut().and_then(|operator| operator.subtasks.get_mut(&0))
        {
            subtask.state = OperatorState::default();
        }
        Ok(Box::new(manifest))
    }

    /// Copies what lies elsewhere, then writes the manifest.
    fn write_savepoint(
        &mut self,
        mut manifest: CheckpointManifest,
        directory: &str,
        parallelism: u32,
    ) -> Result<u64, StoreError> {
        self.shared.oracle.on_savepoint_file(&self.shared.store, directory);
        if !self.shared.is(Mutant::SavepointSharesFiles) {
            for file in files_mut(&mut manifest).filter(|file| file.path.contains('/')) {
                let Some(rows) = self.shared.store.read_file(&file.path) else {
                    return Err(StoreError::Damaged(format!("{} cannot be copied", file.path)));
                };
                *file = self.shared.store.write_savepoint_file(directory, rows);
            }
        }
        let checksum = checksum(&manifest);
        let stored = StoredManifest { manifest: Rc::new(manifest), checksum, damaged: false, parallelism };
        if self.shared.store.savepoints.insert(directory.to_owned(), stored).is_some() {
            self.shared.oracle.violate("savepoint", format!("{directory} is written twice"));
        }
        Ok(checksum)
    }

    /// What a new coordinator does not hear of.
    fn forget_savepoints(&self, entries: &mut Vec<(u64, JournalEntry)>) {
        let forgotten = |then: AfterSavepoint| match self.shared.mutant {
            Some(Mutant::StopForgotten) => then.stops(),
            Some(Mutant::TriggerForgotten) => then == AfterSavepoint::GoOn,
            _ => false,
        };
        let records = self.shared.store.state().savepoints;
        let forgotten: Vec<_> = records
            .into_iter()
            .filter(|record| forgotten(record.then) && matches!(record.outcome, SavepointOutcome::Completed { .. }))
            .collect();
        let names = |trigger: &String| forgotten.iter().any(|record| record.trigger == *trigger);
        for (_, entry) in entries.iter_mut() {
            if let JournalEntry::SavepointStarted { trigger, .. } | JournalEntry::SavepointCompleted { trigger, .. } =
                entry
                && names(trigger)
            {
                *entry = JournalEntry::Reserved { up_to: 0 };
            }
        }
        for (_, entry) in entries {
            if let JournalEntry::Compacted { state } = entry {
                state.savepoints.retain(|record| !names(&record.trigger));
                if let Some(stopped) = state.stopped.filter(|_| self.shared.is(Mutant::StopForgotten)) {
                    state.stopped = None;
                    state.checkpoints.retain(|(checkpoint, _)| *checkpoint != stopped);
                    state.locations.remove(&stopped);
                }
            }
        }
    }

    /// A snapshot elsewhere that the job owns: manifest first, then its files.
    fn delete_adopted(&mut self, location: &str, files: &[String]) {
        self.shared.oracle.on_directory_deleted(location);
        self.shared.oracle.on_delete(&self.shared.store, None, files);
        self.shared.store.savepoints.remove(location);
        for file in files {
            self.shared.store.files.remove(file);
        }
    }

    pub fn delete(&mut self, checkpoint: CheckpointId, mut files: Vec<String>) {
        if self.shared.is(Mutant::SharedFilesDeleted)
            && let Some(stored) = self.shared.store.manifests.get(&checkpoint)
        {
            files.extend(files_of(&stored.manifest).map(|file| file.path.clone()));
        }
        self.shared.oracle.on_delete(&self.shared.store, Some(checkpoint), &files);
        self.shared.store.manifests.remove(&checkpoint);
        for file in files {
            self.shared.store.files.remove(&file);
        }
    }

    /// The journal's answer reaches the coordinator.
    pub fn note_listing(&mut self, coordinator: usize) {
        let process = &mut self.coordinators[coordinator];
        if !process.swept {
            process.listing = process.listing_of_answer.take().or(process.listing.take());
        }
    }

    /// What was listed with the journal, before any successor could have claimed and before the first own task, and
    /// belongs to no checkpoint, is a leftover of others: nothing can come to refer to it any more.
    pub fn request_sweep(&mut self, coordinator: usize) {
        let mut listing = self.coordinators[coordinator].listing.take();
        if self.shared.is(Mutant::SweptWhileTasksRun) {
            listing = Some(self.list());
        }
        let Some((files, directories)) = listing else { return };
        let checkpoints = self.coordinators[coordinator].machine.retained_checkpoints();
        self.coordinators[coordinator].swept = true;
        self.request(coordinator, Request::Sweep { checkpoints, files, directories });
    }

    fn list(&self) -> (Vec<String>, Vec<CheckpointId>) {
        let store = &self.shared.store;
        let own = store.files.keys().filter(|path| !is_elsewhere(path));
        (own.cloned().collect(), store.manifests.keys().copied().collect())
    }

    fn sweep(&mut self, checkpoints: &[CheckpointId], files: Vec<String>, directories: Vec<CheckpointId>) {
        let store = &self.shared.store;
        let mut kept = BTreeSet::new();
        for checkpoint in checkpoints {
            match store.manifests.get(checkpoint) {
                Some(stored) if !stored.damaged => {
                    kept.extend(files_of(&stored.manifest).map(|file| file.path.clone()));
                }
                _ => return,
            }
        }
        let orphans: Vec<String> = files.into_iter().filter(|file| !kept.contains(file)).collect();
        self.shared.oracle.on_delete(&self.shared.store, None, &orphans);
        for file in orphans {
            self.shared.store.files.remove(&file);
        }
        for directory in directories.into_iter().filter(|id| !checkpoints.contains(id)) {
            self.delete(directory, Vec::new());
        }
    }
}
