//! The coordinator's side of the journal: the claim, one append at a time, and what an uncertain outcome means.
//!
//! An entry that was handed to the store is never taken back: nobody can know whether it will turn up. It is repeated at
//! the same number until it is known to stand there, or until a later claim of somebody else is found.

use super::machine::{Backoff, Coordinator, Life};
use super::{Action, AppendOutcome, ExitReason, Report, StoreError};
use crate::ids::{CheckpointId, Millis};
use crate::journal::{FIRST_SEQ, JournalEntry, JournalState, needs_compaction};
use crate::retention::outlives;
use std::collections::VecDeque;

/// A coordinator that has nothing to append looks this often whether its claim still stands.
const CLAIM_CHECK_MS: u64 = 10_000;
/// An entry may vanish between listing and reading because another coordinator trims the journal, so one damaged answer
/// proves nothing.
const DAMAGED_ANSWERS: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    No,
    Asked,
    At(Millis),
}

#[derive(Debug, Clone)]
pub(super) struct JournalWriter {
    pub state: JournalState,
    /// Our claim stood when we last looked.
    pub claimed: bool,
    /// Checkpoint ids that left something in the storage, journaled or not.
    highest_directory: CheckpointId,
    next_seq: u64,
    /// Since the newest compaction, which counts.
    entries: usize,
    outstanding: Option<(u64, JournalEntry)>,
    /// At most a few entries a checkpoint, and checkpoints wait for their entry.
    queue: VecDeque<JournalEntry>,
    reading: Reading,
    backoff: Backoff,
    damaged_answers: u32,
    /// When the claim was last known to stand.
    confirmed_at: Millis,
    /// Answers after which the claim stood.
    confirmations: u64,
    /// Until there are so many, nothing final may be concluded from what the storage lacks.
    confirmations_needed: Option<u64>,
}

impl Default for JournalWriter {
    fn default() -> Self {
        JournalWriter {
            state: JournalState::default(),
            claimed: false,
            highest_directory: 0,
            next_seq: FIRST_SEQ,
            entries: 0,
            outstanding: None,
            queue: VecDeque::new(),
            reading: Reading::No,
            backoff: Backoff::default(),
            damaged_answers: 0,
            confirmed_at: 0,
            confirmations: 0,
            confirmations_needed: None,
        }
    }
}

impl JournalWriter {
    pub fn next_timer(&self) -> Option<Millis> {
        match self.reading {
            Reading::At(at) => Some(at),
            Reading::No => self.claim_check_at(),
            Reading::Asked => None,
        }
    }

    fn claim_check_at(&self) -> Option<Millis> {
        (self.claimed && self.outstanding.is_none()).then_some(self.confirmed_at + CLAIM_CHECK_MS)
    }

    pub fn enqueue(&mut self, entry: JournalEntry) {
        self.queue.push_back(entry);
    }

    /// Such an entry is on its way to the journal.
    pub fn is_pending(&self, such: impl Fn(&JournalEntry) -> bool) -> bool {
        self.outstanding.iter().map(|(_, entry)| entry).chain(&self.queue).any(such)
    }

    /// Nothing is on its way to the journal.
    pub fn is_idle(&self) -> bool {
        self.outstanding.is_none() && self.queue.is_empty()
    }
}

impl Coordinator {
    pub(super) fn read_journal(&mut self) {
        self.journal.reading = Reading::Asked;
        self.push(Action::ReadJournal);
    }

    pub(super) fn on_journal_read(
        &mut self,
        result: Result<Vec<(u64, JournalEntry)>, StoreError>,
        highest_directory: CheckpointId,
    ) {
        if self.journal.reading != Reading::Asked {
            return;
        }
        let entries = match result {
            Ok(entries) => entries,
            Err(StoreError::Unavailable(_))
                if self.journal.claimed
                    && self.journal.outstanding.is_none()
                    && self.journal.confirmations_needed.is_none() =>
            {
                // Only a look at the claim; appends must not wait for the next one.
                self.journal.reading = Reading::No;
                self.journal.confirmed_at = self.now;
                return;
            }
            Err(StoreError::Unavailable(_)) => {
                self.journal.reading = Reading::At(self.now + self.journal.backoff.next());
                return;
            }
            Err(StoreError::Damaged(_)) if self.journal.damaged_answers + 1 < DAMAGED_ANSWERS => {
                self.journal.damaged_answers += 1;
                self.journal.reading = Reading::At(self.now + self.journal.backoff.next());
                return;
            }
            Err(StoreError::Damaged(reason)) => {
                let reason = format!("the journal of job '{}' is damaged: {reason}", self.config.job_id);
                self.abandon(ExitReason::Unrecoverable { reason });
                return;
            }
        };
        let last = entries.last().map_or(FIRST_SEQ - 1, |(seq, _)| *seq);
        if last + 1 < self.journal.next_seq {
            // Older than what is known to stand there: the answer to an earlier question.
            self.journal.reading = Reading::At(self.now + self.journal.backoff.next());
            return;
        }
        self.journal.reading = Reading::No;
        self.journal.damaged_answers = 0;
        self.journal.confirmed_at = self.now;
        self.journal.highest_directory = self.journal.highest_directory.max(highest_directory);
        let start = entries.iter().rposition(|(_, entry)| matches!(entry, JournalEntry::Compacted { .. })).unwrap_or(0);
        let state = JournalState::fold(entries[start..].iter().map(|(_, entry)| entry));
        let (revision, claimant) = (self.config.revision, self.config.claimant.as_str());
        let stands = state.stands(revision, claimant);
        let claimed_before = self.journal.claimed
            || entries
                .iter()
                .any(|(_, entry)| matches!(entry, JournalEntry::Claimed { claimant: by, .. } if by == claimant));
        self.journal.state = state;
        self.journal.next_seq = last + 1;
        self.journal.entries = entries.len() - start;
        if claimed_before && !stands {
            self.fenced();
            return;
        }
        self.journal.confirmations += 1;
        if let Some((seq, entry)) = self.journal.outstanding.take() {
            if entries.iter().any(|(at, found)| *at == seq && *found == entry) {
                self.journal.backoff.reset();
                self.on_entry_written(seq, entry);
            } else if self.journal.claimed {
                self.journal.queue.push_front(entry);
            }
        }
        if stands && !self.journal.claimed {
            self.on_claimed();
        }
        if self.life == Life::Claiming && !self.journal.claimed {
            self.claim();
        }
    }

    fn claim(&mut self) {
        let state = &self.journal.state;
        if state.may_claim(self.config.revision).is_err() {
            self.fenced();
            return;
        }
        if let Some((end, reason)) = state.ended.clone()
            && self.config.revision <= state.revision
            && (outlives(self.config.checkpoint.retention, end)
                || !state.checkpoints.iter().any(|(checkpoint, _)| state.owns(*checkpoint)))
        {
            self.show_savepoints();
            self.ended(end, reason);
            return;
        }
        let entry = JournalEntry::Claimed {
            revision: self.config.revision,
            claimant: self.config.claimant.clone(),
            at: self.unix_now,
        };
        self.append(entry);
    }

    fn append(&mut self, entry: JournalEntry) {
        let seq = self.journal.next_seq;
        self.journal.outstanding = Some((seq, entry.clone()));
        self.push(Action::AppendJournal { seq, entry });
    }

    pub(super) fn on_journal_appended(&mut self, seq: u64, outcome: AppendOutcome) {
        if self.journal.outstanding.as_ref().is_none_or(|(outstanding, _)| *outstanding != seq) {
            return;
        }
        match outcome {
            AppendOutcome::Written => {
                let Some((seq, entry)) = self.journal.outstanding.take() else { return };
                self.journal.state.apply(&entry);
                self.journal.next_seq = seq + 1;
                self.journal.entries += 1;
                self.journal.backoff.reset();
                self.journal.confirmed_at = self.now;
                self.on_entry_written(seq, entry);
            }
            AppendOutcome::Exists if self.journal.backoff.failures() == 0 => {
                self.journal.backoff.next();
                self.read_journal();
            }
            AppendOutcome::Exists if self.journal.reading == Reading::No => {
                self.journal.reading = Reading::At(self.now + self.journal.backoff.next());
            }
            AppendOutcome::Exists => {}
            AppendOutcome::Unknown(_) => {
                if self.journal.reading == Reading::No {
                    self.journal.reading = Reading::At(self.now + self.journal.backoff.next());
                }
            }
        }
    }

    /// The entry stands in the journal; only now may anything follow from it.
    fn on_entry_written(&mut self, seq: u64, entry: JournalEntry) {
        match entry {
            JournalEntry::Claimed { .. } => self.on_claimed(),
            JournalEntry::Completed { checkpoint, .. } => self.on_checkpoint_journaled(checkpoint),
            JournalEntry::Discarded { checkpoint } => self.on_discard_journaled(checkpoint),
            JournalEntry::Reserved { up_to } => self.on_ids_reserved(up_to),
            JournalEntry::Ended { .. } => self.on_end_journaled(),
            JournalEntry::Compacted { .. } => {
                self.journal.entries = 1;
                self.push(Action::TrimJournal { before: seq });
            }
            JournalEntry::SavepointStarted { trigger, .. } => self.on_savepoint_started(&trigger),
            JournalEntry::SavepointCompleted { trigger, checkpoint, .. } => {
                self.on_savepoint_journaled(&trigger, checkpoint);
            }
            JournalEntry::SavepointFailed { trigger, .. } => self.on_savepoint_failure_journaled(&trigger),
            JournalEntry::Adopted { .. } => {}
            JournalEntry::Rescaled { parallelism, .. } => self.on_rescale_journaled(parallelism),
            JournalEntry::Configured { checkpoint, restart } => self.reconfigure(&checkpoint, restart),
        }
    }

    fn on_claimed(&mut self) {
        self.journal.claimed = true;
        let external = self.external.as_ref().map_or(0, |manifest| manifest.checkpoint);
        let known = self.journal.state.highest_checkpoint.max(self.journal.highest_directory);
        self.checkpoints.start_ids_above(known.max(external));
        if let Some((end, reason)) = self.journal.state.ended.clone() {
            self.resume_ending(end, reason);
            return;
        }
        if let Some((checkpoint, restart)) = self.journal.state.configured.clone() {
            self.reconfigure(&checkpoint, restart);
        }
        match self.journal.state.parallelism.filter(|parallelism| *parallelism != self.parallelism) {
            Some(parallelism) => {
                self.life = Life::Planning;
                self.push(Action::Plan { parallelism });
            }
            None => self.begin_work(),
        }
    }

    /// The claim stands and the plan is known.
    pub(super) fn begin_work(&mut self) {
        self.life = Life::Working;
        if let Some(external) = self.config.external_restore.as_ref().filter(|external| external.claim)
            && self.journal.state.checkpoints.is_empty()
        {
            self.journal.enqueue(JournalEntry::Adopted {
                checkpoint: external.manifest.checkpoint,
                manifest_checksum: external.manifest_checksum,
                location: external.location.clone(),
                at: self.unix_now,
            });
        }
        self.recover_savepoints();
        if self.cancel_requested || self.journal.state.cancelled {
            self.request_cancel();
        }
    }

    pub(super) fn fenced(&mut self) {
        let state = &self.journal.state;
        let by = format!("{} (revision {})", state.claimant.as_deref().unwrap_or("nobody"), state.revision);
        self.abandon(ExitReason::Fenced { by });
    }

    /// Whether the claim was seen to stand after this was first asked. What the storage lacks may have been deleted by a
    /// successor, in its right; so a coordinator looks before it declares state lost.
    pub(super) fn claim_still_stands(&mut self) -> bool {
        let asked_before = u64::from(self.journal.reading == Reading::Asked);
        let needed = self.journal.confirmations + asked_before + 1;
        let needed = *self.journal.confirmations_needed.get_or_insert(needed);
        if self.journal.confirmations >= needed {
            return true;
        }
        if self.journal.reading == Reading::No {
            self.read_journal();
        }
        false
    }

    /// Issues the next append, if none is on its way, and repeats reads that are due.
    pub(super) fn advance_journal(&mut self) {
        if let Reading::At(at) = self.journal.reading
            && at <= self.now
        {
            self.read_journal();
        }
        if !self.journal.claimed || self.journal.reading != Reading::No || self.journal.outstanding.is_some() {
            return;
        }
        if let Some(entry) = self.journal.queue.pop_front() {
            self.append(entry);
        } else if needs_compaction(self.journal.entries, self.config.compact_after) {
            let state = self.journal.state.clone();
            self.append(JournalEntry::Compacted { state });
        } else if self.journal.claim_check_at().is_some_and(|at| at <= self.now) {
            self.read_journal();
        }
    }

    pub(super) fn report(&mut self, report: Report) {
        self.push(Action::Report(report));
    }
}
