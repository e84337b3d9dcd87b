//! What a seed stands for: a job, its configuration, and the faults that hit it.

use crate::job::Job;
use crate::shared::Dice;
use std::rc::Rc;
use streamjob_api::config::{
    CheckpointConfig, CheckpointMode, Compression, FailoverStrategy, RestartStrategy, Retention,
};
use streamjob_protocol::ids::Millis;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    CrashWorker,
    CrashCoordinator,
    CrashAll,
    /// Coordinator and workers go on, but whoever supervises them cannot see them and starts others.
    Isolate,
    /// As `Isolate`, and they are stopped for a while.
    Freeze,
    FreezeWorker,
    /// Nothing passes between the coordinator and one worker for a while.
    StallLink,
    FailTask,
    Outage,
    SlowStore,
    DamageManifest,
    DamageFile,
    RequestCheckpoint,
    Suspend,
    Cancel,
    Savepoint,
    Stop,
    Drain,
    CancelWithSavepoint,
    Rescale,
    Reconfigure,
    /// An earlier request once more, under the same name.
    RepeatRequest,
}

pub struct Schedule {
    /// The job as it is started, and with other parallelisms.
    pub jobs: Vec<Rc<Job>>,
    pub checkpoint: CheckpointConfig,
    pub restart: RestartStrategy,
    pub failover: FailoverStrategy,
    pub compact_after: usize,
    /// Worker processes that are kept running.
    pub workers: usize,
    pub slots_per_worker: u32,
    /// A worker that hears nothing for this long stops its tasks.
    pub heartbeat_ms: Millis,
    /// By step of the simulation.
    pub faults: Vec<(u32, Fault)>,
    /// From here on nothing fails any more.
    pub healed_at: u32,
}

/// Latest step at which a fault strikes.
const LAST_FAULT: u64 = 700;

impl Schedule {
    pub fn of_seed(dice: &mut Dice) -> Schedule {
        let job = Job::generate(dice.raw());
        let mut jobs = vec![Rc::clone(&job)];
        if dice.once_in(2) {
            jobs.push(job.rescaled(dice.raw()));
            jobs.push(job.rescaled(dice.raw()));
        }
        let checkpoint = CheckpointConfig {
            interval_ms: Some(dice.between(12, 80)),
            mode: if dice.once_in(10) { CheckpointMode::AtLeastOnce } else { CheckpointMode::ExactlyOnce },
            timeout_ms: dice.between(100, 500),
            min_pause_ms: dice.choose(&[0, 0, 10, 40]).unwrap_or(0),
            max_concurrent: dice.choose(&[1, 1, 2, 3]).unwrap_or(1),
            tolerable_failures: dice.choose(&[0, 1, u32::MAX]).unwrap_or(0),
            retention: dice
                .choose(&[Retention::RetainOnCancellation, Retention::DeleteOnCancellation, Retention::None])
                .unwrap_or(Retention::None),
            retained: dice.between(1, 3) as u32,
            incremental: !dice.once_in(4),
            compression: Compression::None,
        };
        let restart = if dice.once_in(3) {
            RestartStrategy::ExponentialDelay {
                initial_backoff_ms: 5,
                max_backoff_ms: 60,
                backoff_multiplier: 1.5,
                reset_backoff_threshold_ms: 500,
                jitter_factor: 0.2,
                attempts_before_reset: u32::MAX,
            }
        } else {
            RestartStrategy::FixedDelay { attempts: u32::MAX, delay_ms: dice.between(0, 30) }
        };
        let needed = jobs.iter().map(|job| job.slots).max().unwrap_or(1);
        let workers = dice.between(1, 3).min(u64::from(needed)) as usize;
        let faults = faults(dice);
        Schedule {
            healed_at: faults.last().map_or(0, |(step, _)| *step + 1),
            jobs,
            checkpoint,
            restart,
            failover: if dice.once_in(3) { FailoverStrategy::Full } else { FailoverStrategy::Region },
            compact_after: dice.choose(&[4, 12, 64]).unwrap_or(64),
            workers,
            slots_per_worker: needed.div_ceil(workers as u32) + u32::from(dice.once_in(4)),
            heartbeat_ms: dice.between(30, 120),
            faults,
        }
    }

    /// For the head of a trace.
    pub fn describe(&self) -> String {
        let vertices = |job: &Job| {
            let name = |(vertex, plan): (&crate::job::Vertex, &streamjob_protocol::plan::VertexPlan)| {
                format!("{:?} x{}", vertex.roles, plan.parallelism)
            };
            job.vertices.iter().zip(&job.plan.vertices).map(name).collect::<Vec<_>>().join(", ")
        };
        let jobs: Vec<String> = self.jobs.iter().map(|job| vertices(job)).collect();
        format!(
            "{}\n{:?}\n{:?}, {:?}, {} workers with {} slots, heartbeat {} ms\n{:?}",
            jobs.join("\nlater "),
            self.checkpoint,
            self.failover,
            self.restart,
            self.workers,
            self.slots_per_worker,
            self.heartbeat_ms,
            self.faults
        )
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.iter().any(|(_, other)| *other == fault)
    }
}

fn faults(dice: &mut Dice) -> Vec<(u32, Fault)> {
    // What kills processes and breaks links comes in any mixture; the rest is rarer, because it cuts runs short.
    const COMMON: [Fault; 14] = [
        Fault::CrashWorker,
        Fault::CrashWorker,
        Fault::CrashCoordinator,
        Fault::CrashCoordinator,
        Fault::CrashAll,
        Fault::Isolate,
        Fault::Freeze,
        Fault::FreezeWorker,
        Fault::StallLink,
        Fault::FailTask,
        Fault::Outage,
        Fault::Outage,
        Fault::SlowStore,
        Fault::RequestCheckpoint,
    ];
    let mut faults: Vec<(u32, Fault)> = (0..dice.between(0, 6))
        .map(|_| (dice.between(5, LAST_FAULT) as u32, dice.choose(&COMMON).unwrap_or(Fault::CrashAll)))
        .collect();
    for (rare, once_in) in
        [(Fault::Suspend, 6), (Fault::Cancel, 40), (Fault::DamageManifest, 14), (Fault::DamageFile, 20)]
    {
        if dice.once_in(once_in) {
            let step = dice.between(100, LAST_FAULT) as u32;
            faults.push((step, rare));
            if rare == Fault::DamageManifest || rare == Fault::DamageFile {
                // Damage shows when somebody reads.
                faults.push((step + dice.between(0, 30) as u32, Fault::CrashCoordinator));
            }
        }
    }
    if dice.once_in(2) {
        const REQUESTS: [Fault; 8] = [
            Fault::Savepoint,
            Fault::Savepoint,
            Fault::Stop,
            Fault::Drain,
            Fault::CancelWithSavepoint,
            Fault::Rescale,
            Fault::Rescale,
            Fault::Reconfigure,
        ];
        for _ in 0..dice.between(1, 3) {
            let step = dice.between(20, LAST_FAULT) as u32;
            faults.push((step, dice.choose(&REQUESTS).unwrap_or(Fault::Savepoint)));
            // What is interesting happens right behind it.
            for _ in 0..dice.between(0, 2) {
                let after = step + dice.between(1, 80) as u32;
                let next = [
                    Fault::CrashCoordinator,
                    Fault::CrashWorker,
                    Fault::FailTask,
                    Fault::Outage,
                    Fault::Isolate,
                    Fault::RepeatRequest,
                    Fault::Savepoint,
                    Fault::Stop,
                    Fault::Rescale,
                    Fault::Suspend,
                    Fault::RequestCheckpoint,
                ];
                faults.push((after, dice.choose(&next).unwrap_or(Fault::CrashAll)));
                faults.push((after + dice.between(1, 60) as u32, Fault::RepeatRequest));
            }
        }
    }
    faults.sort_by_key(|(step, _)| *step);
    faults
}
