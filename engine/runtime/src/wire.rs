//! Messages between coordinator and workers: length-prefixed JSON over one TCP connection a worker.

use crate::coordinator::Token;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use streamjob_protocol::coordinator::{Barrier, DeclineReason, TaskStatus};
use streamjob_protocol::ids::{CheckpointId, DeploymentId, TaskId, WorkerId};
use streamjob_protocol::manifest::{SubtaskStats, TaskRestore, TaskSnapshot};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A frame beyond this is garbage, not a message.
const MAX_FRAME: u32 = 256 << 20;
/// A peer that takes longer to accept a message is as good as gone.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    Register {
        job_id: String,
        fingerprint: String,
        slots: u32,
        /// Where other workers connect to.
        data_addr: SocketAddr,
        metrics_addr: Option<SocketAddr>,
        pid: u32,
        /// The job's, if it has one: who registers gets state and data.
        token: Option<Token>,
    },
    Heartbeat,
    TaskStatus {
        task: TaskId,
        deployment: DeploymentId,
        status: TaskStatus,
    },
    Ack {
        task: TaskId,
        deployment: DeploymentId,
        checkpoint: CheckpointId,
        snapshot: TaskSnapshot,
        stats: SubtaskStats,
    },
    Decline {
        task: TaskId,
        deployment: DeploymentId,
        checkpoint: CheckpointId,
        reason: DeclineReason,
        message: String,
    },
    Metrics {
        tasks: Vec<TaskReport>,
    },
}

/// Counters since the task was deployed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskReport {
    pub task: TaskId,
    pub operators: Vec<OperatorReport>,
    pub busy_us: u64,
    pub idle_us: u64,
    pub backpressured_us: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperatorReport {
    pub uid: String,
    pub name: String,
    pub records_in: u64,
    pub records_out: u64,
    pub records_skipped: u64,
    pub late_records_dropped: u64,
    pub watermark: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// `incarnation` names this coordinator process; data connections carry it.
    Registered {
        worker: WorkerId,
        incarnation: u64,
    },
    Refused {
        reason: String,
    },
    Heartbeat,
    Deploy {
        deployment: DeploymentId,
        /// Of the plan that the tasks belong to.
        parallelism: u32,
        max_parallelism: u32,
        tasks: Vec<(TaskId, TaskRestore)>,
        /// Every task of the deployment and the worker it runs on.
        placement: Vec<(TaskId, WorkerId)>,
        /// Data addresses of those workers.
        peers: BTreeMap<u64, SocketAddr>,
    },
    Cancel {
        deployment: DeploymentId,
        tasks: Vec<TaskId>,
    },
    Trigger {
        barrier: Barrier,
        tasks: Vec<(TaskId, DeploymentId)>,
    },
    /// Sources end as if they had read everything.
    Drain {
        tasks: Vec<(TaskId, DeploymentId)>,
    },
    Complete {
        checkpoint: CheckpointId,
        tasks: Vec<(TaskId, DeploymentId)>,
    },
    Aborted {
        checkpoint: CheckpointId,
        tasks: Vec<(TaskId, DeploymentId)>,
    },
    /// The job is over; stop and exit.
    Shutdown {
        reason: String,
    },
}

pub async fn send<T: Serialize>(stream: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    match tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(&frame)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")),
    }
}

/// `Ok(None)` when the peer closed the connection between two messages.
pub async fn receive<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let mut length = [0u8; 4];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(length);
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {length} bytes is not one of ours"),
        ));
    }
    let mut body = vec![0u8; length as usize];
    stream.read_exact(&mut body).await?;
    Ok(Some(serde_json::from_slice(&body)?))
}
