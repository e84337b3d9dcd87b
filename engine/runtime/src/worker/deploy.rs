//! The tasks of a worker process: wiring them up, handing them mails, stopping them.

use crate::exchange::gate::{Gate, Mail};
use crate::exchange::network::Network;
use crate::exchange::output::{Output, Sender};
use crate::storage::Storage;
use crate::task::{self, JobSettings, Planner, TaskMetrics, TaskSetup};
use crate::wire::FromWorker;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streamjob_dataflow::TaskError;
use streamjob_dataflow::graph::ExecutionGraph;
use streamjob_protocol::coordinator::TaskStatus;
use streamjob_protocol::ids::{DeploymentId, TaskId, WorkerId};
use streamjob_protocol::manifest::TaskRestore;
use streamjob_protocol::plan::Channel;
use tokio::sync::mpsc;

type TaskKey = (TaskId, DeploymentId);

struct Session {
    worker: WorkerId,
    network: Arc<Network>,
    answers: mpsc::Sender<FromWorker>,
}

#[derive(Default)]
struct Table {
    session: Option<Session>,
    running: HashMap<TaskKey, Arc<Gate>>,
    /// Of the newest deployment of every task, running or not: totals outlive the task.
    metrics: BTreeMap<TaskId, Arc<TaskMetrics>>,
}

/// What a plan depends on beside the job file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    pub parallelism: u32,
    pub max_parallelism: u32,
}

/// The job at one scale.
#[derive(Clone)]
pub struct Planned {
    scale: Scale,
    graph: Arc<ExecutionGraph>,
    channels: Arc<Vec<Channel>>,
}

impl Planned {
    pub fn new(parallelism: u32, graph: ExecutionGraph) -> Planned {
        let scale = Scale { parallelism, max_parallelism: graph.plan.max_parallelism };
        Planned { scale, channels: Arc::new(graph.plan.channels()), graph: Arc::new(graph) }
    }
}

pub struct Tasks {
    /// What was deployed last.
    planned: Mutex<Planned>,
    planner: Planner,
    settings: Arc<JobSettings>,
    storage: Storage,
    control: tokio::runtime::Handle,
    table: Mutex<Table>,
}

impl Tasks {
    pub fn new(
        planned: Planned,
        planner: Planner,
        settings: Arc<JobSettings>,
        storage: Storage,
        control: tokio::runtime::Handle,
    ) -> Arc<Tasks> {
        Arc::new(Tasks { planned: Mutex::new(planned), planner, settings, storage, control, table: Mutex::default() })
    }

    /// Every process plans for itself, from the same job file: graphs hold code and cannot be sent.
    fn planned(&self, scale: Scale) -> Result<Planned, String> {
        let mut planned = self.planned.lock();
        if planned.scale != scale {
            *planned = Planned::new(scale.parallelism, (self.planner)(scale.parallelism, scale.max_parallelism)?);
        }
        Ok(planned.clone())
    }

    pub fn metrics(&self) -> Vec<Arc<TaskMetrics>> {
        self.table.lock().metrics.values().cloned().collect()
    }

    pub fn has_session(&self) -> bool {
        self.table.lock().session.is_some()
    }

    pub fn begin_session(&self, worker: WorkerId, network: Arc<Network>, answers: mpsc::Sender<FromWorker>) {
        self.table.lock().session = Some(Session { worker, network, answers });
    }

    /// Cancels everything and waits for it; a task that does not stop ends the process, because it might still write.
    pub async fn end_session(&self, limit: Duration) {
        {
            let mut table = self.table.lock();
            table.session = None;
            table.metrics.clear();
            table.running.values().for_each(|gate| gate.cancel());
        }
        let deadline = Instant::now() + limit;
        while !self.table.lock().running.is_empty() {
            if Instant::now() >= deadline {
                tracing::error!("tasks do not stop; the process ends so that they cannot write any more");
                std::process::exit(70);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn mail(&self, targets: &[TaskKey], mail: &Mail) {
        let table = self.table.lock();
        for key in targets {
            if let Some(gate) = table.running.get(key) {
                gate.mail(mail.clone());
            }
        }
    }

    pub fn cancel(self: &Arc<Self>, task: TaskId, deployment: DeploymentId, limit: Duration) {
        let key = (task, deployment);
        let (running, answers) = {
            let table = self.table.lock();
            (table.running.get(&key).cloned(), table.session.as_ref().map(|session| session.answers.clone()))
        };
        let tasks = self.clone();
        match running {
            Some(gate) => {
                gate.cancel();
                self.control.spawn(async move {
                    tokio::time::sleep(limit).await;
                    if tasks.table.lock().running.contains_key(&key) {
                        tracing::error!(task = %task, "the task does not stop; the process ends so that it cannot write any more");
                        std::process::exit(70);
                    }
                });
            }
            // It ended before the message came; the coordinator need not wait for it.
            None => {
                if let Some(answers) = answers {
                    self.control.spawn(async move {
                        let status = TaskStatus::Canceled;
                        let _ = answers.send(FromWorker::TaskStatus { task, deployment, status }).await;
                    });
                }
            }
        }
    }

    /// None of these tasks can start.
    fn refuse(&self, deployment: DeploymentId, tasks: Vec<TaskId>, reason: &str) {
        let Some(answers) = self.table.lock().session.as_ref().map(|session| session.answers.clone()) else { return };
        let reason = reason.to_owned();
        self.control.spawn(async move {
            for task in tasks {
                let status = TaskStatus::Failed { reason: reason.clone(), recoverable: false };
                let _ = answers.send(FromWorker::TaskStatus { task, deployment, status }).await;
            }
        });
    }

    pub fn deploy(
        self: &Arc<Self>,
        deployment: DeploymentId,
        scale: Scale,
        tasks: Vec<(TaskId, TaskRestore)>,
        placement: &[(TaskId, WorkerId)],
        peers: &BTreeMap<u64, SocketAddr>,
    ) {
        let planned = match self.planned(scale) {
            Ok(planned) => planned,
            Err(reason) => {
                let Scale { parallelism, max_parallelism } = scale;
                let reason = format!(
                    "the job cannot be planned at parallelism {parallelism} of at most {max_parallelism}: {reason}"
                );
                self.refuse(deployment, tasks.into_iter().map(|(task, _)| task).collect(), &reason);
                return;
            }
        };
        let workers: HashMap<TaskId, WorkerId> = placement.iter().copied().collect();
        let mut gates: HashMap<TaskId, Arc<Gate>> = HashMap::new();
        for (task, _) in &tasks {
            let inputs = planned.channels.iter().filter(|channel| channel.to == *task).count();
            gates.insert(*task, Gate::new(inputs));
        }
        let mut table = self.table.lock();
        // Of a plan with other tasks nothing is left to show.
        let known = planned.graph.plan.tasks();
        table.metrics.retain(|task, _| known.contains(task));
        let Some((me, network, answers)) =
            table.session.as_ref().map(|session| (session.worker, session.network.clone(), session.answers.clone()))
        else {
            return;
        };
        for (task, restore) in tasks {
            let Some(gate) = gates.get(&task).cloned() else { continue };
            let metrics = TaskMetrics::new(task, &planned.graph);
            table.metrics.insert(task, metrics.clone());
            table.running.insert((task, deployment), gate.clone());
            let wiring = Wiring {
                tasks: self.clone(),
                planned: planned.clone(),
                me,
                network: network.clone(),
                task,
                deployment,
                gates: gates.clone(),
                workers: workers.clone(),
                peers: peers.clone(),
            };
            let setup = TaskSetup {
                task,
                deployment,
                graph: planned.graph.clone(),
                settings: self.settings.clone(),
                restore,
                gate,
                inputs: Vec::new(),
                outputs: Vec::new(),
                storage: self.storage.clone(),
                control: self.control.clone(),
                answers: answers.clone(),
                metrics,
            };
            let spawned = std::thread::Builder::new().name(format!("task-{task}")).spawn(move || wiring.run(setup));
            if let Err(error) = spawned {
                table.running.remove(&(task, deployment));
                let reason = format!("no thread for the task: {error}");
                let answers = answers.clone();
                self.control.spawn(async move {
                    let status = TaskStatus::Failed { reason, recoverable: true };
                    let _ = answers.send(FromWorker::TaskStatus { task, deployment, status }).await;
                });
            }
        }
    }
}

/// What a task's thread needs to connect itself.
struct Wiring {
    tasks: Arc<Tasks>,
    planned: Planned,
    me: WorkerId,
    network: Arc<Network>,
    task: TaskId,
    deployment: DeploymentId,
    gates: HashMap<TaskId, Arc<Gate>>,
    workers: HashMap<TaskId, WorkerId>,
    peers: BTreeMap<u64, SocketAddr>,
}

impl Wiring {
    fn run(self, mut setup: TaskSetup) {
        let mut inputs = Vec::new();
        let mut outputs = Vec::new();
        let (task, deployment, answers) = (self.task, self.deployment, setup.answers.clone());
        match self.connect(&mut setup, &mut inputs, &mut outputs) {
            Ok(()) => task::run(setup),
            Err(error) => {
                let status = match error {
                    TaskError::Cancelled => TaskStatus::Canceled,
                    error => TaskStatus::Failed { reason: error.to_string(), recoverable: true },
                };
                drop(setup);
                let _ = answers.blocking_send(FromWorker::TaskStatus { task, deployment, status });
            }
        }
        self.network.release(&inputs, &outputs);
        self.tasks.table.lock().running.remove(&(task, deployment));
    }

    fn worker_of(&self, task: TaskId) -> Result<WorkerId, TaskError> {
        let missing = || TaskError::Recoverable(format!("the deployment does not say where task {task} runs"));
        self.workers.get(&task).copied().ok_or_else(missing)
    }

    fn connect(
        &self,
        setup: &mut TaskSetup,
        inputs: &mut Vec<(u64, u32)>,
        outputs: &mut Vec<(u64, u32)>,
    ) -> Result<(), TaskError> {
        let graph = &self.planned.graph;
        let max_parallelism = graph.plan.max_parallelism;
        let mut senders: BTreeMap<u32, Vec<Sender>> = BTreeMap::new();
        // Position of each channel in its consumer's gate.
        let mut positions: HashMap<TaskId, usize> = HashMap::new();
        for (number, channel) in self.planned.channels.iter().enumerate() {
            let position = positions.entry(channel.to).or_insert(0);
            let index = *position;
            *position += 1;
            let key = (self.deployment, number as u32);
            if channel.to == self.task {
                let edge = graph.network_edges[channel.edge as usize];
                setup.inputs.push(graph.graph.edges[edge].input);
                let producer = self.worker_of(channel.from)?;
                if producer != self.me {
                    inputs.push(key);
                    self.network.receive(key, setup.gate.clone(), index, producer.0);
                }
            }
            if channel.from == self.task {
                let consumer = self.worker_of(channel.to)?;
                let sender = if consumer == self.me {
                    let gate = self.gates.get(&channel.to).cloned().ok_or_else(|| {
                        TaskError::Recoverable(format!("task {} is not deployed beside its producer", channel.to))
                    })?;
                    Sender::Local { gate, channel: index }
                } else {
                    let address = self.peers.get(&consumer.0).copied().ok_or_else(|| {
                        TaskError::Recoverable(format!("the deployment does not say where {consumer} listens"))
                    })?;
                    outputs.push(key);
                    let channel = self.network.channel(key, consumer.0, address, setup.gate.clone())?;
                    Sender::Remote { channel, encoder: Default::default() }
                };
                senders.entry(channel.edge).or_default().push(sender);
            }
        }
        for (edge, senders) in senders {
            let edge = graph.network_edges[edge as usize];
            let exchange = graph.graph.edges[edge].exchange.clone();
            let output = Output::new(exchange, senders, max_parallelism, setup.gate.clone());
            setup.outputs.push((edge, output));
        }
        Ok(())
    }
}
