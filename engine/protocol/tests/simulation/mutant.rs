//! Rules broken on purpose, in what surrounds the product's machines: each has to be found by the simulator.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A journal entry is written over one that exists.
    FenceSkipped,
    /// The answer that nobody knows whether an entry was written is taken for a yes.
    UnknownTakenForWritten,
    /// A task acknowledges when its state is cut, not when it is written.
    AckBeforeWrite,
    /// Sinks hear of a completed checkpoint before its journal entry is written.
    CommitBeforeJournal,
    /// A manifest without its journal entry counts as a checkpoint.
    HalfCheckpointRestored,
    /// The state of one task is missing from what is restored.
    StateOfOneTaskLost,
    /// A task keeps the wrong key groups after a restore.
    WrongKeyGroups,
    /// All files of a discarded checkpoint go, also those that a newer one refers to.
    SharedFilesDeleted,
    /// A manifest goes before the journal says so.
    DeletedBeforeJournal,
    /// Aligned channels are read on.
    AlignedChannelsNotBlocked,
    /// A source notes its position when its state is written, not at the barrier.
    SourcePositionAfterBarrier,
    /// A barrier overtakes the record in front of it.
    BarrierOvertakesRecord,
    /// A sink shows its output at the barrier.
    CommitAtBarrier,
    /// What a restored sink had closed is not committed.
    RestoredCommitsDropped,
    /// What a sink wrote after the last barrier is committed when its task is stopped.
    OpenOutputCommitted,
    /// A new coordinator does not know which checkpoint ids were used.
    CheckpointIdsReused,
    /// Messages of earlier deployments are taken for those of the current one.
    StaleDeploymentAccepted,
    /// A drained task ends without a checkpoint that covers its end.
    FinalCheckpointSkipped,
    /// Files of several former subtasks are kept as one chain, without their key groups.
    ChainKeptThroughRescaling,
    /// Orphans are looked for after every restore, while tasks write files that no checkpoint refers to yet.
    SweptWhileTasksRun,
    /// Dirty keys of a cut that could not be written are forgotten.
    FailedDeltaForgotten,
    /// A plain savepoint commits.
    SavepointCommits,
    /// A savepoint refers to files of checkpoints.
    SavepointSharesFiles,
    /// A checkpoint that completes takes the place of an older savepoint.
    SavepointSubsumed,
    /// Nobody writes down that a savepoint begins.
    SavepointNotJournaled,
    /// What a failed savepoint wrote stays where it is.
    SavepointLeftBehind,
    /// Sources send on behind a last barrier.
    SentBehindLastBarrier,
    /// Sources that waited behind a last barrier do not go on when it comes to nothing.
    HeldForEver,
    /// Tasks end with the job's last savepoint, but do not commit.
    StoppedWithoutCommit,
    /// A new coordinator does not know that the job has stopped.
    StopForgotten,
    /// A task that is only to commit and to end goes on.
    StoppedRestoreGoesOn,
    /// Files of a savepoint that the job went on from go with its checkpoints.
    ForeignFilesDeleted,
    /// Nobody writes down another parallelism.
    RescaleNotJournaled,
    /// Another plan is deployed while tasks of the former still run.
    PlanSwappedTooEarly,
    /// A request that is repeated is another request to a new coordinator.
    TriggerForgotten,
}

pub const ALL: [Mutant; 35] = [
    Mutant::FenceSkipped,
    Mutant::UnknownTakenForWritten,
    Mutant::AckBeforeWrite,
    Mutant::CommitBeforeJournal,
    Mutant::HalfCheckpointRestored,
    Mutant::StateOfOneTaskLost,
    Mutant::WrongKeyGroups,
    Mutant::SharedFilesDeleted,
    Mutant::DeletedBeforeJournal,
    Mutant::AlignedChannelsNotBlocked,
    Mutant::SourcePositionAfterBarrier,
    Mutant::BarrierOvertakesRecord,
    Mutant::CommitAtBarrier,
    Mutant::RestoredCommitsDropped,
    Mutant::OpenOutputCommitted,
    Mutant::CheckpointIdsReused,
    Mutant::StaleDeploymentAccepted,
    Mutant::FinalCheckpointSkipped,
    Mutant::ChainKeptThroughRescaling,
    Mutant::SweptWhileTasksRun,
    Mutant::FailedDeltaForgotten,
    Mutant::SavepointCommits,
    Mutant::SavepointSharesFiles,
    Mutant::SavepointSubsumed,
    Mutant::SavepointNotJournaled,
    Mutant::SavepointLeftBehind,
    Mutant::SentBehindLastBarrier,
    Mutant::HeldForEver,
    Mutant::StoppedWithoutCommit,
    Mutant::StopForgotten,
    Mutant::StoppedRestoreGoesOn,
    Mutant::ForeignFilesDeleted,
    Mutant::RescaleNotJournaled,
    Mutant::PlanSwappedTooEarly,
    Mutant::TriggerForgotten,
];
