//! One task: a chain of operators run by one thread, from restore to its last checkpoint.
//!
//! The thread takes mails (checkpoint triggers and notices) and elements from its gate and calls the operators. What a
//! barrier means is the protocol's aligner's to say; writing a snapshot is the upload lane's work.

pub mod chain;
pub mod upload;
pub mod watermarks;

use crate::error::RuntimeError;
use crate::exchange::Element;
use crate::exchange::codec::Decoder;
use crate::exchange::gate::{Gate, Mail, Next, Queued};
use crate::exchange::output::Output;
use crate::faults;
use crate::storage::Storage;
use crate::wire::FromWorker;
use chain::{Chain, ChainedOperator, Route};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use streamjob_api::config::{CheckpointMode, Compression};
use streamjob_dataflow::graph::ExecutionGraph;
use streamjob_dataflow::{Instance, OperatorContext, OperatorMetrics, OperatorRestore, Source, SourceEvent, TaskError};
use streamjob_protocol::alignment::{Aligner, Alignment};
use streamjob_protocol::coordinator::{Barrier, DeclineReason, SnapshotKind, StoreError, TaskStatus};
use streamjob_protocol::ids::{DeploymentId, TaskId};
use streamjob_protocol::key_groups::key_group_range;
use streamjob_protocol::manifest::{OperatorState, SubtaskStats, TaskRestore};
use streamjob_state::{Cut, StateCut, snapshot};
use tokio::sync::mpsc;
use upload::{Aborted, LaneOwner, Upload, Uploader, chains_continue};
use watermarks::{Told, WatermarkValve};

/// Cuts that may wait for the upload lane; more means storage is slower than checkpoints come.
const PENDING_UPLOADS: usize = 4;

/// Plans the job at a parallelism and a max parallelism; the reason if that is not possible.
pub type Planner = Arc<dyn Fn(u32, u32) -> Result<ExecutionGraph, String> + Send + Sync>;

/// What is the same for all tasks of a job.
#[derive(Debug, Clone)]
pub struct JobSettings {
    pub job_name: String,
    pub job_id: String,
    pub mode: CheckpointMode,
    pub checkpointing: bool,
    pub incremental: bool,
    pub compression: Compression,
}

/// Where the time of a task's thread goes, in microseconds, and its operators' counters.
#[derive(Debug)]
pub struct TaskMetrics {
    pub task: TaskId,
    pub busy_us: AtomicU64,
    pub idle_us: AtomicU64,
    pub backpressured_us: AtomicU64,
    /// By uid, in chain order.
    pub operators: Vec<(String, String, Arc<OperatorMetrics>)>,
    /// Of the newest checkpoint.
    pub start_delay_ms: AtomicU64,
    pub alignment_ms: AtomicU64,
}

impl TaskMetrics {
    pub fn new(task: TaskId, graph: &ExecutionGraph) -> Arc<TaskMetrics> {
        Arc::new(TaskMetrics {
            task,
            busy_us: AtomicU64::new(0),
            idle_us: AtomicU64::new(0),
            backpressured_us: AtomicU64::new(0),
            operators: graph.vertices[task.vertex as usize]
                .nodes
                .iter()
                .map(|&node| {
                    (graph.graph.nodes[node].uid.clone(), graph.graph.nodes[node].name.clone(), Arc::default())
                })
                .collect(),
            start_delay_ms: AtomicU64::new(0),
            alignment_ms: AtomicU64::new(0),
        })
    }
}

pub struct TaskSetup {
    pub task: TaskId,
    pub deployment: DeploymentId,
    pub graph: Arc<ExecutionGraph>,
    pub settings: Arc<JobSettings>,
    pub restore: TaskRestore,
    pub gate: Arc<Gate>,
    /// Logical input of each channel of the gate.
    pub inputs: Vec<usize>,
    /// By position in `graph.network_edges` order, those that leave this vertex.
    pub outputs: Vec<(usize, Output)>,
    pub storage: Storage,
    pub control: tokio::runtime::Handle,
    pub answers: mpsc::Sender<FromWorker>,
    pub metrics: Arc<TaskMetrics>,
}

/// Runs the task to its end on the calling thread and reports every change of its state.
pub fn run(setup: TaskSetup) {
    let (task, deployment, answers) = (setup.task, setup.deployment, setup.answers.clone());
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Task::start(setup).and_then(Task::run)));
    let status = match outcome {
        Ok(Ok(())) => TaskStatus::Finished,
        Ok(Err(TaskError::Cancelled)) => TaskStatus::Canceled,
        Ok(Err(TaskError::Fatal(reason))) => TaskStatus::Failed { reason, recoverable: false },
        Ok(Err(TaskError::StateDamaged(reason))) => TaskStatus::StateDamaged { reason },
        Ok(Err(error)) => TaskStatus::Failed { reason: error.to_string(), recoverable: true },
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "unknown".into());
            TaskStatus::Failed {
                reason: format!("the task panicked (a defect of the engine): {text}"),
                recoverable: true,
            }
        }
    };
    if let TaskStatus::Failed { reason, .. } | TaskStatus::StateDamaged { reason } = &status {
        tracing::error!(task = %task, deployment, reason, "task failed");
    }
    // The channel closes only when the process is about to end.
    let _ = answers.blocking_send(FromWorker::TaskStatus { task, deployment, status });
}

struct Task {
    task: TaskId,
    deployment: DeploymentId,
    settings: Arc<JobSettings>,
    gate: Arc<Gate>,
    inputs: Vec<usize>,
    decoders: Vec<Decoder>,
    source: Option<SourceHead>,
    /// Uids of the chain's operators, source excluded, in chain order.
    uids: Vec<String>,
    chain: Chain,
    aligner: Aligner,
    valve: WatermarkValve,
    ended: Vec<bool>,
    drained: bool,
    /// The newest checkpoint that this task cut after its last element.
    finished_in: Option<u64>,
    restored_finished: bool,
    /// The job stopped with what this task was restored from: it has committed, and ends.
    restored_stopped: bool,
    /// Nothing may follow the barrier of this checkpoint, unless it is aborted.
    held_by: Option<u64>,
    /// The next cut must be of whole tables, because there is nothing that deltas could follow.
    whole_next: bool,
    uploads: mpsc::Sender<Upload>,
    /// Told to the upload lane.
    aborted: Aborted,
    answers: mpsc::Sender<FromWorker>,
    metrics: Arc<TaskMetrics>,
}

struct SourceHead {
    uid: String,
    source: Box<dyn Source>,
    routes: Vec<Route>,
    metrics: Arc<OperatorMetrics>,
}

impl Task {
    fn start(setup: TaskSetup) -> Result<Task, TaskError> {
        let graph = &setup.graph;
        let vertex = &graph.vertices[setup.task.vertex as usize];
        let parallelism = graph.plan.vertices[setup.task.vertex as usize].parallelism;
        let key_groups = key_group_range(graph.plan.max_parallelism, parallelism, setup.task.subtask);
        let (network_edges, outputs): (Vec<usize>, Vec<Output>) = setup.outputs.into_iter().unzip();

        let mut restores = restore_operators(&setup.storage, &setup.control, &setup.restore, key_groups)?;
        let mut instances = Vec::with_capacity(vertex.nodes.len());
        for (position, &node) in vertex.nodes.iter().enumerate() {
            let node = &graph.graph.nodes[node];
            let context = OperatorContext {
                job_name: setup.settings.job_name.clone(),
                job_id: setup.settings.job_id.clone(),
                uid: node.uid.clone(),
                name: node.name.clone(),
                subtask: setup.task.subtask,
                parallelism,
                max_parallelism: graph.plan.max_parallelism,
                key_groups,
                attempt: uuid::Uuid::new_v4().simple().to_string(),
                checkpointing: setup.settings.checkpointing,
                metrics: setup.metrics.operators[position].2.clone(),
            };
            let mut restore = restores.remove(&node.uid).unwrap_or_default();
            restore.checkpoint = setup.restore.checkpoint;
            let mut instance = (node.factory)(&context)?;
            match &mut instance {
                Instance::Source(source) => source.open(&context, restore)?,
                Instance::Operator(operator) => operator.open(&context, restore)?,
            }
            instances.push(instance);
        }

        let has_source = matches!(instances.first(), Some(Instance::Source(_)));
        let routes = |node: usize| -> Vec<Route> {
            graph
                .graph
                .edges
                .iter()
                .enumerate()
                .filter(|(_, edge)| edge.from == node)
                .filter_map(|(index, edge)| match network_edges.iter().position(|&edge| edge == index) {
                    Some(output) => Some(Route::Network(output)),
                    None => vertex.nodes.iter().position(|&other| other == edge.to).map(|position| Route::Chained {
                        operator: position - usize::from(has_source),
                        input: edge.input,
                    }),
                })
                .collect()
        };
        let mut source = None;
        let mut operators = Vec::new();
        let mut uids = Vec::new();
        for (position, (instance, &node)) in instances.into_iter().zip(&vertex.nodes).enumerate() {
            let metrics = setup.metrics.operators[position].2.clone();
            let uid = graph.graph.nodes[node].uid.clone();
            match instance {
                Instance::Source(head) if position == 0 => {
                    source = Some(SourceHead { uid, source: head, routes: routes(node), metrics });
                }
                Instance::Source(_) => {
                    return Err(TaskError::Fatal(format!("the source {uid} has an input")));
                }
                Instance::Operator(operator) => {
                    operators.push(ChainedOperator { operator, metrics, routes: routes(node) });
                    uids.push(uid);
                }
            }
        }

        let (uploads, lane) = mpsc::channel(PENDING_UPLOADS);
        let aborted = Aborted::default();
        let lane_of = LaneOwner { task: setup.task, deployment: setup.deployment, key_groups };
        let uploader = Uploader::new(
            setup.storage.clone(),
            lane_of,
            setup.settings.compression,
            &setup.restore,
            aborted.clone(),
            setup.answers.clone(),
        );
        setup.control.spawn(uploader.run(lane));
        let channels = setup.inputs.len();
        Ok(Task {
            task: setup.task,
            deployment: setup.deployment,
            aligner: Aligner::new(channels, setup.settings.mode),
            settings: setup.settings,
            gate: setup.gate,
            decoders: (0..channels).map(|_| Decoder::default()).collect(),
            inputs: setup.inputs,
            source,
            uids,
            chain: Chain::new(operators, outputs),
            valve: WatermarkValve::new(channels),
            ended: vec![false; channels],
            drained: false,
            finished_in: None,
            restored_finished: setup.restore.finished,
            restored_stopped: setup.restore.stopped,
            held_by: None,
            aborted: aborted.clone(),
            whole_next: !chains_continue(&setup.restore, key_groups),
            uploads,
            answers: setup.answers,
            metrics: setup.metrics,
        })
    }

    fn run(mut self) -> Result<(), TaskError> {
        let result = self.process();
        if matches!(result, Err(TaskError::Cancelled)) {
            // A job that is suspended shows what its last checkpoint covers; it is in the journal, so it may.
            for mail in self.gate.remaining_mails() {
                if let Mail::Complete(checkpoint) = mail
                    && let Err(error) = self.complete(checkpoint)
                {
                    tracing::warn!(task = %self.task, checkpoint, %error, "commit left to the next start");
                }
            }
        }
        result
    }

    fn process(&mut self) -> Result<(), TaskError> {
        self.report(TaskStatus::Running);
        if self.restored_stopped {
            // The tasks after it do the same. Those that did it already have closed their inputs: nothing could be sent to them.
            return Ok(());
        }
        if self.restored_finished {
            // All was processed and finished before the checkpoint; downstream has to hear it again.
            self.chain.broadcast(&Element::Watermark(i64::MAX))?;
            if self.drain()? {
                return Ok(());
            }
        }
        loop {
            let started = Instant::now();
            let waited = self.waited();
            let reads = self.source.is_some() && !self.drained && self.held_by.is_none();
            let (done, idle) = if reads { self.step_source()? } else { self.step()? };
            let elapsed = started.elapsed();
            let backpressured = self.waited() - waited;
            add_us(&self.metrics.idle_us, idle);
            add_us(&self.metrics.backpressured_us, backpressured);
            add_us(&self.metrics.busy_us, elapsed.saturating_sub(idle).saturating_sub(backpressured));
            if done {
                return Ok(());
            }
        }
    }

    fn waited(&mut self) -> Duration {
        self.chain.outputs().iter().map(|output| output.waited).sum()
    }

    /// One poll of the source, after all mails. Returns whether the task is done and how long it had nothing to do.
    fn step_source(&mut self) -> Result<(bool, Duration), TaskError> {
        while let Some(mail) = self.gate.try_mail()? {
            if self.on_mail(mail)? {
                return Ok((true, Duration::ZERO));
            }
            if self.drained || self.held_by.is_some() {
                return Ok((false, Duration::ZERO));
            }
        }
        self.fire_processing_time()?;
        let Some(head) = &mut self.source else { return Ok((false, Duration::ZERO)) };
        match head.source.poll(unix_ms())? {
            SourceEvent::Batch(batch) => {
                OperatorMetrics::add(&head.metrics.records_in, batch.len());
                self.chain.emit(&head.routes, &head.metrics, batch)?;
            }
            SourceEvent::Wait(duration) => {
                let start = Instant::now();
                let deadline = self.deadline(Some(start + duration.min(Duration::from_millis(100))));
                let next = self.gate.next(deadline)?;
                let idle = start.elapsed();
                if let Next::Mail(mail) = next {
                    return Ok((self.on_mail(mail)?, idle));
                }
                return Ok((false, idle));
            }
            SourceEvent::End => return Ok((self.end_source()?, Duration::ZERO)),
        }
        Ok((false, Duration::ZERO))
    }

    /// There is nothing more to read: time comes to its end, so that every timer fires.
    fn end_source(&mut self) -> Result<bool, TaskError> {
        let Some(head) = &mut self.source else { return Ok(false) };
        self.chain.emit_watermark(&head.routes, &head.metrics, i64::MAX)?;
        self.finish_operators()?;
        self.drain()
    }

    /// One mail or element.
    fn step(&mut self) -> Result<(bool, Duration), TaskError> {
        let start = Instant::now();
        let deadline = self.deadline(None);
        let next = self.gate.next(deadline)?;
        let idle = start.elapsed();
        let done = match next {
            Next::Mail(mail) => self.on_mail(mail)?,
            Next::TimedOut => {
                self.fire_processing_time()?;
                false
            }
            Next::Element { channel, element } => {
                let element = match element {
                    Queued::Local(element) => element,
                    Queued::Encoded(bytes) => self.decoders[channel].decode(bytes)?,
                };
                let done = self.on_element(channel, element)?;
                self.fire_processing_time()?;
                done
            }
        };
        Ok((done, idle))
    }

    fn deadline(&mut self, limit: Option<Instant>) -> Option<Instant> {
        if self.drained || self.held_by.is_some() {
            return limit;
        }
        let timer = (0..self.chain.count()).filter_map(|index| self.chain.operator(index).next_processing_time()).min();
        let timer = timer.map(|at| Instant::now() + Duration::from_millis(at.saturating_sub(unix_ms()).max(0) as u64));
        match (timer, limit) {
            (Some(timer), Some(limit)) => Some(timer.min(limit)),
            (timer, limit) => timer.or(limit),
        }
    }

    fn fire_processing_time(&mut self) -> Result<(), TaskError> {
        if self.drained || self.held_by.is_some() {
            return Ok(());
        }
        for index in 0..self.chain.count() {
            let due = self.chain.operator(index).next_processing_time();
            if due.is_some() {
                let now = unix_ms();
                if due.is_some_and(|at| at <= now) {
                    self.chain.with(index, |operator, out| operator.on_processing_time(now, out))?;
                }
            }
        }
        Ok(())
    }

    fn on_element(&mut self, channel: usize, element: Element) -> Result<bool, TaskError> {
        match element {
            Element::Batch(batch) => self.chain.process(0, self.inputs[channel], batch)?,
            Element::Watermark(watermark) => {
                let told = self.valve.on_watermark(channel, watermark);
                self.tell(told)?;
            }
            Element::Idle(idle) => {
                let told = self.valve.on_idle(channel, idle);
                self.tell(told)?;
            }
            Element::Barrier(barrier) => {
                let outcome = self.aligner.on_barrier(channel, barrier, unix_ms() as u64);
                self.apply(outcome)?;
            }
            Element::CancelCheckpoint(checkpoint) => {
                let outcome = self.aligner.on_cancel_marker(channel, checkpoint);
                self.apply(outcome)?;
            }
            Element::EndOfData => {
                self.ended[channel] = true;
                if !self.drained {
                    let told = self.valve.on_finished(channel);
                    self.tell(told)?;
                    if self.ended.iter().all(|&ended| ended) {
                        self.finish_operators()?;
                        return self.drain();
                    }
                }
            }
            Element::Closed => {
                let outcome = self.aligner.on_channel_end(channel, unix_ms() as u64);
                self.apply(outcome)?;
            }
        }
        Ok(false)
    }

    fn tell(&mut self, told: Vec<Told>) -> Result<(), TaskError> {
        if self.drained {
            return Ok(());
        }
        for told in told {
            match told {
                Told::Watermark(watermark) => self.chain.watermark(0, watermark)?,
                Told::Idle(idle) => self.chain.idle(0, idle)?,
            }
        }
        Ok(())
    }

    fn finish_operators(&mut self) -> Result<(), TaskError> {
        for index in 0..self.chain.count() {
            self.chain.with(index, |operator, out| operator.finish(out))?;
        }
        Ok(())
    }

    /// All data is out. With checkpointing the task stays for the checkpoint that covers its end.
    fn drain(&mut self) -> Result<bool, TaskError> {
        self.drained = true;
        self.chain.broadcast(&Element::EndOfData)?;
        if !self.settings.checkpointing {
            self.chain.broadcast(&Element::Closed)?;
            return Ok(true);
        }
        self.report(TaskStatus::Drained);
        Ok(false)
    }

    fn on_mail(&mut self, mail: Mail) -> Result<bool, TaskError> {
        match mail {
            Mail::Trigger(barrier) => {
                let outcome = self.aligner.on_trigger(barrier, unix_ms() as u64);
                self.apply(outcome)?;
            }
            Mail::Drain => {
                if self.source.is_some() && !self.drained && self.held_by.is_none() {
                    return self.end_source();
                }
            }
            Mail::Complete(checkpoint) => {
                self.complete(checkpoint)?;
                let ends = |last: Option<u64>| last.is_some_and(|last| checkpoint >= last);
                if ends(self.finished_in) || ends(self.held_by) {
                    self.chain.broadcast(&Element::Closed)?;
                    return Ok(true);
                }
            }
            Mail::Aborted(checkpoint) => {
                self.aborted.insert(checkpoint);
                if self.held_by == Some(checkpoint) {
                    self.held_by = None;
                }
                let outcome = self.aligner.abort(checkpoint);
                self.apply(outcome)?;
                for index in 0..self.chain.count() {
                    self.chain.operator(index).checkpoint_aborted(checkpoint)?;
                }
            }
        }
        Ok(false)
    }

    /// Sinks make visible what the checkpoint covers.
    fn complete(&mut self, checkpoint: u64) -> Result<(), TaskError> {
        faults::point("commit.before").map_err(TaskError::Recoverable)?;
        if let Some(head) = &mut self.source {
            head.source.checkpoint_complete(checkpoint)?;
        }
        for index in 0..self.chain.count() {
            self.chain.operator(index).checkpoint_complete(checkpoint)?;
        }
        faults::point("commit.after").map_err(TaskError::Recoverable)
    }

    fn apply(&mut self, outcome: Vec<Alignment>) -> Result<(), TaskError> {
        for step in outcome {
            match step {
                Alignment::Block(channel) => self.gate.set_blocked(channel, true),
                Alignment::Unblock(channels) => {
                    channels.into_iter().for_each(|channel| self.gate.set_blocked(channel, false));
                }
                Alignment::Checkpoint { barrier, start_delay_ms, alignment_ms } => {
                    self.checkpoint(barrier, start_delay_ms, alignment_ms)?;
                }
                Alignment::Abort { checkpoint, reason } => {
                    self.decline(checkpoint, reason, "alignment ended without all barriers");
                }
                Alignment::ForwardCancel(checkpoint) => self.chain.broadcast(&Element::CancelCheckpoint(checkpoint))?,
            }
        }
        Ok(())
    }

    /// Pre-barrier work, barrier downstream, cut, hand to the upload lane: one step, nothing in between.
    fn checkpoint(&mut self, barrier: Barrier, start_delay_ms: u64, alignment_ms: u64) -> Result<(), TaskError> {
        let checkpoint = barrier.checkpoint;
        let started = Instant::now();
        for index in 0..self.chain.count() {
            self.chain.with(index, |operator, out| operator.before_barrier(checkpoint, out))?;
        }
        self.chain.broadcast(&Element::Barrier(barrier.clone()))?;
        if barrier.last {
            self.held_by = Some(checkpoint);
        }
        faults::point("cut.before").map_err(TaskError::Recoverable)?;
        self.metrics.start_delay_ms.store(start_delay_ms, Ordering::Relaxed);
        self.metrics.alignment_ms.store(alignment_ms, Ordering::Relaxed);
        // A cut that nobody writes would lose its changes: make sure of the place first.
        let Ok(place) = self.uploads.clone().try_reserve_owned() else {
            self.decline(checkpoint, DeclineReason::AsyncException, "storage is still writing earlier checkpoints");
            return Ok(());
        };
        let (cut, savepoint) = match barrier.kind {
            SnapshotKind::Savepoint { directory } => (Cut::Copy, Some(directory)),
            SnapshotKind::Checkpoint { whole } => {
                let changes = self.settings.incremental && !whole && !std::mem::take(&mut self.whole_next);
                (if changes { Cut::Changes } else { Cut::Whole }, None)
            }
        };
        let mut cuts: Vec<(String, StateCut)> = Vec::with_capacity(self.uids.len() + 1);
        if let Some(head) = &mut self.source {
            cuts.push((head.uid.clone(), head.source.snapshot(checkpoint)?));
        }
        for (index, uid) in self.uids.iter().enumerate() {
            cuts.push((uid.clone(), self.chain.operator(index).snapshot(checkpoint, cut)?));
        }
        if self.drained {
            self.finished_in.get_or_insert(checkpoint);
        }
        let stats = SubtaskStats {
            start_delay_ms,
            alignment_ms,
            sync_ms: started.elapsed().as_millis() as u64,
            ..SubtaskStats::default()
        };
        let finished = self.drained;
        place.send(Upload { checkpoint, savepoint, cuts, finished, stats, cut_at: Instant::now() });
        Ok(())
    }

    fn decline(&mut self, checkpoint: u64, reason: DeclineReason, message: &str) {
        self.answer(FromWorker::Decline {
            task: self.task,
            deployment: self.deployment,
            checkpoint,
            reason,
            message: message.to_owned(),
        });
    }

    fn report(&mut self, status: TaskStatus) {
        self.answer(FromWorker::TaskStatus { task: self.task, deployment: self.deployment, status });
    }

    fn answer(&mut self, message: FromWorker) {
        // Fails only when the process is stopping, and then the gate is cancelled as well.
        let _ = self.answers.blocking_send(message);
    }
}

/// Downloads and decodes what the operators of a task get back.
fn restore_operators(
    storage: &Storage,
    control: &tokio::runtime::Handle,
    restore: &TaskRestore,
    key_groups: streamjob_protocol::manifest::KeyGroupRange,
) -> Result<BTreeMap<String, OperatorRestore>, TaskError> {
    let mut restored = BTreeMap::new();
    for (uid, state) in &restore.operators {
        restored.insert(uid.clone(), restore_operator(storage, control, uid, state, key_groups)?);
    }
    Ok(restored)
}

fn restore_operator(
    storage: &Storage,
    control: &tokio::runtime::Handle,
    uid: &str,
    state: &OperatorState,
    key_groups: streamjob_protocol::manifest::KeyGroupRange,
) -> Result<OperatorRestore, TaskError> {
    let mut result = OperatorRestore::default();
    for list in &state.lists {
        result.lists.entry(list.name.clone()).or_default().extend(list.entries.iter().cloned());
    }
    for handle in &state.keyed {
        // A file may hold more than its chain stands for: after a change of parallelism it can be in several chains.
        let Some(key_groups) = handle.key_groups.intersect(&key_groups) else { continue };
        for file in &handle.files {
            let what = || format!("state '{}' of {uid} from {}", handle.name, file.path);
            let failed = |reason: String| RuntimeError::Restore { what: what(), reason }.to_string();
            let bytes = control.block_on(storage.get_verified(file)).map_err(|error| match error {
                StoreError::Damaged(reason) => TaskError::StateDamaged(failed(reason)),
                StoreError::Unavailable(reason) => TaskError::Recoverable(failed(reason)),
            })?;
            let rows = snapshot::decode(bytes, key_groups)
                .map_err(|error| TaskError::StateDamaged(failed(error.to_string())))?;
            result.keyed.entry(handle.name.clone()).or_default().extend(rows);
        }
    }
    Ok(result)
}

fn add_us(counter: &AtomicU64, duration: Duration) {
    counter.fetch_add(duration.as_micros() as u64, Ordering::Relaxed);
}

pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |duration| duration.as_millis() as i64)
}
