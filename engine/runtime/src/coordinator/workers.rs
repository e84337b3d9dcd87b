//! Connections of workers: registration, heartbeats, messages out, and the loss of a worker.

use super::status::{Load, WorkerInfo};
use super::{CoordinatorOptions, Input, Token};
use crate::error::RuntimeError;
use crate::task::unix_ms;
use crate::wire::{self, FromWorker, TaskReport, ToWorker};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;
use streamjob_protocol::coordinator::{Action, Event};
use streamjob_protocol::ids::{DeploymentId, TaskId, WorkerId};
use streamjob_protocol::plan::JobPlan;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// Messages waiting for a worker; one that lets more pile up is as good as gone.
const OUTBOX: usize = 4096;
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Registration {
    pub job_id: String,
    pub fingerprint: String,
    pub slots: u32,
    pub data_addr: SocketAddr,
    pub metrics_addr: Option<SocketAddr>,
    pub pid: u32,
    pub outbox: mpsc::Sender<ToWorker>,
}

#[derive(Clone, Copy)]
struct Heartbeat {
    interval: Duration,
    timeout: Duration,
}

/// Accepts workers until the process ends.
pub(crate) async fn listen(
    address: SocketAddr,
    inbox: mpsc::Sender<Input>,
    options: &CoordinatorOptions,
    incarnation: u64,
) -> Result<(), RuntimeError> {
    let failed = |reason: String| RuntimeError::Listen { address: address.to_string(), reason };
    let token = options.rest.token.clone();
    if token.is_none() && !address.ip().is_loopback() {
        return Err(failed(
            "anybody could register as a worker there: set STREAMJOB_TOKEN or STREAMJOB_TOKEN_FILE".into(),
        ));
    }
    let listener = TcpListener::bind(address).await.map_err(|error| failed(error.to_string()))?;
    let heartbeat = Heartbeat {
        interval: Duration::from_millis(options.config.heartbeat.interval_ms),
        timeout: Duration::from_millis(options.config.heartbeat.timeout_ms),
    };
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(serve(stream, inbox.clone(), heartbeat, incarnation, token.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a worker's connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

async fn serve(
    stream: TcpStream,
    inbox: mpsc::Sender<Input>,
    heartbeat: Heartbeat,
    incarnation: u64,
    expected: Option<Token>,
) {
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.into_split();
    let first = tokio::time::timeout(REGISTRATION_TIMEOUT, wire::receive::<FromWorker>(&mut reader)).await;
    let Ok(Ok(Some(FromWorker::Register { job_id, fingerprint, slots, data_addr, metrics_addr, pid, token }))) = first
    else {
        // Not a worker, or not one of this version.
        return;
    };
    if let Some(expected) = expected
        && !token.is_some_and(|token| expected.is(&token))
    {
        tracing::warn!(pid, %data_addr, "a worker without the job's token was refused");
        let reason = "it does not have the job's token (STREAMJOB_TOKEN or STREAMJOB_TOKEN_FILE)".to_owned();
        // Who is refused learns it from the end of the connection too.
        let _ = wire::send(&mut writer, &ToWorker::Refused { reason }).await;
        return;
    }
    let (outbox, mut outgoing) = mpsc::channel::<ToWorker>(OUTBOX);
    let (answer, answered) = oneshot::channel();
    let registration = Registration { job_id, fingerprint, slots, data_addr, metrics_addr, pid, outbox };
    if inbox.send(Input::Register(registration, answer)).await.is_err() {
        return;
    }
    let worker = match answered.await {
        Ok(Ok(worker)) => worker,
        Ok(Err(reason)) => {
            let _ = wire::send(&mut writer, &ToWorker::Refused { reason }).await;
            return;
        }
        Err(_) => return,
    };
    let write = async {
        if let Err(error) = wire::send(&mut writer, &ToWorker::Registered { worker, incarnation }).await {
            return error.to_string();
        }
        let mut beat = tokio::time::interval(heartbeat.interval);
        loop {
            let message = tokio::select! {
                biased;
                message = outgoing.recv() => match message {
                    Some(message) => message,
                    None => return "its connection was given up".to_owned(),
                },
                _ = beat.tick() => ToWorker::Heartbeat,
            };
            if let Err(error) = wire::send(&mut writer, &message).await {
                return error.to_string();
            }
        }
    };
    let read = async {
        loop {
            match tokio::time::timeout(heartbeat.timeout, wire::receive::<FromWorker>(&mut reader)).await {
                Ok(Ok(Some(FromWorker::Heartbeat))) => {}
                Ok(Ok(Some(message))) => {
                    if inbox.send(Input::FromWorker(worker, message)).await.is_err() {
                        return "the coordinator stops".to_owned();
                    }
                }
                Ok(Ok(None)) => return "it closed the connection".to_owned(),
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("no sign of life for {} ms", heartbeat.timeout.as_millis()),
            }
        }
    };
    let reason = tokio::select! { reason = write => reason, reason = read => reason };
    let _ = inbox.send(Input::WorkerGone(worker, reason)).await;
}

struct Worker {
    outbox: mpsc::Sender<ToWorker>,
    data_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    pid: u32,
    slots: u32,
    /// Unix milliseconds of its last message.
    heard_at: u64,
}

/// The registered workers.
pub(crate) struct Workers {
    job_id: String,
    /// As every process of the job planned it when it started.
    plan: JobPlan,
    /// With which tasks are deployed.
    max_parallelism: u32,
    next: u64,
    connected: BTreeMap<WorkerId, Worker>,
    reports: HashMap<TaskId, TaskReport>,
    loads: HashMap<TaskId, Load>,
}

impl Workers {
    pub fn new(job_id: String, plan: JobPlan) -> Workers {
        let max_parallelism = plan.max_parallelism;
        let (connected, reports, loads) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        Workers { job_id, plan, max_parallelism, next: 1, connected, reports, loads }
    }

    pub fn set_max_parallelism(&mut self, max_parallelism: u32) {
        self.max_parallelism = max_parallelism;
    }

    pub fn register(
        &mut self,
        registration: Registration,
        answer: oneshot::Sender<Result<WorkerId, String>>,
    ) -> Option<Event> {
        if registration.fingerprint != self.plan.fingerprint {
            let _ = answer.send(Err(format!(
                "it planned another job graph (job id {}, fingerprint {}, expected {})",
                registration.job_id, registration.fingerprint, self.plan.fingerprint
            )));
            return None;
        }
        if registration.job_id != self.job_id {
            let found = registration.job_id;
            let _ =
                answer.send(Err(format!("it runs tasks of job {found}, this is the coordinator of {}", self.job_id)));
            return None;
        }
        let worker = WorkerId(self.next);
        self.next += 1;
        if answer.send(Ok(worker)).is_err() {
            return None;
        }
        tracing::info!(worker = %worker, pid = registration.pid, slots = registration.slots, "worker registered");
        let slots = registration.slots;
        self.connected.insert(
            worker,
            Worker {
                outbox: registration.outbox,
                data_addr: registration.data_addr,
                metrics_addr: registration.metrics_addr,
                pid: registration.pid,
                slots,
                heard_at: unix_ms() as u64,
            },
        );
        Some(Event::WorkerRegistered { worker, slots })
    }

    pub fn gone(&mut self, worker: WorkerId, reason: String) -> Option<Event> {
        self.connected.remove(&worker)?;
        tracing::warn!(worker = %worker, reason, "worker lost");
        Some(Event::WorkerLost { worker, reason: format!("{worker} lost: {reason}") })
    }

    pub fn on_message(&mut self, worker: WorkerId, message: FromWorker) -> Option<Event> {
        self.connected.get_mut(&worker)?.heard_at = unix_ms() as u64;
        match message {
            FromWorker::Register { .. } | FromWorker::Heartbeat => None,
            FromWorker::Metrics { tasks } => {
                for report in tasks {
                    if let Some(load) = self.reports.get(&report.task).and_then(|last| Load::between(last, &report)) {
                        self.loads.insert(report.task, load);
                    }
                    self.reports.insert(report.task, report);
                }
                None
            }
            FromWorker::TaskStatus { task, deployment, status } => Some(Event::TaskStatus { task, deployment, status }),
            FromWorker::Ack { task, deployment, checkpoint, snapshot, stats } => {
                Some(Event::CheckpointAck { task, deployment, checkpoint, snapshot, stats })
            }
            FromWorker::Decline { task, deployment, checkpoint, reason, message } => {
                Some(Event::CheckpointDecline { task, deployment, checkpoint, reason, message })
            }
        }
    }

    pub fn reports(&self) -> Vec<TaskReport> {
        let mut reports: Vec<TaskReport> = self.reports.values().cloned().collect();
        reports.sort_by_key(|report| report.task);
        reports
    }

    /// Id, data address, metrics address, pid, slots.
    pub fn list(&self) -> impl Iterator<Item = (WorkerId, SocketAddr, Option<SocketAddr>, u32, u32)> {
        self.connected.iter().map(|(id, worker)| (*id, worker.data_addr, worker.metrics_addr, worker.pid, worker.slots))
    }

    pub fn loads(&self) -> HashMap<TaskId, Load> {
        self.loads.clone()
    }

    pub fn infos(&self) -> Vec<WorkerInfo> {
        let info = |(id, worker): (&WorkerId, &Worker)| WorkerInfo {
            id: *id,
            data_addr: worker.data_addr,
            metrics_addr: worker.metrics_addr,
            slots: worker.slots,
            heard_at: worker.heard_at,
        };
        self.connected.iter().map(info).collect()
    }

    /// The worker closed its connection because the job is over.
    pub fn leaves(&mut self, worker: WorkerId) {
        self.connected.remove(&worker);
    }

    pub fn is_empty(&self) -> bool {
        self.connected.is_empty()
    }

    pub fn shutdown(&self, reason: &str) {
        for worker in self.connected.values() {
            let _ = worker.outbox.try_send(ToWorker::Shutdown { reason: reason.to_owned() });
        }
    }

    /// Carries out an action that is a message to workers; gives back any other.
    pub fn carry_out(&mut self, action: Action, lost: &mut Vec<Event>) -> Option<Action> {
        match action {
            Action::Deploy { deployment, parallelism, tasks } => {
                let placement: Vec<(TaskId, WorkerId)> = tasks.iter().map(|task| (task.task, task.worker)).collect();
                let peers: BTreeMap<u64, SocketAddr> = placement
                    .iter()
                    .filter_map(|(_, worker)| Some((worker.0, self.connected.get(worker)?.data_addr)))
                    .collect();
                let mut by_worker: BTreeMap<WorkerId, Vec<_>> = BTreeMap::new();
                for task in tasks {
                    self.reports.remove(&task.task);
                    self.loads.remove(&task.task);
                    by_worker.entry(task.worker).or_default().push((task.task, task.restore));
                }
                for (worker, tasks) in by_worker {
                    let (placement, peers) = (placement.clone(), peers.clone());
                    let max_parallelism = self.max_parallelism;
                    let message =
                        ToWorker::Deploy { deployment, parallelism, max_parallelism, tasks, placement, peers };
                    self.send(worker, message, lost);
                }
            }
            Action::CancelTasks { deployment, tasks } => {
                let mut by_worker: BTreeMap<WorkerId, Vec<TaskId>> = BTreeMap::new();
                for (worker, task) in tasks {
                    by_worker.entry(worker).or_default().push(task);
                }
                for (worker, tasks) in by_worker {
                    self.send(worker, ToWorker::Cancel { deployment, tasks }, lost);
                }
            }
            // Dropping the outbox ends the connection, and with it the worker's tasks.
            Action::DropWorker { worker, reason } => lost.extend(self.gone(worker, reason)),
            Action::TriggerCheckpoint { barrier, tasks } => {
                self.fan_out(tasks, lost, |tasks| ToWorker::Trigger { barrier: barrier.clone(), tasks });
            }
            Action::DrainSources { tasks } => self.fan_out(tasks, lost, |tasks| ToWorker::Drain { tasks }),
            Action::NotifyComplete { checkpoint, tasks } => {
                self.fan_out(tasks, lost, |tasks| ToWorker::Complete { checkpoint, tasks });
            }
            Action::NotifyAborted { checkpoint, tasks } => {
                self.fan_out(tasks, lost, |tasks| ToWorker::Aborted { checkpoint, tasks });
            }
            other => return Some(other),
        }
        None
    }

    fn fan_out(
        &mut self,
        tasks: Vec<(WorkerId, TaskId, DeploymentId)>,
        lost: &mut Vec<Event>,
        message: impl Fn(Vec<(TaskId, DeploymentId)>) -> ToWorker,
    ) {
        let mut by_worker: BTreeMap<WorkerId, Vec<(TaskId, DeploymentId)>> = BTreeMap::new();
        for (worker, task, deployment) in tasks {
            by_worker.entry(worker).or_default().push((task, deployment));
        }
        for (worker, tasks) in by_worker {
            self.send(worker, message(tasks), lost);
        }
    }

    fn send(&mut self, worker: WorkerId, message: ToWorker, lost: &mut Vec<Event>) {
        let Some(target) = self.connected.get(&worker) else { return };
        if target.outbox.try_send(message).is_err() {
            // Dropping the outbox ends the connection, and with it the worker's tasks.
            lost.extend(self.gone(worker, "it does not take messages any more".into()));
        }
    }
}
