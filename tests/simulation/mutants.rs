//! Rules broken on purpose. Each is a change of what a controller does with a plan, or of what the world enforces.

use super::world::{World, metadata};
use streamjob_operator::api::SavepointPhase;
use streamjob_operator::api::status::{OperationKind, OperationStep};
use streamjob_operator::plan::effect::{Child, ChildKind, Deletion, EngineCall, SavepointEffect};
use streamjob_operator::plan::{Effect, Observed, ObservedSavepoint, Plan, plan, plan_savepoint};
use streamjob_operator::resources::{self, read_revision};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// No operation is ever written down.
    NoOperationRecord,
    /// What follows from a status is done before the status is written.
    ActBeforeStatus,
    /// Whoever read an old status overwrites a newer one.
    StatusWithoutVersion,
    /// The engine does not look at claims.
    NoFencing,
    /// The new coordinator takes the old one's revision.
    SameRevision,
    /// An upgrade begins without the job's state.
    FallBackToStateless,
    /// The restore point of a new lineage is forgotten.
    ForgetRestorePoint,
    /// A new lineage does not fence the one before.
    NoReplaces,
    /// The old pods go while the new ones are prepared.
    StopBeforeReady,
    /// The new coordinator is told to take over before the old one is saved.
    ActivateEarly,
    /// A refused spec is not remembered.
    ForgetRejection,
    /// The finalizer goes at once.
    FinalizerFirst,
    /// The finalizer waits for what never comes.
    FinalizerForEver,
    /// Requests are sent once in the life of a controller, and then counted as done.
    AskOnce,
    /// A stop is asked for under another name each time.
    NewTriggers,
    /// Old revisions are left lying about.
    NoGarbage,
    /// The status is written in every pass.
    WriteAlways,
    /// The missing restore point is overlooked.
    IgnoreMissingState,
    /// The savepoint is not made a resource.
    NoSavepointRecord,
    /// A workload keeps the number of pods that somebody gave it.
    IgnoreReplicas,
    /// A savepoint is asked for before its status says so.
    SaveBeforeStatus,
    /// A savepoint is asked for under another name each time.
    NewSavepointTriggers,
    /// Files that the job would go back to are deleted.
    DeleteNeededFiles,
    /// Where a savepoint's files lie is not written down.
    ForgetFiles,
}

impl Mutant {
    pub const ALL: [Mutant; 24] = [
        Mutant::NoOperationRecord,
        Mutant::ActBeforeStatus,
        Mutant::StatusWithoutVersion,
        Mutant::NoFencing,
        Mutant::SameRevision,
        Mutant::FallBackToStateless,
        Mutant::ForgetRestorePoint,
        Mutant::NoReplaces,
        Mutant::StopBeforeReady,
        Mutant::ActivateEarly,
        Mutant::ForgetRejection,
        Mutant::FinalizerFirst,
        Mutant::FinalizerForEver,
        Mutant::AskOnce,
        Mutant::NewTriggers,
        Mutant::NoGarbage,
        Mutant::WriteAlways,
        Mutant::IgnoreMissingState,
        Mutant::NoSavepointRecord,
        Mutant::IgnoreReplicas,
        Mutant::SaveBeforeStatus,
        Mutant::NewSavepointTriggers,
        Mutant::DeleteNeededFiles,
        Mutant::ForgetFiles,
    ];
}

pub struct Mutation {
    mutant: Option<Mutant>,
    asked: Vec<String>,
    triggers: u32,
}

impl Mutation {
    pub fn new(mutant: Option<Mutant>) -> Mutation {
        Mutation { mutant, asked: Vec::new(), triggers: 0 }
    }

    /// A new process.
    pub fn forget(&mut self) {
        self.asked.clear();
    }

    pub fn apply(&mut self, made: Plan, observed: &Observed, world: &World) -> Vec<Effect> {
        let mut effects = made.effects;
        let operation = observed.job.status.as_ref().and_then(|status| status.operation.as_ref());
        let preparing = operation
            .filter(|operation| operation.step == OperationStep::Preparing && operation.from_revision.is_some());
        let Some(mutant) = self.mutant else { return effects };
        match mutant {
            Mutant::StatusWithoutVersion | Mutant::NoFencing => {}
            Mutant::SaveBeforeStatus
            | Mutant::NewSavepointTriggers
            | Mutant::DeleteNeededFiles
            | Mutant::ForgetFiles => {}
            Mutant::IgnoreReplicas => effects.retain(|effect| !matches!(effect, Effect::Scale(_))),
            Mutant::NoOperationRecord => statuses(&mut effects, |status| status.operation = None),
            Mutant::ForgetRejection => statuses(&mut effects, |status| status.rejected = None),
            Mutant::FallBackToStateless => statuses(&mut effects, |status| {
                if let Some(operation) = &mut status.operation
                    && operation.kind == OperationKind::Upgrade
                {
                    operation.job_id = Some("f".repeat(32));
                    operation.restore_point = None;
                }
            }),
            Mutant::ActBeforeStatus => {
                if let Some(Effect::WriteStatus(status)) = effects.first() {
                    let mut next = observed.clone();
                    next.job.status = Some((**status).clone());
                    let mut early = plan(&next, &world.settings, world.now()).effects;
                    early.retain(|effect| !matches!(effect, Effect::WriteStatus(_)));
                    effects.splice(0..0, early);
                }
            }
            Mutant::ForgetRestorePoint => stored(&mut effects, observed, world, |stored| stored.restore_path = None),
            Mutant::NoReplaces => stored(&mut effects, observed, world, |stored| stored.replaces = None),
            Mutant::SameRevision => statuses(&mut effects, |status| {
                let current = observed.job.status.as_ref().and_then(|status| status.current_revision);
                if let (Some(operation), Some(current)) = (&mut status.operation, current)
                    && operation.to_revision.is_some()
                {
                    operation.to_revision = Some(current);
                }
            }),
            Mutant::StopBeforeReady => {
                if let Some(from) = preparing.and_then(|operation| operation.from_revision) {
                    for (kind, name) in [
                        (ChildKind::Deployment, format!("job-c{from}")),
                        (ChildKind::StatefulSet, format!("job-w{from}")),
                    ] {
                        effects.push(Effect::Delete(Deletion { kind, name, uid: None, force: false }));
                    }
                }
            }
            Mutant::ActivateEarly => {
                if let Some(revision) = preparing.and_then(|operation| operation.to_revision) {
                    effects.push(Effect::Engine { revision, call: EngineCall::Activate });
                }
            }
            Mutant::FinalizerFirst => {
                if observed.job.metadata.deletion_timestamp.is_some() {
                    effects = vec![Effect::RemoveFinalizer];
                }
            }
            Mutant::FinalizerForEver => {
                if !world.disposed {
                    effects.retain(|effect| *effect != Effect::RemoveFinalizer);
                }
            }
            Mutant::AskOnce => effects.retain(|effect| {
                let Effect::Engine { revision, call } = effect else { return true };
                let name = format!("{revision}/{call:?}");
                let known = self.asked.contains(&name);
                self.asked.push(name);
                !known
            }),
            Mutant::NewTriggers => {
                for effect in &mut effects {
                    if let Effect::Engine { call: EngineCall::Stop { trigger, .. }, .. } = effect {
                        self.triggers += 1;
                        *trigger = format!("{:032x}", self.triggers);
                    }
                }
            }
            Mutant::NoGarbage => {
                let stops = operation.is_some_and(|operation| operation.step == OperationStep::Stopping);
                effects.retain(|effect| stops || !matches!(effect, Effect::Delete(_)));
            }
            Mutant::WriteAlways => {
                if !effects.iter().any(|effect| matches!(effect, Effect::WriteStatus(_)))
                    && let Some(status) = &observed.job.status
                {
                    let mut status = status.clone();
                    status.state = format!("{} {}", status.state, world.seconds);
                    effects.insert(0, Effect::WriteStatus(Box::new(status)));
                }
            }
            Mutant::IgnoreMissingState => {
                if let Some(operation) = operation
                    && operation.step == OperationStep::Activating
                    && let Some(revision) = operation.to_revision
                {
                    effects.push(Effect::Engine { revision, call: EngineCall::Activate });
                }
            }
            Mutant::NoSavepointRecord => effects.retain(|effect| !matches!(effect, Effect::CreateSavepoint(_))),
        }
        effects
    }
}

impl Mutation {
    pub fn apply_to_savepoint(
        &mut self,
        mut effects: Vec<SavepointEffect>,
        observed: &ObservedSavepoint,
        world: &World,
    ) -> Vec<SavepointEffect> {
        let savepoint = &observed.savepoint;
        match self.mutant {
            Some(Mutant::SaveBeforeStatus) => {
                if let Some(SavepointEffect::WriteStatus(status)) = effects.first() {
                    let mut next = observed.clone();
                    next.savepoint.status = Some((**status).clone());
                    let mut early = plan_savepoint(&next, &world.settings, world.now()).effects;
                    early.retain(|effect| matches!(effect, SavepointEffect::Engine { .. }));
                    effects.splice(0..0, early);
                }
            }
            Some(Mutant::NewSavepointTriggers) => {
                for effect in &mut effects {
                    if let SavepointEffect::Engine { call: EngineCall::Savepoint { trigger, .. }, .. } = effect {
                        self.triggers += 1;
                        *trigger = format!("{:032x}", self.triggers);
                    }
                }
            }
            Some(Mutant::DeleteNeededFiles) => {
                let complete = savepoint.status.as_ref().filter(|status| status.phase == SavepointPhase::Completed);
                if let Some(status) = complete.filter(|_| savepoint.metadata.deletion_timestamp.is_some()) {
                    let mut status = status.clone();
                    status.phase = SavepointPhase::Deleting;
                    effects = vec![SavepointEffect::WriteStatus(Box::new(status))];
                }
            }
            Some(Mutant::ForgetFiles) => {
                for effect in &mut effects {
                    if let SavepointEffect::WriteStatus(status) = effect {
                        status.files = None;
                    }
                }
            }
            _ => {}
        }
        effects
    }
}

fn statuses(effects: &mut [Effect], change: impl Fn(&mut streamjob_operator::api::StreamJobStatus)) {
    for effect in effects {
        if let Effect::WriteStatus(status) = effect {
            change(status);
        }
    }
}

/// Changes what is stored of a revision, and so what its pods are made from.
fn stored(effects: &mut [Effect], observed: &Observed, world: &World, change: impl Fn(&mut resources::StoredRevision)) {
    for effect in effects {
        let Effect::Create(child) = effect else { continue };
        let Child::ControllerRevision(revision) = child else { continue };
        assert!(metadata(&Child::ControllerRevision(revision.clone())).name.is_some());
        let mut stored = read_revision(revision).unwrap();
        change(&mut stored);
        let changed = stored.of(&observed.job, &world.settings);
        *child = Child::ControllerRevision(Box::new(resources::controller_revision(&changed)));
    }
}
