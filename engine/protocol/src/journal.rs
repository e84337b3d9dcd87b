//! The journal: the one source of truth of a job, a sequence of entries each of which is created only if absent.
//!
//! Here is what entries add up to and who may append. Reading and writing them is the runtime's business.

use crate::ids::{CheckpointId, Millis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use streamjob_api::config::{CheckpointConfig, RestartStrategy};
use thiserror::Error;

/// Number of the first entry.
pub const FIRST_SEQ: u64 = 1;
/// Ended savepoints whose outcome can still be asked for.
const SAVEPOINT_HISTORY: usize = 50;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum JournalEntry {
    /// A coordinator takes the job over. Only the newest claimant may append afterwards.
    Claimed {
        revision: u64,
        /// Unique to the claiming process.
        claimant: String,
        at: Millis,
    },
    /// The checkpoint exists from here on.
    Completed {
        checkpoint: CheckpointId,
        manifest_checksum: u64,
        at: Millis,
    },
    /// The checkpoint will be deleted; written before its files go.
    Discarded {
        checkpoint: CheckpointId,
    },
    /// Somebody asked for a savepoint; written before anything is put into its directory.
    SavepointStarted {
        trigger: String,
        /// Its own directory.
        location: String,
        then: AfterSavepoint,
        at: Millis,
    },
    /// The savepoint exists from here on. If the job stops with it, it is also what the job would go on from.
    SavepointCompleted {
        trigger: String,
        checkpoint: CheckpointId,
        manifest_checksum: u64,
        at: Millis,
    },
    SavepointFailed {
        trigger: String,
        reason: String,
        at: Millis,
    },
    /// A snapshot that the job was started from and now owns.
    Adopted {
        checkpoint: CheckpointId,
        manifest_checksum: u64,
        location: String,
        at: Millis,
    },
    /// The job runs at this parallelism until its next revision.
    Rescaled {
        parallelism: u32,
        at: Millis,
    },
    /// Options that were changed while the job ran, until its next revision.
    Configured {
        checkpoint: CheckpointConfig,
        restart: RestartStrategy,
    },
    /// Ids up to this one may be in use: a successor starts above it, so that no id is ever used twice, not even that
    /// of a checkpoint which never completed.
    Reserved {
        up_to: CheckpointId,
    },
    /// The job reached a terminal state; a later coordinator has nothing to run, unless it claims with a higher revision.
    Ended {
        state: EndState,
        reason: Option<String>,
        at: Millis,
    },
    /// Replaces all entries before it, so that listing stays cheap.
    Compacted {
        state: JournalState,
    },
}

/// What follows once a savepoint is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterSavepoint {
    /// The job was not disturbed: nothing is committed.
    GoOn,
    /// The job finishes; what belongs to the savepoint is committed. `drain`: sources end first, so that all timers fire.
    Stop {
        drain: bool,
    },
    Cancel,
}

impl AfterSavepoint {
    pub fn stops(self) -> bool {
        matches!(self, AfterSavepoint::Stop { .. })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavepointOutcome {
    Started,
    /// Its coordinator was replaced by one of a later revision.
    Abandoned,
    Completed {
        checkpoint: CheckpointId,
    },
    Failed {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointRecord {
    pub trigger: String,
    pub location: String,
    pub then: AfterSavepoint,
    pub at: Millis,
    pub outcome: SavepointOutcome,
    /// Directories of earlier attempts, of which something may be left.
    #[serde(default)]
    pub former: Vec<String>,
}

/// Where a snapshot lies that is not in the job's own storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    pub path: String,
    /// It is deleted like the job's own checkpoints; otherwise it is only read.
    pub owned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndState {
    Finished,
    Canceled,
    Failed,
}

/// What a sequence of entries adds up to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JournalState {
    pub revision: u64,
    pub claimant: Option<String>,
    /// Completed and not discarded, oldest first, with the manifest's checksum.
    pub checkpoints: Vec<(CheckpointId, u64)>,
    /// The highest id ever completed or used.
    pub highest_checkpoint: CheckpointId,
    pub ended: Option<(EndState, Option<String>)>,
    /// Of those in `checkpoints` that lie elsewhere.
    #[serde(default)]
    pub locations: BTreeMap<CheckpointId, Location>,
    /// Oldest first.
    #[serde(default)]
    pub savepoints: Vec<SavepointRecord>,
    /// The job stops with this savepoint: it is never run beyond it.
    #[serde(default)]
    pub stopped: Option<CheckpointId>,
    /// The job is to be cancelled, because the savepoint that was to be taken before is complete.
    #[serde(default)]
    pub cancelled: bool,
    #[serde(default)]
    pub parallelism: Option<u32>,
    #[serde(default)]
    pub configured: Option<(CheckpointConfig, RestartStrategy)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "revision {standing} of the job is claimed by '{claimant}'; revision {refused} is older and may not take over: start \
     a revision of at least {standing}"
)]
pub struct ClaimRefused {
    pub standing: u64,
    pub claimant: String,
    pub refused: u64,
}

impl JournalState {
    /// Adds up entries in order of their number. Starts at the newest compaction: what stands before it is either part
    /// of it or was left by a coordinator that had already been replaced.
    pub fn fold<'a>(entries: impl IntoIterator<Item = &'a JournalEntry>) -> JournalState {
        let mut state = JournalState::default();
        for entry in entries {
            state.apply(entry);
        }
        state
    }

    pub fn apply(&mut self, entry: &JournalEntry) {
        match entry {
            JournalEntry::Claimed { revision, claimant, .. } => {
                if self.may_claim(*revision).is_err() {
                    return;
                }
                if *revision > self.revision {
                    self.ended = None;
                    self.stopped = None;
                    self.cancelled = false;
                    self.parallelism = None;
                    self.configured = None;
                    for savepoint in &mut self.savepoints {
                        if savepoint.outcome == SavepointOutcome::Started {
                            savepoint.outcome = SavepointOutcome::Abandoned;
                        }
                    }
                }
                self.revision = *revision;
                self.claimant = Some(claimant.clone());
            }
            JournalEntry::Completed { checkpoint, manifest_checksum, .. } => {
                self.add(*checkpoint, *manifest_checksum, None);
            }
            JournalEntry::Discarded { checkpoint } => {
                self.checkpoints.retain(|(known, _)| known != checkpoint);
                self.locations.remove(checkpoint);
                // Only a savepoint that turned out to be damaged goes while the job is stopping: it runs on without it.
                self.stopped = self.stopped.filter(|stopped| stopped != checkpoint);
            }
            JournalEntry::SavepointStarted { trigger, location, then, at } => {
                let mut former = Vec::new();
                if let Some(position) = self.savepoints.iter().position(|known| known.trigger == *trigger) {
                    let earlier = self.savepoints.remove(position);
                    former = earlier.former;
                    former.push(earlier.location);
                }
                self.savepoints.push(SavepointRecord {
                    trigger: trigger.clone(),
                    location: location.clone(),
                    then: *then,
                    at: *at,
                    outcome: SavepointOutcome::Started,
                    former,
                });
            }
            JournalEntry::SavepointCompleted { trigger, checkpoint, manifest_checksum, .. } => {
                self.highest_checkpoint = self.highest_checkpoint.max(*checkpoint);
                let Some(record) = self.savepoints.iter_mut().find(|known| known.trigger == *trigger) else { return };
                record.outcome = SavepointOutcome::Completed { checkpoint: *checkpoint };
                self.cancelled |= record.then == AfterSavepoint::Cancel;
                if record.then.stops() {
                    let location = Location { path: record.location.clone(), owned: false };
                    self.add(*checkpoint, *manifest_checksum, Some(location));
                    self.stopped = Some(*checkpoint);
                }
                self.forget_old_savepoints();
            }
            JournalEntry::SavepointFailed { trigger, reason, .. } => {
                if let Some(record) = self.savepoints.iter_mut().find(|known| known.trigger == *trigger) {
                    record.outcome = SavepointOutcome::Failed { reason: reason.clone() };
                }
                self.forget_old_savepoints();
            }
            JournalEntry::Adopted { checkpoint, manifest_checksum, location, .. } => {
                let location = Location { path: location.clone(), owned: true };
                self.add(*checkpoint, *manifest_checksum, Some(location));
            }
            JournalEntry::Rescaled { parallelism, .. } => self.parallelism = Some(*parallelism),
            JournalEntry::Configured { checkpoint, restart } => {
                self.configured = Some((checkpoint.clone(), restart.clone()));
            }
            JournalEntry::Reserved { up_to } => self.highest_checkpoint = self.highest_checkpoint.max(*up_to),
            JournalEntry::Ended { state, reason, .. } => self.ended = Some((*state, reason.clone())),
            JournalEntry::Compacted { state } => *self = state.clone(),
        }
    }

    fn add(&mut self, checkpoint: CheckpointId, checksum: u64, location: Option<Location>) {
        self.checkpoints.retain(|(known, _)| *known != checkpoint);
        let position = self.checkpoints.partition_point(|(known, _)| *known < checkpoint);
        self.checkpoints.insert(position, (checkpoint, checksum));
        self.highest_checkpoint = self.highest_checkpoint.max(checkpoint);
        match location {
            Some(location) => self.locations.insert(checkpoint, location),
            None => self.locations.remove(&checkpoint),
        };
    }

    fn forget_old_savepoints(&mut self) {
        let ended = |record: &SavepointRecord| {
            matches!(record.outcome, SavepointOutcome::Completed { .. } | SavepointOutcome::Failed { .. })
        };
        let mut surplus =
            self.savepoints.iter().filter(|record| ended(record)).count().saturating_sub(SAVEPOINT_HISTORY);
        self.savepoints.retain(|record| {
            let forget = surplus > 0 && ended(record);
            surplus -= usize::from(forget);
            !forget
        });
    }

    /// Whether the job may delete it.
    pub fn owns(&self, checkpoint: CheckpointId) -> bool {
        self.locations.get(&checkpoint).is_none_or(|location| location.owned)
    }

    /// A claim with a lower revision than the standing one is refused; of equal revisions the newer claim wins.
    pub fn may_claim(&self, revision: u64) -> Result<(), ClaimRefused> {
        match &self.claimant {
            Some(claimant) if revision < self.revision => {
                Err(ClaimRefused { standing: self.revision, claimant: claimant.clone(), refused: revision })
            }
            _ => Ok(()),
        }
    }

    /// Whether this claim is the newest, so that its owner may append.
    pub fn stands(&self, revision: u64, claimant: &str) -> bool {
        self.revision == revision && self.claimant.as_deref() == Some(claimant)
    }

    pub fn latest_checkpoint(&self) -> Option<CheckpointId> {
        self.checkpoints.last().map(|(checkpoint, _)| *checkpoint)
    }

    pub fn checksum(&self, checkpoint: CheckpointId) -> Option<u64> {
        self.checkpoints.iter().find(|(known, _)| *known == checkpoint).map(|(_, checksum)| *checksum)
    }
}

/// Whether to write [`JournalEntry::Compacted`]: more than `limit` entries stand since the last one.
pub fn needs_compaction(entries: usize, limit: usize) -> bool {
    entries > limit.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(revision: u64, claimant: &str) -> JournalEntry {
        JournalEntry::Claimed { revision, claimant: claimant.into(), at: 0 }
    }

    fn completed(checkpoint: u64) -> JournalEntry {
        JournalEntry::Completed { checkpoint, manifest_checksum: checkpoint * 10, at: 0 }
    }

    fn started(trigger: &str, then: u8) -> JournalEntry {
        let then = match then {
            0 => AfterSavepoint::GoOn,
            1 => AfterSavepoint::Cancel,
            _ => AfterSavepoint::Stop { drain: false },
        };
        JournalEntry::SavepointStarted { trigger: trigger.into(), location: format!("/s/{trigger}"), then, at: 0 }
    }

    fn saved(trigger: &str, checkpoint: u64) -> JournalEntry {
        JournalEntry::SavepointCompleted { trigger: trigger.into(), checkpoint, manifest_checksum: 7, at: 0 }
    }

    #[test]
    fn a_plain_savepoint_is_no_recovery_point() {
        let state = JournalState::fold(&[claim(1, "a"), completed(4), started("s", 0), saved("s", 5)]);
        assert_eq!(state.checkpoints, [(4, 40)]);
        assert_eq!(state.highest_checkpoint, 5);
        assert_eq!(state.savepoints[0].outcome, SavepointOutcome::Completed { checkpoint: 5 });
        assert_eq!(state.stopped, None);
    }

    #[test]
    fn a_job_that_stops_with_a_savepoint_goes_on_from_it_in_its_next_revision() {
        let entries = [claim(1, "a"), completed(4), started("s", 2), saved("s", 5), ended(EndState::Finished)];
        let mut state = JournalState::fold(&entries);
        assert_eq!(state.stopped, Some(5));
        state.apply(&JournalEntry::Discarded { checkpoint: 4 });
        state.apply(&claim(2, "b"));
        assert_eq!((state.stopped, state.ended.clone()), (None, None));
        assert_eq!(state.checkpoints, [(5, 7)]);
        assert_eq!(state.locations[&5], Location { path: "/s/s".into(), owned: false });
        assert!(!state.owns(5));
        state.apply(&JournalEntry::Discarded { checkpoint: 5 });
        assert!(state.locations.is_empty());
    }

    #[test]
    fn a_new_revision_abandons_savepoints_under_way_and_forgets_live_changes() {
        let live = [started("s", 0), JournalEntry::Rescaled { parallelism: 3, at: 0 }];
        let mut state = JournalState::fold([claim(1, "a")].iter().chain(&live));
        assert_eq!(state.parallelism, Some(3));
        state.apply(&claim(1, "b"));
        assert_eq!((state.parallelism, &state.savepoints[0].outcome), (Some(3), &SavepointOutcome::Started));
        state.apply(&claim(2, "c"));
        assert_eq!((state.parallelism, &state.savepoints[0].outcome), (None, &SavepointOutcome::Abandoned));
    }

    #[test]
    fn only_so_many_ended_savepoints_are_remembered() {
        let mut state = JournalState::fold(&[claim(1, "a"), started("running", 0)]);
        for number in 1..=60u64 {
            state.apply(&started(&format!("t{number}"), 0));
            state.apply(&saved(&format!("t{number}"), number));
        }
        assert_eq!(state.savepoints.len(), SAVEPOINT_HISTORY + 1);
        assert_eq!((state.savepoints[0].trigger.as_str(), state.savepoints[1].trigger.as_str()), ("running", "t11"));
    }

    fn ended(state: EndState) -> JournalEntry {
        JournalEntry::Ended { state, reason: None, at: 0 }
    }

    #[test]
    fn checkpoints_come_and_go() {
        let state = JournalState::fold(&[
            claim(1, "a"),
            completed(1),
            completed(2),
            JournalEntry::Discarded { checkpoint: 1 },
            JournalEntry::Reserved { up_to: 12 },
            completed(3),
        ]);
        assert_eq!(state.checkpoints, [(2, 20), (3, 30)]);
        assert_eq!(state.highest_checkpoint, 12);
        assert_eq!(state.latest_checkpoint(), Some(3));
        assert_eq!(state.checksum(2), Some(20));
        assert_eq!(state.checksum(1), None);
    }

    #[test]
    fn the_newest_claim_of_the_highest_revision_stands() {
        type Claims = &'static [(u64, &'static str)];
        let cases: [(Claims, u64, &str); 4] = [
            (&[(1, "a"), (1, "b")], 1, "b"),
            (&[(1, "a"), (2, "b")], 2, "b"),
            (&[(2, "a"), (1, "b")], 2, "a"),
            (&[(2, "a"), (1, "b"), (2, "c")], 2, "c"),
        ];
        for (claims, revision, claimant) in cases {
            let entries: Vec<_> = claims.iter().map(|(revision, claimant)| claim(*revision, claimant)).collect();
            assert!(JournalState::fold(&entries).stands(revision, claimant), "{claims:?}");
        }
    }

    #[test]
    fn a_lower_revision_is_refused_by_name() {
        let state = JournalState::fold(&[claim(3, "new")]);
        assert_eq!(state.may_claim(2), Err(ClaimRefused { standing: 3, claimant: "new".into(), refused: 2 }));
        assert!(state.may_claim(3).is_ok() && state.may_claim(4).is_ok());
        assert!(JournalState::default().may_claim(0).is_ok());
    }

    #[test]
    fn only_a_higher_revision_reopens_an_ended_job() {
        let entries = [claim(1, "a"), ended(EndState::Failed), claim(1, "b")];
        assert_eq!(JournalState::fold(&entries).ended, Some((EndState::Failed, None)));
        let entries = [claim(1, "a"), ended(EndState::Failed), claim(2, "b")];
        assert_eq!(JournalState::fold(&entries).ended, None);
    }

    #[test]
    fn entries_before_a_compaction_do_not_count() {
        let state = JournalState::fold(&[claim(1, "a"), completed(4)]);
        let stray = [completed(9), JournalEntry::Compacted { state: state.clone() }, completed(5)];
        let folded = JournalState::fold(&stray);
        assert_eq!(folded.checkpoints, [(4, 40), (5, 50)]);
        assert_eq!(folded.highest_checkpoint, 5);
    }

    #[test]
    fn compaction_is_due_above_the_limit() {
        assert!(!needs_compaction(64, 64));
        assert!(needs_compaction(65, 64));
        assert!(!needs_compaction(1, 0), "a compaction right after a compaction would never end");
    }

    fn any_entry() -> impl Strategy<Value = JournalEntry> {
        prop_oneof![
            (0u64..4, "[ab]").prop_map(|(revision, claimant)| claim(revision, &claimant)),
            (1u64..20).prop_map(completed),
            (1u64..20).prop_map(|checkpoint| JournalEntry::Discarded { checkpoint }),
            (1u64..40).prop_map(|up_to| JournalEntry::Reserved { up_to }),
            ("[st]", 0u8..3).prop_map(|(trigger, then)| started(&trigger, then)),
            ("[st]", 1u64..20).prop_map(|(trigger, checkpoint)| saved(&trigger, checkpoint)),
            "[st]".prop_map(|trigger| JournalEntry::SavepointFailed { trigger, reason: "why".into(), at: 0 }),
            (1u64..20).prop_map(|checkpoint| JournalEntry::Adopted {
                checkpoint,
                manifest_checksum: 1,
                location: "elsewhere".into(),
                at: 0
            }),
            (1u32..4).prop_map(|parallelism| JournalEntry::Rescaled { parallelism, at: 0 }),
            Just(ended(EndState::Canceled)),
        ]
    }

    proptest! {
        #[test]
        fn compaction_anywhere_changes_nothing(entries in prop::collection::vec(any_entry(), 0..40), cut in 0usize..40) {
            let cut = cut.min(entries.len());
            let whole = JournalState::fold(&entries);
            let mut compacted = vec![JournalEntry::Compacted { state: JournalState::fold(&entries[..cut]) }];
            compacted.extend_from_slice(&entries[cut..]);
            prop_assert_eq!(JournalState::fold(&compacted), whole.clone());
            let text = serde_json::to_string(&whole).unwrap();
            prop_assert_eq!(serde_json::from_str::<JournalState>(&text).unwrap(), whole.clone());
            prop_assert!(whole.checkpoints.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
